"""Checkpoints for benchmarks: a small one in the published format, and random weights of the published size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from matris.model.checkpoints import Card, read_file, save
from matris.model.config import ModelConfig
from matris.model.network import MatRIS
from matris.model.official import names

SMALL = Path(__file__).parents[1] / "tests" / "data" / "small_published.safetensors"
"""A small trained network of the published architecture, which the published package computes too."""


def write_published(path: Path) -> None:
    """
    Write the network of `SMALL`, without element energies, as a file that both packages read.

    Some tensors differ by axes of length one; the published side reshapes them.
    """
    network, _ = read_file(SMALL)
    state = {}
    ours = network.state_dict()
    for name, group in names(network.config, magmoms=False).items():
        state |= dict(zip(group, ours[name].chunk(len(group)), strict=True))
    head, d = "magmom_head.magmom_head.layers", network.config.node_feat_dim  # the published network always has it
    state |= {f"{head}.0.weight": torch.zeros(2 * d, d), f"{head}.0.bias": torch.zeros(2 * d)}
    state |= {f"{head}.3.weight": torch.zeros(1, 2 * d), f"{head}.3.bias": torch.zeros(1)}
    config = {**network.config.to_dict(), "reference_energy": None}
    del config["smooth"]  # False, and unknown to the published package
    torch.save({"config": config, "state_dict": state}, path)


def write_random(path: Path, config: dict[str, Any], elements: tuple[str, ...]) -> None:
    """
    Write random weights as a checkpoint in our format.

    Parameters
    ----------
    path
        File to write.
    config
        Config of the network, as published.
    elements
        Elements in its card.
    """
    torch.manual_seed(0)
    save(path, MatRIS(ModelConfig.from_dict(config), magmoms=False), Card("random", "matpes-pbe", "efs", elements))
