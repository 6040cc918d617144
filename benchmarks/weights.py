"""Checkpoints for benchmarks: the embedded one in the published format, and random weights of the published size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from matris import load
from matris.model.checkpoints import Card, save
from matris.model.config import ModelConfig
from matris.model.network import MatRIS
from matris.model.official import names

if TYPE_CHECKING:
    from pathlib import Path


def write_published(path: Path) -> None:
    """
    Write the embedded checkpoint, without element energies, as a file that both packages read.

    Some tensors differ by axes of length one; the published side reshapes them.
    """
    network = load(device="cpu").network
    state = {}
    ours = network.state_dict()
    for name, group in names(network.config, magmoms=False).items():
        state |= dict(zip(group, ours[name].chunk(len(group)), strict=True))
    head, d = "magmom_head.magmom_head.layers", network.config.node_feat_dim  # the published network always has it
    state |= {f"{head}.0.weight": torch.zeros(2 * d, d), f"{head}.0.bias": torch.zeros(2 * d)}
    state |= {f"{head}.3.weight": torch.zeros(1, 2 * d), f"{head}.3.bias": torch.zeros(1)}
    config = {**network.config.to_dict(), "reference_energy": None}
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
