"""
Most probable oxidation states of a composition, for formulas of any length.

pymatgen's `Composition.oxi_state_guesses` lists every neutral choice of states; its time grows exponentially with the
number of sites. The score of a choice is a sum over the sites, so that dynamic programming finds the best one: first
the best score of each charge of one element, then that of each charge of several elements.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from pymatgen.core.composition import Composition
from pymatgen.core.periodic_table import Element, Species

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from numpy.typing import NDArray

_MAX_SITES = 2000  # of the reduced formula; the time grows with its square, to about a second
_WHOLE = 1e-8  # largest difference of an amount from a whole number


class Balance(NamedTuple):
    """
    Oxidation states of a composition.

    Attributes
    ----------
    states
        Mean oxidation state of each element; empty if no choice of states is neutral, the amounts are not whole
        numbers, or the reduced formula has more than 2,000 sites.
    ambiguous
        Elements that are anions, with a mean state of at most -1, in one of the best choices, but not in another.
    """

    states: dict[str, float]
    ambiguous: tuple[str, ...] = ()


def balance(composition: Composition, anions: Collection[str] = ()) -> Balance:
    """
    Find the most probable oxidation states.

    States and probabilities are those of pymatgen: the states observed in the ICSD, with the number of their
    occurrences.

    Parameters
    ----------
    composition
        Composition; oxidation states in it are ignored.
    anions
        Elements of interest for `Balance.ambiguous`.

    Returns
    -------
    Balance
        The states have the score of the first of ``composition.oxi_state_guesses(max_sites=-1)``.

    Examples
    --------
    >>> balance(Composition("YSi9AlON15")).states
    {'Al': 3.0, 'N': -2.6666666666666665, 'O': -2.0, 'Si': 4.0, 'Y': 3.0}
    >>> balance(Composition("FeAl3")).states
    {}
    """
    amounts = composition.element_composition.reduced_composition.get_el_amt_dict()
    whole = {symbol: round(amount) for symbol, amount in sorted(amounts.items()) if amount}
    if any(abs(amount - whole.get(symbol, 0)) > _WHOLE for symbol, amount in amounts.items()):
        return Balance({})
    if not 0 < sum(whole.values()) <= _MAX_SITES:
        return Balance({})
    if len(whole) == 1:
        return Balance(dict.fromkeys(whole, 0.0))
    scores = [_scores(symbol, amount) for symbol, amount in whole.items()]
    if not all(len(each.best) for each in scores):
        return Balance({})
    return _balanced(whole, scores, anions)


class _Scores(NamedTuple):
    """Best score of each total charge from `lowest` upwards; -inf for a charge that no choice has."""

    lowest: int
    best: NDArray[np.float64]

    def at(self, charges: NDArray[np.int64]) -> NDArray[np.float64]:
        """Best scores of some charges."""
        rows = charges - self.lowest
        inside = (rows >= 0) & (rows < len(self.best))
        return np.where(inside, self.best[np.clip(rows, 0, len(self.best) - 1)], -np.inf)

    @property
    def charges(self) -> NDArray[np.int64]:
        return np.arange(len(self.best)) + self.lowest


_NOTHING = _Scores(0, np.zeros(1))


def _balanced(whole: Mapping[str, int], scores: list[_Scores], anions: Collection[str]) -> Balance:
    """Choose the neutral charges with the best score, and compare it with those in which an anion is none."""
    after = [_NOTHING]  # scores of all elements from each one on
    for each in reversed(scores):
        after.append(_sum(each, after[-1]))
    after.reverse()
    best = float(after[0].at(np.zeros(1, dtype=np.int64))[0])
    if best == -np.inf:
        return Balance({})
    states: dict[str, float] = {}
    ambiguous = []
    before, charge = _NOTHING, 0
    for i, (symbol, amount) in enumerate(whole.items()):
        charges = scores[i].charges
        chosen = int(charges[np.argmax(scores[i].best + after[i + 1].at(-charge - charges))])
        states[symbol] = chosen / amount
        charge += chosen
        if symbol in anions:
            total = scores[i].best + _sum(before, after[i + 1]).at(-charges)
            is_anion = charges <= -amount
            if all((total[side] == best).any() for side in (is_anion, ~is_anion)):
                ambiguous.append(symbol)
        before = _sum(before, scores[i])
    return Balance(states, tuple(ambiguous))


def _sum(one: _Scores, other: _Scores) -> _Scores:
    """Best scores of two groups of sites together."""
    if len(one.best) > len(other.best):
        one, other = other, one
    best = np.full(len(one.best) + len(other.best) - 1, -np.inf)
    for row, score in enumerate(one.best.tolist()):
        if score != -np.inf:
            part = best[row : row + len(other.best)]
            np.maximum(part, other.best + score, out=part)
    return _Scores(one.lowest + other.lowest, best)


@cache
def _scores(symbol: str, amount: int) -> _Scores:
    """Best score of each total charge of some sites of one element."""
    if amount == 1:
        states = _states(symbol)
        if not states:
            return _Scores(0, np.zeros(0))
        best = np.full(max(states) - min(states) + 1, -np.inf)
        for state, score in states.items():
            best[state - min(states)] = score
        return _Scores(min(states), best)
    half = _scores(symbol, amount // 2)
    if not len(half.best):
        return half
    whole = _sum(half, half)
    return _sum(whole, _scores(symbol, 1)) if amount % 2 else whole


@cache
def _states(symbol: str) -> dict[int, float]:
    """Oxidation states of an element that pymatgen considers, with the number of their occurrences in the ICSD."""
    if Composition.oxi_prob is None:
        Composition("NaCl").oxi_state_guesses()  # reads the table
    table = Composition.oxi_prob or {}
    element = Element(symbol)
    states = element.icsd_oxidation_states or element.common_oxidation_states
    return {int(state): float(table.get(Species(symbol, state), 0)) for state in states}
