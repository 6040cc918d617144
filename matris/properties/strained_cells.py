"""Relaxation of atoms in slightly strained cells by Newton's method, with the unstrained cell's force constants."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from phonopy import Phonopy
from pymatgen.core import Structure

from matris.constraints import freedom_of
from matris.properties.groups import attempt
from matris.properties.phonons import PhononSettings, to_phonopy, to_structure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from matris.properties.groups import Relaxer
    from matris.relaxation.records import RelaxRecord

_ROUNDS = 5  # Newton steps; each multiplies the forces by about the strain; a relaxation takes cells that need more
_DISPLACEMENT = PhononSettings.displacement  # Å, for force constants
_SOFT = 0.05  # eV/Å²: crystals with softer or unstable modes are relaxed as others
_FARTHEST = 0.2  # Å: a longer step is no linear response to a small strain
_DEAREST = 5  # displaced cells for each strained cell: as many evaluations as Newton's method saves against L-BFGS


def relax_strained(
    starts: Sequence[Structure | None], groups: Sequence[Sequence[Structure]], relaxer: Relaxer
) -> list[list[RelaxRecord]]:
    """
    Relax the atoms of strained cells, lattices fixed, in fewer evaluations than `Relaxer.groups`.

    At a small strain, atoms move by u = Φ⁻¹ F, where Φ are the force constants of the unstrained crystal (M. Born and
    K. Huang, Dynamical Theory of Crystal Lattices, 1954). A few such steps bring the forces below `fmax`. The
    relaxer takes the cells that remain above it, and crystals with soft or unstable modes.

    Parameters
    ----------
    starts
        The unstrained cell of each material, its atoms relaxed; None where there is none.
    groups
        For each material its strained cells, atoms in the order of the unstrained cell.
    relaxer
        Potential, bound on forces, optimizer, and maximum number of its steps.

    Returns
    -------
    list of list of RelaxRecord
        Shaped like `groups`.
    """
    evaluator = replace(relaxer, max_steps=0)
    records = evaluator.groups(groups)
    unrelaxed = [any(record.state == "max_steps" for record in group) for group in records]
    crystals = [
        start if moves and start is not None and freedom_of(start) is None else None  # the relaxer honours fixed atoms
        for start, moves in zip(starts, unrelaxed, strict=True)
    ]
    inverses = _inverses(crystals, [len(group) for group in groups], evaluator)
    active = {
        (i, j)
        for i, group in enumerate(records)
        for j, record in enumerate(group)
        if inverses[i] is not None and record.state == "max_steps"
    }
    for _ in range(_ROUNDS):
        moved = [
            [_moved(record, inverses[i]) if (i, j) in active else None for j, record in enumerate(group)]
            for i, group in enumerate(records)
        ]
        results = evaluator.groups([[cell for cell in group if cell is not None] for group in moved])
        for i, group in enumerate(moved):
            queue = iter(results[i])
            for j, cell in enumerate(group):
                result = None if cell is None else next(queue)
                if result is not None and (result.fmax or np.inf) < (records[i][j].fmax or 0.0):
                    records[i][j] = result
                    if result.state == "max_steps":
                        continue
                active.discard((i, j))
    remaining = [
        [(j, record.structure) for j, record in enumerate(group) if record.state == "max_steps" and record.structure]
        for group in records
    ]
    relaxed = relaxer.groups([[cell for _, cell in group] for group in remaining])
    for i, (cells, answers) in enumerate(zip(remaining, relaxed, strict=True)):
        for (j, _), answer in zip(cells, answers, strict=True):
            records[i][j] = answer
    return records


def _inverses(
    crystals: Sequence[Structure | None], counts: Sequence[int], evaluator: Relaxer
) -> list[NDArray[np.float64] | None]:
    """
    Inverse force constants of crystals.

    Parameters
    ----------
    crystals
        Unstrained cells; None is passed on.
    counts
        Number of strained cells of each.
    evaluator
        Evaluates cells as they are.

    Returns
    -------
    list of ndarray or None
        Shape (3n, 3n), Å²/eV; None if the crystal is soft, or if a relaxation costs less than the force constants.
    """
    plans = [None if crystal is None else attempt(_displaced, crystal)[0] for crystal in crystals]
    cheap = [
        plan if plan and len(plan[1]) < _DEAREST * count else None for plan, count in zip(plans, counts, strict=True)
    ]
    results = evaluator.groups([plan[1] if plan else [] for plan in cheap])
    return [attempt(_inverse, plan[0], group)[0] if plan else None for plan, group in zip(cheap, results, strict=True)]


def _displaced(crystal: Structure) -> tuple[Phonopy, list[Structure]]:
    """Phonopy's object of a cell, and the displaced cells whose forces give its force constants."""
    phonopy = Phonopy(
        to_phonopy(crystal), supercell_matrix=np.eye(3, dtype=int), primitive_matrix=np.eye(3), symprec=1e-3
    )
    phonopy.generate_displacements(distance=_DISPLACEMENT)
    return phonopy, [to_structure(cell) for cell in phonopy.supercells_with_displacements or []]


def _inverse(phonopy: Phonopy, cells: Sequence[RelaxRecord]) -> NDArray[np.float64] | None:
    """Inverse force constants of a crystal, translations stiffened; None if a mode is soft."""
    forces = [cell.forces for cell in cells if cell.forces is not None]
    phonopy.produce_force_constants(forces, show_drift=False)
    phonopy.symmetrize_force_constants(show_drift=False)
    n = len(phonopy.unitcell)
    constants = np.asarray(phonopy.force_constants).transpose(0, 2, 1, 3).reshape(3 * n, 3 * n)
    translations = np.kron(np.ones((n, n)) / n, np.eye(3))
    stiffened = (constants + constants.T) / 2 + translations * np.trace(constants) / (3 * n)
    if np.linalg.eigvalsh(stiffened)[0] < _SOFT:
        return None
    inverse: NDArray[np.float64] = np.linalg.inv(stiffened)
    return inverse


def _moved(record: RelaxRecord, inverse: NDArray[np.float64] | None) -> Structure | None:
    """Cell after one Newton step; None if there are no force constants, or if the step is too long."""
    if record.structure is None or record.forces is None or inverse is None:
        return None
    step = (inverse @ record.forces.reshape(-1)).reshape(-1, 3)
    if np.linalg.norm(step, axis=1).max() > _FARTHEST:
        return None
    cell = record.structure
    return Structure(cell.lattice, cell.species, cell.cart_coords + step, coords_are_cartesian=True)
