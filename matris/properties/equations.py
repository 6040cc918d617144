"""Equations of state as formulas: no potential, no fit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray


def birch_murnaghan(v: NDArray[np.float64], e0: float, v0: float, b0: float, b1: float) -> NDArray[np.float64]:
    """Third order in the Eulerian strain; F. Birch, Phys. Rev. 71, 809 (1947)."""
    x = (v0 / v) ** (2 / 3) - 1
    return e0 + 9 * v0 * b0 / 16 * (x**3 * b1 + x**2 * (2 - 4 * x))


def murnaghan(v: NDArray[np.float64], e0: float, v0: float, b0: float, b1: float) -> NDArray[np.float64]:
    """Bulk modulus linear in pressure; F. D. Murnaghan, Proc. Natl. Acad. Sci. 30, 244 (1944)."""
    return e0 + b0 * v / b1 * ((v0 / v) ** b1 / (b1 - 1) + 1) - b0 * v0 / (b1 - 1)


def vinet(v: NDArray[np.float64], e0: float, v0: float, b0: float, b1: float) -> NDArray[np.float64]:
    """Universal equation; P. Vinet et al., Phys. Rev. B 35, 1945 (1987)."""
    x = (v / v0) ** (1 / 3)
    slope = 1.5 * (b1 - 1)
    return e0 + 9 * b0 * v0 / slope**2 * (1 + (slope * (1 - x) - 1) * np.exp(slope * (1 - x)))


EQUATIONS: dict[str, Callable[..., NDArray[np.float64]]] = {
    "birch_murnaghan": birch_murnaghan,
    "murnaghan": murnaghan,
    "vinet": vinet,
}
"""Energy (eV) of volumes `v` (Å³) by `e0` (eV), `v0` (Å³), `b0` (eV/Å³) and `b1`, by name."""
