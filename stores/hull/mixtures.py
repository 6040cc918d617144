"""
Lowest-energy mixtures of phases: the convex hull without its facets.

The energy of the hull at a composition x is the optimum of a small linear programme, the energy of the best mixture of
phases: min Σ w·e subject to Σ w·f = x and w ≥ 0, where f are the atomic fractions of the phases, e their energies and w
their amounts. The dual variables are the chemical potentials of the elements. Akbarzadeh, Ozoliņš and Wolverton,
Adv. Mater. 19, 3233 (2007).

The programme is solved by the simplex method (Dantzig, *Linear Programming and Extensions*, 1963) for compositions of
many chemical systems at once. With n elements, a basis has n phases, and a step inverts an n × n matrix. Facets are
never enumerated; a system of six or more elements can have millions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

TOLERANCE = 1e-11
"""Largest distance of a phase below the plane of a result, and largest error of its energy (eV/atom)."""

_PIVOT = 1e-10  # fraction of the atoms; smaller amounts of a phase count as zero
_TIE = 1e-13  # fraction of the atoms
_BLAND_AFTER = 60  # steps; from then on Bland's rule, which excludes cycles, chooses the entering phase
_MAX_STEPS = 3000
_MAX_NUMBERS = 2_000_000  # in the largest array of one batch
_BLOCK = 64  # phases added at once to a preliminary hull


class Table(NamedTuple):
    """
    Phases of one system of n elements.

    Attributes
    ----------
    fractions
        Atomic fractions, shape (m, n). The first n rows of a table of competing phases are the pure elements, in
        order.
    energies
        Energies (eV/atom), shape (m,). Formation energies are best, because small numbers lose fewer digits.
    """

    fractions: NDArray[np.float64]
    energies: NDArray[np.float64]

    def take(self, rows: Any) -> Table:
        """Select phases by index or mask."""
        return Table(self.fractions[rows], self.energies[rows])

    def joined(self, other: Table) -> Table:
        """Concatenate two tables."""
        return Table(np.concatenate([self.fractions, other.fractions]), np.append(self.energies, other.energies))


class Mixtures(NamedTuple):
    """
    Lowest mixtures at k compositions of n elements.

    Attributes
    ----------
    energies
        Energies (eV/atom), shape (k,); NaN where the simplex method did not finish.
    phases
        Phases of each mixture as rows of the table, shape (k, n).
    amounts
        Amounts of these phases (fractions of the atoms), shape (k, n).
    """

    energies: NDArray[np.float64]
    phases: NDArray[np.intp]
    amounts: NDArray[np.float64]


def lowest_mixtures(tables: Sequence[Table], targets: Sequence[NDArray[np.float64]]) -> list[Mixtures]:
    """
    Find the lowest-energy mixtures of phases at given compositions.

    Parameters
    ----------
    tables
        Competing phases: one table for each chemical system; all systems have n elements.
    targets
        Compositions of the mixtures for each table: atomic fractions, shape (k, n).

    Returns
    -------
    list of Mixtures
        Mixtures for each table.

    Examples
    --------
    Elements A and B and the compound AB; the target is A3B:

    >>> table = Table(np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]]), np.array([0.0, 0.0, -1.0]))
    >>> (mixtures,) = lowest_mixtures([table], [np.array([[0.75, 0.25]])])
    >>> mixtures.energies, mixtures.phases, mixtures.amounts
    (array([-0.5]), array([[0, 2]]), array([[0.5, 0.5]]))
    """
    counts = [len(rows) for rows in targets]
    if not tables or not sum(counts):
        return [Mixtures(np.zeros(0), np.zeros(np.shape(rows), dtype=np.intp), np.zeros_like(rows)) for rows in targets]
    order = np.argsort(np.repeat([len(table.energies) for table in tables], counts), kind="stable")
    owners = np.repeat(np.arange(len(tables)), counts)[order]
    stacked = np.concatenate(list(targets))
    energies = np.empty(len(stacked))
    phases = np.empty(stacked.shape, dtype=np.intp)
    amounts = np.empty(stacked.shape)
    start = 0
    for stop in _stops(tables, owners):
        rows = order[start:stop]
        used, table_index = np.unique(owners[start:stop], return_inverse=True)
        energies[rows], phases[rows], amounts[rows] = _solve(
            *_padded([tables[i] for i in used]), table_index, stacked[rows]
        )
        start = stop
    ends = np.cumsum(counts)[:-1]
    columns = (np.split(column, ends) for column in (energies, phases, amounts))
    return [Mixtures(*parts) for parts in zip(*columns, strict=True)]


def on_hull(old: Sequence[Table], new: Sequence[Table], noise: float) -> list[NDArray[np.bool_]]:
    """
    Determine which new phases lie on the joint hull of old and new phases.

    Parameters
    ----------
    old
        Phases of each system, the pure elements first.
    new
        Further phases of the same systems.
    noise
        Phases up to this distance above the hull (eV/atom) count as on the hull.

    Returns
    -------
    :
        For each system, a mask of the new phases.
    """
    masks = [_possible(old_table, new_table, noise) for old_table, new_table in zip(old, new, strict=True)]
    remaining = [table.take(mask) for table, mask in zip(new, masks, strict=True)]
    tables = [old_table.joined(table) for old_table, table in zip(old, remaining, strict=True)]
    hulls = lowest_mixtures(tables, [table.fractions for table in remaining])
    for mask, table, hull in zip(masks, remaining, hulls, strict=True):
        mask[mask] = ~(table.energies > hull.energies + noise)
    return masks


def _possible(old: Table, new: Table, noise: float) -> NDArray[np.bool_]:
    """
    Discard most new phases above the hull, if there are many, and return a mask of the others.

    Phases are added to a preliminary hull in blocks, beginning with those furthest below it. A phase above the hull of
    some phases is above the hull of all phases.
    """
    mask = np.zeros(len(new.energies), dtype=bool)
    undecided = np.arange(len(mask))
    while len(undecided) > _BLOCK:
        (hull,) = lowest_mixtures([old.joined(new.take(mask))], [new.fractions[undecided]])
        above = new.energies[undecided] - hull.energies
        order = np.argsort(above, kind="stable")
        possible = undecided[order[above[order] <= noise]]
        mask[possible[:_BLOCK]] = True
        undecided = possible[_BLOCK:]
    mask[undecided] = True
    return mask


def _stops(tables: Sequence[Table], owners: NDArray[np.intp]) -> Iterator[int]:
    """Yield the ends of the batches of targets, which are sorted by the size of their tables."""
    n = tables[0].fractions.shape[1]
    start = 0
    for stop, owner in enumerate(owners):
        if (stop - start + 1) * len(tables[owner].energies) * n > _MAX_NUMBERS and stop > start:
            yield stop
            start = stop
    yield len(owners)


def _padded(tables: Sequence[Table]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Stack s tables of different lengths: shapes (s, m, n) and (s, m). Padding rows have infinite energy."""
    m, n = max(len(table.energies) for table in tables), tables[0].fractions.shape[1]
    fractions, energies = np.zeros((len(tables), m, n)), np.full((len(tables), m), np.inf)
    for i, table in enumerate(tables):
        fractions[i, : len(table.energies)], energies[i, : len(table.energies)] = table
    return fractions, energies


def _solve(
    fractions: NDArray[np.float64],
    energies: NDArray[np.float64],
    owners: NDArray[np.intp],
    targets: NDArray[np.float64],
) -> Mixtures:
    """Simplex method, starting from the pure elements; `owners` are the indices of the tables of the targets."""
    n = fractions.shape[2]
    solution = Mixtures(np.full(len(targets), np.nan), np.tile(np.arange(n), (len(targets), 1)), np.zeros_like(targets))
    rows, basis = np.arange(len(targets)), solution.phases
    for n_steps in range(_MAX_STEPS):
        if not len(rows):
            break
        own, column = owners[rows], owners[rows][:, None]
        inverse = np.linalg.inv(fractions[column, basis])
        amounts = (targets[rows][:, None, :] @ inverse)[:, 0, :]
        potentials = inverse @ energies[column, basis][:, :, None]
        gains = energies[own] - (fractions[own] @ potentials)[:, :, 0]
        if n_steps < _BLAND_AFTER:
            entering = gains.argmin(axis=1)
            unfinished = gains[np.arange(len(rows)), entering] < -TOLERANCE
        else:
            lower = gains < -TOLERANCE
            entering, unfinished = lower.argmax(axis=1), lower.any(axis=1)
        if not unfinished.all():
            finished, done = ~unfinished, rows[~unfinished]
            solution.energies[done] = (amounts[finished] * energies[column[finished], basis[finished]]).sum(axis=1)
            solution.phases[done], solution.amounts[done] = basis[finished], amounts[finished]
            rows, own, basis, entering = rows[unfinished], own[unfinished], basis[unfinished], entering[unfinished]
            inverse, amounts = inverse[unfinished], amounts[unfinished]
        replaced = (fractions[own, entering][:, None, :] @ inverse)[:, 0, :]
        # by rounding, the amount of a phase in the basis may be slightly negative
        ratios = np.where(replaced > _PIVOT, np.maximum(amounts, 0) / np.maximum(replaced, _PIVOT), np.inf)
        ties = ratios <= ratios.min(axis=1, keepdims=True) + _TIE
        leaving = np.where(ties, basis, energies.shape[1]).argmin(axis=1)
        basis = basis.copy()
        basis[np.arange(len(rows)), leaving] = entering
    return solution
