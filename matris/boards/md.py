"""Molecular dynamics against ab-initio trajectories: structure, vibrations, pressure (Matbench Discovery)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ase.io
import numpy as np

from matris.boards.board import Board, mean
from matris.boards.motion import Motion, motion_errors
from matris.boards.published import MD
from matris.boards.single_points import single_points
from matris.errors import BoardError
from matris.properties.dynamics import dynamics
from matris.properties.ensembles import DynamicsSettings

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping
    from pathlib import Path

    from matris.boards.board import Job, Metrics, Values

_LONGEST_STEP, _MAX_STEPS = 0.25, 80_000  # fs
_THERMOSTAT = 1000.0
"""Inverse friction, fs: weak, so that it does not broaden the spectrum of vibrations."""
_ERRORS = ("rdf_error", "adf_error", "vdos_error", "pressure_error", "pressure_mae", "pressure_wasserstein")


@dataclass(frozen=True)
class MdItem:
    """
    One system.

    Attributes
    ----------
    path
        File of the reference trajectory.
    temperature
        In K.
    time
        Between its frames, fs.
    n_frames
        How many frames count: those of 20 ps.
    """

    path: Path
    temperature: float
    time: float
    n_frames: int

    @property
    def interval(self) -> int:
        """Steps between frames."""
        return int(np.ceil(self.time / _LONGEST_STEP - 1e-9))


def _read(data: Path) -> dict[str, Any]:
    """Read the first frame of each trajectory, which tells temperature and time between frames."""
    if not data.is_dir():
        raise BoardError("md needs a folder: --data DIR")
    items = {}
    for path in sorted(data.glob("*.extxyz")):
        first, *others = ase.io.iread(path, ":", format="extxyz")
        if missing := [name for name in ("temperature", "time_step") if name not in first.info]:
            raise BoardError(
                f"{path}: the first frame has no {', '.join(missing)} (K; fs between frames) in its comment"
            )
        time = float(first.info["time_step"])
        item = MdItem(path, float(first.info["temperature"]), time, 1 + len(others))
        longest = 1 + _MAX_STEPS // item.interval
        items[path.stem] = MdItem(path, item.temperature, time, min(item.n_frames, longest))
    if not items:
        raise BoardError(f"{data} holds no reference trajectory (NAME.extxyz)")
    return items


def _compute(job: Job, items: Mapping[str, Any]) -> Generator[tuple[str, Values]]:
    """Run the systems one after the other, so that the time of each is its own."""
    for key, item in items.items():
        reference = ase.io.read(item.path, slice(0, item.n_frames), format="extxyz")
        settings = DynamicsSettings(
            ensemble="nvt",
            temperature=item.temperature,
            time_step=item.time / item.interval,
            n_steps=(item.n_frames - 1) * item.interval,
            interval=item.interval,
            thermostat_time=_THERMOSTAT,
        )
        start = reference[0].copy()
        start.info, start.calc = {}, None
        for name in set(start.arrays) - {"numbers", "positions"}:
            del start.arrays[name]
        (record,) = dynamics(
            [start],
            job.contestant.model,
            settings=settings,
            trajectory_dir=job.folder / key,
            progress=job.progress,
        )
        if record.error or record.trajectory is None:
            yield key, {"error": record.error or "no trajectory"}
            continue
        try:
            frames = ase.io.read(record.trajectory, ":", format="extxyz")
            values: Values = dict(motion_errors(Motion.of(reference), Motion.of(frames), item.time))
        except ValueError as error:
            yield key, {"error": str(error)}
            continue
        yield key, values | _label_errors(job, reference)


def _label_errors(job: Job, reference: list[Any]) -> Values:
    """Errors of energies (about their mean) and forces at the frames of the reference, if it has them."""
    if any(atoms.calc is None or not {"energy", "forces"} <= set(atoms.calc.results) for atoms in reference):
        return {}
    points = list(single_points(job.contestant.engine, [atoms.copy() for atoms in reference]))
    energies = np.array([[p.energy, a.calc.results["energy"]] for p, a in zip(points, reference, strict=True)])
    energies = (energies - energies.mean(axis=0)) / len(reference[0])
    squares = [((p.forces - a.calc.results["forces"]) ** 2).mean() for p, a in zip(points, reference, strict=True)]
    return {
        "energy_rmse": 1e3 * float(np.sqrt(np.mean((energies[:, 0] - energies[:, 1]) ** 2))),
        "force_rmse": 1e3 * float(np.sqrt(np.mean(squares))),
    }


def _score(_: Mapping[str, Any], results: Mapping[str, Values]) -> Metrics:
    good = [values for values in results.values() if not values.get("error")]
    metrics: Metrics = {name: mean(values.get(name) for values in good) for name in _ERRORS}
    for name in ("energy_rmse", "force_rmse"):  # of all systems, or of none
        metrics[name] = mean(values.get(name) for values in good) if all(name in values for values in good) else None
    return metrics | {"systems": len(good)}


MD_BOARD = Board(
    name="md",
    about="molecular dynamics against ab-initio trajectories: RDF, ADF, vDOS, pressure (Matbench Discovery)",
    data="a folder of reference trajectories NAME.extxyz, with temperature=K time_step=FS in the first comment line",
    files=("*.extxyz",),
    read=_read,
    compute=_compute,
    score=_score,
    settings={"longest_step": _LONGEST_STEP, "max_steps": _MAX_STEPS, "thermostat": f"Langevin, {_THERMOSTAT:g} fs"},
    published=MD,
    tolerance={"rdf_error": 1.0, "adf_error": 1.0, "vdos_error": 3.0, "force_rmse": 2.0},
)
