"""Molecular dynamics of many materials in one job."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jobflow import job

from matris.makers.batch import STRUCTURES, PropertyMaker, unusual_masses
from matris.makers.current_job import SEES_STORE
from matris.properties.dynamics import dynamics
from matris.properties.ensembles import DynamicsSettings
from matris.properties.hdf5_trajectory import write_hdf5
from matris.relaxation.records import RelaxRecord
from matris.stores.documents.properties import DynamicsDocument, PropertyOutput

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pymatgen.core import Structure

    from matris.model.potential import Potential
    from matris.properties.dynamics import DynamicsRecord
    from matris.properties.ensembles import Ensemble


LARGE = [*STRUCTURES, "series", "radial_distribution", "mean_square_displacement", "vibrational_dos"]


class DynamicsDocuments(PropertyOutput):
    """Output of one job: one document for each material, in order."""

    kind: Literal["md"] = "md"
    documents: list[DynamicsDocument]


@dataclass
class BatchMDMaker(PropertyMaker):
    """
    Molecular dynamics of many materials, all computed together.

    The cells are taken as they are, neither relaxed nor repeated. A material that fails does not affect the others. See
    `matris.properties.ensembles.DynamicsSettings` for the methods.

    Parameters
    ----------
    name
        Name of the job.
    checkpoint
        Registry key or path of a checkpoint; by default the embedded one.
    device, dtype
        Device and precision of the potential; by default those that suit the machine and the checkpoint.
    dispersion
        ``"d3"`` adds D3(BJ) dispersion; by default none.
    ensemble
        ``"nve"``, ``"nvt"`` (Langevin) or ``"npt"`` (Langevin, stochastic cell rescaling).
    temperature
        Temperature, K.
    final_temperature
        Temperature to which the thermostat goes linearly, K; by default it stays.
    pressure
        Pressure of ``"npt"``, GPa; atomate2's Makers take kbar.
    time_step
        Time step, fs.
    n_steps
        Number of steps of each material.
    interval
        Number of steps between frames.
    seed
        Seed of the initial Maxwell–Boltzmann velocities and of the noise of thermostat and barostat.
    thermostat_time
        Inverse of the Langevin friction, fs.
    barostat_time
        Relaxation time of the volume, fs.
    trajectory_dir
        Folder of the trajectories, on the machine where the job runs; by default none are written. A material whose
        trajectory is complete in this folder is not computed again.
    hdf5
        Whether to copy complete trajectories into torch-sim's HDF5 format, in the same folder.

    Examples
    --------
    >>> from pymatgen.core import Lattice, Structure
    >>> rock_salt = Structure.from_spacegroup("Fm-3m", Lattice.cubic(4.21), ["Mg", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    >>> job = BatchMDMaker(ensemble="npt", temperature=600, n_steps=2000).make([rock_salt * (2, 2, 2)])
    >>> job.name
    'batch molecular dynamics'
    """

    name: str = "batch molecular dynamics"
    ensemble: Ensemble = "nvt"
    temperature: float = 300.0
    final_temperature: float | None = None
    pressure: float = 0.0
    time_step: float = 1.0
    n_steps: int = 1000
    interval: int = 10
    seed: int = 0
    thermostat_time: float = 100.0
    barostat_time: float = 1000.0
    trajectory_dir: str | None = None
    hdf5: bool = False

    output_schema = DynamicsDocuments
    make = job(PropertyMaker.make, config=SEES_STORE, data=LARGE, output_schema=DynamicsDocuments)

    def compute(self, structures: Sequence[Structure], potential: Potential) -> list[DynamicsRecord]:
        """Run molecular dynamics."""
        folder = None if self.trajectory_dir is None else Path(self.trajectory_dir).absolute()
        records = dynamics(structures, potential, settings=self.settings(), trajectory_dir=folder)
        if self.hdf5:
            for record in records:
                if record.trajectory is not None and record.state == "completed":
                    write_hdf5(record.trajectory)
        return records

    def start_record(self, record: DynamicsRecord, structure: Structure) -> RelaxRecord | None:
        """Return the evaluation of the input cell, the first frame; None if there is none."""
        return first_frame(record, structure)

    def settings(self) -> DynamicsSettings:
        """
        Return the settings of the dynamics, checked.

        Raises
        ------
        ValueError
            If a value is out of range, or HDF5 files are wanted without a folder.
        """
        if self.hdf5 and self.trajectory_dir is None:
            raise ValueError("hdf5 copies trajectories, and none are written: give a trajectory_dir")
        return DynamicsSettings(
            ensemble=self.ensemble,
            temperature=self.temperature,
            final_temperature=self.final_temperature,
            pressure=self.pressure,
            time_step=self.time_step,
            n_steps=self.n_steps,
            interval=self.interval,
            seed=self.seed,
            thermostat_time=self.thermostat_time,
            barostat_time=self.barostat_time,
        )

    def fields(self, record: DynamicsRecord | None) -> dict[str, Any]:
        """Fields of a trajectory; none without a record."""
        if record is None:
            return {}
        return {
            "masses": None if record.structure is None else unusual_masses(record.structure),
            "n_steps": record.n_steps,
            "n_frames": 0 if record.series is None else len(record.series.time),
            **{f"mean_{name}": mean for name, mean in record.means.items()},
            "energy_drift": record.drift,
            "trajectory": None if record.trajectory is None else str(record.trajectory),
            "series": None if record.series is None else record.series.to_dict(),
            "radial_distribution": record.radial_distribution,
            "mean_square_displacement": record.mean_square_displacement,
            "diffusion": {element: asdict(found) for element, found in record.diffusion.items()},
            "vibrational_dos": record.vibrational_dos,
            "extrapolation": record.extrapolation,
        }


def first_frame(run: DynamicsRecord, structure: Structure) -> RelaxRecord | None:
    """Return the first frame of a run as an evaluation of its input cell; None if there is none."""
    if run.series is None:
        return None
    energy = float(run.series.potential_energy[0]) * len(structure)
    return RelaxRecord(run.index, None, "converged", structure, energy)
