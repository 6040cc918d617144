"""
The lowest energy of a mixture of phases: the geometry of the convex hull, without its facets.

The hull at a composition x is the optimum of a small linear programme: the energy of the best mixture of phases,
min Σ w·e with Σ w·f = x and w ≥ 0, where f are the atomic fractions of the phases. Its dual variables are the
chemical potentials of the elements. Akbarzadeh, Ozoliņš and Wolverton, Adv. Mater. 19, 3233 (2007).

The programme is solved by the simplex method (Dantzig, *Linear Programming and Extensions*, 1963), for many
compositions at once: with n elements a basis is n phases, and a step is the inverse of an n × n matrix. No facet is
listed, of which there are millions where there are six elements and more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

TOLERANCE = 1e-11
"""eV/atom: no phase is further below the plane of a result. It is also the largest error of its energy."""

_PIVOT = 1e-10  # fraction: less of a phase is none
_TIE = 1e-13  # fraction
_CAREFUL = 60  # steps after which the rule of Bland is followed, with which no basis comes back
_STEPS = 3000
_CELLS = 2_000_000  # numbers in the largest array of one batch
_BLOCK = 64  # phases that are added at once to what may be a hull


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


def lowest_mixtures(
    fractions: NDArray[np.float64], energies: NDArray[np.float64], targets: NDArray[np.float64]
) -> Mixtures:
    """
    Find the mixtures of phases that have the lowest energies.

    Parameters
    ----------
    fractions
        Shape (m, n): atomic fractions of the phases. The first n phases are the pure elements, in order.
    energies
        Shape (m,): of the phases (eV/atom), best as formation energies: smaller numbers are more precise.
    targets
        Shape (k, n): atomic fractions of the mixtures.

    Returns
    -------
    Mixtures
    """
    step = max(1, _CELLS // len(fractions))
    parts = [_solve(fractions, energies, targets[i : i + step]) for i in range(0, max(len(targets), 1), step)]
    return parts[0] if len(parts) == 1 else Mixtures(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def on_hull(
    known: NDArray[np.float64],
    known_energies: NDArray[np.float64],
    fractions: NDArray[np.float64],
    energies: NDArray[np.float64],
    noise: float,
) -> NDArray[np.bool_]:
    """
    Tell which new phases lie on the hull of known and new ones.

    Phases are added in blocks, those furthest below the hull so far first. What lies above a hull of few phases lies
    above the hull of all, and is left out early.

    Parameters
    ----------
    known, known_energies
        Shapes (m, n) and (m,): phases, the pure elements first.
    fractions, energies
        Shapes (k, n) and (k,): new phases.
    noise
        A phase up to this far above the hull (eV/atom) lies on it.

    Returns
    -------
    :
        Shape (k,).
    """
    chosen = np.zeros(len(fractions), dtype=bool)
    left = np.arange(len(fractions))
    while len(left) > _BLOCK:
        table = np.concatenate([known, fractions[chosen]])
        below = energies[left] - lowest_mixtures(table, np.append(known_energies, energies[chosen]), fractions[left])[0]
        order = np.argsort(below, kind="stable")
        possible = left[order[below[order] <= noise]]
        chosen[possible[:_BLOCK]] = True
        left = possible[_BLOCK:]
    chosen[left] = True
    table = np.concatenate([known, fractions[chosen]])
    hull = lowest_mixtures(table, np.append(known_energies, energies[chosen]), fractions[chosen]).energies
    chosen[chosen] = ~(energies[chosen] > hull + noise)
    return chosen


def _solve(fractions: NDArray[np.float64], energies: NDArray[np.float64], targets: NDArray[np.float64]) -> Mixtures:
    """Simplex method from the pure elements downwards."""
    n = fractions.shape[1]
    bases = np.tile(np.arange(n), (len(targets), 1))
    running = np.arange(len(targets))
    lost: list[NDArray[np.intp]] = []
    for n_steps in range(_STEPS):
        if not len(running):
            break
        basis = bases[running]
        inverse = np.linalg.inv(fractions[basis])
        potentials = (inverse @ energies[basis][:, :, None])[:, :, 0]
        gains = energies - potentials @ fractions.T
        if n_steps < _CAREFUL:
            entering = gains.argmin(axis=1)
            more = gains[np.arange(len(running)), entering] < -TOLERANCE
        else:
            lower = gains < -TOLERANCE
            entering, more = lower.argmax(axis=1), lower.any(axis=1)
        running, basis, inverse, entering = running[more], basis[more], inverse[more], entering[more]
        if not len(running):
            break
        amounts = (targets[running][:, None, :] @ inverse)[:, 0, :].clip(min=0)
        replaced = (fractions[entering][:, None, :] @ inverse)[:, 0, :]
        ratios = np.divide(amounts, replaced, out=np.full_like(amounts, np.inf), where=replaced > _PIVOT)
        ties = ratios <= ratios.min(axis=1, keepdims=True) + _TIE
        leaving = np.where(ties, basis, len(fractions)).argmin(axis=1)
        bases[running, leaving] = entering
    else:
        lost.append(running)
    inverse = np.linalg.inv(fractions[bases]) if len(bases) else np.zeros((0, n, n))
    amounts = (targets[:, None, :] @ inverse)[:, 0, :]
    found = (amounts * energies[bases]).sum(axis=1)
    for rows in lost:
        found[rows] = np.nan
    return Mixtures(found, bases, amounts)
