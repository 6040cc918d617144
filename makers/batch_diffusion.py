"""Diffusion and ionic conductivity of many materials in one job."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jobflow import job

from matris.makers.batch import STRUCTURES, PropertyMaker
from matris.makers.batch_md import first_frame
from matris.makers.current_job import SEES_STORE
from matris.properties.arrhenius import checked_charges, checked_temperatures, diffusion
from matris.properties.ensembles import DynamicsSettings
from matris.stores.documents.properties import DiffusionDocument, PropertyOutput

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pymatgen.core import Structure

    from matris.model.potential import Potential
    from matris.properties.arrhenius import DiffusionRecord
    from matris.properties.dynamics import DynamicsRecord
    from matris.relaxation.records import RelaxRecord


class DiffusionDocuments(PropertyOutput):
    """Output of one job: one document for each material, in order."""

    kind: Literal["diffusion"] = "diffusion"
    documents: list[DiffusionDocument]


@dataclass
class BatchDiffusionMaker(PropertyMaker):
    """
    Diffusion coefficients, activation energies and ionic conductivities of many materials.

    All materials run at all temperatures together. The cells are taken as they are, neither relaxed nor repeated. See
    `matris.properties.arrhenius.diffusion`.

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
    temperatures
        Temperatures, K, all different.
    charges
        Charges of elements, e; by default oxidation states.
    ensemble
        ``"nvt"`` (Langevin) or ``"npt"`` (Langevin, stochastic cell rescaling).
    pressure
        Pressure of ``"npt"``, GPa.
    time_step
        Time step, fs.
    n_steps
        Number of steps at each temperature.
    interval
        Number of steps between frames.
    seed
        Seed of the first temperature; the next has the next seed.
    thermostat_time
        Inverse of the Langevin friction, fs: longer than in `BatchMDMaker`, because friction slows diffusion.
    barostat_time
        Relaxation time of the volume, fs.
    trajectory_dir
        Folder of the trajectories, on the machine where the job runs, from which an interrupted job goes on; by default
        none are written.

    Examples
    --------
    >>> from pymatgen.core import Lattice, Structure
    >>> fluorite = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.5), ["Ca", "F"], [[0, 0, 0], [0.25] * 3])
    >>> job = BatchDiffusionMaker(temperatures=[1200, 1400, 1600]).make([fluorite * (2, 2, 2)])
    >>> job.name
    'batch diffusion'
    """

    name: str = "batch diffusion"
    temperatures: Sequence[float] = (600.0, 800.0, 1000.0, 1200.0)
    charges: dict[str, float] | None = None
    ensemble: Literal["nvt", "npt"] = "nvt"
    pressure: float = 0.0
    time_step: float = 1.0
    n_steps: int = 50_000
    interval: int = 50
    seed: int = 0
    thermostat_time: float = 1000.0
    barostat_time: float = 1000.0
    trajectory_dir: str | None = None

    output_schema = DiffusionDocuments
    make = job(
        PropertyMaker.make, config=SEES_STORE, data=[*STRUCTURES, "displacements"], output_schema=DiffusionDocuments
    )

    def compute(self, structures: Sequence[Structure], potential: Potential) -> list[DiffusionRecord]:
        """Run molecular dynamics at all temperatures."""
        folder = None if self.trajectory_dir is None else Path(self.trajectory_dir).absolute()
        return diffusion(
            structures,
            potential,
            temperatures=self.temperatures,
            charges=self.charges,
            settings=self.settings(),
            trajectory_dir=folder,
        )

    def start_record(self, record: DiffusionRecord, structure: Structure) -> RelaxRecord | None:
        """Return the evaluation of the input cell, the first frame; None if there is none."""
        return next((found for run in record.runs if (found := first_frame(run, structure)) is not None), None)

    def settings(self) -> DynamicsSettings:
        """
        Return the settings of the dynamics, checked; their temperature is the lowest.

        Raises
        ------
        ValueError
            If a value is out of range.
        """
        checked_charges(self.charges)
        return DynamicsSettings(
            ensemble=self.ensemble,
            temperature=checked_temperatures(self.temperatures)[0],
            pressure=self.pressure,
            time_step=self.time_step,
            n_steps=self.n_steps,
            interval=self.interval,
            seed=self.seed,
            thermostat_time=self.thermostat_time,
            barostat_time=self.barostat_time,
        )

    def fields(self, record: DiffusionRecord | None) -> dict[str, Any]:
        """Fields of the results; none without a record."""
        if record is None:
            return {}
        conductivities = record.conductivities or [None] * len(record.runs)
        return {
            "runs": [
                _run(kelvin, run, conductivity)
                for kelvin, run, conductivity in zip(record.temperatures, record.runs, conductivities, strict=True)
            ],
            "arrhenius": {name: asdict(line) for name, line in record.elements.items()} or None,
            "charges": record.charges,
            "charges_from": record.charges_from,
            "conductivity": record.conductivity and asdict(record.conductivity),
            "displacements": [run.mean_square_displacement for run in record.runs],
        }


def _run(temperature: float, run: DynamicsRecord, conductivity: tuple[float, float] | None) -> dict[str, Any]:
    """Describe the run at one temperature."""
    value, error = conductivity or (None, None)
    return {
        "temperature": temperature,
        "state": run.state,
        "error": run.error,
        "n_steps": run.n_steps,
        "mean_volume": run.means.get("volume"),
        "diffusion": {element: asdict(found) for element, found in run.diffusion.items()},
        "conductivity": value,
        "conductivity_error": error,
        "trajectory": None if run.trajectory is None else str(run.trajectory),
    }
