"""Molecular dynamics of many materials, free of any workflow engine."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import torch
import torch_sim as ts
from pymatgen.core import Structure

from matris.properties.ensembles import (
    BOLTZMANN,
    FEMTOSECOND,
    DynamicsSettings,
    advance,
    at_rest,
    compressibilities,
    evaluate,
    kinetic_energies,
    pressure_tensors,
    thermal_momenta,
)
from matris.properties.groups import isolated
from matris.properties.trajectory import Trajectory
from matris.relaxation.batch import state_of, structure_of
from matris.relaxation.guard import Budget, GuardedModel
from matris.relaxation.relax import budget_of, engine_of
from matris.structures import content_id, problem_with, to_structure
from matris.units import GPA

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from ase import Atoms
    from numpy.typing import NDArray
    from torch_sim.integrators.npt import NPTState
    from torch_sim.models.interface import ModelInterface

    from matris.model.potential import Potential
    from matris.relaxation.relax import Engine

__all__ = ["DynamicsRecord", "DynamicsSettings", "TimeSeries", "dynamics"]

MAX_DRIFT = 1e-3
"""Change of the total energy under NVE, eV per atom and ps, from which on a record warns."""

_MAX_MOVE = 0.5  # Å in one step: ten times what the fastest atoms of a crystal do
_MAX_HEAT = (20.0, 2e4)  # of the set temperature, plus K: far above what two atoms' fluctuations reach
_VOLUME_FACTOR = 5.0  # a cell this many times larger or smaller than at the start is no crystal any more
_MAX_STRAIN = 0.1  # of the cell in one step
_MIN_FRAMES = 10  # that a drift is taken from

_QUANTITIES = ("temperature", "potential_energy", "total_energy", "volume", "pressure")


@dataclass(frozen=True, eq=False)
class TimeSeries:
    """
    What was seen at each frame; shape (n_frames,) each.

    Attributes
    ----------
    time
        In fs, from 0.
    temperature
        Of the instantaneous kinetic energy, with 3n - 3 degrees of freedom, K.
    potential_energy, total_energy
        In eV/atom. Only NVE conserves the second.
    volume
        Of the cell, Å³.
    pressure
        Instantaneous, the part of the motion included, GPa; None if the model gives no stress.
    """

    time: NDArray[np.float64]
    temperature: NDArray[np.float64]
    potential_energy: NDArray[np.float64]
    total_energy: NDArray[np.float64]
    volume: NDArray[np.float64]
    pressure: NDArray[np.float64] | None

    def means(self) -> dict[str, float]:
        """Mean of each quantity over the second half of the frames."""
        half = len(self.time) // 2
        known = {name: getattr(self, name) for name in _QUANTITIES}
        return {name: float(values[half:].mean()) for name, values in known.items() if values is not None}

    def drift(self) -> tuple[float, float] | None:
        """Slope of the total energy and the error of the slope, eV/atom/ps; None if there are too few frames."""
        if len(self.time) < _MIN_FRAMES:
            return None
        (slope, _), covariance = np.polyfit(self.time / 1000, self.total_energy, 1, cov=True)
        return float(slope), float(np.sqrt(covariance[0, 0]))

    def to_dict(self) -> dict[str, list[float] | None]:
        """Give the series as a JSON object."""
        names = ("time", *_QUANTITIES)
        return {name: None if getattr(self, name) is None else getattr(self, name).tolist() for name in names}

    @classmethod
    def from_dict(cls, content: dict[str, list[float] | None]) -> TimeSeries:
        """Read what `to_dict` wrote."""
        return cls(**{name: None if values is None else np.array(values) for name, values in content.items()})  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class DynamicsRecord:
    """
    What became of one material.

    Attributes
    ----------
    index
        Place in the input.
    state
        ``"completed"`` or ``"failed"``.
    structure
        After the last step; None if failed. Atoms are not wrapped into the cell.
    n_steps
        Steps taken, also before a failure.
    series
        What was seen at each frame, also before a failure; None if there was no frame.
    means
        Of each quantity in `series` over the second half of the frames; empty if failed.
    drift
        Slope of the total energy under NVE, eV/atom/ps; None otherwise, and where there are fewer than ten frames.
    trajectory
        Its file, if trajectories were asked for; after a failure with the frames before it.
    warnings
        What to know before using the results.
    error
        Why it failed, and at which step.
    """

    index: int
    state: Literal["completed", "failed"]
    structure: Structure | None = None
    n_steps: int = 0
    series: TimeSeries | None = None
    means: dict[str, float] = field(default_factory=dict)
    drift: float | None = None
    trajectory: Path | None = None
    warnings: tuple[str, ...] = ()
    error: str | None = None


@dataclass(eq=False)
class _Body:
    """One material under way."""

    index: int
    structure: Structure
    cost: float
    random: np.random.Generator
    trajectory: Trajectory | None
    compressibility: float = 0.0
    frames: list[tuple[float, ...]] = field(default_factory=list)


def dynamics(
    structures: Iterable[Structure | Atoms],
    potential: Potential | ModelInterface,
    *,
    settings: DynamicsSettings | None = None,
    trajectory_dir: Path | None = None,
    max_batch_atoms: int | None = None,
) -> list[DynamicsRecord]:
    """
    Molecular dynamics of many materials; as many as fit go through the device together.

    The cell is taken as it is, neither relaxed nor repeated: fluctuations, and phonons that do not fit into it, make a
    supercell of some hundred atoms the usual start. All atoms move, the center of mass does not. A material that
    breaks (an atom flies away, the cell explodes, the model fails) costs only itself. Structures of equal content are
    computed once; each gets its record.

    Parameters
    ----------
    structures
        The materials.
    potential
        A loaded potential or any torch-sim model.
    settings
        Ensemble, temperature, steps; by default those of `DynamicsSettings`.
    trajectory_dir
        Folder for an extended XYZ file per material, with positions, cell, momenta, energy, forces and stress of each
        frame. Run again, a material whose trajectory is complete there is not computed again. By default none is
        written.
    max_batch_atoms
        Most atoms computed together; by default what `matris.relax` takes.

    Returns
    -------
    list of DynamicsRecord
        One for each material, in order.

    Raises
    ------
    ValueError
        If the cell shall move and the model gives no stress.
    OSError
        If a trajectory cannot be written.
    """
    settings = settings or DynamicsSettings()
    engine = engine_of(potential)
    if settings.ensemble == "npt" and not engine.model.compute_stress:
        raise ValueError("npt needs stress, which the model does not compute: set its compute_stress, or choose nvt")
    cost, unit, limit = budget_of(engine, max_batch_atoms)
    budget = Budget((str(engine.model.device), engine.sha256, engine.dtype, unit), limit)
    model = GuardedModel(engine.model, budget)
    records: dict[int, DynamicsRecord] = {}
    first: dict[str, int] = {}
    twins: dict[int, int] = {}
    waiting: list[_Body] = []
    for index, item in enumerate(structures):
        identity, _ = isolated(_identity, item)
        if identity is not None and first.setdefault(identity, index) != index:
            twins[index] = first[identity]
            continue
        found, error = isolated(_prepare, index, item, engine, settings, trajectory_dir, cost)
        if isinstance(found, _Body):
            waiting.append(found)
        else:
            records[index] = found or DynamicsRecord(index, "failed", error=error)
    while waiting:
        bodies = _batch(waiting, budget)
        waiting = waiting[len(bodies) :]
        records |= {record.index: record for record in _run(bodies, model, settings)}
    records |= {index: replace(records[twin], index=index) for index, twin in twins.items()}
    return [records[index] for index in sorted(records)]


def _identity(item: Structure | Atoms) -> str:
    return content_id(to_structure(item))


def _prepare(
    index: int,
    item: Structure | Atoms,
    engine: Engine,
    settings: DynamicsSettings,
    folder: Path | None,
    cost: Callable[[Structure], float],
) -> _Body | DynamicsRecord:
    """Make an input ready for the device, or give what is known of it already."""
    structure = to_structure(item)
    if problem := problem_with(structure, engine.elements):
        return DynamicsRecord(index, "failed", error=problem)
    if len(structure) == 1:
        return DynamicsRecord(
            index, "failed", error="one atom, its center of mass at rest, cannot move: make a supercell"
        )
    identity = content_id(structure)
    trajectory = None
    if folder is not None:
        header = {
            "structure": identity,
            "checkpoint": engine.sha256,
            "dtype": engine.dtype,
            "settings": settings.to_dict(),
            "digest": settings.digest(),
        }
        trajectory = Trajectory(folder, structure, settings, header)
        if (results := trajectory.results()) is not None:
            series = TimeSeries.from_dict(results["series"])
            return _completed(index, Structure.from_dict(results["structure"]), series, settings, trajectory)
    random = np.random.default_rng([settings.seed, int(identity, 16)])
    return _Body(index, structure, cost(structure), random, trajectory)


def _batch(waiting: Sequence[_Body], budget: Budget) -> list[_Body]:
    """Take as many materials as fit, at least one."""
    total = 0.0
    for number, body in enumerate(waiting):
        total += body.cost
        if number and total > budget.limit:
            return list(waiting[:number])
    return list(waiting)


def _run(bodies: list[_Body], model: GuardedModel, settings: DynamicsSettings) -> list[DynamicsRecord]:
    """Take materials through all steps, or as far as each goes."""
    state: Any = ts.concatenate_states([_start(body, model, settings) for body in bodies])
    model.costs = [body.cost for body in bodies]
    evaluate(state, model)
    records = []
    for step in range(settings.n_steps + 1):
        if step:
            advance(
                state,
                model,
                settings,
                [body.random for body in bodies],
                [body.compressibility for body in bodies],
            )
        faults = _faults(state, model, bodies, settings)
        if broken := [number for number, fault in enumerate(faults) if fault]:
            records += [_failed(bodies[number], f"{faults[number]} (at step {step})", step) for number in broken]
            if len(broken) == len(bodies):
                return records
            state.pop(broken)
            bodies = [body for body, fault in zip(bodies, faults, strict=True) if not fault]
            model.costs = [body.cost for body in bodies]
        if step == 0 and settings.ensemble == "npt":
            for body, soft in zip(bodies, compressibilities(state, model), strict=True):
                body.compressibility = soft
        if step % settings.interval == 0:
            _observe(state, bodies, step, settings)
    return records + [
        _finish(body, structure_of(body.structure, last.positions, last.cell[0]), settings)
        for body, last in zip(bodies, state.split(), strict=True)
    ]


def _start(body: _Body, model: GuardedModel, settings: DynamicsSettings) -> NPTState:
    """State of a material with thermal velocities, not evaluated."""
    masses = np.array([float(site.specie.atomic_mass) for site in body.structure])
    return at_rest(
        state_of(body.structure, model.device, model.dtype),
        thermal_momenta(masses, settings.temperature, body.random),
    )


def _faults(
    state: NPTState, model: GuardedModel, bodies: Sequence[_Body], settings: DynamicsSettings
) -> list[str | None]:
    """
    Why each system cannot go on; None for those that can.

    Looked at before a step is made, so that the model never sees a geometry that is not finite.
    """
    dt = settings.time_step * FEMTOSECOND
    n_systems, system, masses = state.n_systems, state.system_idx, state.masses[:, None]
    wild = state.forces.new_zeros(n_systems)
    wild.index_add_(0, system, (~state.forces.isfinite().all(dim=1)).to(wild.dtype))
    wild += ~state.energy.isfinite()
    steps = ((state.momenta.abs() + state.forces.abs() * dt) * dt / masses).norm(dim=1)
    moves = torch.zeros_like(wild).scatter_reduce_(0, system, steps, "amax")
    heat = 2 * kinetic_energies(state) / (3 * state.n_atoms_per_system - 3) / BOLTZMANN
    growth, strain = torch.ones_like(wild), torch.zeros_like(wild)
    if settings.ensemble == "npt":
        wild += ~state.stress.isfinite().all(dim=(1, 2))
        volumes = [body.structure.volume for body in bodies]
        growth = torch.linalg.det(state.cell).abs() / torch.tensor(volumes, device=wild.device, dtype=wild.dtype)
        soft = torch.tensor([body.compressibility for body in bodies], device=wild.device, dtype=wild.dtype)
        unit = torch.eye(3, device=wild.device, dtype=wild.dtype)
        excess = (pressure_tensors(state) - settings.pressure / GPA * unit).abs().amax(dim=(1, 2))
        strain = excess * soft * settings.time_step / settings.barostat_time
    seen = torch.stack([wild, moves, heat, growth, strain], dim=1).tolist()
    hottest = _MAX_HEAT[0] * settings.temperature + _MAX_HEAT[1]
    faults: list[str | None] = []
    for number, (bad, move, kelvin, larger, deformed) in enumerate(seen):
        fault = model.reasons.get(number)
        if fault is None and bad:
            fault = "energy, forces or stress are NaN or infinite"
        if fault is None and not move < _MAX_MOVE:
            fault = f"an atom flies away: by {move:.3g} Å in one step of {settings.time_step:g} fs"
        if fault is None and not kelvin < hottest:
            fault = f"exploded: the temperature is {kelvin:.3g} K"
        if fault is None and not 1 / _VOLUME_FACTOR <= larger <= _VOLUME_FACTOR:
            word = "exploded" if larger > 1 else "collapsed"
            fault = f"the cell {word}: its volume is {larger:.3g} times that of the input"
        if fault is None and not deformed < _MAX_STRAIN:
            fault = f"the cell explodes: the barostat would strain it by {deformed:.0%} in one step"
        faults.append(fault)
    return faults


def _observe(state: NPTState, bodies: Sequence[_Body], step: int, settings: DynamicsSettings) -> None:
    """Note what there is to see, and write trajectories."""
    sizes = state.n_atoms_per_system
    kinetic, energy = kinetic_energies(state).double(), state.energy.double()
    columns = [
        2 * kinetic / (3 * sizes - 3) / BOLTZMANN,
        energy / sizes,
        (energy + kinetic) / sizes,
        torch.linalg.det(state.cell).abs().double(),
        GPA * pressure_tensors(state).double().diagonal(dim1=1, dim2=2).mean(dim=1),
    ]
    for body, row in zip(bodies, torch.stack(columns, dim=1).tolist(), strict=True):
        body.frames.append((step * settings.time_step, *row))
    if bodies[0].trajectory is None:
        return
    arrays = (state.atomic_numbers, state.positions, state.momenta, state.forces)
    atoms = zip(*(np.split(_host(a), np.cumsum(sizes.tolist())[:-1]) for a in arrays), strict=True)
    systems = zip(energy.tolist(), _host(state.cell), _host(state.stress), strict=True)
    for body, (numbers, positions, momenta, forces), (total, cell, stress) in zip(bodies, atoms, systems, strict=True):
        cast("Trajectory", body.trajectory).add(
            numbers=numbers,
            positions=positions,
            lattice=cell.T,
            momenta=momenta,
            energy=total,
            forces=forces,
            stress=stress if np.isfinite(stress).all() else None,
            step=step,
            time=step * settings.time_step,
        )


def _series(body: _Body) -> TimeSeries | None:
    """Columns of what was noted."""
    if not body.frames:
        return None
    time, temperature, potential, total, volume, pressure = np.array(body.frames).T
    return TimeSeries(time, temperature, potential, total, volume, pressure if np.isfinite(pressure).all() else None)


def _failed(body: _Body, error: str, step: int) -> DynamicsRecord:
    """Record of a material that broke."""
    path = body.trajectory.path if body.trajectory is not None and body.frames else None
    return DynamicsRecord(body.index, "failed", n_steps=step, series=_series(body), trajectory=path, error=error)


def _finish(body: _Body, structure: Structure, settings: DynamicsSettings) -> DynamicsRecord:
    """Record of a material that made all its steps."""
    series = _series(body)
    if problem := problem_with(structure):
        return _failed(body, f"went to nonsense: {problem} (at step {settings.n_steps})", settings.n_steps)
    assert series is not None  # noqa: S101 - the start is a frame
    if body.trajectory is not None:
        body.trajectory.finish({"series": series.to_dict(), "structure": structure.as_dict()})
    return _completed(body.index, structure, series, settings, body.trajectory)


def _completed(
    index: int, structure: Structure, series: TimeSeries, settings: DynamicsSettings, trajectory: Trajectory | None
) -> DynamicsRecord:
    """Record of a complete trajectory."""
    warnings = []
    drift = series.drift() if settings.ensemble == "nve" else None
    if drift and abs(drift[0]) > MAX_DRIFT and abs(drift[0]) > 3 * drift[1]:
        warnings.append(f"the total energy drifts by {drift[0]:+.2g} eV/atom/ps: use a shorter time step, or float64")
    return DynamicsRecord(
        index,
        "completed",
        structure,
        settings.n_steps,
        series,
        series.means(),
        drift[0] if drift else None,
        trajectory.path if trajectory is not None else None,
        tuple(warnings),
    )


def _host(tensor: torch.Tensor) -> NDArray[Any]:
    """Numbers of a tensor on the host, in double precision if they are real."""
    return (tensor.double() if tensor.is_floating_point() else tensor).detach().cpu().numpy()
