"""Consistency check of labels: energy differences must equal the work of forces and stresses."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

import numpy as np
from ase.units import GPa

if TYPE_CHECKING:
    from matris.training.data.frame import Frame

_REMEMBERED = 1000  # materials whose last frame is kept
_PAIRS = 5000  # largest number of pairs
_FEWEST = 8  # least number of pairs for a result
_FURTHEST, _STRAIN = 0.3, 0.08  # Å, and relative; the trapezoidal rule fails beyond
_NOTICEABLE = 1e-3  # eV/atom of work, above the noise of energies
_MOVED = 1e-6  # Å, and relative; smaller changes count as none
_SMALL = 0.3  # of the work
_HARTREE, _RYDBERG = 27.211386245988, 13.605693122994  # eV
STRESS_RATIOS = {
    "stresses in GPa instead of eV/Å³": GPa,
    "stresses in kbar instead of eV/Å³": 0.1 * GPa,
    "stresses in eV/Å³ instead of GPa": 1 / GPa,
    "stresses in eV/Å³ instead of kbar": 10 / GPa,
    "stresses in GPa instead of kbar": 10.0,
    "stresses in kbar instead of GPa": 0.1,
}
"""Mistakes, and the resulting ratio of energy difference to work."""
_FORCE_RATIOS = {"energies in Hartree instead of eV": 1 / _HARTREE, "energies in Rydberg instead of eV": 1 / _RYDBERG}


class WorkCheck:
    """
    Comparison of frames of the same material with similar geometries.

    By the trapezoidal rule, the energy difference of two frames is minus the mean forces times the displacements of the
    atoms in the cell, plus volume times mean stress times strain. The signs and units of all three labels enter.
    """

    def __init__(self) -> None:
        self._last: OrderedDict[tuple[str, bytes], Frame] = OrderedDict()
        self._pairs: list[tuple[int, float, float, float]] = []

    def add(self, frame: Frame) -> None:
        """Compare a frame with the previous frame of the same material."""
        if len(self._pairs) >= _PAIRS:
            return
        key = (frame.material, frame.geometry.numbers.tobytes())
        if (before := self._last.pop(key, None)) is not None and (pair := _work(before, frame)) is not None:
            self._pairs.append((len(frame.forces), frame.energy - before.energy, *pair))
        self._last[key] = frame
        if len(self._last) > _REMEMBERED:
            self._last.popitem(last=False)

    def ratios(self) -> dict[str, tuple[float, float, int]]:
        """
        Ratio of energy difference to work, for ``"forces"`` and ``"stress"``, from pairs where this label dominates.

        Returns
        -------
        dict
            Median ratio, which is 1 for consistent labels; median of the ratio times the number of atoms, which is 1 if
            energies are per atom; and number of pairs.
        """
        if not self._pairs:
            return {}
        n_atoms, rise, of_forces, of_stress = np.array(self._pairs).T
        ratios = {}
        for name, work, other in (("forces", of_forces, of_stress), ("stress", of_stress, of_forces)):
            needed = rise - other  # expected work; also significant where a wrong unit makes the work tiny
            telling = [
                (np.abs(size) > _NOTICEABLE * n_atoms) & (np.abs(other) < _SMALL * np.abs(size))
                for size in (work, needed)
            ]
            chosen = (telling[0] | telling[1]) & (work != 0)
            if chosen.sum() >= _FEWEST:
                ratio = needed[chosen] / work[chosen]
                per_atom = float(np.median(ratio * n_atoms[chosen]))
                ratios[name] = float(np.median(ratio)), per_atom, int(chosen.sum())
        return ratios

    def problem(self) -> str | None:
        """Describe what is wrong with the labels; None if nothing is, or too few frames could be compared."""
        for name, (ratio, per_atom, n_pairs) in self.ratios().items():
            if near(ratio, 1):
                continue
            said = f"energies change by {ratio:.3g} times the work of the {name} ({n_pairs} pairs of frames)"
            if near(per_atom, 1):
                return f"the energies look like those of one atom, not of the cell: {said}; multiply them"
            if near(-ratio, 1):
                if name == "stress":
                    return f"the stress has the wrong sign: {said}; give --flip-stress, or leave it out"
                return f"the forces have the wrong sign: {said}; reverse their sign"
            for words, factor in (STRESS_RATIOS if name == "stress" else _FORCE_RATIOS).items():
                if near(abs(ratio), factor):
                    also = ", and the sign is wrong" if ratio < 0 else ""
                    way_out = "give --stress-unit, or convert them" if name == "stress" else "convert them"
                    return f"a unit is wrong, perhaps {words}{also}: {said}; {way_out}"
        return None


def _work(a: Frame, b: Frame) -> tuple[float, float] | None:
    """Work of forces and of stress from one frame to another (eV); None if they differ too much or not at all."""
    change = b.geometry.cell - a.geometry.cell
    if np.abs(np.linalg.solve(a.geometry.cell, change)).max() > 2 * _STRAIN:  # turned, or other lattice vectors
        return None
    cell = (a.geometry.cell + b.geometry.cell) / 2
    strain = np.linalg.solve(cell, change)
    strain = (strain + strain.T) / 2
    moved = np.linalg.solve(b.geometry.cell.T, b.geometry.positions.T).T
    moved -= np.linalg.solve(a.geometry.cell.T, a.geometry.positions.T).T
    moved -= np.round(moved) * (a.geometry.pbc & b.geometry.pbc)
    moved = (moved - moved.mean(axis=0)) @ cell
    if np.abs(strain).max() > _STRAIN or np.linalg.norm(moved, axis=1).max() > _FURTHEST:
        return None
    is_strained = np.abs(strain).max() > _MOVED
    if is_strained and (a.stress is None or b.stress is None):
        return None
    if not is_strained and np.abs(moved).max() < _MOVED:
        return None
    of_forces = -0.5 * float(((a.forces + b.forces) * moved).sum())
    if not is_strained or a.stress is None or b.stress is None:
        return of_forces, 0.0
    mean = (a.geometry.volume * a.stress + b.geometry.volume * b.stress) / 2
    return of_forces, float((mean * strain).sum())


def near(value: float, target: float, within: float = 1.4) -> bool:
    """Whether two numbers are the same but for a factor."""
    return target / within < value < target * within
