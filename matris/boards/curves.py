"""
Metrics of the energy curve of two equal atoms.

The definitions are those of Matbench Discovery's diatomics task (its modules ``metrics/diatomics``), which took some of
them from MLIP Arena. Curves are those of the formula, in ascending distance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.data import atomic_masses, atomic_numbers, covalent_radii
from ase.data.vdw_alvarez import vdw_radii
from ase.units import _amu, _c, _e

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from matris.boards.board import Metrics

WALL = 0.8
"""Shortest distance of the comparison of walls, in covalent radii; also where a curve must be finite."""
_INNER = 0.9  # shortest distance of all other metrics, in covalent radii
_OUTER = 3.1  # longest distance, in van der Waals radii
_THRESHOLDS = (1.0, 5.0, 10.0, 20.0, 50.0, 100.0)  # heights of the wall above the minimum, eV
_GRID = 200  # points at which curves of different distances are compared
_FEWEST = 5  # points within the window
_BINDS = 0.05  # depth of a reference well (eV) below which it has no bond length, depth or frequency
_FIT = 5  # points of the parabola around a minimum
_ENERGY_CHANGE, _FORCE = 1e-3, 1e-2  # smaller changes of the energy (eV) and smaller forces (eV/Å) have no sign
_JUMPY, _FLIPPING = 1.5, 3  # a reference with jumps of as many eV and as many flips is not compared with


@dataclass(frozen=True, eq=False)
class Curve:
    """
    A curve of two equal atoms.

    Attributes
    ----------
    distances
        Å, ascending, shape (m,).
    energies
        eV, shape (m,).
    forces
        eV/Å, shape (m, 2, 3); the second atom lies in direction x of the first.
    """

    distances: NDArray[np.float64]
    energies: NDArray[np.float64]
    forces: NDArray[np.float64]

    @classmethod
    def of(cls, content: dict[str, Any]) -> Curve:
        """Read a curve as the board's files hold it."""
        curve = cls(*(np.asarray(content[name], dtype=float) for name in ("distances", "energies", "forces")))
        order = np.argsort(curve.distances)
        return cls(curve.distances[order], curve.energies[order], curve.forces[order])

    def within(self, low: float, high: float) -> Curve:
        """Keep the points in a range of distances."""
        kept = (self.distances >= low) & (self.distances <= high)
        return Curve(self.distances[kept], self.energies[kept], self.forces[kept])

    @property
    def finite(self) -> NDArray[np.bool_]:
        """Which points have a finite energy and finite forces, shape (m,)."""
        return np.isfinite(self.energies) & np.isfinite(self.forces).all(axis=(1, 2))


def window(element: str, longest: float, shortest: float = _INNER) -> tuple[float, float]:
    """
    Range of distances (Å) that counts for an element.

    Parameters
    ----------
    element
        Symbol.
    longest
        Largest distance of the curve, Å.
    shortest
        Lower end, in covalent radii.

    Examples
    --------
    >>> low, high = window("H", 6.0)
    >>> round(low, 3), round(high, 2)
    (0.279, 3.72)
    """
    number = atomic_numbers[element]
    outer = vdw_radii[number] if number < len(vdw_radii) else np.nan
    return float(shortest * covalent_radii[number]), float(min(_OUTER * outer, longest) if outer > 0 else longest)


def is_jumpy(element: str, reference: Curve) -> bool:
    """Whether a reference curve jumps so much (unconverged f electrons) that no potential can be judged by it."""
    inner = reference.within(*window(element, float(reference.distances.max())))
    if len(inner.energies) < _FEWEST:
        return False
    flips, jump = _flips_and_jump(inner.energies, _ENERGY_CHANGE)
    return not inner.finite.all() or (jump >= _JUMPY and flips >= _FLIPPING)


def curve_metrics(element: str, curve: Curve, reference: Curve | None) -> Metrics:
    """
    Compute the metrics of one element.

    Parameters
    ----------
    element
        Symbol.
    curve
        The potential's curve.
    reference
        The reference's; None if there is none to compare with.

    Returns
    -------
    dict
        Metrics by the board's names; empty if the curve is not finite, or has too few points, where it counts.
        ``conservation_deviation`` (eV/Å) is MLIP Arena's mean difference of the force and the slope of the energy on
        the grid of distances; the coarse grid has a part in it.
    """
    longest = float(curve.distances.max())
    low, high = window(element, longest)
    inner = curve.within(low, high)
    if len(inner.energies) < _FEWEST or not inner.finite.all():
        return {}
    along = inner.forces[:, 0, 0]
    signs = np.sign(along[np.abs(along) >= _FORCE])
    flips, jump = _flips_and_jump(inner.energies, _ENERGY_CHANGE)
    metrics: Metrics = {}
    if reference is not None:
        metrics |= _against(element, curve, inner, reference, (low, high))
    return metrics | {
        "tortuosity": _tortuosity(inner.energies),
        "energy_diff_flips": float(flips),
        "energy_jump": jump,
        "force_flips": float(np.count_nonzero(np.diff(signs))),
        "force_total_variation": float(np.abs(np.diff(along)).sum()),
        "force_jump": _flips_and_jump(along, 0.0)[1],
        "conservation_deviation": float(np.abs(along - np.gradient(inner.energies, inner.distances)).mean()),
    }


def _against(element: str, curve: Curve, inner: Curve, reference: Curve, ends: tuple[float, float]) -> Metrics:
    """Metrics relative to a reference."""
    metrics: Metrics = {}
    low = window(element, float(curve.distances.max()), WALL)[0] - 1e-12  # the reference starts there, but for rounding
    metrics["pbe_wall_dist_mae"] = _wall_error(reference.within(low, ends[1]), curve.within(low, ends[1]))
    ref = reference.within(*ends)
    if len(ref.energies) < 2:  # noqa: PLR2004 - no interval
        return metrics
    start = max(ref.distances[0], inner.distances[0])
    grid = np.linspace(start, min(ref.distances[-1], inner.distances[-1]), _GRID)
    energies = [np.interp(grid, c.distances, c.energies) for c in (ref, inner)]
    metrics["pbe_energy_mae"] = float(np.abs(np.subtract(*(e - e[-1] for e in energies))).mean())
    forces = [
        np.stack([np.interp(grid, c.distances, column) for column in c.forces.reshape(len(c.forces), -1).T])
        for c in (ref, inner)
    ]
    metrics["pbe_force_mae"] = float(np.abs(np.subtract(*forces)).mean())
    if ref.energies[-1] - ref.energies.min() >= _BINDS:
        wells = [_well(c) for c in (ref, inner)]
        metrics["pbe_bond_length_error"] = abs(wells[1][0] - wells[0][0])
        depths = [float(c.energies[-1] - c.energies.min()) for c in (ref, inner)]
        metrics["pbe_well_depth_error"] = abs(depths[1] - depths[0])
        frequencies = [_wavenumber(element, curvature) for _, curvature in wells]
        metrics["pbe_vib_freq_error"] = abs(frequencies[1] - frequencies[0])
    return {name: value for name, value in metrics.items() if value is not None and np.isfinite(value)}


def _flips_and_jump(values: NDArray[np.float64], smallest: float) -> tuple[int, float]:
    """Count the sign changes of the differences that are not small, and sum the differences beside them."""
    changes = np.diff(values)
    changes = changes[(np.abs(changes) >= smallest) & (changes != 0)]
    flips = np.flatnonzero(np.diff(np.sign(changes)))
    return len(flips), float(np.abs(changes[flips]).sum() + np.abs(changes[flips + 1]).sum())


def _tortuosity(energies: NDArray[np.float64]) -> float | None:
    """Total variation of the energy over that of a curve with one minimum; None for a flat curve."""
    direct = abs(energies[0] - energies.min()) + abs(energies[-1] - energies.min())
    return float(np.abs(np.diff(energies)).sum() / direct) if direct else None


def _well(curve: Curve) -> tuple[float, float]:
    """Distance of the minimum (Å) and curvature there (eV/Å², NaN if none), by a parabola through five points."""
    lowest = int(np.argmin(curve.energies))
    at = float(curve.distances[lowest])
    start = min(max(0, lowest - _FIT // 2), max(0, len(curve.energies) - _FIT))
    distances, energies = curve.distances[start : start + _FIT], curve.energies[start : start + _FIT]
    if len(distances) < 3:  # noqa: PLR2004 - a parabola
        return at, float("nan")
    square, slope, _ = np.polyfit(distances, energies, 2)
    if square <= 0:
        return at, float("nan")
    minimum = -slope / (2 * square)
    return float(minimum) if distances[0] <= minimum <= distances[-1] else at, float(2 * square)


def _wavenumber(element: str, curvature: float) -> float:
    """Harmonic wavenumber (cm⁻¹) of two equal atoms from the curvature of their energy (eV/Å²)."""
    if not curvature > 0:
        return float("nan")
    reduced = atomic_masses[atomic_numbers[element]] * _amu / 2
    return float(np.sqrt(curvature * _e * 1e20 / reduced) / (2 * np.pi * 100 * _c))


def _wall_error(reference: Curve, curve: Curve) -> float | None:
    """
    Mean error of the distances (Å) at which the wall is some eV above the minimum.

    A wall that does not reach a height that the reference reaches is off by the whole distance of the reference.
    """
    if min(len(reference.energies), len(curve.energies)) < 2:  # noqa: PLR2004 - no wall
        return None
    errors = []
    for height in _THRESHOLDS:
        expected = _wall_distance(reference, height)
        if expected is not None:
            found = _wall_distance(curve, height)
            errors.append(expected if found is None else abs(found - expected))
    return float(np.mean(errors)) if errors else None


def _wall_distance(curve: Curve, height: float) -> float | None:
    """Distance (Å) at which a curve first reaches a height (eV) above its minimum, coming from there; None if never."""
    lowest = int(np.argmin(curve.energies))
    inwards = curve.distances[lowest::-1]
    above = np.maximum.accumulate(curve.energies[lowest::-1] - curve.energies[lowest])
    above, first = np.unique(above, return_index=True)
    if lowest == 0 or len(above) < 2 or not height <= above[-1]:  # noqa: PLR2004 - no wall
        return None
    return float(np.interp(height, above, inwards[first]))
