"""A larger network that is initially the same function as a smaller one (Net2Net: Chen et al., arXiv 1511.05641).

Channels are copied, which leaves layer norms and channel-wise softmaxes unchanged. The weights of layers that read a
copied channel are divided among the copies in random proportions, so that the copies can learn different features.
New blocks are added at the end; their outputs are zero at first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from matris.errors import MatrisError
from matris.model.layers import GatedMLP
from matris.model.network import Attention, MatRIS, Refinement

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matris.model.config import ModelConfig

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
    """Set the updates of a part of a block to zero, by weights of a norm before SiLU or of the last linear layers."""
    if isinstance(part, Attention):
        for mlp in (part.edge_mlp, part.node_mlp):
            mlp.norm.weight[0] = 0.0
    elif isinstance(part, Refinement):
        part.node_ffn.second.weight.zero_()
        part.edge_ffn.second.weight.zero_()


def _copy(name: str, small: nn.Module, large: nn.Module) -> None:
    """Fill the parameters of a module, without those of its children."""
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
    """Split an axis into blocks of channels, and return the number of copies of each."""
    if any(n % o for n, o in zip(new, old, strict=True)):
        raise MatrisError(f"{name}: widths of {tuple(new)} are no multiples of {tuple(old)}")
    return value.split(tuple(old), axis), [n // o for o, n in zip(old, new, strict=True)]


def _shares(weight: torch.Tensor, copies: int) -> torch.Tensor:
    """Divide the weights of a layer among copies of its input channels."""
    if copies == 1:
        return weight
    noise = torch.randn(copies, *weight.shape, dtype=weight.dtype) * weight.std() * _UNEVEN / copies
    noise -= noise.mean(0)
    return torch.cat([weight / copies + part for part in noise], -1)
