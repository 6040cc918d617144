"""The network of the embedded checkpoint, started from the weights of an earlier one."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from matris.model import checkpoints
from matris.model.config import ModelConfig
from matris.model.network import MatRIS, evaluate
from matris.training.data.frame import collate
from matris.training.finetuning import introduce
from recipes.embedded.widen import widen

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from pathlib import Path

    from matris.training.data.frame import Frame

CONFIG = ModelConfig(
    num_layers=3,
    node_feat_dim=128,
    edge_feat_dim=64,
    three_body_feat_dim=32,
    mlp_hidden_dims=(128, 128),
    three_body_expansion="chebyshev",
    norm_type="layer",
    pairwise_cutoff=5.0,
    three_body_cutoff=3.8,
    use_smoothed_for_delta_edge=True,
    reference_energy="teacher",
    smooth=True,
)
"""As large as two CPU cores can train, and quick: angles, the cost driver, are narrow and end at 3.8 Å."""

_LENGTHS = (1.0, 5.5)  # Å, where the bases of lengths are matched
_BATCH = 32


def start(path: Path, elements: Collection[str], frames: Sequence[Frame]) -> MatRIS:
    """
    Make the network from a checkpoint with other bases, cutoffs and fewer blocks.

    Weights that read a basis function are multiplied by the matrix that gives the old basis from the new one with the
    least squared error. The energies of the elements are then fitted to the energies of atoms.

    Parameters
    ----------
    path
        The earlier checkpoint.
    elements
        Symbols of the elements of the new one.
    frames
        Frames with energies of atoms, some hundred of each element, for the energies of the elements.

    Returns
    -------
    MatRIS
        A network of `CONFIG`, without a head for magnetic moments.
    """
    small, card = checkpoints.read_file(path)
    deep = widen(small, replace(small.config, num_layers=CONFIG.num_layers), magmoms=False)
    introduce(deep, card.elements, set(elements) - set(card.elements))
    network = MatRIS(CONFIG, magmoms=False)
    bases = ("bond_basis.", "line_basis.", "angle_basis.")
    weights = {name: value for name, value in deep.state_dict().items() if not name.startswith(bases)}
    network.load_state_dict(weights, strict=False)
    lengths = torch.linspace(*_LENGTHS, 400)
    cosines = torch.cos(torch.linspace(0, np.pi, 400))
    bond = _matching(deep.bond_basis, network.bond_basis, lengths)
    line = _matching(deep.line_basis, network.line_basis, lengths)
    angle = _matching(deep.angle_basis, network.angle_basis, cosines)
    readers = [(network.bond_linear_in, bond), (network.angle_linear_in, angle)]
    for block in network.blocks:
        readers += [(block.atom_refinement.envelope, bond), (block.line_refinement.envelope, line)]
    for layer, matrix in readers:
        layer.weight.data = layer.weight.data @ matrix.T
    fit_elements(network, frames)
    return network


@torch.no_grad()
def _matching(
    old: Callable[[torch.Tensor], torch.Tensor], new: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor
) -> torch.Tensor:
    """Return the matrix M with new(x) M ≈ old(x)."""
    return torch.linalg.lstsq(new(x), old(x)).solution


def fit_elements(network: MatRIS, frames: Sequence[Frame]) -> None:
    """Set the energies of the elements so that the median error of the energies of their atoms is zero."""
    errors, numbers = [], []
    for begin in range(0, len(frames), _BATCH):
        batch = collate([frames[i] for i in range(begin, min(begin + _BATCH, len(frames)))], network.config)
        errors.append((batch.atom_energies - evaluate(network, batch.graph).atom_energies).numpy())
        numbers.append(batch.graph.numbers.numpy())
    error, number = np.concatenate(errors), np.concatenate(numbers)
    for z in np.unique(number[np.isfinite(error)]):
        network.reference_energies[z - 1] += float(np.nanmedian(error[number == z]))


def sample_of_elements(frames: Sequence[Frame], formulas: Sequence[str], each: int, seed: int) -> list[int]:
    """Choose frames at random until each element is in `each` of them, or in all that have it."""
    from ase.formula import Formula

    elements = [tuple(Formula(name).count()) for name in formulas]
    counts: dict[str, int] = {}
    chosen = []
    for index in np.random.default_rng(seed).permutation(len(frames)):
        if min(counts.get(symbol, 0) for symbol in elements[index]) < each:
            chosen.append(int(index))
            for symbol in elements[index]:
                counts[symbol] = counts.get(symbol, 0) + 1
    return chosen
