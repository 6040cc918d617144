"""
The lowest energy of a mixture of phases: the geometry of the convex hull, without its facets.

The hull at a composition x is the optimum of a small linear programme: the energy of the best mixture of phases,
min Σ w·e with Σ w·f = x and w ≥ 0, where f are the atomic fractions of the phases. Its dual variables are the
chemical potentials of the elements. Akbarzadeh, Ozoliņš and Wolverton, Adv. Mater. 19, 3233 (2007).

The programme is solved by the simplex method (Dantzig, *Linear Programming and Extensions*, 1963), for compositions of
many chemical systems at once: with n elements a basis is n phases, and a step is the inverse of an n × n matrix. No
facet is listed, of which there are millions where there are six elements and more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

TOLERANCE = 1e-11
"""eV/atom: no phase is further below the plane of a result. It is also the largest error of its energy."""

_PIVOT = 1e-10  # fraction: less of a phase is none
_TIE = 1e-13  # fraction
_CAREFUL = 60  # steps after which the rule of Bland is followed, with which no basis comes back
_STEPS = 3000
_CELLS = 2_000_000  # numbers in the largest array of one batch
_BLOCK = 64  # phases that are added at once to what may be a hull


class Table(NamedTuple):
    """
    Phases of one system of n elements.

    Attributes
    ----------
    fractions
        Shape (m, n): atomic fractions. A table to mix from begins with the n pure elements, in order.
    energies
        Shape (m,): eV/atom, best as formation energies: smaller numbers are more precise.
    """

    fractions: NDArray[np.float64]
    energies: NDArray[np.float64]

    def take(self, rows: Any) -> Table:
        """Pick some of the phases."""
        return Table(self.fractions[rows], self.energies[rows])

    def joined(self, other: Table) -> Table:
        """Phases of both."""
        return Table(np.concatenate([self.fractions, other.fractions]), np.append(self.energies, other.energies))


class Mixtures(NamedTuple):
    """
    Lowest mixtures at k compositions of n elements.

    Attributes
    ----------
    energies
        Shape (k,), eV/atom; NaN where the simplex method did not end.
    phases
        Shape (k, n): which phases mix, as rows of the table they were chosen from.
    amounts
        Shape (k, n): fractions of the atoms.
    """

    energies: NDArray[np.float64]
    phases: NDArray[np.intp]
    amounts: NDArray[np.float64]


def lowest_mixtures(tables: Sequence[Table], targets: Sequence[NDArray[np.float64]]) -> list[Mixtures]:
    """
    Find the mixtures of phases that have the lowest energies.

    Parameters
    ----------
    tables
        Phases to mix: one table for each system, all of n elements.
    targets
        For each table, shape (k, n): atomic fractions of the mixtures.

    Returns
    -------
    list of Mixtures
        One for each table.
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
        used, own = np.unique(owners[start:stop], return_inverse=True)
        energies[rows], phases[rows], amounts[rows] = _solve(*_padded([tables[i] for i in used]), own, stacked[rows])
        start = stop
    ends = np.cumsum(counts)[:-1]
    columns = (np.split(column, ends) for column in (energies, phases, amounts))
    return [Mixtures(*parts) for parts in zip(*columns, strict=True)]


def on_hull(known: Sequence[Table], new: Sequence[Table], noise: float) -> list[NDArray[np.bool_]]:
    """
    Tell which new phases lie on the hull of known and new ones.

    Parameters
    ----------
    known
        Phases of each system, the pure elements first.
    new
        Further phases of the same systems.
    noise
        A phase up to this far above the hull (eV/atom) lies on it.

    Returns
    -------
    :
        For each system, a value for each new phase.
    """
    chosen = [_possible(old, table, noise) for old, table in zip(known, new, strict=True)]
    fewer = [table.take(rows) for table, rows in zip(new, chosen, strict=True)]
    tables = [old.joined(table) for old, table in zip(known, fewer, strict=True)]
    hulls = lowest_mixtures(tables, [table.fractions for table in fewer])
    for rows, table, hull in zip(chosen, fewer, hulls, strict=True):
        rows[rows] = ~(table.energies > hull.energies + noise)
    return chosen


def _possible(known: Table, new: Table, noise: float) -> NDArray[np.bool_]:
    """
    Leave out, of very many phases, most of those above the hull.

    Phases are added in blocks, those furthest below the hull so far first. What lies above a hull of few phases lies
    above the hull of all.
    """
    chosen = np.zeros(len(new.energies), dtype=bool)
    left = np.arange(len(chosen))
    while len(left) > _BLOCK:
        (hull,) = lowest_mixtures([known.joined(new.take(chosen))], [new.fractions[left]])
        above = new.energies[left] - hull.energies
        order = np.argsort(above, kind="stable")
        possible = left[order[above[order] <= noise]]
        chosen[possible[:_BLOCK]] = True
        left = possible[_BLOCK:]
    chosen[left] = True
    return chosen


def _stops(tables: Sequence[Table], owners: NDArray[np.intp]) -> Iterator[int]:
    """Where batches of targets end; the tables grow from target to target."""
    n = tables[0].fractions.shape[1]
    start = 0
    for stop, owner in enumerate(owners):
        if (stop - start + 1) * len(tables[owner].energies) * n > _CELLS and stop > start:
            yield stop
            start = stop
    yield len(owners)


def _padded(tables: Sequence[Table]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Stack tables of different lengths: shapes (s, m, n) and (s, m). What is missing has an infinite energy."""
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
    """Simplex method from the pure elements downwards; `owners` are the tables of the targets."""
    n = fractions.shape[2]
    found = Mixtures(np.full(len(targets), np.nan), np.tile(np.arange(n), (len(targets), 1)), np.zeros_like(targets))
    rows, basis = np.arange(len(targets)), found.phases
    for n_steps in range(_STEPS):
        if not len(rows):
            break
        own, column = owners[rows], owners[rows][:, None]
        inverse = np.linalg.inv(fractions[column, basis])
        amounts = (targets[rows][:, None, :] @ inverse)[:, 0, :]
        potentials = inverse @ energies[column, basis][:, :, None]
        gains = energies[own] - (fractions[own] @ potentials)[:, :, 0]
        if n_steps < _CAREFUL:
            entering = gains.argmin(axis=1)
            more = gains[np.arange(len(rows)), entering] < -TOLERANCE
        else:
            lower = gains < -TOLERANCE
            entering, more = lower.argmax(axis=1), lower.any(axis=1)
        if not more.all():
            end, done = ~more, rows[~more]
            found.energies[done] = (amounts[end] * energies[column[end], basis[end]]).sum(axis=1)
            found.phases[done], found.amounts[done] = basis[end], amounts[end]
            rows, own, basis, entering = rows[more], own[more], basis[more], entering[more]
            inverse, amounts = inverse[more], amounts[more]
        replaced = (fractions[own, entering][:, None, :] @ inverse)[:, 0, :]
        # of a phase that the entering one replaces, there may be less than none by rounding
        ratios = np.where(replaced > _PIVOT, np.maximum(amounts, 0) / np.maximum(replaced, _PIVOT), np.inf)
        ties = ratios <= ratios.min(axis=1, keepdims=True) + _TIE
        leaving = np.where(ties, basis, energies.shape[1]).argmin(axis=1)
        basis = basis.copy()
        basis[np.arange(len(rows)), leaving] = entering
    return found
