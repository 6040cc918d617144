"""Vibrational density of states of a trajectory, from the autocorrelation of its velocities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from matris.properties.ensembles import FEMTOSECOND

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

MAX_FRAMES = 2048
"""Largest number of frames whose velocities are kept: the last ones."""

_MIN_FRAMES = 20
_MAX_LAGS = 512  # of the autocorrelation
_SAMPLING = 2.0  # the highest frequency of an atom is at most √3 of its root mean square, if it moves in one direction
_THZ = 1000.0  # 1/fs in THz


@dataclass(frozen=True, eq=False)
class Motion:
    """
    Motion in one frame, in single precision.

    Attributes
    ----------
    momenta
        Momenta, shape (n, 3), ASE's unit √(u·eV).
    forces
        Forces, shape (n, 3), eV/Å.
    """

    momenta: NDArray[np.float32]
    forces: NDArray[np.float32]


def moving_frames(n_frames: int) -> range:
    """
    Select the frames whose velocities are kept: neighbors, of the second half of a run, at most `MAX_FRAMES`.

    Parameters
    ----------
    n_frames
        Number of frames of the run.

    Examples
    --------
    >>> moving_frames(101), moving_frames(10_001)
    (range(50, 101), range(7953, 10001))
    """
    return range(max(n_frames // 2, n_frames - MAX_FRAMES), n_frames)


def vibrational_dos(
    symbols: Sequence[str],
    frames: Sequence[Motion],
    masses: NDArray[np.float64],
    spacing: float,
    problem: str | None = None,
) -> dict[str, Any]:
    """
    Compute the vibrational density of states of each element from the autocorrelation of velocities.

    g(ν) = 12 ∫ c(t) cos(2πνt) dt over t > 0, where c is the autocorrelation of the velocities of an element, 1 at
    t = 0: three states for each atom, as in a phonon density of states. Hann's window cuts the autocorrelation. At
    ν = 0, g is 12 m D/kT, by Green and Kubo. D. Frenkel and B. Smit, Understanding Molecular Simulation (Academic Press
    2002), section 4.4.

    Parameters
    ----------
    symbols
        Element of each atom.
    frames
        Frames at equal intervals.
    masses
        Masses, shape (n,), u.
    spacing
        Time between two frames, fs.
    problem
        Why the spectrum of this run would mean nothing; by default nothing speaks against it.

    Returns
    -------
    dict
        ``frequencies`` (THz), by element the ``elements`` (states per THz and atom), and the ``resolution`` (THz: full
        width of a sharp line); or the ``problem`` why there are none: too few frames, or frames so far apart that
        vibrations would appear at wrong frequencies. The forces tell the latter: their mean square over that of the
        velocities is the mean square frequency.

    Examples
    --------
    An atom that oscillates with 5 THz:

    >>> time = 4.0 * np.arange(600)
    >>> momenta = np.cos(2 * np.pi * 0.005 * time)[:, None, None] * np.ones((1, 1, 3))
    >>> frames = [Motion(p, 0.3 * p) for p in momenta]
    >>> found = vibrational_dos(["Li"], frames, np.array([6.94]), 4.0)
    >>> round(found["frequencies"][int(np.argmax(found["elements"]["Li"]))], 1)
    5.0
    """
    if problem is None and len(frames) < _MIN_FRAMES:
        problem = f"fewer than {_MIN_FRAMES} frames in the second half of the run: more steps, or a shorter interval"
    if problem is None:
        problem = _sampling_problem(frames, masses, spacing)
    if problem is not None:
        return {"problem": problem}
    velocities = np.stack([frame.momenta for frame in frames]) / np.sqrt(masses)[:, None]  # of equal mean square
    n_lags = min(len(frames) // 2, _MAX_LAGS)
    window = np.cos(np.pi / 2 * np.arange(n_lags) / n_lags) ** 2
    kinds = np.asarray(symbols)
    elements = {}
    for kind in np.unique(kinds):
        correlation = _autocorrelation(velocities[:, kinds == kind].reshape(len(frames), -1), n_lags)
        if correlation[0] > 0:  # not of fixed atoms
            half = window * correlation / correlation[0]
            half[0] /= 2
            elements[str(kind)] = (12 * spacing / _THZ * np.fft.rfft(half, 4 * n_lags).real).round(6).tolist()
    frequencies = np.fft.rfftfreq(4 * n_lags, spacing) * _THZ
    resolution = _THZ / (n_lags * spacing)
    return {"frequencies": frequencies.round(6).tolist(), "elements": elements, "resolution": round(resolution, 6)}


def _autocorrelation(series: NDArray[np.floating[Any]], n_lags: int) -> NDArray[np.float64]:
    """Average the autocorrelation of many series, shape (n_frames, n_series), over starts; up to `n_lags`."""
    n_frames = len(series)
    spectrum = np.zeros(n_frames + 1)
    for column in np.array_split(series, max(1, series.shape[1] // 100), axis=1):
        spectrum += (np.abs(np.fft.rfft(column, 2 * n_frames, axis=0)) ** 2).sum(axis=1)
    return np.fft.irfft(spectrum, 2 * n_frames)[:n_lags] / (n_frames - np.arange(n_lags))


def _sampling_problem(frames: Sequence[Motion], masses: NDArray[np.float64], spacing: float) -> str | None:
    """Say if frames are too far apart for the fastest atom."""
    forces = np.mean([(frame.forces**2).sum(axis=1) for frame in frames], axis=0)
    momenta = np.mean([(frame.momenta**2).sum(axis=1) for frame in frames], axis=0)
    if not momenta.any():
        return "no atom moves"
    energy = (momenta / masses)[momenta > 0].mean()
    highest = float(np.sqrt(np.where(momenta > 0, forces / masses, 0).max() / energy)) * FEMTOSECOND / (2 * np.pi)
    longest = 1 / (2 * _SAMPLING * highest) if highest else np.inf
    if spacing <= longest:
        return None
    return (
        f"frames {spacing:g} fs apart are too far for atoms that vibrate with {_THZ * highest:.3g} THz: "
        f"at most {longest:.2g} fs"
    )
