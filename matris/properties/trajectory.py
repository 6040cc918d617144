"""Trajectories on disk: one extended XYZ file per material, and beside it the results of the complete run."""

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
from matris.structures import MASSES, masses_of

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from pymatgen.core import Structure

    from matris.properties.ensembles import DynamicsSettings


class Trajectory:
    """
    A trajectory file, readable by ASE and OVITO at any time.

    Each frame is one write, so that a killed process leaves only whole frames. The first frame empties the file: a run
    that was killed starts from the beginning. `finish` writes the results of a complete run beside the trajectory;
    `results` reads them, so that a complete run is not repeated.

    Parameters
    ----------
    folder
        Folder of the file; created if missing.
    structure
        The material.
    settings
        Settings of the dynamics.
    header
        Everything on which the trajectory depends: settings, checkpoint, structure. The file name contains its hash, so
        that trajectories at other temperatures and from other checkpoints get files of their own.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from pymatgen.core import Lattice, Structure
    >>> from matris.properties.ensembles import DynamicsSettings
    >>> copper = Structure(Lattice.cubic(3.6), ["Cu"], [[0, 0, 0]])
    >>> folder = tempfile.TemporaryDirectory()
    >>> trajectory = Trajectory(Path(folder.name), copper, DynamicsSettings(temperature=600), {"seed": 0})
    >>> trajectory.path.name
    'Cu-nvt-600K-...extxyz'
    >>> trajectory.results() is None
    True
    >>> folder.cleanup()
    """

    def __init__(self, folder: Path, structure: Structure, settings: DynamicsSettings, header: dict[str, Any]) -> None:
        digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode()).hexdigest()[:12]
        formula = structure.composition.element_composition.hill_formula.replace(" ", "")
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{formula}-{settings.ensemble}-{settings.temperature:g}K-{digest}.extxyz"
        self._header = header
        self._results = self.path.with_suffix(".json")
        self._masses = masses_of(structure) if MASSES in structure.site_properties else None  # else ASE's
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
        Append a frame.

        Parameters
        ----------
        numbers
            Atomic numbers, shape (n,).
        positions
            Positions, shape (n, 3), Å; not wrapped into the cell.
        lattice
            Lattice vectors in rows, shape (3, 3), Å.
        momenta
            Momenta, shape (n, 3), ASE's unit √(u·eV).
        energy
            Potential energy, eV.
        forces
            Forces, shape (n, 3), eV/Å.
        stress
            Stress without its kinetic part, shape (3, 3), eV/Å³, or None.
        step
            Number of the integrator's step.
        time
            Time, fs.
        """
        atoms = Atoms(numbers, positions, cell=lattice, pbc=True, momenta=momenta, info={"step": step, "time": time})
        if self._masses is not None:
            atoms.set_masses(self._masses)
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
        """Read the results that `finish` wrote; None if the trajectory is not complete."""
        try:
            content = json.loads(self._results.read_text())
        except (FileNotFoundError, ValueError):
            return None
        if content.get("header") != self._header or not self.path.is_file():
            return None
        results: dict[str, Any] = content["results"]
        return results

    def finish(self, results: dict[str, Any]) -> None:
        """Write the results of a complete run, atomically."""
        with whole_file(self._results) as draft, draft.open("w") as file:
            json.dump({"header": self._header, "results": results}, file, cls=MontyEncoder)
