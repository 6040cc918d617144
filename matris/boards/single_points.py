"""Energies and forces of atoms as they are, of any periodicity and at any distance, in batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch_sim as ts
from ase import Atoms

from matris.relaxation.guard import Budget, GuardedModel
from matris.relaxation.relax import budget_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from matris.relaxation.relax import Engine

_TOGETHER = 512  # systems in one call at most: the cost of a dimer is next to nothing


@dataclass(frozen=True, eq=False)
class SinglePoint:
    """
    Answer for one set of atoms.

    Attributes
    ----------
    energy
        Total energy, eV; NaN after a failure.
    forces
        Shape (n, 3), eV/Å; NaN after a failure.
    error
        Why it could not be computed; None if it could.
    """

    energy: float
    forces: NDArray[np.float64]
    error: str | None = None


def single_points(engine: Engine, many: Iterable[Atoms]) -> Iterator[SinglePoint]:
    """
    Compute atoms as they are.

    `matris.relax` refuses atoms that overlap or are no crystal; this function computes them.

    Parameters
    ----------
    engine
        The model.
    many
        ASE's atoms.

    Yields
    ------
    SinglePoint
        In the order of the input.

    Examples
    --------
    >>> from ase import Atoms
    >>> from ase.calculators.emt import EMT
    >>> from matris import AseModel
    >>> from matris.relaxation.relax import engine_of
    >>> (dimer,) = single_points(engine_of(AseModel(EMT())), [Atoms("Cu2", [[0, 0, 0], [2.2, 0, 0]])])
    >>> dimer.forces.round(2).tolist()
    [[0.49, 0.0, 0.0], [-0.49, 0.0, 0.0]]
    """
    cost, unit, limit = budget_of(engine, None)
    guarded = GuardedModel(engine.model, Budget((str(engine.model.device), engine.sha256, engine.dtype, unit), limit))
    waiting, costs = list[Atoms](), list[float]()
    known = None if engine.elements is None else set(engine.elements)
    for atoms in many:
        unknown = [] if known is None else sorted(set(atoms.symbols) - known)
        next_cost = 0.0 if unknown else float(cost(atoms))
        ends = unknown or len(waiting) == _TOGETHER or sum(costs) + next_cost > guarded.budget.limit
        if waiting and (ends or (atoms.pbc != waiting[0].pbc).any()):  # a state has one periodicity
            yield from _computed(guarded, waiting, costs)
            waiting, costs = [], []
        if unknown:
            yield _failed(atoms, f"unsupported element {', '.join(unknown)}: the checkpoint does not know it")
        else:
            waiting.append(atoms)
            costs.append(next_cost)
    if waiting:
        yield from _computed(guarded, waiting, costs)


def _computed(model: GuardedModel, many: list[Atoms], costs: list[float]) -> Iterator[SinglePoint]:
    """Compute one batch."""
    model.costs = costs
    state = ts.concatenate_states([_state(atoms, model) for atoms in many])
    with torch.inference_mode(False):
        output = model(state)
    energies = output["energy"].double().cpu().numpy()
    forces = np.split(output["forces"].double().cpu().numpy(), np.cumsum([len(atoms) for atoms in many])[:-1])
    for number, atoms in enumerate(many):
        reason = model.reasons.get(number)
        yield _failed(atoms, reason) if reason else SinglePoint(float(energies[number]), forces[number])


def _state(atoms: Atoms, model: GuardedModel) -> ts.SimState:
    cell = atoms.cell.complete() if atoms.cell.rank else np.eye(3)
    return ts.SimState(
        positions=torch.tensor(atoms.positions, device=model.device, dtype=model.dtype),
        masses=torch.tensor(atoms.get_masses(), device=model.device, dtype=model.dtype),
        cell=torch.tensor(np.array(cell).T.copy(), device=model.device, dtype=model.dtype)[None],
        pbc=atoms.pbc.tolist(),
        atomic_numbers=torch.tensor(atoms.numbers, device=model.device, dtype=torch.int),
    )


def _failed(atoms: Atoms, reason: str) -> SinglePoint:
    return SinglePoint(float("nan"), np.full((len(atoms), 3), np.nan), reason)
