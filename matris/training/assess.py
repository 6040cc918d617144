"""Errors of a potential against labelled frames: overall, by set and by element."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import tee
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.data import atomic_numbers, chemical_symbols

from matris.model.config import MAX_ATOMIC_NUMBER
from matris.training.data.element_energies import fractions, least_absolute
from matris.training.data.thinned import Thinned
from matris.units import GPA

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from matris.model.potential import Potential, Prediction
    from matris.training.data.frame import Frame

COLUMNS = {
    "frames": "",
    "atoms": "",
    "energy_mae": "meV/atom",
    "energy_median": "meV/atom",
    "energy_mae_shifted": "meV/atom",
    "force_mae": "meV/Å",
    "force_rmse": "meV/Å",
    "force_length": "meV/Å",
    "force_zero": "meV/Å",
    "force_cosine": "",
    "stress_mae": "GPa",
    "pressure_mae": "GPa",
    "magmom_mae": "μB",
}
"""Columns of a row of errors, and their units; see `Assessment.rows`."""

PARITY = {"energy": "eV/atom", "force component": "eV/Å", "stress component": "GPa", "magnetic moment": "μB"}
"""Quantities of the parity plots."""

_POINTS = 4000  # least number in a parity plot of many; fewer than twice as many are drawn
_DIRECTED = 0.05  # eV/Å; the direction of smaller forces is not compared
_PER_ATOM = ("n", "component", "square", "length", "zero", "cosine", "n_cosine", "magmom", "n_magmom")
_PER_FRAME = ("set", "n_atoms", "energy", "stress", "pressure")
_SHIFTABLE = 3  # frames per element that a fit of shifts needs
_OFFSET, _TOLD = 2.0, 50.0  # ratio, and meV/atom, from which on shifts of elements are reported


@dataclass
class Assessment:
    """
    Errors of a potential, collected frame by frame.

    Attributes
    ----------
    sets
        Names of the sets, in order of appearance.
    left_out
        Number of frames left out, by reason.
    unknown
        Elements that the potential does not support, and the number of frames left out because of them.
    """

    sets: list[str] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    unknown: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        """Start without frames."""
        self._atoms: list[NDArray[np.float64]] = []
        self._frames: list[tuple[float, ...]] = []
        self._numbers: list[NDArray[np.uint8]] = []
        self._points = {name: Thinned(_POINTS) for name in PARITY}
        self._pointed: set[str] = set()

    def add(self, name: str, frame: Frame, prediction: Prediction) -> None:
        """Add the errors of a prediction."""
        numbers, n_atoms = frame.geometry.numbers, len(frame.forces)
        if not (
            np.isfinite(prediction.energy)
            and np.isfinite(prediction.forces).all()
            and np.isfinite(prediction.stress).all()
        ):
            self.left_out["predictions that are not finite"] += 1
            return
        if name not in self.sets:
            self.sets.append(name)
            self._atoms.append(np.zeros((MAX_ATOMIC_NUMBER + 1, len(_PER_ATOM))))
        index = self.sets.index(name)
        self._atoms[index] += _by_element(numbers, frame, prediction)
        stress = pressure = np.nan
        if frame.stress is not None:
            off = GPA * (prediction.stress - frame.stress)
            stress, pressure = float(np.abs(off).mean()), abs(float(np.trace(off))) / 3
            self._point("stress component", index, GPA * frame.stress, GPA * prediction.stress)
        if frame.magmoms is not None and prediction.magmoms is not None:
            self._point("magnetic moment", index, np.abs(frame.magmoms), prediction.magmoms)
        self._point("force component", index, frame.forces, prediction.forces)
        self._point("energy", index, np.array([frame.energy / n_atoms]), np.array([prediction.energy / n_atoms]))
        self._frames.append((index, n_atoms, (prediction.energy - frame.energy) / n_atoms, stress, pressure))
        self._numbers.append(numbers.astype(np.uint8))

    def _point(self, name: str, index: int, label: NDArray[np.float64], prediction: NDArray[np.float64]) -> None:
        rows = np.stack([np.full(label.size, float(index)), label.ravel(), prediction.ravel()], axis=1)
        self._points[name].add(rows)
        self._pointed.add(name)

    def points(self) -> dict[str, NDArray[np.float64]]:
        """Return a sample of set, label and prediction by quantity, for parity plots, shape (n, 3)."""
        return {name: self._points[name].rows() for name in PARITY if name in self._pointed}

    def rows(self) -> list[dict[str, Any]]:
        """
        Return the errors of all frames, of each set, and of each element.

        Returns
        -------
        list of dict
            ``kind`` ("all", "set" or "element"), ``name``, and `COLUMNS`, which are None without labels. Energy errors
            are absolute errors per atom: mean, median, and mean after the best-fit shift of each element's energy (over
            all frames; None with fewer than three frames per element). ``force_mae`` and ``force_rmse`` are averages
            over force components, ``force_zero`` is the mean absolute force component, i.e. the error of predicting no
            forces, ``force_length`` is the mean length of the error vector, and ``force_cosine`` is the mean cosine
            between predicted and labelled forces above 0.05 eV/Å. Energies and stresses of an element are averages over
            the frames that contain it, forces and moments over its atoms.
        """
        if not self._frames:
            return []
        frames, atoms = np.array(self._frames), np.array(self._atoms)
        shifted = self._shifted(frames)
        everything = np.ones(len(frames), dtype=bool)
        rows = [_row("all", "all", frames, shifted, everything, atoms.sum(axis=(0, 1)))]
        for index, name in enumerate(self.sets):
            rows.append(_row("set", name, frames, shifted, frames[:, 0] == index, atoms[index].sum(axis=0)))
        by_element = atoms.sum(axis=0)
        contained = np.zeros((len(frames), MAX_ATOMIC_NUMBER + 1), dtype=bool)
        for i, numbers in enumerate(self._numbers):
            contained[i, numbers] = True
        return rows + [
            _row("element", chemical_symbols[z], frames, shifted, contained[:, z], by_element[z])
            for z in np.flatnonzero(by_element[:, 0]).tolist()
        ]

    def _shifted(self, frames: NDArray[np.float64]) -> NDArray[np.float64]:
        """Subtract the best-fit shifts of the elements from the signed energy errors (eV/atom); NaN without a fit."""
        compositions = fractions(
            np.concatenate(self._numbers), np.cumsum([0, *map(len, self._numbers)], dtype=np.int64)
        )
        n_elements = np.count_nonzero(compositions.sum(axis=0))
        if len(frames) < _SHIFTABLE * n_elements:
            return np.full(len(frames), np.nan)
        energy: NDArray[np.float64] = frames[:, _PER_FRAME.index("energy")]
        return energy - compositions @ least_absolute(compositions, energy)

    def remark(self) -> str | None:
        """Return a warning if the energies seem to be on another scale."""
        rows = self.rows()
        if not rows or rows[0]["energy_mae_shifted"] is None:
            return None
        mae, shifted = rows[0]["energy_mae"], rows[0]["energy_mae_shifted"]
        if mae < _TOLD or mae < _OFFSET * shifted:
            return None
        return (
            f"shifting each element's energy brings the energy error from {mae:.0f} to {shifted:.0f} meV/atom: "
            "labels and checkpoint seem to be on different energy scales"
        )


def assess(potential: Potential, frames: Iterable[tuple[str, Frame]]) -> Assessment:
    """
    Compare a potential with labelled frames.

    Parameters
    ----------
    potential
        The potential.
    frames
        Name of the set and frame, read one by one. Frames with elements that the potential does not support are left
        out.

    Returns
    -------
    Assessment

    Examples
    --------
    >>> import matris
    >>> from ase.build import bulk
    >>> from matris.model.graph import Geometry
    >>> from matris.training.data.frame import Frame
    >>> copper = Frame(Geometry.of(bulk("Cu")), -4.0, np.zeros((1, 3)), np.zeros((3, 3)), "Cu")
    >>> row = assess(matris.load(device="cpu"), [("copper", copper)]).rows()[0]
    >>> row["frames"], row["energy_mae"] > 0
    (1, True)
    """
    result = Assessment()
    numbers = np.array([atomic_numbers[symbol] for symbol in potential.elements])

    def covered() -> Iterator[tuple[str, Frame]]:
        for name, frame in frames:
            strange = np.setdiff1d(frame.geometry.numbers, numbers)
            if len(strange):
                result.left_out["elements that the checkpoint does not know"] += 1
                result.unknown.update(chemical_symbols[z] for z in strange)
            else:
                yield name, frame

    labels, asked = tee(covered())
    for prediction in potential.predict_geometries(frame.geometry for _, frame in asked):
        result.add(*next(labels), prediction)
    return result


def _by_element(numbers: NDArray[np.int64], frame: Frame, prediction: Prediction) -> NDArray[np.float64]:
    """Sum `_PER_ATOM` over the atoms of each element, shape (95, n)."""
    off = prediction.forces - frame.forces
    size, predicted_size = np.linalg.norm(frame.forces, axis=1), np.linalg.norm(prediction.forces, axis=1)
    directed = (size > _DIRECTED) & (predicted_size > 0)
    cosine = np.zeros(len(numbers))
    cosine[directed] = (frame.forces * prediction.forces).sum(axis=1)[directed] / (size * predicted_size)[directed]
    moment = np.zeros(len(numbers))
    has_moments = frame.magmoms is not None and prediction.magmoms is not None
    if frame.magmoms is not None and prediction.magmoms is not None:
        moment = np.abs(prediction.magmoms - np.abs(frame.magmoms))
    values = (
        np.ones(len(numbers)),
        np.abs(off).mean(axis=1),
        (off**2).mean(axis=1),
        np.linalg.norm(off, axis=1),
        np.abs(frame.forces).mean(axis=1),
        cosine,
        directed,
        moment,
        np.full(len(numbers), float(has_moments)),
    )
    return np.stack([np.bincount(numbers, weights=v, minlength=MAX_ATOMIC_NUMBER + 1) for v in values], axis=1)


def _row(
    kind: str,
    name: str,
    frames: NDArray[np.float64],
    shifted: NDArray[np.float64],
    chosen: NDArray[np.bool_],
    of_atoms: NDArray[np.float64],
) -> dict[str, Any]:
    atoms = dict(zip(_PER_ATOM, of_atoms.tolist(), strict=True))
    here = dict(zip(_PER_FRAME, frames[chosen].T, strict=True))
    energy = np.abs(here["energy"])
    values = (
        int(chosen.sum()),
        int(atoms["n"]),
        1e3 * energy.mean(),
        1e3 * np.median(energy),
        1e3 * np.abs(shifted[chosen]).mean(),
        1e3 * atoms["component"] / atoms["n"],
        1e3 * np.sqrt(atoms["square"] / atoms["n"]),
        1e3 * atoms["length"] / atoms["n"],
        1e3 * atoms["zero"] / atoms["n"],
        _ratio(atoms["cosine"], atoms["n_cosine"]),
        _mean(here["stress"]),
        _mean(here["pressure"]),
        _ratio(atoms["magmom"], atoms["n_magmom"]),
    )
    plain = [v if isinstance(v, int) else None if v is None or np.isnan(v) else float(v) for v in values]
    return {"kind": kind, "name": name, **dict(zip(COLUMNS, plain, strict=True))}


def _mean(values: NDArray[np.float64]) -> float | None:
    labelled = values[~np.isnan(values)]
    return float(labelled.mean()) if len(labelled) else None


def _ratio(total: float, n: float) -> float | None:
    return total / n if n else None
