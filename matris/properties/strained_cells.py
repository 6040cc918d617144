"""Relaxing atoms in slightly strained cells, by Newton's method with the force constants of the unstrained one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from phonopy import Phonopy
from phonopy.structure.atoms import PhonopyAtoms
from pymatgen.core import Structure

from matris.properties.groups import isolated, relax_groups

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch_sim.models.interface import ModelInterface

    from matris.model.potential import Potential
    from matris.relaxation.records import RelaxRecord

_ROUNDS = 5  # each leaves of the forces about the strain's share: what takes more is left to FIRE
_DISPLACEMENT = 0.01  # Å, for force constants
_SOFT = 0.05  # eV/Å²: softer modes, and unstable ones, are left to FIRE
_FARTHEST = 0.2  # Å: a longer step is no small answer to a small strain
_DEAREST = 20  # displaced cells for each strained one: from here on FIRE is cheaper


def relax_strained(
    starts: Sequence[Structure | None],
    groups: Sequence[Sequence[Structure]],
    potential: Potential | ModelInterface,
    *,
    fmax: float,
    max_steps: int,
    journal_dir: Path | None = None,
) -> list[list[RelaxRecord]]:
    """
    Relax the atoms of strained cells, lattices fixed, as `matris.properties.groups.relax_groups` does but sooner.

    Where a strain is small, atoms answer with u = Φ⁻¹ F, Φ the force constants of the unstrained crystal (M. Born and
    K. Huang, Dynamical Theory of Crystal Lattices, 1954). A few such steps take the forces down; what is not below
    `fmax` then, and crystals with soft or unstable modes, go on with FIRE.

    Parameters
    ----------
    starts
        The unstrained cell of each material, its atoms relaxed; None where there is none.
    groups
        For each material its strained cells, with the atoms in the order of the unstrained one.
    potential
        A loaded potential or any torch-sim model.
    fmax
        Bound on forces, eV/Å.
    max_steps
        Most steps of FIRE.
    journal_dir
        Folder in which finished cells are kept; see `matris.relax`.

    Returns
    -------
    list of list of RelaxRecord
        Shaped like `groups`.
    """

    def evaluated(cells: Sequence[Sequence[Structure]]) -> list[list[RelaxRecord]]:
        return relax_groups(cells, potential, fmax=fmax, max_steps=0, journal_dir=journal_dir)

    records = evaluated(groups)
    wanted = [any(record.state == "max_steps" for record in group) for group in records]
    crystals = [start if moves else None for start, moves in zip(starts, wanted, strict=True)]
    inverses = _inverses(crystals, [len(group) for group in groups], evaluated)
    places = {
        (i, j)
        for i, group in enumerate(records)
        for j, record in enumerate(group)
        if inverses[i] is not None and record.state == "max_steps"
    }
    for _ in range(_ROUNDS):
        moved = [
            [_moved(record, inverses[i]) if (i, j) in places else None for j, record in enumerate(group)]
            for i, group in enumerate(records)
        ]
        answers = evaluated([[cell for cell in group if cell is not None] for group in moved])
        for i, group in enumerate(moved):
            queue = iter(answers[i])
            for j, cell in enumerate(group):
                answer = None if cell is None else next(queue)
                if answer is not None and (answer.fmax or np.inf) < (records[i][j].fmax or 0.0):
                    records[i][j] = answer
                    if answer.state == "max_steps":
                        continue
                places.discard((i, j))
    late = [
        [(j, record.structure) for j, record in enumerate(group) if record.state == "max_steps" and record.structure]
        for group in records
    ]
    cells = [[cell for _, cell in group] for group in late]
    last = relax_groups(cells, potential, fmax=fmax, max_steps=max_steps, journal_dir=journal_dir)
    for known, left, answered in zip(records, late, last, strict=True):
        for (j, _), record in zip(left, answered, strict=True):
            known[j] = record
    return records


def _inverses(
    crystals: Sequence[Structure | None],
    counts: Sequence[int],
    evaluated: Callable[[Sequence[Sequence[Structure]]], list[list[RelaxRecord]]],
) -> list[NDArray[np.float64] | None]:
    """Inverse force constants, (3n, 3n), Å²/eV; None where there is no crystal, it is soft, or they cost too much."""
    plans = [None if crystal is None else isolated(_displaced, crystal)[0] for crystal in crystals]
    worth = [
        plan if plan and len(plan[1]) < _DEAREST * count else None for plan, count in zip(plans, counts, strict=True)
    ]
    answers = evaluated([plan[1] if plan else [] for plan in worth])
    return [isolated(_inverse, plan[0], group)[0] if plan else None for plan, group in zip(worth, answers, strict=True)]


def _displaced(crystal: Structure) -> tuple[Phonopy, list[Structure]]:
    """Cells from whose forces the force constants of the cell follow."""
    cell = PhonopyAtoms(
        symbols=[site.specie.symbol for site in crystal],
        cell=crystal.lattice.matrix,
        scaled_positions=crystal.frac_coords,
    )
    phonopy = Phonopy(cell, supercell_matrix=np.eye(3, dtype=int), primitive_matrix=np.eye(3), symprec=1e-3)
    phonopy.generate_displacements(distance=_DISPLACEMENT)
    made = phonopy.supercells_with_displacements or []
    return phonopy, [Structure(cell.cell, cell.symbols, cell.scaled_positions) for cell in made]


def _inverse(phonopy: Phonopy, answers: Sequence[RelaxRecord]) -> NDArray[np.float64] | None:
    """Inverse force constants of a crystal, its translations held; None if a mode is soft."""
    forces = [answer.forces for answer in answers if answer.forces is not None]
    phonopy.produce_force_constants(forces, show_drift=False)
    phonopy.symmetrize_force_constants(show_drift=False)
    n = len(phonopy.unitcell)
    constants = np.asarray(phonopy.force_constants).transpose(0, 2, 1, 3).reshape(3 * n, 3 * n)
    translations = np.kron(np.ones((n, n)) / n, np.eye(3))
    held = (constants + constants.T) / 2 + translations * np.trace(constants) / (3 * n)
    if np.linalg.eigvalsh(held)[0] < _SOFT:
        return None
    inverse: NDArray[np.float64] = np.linalg.inv(held)
    return inverse


def _moved(record: RelaxRecord, inverse: NDArray[np.float64] | None) -> Structure | None:
    """Let atoms follow their forces by one step; None if that is none, or goes too far."""
    if record.structure is None or record.forces is None or inverse is None:
        return None
    step = (inverse @ record.forces.reshape(-1)).reshape(-1, 3)
    if np.linalg.norm(step, axis=1).max() > _FARTHEST:
        return None
    cell = record.structure
    return Structure(cell.lattice, cell.species, cell.cart_coords + step, coords_are_cartesian=True)
