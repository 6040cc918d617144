"""Young's modulus of a crystal by direction, from its elastic constants."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import minimize

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    type Floats = NDArray[np.float64]

_STEP = 4  # degrees between the directions of a grid


def young_modulus(tensor: Sequence[Sequence[float]] | Floats, directions: Floats) -> Floats:
    """
    Young's modulus of a crystal under tension along some directions.

    1/E(n) = Σ n_i n_j n_k n_l S_ijkl; J. F. Nye, Physical Properties of Crystals (Oxford 1957), chapter VIII. With
    the compliance s in Voigt notation, of which s_44 = 4 S_2323 and s_14 = 2 S_1123, it is m·s·m with
    m = (n₁², n₂², n₃², n₂n₃, n₁n₃, n₁n₂).

    Parameters
    ----------
    tensor
        Elastic constants in Voigt notation, shape (6, 6), GPa.
    directions
        Unit vectors, shape (…, 3).

    Returns
    -------
    ndarray
        GPa, shape (…).

    Raises
    ------
    ValueError
        If the tensor is not positive definite: there is no modulus then.
    """
    return _modulus(_compliance(tensor), directions)


def extreme_young_moduli(tensor: Sequence[Sequence[float]] | Floats) -> tuple[float, float]:
    """
    Smallest and largest Young's modulus of all directions.

    Parameters
    ----------
    tensor
        Elastic constants in Voigt notation, shape (6, 6), GPa.

    Returns
    -------
    tuple of float
        GPa.

    Raises
    ------
    ValueError
        If the tensor is not positive definite.
    """
    theta, phi = sphere()
    compliance = _compliance(tensor)
    grid = _modulus(compliance, unit_vectors(theta, phi))

    def best(sign: float) -> float:
        start = np.unravel_index(np.argmin(sign * grid), grid.shape)
        found = minimize(
            lambda at: sign * float(_modulus(compliance, unit_vectors(at[0], at[1]))),
            [theta[start], phi[start]],
            method="Nelder-Mead",
            options={"xatol": 1e-6, "fatol": 1e-9},
        )
        return sign * float(found.fun)

    return best(1.0), best(-1.0)


def _compliance(tensor: Sequence[Sequence[float]] | Floats) -> Floats:
    """Invert elastic constants, in Voigt notation, that are positive definite."""
    stiffness = np.asarray(tensor, dtype=float)
    if np.linalg.eigvalsh((stiffness + stiffness.T) / 2)[0] <= 0:
        raise ValueError("the elastic tensor is not positive definite: Young's modulus has no meaning")
    return np.linalg.inv(stiffness)


def _modulus(compliance: Floats, n: Floats) -> Floats:
    """Young's modulus along unit vectors n, by the formula of `young_modulus`."""
    products = np.stack([n[..., i] * n[..., j] for i, j in ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))], axis=-1)
    return 1 / np.sum((products @ compliance) * products, axis=-1)


def sphere() -> tuple[Floats, Floats]:
    """Polar and azimuthal angles all around, each of shape (polar, azimuthal), radians."""
    theta, phi = np.radians(np.arange(0, 181, _STEP)), np.radians(np.arange(0, 361, _STEP))
    polar, azimuthal = np.meshgrid(theta, phi, indexing="ij")
    return polar, azimuthal


def unit_vectors(theta: Floats, phi: Floats) -> Floats:
    """Make unit vectors, shape (…, 3), of polar and azimuthal angles."""
    return np.stack([np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)], axis=-1)
