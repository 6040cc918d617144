"""Trajectories of molecular dynamics in torch-sim's HDF5 format."""

from __future__ import annotations

from itertools import batched
from typing import TYPE_CHECKING

import numpy as np
import torch
from ase.io import iread

from matris.files.whole_file import whole_file

if TYPE_CHECKING:
    from pathlib import Path

_AT_ONCE = 100  # frames


def write_hdf5(path: Path) -> Path:
    """
    Copy a trajectory into torch-sim's HDF5 format, which is smaller and has frames at random access.

    Parameters
    ----------
    path
        Extended XYZ file of a run, see `matris.properties.trajectory.Trajectory`.

    Returns
    -------
    Path
        The file, beside it, named ``.h5``. An earlier one is kept if it is newer than the trajectory, else replaced. It
        has, by step, ``positions`` (Å), ``cell`` (Å, lattice vectors in columns), ``velocities`` (√(eV/u)), ``forces``
        (eV/Å), ``potential_energy`` (eV), ``time`` (fs) and, if the run has it, ``stress`` (eV/Å³).

    Raises
    ------
    OSError
        If a file cannot be read or written.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from ase.build import bulk
    >>> from ase.calculators.emt import EMT
    >>> from torch_sim.trajectory import TorchSimTrajectory
    >>> import matris
    >>> from matris.properties.dynamics import DynamicsSettings, dynamics
    >>> folder = tempfile.TemporaryDirectory()
    >>> (record,) = dynamics(
    ...     [bulk("Cu", cubic=True)],
    ...     matris.AseModel(EMT()),
    ...     settings=DynamicsSettings(n_steps=4, interval=2),
    ...     trajectory_dir=Path(folder.name),
    ... )
    >>> with TorchSimTrajectory(write_hdf5(record.trajectory)) as trajectory:
    ...     trajectory.get_steps("positions").tolist(), str(trajectory.get_atoms(-1).symbols)
    ([0, 2, 4], 'Cu4')
    >>> folder.cleanup()
    """
    import torch_sim as ts
    from torch_sim.trajectory import TorchSimTrajectory

    copy = path.with_suffix(".h5")
    if copy.exists() and copy.stat().st_mtime_ns > path.stat().st_mtime_ns:
        return copy
    with (
        whole_file(copy) as draft,
        TorchSimTrajectory(draft, mode="w", coerce_to_float32=False, metadata={"source": path.name}) as written,
    ):
        for frames in batched(iread(path, format="extxyz"), _AT_ONCE):
            steps = [int(atoms.info["step"]) for atoms in frames]
            states = [ts.io.atoms_to_state([atoms], torch.device("cpu"), torch.float64) for atoms in frames]
            written.write_state(states, steps)
            arrays = {
                "velocities": np.stack([atoms.get_velocities() for atoms in frames]),
                "forces": np.stack([atoms.get_forces() for atoms in frames]),
                "potential_energy": np.array([[atoms.get_potential_energy()] for atoms in frames]),
                "time": np.array([[atoms.info["time"]] for atoms in frames], dtype=float),
            }
            if all("stress" in atoms.calc.results for atoms in frames):
                arrays["stress"] = np.stack([atoms.get_stress(voigt=False) for atoms in frames])
            written.write_arrays(arrays, steps)
    return copy
