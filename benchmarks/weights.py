"""The embedded checkpoint in the published layout, so that both packages run the same weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from matris import load
from matris.official import names

if TYPE_CHECKING:
    from pathlib import Path


def write_published(path: Path) -> None:
    """
    Write the embedded checkpoint as a file that both packages read, without element energies.

    Axes of length one differ; the published side reshapes.
    """
    network = load(device="cpu").network
    state = {}
    ours = network.state_dict()
    for name, group in names(network.config, magmoms=False).items():
        for theirs, part in zip(group, ours[name].chunk(len(group)), strict=True):
            state[theirs] = part.squeeze(0) if part.dim() > 1 and len(part) == 1 else part
    magmom = {"magmom_head.magmom_head.layers": (2 * network.config.node_feat_dim, network.config.node_feat_dim)}
    for prefix, (hidden, inputs) in magmom.items():  # the published network always has this head
        state |= {f"{prefix}.0.weight": torch.zeros(hidden, inputs), f"{prefix}.0.bias": torch.zeros(hidden)}
        state |= {f"{prefix}.3.weight": torch.zeros(1, hidden), f"{prefix}.3.bias": torch.zeros(1)}
    config = {**network.config.to_dict(), "reference_energy": None}
    torch.save({"config": config, "state_dict": state}, path)
