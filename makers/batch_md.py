"""Molecular dynamics of many materials in one job."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jobflow import job

from matris.makers.batch import BatchMaker
from matris.properties.dynamics import dynamics
from matris.properties.ensembles import DynamicsSettings
from matris.stores.documents.properties import DynamicsDocument, PropertyOutput

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pymatgen.core import Structure

    from matris.properties.dynamics import DynamicsRecord
    from matris.properties.ensembles import Ensemble
    from matris.stores.documents.candidate import Candidate


class DynamicsDocuments(PropertyOutput):
    """Output of one job: a document per material, in the order given."""

    kind: Literal["md"] = "md"
    documents: list[DynamicsDocument]


@dataclass
class BatchMDMaker(BatchMaker):
    """
    Molecular dynamics of many materials: all of them go through the device together.

    The cells are taken as they are, neither relaxed nor repeated. A material that fails does not touch the others. See
    `matris.properties.ensembles.DynamicsSettings` for the method and its limits.

    Parameters
    ----------
    name
        Name of the job.
    checkpoint
        Registry key or path of a checkpoint; by default the embedded one.
    device, dtype
        Where and in which precision the potential computes; by default what the machine and the checkpoint suggest.
    ensemble
        ``"nve"``, ``"nvt"`` (Langevin) or ``"npt"`` (Langevin, stochastic cell rescaling).
    temperature
        In K.
    pressure
        Of ``"npt"``, in GPa; atomate2's Makers count in kbar.
    time_step
        In fs.
    n_steps
        Steps of each material.
    traj_interval
        Steps between frames.
    mb_velocity_seed
        Of the initial Maxwell–Boltzmann velocities, and of all noise.
    thermostat_time
        Inverse of Langevin's friction, fs.
    barostat_time
        In which the volume comes to its mean, fs.
    trajectory_dir
        Folder of the trajectories, on the machine where the job runs; by default none are written. A material whose
        trajectory is complete there is not computed again.
    """

    name: str = "batch molecular dynamics"
    ensemble: Ensemble = "nvt"
    temperature: float = 300.0
    pressure: float = 0.0
    time_step: float = 1.0
    n_steps: int = 1000
    traj_interval: int = 10
    mb_velocity_seed: int = 0
    thermostat_time: float = 100.0
    barostat_time: float = 1000.0
    trajectory_dir: str | None = None

    @job(data=["structure", "series"], output_schema=DynamicsDocuments)
    def make(
        self,
        candidates: Sequence[Candidate | Structure | dict[str, Any]],
        prev_dir: str | Path | None = None,  # noqa: ARG002 (part of every Maker's signature)
    ) -> DynamicsDocuments:
        """
        Run molecular dynamics.

        Parameters
        ----------
        candidates
            Candidates (or their dictionaries), or bare structures.
        prev_dir
            Accepted as by every Maker, without effect.
        """
        folder = None if self.trajectory_dir is None else Path(self.trajectory_dir).absolute()
        found = self.documents(
            candidates,
            lambda structures, potential: dynamics(
                structures, potential, settings=self.settings(), trajectory_dir=folder
            ),
        )
        return DynamicsDocuments(documents=[DynamicsDocument(**common, **_fields(record)) for common, record in found])

    def settings(self) -> DynamicsSettings:
        """
        Check the parameters of the motion.

        Raises
        ------
        ValueError
            If one is out of range.
        """
        return DynamicsSettings(
            ensemble=self.ensemble,
            temperature=self.temperature,
            pressure=self.pressure,
            time_step=self.time_step,
            n_steps=self.n_steps,
            interval=self.traj_interval,
            seed=self.mb_velocity_seed,
            thermostat_time=self.thermostat_time,
            barostat_time=self.barostat_time,
        )


def _fields(record: DynamicsRecord | None) -> dict[str, Any]:
    """Fields of a trajectory; none where nothing moved."""
    if record is None:
        return {}
    return {
        "n_steps": record.n_steps,
        "n_frames": 0 if record.series is None else len(record.series.time),
        **{f"mean_{name}": mean for name, mean in record.means.items()},
        "energy_drift": record.drift,
        "trajectory": None if record.trajectory is None else str(record.trajectory),
        "series": None if record.series is None else record.series.to_dict(),
    }
