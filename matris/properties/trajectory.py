"""Trajectories on disk: one extended XYZ file per material, and beside it the results of the complete run."""

from __future__ import annotations

import hashlib
import json
import os
from io import StringIO
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import iread
from ase.io.extxyz import write_extxyz
from monty.json import MontyEncoder

from matris.files.whole_file import whole_file
from matris.properties.correlations import Snapshot
from matris.properties.velocity_spectrum import Motion
from matris.structures import MASSES, masses_of

if TYPE_CHECKING:
    from collections.abc import Container, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from pymatgen.core import Structure

    from matris.properties.ensembles import DynamicsSettings


class Trajectory:
    """
    A trajectory file, readable by ASE and OVITO at any time.

    Each frame is one write, so that a killed process leaves only whole frames. With each frame `keep` writes the state
    of the run to a file beside it, in full precision. `resume` reads it, and `go_on` cuts the trajectory after the
    frame of that state: a run that was killed, or that gets more steps, goes on from there. `finish` writes the results
    of a complete run beside the trajectory; `results` reads them, so that a complete run is not repeated. A trajectory
    that cannot be continued is renamed, never overwritten.

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
    >>> trajectory.results(1000) is None
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
        self._state = self.path.with_suffix(".state")
        self._series = self.path.with_suffix(".series")
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
            self._set_aside()
        _append(self.path, text.getvalue())
        self._begun = True

    def _set_aside(self) -> None:
        """Rename a trajectory that is there and cannot be continued."""
        for path in (self._results, self._state, self._series):
            path.unlink(missing_ok=True)
        if self.path.exists():
            names = (self.path.with_name(f"{self.path.stem}.old-{n}.extxyz") for n in count(1))
            self.path.rename(next(name for name in names if not name.exists()))

    def keep(self, state: dict[str, Any], row: Sequence[float]) -> None:
        """
        Keep the state of the run at the frame that was added last.

        Parameters
        ----------
        state
            All that the run needs to go on, as a JSON object.
        row
            Quantities of the frame; `resume` gives the rows of all frames.
        """
        _append(self._series, json.dumps(row) + "\n")
        sizes = {"trajectory": self.path.stat().st_size, "series": self._series.stat().st_size}
        with whole_file(self._state) as draft:
            draft.write_text(json.dumps({"header": self._header, "sizes": sizes, "state": state}))

    def resume(self) -> tuple[dict[str, Any], list[tuple[float, ...]]] | None:
        """
        Read the last state of a run; `go_on` must follow before it continues.

        Returns
        -------
        tuple or None
            State and rows that `keep` was given; None if there is nothing to continue.
        """
        if (content := self._kept()) is None:
            return None
        with self._series.open("rb") as file:
            lines = file.read(content["sizes"]["series"]).decode().splitlines()
        return content["state"], [tuple(json.loads(line)) for line in lines]

    def go_on(self) -> None:
        """Remove the frames after the last state, and the results, which belong to fewer steps."""
        if (content := self._kept()) is not None:
            os.truncate(self.path, content["sizes"]["trajectory"])
            os.truncate(self._series, content["sizes"]["series"])
            self._results.unlink(missing_ok=True)
            self._begun = True

    def _kept(self) -> dict[str, Any] | None:
        """Read what `keep` wrote; None if it does not belong to these files."""
        try:
            content: dict[str, Any] = json.loads(self._state.read_text())
            sizes = {self.path: content["sizes"]["trajectory"], self._series: content["sizes"]["series"]}
            if content["header"] != self._header or any(path.stat().st_size < n for path, n in sizes.items()):
                return None
        except (FileNotFoundError, ValueError, KeyError):
            return None
        return content

    def read(self, places: Container[int], motions: Container[int]) -> tuple[list[Snapshot], list[Motion]]:
        """Read the positions of some frames, given by number, and the momenta and forces of some."""
        snapshots, moving = [], []
        for n, atoms in enumerate(iread(self.path, format="extxyz")):
            if n in places:
                snapshots.append(Snapshot(atoms.info["time"], atoms.positions, atoms.cell.array))
            if n in motions:
                moving.append(Motion(atoms.get_momenta().astype(np.float32), atoms.get_forces().astype(np.float32)))
        return snapshots, moving

    def results(self, n_steps: int) -> dict[str, Any] | None:
        """Read the results that `finish` wrote; None if the trajectory does not have exactly this number of steps."""
        try:
            content = json.loads(self._results.read_text())
        except (FileNotFoundError, ValueError):
            return None
        if content.get("header") != self._header or content.get("n_steps") != n_steps or not self.path.is_file():
            return None
        results: dict[str, Any] = content["results"]
        return results

    def finish(self, n_steps: int, results: dict[str, Any]) -> None:
        """Write the results of a complete run, atomically. The last state stays, from which more steps can start."""
        with whole_file(self._results) as draft, draft.open("w") as file:
            json.dump({"header": self._header, "n_steps": n_steps, "results": results}, file, cls=MontyEncoder)


def _append(path: Path, text: str) -> None:
    """Append a text, and wait until it is on disk: a state must not refer to a frame that is lost with the power."""
    with path.open("ab", buffering=0) as file:
        rest = memoryview(text.encode())
        while rest:
            rest = rest[file.write(rest) :]
        os.fsync(file.fileno())
