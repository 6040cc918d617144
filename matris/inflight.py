"""A batch of structures that relax together, each for as long as it needs."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
import torch_sim as ts
from pymatgen.core import Lattice, Structure

from matris.records import RelaxRecord, RelaxState
from matris.structures import problem_with

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor
    from torch_sim.models.interface import ModelInterface

    from matris.isolation import IsolatingModel
    from matris.records import RelaxSettings

_DT = 0.1  # first FIRE time step, ASE's
_VOLUME_FACTOR = 5.0  # a cell this many times larger or smaller than at the start is no relaxation any more
_LOG_STRAIN = 1.99  # torch-sim clamps the logarithm of the deformation at 2: from there on FIRE goes astray
_LARGEST = 1e12  # eV/Å, eV/Å³: far below where a float32 squared overflows, far above any physics


@dataclass
class Flight:
    """
    One structure under way.

    Attributes
    ----------
    index, structure_id, structure
        The input.
    cost
        What it takes of the device's budget.
    n_steps
        FIRE steps taken; -1 before the first evaluation.
    started
        `time.perf_counter` on entering.
    """

    index: int
    structure_id: str
    structure: Structure
    cost: float
    n_steps: int = -1
    started: float = 0.0


class InFlight:
    """
    Structures on the device, advanced together by torch-sim's FIRE with the Frechet cell filter.

    Structures may enter between any two steps and leave as they finish. Those that enter have zero velocities, forces
    and cell forces: their first step moves nothing and gets their first forces, in the same model call that advances
    the others. From then on each goes the way it would go alone: that of ASE's ``FIRE(FrechetCellFilter(atoms))``, but
    for a mixing parameter that torch-sim shrinks before its use, ASE after.

    Parameters
    ----------
    model
        Evaluates the batch.
    settings
        What to relax and when to stop.
    """

    def __init__(self, model: IsolatingModel, settings: RelaxSettings) -> None:
        self.model = model
        self.settings = settings
        self.flights: list[Flight] = []
        self._state: Any = None
        self._entering: list[Any] = []

    def has_room_for(self, flight: Flight) -> bool:
        """Whether a structure fits beside the others; alone, every structure may try."""
        return not self.flights or sum(mate.cost for mate in self.flights) + flight.cost <= self.model.budget.limit

    def add(self, flight: Flight) -> None:
        """Let a structure in, with the next step."""
        flight.started = time.perf_counter()
        self.flights.append(flight)
        self._entering.append(self._enter(flight.structure))

    def step(self) -> list[RelaxRecord]:
        """
        Advance all by one step, and take out what has finished.

        Returns
        -------
        list of RelaxRecord
            One for each structure that left.
        """
        if not self.flights:
            return []
        if self._entering:
            held = [] if self._state is None else [self._state]
            self._state = ts.concatenate_states([*held, *self._entering])
            self._entering = []
        self.model.costs = [flight.cost for flight in self.flights]
        self._state = ts.fire_step(self._state, cast("ModelInterface", self.model))  # it asks for no more than a call
        for flight in self.flights:
            flight.n_steps += 1
        verdicts = self._verdicts()
        leaving = [number for number, verdict in enumerate(verdicts) if verdict is not None]
        if not leaving:
            return []
        sizes = self._state.n_atoms_per_system.tolist()
        magmoms, extrapolation = _split(self.model.magmoms, sizes), _split(self.model.extrapolation, sizes)
        if len(leaving) == len(self.flights):
            states, self._state = self._state.split(), None
        else:
            states = self._state.pop(leaving)
        records = [
            self._record(self.flights[number], verdicts[number], state, magmoms[number], extrapolation[number])
            for number, state in zip(leaving, states, strict=True)
        ]
        self.flights = [flight for flight, verdict in zip(self.flights, verdicts, strict=True) if verdict is None]
        return records

    def _enter(self, structure: Structure) -> Any:
        """FIRE state of a structure that has not been evaluated."""
        device, dtype = self.model.device, self.model.dtype
        state = state_of(structure, device, dtype)
        # Where no power has been gained, FIRE halves the time step: once on the step that moves nothing, once on the
        # first step from rest, which thus has ASE's first time step. Zero velocities, where torch-sim starts from NaN,
        # make that the same whoever else is in the batch.
        fire = ts.fire_init(
            state,
            cast("ModelInterface", _Silent(device, dtype)),
            dt_start=4 * _DT,
            cell_filter=ts.CellFilter.frechet if self.settings.relax_cell else None,
        )
        fire.velocities.zero_()
        if self.settings.relax_cell:
            fire.cell_velocities.zero_()
        else:
            fire.stress.fill_(torch.nan)  # stays so where the model gives none: zero would pass for an answer
        return fire

    def _verdicts(self) -> list[tuple[RelaxState, str | None, float] | None]:
        """State, error and fmax of every structure that is done; None for those that go on."""
        state, settings = self._state, self.settings
        n_systems, system = len(self.flights), state.system_idx
        norms = state.forces.norm(dim=1)
        fmax = norms.new_zeros(n_systems).scatter_reduce_(0, system, norms, "amax").tolist()
        wild = torch.zeros(n_systems, device=norms.device).index_add_(
            0, system, (~(state.forces.abs() < _LARGEST).all(dim=1)).float()
        )
        wild += ~state.energy.isfinite()
        if settings.relax_cell:
            wild += ~(state.stress.abs() < _LARGEST).all(dim=(1, 2))
        broken = wild.tolist()
        cell_forces, growth, strain = self._cell()
        verdicts: list[tuple[RelaxState, str | None, float] | None] = []
        for number, flight in enumerate(self.flights):
            error = self.model.reasons.get(number)
            if error is None and broken[number]:
                error = "energy, forces or stress are NaN or infinite"
            if error is None and not 1 / _VOLUME_FACTOR <= growth[number] <= _VOLUME_FACTOR:
                word = "exploded" if growth[number] > 1 else "collapsed"
                error = f"the cell {word}: its volume is {growth[number]:.3g} times that of the input"
            if error is None and strain[number] > _LOG_STRAIN:
                error = "the cell was deformed beyond a factor of exp(2)"
            if error is not None:
                verdicts.append(("failed", f"{error} (after {max(flight.n_steps, 0)} steps)", fmax[number]))
            elif fmax[number] < settings.fmax and cell_forces[number] < settings.fmax:
                verdicts.append(("converged", None, fmax[number]))
            elif flight.n_steps >= settings.max_steps:
                verdicts.append(("max_steps", None, fmax[number]))
            else:
                verdicts.append(None)
        return verdicts

    def _cell(self) -> tuple[list[float], list[float], list[float]]:
        """Cell force (eV/Å), volume over initial volume, and largest logarithmic strain of every system."""
        n_systems, state = len(self.flights), self._state
        if not self.settings.relax_cell:
            return [0.0] * n_systems, [1.0] * n_systems, [0.0] * n_systems
        volume = torch.linalg.det(state.cell)
        # Rows of the virial per atom: what ASE's FrechetCellFilter compares with fmax, at zero strain.
        virial = state.stress * (volume / state.n_atoms_per_system).view(-1, 1, 1)
        growth = volume / torch.linalg.det(state.reference_cell)
        strain = (state.cell_positions / state.cell_factor).abs().amax(dim=(1, 2))
        return virial.norm(dim=2).amax(dim=1).tolist(), growth.tolist(), strain.tolist()

    def _record(
        self,
        flight: Flight,
        verdict: tuple[RelaxState, str | None, float] | None,
        state: Any,
        magmoms: Tensor | None,
        extrapolation: Tensor | None,
    ) -> RelaxRecord:
        """Record of a structure that left, all of its last geometry."""
        assert verdict is not None  # noqa: S101 - only those with a verdict leave
        outcome, error, fmax = verdict
        structure = None if error else structure_of(flight.structure, state)
        if structure is not None and (problem := problem_with(structure)):
            outcome, error = "failed", f"relaxed into nonsense: {problem} (after {flight.n_steps} steps)"
        common: dict[str, Any] = {
            "index": flight.index,
            "structure_id": flight.structure_id,
            "state": outcome,
            "n_steps": max(flight.n_steps, 0),
            "error": error,
            "seconds": time.perf_counter() - flight.started,
        }
        if error:
            return RelaxRecord(**common)
        stress = _numbers(state.stress[0])
        far = None if extrapolation is None else _numbers(extrapolation)
        return RelaxRecord(
            **common,
            structure=structure,
            energy=float(state.energy[0]),
            forces=_array(state.forces),
            stress=stress,
            magmoms=None if magmoms is None else _numbers(magmoms.reshape(-1)),
            extrapolation=None if far is None else float(far.max()),
            mean_extrapolation=None if far is None else float(far.mean()),
            fmax=fmax,
            smax=None if stress is None or not self.settings.relax_cell else float(np.abs(stress).max()),
        )


def _split(values: Tensor | None, sizes: list[int]) -> Sequence[Tensor | None]:
    """Values of atoms by structure; None for each if there are none."""
    return [None] * len(sizes) if values is None else torch.split(values, sizes)


class _Silent:
    """Stands in for the model where torch-sim asks for forces that nothing needs yet."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self.device, self.dtype = device, dtype

    def __call__(self, state: ts.SimState) -> dict[str, Tensor]:
        """Zero energy, forces and stress."""
        return {
            "energy": state.cell.new_zeros(state.n_systems),
            "forces": torch.zeros_like(state.positions),
            "stress": torch.zeros_like(state.cell),
        }


def _handedness(structure: Structure) -> float:
    """-1 for a left-handed cell, to be reversed: torch-sim's cell filter takes det(cell) for the volume."""
    return -1.0 if np.linalg.det(structure.lattice.matrix) < 0 else 1.0


def state_of(structure: Structure, device: torch.device, dtype: torch.dtype) -> ts.SimState:
    """Put a structure on a device; a left-handed cell is reversed."""
    lattice = structure.lattice.matrix * _handedness(structure)
    return ts.SimState(
        positions=torch.tensor(structure.cart_coords, device=device, dtype=dtype),
        masses=torch.tensor([float(site.specie.atomic_mass) for site in structure], device=device, dtype=dtype),
        cell=torch.tensor(lattice.T.copy(), device=device, dtype=dtype)[None],
        pbc=True,
        atomic_numbers=torch.tensor([site.specie.Z for site in structure], device=device, dtype=torch.int),
    )


def structure_of(initial: Structure, state: Any) -> Structure:
    """Put lattice and coordinates of a state to the species of the initial structure."""
    lattice = Lattice(_array(state.cell[0]).T * _handedness(initial))
    labels = [site.label for site in initial]
    return Structure(lattice, initial.species, _array(state.positions), coords_are_cartesian=True, labels=labels)


def _array(tensor: Tensor) -> NDArray[np.float64]:
    """Numbers of a tensor on the host."""
    return tensor.detach().cpu().numpy().astype(float)


def _numbers(tensor: Tensor) -> NDArray[np.float64] | None:
    """Numbers of a tensor on the host, or None if any is none: a model that gives no stress, or NaN moments."""
    array = _array(tensor)
    return array if np.isfinite(array).all() else None
