"""Directional Young's modulus of a crystal from its elastic constants."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import minimize

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    type Floats = NDArray[np.float64]

_STEP = 4  # degrees between the directions of the grid


def young_modulus(tensor: Sequence[Sequence[float]] | Floats, directions: Floats) -> Floats:
    """
    Compute Young's modulus for uniaxial tension along directions.

    1/E(n) = Σ n_i n_j n_k n_l S_ijkl; J. F. Nye, Physical Properties of Crystals (Oxford 1957), chapter VIII. With
    the compliance s in Voigt notation (s_44 = 4 S_2323, s_14 = 2 S_1123), 1/E = m·s·m with
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
        If the tensor is not positive definite; then the modulus is undefined.

    Examples
    --------
    Copper, in the directions [100] and [111]:

    >>> c11, c12, c44 = 168.4, 121.4, 75.4
    >>> tensor = np.diag([c11 - c12] * 3 + [c44] * 3)
    >>> tensor[:3, :3] += c12
    >>> directions = np.array([[1, 0, 0], np.ones(3) / np.sqrt(3)])
    >>> young_modulus(tensor, directions).round(1).tolist()
    [66.7, 191.1]
    """
    return _modulus(_compliance(tensor), directions)


def extreme_young_moduli(tensor: Sequence[Sequence[float]] | Floats) -> tuple[float, float]:
    """
    Find the smallest and largest Young's modulus over all directions.

    Parameters
    ----------
    tensor
        Elastic constants in Voigt notation, shape (6, 6), GPa.

    Returns
    -------
    tuple of float
        Smallest and largest modulus, GPa.

    Raises
    ------
    ValueError
        If the tensor is not positive definite.

    Examples
    --------
    >>> tensor = np.diag([47.0] * 3 + [75.4] * 3)
    >>> tensor[:3, :3] += 121.4
    >>> [round(modulus, 1) for modulus in extreme_young_moduli(tensor)]
    [66.7, 191.1]
    """
    theta, phi = sphere()
    compliance = _compliance(tensor)
    grid = _modulus(compliance, unit_vectors(theta, phi))

    def best(sign: float) -> float:
        start = np.unravel_index(np.argmin(sign * grid), grid.shape)
        optimum = minimize(
            lambda angles: sign * float(_modulus(compliance, unit_vectors(*angles))),
            [theta[start], phi[start]],
            method="Nelder-Mead",
            options={"xatol": 1e-6, "fatol": 1e-9},
        )
        return sign * float(optimum.fun)

    return best(1.0), best(-1.0)


def _compliance(tensor: Sequence[Sequence[float]] | Floats) -> Floats:
    """Invert positive definite elastic constants in Voigt notation."""
    stiffness = np.asarray(tensor, dtype=float)
    if np.linalg.eigvalsh((stiffness + stiffness.T) / 2)[0] <= 0:
        raise ValueError("the elastic tensor is not positive definite: Young's modulus is undefined")
    return np.linalg.inv(stiffness)


def _modulus(compliance: Floats, n: Floats) -> Floats:
    """Young's modulus along unit vectors n; see `young_modulus` for the formula."""
    products = np.stack([n[..., i] * n[..., j] for i, j in ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))], axis=-1)
    return 1 / np.sum((products @ compliance) * products, axis=-1)


def sphere() -> tuple[Floats, Floats]:
    """Polar and azimuthal angles (radians) of a grid on the sphere, each of shape (polar, azimuthal)."""
    theta, phi = np.radians(np.arange(0, 181, _STEP)), np.radians(np.arange(0, 361, _STEP))
    polar, azimuthal = np.meshgrid(theta, phi, indexing="ij")
    return polar, azimuthal


def unit_vectors(theta: Floats, phi: Floats) -> Floats:
    """Convert polar and azimuthal angles (radians) into unit vectors, shape (…, 3)."""
    return np.stack([np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)], axis=-1)
