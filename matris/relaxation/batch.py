"""A batch of structures that relax together; each leaves when it has finished."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self

import numpy as np
import torch
import torch_sim as ts
from pymatgen.core import Lattice, Structure

from matris.constraints import FREEDOM, freedom_of, projectors
from matris.relaxation.fire import Fire
from matris.relaxation.lbfgs import Lbfgs
from matris.relaxation.records import RelaxRecord, RelaxState
from matris.relaxation.symmetry import cell_projector, common, invariant
from matris.structures import MASSES, cells_away, masses_of, problem_with
from matris.units import GPA

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from matris.relaxation.guard import GuardedModel
    from matris.relaxation.records import RelaxSettings
    from matris.relaxation.symmetry import Symmetry
    from matris.relaxation.systems import Optimizer, Progress

type Verdict = tuple[RelaxState | Literal["restart"], str | None, float]
"""State, error and fmax of a structure that has finished, or starts again with FIRE."""

_VOLUME_FACTOR = 5.0  # a cell whose volume changes by a larger factor has exploded or collapsed
_LOG_STRAIN = 2.0  # largest component of the logarithmic strain L
_MAX_SQUARED_FORCE = 1e24  # (eV/Å)²: far below the overflow of float32, far above any physical force


@dataclass
class Slot:
    """
    One structure in the running batch.

    Attributes
    ----------
    index, structure_id, structure
        The input.
    cost
        Share of the device's budget, in the unit of the budget.
    symmetry
        The symmetry of the structure, if it is to be kept and there is one.
    by_fire
        Whether FIRE moves the structure, because L-BFGS has made its cell explode or collapse.
    n_steps
        Steps taken; -1 before the first evaluation.
    started
        `time.perf_counter` (s) when the structure entered the batch.
    """

    index: int
    structure_id: str
    structure: Structure
    cost: float
    symmetry: Symmetry | None = None
    by_fire: bool = False
    n_steps: int = -1
    started: float = 0.0


class RunningBatch:
    """
    Structures that relax together on one device. They enter between any two steps, and leave when they finish.

    Each structure follows the path that it would follow alone.

    Parameters
    ----------
    model
        Computes the batch.
    settings
        Convergence criteria, and whether cells relax.

    Attributes
    ----------
    slots
        The structures in the batch.
    """

    def __init__(self, model: GuardedModel, settings: RelaxSettings) -> None:
        self.model = model
        self.settings = settings
        self.slots: list[Slot] = []
        kind = Fire if settings.optimizer == "fire" else Lbfgs
        self._optimizer = kind(
            model.device, model.dtype, relax_cell=settings.relax_cell, pressure=settings.pressure / GPA
        )
        self._entering: list[Slot] = []

    def fits(self, slot: Slot) -> bool:
        """Whether the budget allows one more structure; an empty batch accepts any structure."""
        return not self.slots or sum(other.cost for other in self.slots) + slot.cost <= self.model.budget.limit

    def add(self, slot: Slot) -> None:
        """Add a structure, which takes part from the next step on."""
        slot.started = time.perf_counter()
        self.slots.append(slot)
        self._entering.append(slot)

    @torch.inference_mode(False)  # a caller may enter or leave that mode between two steps
    def step(self) -> list[RelaxRecord]:
        """
        Advance all structures by one step, and remove those that have finished.

        Returns
        -------
        list of RelaxRecord
            Records of the removed structures.
        """
        if not self.slots:
            return []
        if self._entering:
            device, dtype = torch.device("cpu"), self.model.dtype  # they go to the device together
            self._optimizer.add(
                [state_of(slot.structure, device, dtype) for slot in self._entering],
                [_projectors(slot.structure, device, dtype) for slot in self._entering],
                [slot.symmetry for slot in self._entering],
                [self._cell_freedom(slot) for slot in self._entering],
            )
            if isinstance(self._optimizer, Lbfgs):
                self._optimizer.give_up(np.array([slot.by_fire for slot in self.slots]))
            self._entering = []
        self.model.costs = [slot.cost for slot in self.slots]
        progress = self._optimizer.step(self.model)
        for slot in self.slots:
            slot.n_steps += 1
        verdicts = self._verdicts(progress)
        if not np.isfinite(progress.squared_force).any() and not self.model.reasons:
            self.model.check_device(str(next(verdict[1] for verdict in verdicts if verdict)))
        finished = np.array([verdict is not None for verdict in verdicts])
        if not finished.any():
            return []
        values = _Values.fetch(self._optimizer, self.model)
        ends = np.cumsum([len(slot.structure) for slot in self.slots])
        records = [
            self._record(slot, verdict, values, number, slice(end - len(slot.structure), end))
            for number, (slot, verdict, end) in enumerate(zip(self.slots, verdicts, ends, strict=True))
            if verdict is not None and verdict[0] != "restart"
        ]
        self._optimizer.remove(finished)
        restarts = [
            slot for slot, verdict in zip(self.slots, verdicts, strict=True) if verdict and verdict[0] == "restart"
        ]
        self.slots = [slot for slot, verdict in zip(self.slots, verdicts, strict=True) if verdict is None]
        for slot in restarts:
            slot.by_fire = True
            self.slots.append(slot)
            self._entering.append(slot)
        return records

    def _cell_freedom(self, slot: Slot) -> NDArray[np.float64] | None:
        """Projector onto the deformations that mask and symmetry allow, (9, 9); None if all are."""
        mask = self.settings.cell_mask
        if mask is None and slot.symmetry is None:
            return None
        allowed = cell_projector(np.asarray(slot.structure.lattice.matrix), mask)
        return allowed if slot.symmetry is None else common(allowed, invariant(slot.symmetry.rotations))

    def _verdicts(self, progress: Progress) -> list[Verdict | None]:
        """Judge each structure: its verdict if it has finished, else None."""
        settings = self.settings
        verdicts: list[Verdict | None] = []
        for number, (slot, values) in enumerate(zip(self.slots, zip(*progress, strict=True), strict=True)):
            fmax, cell_force, volume_ratio, strain, squared_force, _ = values
            error = self.model.reasons.get(number)
            is_lost = False
            if error is None and not squared_force < _MAX_SQUARED_FORCE:
                error = "energy, forces or stress are NaN or infinite"
            if error is None and not 1 / _VOLUME_FACTOR <= volume_ratio <= _VOLUME_FACTOR:
                word = "exploded" if volume_ratio > 1 else "collapsed"
                error = f"the cell {word}: its volume is {volume_ratio:.3g} times that of the input"
                is_lost = True
            if error is None and strain > _LOG_STRAIN:
                error = "the cell was deformed beyond a factor of exp(2)"
                is_lost = True
            if (
                is_lost
                and isinstance(self._optimizer, Lbfgs)
                and not slot.by_fire
                and slot.n_steps < settings.max_steps
            ):
                verdicts.append(("restart", error, fmax))
            elif error is not None:
                verdicts.append(("failed", f"{error} (after {max(slot.n_steps, 0)} steps)", fmax))
            elif fmax < settings.fmax and cell_force < settings.fmax:
                verdicts.append(("converged", None, fmax))
            elif slot.n_steps >= settings.max_steps:
                verdicts.append(("max_steps", None, fmax))
            else:
                verdicts.append(None)
        return verdicts

    def _record(self, slot: Slot, verdict: Verdict, values: _Values, number: int, atoms: slice) -> RelaxRecord:
        """Make the record of a finished structure; all its values belong to the last geometry."""
        outcome, error, fmax = verdict
        structure = None if error else structure_of(slot.structure, values.positions[atoms], values.cells[number])
        if structure is not None and (problem := problem_with(structure)):
            outcome, error = "failed", f"the relaxed structure is invalid: {problem} (after {slot.n_steps} steps)"
        common: dict[str, Any] = {
            "index": slot.index,
            "structure_id": slot.structure_id,
            "state": outcome,
            "n_steps": max(slot.n_steps, 0),
            "error": error,
            "seconds": time.perf_counter() - slot.started,
        }
        if error:
            return RelaxRecord(**common)
        stress = _finite(values.stresses[number])
        extrapolation = None if values.extrapolation is None else _finite(values.extrapolation[atoms])
        return RelaxRecord(
            **common,
            structure=structure,
            energy=float(values.energies[number]),
            forces=values.forces[atoms].copy(),
            stress=stress,
            magmoms=None if values.magmoms is None else _finite(values.magmoms[atoms].reshape(-1)),
            extrapolation=None if extrapolation is None else float(extrapolation.max()),
            mean_extrapolation=None if extrapolation is None else float(extrapolation.mean()),
            fmax=float(fmax),
            smax=None if stress is None or not self.settings.relax_cell else self._smax(slot, stress),
        )

    def _smax(self, slot: Slot, stress: NDArray[np.float64]) -> float:
        """Largest component of the stress and the pressure that the cell could follow, eV/Å³."""
        rest = (stress + self.settings.pressure / GPA * np.eye(3)).reshape(-1)
        freedom = self._cell_freedom(slot)
        return float(np.abs(rest if freedom is None else freedom @ rest).max())


def handedness(structure: Structure) -> float:
    """Sign of the cell's determinant: torch-sim and some models take the determinant itself for the volume."""
    return -1.0 if np.linalg.det(structure.lattice.matrix) < 0 else 1.0


def state_of(structure: Structure, device: torch.device, dtype: torch.dtype) -> ts.SimState:
    """
    Convert a structure to a torch-sim state.

    The vectors of a left-handed cell are reversed. Atoms far outside the cell are taken back into it, where float32 has
    enough digits; `structure_of` returns them to where they were.
    """
    matrix = np.asarray(structure.lattice.matrix)
    positions = structure.cart_coords - cells_away(structure.frac_coords) @ matrix
    return ts.SimState(
        positions=torch.tensor(positions, device=device, dtype=dtype),
        masses=torch.tensor(masses_of(structure), device=device, dtype=dtype),
        cell=torch.tensor((matrix * handedness(structure)).T.copy(), device=device, dtype=dtype)[None],
        pbc=True,
        atomic_numbers=torch.tensor([site.specie.Z for site in structure], device=device, dtype=torch.int),
    )


def _projectors(structure: Structure, device: torch.device, dtype: torch.dtype) -> Tensor | None:
    """Projectors of the atoms onto the directions in which they may move, (n, 3, 3); None if all are free."""
    free = freedom_of(structure)
    if free is None:
        return None
    return torch.tensor(projectors(np.asarray(structure.lattice.matrix), free), device=device, dtype=dtype)


def structure_of(initial: Structure, positions: NDArray[np.floating], cell: NDArray[np.floating]) -> Structure:
    """
    Convert positions (Å), (n, 3), and lattice vectors (Å, in columns) of a state back to a structure.

    It has the species of the initial structure, its fixed atoms and its masses, and its atoms are in the same cells.
    """
    lattice = Lattice(cell.T.astype(float) * handedness(initial))
    places = positions.astype(float) + cells_away(initial.frac_coords) @ lattice.matrix
    labels = [site.label for site in initial]
    kept: dict[str, list[Any]] = {}
    if (free := freedom_of(initial)) is not None:
        kept[FREEDOM] = free.tolist()
    if MASSES in initial.site_properties:
        kept[MASSES] = masses_of(initial).tolist()
    return Structure(
        lattice, initial.species, places, coords_are_cartesian=True, labels=labels, site_properties=kept or None
    )


class _Values(NamedTuple):
    """Geometry and results of the last call for all structures, on the host, in float64; None where there are none."""

    positions: NDArray[np.float64]
    cells: NDArray[np.float64]
    energies: NDArray[np.float64]
    forces: NDArray[np.float64]
    stresses: NDArray[np.float64]
    magmoms: NDArray[np.float64] | None
    extrapolation: NDArray[np.float64] | None

    @classmethod
    def fetch(cls, optimizer: Optimizer, model: GuardedModel) -> Self:
        """Copy them from the device in one transfer."""
        state = optimizer.state
        geometry, results = (state.positions, state.cell), (optimizer.energy, optimizer.forces, optimizer.stress)
        tensors = (*geometry, *results, model.magmoms, model.extrapolation)
        present = [tensor for tensor in tensors if tensor is not None]
        on_host = torch.cat([tensor.detach().reshape(-1).double() for tensor in present]).cpu().numpy()
        parts = iter(np.split(on_host, np.cumsum([tensor.numel() for tensor in present])))
        values: list[Any] = [None if tensor is None else next(parts).reshape(tensor.shape) for tensor in tensors]
        return cls(*values)


def _finite(array: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Copy numbers; None if one is NaN or infinite, as in missing stresses and moments."""
    return array.copy() if np.isfinite(array).all() else None
