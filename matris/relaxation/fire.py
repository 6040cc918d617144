"""
FIRE for the atoms and cells of many systems, each with its own time step.

The algorithm is that of E. Bitzek et al., Phys. Rev. Lett. 97, 170201 (2006), in ASE's variant. Its degrees of freedom
are those of ASE's ``FrechetCellFilter``, with rows n·L for the cell (`matris.relaxation.systems`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from matris.relaxation.systems import Optimizer, Progress

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

_DT_START, _DT_MAX = 0.1, 1.0
_N_MIN = 5  # steps with F·v > 0 before dt grows
_F_INC, _F_DEC = 1.1, 0.5  # factors of dt
_ALPHA_START, _F_ALPHA = 0.1, 0.99
_MAX_STEP = 0.2  # Å: largest norm of a step over all atoms and the cell of a system

AT_REST = np.array([[2 * _DT_START], [_ALPHA_START], [0.0]])
"""dt, α and N of a system at rest: a step with F·v ≤ 0 halves dt, which then is ASE's first time step."""


class Fire(Optimizer):
    """
    Systems that FIRE relaxes together on one device.

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
        self._control = np.zeros((3, 0))  # dt, α and N (steps since F·v was last ≤ 0) of each system
        self._powers = np.zeros((3, 0))  # F·v, v·v and F·F of each system

    @staticmethod
    def _new_scales(n_atoms: NDArray[np.int_]) -> NDArray[np.float64]:
        """Rows n·L, as in ASE."""
        return n_atoms.astype(float)

    def _enter(self, n_systems: int, n_rows: int) -> None:  # noqa: ARG002 - the velocities are there already
        """Start with twice the dt of a system at rest: the step that only computes the first forces halves it too."""
        control = AT_REST * [[2.0], [1.0], [1.0]]
        self._control = np.hstack([self._control, np.repeat(control, n_systems, axis=1)])
        self._powers = np.hstack([self._powers, np.zeros((3, n_systems))])

    def _leave(self, kept: NDArray[np.bool_], rows: Tensor) -> None:  # noqa: ARG002
        self._control, self._powers = self._control[:, kept], self._powers[:, kept]

    def _move(self) -> None:
        self._control, coefficients = fire_step(self._control, self._powers)
        self._accelerate(coefficients)

    def _accelerate(self, coefficients: NDArray[np.float64]) -> None:
        """Change velocities and positions by the coefficients of `fire_step`."""
        x, v, forces = self._rows
        a, b, c = torch.from_numpy(coefficients).to(x)[:, self._row_system].unsqueeze(2)
        v.mul_(a).addcmul_(b, forces)
        x.addcmul_(c, v)

    def _products(self) -> Tensor:
        _, v, forces = self._rows
        return self._sums(torch.stack([forces * v, v * v]).sum(2))

    def _learn(self, progress: Progress, products: NDArray[np.float64]) -> None:
        self._powers = np.vstack([products, progress.squared_force])


def fire_step(
    control: NDArray[np.float64], sums: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """
    Compute the quantities of a FIRE step that are equal for all atoms of a system.

    With P = F·v: for P > 0 the velocities become (1 − α) v + α |v| F/|F|, and after more than N_min such steps dt grows
    by f_inc, up to dt_max, and α shrinks by f_α. Otherwise the velocities become 0, dt shrinks by f_dec, and α and N
    start again. Then v increases by dt F, and x by dt v, which is scaled down to the largest step allowed.

    Parameters
    ----------
    control
        dt, α and N, shape (3, S).
    sums
        F·v, v·v and F·F, shape (3, S).

    Returns
    -------
    tuple of ndarray
        The new control; and the coefficients a, b, c of v' = a v + b F and x' = x + c v', shape (3, S).
    """
    (dt, alpha, n_positive), (power, v_squared, f_squared) = control, sums
    downhill = power > 0
    accelerates = downhill & (n_positive > _N_MIN)
    new_dt = np.where(accelerates, np.minimum(_F_INC * dt, _DT_MAX), np.where(downhill, dt, _F_DEC * dt))
    a = np.where(downhill, 1 - alpha, 0.0)
    b = new_dt + np.where(downhill, alpha * np.sqrt(v_squared / np.where(downhill, f_squared, 1.0)), 0.0)
    new_v_squared = a**2 * v_squared + 2 * a * b * power + b**2 * f_squared
    c = new_dt * _MAX_STEP / np.maximum(new_dt * np.sqrt(new_v_squared), _MAX_STEP)
    new_alpha = np.where(accelerates, _F_ALPHA * alpha, np.where(downhill, alpha, _ALPHA_START))
    return np.stack([new_dt, new_alpha, np.where(downhill, n_positive + 1, 0.0)]), np.stack([a, b, c])
