"""
Conditions on documents, and their translation to MongoDB filters.

Conditions have three truth values. A comparison with a field that a document lacks (or that is null, NaN or of another
type) is unknown; ``not`` leaves it unknown. A document matches only if the whole condition is true. A missing value is
therefore never taken for "no".
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import datetime
from itertools import combinations
from typing import TYPE_CHECKING, Any

from matris.stores.documents.fields import field_named

if TYPE_CHECKING:
    from collections.abc import Iterable

type Criteria = dict[str, Any]
type Value = bool | float | str | datetime
type Condition = Comparison | Among | Contains | Missing | Has | Only | Not | And | Or

_OPERATORS = {"=": "$eq", "!=": "$ne", "<": "$lt", "<=": "$lte", ">": "$gt", ">=": "$gte"}
_OPPOSITES = {"=": "!=", "!=": "=", "<": ">=", ">=": "<", ">": "<=", "<=": ">"}
_LOWEST: dict[str, Value] = {"text": "", "date": datetime.min, "number": -math.inf}  # noqa: DTZ901 - UTC, as in BSON
_EMPTY: dict[str, list[Any]] = {"list": [[]], "group": [{}], "anything": []}
_RANGES = {"$lt", "$lte", "$gt", "$gte"}
_MAX_LISTED = 8  # elements; up to here all 2^n - 1 subsystems are listed in the filter


@dataclass(frozen=True)
class Comparison:
    """A field compared with a value; `relation` is one of = != < <= > >=."""

    field: str
    relation: str
    value: Value


@dataclass(frozen=True)
class Among:
    """The value of a field is one of several values of one type."""

    field: str
    values: tuple[Value, ...]


@dataclass(frozen=True)
class Contains:
    """A text field contains a text, in upper or lower case."""

    field: str
    text: str


@dataclass(frozen=True)
class Missing:
    """A field is absent, null, NaN or empty."""

    field: str


@dataclass(frozen=True)
class Has:
    """A candidate contains all of these elements."""

    symbols: tuple[str, ...]


@dataclass(frozen=True)
class Only:
    """A candidate contains no elements other than these."""

    symbols: tuple[str, ...]


@dataclass(frozen=True)
class Not:
    """A condition is false."""

    part: Condition


@dataclass(frozen=True)
class And:
    """All conditions are true. An empty conjunction is true."""

    parts: tuple[Condition, ...]


@dataclass(frozen=True)
class Or:
    """At least one of the conditions is true."""

    parts: tuple[Condition, ...]


EVERYTHING = And(())
"""Condition that all documents meet."""


def to_criteria(condition: Condition, *, holds: bool = True) -> Criteria:
    """
    Translate a condition to a MongoDB filter.

    Parameters
    ----------
    condition
        Condition to translate.
    holds
        Whether to match documents for which the condition is true, or those for which it is false. Documents for
        which it is unknown match in neither case.

    Returns
    -------
    dict
        MongoDB filter; empty if all documents match.

    Examples
    --------
    >>> to_criteria(And((Has(("Fe", "O")), Comparison("energy_above_hull", "<=", 0.05))))
    {'elements': {'$all': ['Fe', 'O']}, 'energy_above_hull': {'$lte': 0.05}}
    >>> to_criteria(Not(Comparison("energy_above_hull", "<=", 0.05)))
    {'energy_above_hull': {'$gt': 0.05}}
    """
    match condition:
        case Not(part):
            return to_criteria(part, holds=not holds)
        case And(parts) | Or(parts):
            translated = [to_criteria(part, holds=holds) for part in parts]
            return _all(translated) if isinstance(condition, And) == holds else {"$or": translated}
        case Comparison(field, relation, value):
            return _comparison(field, relation if holds else _OPPOSITES[relation], value)
        case Among(field, values):
            among = list(values)
            return {field: {"$in": among} if holds else {"$nin": among} | _of_type(values[0])}
        case Contains(field, text):
            pattern = {"$regex": f"(?i){re.escape(text)}"}
            return {field: pattern if holds else {"$not": pattern} | _of_type(text)}
        case Missing(field):
            return {"$nor": [_present(field)]} if holds else _present(field)
        case Has(symbols):
            if holds:
                return {"elements": {"$all": list(symbols)}}
            lacks: list[Criteria] = [{"elements": {"$ne": symbol}} for symbol in symbols]
            return _all([lacks[0] if len(lacks) == 1 else {"$or": lacks}, {"nelements": {"$gt": 0}}])
        case Only(symbols):
            return _only(symbols, holds=holds)


def _comparison(field: str, relation: str, value: Value) -> Criteria:
    if isinstance(value, bool):
        return {field: value == (relation == "=")}
    if relation == "=":
        return {field: value}
    return {field: {_OPERATORS[relation]: value} | (_of_type(value) if relation == "!=" else {})}


def _of_type(value: Value) -> Criteria:
    """Operator that matches all values of a type and no others. It is a range, for which servers use their indexes."""
    lowest = (low for low in _LOWEST.values() if isinstance(value, type(low)) or low == -math.inf)
    return {"$gte": next(lowest)}


def _present(field: str) -> Criteria:
    """Match documents in which a field has a value."""
    kind = field_named(field).kind
    if kind in _LOWEST:
        return {field: _of_type(_LOWEST[kind])}
    return {field: {"$in": [True, False]} if kind == "boolean" else {"$nin": [None, *_EMPTY[kind]]}}


def _only(symbols: tuple[str, ...], *, holds: bool) -> Criteria:
    other = {"$elemMatch": {"$nin": list(symbols)}}
    if not holds:
        return {"elements": other}
    if len(symbols) <= _MAX_LISTED:
        return {"chemsys": {"$in": list(subsystems(symbols))}}
    return {"elements": {"$not": other}, "nelements": {"$gt": 0}}


def subsystems(symbols: Iterable[str]) -> Iterable[str]:
    """List the chemical systems of all subsets of some elements."""
    ordered = sorted(set(symbols))
    return ("-".join(subset) for n in range(len(ordered)) for subset in combinations(ordered, n + 1))


def _all(parts: Iterable[Criteria]) -> Criteria:
    """Combine filters; in a flat form, which servers plan best, as far as the meaning stays the same."""
    flat: Criteria = {}
    separate: list[Criteria] = []
    for part in parts:
        if list(part) == ["$and"]:
            separate += part["$and"]
        elif all(not name.startswith("$") and _can_merge(flat, name, test) for name, test in part.items()):
            flat |= {name: flat[name] | test if name in flat else test for name, test in part.items()}
        else:
            separate.append(part)
    return {"$and": [*([flat] if flat else []), *separate]} if separate else flat


def _can_merge(flat: Criteria, name: str, test: Any) -> bool:
    """Whether a filter has no test of a field yet, or both tests are ranges with different operators."""
    if name not in flat:
        return True
    tests = (flat[name], test)
    return all(isinstance(t, dict) and t.keys() <= _RANGES for t in tests) and not tests[0].keys() & tests[1].keys()
