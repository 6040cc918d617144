"""Mean square displacements and diffusion coefficients by element, with errors from blocks of a trajectory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from matris.properties.ensembles import BOLTZMANN, FEMTOSECOND

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from matris.properties.correlations import Snapshot

N_BLOCKS = 5
"""Number of blocks into which a trajectory is cut; their spread gives the errors."""

CM2_PER_S = 0.1
"""1 Å²/fs in cm²/s."""

MIN_HOPS = 10
"""Number of hops in a run below which there is no diffusion coefficient."""

MAX_SLOWED = 0.05
"""Share of a diffusion coefficient that the friction of the thermostat takes, above which there is a warning."""

_MIN_FRAMES = 4  # of a block
_HOP = 3.0  # Å, about the distance between neighboring sites of an ion in a crystal
_SIGMAS = 3.0  # standard errors by which a number differs from zero
_BENT = 0.25  # relative change of the slope within the window
_FEW = f"fewer than {N_BLOCKS * _MIN_FRAMES} frames in the second half of the run: more steps, or a shorter interval"
_WINDOW = 0.25  # the fit leaves out this share of the lags, the first ones


@dataclass(frozen=True)
class Diffusivity:
    """
    Diffusion coefficient of one element at one temperature.

    Attributes
    ----------
    coefficient
        Tracer diffusion coefficient, cm²/s, in the frame of the center of mass; None if the run does not tell it.
    error
        Its standard error, cm²/s; None without a coefficient.
    window
        First and last time of the fit of the mean square displacement, fs; None if there was no fit.
    n_hops
        About how many hops of 3 Å the atoms of the element made in the run; None if there was no fit.
    problem
        Why there is no coefficient; None if there is one.
    """

    coefficient: float | None = None
    error: float | None = None
    window: tuple[float, float] | None = None
    n_hops: float | None = None
    problem: str | None = None


@dataclass(frozen=True, eq=False)
class Displacements:
    """
    Mean square displacement of each element against time, in each block of a trajectory.

    Attributes
    ----------
    times
        Time between two frames, fs, from 0, shape (n_lags,).
    elements
        By element, Å², shape (n_blocks, n_lags). One block means that there are too few frames for errors.
    numbers
        By element, the number of its atoms.
    duration
        Time from the first frame to the last, fs.
    """

    times: NDArray[np.float64]
    elements: dict[str, NDArray[np.float64]]
    numbers: dict[str, int]
    duration: float

    @classmethod
    def of(
        cls, symbols: Sequence[str], frames: Sequence[Snapshot], masses: NDArray[np.float64] | None
    ) -> Displacements | None:
        """
        Compute displacements from unwrapped positions.

        Each of `N_BLOCKS` blocks of equal length is averaged over the atoms and over starts at all its frames, up to
        half its length. In a cell that changes, displacements are those in fractional coordinates times the mean
        lattice. D. Frenkel and B. Smit, Understanding Molecular Simulation (Academic Press 2002), section 4.4.1.

        Parameters
        ----------
        symbols
            Element of each atom.
        frames
            Frames at equal intervals.
        masses
            Masses, shape (n,), u: displacements are those from the center of mass. None if some atoms are fixed: these
            are the frame then.

        Returns
        -------
        Displacements or None
            None for fewer than four frames.

        Examples
        --------
        Two atoms of equal mass that part by 2 Å in each femtosecond, while both drift:

        >>> from matris.properties.correlations import Snapshot
        >>> frames = [Snapshot(float(t), np.array([[9 * t, 0, 0], [7 * t, 0, 0]]), 50 * np.eye(3)) for t in range(5)]
        >>> found = Displacements.of(["H", "He"], frames, np.ones(2))
        >>> found.times.tolist(), found.elements["H"].round(9).tolist()
        ([0.0, 1.0, 2.0], [[0.0, 1.0, 4.0]])
        """
        if len(frames) < _MIN_FRAMES:
            return None
        mean_lattice = np.mean([frame.lattice for frame in frames], axis=0)
        places = np.stack([frame.positions @ np.linalg.inv(frame.lattice) for frame in frames]) @ mean_lattice
        if masses is not None:
            places = places - np.average(places, axis=1, weights=masses)[:, None]
        n_blocks = N_BLOCKS if len(frames) >= N_BLOCKS * _MIN_FRAMES else 1
        length = len(frames) // n_blocks
        blocks = places[len(frames) - n_blocks * length :].reshape(n_blocks, length, len(symbols), 3)
        squares = np.zeros((n_blocks, length // 2 + 1, len(symbols)))
        for lag in range(1, length // 2 + 1):
            squares[:, lag] = ((blocks[:, lag:] - blocks[:, :-lag]) ** 2).sum(axis=3).mean(axis=1)
        kinds, counts = np.unique(np.asarray(symbols), return_counts=True)
        return cls(
            np.array([frames[lag].time - frames[0].time for lag in range(length // 2 + 1)]),
            {str(kind): squares[:, :, np.asarray(symbols) == kind].mean(axis=2) for kind in kinds},
            dict(zip(map(str, kinds), counts.tolist(), strict=True)),
            frames[-1].time - frames[0].time,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return ``times`` (fs), ``elements`` (Å²) and, if there are blocks, ``errors`` (standard errors, Å²)."""
        result: dict[str, Any] = {
            "times": self.times.tolist(),
            "elements": {kind: part.mean(axis=0).round(6).tolist() for kind, part in self.elements.items()},
        }
        if all(len(part) > 1 for part in self.elements.values()):
            result["errors"] = {kind: _error(part).round(6).tolist() for kind, part in self.elements.items()}
        return result

    def diffusivity(self, element: str) -> Diffusivity:
        """
        Fit the diffusion coefficient of an element by Einstein's relation, MSD = 6 D t + constant.

        The fit leaves out the first quarter of the times, where atoms fly or vibrate. Its error is that of the mean
        over the blocks. There is a coefficient if it differs from zero by three standard errors, if the atoms made
        `MIN_HOPS` hops, if in the whole run they came further than by vibration, and if the slope of the first half
        of the window is that of the second.

        Parameters
        ----------
        element
            Symbol of the element.

        Returns
        -------
        Diffusivity
        """
        blocks = self.elements[element]
        if len(blocks) == 1:
            return Diffusivity(problem=_FEW)
        start = max(1, int(np.ceil(_WINDOW * (len(self.times) - 1))))
        times = self.times[start:]
        window = (float(times[0]), float(times[-1]))
        slopes, intercepts = np.polyfit(times, blocks[:, start:].T, 1)
        slope, error = float(slopes.mean()), float(_error(slopes))
        n_hops = max(slope * self.duration, 0.0) * self.numbers[element] / _HOP**2
        half = max(2, len(times) // 2)
        early, late = (np.polyfit(times[part], blocks[:, start:][:, part].T, 1)[0] for part in _halves(half))
        problem = self._problem(slope, error, n_hops, float(intercepts.mean()), late - early)
        if problem is not None:
            fitted = f"{CM2_PER_S * slope / 6:.1e} ± {CM2_PER_S * error / 6:.1e} cm²/s in {self.duration / 1000:.3g} ps"
            return Diffusivity(None, None, window, n_hops, f"{fitted} {problem}")
        return Diffusivity(CM2_PER_S * slope / 6, CM2_PER_S * error / 6, window, n_hops)

    def _problem(
        self, slope: float, error: float, n_hops: float, intercept: float, bends: NDArray[np.float64]
    ) -> str | None:
        """Say why a slope is no diffusion coefficient; None if it is one."""
        growth = slope * self.duration
        if not (np.isfinite(slope) and slope > _SIGMAS * error):
            return "does not differ from 0: needs a longer run, or a higher temperature"
        if n_hops < MIN_HOPS:
            return f"would be {n_hops:.1g} hops: needs a longer run, or a higher temperature"
        if growth < intercept:
            return f"is {growth:.2g} Å², less than {intercept:.2g} Å² of vibration: needs a longer run"
        if abs(bends.mean()) > max(_SIGMAS * _error(bends), _BENT * slope):
            kind = "faster" if bends.mean() > 0 else "slower"
            return f"is no constant slope: displacements grow {kind} at long times: needs a longer run"
        return None


def diffusivities(
    displacements: Displacements | None, elements: Sequence[str], problem: str | None = None
) -> dict[str, Diffusivity]:
    """
    Fit the diffusion coefficient of each element.

    Parameters
    ----------
    displacements
        Displacements, or None if there are too few frames.
    elements
        Symbols of the elements.
    problem
        Why no coefficient of this run would mean anything; by default nothing speaks against it.

    Returns
    -------
    dict
        By element; each has a coefficient or a problem.

    Examples
    --------
    >>> diffusivities(None, ["Li"])["Li"].problem
    'fewer than 20 frames in the second half of the run: more steps, or a shorter interval'
    """
    if problem is None and displacements is None:
        problem = _FEW
    if displacements is None or problem is not None:
        return {element: Diffusivity(problem=problem) for element in elements}
    return {element: displacements.diffusivity(element) for element in elements}


def slowed_by(coefficient: float, mass: float, temperature: float, thermostat_time: float) -> float:
    """
    Estimate the share of a diffusion coefficient that the friction of a Langevin thermostat takes.

    Frictions add: 1/D = 1/D' + m/(kT τ), where D' is the coefficient without the thermostat. For hops over barriers it
    is an estimate.

    Parameters
    ----------
    coefficient
        D, cm²/s.
    mass
        Mass of an atom, u.
    temperature
        Temperature, K.
    thermostat_time
        Inverse of the friction, τ, fs.

    Returns
    -------
    float
        1 - D/D', between 0 and about 1.

    Examples
    --------
    A liquid metal with 5·10⁻⁵ cm²/s, and the default thermostat:

    >>> round(slowed_by(5e-5, 27, 1000, 100), 2)
    0.16
    """
    squared_speed = BOLTZMANN * temperature / mass * FEMTOSECOND**2  # Å²/fs², of one component
    return coefficient / (CM2_PER_S * squared_speed * thermostat_time)


def _halves(half: int) -> tuple[slice, slice]:
    return slice(None, half), slice(-half, None)


def _error(blocks: NDArray[np.float64]) -> Any:
    """Return the standard error of the mean over blocks, the first axis."""
    return blocks.std(axis=0, ddof=1) / np.sqrt(len(blocks))
