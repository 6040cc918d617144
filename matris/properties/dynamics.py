"""Molecular dynamics of many materials; no workflow engine is needed."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
import torch_sim as ts
from pymatgen.core import Structure

from matris.constraints import freedom_of, projectors
from matris.progress import bar
from matris.properties.correlations import Snapshot, kept_frames, radial_distribution
from matris.properties.diffusivity import MAX_SLOWED, Diffusivity, Displacements, diffusivities, slowed_by
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
from matris.properties.groups import PropertyRecord, UnusableCellError, attempt
from matris.properties.trajectory import Trajectory
from matris.properties.velocity_spectrum import Motion, moving_frames, vibrational_dos
from matris.relaxation.batch import handedness, state_of, structure_of
from matris.relaxation.guard import Budget, GuardedModel
from matris.relaxation.relax import budget_of, engine_of
from matris.structures import cells_away, content_id, masses_of, one_or_many, problem_with, to_structure
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
"""Drift of the total energy under NVE, eV per atom and ps, above which a record has a warning."""

_MAX_MOVE = 0.5  # Å in one step: ten times as far as the fastest atoms of a crystal move
_MAX_HEAT = (20.0, 2e4)  # multiple of the set temperature, plus K: far above the fluctuations of two atoms
_VOLUME_FACTOR = 5.0  # a cell that grew or shrank by this factor is no crystal any more
_MAX_STRAIN = 0.1  # strain of the cell in one step
_MIN_FRAMES = 10  # frames from which a drift is fitted

_KEPT = (
    "radial_distribution",
    "mean_square_displacement",
    "diffusion",
    "vibrational_dos",
    "extrapolation",
)  # results beside series and structure
_QUANTITIES = ("temperature", "potential_energy", "total_energy", "volume", "pressure")


@dataclass(frozen=True, eq=False)
class TimeSeries:
    """
    Quantities at each frame; shape (n_frames,) each.

    Attributes
    ----------
    time
        Time, fs, from 0.
    temperature
        Temperature of the instantaneous kinetic energy, K: with 3n - 3 degrees of freedom, or, if atoms are fixed, as
        many as there are free directions.
    potential_energy, total_energy
        Energies, eV/atom. Only NVE conserves the total energy.
    volume
        Volume of the cell, Å³.
    pressure
        Instantaneous pressure, kinetic part included, GPa; None if the model gives no stress.

    Examples
    --------
    >>> import numpy as np
    >>> frames = np.arange(4.0)
    >>> series = TimeSeries(frames, 300 + frames, -1 - frames, -1 + 0 * frames, 64 + 0 * frames, None)
    >>> series.means()["temperature"]
    302.5
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
        series = {name: getattr(self, name) for name in _QUANTITIES}
        return {name: float(values[half:].mean()) for name, values in series.items() if values is not None}

    def drift(self) -> tuple[float, float] | None:
        """Slope of the total energy and its standard error, eV/atom/ps; None for fewer than ten frames."""
        if len(self.time) < _MIN_FRAMES:
            return None
        (slope, _), covariance = np.polyfit(self.time / 1000, self.total_energy, 1, cov=True)
        return float(slope), float(np.sqrt(covariance[0, 0]))

    def to_dict(self) -> dict[str, list[float] | None]:
        """Return the series as a JSON object."""
        names = ("time", *_QUANTITIES)
        return {name: None if getattr(self, name) is None else getattr(self, name).tolist() for name in names}

    @classmethod
    def from_dict(cls, content: dict[str, list[float] | None]) -> TimeSeries:
        """Read what `to_dict` wrote."""
        return cls(**{name: None if values is None else np.array(values) for name, values in content.items()})  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class DynamicsRecord(PropertyRecord):
    """
    Molecular dynamics of one material.

    The state is ``"completed"`` or ``"failed"``. `structure` is that after the last step, its atoms not wrapped into
    the cell; None if failed. The error tells the step of the failure.

    Attributes
    ----------
    n_steps
        Steps taken, also before a failure.
    series
        Quantities at each frame, also before a failure; None if there was no frame.
    means
        Mean of each quantity of `series` over the second half of the frames; empty if failed.
    drift
        Slope of the total energy under NVE, eV/atom/ps; None for other ensembles or fewer than ten frames.
    radial_distribution, mean_square_displacement
        Of the second half of the run, see `matris.properties.correlations.radial_distribution` and
        `matris.properties.diffusivity.Displacements.to_dict`; None if failed, or for few frames.
    diffusion
        By element, of the second half of the run: a diffusion coefficient, or why there is none; empty if failed.
    vibrational_dos
        Of the second half of the run, see `matris.properties.velocity_spectrum.vibrational_dos`; None if failed.
    extrapolation
        Largest extrapolation of an atom in any frame: above 1 the model extrapolates, see
        `matris.model.domain.Domain`. None if the model cannot tell.
    trajectory
        File of the trajectory, if one was asked for; after a failure with the frames before it.
    """

    n_steps: int = 0
    series: TimeSeries | None = None
    means: dict[str, float] = field(default_factory=dict)
    drift: float | None = None
    radial_distribution: dict[str, Any] | None = None
    mean_square_displacement: dict[str, Any] | None = None
    diffusion: dict[str, Diffusivity] = field(default_factory=dict)
    vibrational_dos: dict[str, Any] | None = None
    extrapolation: float | None = None
    trajectory: Path | None = None


@dataclass(eq=False)
class _Body:
    """State of one material during its run."""

    index: int
    structure: Structure
    settings: DynamicsSettings
    cost: float
    random: np.random.Generator
    trajectory: Trajectory | None
    restraints: torch.Tensor | None = None  # see `matris.constraints`
    degrees: int = 0
    compressibility: float = 0.0
    step: int = 0  # from which it starts
    kept: dict[str, Any] | None = None  # state of an interrupted run at that step
    frames: list[tuple[float, ...]] = field(default_factory=list)
    snapshots: list[Snapshot] = field(default_factory=list)
    motions: list[Motion] = field(default_factory=list)
    extrapolation: float | None = None


def dynamics(
    structures: Iterable[Structure | Atoms],
    potential: Potential | ModelInterface,
    *,
    settings: DynamicsSettings | Sequence[DynamicsSettings] | None = None,
    trajectory_dir: Path | None = None,
    max_batch_atoms: int | None = None,
    progress: bool = False,
) -> list[DynamicsRecord]:
    """
    Molecular dynamics of many materials; as many as fit on the device are computed together.

    The cell is taken as it is, neither relaxed nor repeated. Start from a supercell of some hundred atoms: smaller
    cells fluctuate more and exclude phonons of long wavelength. The center of mass is at rest, unless atoms are fixed
    (`matris.constraints`): these keep their fractional coordinates. Masses are those of `matris.structures.masses_of`.
    Velocities are drawn; a record warns if its input had some. A material that breaks
    (an atom flies away, the cell explodes, the model fails) does not affect the others. Structures of equal content
    are computed once; each gets its own record.

    Parameters
    ----------
    structures
        The materials.
    potential
        A loaded potential or any torch-sim model.
    settings
        Ensemble, temperature, steps; by default those of `DynamicsSettings`. A sequence has one for each material; they
        differ in temperatures and seeds alone.
    trajectory_dir
        Folder for one extended XYZ file per material, with positions, cell, momenta, energy, forces and stress of each
        frame. A material whose trajectory is complete in this folder is not computed again. An interrupted run goes on
        from its last frame, as if it had not been interrupted, and so does a complete run if `n_steps` is larger now.
        By default no trajectory is written.
    max_batch_atoms
        Maximum number of atoms computed together; by default that of `matris.relax`.
    progress
        Whether to show a progress bar on standard error, in time steps.

    Returns
    -------
    list of DynamicsRecord
        One for each material, in order.

    Raises
    ------
    ValueError
        If the ensemble is ``"npt"`` and the model gives no stress, or if the settings are not as many as the materials,
        or differ in more than temperatures and seeds.
    OSError
        If a trajectory cannot be written.

    Examples
    --------
    Copper. The model here is effective-medium theory; ``matris.load()`` gives a better one.

    >>> from ase.build import bulk
    >>> from ase.calculators.emt import EMT
    >>> import matris
    >>> settings = DynamicsSettings(ensemble="nve", temperature=300, n_steps=5, interval=1)
    >>> (record,) = dynamics([bulk("Cu", cubic=True)], matris.AseModel(EMT()), settings=settings)
    >>> record.state, len(record.series.time)
    ('completed', 6)
    """
    structures = list(one_or_many(structures))
    each = _each(settings, structures)
    settings = each[0] if each else DynamicsSettings()
    engine = engine_of(potential)
    if settings.ensemble == "npt" and not engine.model.compute_stress:
        raise ValueError("npt needs stress, which the model does not compute: set its compute_stress, or choose nvt")
    cost, unit, limit = budget_of(engine, max_batch_atoms)
    budget = Budget((str(engine.model.device), engine.sha256, engine.dtype, unit), limit)
    model = GuardedModel(engine.model, budget)
    records: dict[int, DynamicsRecord] = {}
    first: dict[tuple[str, DynamicsSettings], int] = {}
    twins: dict[int, int] = {}
    waiting: list[_Body] = []
    for index, (item, own) in enumerate(zip(structures, each, strict=True)):
        identity, _ = attempt(_identity, item)
        if identity is not None and first.setdefault((identity, own), index) != index:
            twins[index] = first[identity, own]
            continue
        prepared, error = attempt(_prepare, index, item, engine, own, trajectory_dir, cost)
        if isinstance(prepared, _Body):
            waiting.append(prepared)
        else:
            records[index] = prepared or DynamicsRecord(index=index, state="failed", error=error)
    waiting.sort(key=lambda body: body.step)
    n_steps = sum(settings.n_steps - body.step for body in waiting)
    with bar("time steps", n_steps) if progress else nullcontext(lambda *_: None) as show:
        while waiting:
            bodies = _batch(waiting, budget)
            waiting = waiting[len(bodies) :]
            records |= {record.index: record for record in _run(bodies, model, settings, show)}
    records |= {index: replace(records[twin], index=index) for index, twin in twins.items()}
    return [records[index] for index in sorted(records)]


def _each(
    settings: DynamicsSettings | Sequence[DynamicsSettings] | None, structures: Sequence[Structure | Atoms]
) -> list[DynamicsSettings]:
    """Return the settings of each material."""
    if settings is None or isinstance(settings, DynamicsSettings):
        return [settings or DynamicsSettings()] * len(structures)
    if len(settings) != len(structures):
        raise ValueError(f"{len(settings)} settings for {len(structures)} materials: give one for each")
    for own in settings:
        own_names = {name: getattr(settings[0], name) for name in ("temperature", "final_temperature", "seed")}
        if replace(own, **own_names) != settings[0]:
            raise ValueError("settings of materials that run together may differ in temperatures and seeds alone")
    return list(settings)


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
    """Prepare a material for its run, or read the record of its complete trajectory."""
    structure = to_structure(item)
    if problem := problem_with(structure, engine.elements):
        raise UnusableCellError(problem)
    free = freedom_of(structure)
    if free is None and len(structure) == 1:
        raise UnusableCellError("one atom, its center of mass at rest, cannot move: make a supercell")
    if free is not None and not free.any():
        raise UnusableCellError("all atoms are fixed: there is nothing to move")
    identity = content_id(structure)
    trajectory = None
    if folder is not None:
        shared = settings.of_each_step()
        header = {
            "structure": identity,
            "checkpoint": engine.sha256,
            "dtype": engine.dtype,
            "settings": shared.to_dict(),
            "digest": shared.digest(),
        }
        trajectory = Trajectory(folder, structure, settings, header)
        if (results := trajectory.results(settings.n_steps)) is not None:
            series = TimeSeries.from_dict(results["series"])
            kept = {name: results.get(name) for name in _KEPT}
            kept["diffusion"] = {name: Diffusivity(**found) for name, found in (results.get("diffusion") or {}).items()}
            last = Structure.from_dict(results["structure"])
            return _completed(index, last, series, settings, trajectory, _unused(structure), kept)
    random = np.random.default_rng([settings.seed, int(identity, 16)])
    if free is None:
        body = _Body(index, structure, settings, cost(structure), random, trajectory, degrees=3 * len(structure) - 3)
    else:
        matrices = projectors(np.asarray(structure.lattice.matrix), free)
        restraints = torch.as_tensor(matrices, device=engine.model.device, dtype=engine.model.dtype)
        body = _Body(index, structure, settings, cost(structure), random, trajectory, restraints, int(free.sum()))
    if trajectory is not None and (begun := trajectory.resume()) is not None:
        body.kept, body.frames = begun
        if (done := body.kept["step"]) > settings.n_steps:
            raise UnusableCellError(
                f"its trajectory {trajectory.path} has {done} steps already, more than {settings.n_steps}: "
                "ask for more steps, or choose another trajectory_dir"
            )
        trajectory.go_on()
        body.step, body.compressibility = body.kept["step"], body.kept["compressibility"]
        body.random.bit_generator.state = body.kept["random"]
        body.extrapolation = body.kept.get("extrapolation")
        n_frames = settings.n_steps // settings.interval + 1
        body.snapshots, body.motions = trajectory.read(kept_frames(n_frames), moving_frames(n_frames))
    return body


def _unused(structure: Structure) -> tuple[str, ...]:
    """Warnings of what an input holds and the run does not use."""
    given = [site.properties.get(name) for site in structure for name in ("momenta", "velocities")]
    if any(value is not None and np.any(value) for value in given):
        return ("the velocities of the input are not used: velocities are drawn at the set temperature",)
    return ()


def _batch(waiting: Sequence[_Body], budget: Budget) -> list[_Body]:
    """Take as many of the waiting materials as fit on the device and start at one step, at least one."""
    total = 0.0
    for number, body in enumerate(waiting):
        total += body.cost
        if number and (total > budget.limit or body.step != waiting[0].step):
            return list(waiting[:number])
    return list(waiting)


def _run(
    bodies: list[_Body], model: GuardedModel, settings: DynamicsSettings, show: Callable[[int, str], object]
) -> list[DynamicsRecord]:
    """Run materials through all steps, each as far as it gets."""
    state: Any = ts.concatenate_states([_start(body, model) for body in bodies])
    model.costs = [body.cost for body in bodies]
    evaluate(state, model)
    records = []
    start = bodies[0].step
    for step in range(start, settings.n_steps + 1):
        if step > start:
            advance(
                state,
                model,
                settings,
                [body.settings.temperature_at(step) for body in bodies],
                [body.random for body in bodies],
                [body.compressibility for body in bodies],
                [body.restraints for body in bodies],
            )
            show(len(bodies), "")
        if step % settings.interval == 0 and model.extrapolation is not None:
            for body, atoms in zip(bodies, model.extrapolation.split(state.n_atoms_per_system.tolist()), strict=True):
                body.extrapolation = max(body.extrapolation or 0.0, float(atoms.max()))
        faults = _faults(state, model, bodies, settings)
        if broken := [number for number, fault in enumerate(faults) if fault]:
            records += [_failed(bodies[number], f"{faults[number]} (at step {step})", step) for number in broken]
            show(len(broken) * (settings.n_steps - step), f"{len(records)} failed")
            if len(broken) == len(bodies):
                return records
            state.pop(broken)
            bodies = [body for body, fault in zip(bodies, faults, strict=True) if not fault]
            model.costs = [body.cost for body in bodies]
        if step == 0 and settings.ensemble == "npt":
            for body, compressibility in zip(bodies, compressibilities(state, model), strict=True):
                body.compressibility = compressibility
        if step % settings.interval == 0 and (step > start or start == 0):
            _observe(state, bodies, step, settings)
    return records + [
        _finish(body, structure_of(body.structure, _host(last.positions), _host(last.cell[0])))
        for body, last in zip(bodies, state.split(), strict=True)
    ]


def _start(body: _Body, model: GuardedModel) -> NPTState:
    """Prepare the state in which a material starts, with thermal velocities or as it was kept, forces not evaluated."""
    if body.kept is not None:
        state = state_of(body.structure, model.device, model.dtype)
        state.positions, state.cell = (
            torch.tensor(body.kept[name], device=model.device, dtype=model.dtype) for name in ("positions", "cell")
        )
        return at_rest(state, np.array(body.kept["momenta"]))
    restraints = None if body.restraints is None else _host(body.restraints)
    return at_rest(
        state_of(body.structure, model.device, model.dtype),
        thermal_momenta(masses_of(body.structure), body.settings.temperature, body.random, restraints),
    )


def _faults(
    state: NPTState, model: GuardedModel, bodies: Sequence[_Body], settings: DynamicsSettings
) -> list[str | None]:
    """
    Reason why each system cannot continue, or None.

    The check precedes each step, so that the model never gets a geometry that is not finite.
    """
    dt = settings.time_step * FEMTOSECOND
    n_systems, system, masses = state.n_systems, state.system_idx, state.masses[:, None]
    wild = state.forces.new_zeros(n_systems)
    wild.index_add_(0, system, (~state.forces.isfinite().all(dim=1)).to(wild.dtype))
    wild += ~state.energy.isfinite()
    steps = ((state.momenta.abs() + state.forces.abs() * dt) * dt / masses).norm(dim=1)
    moves = torch.zeros_like(wild).scatter_reduce_(0, system, steps, "amax")
    heat = 2 * kinetic_energies(state) / _degrees(bodies, state) / BOLTZMANN
    growth, strain = torch.ones_like(wild), torch.zeros_like(wild)
    if settings.ensemble == "npt":
        wild += ~state.stress.isfinite().all(dim=(1, 2))
        volumes = [body.structure.volume for body in bodies]
        growth = torch.linalg.det(state.cell).abs() / torch.tensor(volumes, device=wild.device, dtype=wild.dtype)
        soft = torch.tensor([body.compressibility for body in bodies], device=wild.device, dtype=wild.dtype)
        unit = torch.eye(3, device=wild.device, dtype=wild.dtype)
        excess = (pressure_tensors(state) - settings.pressure / GPA * unit).abs().amax(dim=(1, 2))
        strain = excess * soft * settings.time_step / settings.barostat_time
    measures = torch.stack([wild, moves, heat, growth, strain], dim=1).tolist()
    hottest = [
        _MAX_HEAT[0] * max(body.settings.temperature, body.settings.final_temperature or 0.0) + _MAX_HEAT[1]
        for body in bodies
    ]
    faults: list[str | None] = []
    for number, (bad, move, kelvin, larger, deformed) in enumerate(measures):
        fault = model.reasons.get(number)
        if fault is None and bad:
            fault = "energy, forces or stress are NaN or infinite"
        if fault is None and not move < _MAX_MOVE:
            fault = f"an atom flies away: by {move:.3g} Å in one step of {settings.time_step:g} fs"
        if fault is None and not kelvin < hottest[number]:
            fault = f"exploded: the temperature is {kelvin:.3g} K"
        if fault is None and not 1 / _VOLUME_FACTOR <= larger <= _VOLUME_FACTOR:
            word = "exploded" if larger > 1 else "collapsed"
            fault = f"the cell {word}: its volume is {larger:.3g} times that of the input"
        if fault is None and not deformed < _MAX_STRAIN:
            fault = f"the cell explodes: the barostat would strain it by {deformed:.0%} in one step"
        faults.append(fault)
    return faults


def _degrees(bodies: Sequence[_Body], state: NPTState) -> torch.Tensor:
    """Degrees of freedom of each system, shape (n_systems,)."""
    return torch.tensor([body.degrees for body in bodies], device=state.device, dtype=state.dtype)


def _observe(state: NPTState, bodies: Sequence[_Body], step: int, settings: DynamicsSettings) -> None:
    """Record the quantities of a frame, and write it to the trajectories."""
    sizes = state.n_atoms_per_system
    kinetic, energy = kinetic_energies(state).double(), state.energy.double()
    columns = [
        2 * kinetic / _degrees(bodies, state).double() / BOLTZMANN,
        energy / sizes,
        (energy + kinetic) / sizes,
        torch.linalg.det(state.cell).abs().double(),
        GPA * pressure_tensors(state).double().diagonal(dim1=1, dim2=2).mean(dim=1),
    ]
    for body, row in zip(bodies, torch.stack(columns, dim=1).tolist(), strict=True):
        body.frames.append((step * settings.time_step, *row))
    frame, n_frames = step // settings.interval, settings.n_steps // settings.interval + 1
    is_kept, is_moving = frame in kept_frames(n_frames), frame in moving_frames(n_frames)
    if bodies[0].trajectory is None and not is_kept and not is_moving:
        return
    arrays = (state.atomic_numbers, state.positions, state.momenta, state.forces)
    atoms = zip(*(np.split(_host(a), np.cumsum(sizes.tolist())[:-1]) for a in arrays), strict=True)
    systems = zip(energy.tolist(), _host(state.cell), _host(state.stress), strict=True)
    for body, (numbers, positions, momenta, forces), (total, cell, stress) in zip(bodies, atoms, systems, strict=True):
        lattice = cell.T * handedness(body.structure)  # as the user wrote it
        places, time = positions + cells_away(body.structure.frac_coords) @ lattice, step * settings.time_step
        if is_kept:
            body.snapshots.append(Snapshot(time, places, lattice))
        if is_moving:
            body.motions.append(Motion(momenta.astype(np.float32), forces.astype(np.float32)))
        if body.trajectory is not None:
            body.trajectory.add(
                numbers=numbers,
                positions=places,
                lattice=lattice,
                momenta=momenta,
                energy=total,
                forces=forces,
                stress=stress if np.isfinite(stress).all() else None,
                step=step,
                time=time,
            )
    if bodies[0].trajectory is None:
        return
    for body, part in zip(bodies, state.split(), strict=True):
        cast("Trajectory", body.trajectory).keep(
            {
                "step": step,
                "compressibility": body.compressibility,
                "random": body.random.bit_generator.state,
                "extrapolation": body.extrapolation,
                **{name: _host(getattr(part, name)).tolist() for name in ("positions", "momenta", "cell")},
            },
            body.frames[-1],
        )


def _series(body: _Body) -> TimeSeries | None:
    """Time series of the recorded frames."""
    if not body.frames:
        return None
    time, temperature, potential, total, volume, pressure = np.array(body.frames).T
    return TimeSeries(time, temperature, potential, total, volume, pressure if np.isfinite(pressure).all() else None)


def _failed(body: _Body, error: str, step: int) -> DynamicsRecord:
    """Record of a material that broke."""
    path = body.trajectory.path if body.trajectory is not None and body.frames else None
    return DynamicsRecord(
        index=body.index,
        state="failed",
        n_steps=step,
        series=_series(body),
        extrapolation=body.extrapolation,
        trajectory=path,
        error=error,
    )


def _finish(body: _Body, structure: Structure) -> DynamicsRecord:
    """Record of a material that completed all steps."""
    series, settings = _series(body), body.settings
    if problem := problem_with(structure):
        return _failed(body, f"impossible final structure: {problem} (at step {settings.n_steps})", settings.n_steps)
    assert series is not None  # noqa: S101 - the start is a frame
    symbols = [site.specie.symbol for site in structure]
    is_free = body.restraints is None
    masses = masses_of(body.structure)
    moved = Displacements.of(symbols, body.snapshots, masses if is_free else None)
    spacing = settings.interval * settings.time_step
    ramp = None if settings.final_temperature is None else "the temperature changes during the run"
    problem = ramp or (None if is_free else "some atoms are fixed")
    kept: dict[str, Any] = {
        "radial_distribution": radial_distribution(symbols, body.snapshots),
        "mean_square_displacement": moved and moved.to_dict(),
        "diffusion": diffusivities(moved, sorted(set(symbols)), problem),
        "vibrational_dos": vibrational_dos(symbols, body.motions, masses, spacing, ramp),
        "extrapolation": body.extrapolation,
    }
    if body.trajectory is not None:
        plain = kept | {"diffusion": {name: asdict(found) for name, found in kept["diffusion"].items()}}
        body.trajectory.finish(
            settings.n_steps, {"series": series.to_dict(), "structure": structure.as_dict(), **plain}
        )
    return _completed(body.index, structure, series, settings, body.trajectory, _unused(body.structure), kept)


def _completed(
    index: int,
    structure: Structure,
    series: TimeSeries,
    settings: DynamicsSettings,
    trajectory: Trajectory | None,
    remarks: tuple[str, ...],
    kept: dict[str, Any],
) -> DynamicsRecord:
    """Record of a complete trajectory; remarks are warnings that do not make it unreliable."""
    warnings = _frictions(structure, kept["diffusion"], settings)
    drift = series.drift() if settings.ensemble == "nve" else None
    if drift and abs(drift[0]) > MAX_DRIFT and abs(drift[0]) > 3 * drift[1]:
        warnings.append(f"the total energy drifts by {drift[0]:+.2g} eV/atom/ps: use a shorter time step, or float64")
    return DynamicsRecord(
        index=index,
        state="completed",
        structure=structure,
        n_steps=settings.n_steps,
        series=series,
        means=series.means(),
        drift=drift[0] if drift else None,
        trajectory=trajectory.path if trajectory is not None else None,
        warnings=(*warnings, *remarks),
        is_reliable=not warnings,
        **kept,
    )


def _frictions(structure: Structure, diffusion: dict[str, Diffusivity], settings: DynamicsSettings) -> list[str]:
    """Warnings of diffusion coefficients that the thermostat makes smaller."""
    if settings.ensemble == "nve":
        return []
    masses, symbols = masses_of(structure), np.array([site.specie.symbol for site in structure])
    warnings = []
    for element, found in diffusion.items():
        if found.coefficient is None:
            continue
        mass = float(masses[symbols == element].mean())
        share = slowed_by(found.coefficient, mass, settings.temperature, settings.thermostat_time)
        if share > MAX_SLOWED:
            warnings.append(
                f"the friction of the thermostat slows {element} by about {share:.0%}: its diffusion coefficient needs "
                f"a thermostat_time longer than {settings.thermostat_time:g} fs"
            )
    return warnings


def _host(tensor: torch.Tensor) -> NDArray[Any]:
    """Copy a tensor to the host, floating-point numbers in double precision."""
    return (tensor.double() if tensor.is_floating_point() else tensor).detach().cpu().numpy()
