"""Conditions for the keyword arguments of `CandidateStore.query`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from matris.errors import MatrisError
from matris.nearest import did_you_mean
from matris.stores.documents.fields import field_named
from matris.stores.query.conditions import EVERYTHING, Among, And, Comparison, Has, Not, Only
from matris.stores.query.values import chemical_system, element, naive_utc, reduced_formula, space_group

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from matris.stores.query.conditions import Condition

_HASH = re.compile(r"[0-9a-f]{8,64}")


def query_terms(**arguments: Any) -> list[Condition]:
    """Make a condition for each keyword argument of `CandidateStore.query` that is not None."""
    return [_TERMS[name](value) for name, value in arguments.items() if value is not None]


def _listed(values: str | Sequence[str]) -> list[str]:
    return [values] if isinstance(values, str) else list(values)


def _of_state(values: str | Sequence[str]) -> Condition:
    states = field_named("state").choices
    for unknown in sorted(set(_listed(values)) - set(states)):
        raise MatrisError(f"there is no state {unknown!r}{did_you_mean(unknown, states)}")
    return _one_of("state", _listed(values))


def _one_of(field: str, values: list[str]) -> Condition:
    return Comparison(field, "=", values[0]) if len(values) == 1 else Among(field, tuple(values))


def _of_checkpoint(name: str) -> Condition:
    if not _HASH.fullmatch(name):
        return Comparison("checkpoint.key", "=", name)
    return And((Comparison("checkpoint.sha256", ">=", name), Comparison("checkpoint.sha256", "<", f"{name}g")))


_TERMS: dict[str, Callable[[Any], Condition]] = {
    "formula": lambda text: Comparison("formula_pretty", "=", reduced_formula(text)),
    "chemsys": lambda texts: _one_of("chemsys", [chemical_system(text) for text in _listed(texts)]),
    "within": lambda text: Only(tuple(chemical_system(text).split("-"))),
    "elements": lambda symbols: Has(tuple(map(element, symbols))) if symbols else EVERYTHING,
    "exclude_elements": lambda symbols: And(tuple(Not(Has((element(symbol),))) for symbol in symbols)),
    "spacegroup": lambda name: Comparison("symmetry.number", "=", space_group(name)),
    "below": lambda energy: Comparison("energy_above_hull", "<=", energy),
    "stable": lambda stable: Comparison("is_stable", "=", stable),
    "state": _of_state,
    "checkpoint": _of_checkpoint,
    "since": lambda moment: Comparison("last_updated", ">=", naive_utc(moment)),
}
