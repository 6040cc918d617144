"""A larger network that starts as the same function as a smaller one (Net2Net: Chen et al., arXiv 1511.05641).

Widths are multiplied by copying channels: layer norms and channel-wise softmaxes do not notice. What reads a copied
channel divides its weights among the copies, unevenly by chance, so that the copies learn different things. Blocks
are added at the end, with outputs that are zero at first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from ase.data import atomic_numbers, covalent_radii
from pymatgen.core import Element
from torch import nn

from matris.errors import MatrisError
from matris.model.layers import GatedMLP
from matris.model.network import Attention, MatRIS, Refinement, reference_energy
from matris.training.data.element_energies import fractions, least_squares
from matris.training.data.frame import collate

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from matris.model.config import ModelConfig
    from matris.training.data.frame import Frame

_UNEVEN = 0.3  # spread of the shares that copies of a channel get, in standard deviations of the weights


@torch.no_grad()
def widen(small: MatRIS, config: ModelConfig, *, magmoms: bool) -> MatRIS:
    """
    Make a larger network of the same energies, forces and stresses.

    Parameters
    ----------
    small
        The network to start from.
    config
        Of the larger one. Its widths are multiples of the smaller one's, it has as many blocks or more; all else is
        equal.
    magmoms
        Whether the larger one has a head for magnetic moments; a new one starts at random.

    Returns
    -------
    MatRIS
        Random where the choice is free: by torch's generator.

    Raises
    ------
    MatrisError
        If a width is no multiple.
    """
    large = MatRIS(config, magmoms=magmoms)
    modules = dict(large.named_modules())
    for name, module in small.named_modules():
        if name in modules:
            _copy(name, module, modules[name])
    large.reference_energies.copy_(small.reference_energies)
    for block in list(large.blocks)[small.config.num_layers :]:
        for part in block.children():
            _silence(part)
    return large


def _silence(part: nn.Module) -> None:
    """Make the updates of a block's part zero: by SiLU of a norm whose weights are, or by the last linear layers."""
    if isinstance(part, Attention):
        for mlp in (part.edge_mlp, part.node_mlp):
            mlp.norm.weight[0] = 0.0
    elif isinstance(part, Refinement):
        part.node_ffn.second.weight.zero_()
        part.edge_ffn.second.weight.zero_()


def _copy(name: str, small: nn.Module, large: nn.Module) -> None:
    """Fill the parameters that a module itself holds."""
    stacked, inputs = {"logits": 2}, dict[str, tuple[tuple[int, ...], tuple[int, ...]]]()
    if isinstance(small, GatedMLP) and isinstance(large, GatedMLP):
        branches = len(small.weight_out)
        stacked = {"weight_in": branches, "bias_in": branches}
        inputs = {"weight_in": (small.inputs, large.inputs)}
    reading = isinstance(small, (nn.Linear, GatedMLP, Attention))
    for key, old in small.named_parameters(recurse=False):
        new = large.get_parameter(key)
        value: torch.Tensor = old
        last = old.dim() - 1
        reads = (reading and "weight" in key) or key == "logits"
        for axis in range(old.dim()):
            widths = (old.shape[axis],), (new.shape[axis],)
            if reads and axis == last:
                blocks, copies = _blocks(f"{name}.{key}", value, axis, *inputs.get(key, widths))
                value = torch.cat([_shares(x, c) for x, c in zip(blocks, copies, strict=True)], axis)
            else:
                _, copies = _blocks(f"{name}.{key}", value, axis, *widths)
                blocks = value.chunk(stacked.get(key, 1) if axis == 0 else 1, axis)
                value = torch.cat([part for x in blocks for part in [x] * copies[0]], axis)
        new.copy_(value)


def _blocks(
    name: str, value: torch.Tensor, axis: int, old: Sequence[int], new: Sequence[int]
) -> tuple[Sequence[torch.Tensor], list[int]]:
    """Split an axis into blocks of channels, and say how many copies each needs."""
    if any(n % o for n, o in zip(new, old, strict=True)):
        raise MatrisError(f"{name}: widths of {tuple(new)} are no multiples of {tuple(old)}")
    return value.split(tuple(old), axis), [n // o for o, n in zip(old, new, strict=True)]


def _shares(weight: torch.Tensor, copies: int) -> torch.Tensor:
    """Weights of the copies of the channels that a layer reads; they add up to the weights of the originals."""
    if copies == 1:
        return weight
    noise = torch.randn(copies, *weight.shape, dtype=weight.dtype) * weight.std() * _UNEVEN / copies
    noise -= noise.mean(0)
    return torch.cat([weight / copies + part for part in noise], -1)


@torch.no_grad()
def introduce(network: MatRIS, known: Iterable[str], new: Iterable[str]) -> None:
    """
    Let elements that a network never saw start as the most alike one that it knows.

    Parameters
    ----------
    network
        Changed in place: rows of the atoms' embedding.
    known, new
        Symbols. Alike is what is close in covalent radius (ase.data) and electronegativity (Pauling's).
    """
    weights, known = network.atom_embedding.weight, sorted(known)
    for symbol in new:
        likest = min(known, key=lambda other: _distance(symbol, other))
        weights[atomic_numbers[symbol] - 1] = weights[atomic_numbers[likest] - 1]


def _distance(one: str, other: str) -> float:
    """How unlike two elements are."""
    radii = [covalent_radii[atomic_numbers[s]] for s in (one, other)]
    polarity = [float(Element(s).X or 2.0) for s in (one, other)]
    return float(abs(np.log(radii[0] / radii[1])) / 0.12 + abs(polarity[0] - polarity[1]) / 0.35)


@torch.no_grad()
def refit_reference_energies(
    network: MatRIS, frames: Sequence[Frame], elements: Collection[str] | None = None, batch_size: int = 16
) -> None:
    """
    Add to the element energies what explains the rest of the frames' energies best: ridge regression on composition.

    Parameters
    ----------
    network
        Changed in place. Elements that do not occur keep their energies.
    frames
        Labelled frames.
    elements
        Symbols of those whose energies may change; by default all.
    batch_size
        Frames in a call.
    """
    numbers, left = [frame.geometry.numbers for frame in frames], list[float]()
    energies = network.reference_energies
    for start in range(0, len(frames), batch_size):
        chosen = frames[start : start + batch_size]
        graph = collate(chosen, network.config, energies.device).graph
        atomic = network(graph, graph.vectors)[0].double()
        found = atomic.new_zeros(graph.n_systems).index_add(0, graph.system, atomic)
        found += reference_energy(energies, graph)
        left += [
            (frame.energy - energy) / len(frame.forces) for frame, energy in zip(chosen, found.tolist(), strict=True)
        ]
    free = None if elements is None else [atomic_numbers[symbol] for symbol in elements]
    offsets = np.cumsum([0, *map(len, numbers)])
    shifts = least_squares(fractions(np.concatenate(numbers), offsets), np.array(left), free=free)
    energies += torch.from_numpy(shifts).to(energies)
