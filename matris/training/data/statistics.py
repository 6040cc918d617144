"""Statistics of a set: sizes, elements and labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from ase.data import chemical_symbols
from ase.units import GPa

from matris.model.config import MAX_ATOMIC_NUMBER
from matris.training.data.thinned import Thinned

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

_CHUNK = 4096  # frames processed at once
_SAMPLE = 2**18  # least number of values for quantiles
_QUANTILES = {"median": 0.5, "p99": 0.99}


class _Values:
    """Statistics of a stream of values; exact except for quantiles, which use every n-th of many values."""

    def __init__(self) -> None:
        self.n, self._sum, self._squares = 0, 0.0, 0.0
        self._least, self._most = np.inf, -np.inf
        self._sample = Thinned(_SAMPLE)

    def add(self, sample: NDArray[Any]) -> None:
        values: NDArray[np.float64] = np.asarray(sample, dtype=float).ravel()
        values = values[np.isfinite(values)]
        if not len(values):
            return
        self.n += len(values)
        self._sum, self._squares = self._sum + float(values.sum()), self._squares + float((values**2).sum())
        self._least, self._most = min(self._least, float(values.min())), max(self._most, float(values.max()))
        self._sample.add(values)

    def summary(self) -> dict[str, float] | None:
        if not self.n:
            return None
        sample, mean = self._sample.rows(), self._sum / self.n
        return {
            "n": self.n,
            "mean": mean,
            "std": float(np.sqrt(max(0.0, self._squares / self.n - mean**2))),
            "min": self._least,
            "max": self._most,
            **{name: float(np.quantile(sample, q)) for name, q in _QUANTILES.items()},
        }


def describe(
    arrays: dict[str, NDArray[Any]],
    kept: NDArray[np.bool_],
    residuals: NDArray[np.float64],
    element_energies: NDArray[np.float64],
) -> dict[str, Any]:
    """
    Describe the frames of a set.

    Parameters
    ----------
    arrays
        Arrays of the set, by name.
    kept
        Mask of the frames to describe, shape (n_frames,).
    residuals
        Energies minus the element energies (eV/atom), shape (n_frames,).
    element_energies
        Fitted energy of each element (eV/atom), shape (94,).

    Returns
    -------
    dict
        ``elements``: number of frames and atoms of each element, and its energy (eV/atom); ``labels``: number, mean,
        standard deviation, minimum, maximum, median and 99th percentile of each quantity.
    """
    names = (
        "atoms", "volume (Å³/atom)", "energy (eV/atom)", "energy less elements (eV/atom)", "force (eV/Å)",
        "pressure (GPa)", "stress component (GPa)", "magnetic moment (μB)",
    )  # fmt: skip
    values = {name: _Values() for name in names}
    frames, atoms = np.zeros(MAX_ATOMIC_NUMBER + 1, dtype=int), np.zeros(MAX_ATOMIC_NUMBER + 1, dtype=int)
    for chunk, per_atom, n_atoms in _chunks(arrays["offsets"], kept):
        numbers = arrays["numbers"][per_atom[0]][per_atom[1]]
        owners = np.repeat(np.arange(len(n_atoms)), n_atoms)
        atoms += np.bincount(numbers, minlength=MAX_ATOMIC_NUMBER + 1)
        frames += np.bincount(
            np.unique(owners * (MAX_ATOMIC_NUMBER + 1) + numbers) % (MAX_ATOMIC_NUMBER + 1),
            minlength=MAX_ATOMIC_NUMBER + 1,
        )
        forces = arrays["forces"][per_atom[0]][per_atom[1]].astype(float)
        stresses = arrays["stresses"][chunk].astype(float)
        for name, sample in zip(
            names,
            (
                n_atoms,
                np.abs(np.linalg.det(arrays["cells"][chunk])) / n_atoms,
                arrays["energies"][chunk] / n_atoms,
                residuals[chunk],
                np.linalg.norm(forces, axis=1),
                -np.trace(stresses, axis1=1, axis2=2) / 3 / GPa,
                np.abs(stresses) / GPa,
                np.abs(arrays["magmoms"][per_atom[0]][per_atom[1]]),
            ),
            strict=True,
        ):
            values[name].add(sample)
    return {
        "elements": {
            chemical_symbols[z]: {
                "frames": int(frames[z]),
                "atoms": int(atoms[z]),
                "energy": float(element_energies[z - 1]),
            }
            for z in np.flatnonzero(atoms).tolist()
        },
        "labels": {name: summary for name, v in values.items() if (summary := v.summary()) is not None},
    }


def _chunks(
    offsets: NDArray[np.int64], kept: NDArray[np.bool_]
) -> Iterator[tuple[NDArray[np.int64], tuple[slice, NDArray[np.bool_]], NDArray[np.int64]]]:
    """Yield indices of chosen frames, their atoms (a range, and a mask within it), and their numbers of atoms."""
    for start in range(0, len(kept), _CHUNK):
        stop = min(start + _CHUNK, len(kept))
        here = kept[start:stop]
        if here.any():
            bounds = np.asarray(offsets[start : stop + 1])
            counts = np.diff(bounds)
            yield np.flatnonzero(here) + start, (slice(bounds[0], bounds[-1]), np.repeat(here, counts)), counts[here]
