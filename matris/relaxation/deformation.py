"""Deformations of cells by exp(L), and the forces on L."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from matris.model.precision import full_precision

if TYPE_CHECKING:
    from torch import Tensor

_TERMS = 16
"""Terms of a power series in L. The truncation error is below rounding at strains of exp(0.5), and 1e-5 at exp(2)."""


def exponential(matrices: Tensor) -> Tensor:
    """Exponentials of matrices, shape (S, 3, 3), with norms up to 2."""
    one = torch.eye(3, device=matrices.device, dtype=matrices.dtype)
    return _series(matrices, one.expand_as(matrices), 1)


def log_gradient(logs: Tensor, virials: Tensor) -> Tensor:
    """
    Compute the generalised forces −∂E/∂L, where exp(L) deforms the cell.

    The force of ASE's filter is the adjoint of the Fréchet derivative of exp at L, applied to W exp(-Lᵀ), where W is
    the virial. The adjoint at L is the derivative at B = Lᵀ, which along E is ∫ exp((1 - s)B) E exp(sB) ds with s from
    0 to 1 (N. J. Higham, Functions of Matrices, SIAM 2008, chapters 3 and 10). The force therefore is
    ∫ exp(sB) W exp(-sB) ds. Its series in the commutator ad(W) = BW - WB is Σ adᵏ(W) / (k + 1)!

    Parameters
    ----------
    logs
        L, shape (S, 3, 3).
    virials
        W, in eV, shape (S, 3, 3).

    Returns
    -------
    Tensor
        eV, shape (S, 3, 3).
    """
    one = torch.eye(3, device=logs.device, dtype=logs.dtype)
    left = logs.mT[:, :, None, :, None] * one[:, None, :]
    right = one[:, None, :, None] * logs[:, None, :, None, :]
    return _series((left - right).reshape(-1, 9, 9), virials.reshape(-1, 9, 1), 2).view(-1, 3, 3)


def _series(matrix: Tensor, start: Tensor, first: int) -> Tensor:
    """Evaluate X + M/k (X + M/(k + 1) (X + ...)), where X is `start`, M is `matrix` and k is `first`."""
    result = start
    with full_precision():
        for divisor in range(first + _TERMS - 1, first - 1, -1):
            result = torch.baddbmm(start, matrix, result, alpha=1 / divisor)
    return result
