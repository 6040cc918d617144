"""A batch of structures that relax together, each for as long as it needs."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch_sim as ts
from pymatgen.core import Lattice, Structure

from matris.relaxation.fire import Fire
from matris.relaxation.records import RelaxRecord, RelaxState
from matris.structures import problem_with

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from matris.relaxation.fire import Progress
    from matris.relaxation.guard import IsolatingModel
    from matris.relaxation.records import RelaxSettings

type Verdict = tuple[RelaxState, str | None, float]
"""State, error and fmax of a structure that is done."""

_VOLUME_FACTOR = 5.0  # a cell this many times larger or smaller than at the start is no relaxation any more
_LOG_STRAIN = 2.0  # nor is a strain by exp(2)
_LARGEST = 1e24  # (eV/Å)²: far below where a float32 overflows, far above any physics


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
    Structures on the device, advanced together; they may enter between any two steps and leave as they finish.

    Each goes the way it would go alone: that of ASE's ``FIRE(FrechetCellFilter(atoms))``.

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
        self._fire = Fire(model.device, model.dtype, relax_cell=settings.relax_cell)
        self._entering: list[ts.SimState] = []

    def has_room_for(self, flight: Flight) -> bool:
        """Whether a structure fits beside the others; alone, every structure may try."""
        return not self.flights or sum(mate.cost for mate in self.flights) + flight.cost <= self.model.budget.limit

    def add(self, flight: Flight) -> None:
        """Let a structure in, with the next step."""
        flight.started = time.perf_counter()
        self.flights.append(flight)
        self._entering.append(state_of(flight.structure, self.model.device, self.model.dtype))

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
            self._fire.enter(self._entering)
            self._entering = []
        self.model.costs = [flight.cost for flight in self.flights]
        progress = self._fire.step(self.model)
        for flight in self.flights:
            flight.n_steps += 1
        verdicts = self._verdicts(progress)
        leaving = np.array([verdict is not None for verdict in verdicts])
        if not leaving.any():
            return []
        ends = np.cumsum([len(flight.structure) for flight in self.flights])
        records = [
            self._record(flight, verdict, number, slice(end - len(flight.structure), end))
            for number, (flight, verdict, end) in enumerate(zip(self.flights, verdicts, ends, strict=True))
            if verdict is not None
        ]
        self._fire.leave(leaving)
        self.flights = [flight for flight, verdict in zip(self.flights, verdicts, strict=True) if verdict is None]
        return records

    def _verdicts(self, progress: Progress) -> list[Verdict | None]:
        """State, error and fmax of every structure that is done; None for those that go on."""
        settings = self.settings
        verdicts: list[Verdict | None] = []
        for number, (flight, seen) in enumerate(zip(self.flights, zip(*progress, strict=True), strict=True)):
            fmax, cell_force, growth, strain, square = seen
            error = self.model.reasons.get(number)
            if error is None and not square < _LARGEST:
                error = "energy, forces or stress are NaN or infinite"
            if error is None and not 1 / _VOLUME_FACTOR <= growth <= _VOLUME_FACTOR:
                word = "exploded" if growth > 1 else "collapsed"
                error = f"the cell {word}: its volume is {growth:.3g} times that of the input"
            if error is None and strain > _LOG_STRAIN:
                error = "the cell was deformed beyond a factor of exp(2)"
            if error is not None:
                verdicts.append(("failed", f"{error} (after {max(flight.n_steps, 0)} steps)", fmax))
            elif fmax < settings.fmax and cell_force < settings.fmax:
                verdicts.append(("converged", None, fmax))
            elif flight.n_steps >= settings.max_steps:
                verdicts.append(("max_steps", None, fmax))
            else:
                verdicts.append(None)
        return verdicts

    def _record(self, flight: Flight, verdict: Verdict, number: int, atoms: slice) -> RelaxRecord:
        """Record of a structure that leaves, all of its last geometry."""
        fire, state = self._fire, self._fire.state
        outcome, error, fmax = verdict
        structure = None if error else structure_of(flight.structure, state.positions[atoms], state.cell[number])
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
        stress, magmoms = _numbers(fire.stress[number]), self.model.magmoms
        far = None if self.model.extrapolation is None else _numbers(self.model.extrapolation[atoms])
        return RelaxRecord(
            **common,
            structure=structure,
            energy=float(fire.energy[number]),
            forces=_array(fire.forces[atoms]),
            stress=stress,
            magmoms=None if magmoms is None else _numbers(magmoms[atoms].reshape(-1)),
            extrapolation=None if far is None else float(far.max()),
            mean_extrapolation=None if far is None else float(far.mean()),
            fmax=float(fmax),
            smax=None if stress is None or not self.settings.relax_cell else float(np.abs(stress).max()),
        )


def _handedness(structure: Structure) -> float:
    """-1 for a left-handed cell, to be reversed: torch-sim and some models take det(cell) for the volume."""
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


def structure_of(initial: Structure, positions: Tensor, cell: Tensor) -> Structure:
    """Put coordinates (n, 3) and lattice vectors (in columns) of a state to the species of the initial structure."""
    lattice = Lattice(_array(cell).T * _handedness(initial))
    labels = [site.label for site in initial]
    return Structure(lattice, initial.species, _array(positions), coords_are_cartesian=True, labels=labels)


def _array(tensor: Tensor) -> NDArray[np.float64]:
    """Numbers of a tensor on the host."""
    return tensor.detach().cpu().numpy().astype(float)


def _numbers(tensor: Tensor) -> NDArray[np.float64] | None:
    """Numbers of a tensor on the host, or None if any is none: a model that gives no stress, or NaN moments."""
    array = _array(tensor)
    return array if np.isfinite(array).all() else None
