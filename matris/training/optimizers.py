"""Optimizers of the weights: AdamW for all, or Muon for matrices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

OptimizerName = Literal["adamw", "muon"]

_LEAST = 16  # smaller dimension of the matrices that Muon updates


def make_optimizers(
    kind: OptimizerName,
    parameters: Sequence[tuple[str, torch.nn.Parameter, float]],
    learning_rate: float,
    weight_decay: float,
) -> list[torch.optim.Optimizer]:
    """
    Make the optimizers of a network.

    Muon (K. Jordan et al., 2024; here `torch.optim.Muon`) replaces the update of a matrix by the nearest orthogonal
    one, scaled to the mean size of AdamW's updates (J. Liu et al., arXiv 2502.16982), so both use the same learning
    rate. Embeddings, biases, weights of norms, and matrices that read a basis or give one number stay with AdamW.

    Parameters
    ----------
    kind
        ``"adamw"``, or ``"muon"`` with AdamW for the rest.
    parameters
        Name, parameter with a gradient, and factor of its learning rate, which is stored in its parameter group. Muon
        holds views of parameter and gradient: change both in place.
    learning_rate
        Learning rate.
    weight_decay
        Decoupled weight decay.

    Examples
    --------
    >>> network = torch.nn.Linear(32, 32)
    >>> for p in network.parameters():
    ...     p.grad = torch.zeros_like(p)
    >>> named = [(name, p, 1.0) for name, p in network.named_parameters()]
    >>> [type(optimizer).__name__ for optimizer in make_optimizers("muon", named, 1e-3, 1e-2)]
    ['Muon', 'AdamW']
    """
    matrices: dict[float, list[torch.nn.Parameter]] = {}
    others: dict[float, list[torch.nn.Parameter]] = {}
    for name, parameter, factor in parameters:
        if kind == "muon" and _is_matrix(name, parameter):
            matrices.setdefault(factor, []).append(_flat(parameter))
        else:
            others.setdefault(factor, []).append(parameter)
    optimizers: list[torch.optim.Optimizer] = []
    if matrices:
        groups = _groups(matrices)
        optimizers.append(
            torch.optim.Muon(groups, lr=learning_rate, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")
        )
    if others:
        optimizers.append(torch.optim.AdamW(_groups(others), lr=learning_rate, weight_decay=weight_decay))
    return optimizers


def _groups(parameters: dict[float, list[torch.nn.Parameter]]) -> list[dict[str, object]]:
    return [{"params": group, "factor": factor} for factor, group in parameters.items()]


def _is_matrix(name: str, parameter: torch.nn.Parameter) -> bool:
    """Whether a parameter maps features to features. Core and gate of an MLP are one tensor of three dimensions."""
    kept = ("norm", "bias", "embedding")
    return parameter.dim() > 1 and min(parameter.shape[-2:]) >= _LEAST and not any(word in name for word in kept)


def _flat(parameter: torch.nn.Parameter) -> torch.nn.Parameter:
    """Return a view of two dimensions, whose gradient is a view of the gradient."""
    if parameter.grad is None:
        raise ValueError("a parameter without a gradient")
    flat = torch.nn.Parameter(parameter.detach().flatten(0, -2))
    flat.grad = parameter.grad.flatten(0, -2)
    return flat
