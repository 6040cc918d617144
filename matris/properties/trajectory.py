"""Trajectories on disk: one extended XYZ file per material, and beside it what the finished run gave."""

from __future__ import annotations

import hashlib
import json
from io import StringIO
from typing import TYPE_CHECKING, Any

from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io.extxyz import write_extxyz
from monty.json import MontyEncoder

from matris.files.whole_file import whole_file

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from pymatgen.core import Structure

    from matris.properties.ensembles import DynamicsSettings


class Trajectory:
    """
    A trajectory file, readable by ASE and OVITO at any time.

    Each frame is one write, and so there as a whole or not at all if the process is killed. The first frame empties
    the file: a run that was killed begins anew. When the run is complete, `finish` puts its results beside the
    trajectory, by which `results` recognises that there is nothing left to do.

    Parameters
    ----------
    folder
        Where it lies; made if missing.
    structure
        The material.
    settings
        Of the motion.
    header
        What the trajectory depends on: settings, checkpoint, structure. A hash of it is part of the file's name, so
        that other temperatures and checkpoints stand side by side.
    """

    def __init__(self, folder: Path, structure: Structure, settings: DynamicsSettings, header: dict[str, Any]) -> None:
        digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode()).hexdigest()[:12]
        formula = structure.composition.element_composition.hill_formula.replace(" ", "")
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{formula}-{settings.ensemble}-{settings.temperature:g}K-{digest}.extxyz"
        self._header = header
        self._results = self.path.with_suffix(".json")
        self._begun = False

    def add(
        self,
        *,
        numbers: NDArray[np.int64],
        positions: NDArray[np.float64],
        lattice: NDArray[np.float64],
        momenta: NDArray[np.float64],
        energy: float,
        forces: NDArray[np.float64],
        stress: NDArray[np.float64] | None,
        step: int,
        time: float,
    ) -> None:
        """
        Write a frame.

        Parameters
        ----------
        numbers
            Atomic numbers, shape (n,).
        positions
            Shape (n, 3), Å; not wrapped into the cell.
        lattice
            Vectors in rows, shape (3, 3), Å.
        momenta
            Shape (n, 3), ASE's unit √(u·eV).
        energy
            Potential energy, eV.
        forces
            Shape (n, 3), eV/Å.
        stress
            Without the part of the motion, shape (3, 3), eV/Å³, or None.
        step
            Of the integrator.
        time
            In fs.
        """
        atoms = Atoms(numbers, positions, cell=lattice, pbc=True, momenta=momenta, info={"step": step, "time": time})
        results = {"energy": energy, "forces": forces, **({} if stress is None else {"stress": stress})}
        atoms.calc = SinglePointCalculator(atoms, **results)
        text = StringIO()
        write_extxyz(text, [atoms])
        if not self._begun:
            self._results.unlink(missing_ok=True)
        with self.path.open("ab" if self._begun else "wb", buffering=0) as file:
            rest = memoryview(text.getvalue().encode())
            while rest:
                rest = rest[file.write(rest) :]
        self._begun = True

    def results(self) -> dict[str, Any] | None:
        """Read what `finish` kept; None if the trajectory is not complete."""
        try:
            found = json.loads(self._results.read_text())
        except (FileNotFoundError, ValueError):
            return None
        if found.get("header") != self._header or not self.path.is_file():
            return None
        results: dict[str, Any] = found["results"]
        return results

    def finish(self, results: dict[str, Any]) -> None:
        """Keep what a complete run gave: its file is there as a whole or not at all."""
        with whole_file(self._results) as draft, draft.open("w") as file:
            json.dump({"header": self._header, "results": results}, file, cls=MontyEncoder)
