"""
L-BFGS for the atoms and cells of many systems, each with its own history.

The algorithm is the two-loop recursion of J. Nocedal, Math. Comp. 35, 773 (1980). All that it needs to know of the
vectors are their inner products (W. Chen, Z. Wang, J. Zhou, Advances in Neural Information Processing Systems 27, 1332
(2014)): the device keeps steps s, changes y of the gradient and the last forces, and sends the new inner products. The
host runs the recursion for all systems at once, in double precision, and sends the coefficients of the next step.

The degrees of freedom are the positions of the n atoms in the undeformed cell, and rows √n·L for the cell, which is
deformed by exp(L). The second derivative by L is about volume times an elastic constant, so it grows as n. The factor
√n makes the rows of the cell as stiff as those of an atom, at any n: one first Hessian suits all rows.

There is no line search. A step that raises the energy shortens the next one, and all pairs but the last are forgotten.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from matris.relaxation.fire import AT_REST, Fire, fire_step

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from matris.relaxation.systems import Progress

MEMORY = 16
"""Largest number of pairs of s and y of a system."""

_HESSIAN = 20.0  # eV/Å²: the first Hessian, on the soft side of bonds in crystals; the pairs teach what is stiffer
_MAX_STEP = 0.2  # Å: largest norm of a row of a step
_CURVATURE = 1e-3  # eV/Å²: pairs with s·y / s·s below it are not kept
_RISE = 2e-4  # eV per atom that the energy may rise in a step
_SHORTER, _LONGER, _SHORTEST = 0.5, 1.3, 1 / 16  # factors of the largest step, after a rise and otherwise; its minimum
PATIENCE = 60
"""Steps with neither a smaller force on atoms or cell nor a lower energy after which FIRE takes over."""
_SMALLER = 0.9  # factor by which a force must fall to count as smaller
_LOWER = 2e-4  # eV per atom by which the energy must fall to count as lower


class Lbfgs(Fire):
    """
    Systems that L-BFGS relaxes together on one device; FIRE takes over those in which forces and energy do not fall.

    Parameters
    ----------
    device, dtype
        Those of the model.
    relax_cell
        Whether cells move too.
    pressure
        External pressure on the cells, eV/Å³.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype, *, relax_cell: bool, pressure: float = 0.0) -> None:
        super().__init__(device, dtype, relax_cell=relax_cell, pressure=pressure)
        size = 2 * MEMORY + 1
        # s, then y, then F, each of all rows; double, so that inner products have the digits that differences need
        self._history = torch.zeros(size, 0, 3, device=device, dtype=torch.float64)
        self._gram = np.zeros((0, size, size))  # inner products of the history of each system
        self._slot = np.zeros(0, dtype=int)  # where the next pair goes
        self._n_pairs = np.zeros(0, dtype=int)  # those before the slot, in a ring
        self._reach = np.zeros(0)  # largest step over _MAX_STEP
        self._enthalpy = np.zeros(0)  # of the last step
        self._lowest = np.zeros(0)  # enthalpy, and
        self._smallest = np.zeros(0)  # force so far
        self._waited = np.zeros(0, dtype=int)  # steps since
        self._patience = np.zeros(0, dtype=int)  # largest number of them
        self._has_fallen_back = np.zeros(0, dtype=bool)  # FIRE moves it

    def give_up(self, systems: NDArray[np.bool_]) -> None:
        """Hand systems over to FIRE at the next step."""
        self._patience[systems] = 0

    @staticmethod
    def _new_scales(n_atoms: NDArray[np.int_]) -> NDArray[np.float64]:
        """Rows √n·L."""
        return np.sqrt(n_atoms)

    def _enter(self, n_systems: int, n_rows: int) -> None:
        super()._enter(n_systems, n_rows)
        size = len(self._history)
        self._history = torch.cat([self._history, self._history.new_zeros(size, n_rows, 3)], dim=1)
        self._gram = np.concatenate([self._gram, np.zeros((n_systems, size, size))])
        zeros, infinite = np.zeros(n_systems, dtype=int), np.full(n_systems, np.inf)
        self._slot = np.concatenate([self._slot, zeros])
        self._n_pairs = np.concatenate([self._n_pairs, zeros])
        self._reach = np.concatenate([self._reach, np.ones(n_systems)])
        self._enthalpy = np.concatenate([self._enthalpy, infinite])
        self._lowest = np.concatenate([self._lowest, infinite])
        self._smallest = np.concatenate([self._smallest, infinite])
        self._waited = np.concatenate([self._waited, zeros])
        self._patience = np.concatenate([self._patience, np.full(n_systems, PATIENCE)])
        self._has_fallen_back = np.concatenate([self._has_fallen_back, zeros.astype(bool)])

    def _leave(self, kept: NDArray[np.bool_], rows: Tensor) -> None:
        super()._leave(kept, rows)
        self._history, self._gram = self._history[:, rows], self._gram[kept]
        self._slot, self._n_pairs, self._reach = self._slot[kept], self._n_pairs[kept], self._reach[kept]
        self._enthalpy, self._lowest, self._smallest = self._enthalpy[kept], self._lowest[kept], self._smallest[kept]
        self._waited, self._patience = self._waited[kept], self._patience[kept]
        self._has_fallen_back = self._has_fallen_back[kept]

    def _move(self) -> None:
        self._fall_back()
        coefficients, uphill = directions(self._gram, self._slot, self._n_pairs, 1 / _HESSIAN)
        self._n_pairs[uphill] = 0
        coefficients[self._has_fallen_back] = 0
        sent = np.column_stack([coefficients, _MAX_STEP * self._reach, self._slot])
        received = torch.from_numpy(sent.T.copy()).to(self._history.device)
        weights, bounds, self._slots = received[:-2], received[-2], received[-1].long()[self._row_system]
        steps = (weights[:, self._row_system].unsqueeze(2) * self._history).sum(0)
        longest = torch.segment_reduce(steps.norm(dim=1), "max", lengths=self._n_rows, unsafe=True)
        steps *= (bounds / torch.maximum(longest, bounds))[self._row_system].unsqueeze(1)
        x = self._rows[0]
        before = x.to(torch.float64, copy=True)
        x.copy_(before + steps)
        self._steps = x.double() - before  # as rounded, because the model sees those
        if self._has_fallen_back.any():
            self._control, by_fire = fire_step(self._control, self._powers)
            self._accelerate(np.where(self._has_fallen_back, by_fire, 0.0))

    def _fall_back(self) -> None:
        """Hand systems that have waited for too long over to FIRE, at rest and with its rows n·L for the cell."""
        falls = (self._waited >= self._patience) & ~self._has_fallen_back
        if not falls.any():
            return
        self._has_fallen_back |= falls
        self._control[:, falls] = AT_REST
        factors = np.where(falls, self._n_atoms / self._cell_scales, 1.0)
        self._cell_scales = self._cell_scales * factors
        per_row = torch.from_numpy(np.repeat(factors, 3)).to(self._rows).unsqueeze(1)
        self._rows[0, self._cell_rows] *= per_row
        self._rows[2, self._cell_rows] /= per_row
        self._scales = torch.from_numpy(self._cell_scales).to(self._rows)[:, None, None]

    def _products(self) -> Tensor:
        """Inner products of the new s, y and F with the whole history, after those of FIRE."""
        by_fire = super()._products().double()
        forces = self._rows[2].double()
        rows, history = torch.arange(len(forces), device=forces.device), self._history
        changes = history[-1] - forces
        history[self._slots, rows] = self._steps
        history[MEMORY + self._slots, rows] = changes
        history[-1] = forces
        products = [self._sums((new * history).sum(2)) for new in (self._steps, changes, forces)]
        return torch.cat([by_fire, *products])

    def _learn(self, progress: Progress, products: NDArray[np.float64]) -> None:
        super()._learn(progress, products[:2])
        systems = np.arange(len(self._slot))
        size = self._gram.shape[1]
        s, y, last = self._slot, MEMORY + self._slot, np.full_like(self._slot, size - 1)
        for place, row in zip((s, y, last), products[2:].reshape(3, size, -1), strict=True):
            self._gram[systems, place] = self._gram[systems, :, place] = row.T
        keeps = self._gram[systems, s, y] > _CURVATURE * self._gram[systems, s, s]
        # a pair that is not kept has overwritten the oldest one if the ring was full
        self._n_pairs = np.minimum(
            np.where(keeps, self._n_pairs + 1, self._n_pairs), np.where(keeps, MEMORY, MEMORY - 1)
        )
        self._slot = np.where(keeps, (self._slot + 1) % MEMORY, self._slot)
        rises = progress.enthalpy > self._enthalpy + _RISE * self._n_atoms
        self._n_pairs = np.where(rises, np.minimum(self._n_pairs, 1), self._n_pairs)
        self._reach = np.where(
            rises, np.maximum(_SHORTER * self._reach, _SHORTEST), np.minimum(_LONGER * self._reach, 1.0)
        )
        self._enthalpy = progress.enthalpy
        force = np.maximum(progress.fmax, progress.cell_force)
        gentler = force < _SMALLER * self._smallest
        lower = self._enthalpy < self._lowest - _LOWER * self._n_atoms
        self._smallest = np.where(gentler, force, self._smallest)
        self._lowest = np.where(lower, self._enthalpy, self._lowest)
        self._waited = np.where(gentler | lower, 0, self._waited + 1)


def directions(
    gram: NDArray[np.float64], slot: NDArray[np.int_], n_pairs: NDArray[np.int_], inverse: float
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """
    Compute the L-BFGS steps of all systems as combinations of the vectors of which the inner products are known.

    Parameters
    ----------
    gram
        Inner products of s_1 … s_m, y_1 … y_m and the forces F, (S, 2m + 1, 2m + 1).
    slot
        Place of the oldest pair or of none, (S,): the newest stands before it, in a ring of m.
    n_pairs
        Number of pairs of each system, (S,).
    inverse
        Inverse of the first Hessian, Å²/eV.

    Returns
    -------
    coefficients : ndarray
        Coefficients of the vectors, (S, 2m + 1). A system without pairs gets `inverse` times F.
    uphill : ndarray
        Where the step would have gone uphill, as it can from rounding, (S,). It then is that without pairs.

    Examples
    --------
    >>> import numpy as np
    >>> hessian, forces = np.diag([2.0, 8.0]), np.array([1.0, 1.0])
    >>> steps = np.eye(2)  # two conjugate steps in two dimensions teach the whole Hessian
    >>> vectors = np.vstack([steps, steps @ hessian, forces])
    >>> coefficients, uphill = directions((vectors @ vectors.T)[None], np.array([0]), np.array([2]), 1.0)
    >>> (coefficients[0] @ vectors).tolist(), uphill.tolist()
    ([0.5, 0.125], [False])
    """
    n_systems, size, _ = gram.shape
    memory, systems = size // 2, np.arange(n_systems)
    coefficients = np.zeros((n_systems, size))
    coefficients[:, -1] = 1.0
    rounds = []
    for age in range(int(n_pairs.max(initial=0))):
        s = (slot - 1 - age) % memory
        y, known = s + memory, age < n_pairs
        curvature = np.where(known, gram[systems, s, y], 1.0)
        alpha = np.where(known, (gram[systems, s] * coefficients).sum(1) / curvature, 0.0)
        coefficients[systems, y] -= alpha
        rounds.append((s, y, known, curvature, alpha))
    coefficients *= inverse
    for s, y, known, curvature, alpha in reversed(rounds):
        beta = np.where(known, (gram[systems, y] * coefficients).sum(1) / curvature, 0.0)
        coefficients[systems, s] += alpha - beta
    uphill = (gram[:, -1] * coefficients).sum(1) < 0
    coefficients[uphill] = np.eye(size)[-1] * inverse
    return coefficients, uphill
