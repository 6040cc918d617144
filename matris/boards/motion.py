"""
Errors of a trajectory against a reference: structure, vibrations, pressure.

The definitions are those of Matbench Discovery's molecular-dynamics task (its module ``metrics/md.py``); errors in per
cent are at most 100.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
from ase.data import covalent_radii
from ase.geometry import find_mic, get_distances, minkowski_reduce
from ase.units import GPa
from scipy.stats import wasserstein_distance

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ase import Atoms
    from numpy.typing import NDArray

_RADIAL_BINS, _ANGLE_BINS, _PRESSURE_BINS = 500, 180, 80
_BONDED = 1.25  # of the sum of covalent radii
_BAND = 0.999  # of the reference's vibrational power; what lies above is noise
_FEWEST = 4  # frames


@dataclass(frozen=True, eq=False)
class Motion:
    """
    A trajectory as arrays.

    Attributes
    ----------
    numbers
        Atomic numbers, shape (n,).
    positions, cells
        Å, shapes (frames, n, 3) and (frames, 3, 3).
    pbc
        Periodicity, shape (3,).
    pressures
        GPa, shape (frames,), of the stress without the kinetic part; None if a frame has no stress.
    """

    numbers: NDArray[np.int64]
    positions: NDArray[np.float64]
    cells: NDArray[np.float64]
    pbc: NDArray[np.bool_]
    pressures: NDArray[np.float64] | None

    @classmethod
    def of(cls, frames: Sequence[Atoms]) -> Self:
        """Read ASE's frames, with the stress of their calculators."""
        stresses = [None if atoms.calc is None else atoms.calc.results.get("stress") for atoms in frames]
        pressures = None
        if all(stress is not None for stress in stresses):
            pressures = np.array([-np.mean(np.asarray(stress)[:3]) / GPa for stress in stresses])
        return cls(
            np.asarray(frames[0].numbers),
            np.array([atoms.positions for atoms in frames]),
            np.array([atoms.cell.array for atoms in frames]),
            np.asarray(frames[0].pbc),
            pressures,
        )

    def reach(self) -> float:
        """Half of the shortest lattice vector of any frame, Å: pairs within it have one image."""
        cells = self.cells[:1] if np.allclose(self.cells, self.cells[0]) else self.cells
        reduced = [np.linalg.norm(minkowski_reduce(cell, self.pbc)[0], axis=1) for cell in cells]
        return float(min((lengths[self.pbc] if self.pbc.any() else lengths).min() for lengths in reduced)) / 2


def motion_errors(reference: Motion, motion: Motion, time: float) -> dict[str, float | None]:
    """
    Compute all errors of a trajectory with frames at the times of the reference's.

    Parameters
    ----------
    reference, motion
        The trajectories; the longer one is cut.
    time
        Time between frames, fs.

    Returns
    -------
    dict
        ``rdf_error``, ``adf_error``, ``vdos_error``, ``pressure_error`` (%); ``pressure_mae`` and
        ``pressure_wasserstein`` (GPa). None where a stress, or a bond angle, is missing.

    Raises
    ------
    ValueError
        If there are fewer than four frames.
    """
    frames = min(len(reference.positions), len(motion.positions))
    if frames < _FEWEST:
        raise ValueError(f"{frames} frames are too few: at least {_FEWEST} are needed")
    both = [_cut(each, frames) for each in (reference, motion)]
    errors: dict[str, float | None] = {
        "rdf_error": _radial_error(both[0], both[1]),
        "adf_error": _angular_error(angles(both[0]), angles(both[1])),
        "vdos_error": _vibrational_error(spectrum(both[0], time), spectrum(both[1], time), time, frames),
    }
    pressures = [each.pressures for each in both]
    if pressures[0] is None or pressures[1] is None:
        return errors | dict.fromkeys(("pressure_mae", "pressure_wasserstein", "pressure_error"))
    return errors | pressure_errors(pressures[0], pressures[1])


def _cut(motion: Motion, frames: int) -> Motion:
    pressures = None if motion.pressures is None else motion.pressures[:frames]
    return Motion(motion.numbers, motion.positions[:frames], motion.cells[:frames], motion.pbc, pressures)


def radial(motion: Motion, reach: float) -> NDArray[np.float64]:
    """Pair distribution g(r) of all pairs, in bins up to a distance (Å)."""
    edges = np.linspace(0, reach, _RADIAL_BINS + 1)
    pairs = np.triu_indices(len(motion.numbers), k=1)
    counts, densities = np.zeros(_RADIAL_BINS), 0.0
    for positions, cell in zip(motion.positions, motion.cells, strict=True):
        distances = get_distances(positions, cell=cell, pbc=motion.pbc)[1]
        counts += np.histogram(distances[pairs], bins=edges)[0]
        densities += 1 / abs(float(np.linalg.det(cell)))
    shells = 4 / 3 * np.pi * np.diff(edges**3)
    return counts / (len(motion.numbers) ** 2 / 2 * densities * shells)


def _radial_error(reference: Motion, motion: Motion) -> float:
    reach = reference.reach()
    expected, found = radial(reference, reach), radial(motion, reach)
    whole = np.trapezoid(np.abs(expected - 1))
    return 100.0 if whole == 0 else float(min(1.0, np.trapezoid(np.abs(expected - found)) / whole) * 100)


def angles(motion: Motion) -> NDArray[np.float64] | None:
    """Count the angles between bonds, in bins of one degree; None if there is none."""
    radii = covalent_radii[motion.numbers]
    longest = _BONDED * (radii[:, None] + radii[None, :])
    if motion.pbc.any():
        longest = np.minimum(longest, motion.reach())
    counts = np.zeros(_ANGLE_BINS)
    for positions, cell in zip(motion.positions, motion.cells, strict=True):
        vectors, distances = get_distances(positions, cell=cell, pbc=motion.pbc)
        bonded = (distances > 0) & (distances <= longest)
        for center in np.flatnonzero(bonded.sum(axis=1) > 1):
            bonds = vectors[center, bonded[center]] / distances[center, bonded[center], None]
            cosines = (bonds @ bonds.T)[np.triu_indices(len(bonds), k=1)]
            found = np.degrees(np.arccos(np.clip(cosines, -1, 1)))
            counts += np.histogram(found, bins=_ANGLE_BINS, range=(0, 180))[0]
    return counts if counts.any() else None


def _angular_error(reference: NDArray[np.float64] | None, found: NDArray[np.float64] | None) -> float | None:
    """Distance of the distributions of angles over that of the reference from independent bonds."""
    if reference is None or found is None:
        return None
    middles = np.arange(_ANGLE_BINS) + 0.5
    whole = wasserstein_distance(middles, middles, reference, np.sin(np.radians(middles)))
    return (
        100.0 if whole <= 0 else float(min(1.0, wasserstein_distance(middles, middles, reference, found) / whole) * 100)
    )


def spectrum(motion: Motion, time: float) -> NDArray[np.float64]:
    """Power of the velocities by frequency; each component of each atom has the same weight."""
    steps = [
        find_mic(after - before, cell, motion.pbc)[0]
        for before, after, cell in zip(motion.positions[:-1], motion.positions[1:], motion.cells[:-1], strict=True)
    ]
    unwrapped = motion.positions[0] + np.cumsum([np.zeros_like(motion.positions[0]), *steps], axis=0)
    velocities = np.gradient(unwrapped, time, axis=0) * np.hanning(len(unwrapped))[:, None, None]
    power = np.abs(np.fft.rfft(velocities, axis=0)) ** 2
    total = power.sum(axis=0)
    return np.divide(power, total, out=np.zeros_like(power), where=total > 0).sum(axis=(1, 2))


def _vibrational_error(
    reference: NDArray[np.float64], found: NDArray[np.float64], time: float, frames: int
) -> float | None:
    """Distance of the spectra over the width of the reference's."""
    frequencies = np.fft.rfftfreq(frames, d=time * 1e-3)  # THz
    widths = np.full(len(frequencies), frequencies[1])
    widths[[0, -1]] /= 2
    masses = [spectrum * widths for spectrum in (reference, found)]
    if not masses[0].sum() > 0:  # nothing moves
        return None
    last = min(int(np.searchsorted(np.cumsum(masses[0]), _BAND * masses[0].sum())), len(frequencies) - 1)
    grid, (expected, other) = frequencies[: last + 1], (mass[: last + 1] for mass in masses)
    if other.sum() <= 0:
        return 100.0
    distance = wasserstein_distance(grid, grid, expected, other)
    middle = np.average(grid, weights=expected)
    width = float(np.sqrt(np.average((grid - middle) ** 2, weights=expected)))
    return float(min(1.0, distance / width) * 100) if width > 0 else 100.0 * (distance > 0)


def pressure_errors(reference: NDArray[np.float64], found: NDArray[np.float64]) -> dict[str, float | None]:
    """
    Compare two distributions of pressures (GPa).

    Examples
    --------
    >>> import numpy as np
    >>> pressure_errors(np.array([0.0, 1.0]), np.array([2.0, 3.0]))
    {'pressure_mae': 2.0, 'pressure_wasserstein': 2.0, 'pressure_error': 100.0}
    """
    both = np.concatenate([reference, found])
    overlap = 0.0
    if np.ptp(both) > 0:
        edges = np.linspace(both.min(), both.max(), _PRESSURE_BINS + 1)
        densities = [np.histogram(each, bins=edges, density=True)[0] for each in (reference, found)]
        overlap = float(50 * np.sum(np.abs(densities[0] - densities[1]) * np.diff(edges)))
    return {
        "pressure_mae": abs(float(reference.mean() - found.mean())),
        "pressure_wasserstein": float(wasserstein_distance(reference, found)),
        "pressure_error": overlap,
    }
