"""
What documents shall meet, as records, and as a MongoDB filter.

Three values decide: a comparison with a field that a document lacks (or that is null, NaN or of another type) is
neither true nor false but unknown, ``not`` leaves it unknown, and a document is found only where the whole is true.
What is not known is thus never taken for a no.
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
_LEAST: dict[str, Value] = {"text": "", "date": datetime.min, "number": -math.inf}  # noqa: DTZ901 - UTC, as in BSON
_EMPTY: dict[str, list[Any]] = {"list": [[]], "group": [{}], "anything": []}
_RANGES = {"$lt", "$lte", "$gt", "$gte"}
_MOST_LISTED = 8  # elements whose subsystems, 2^n - 1, are looked up one by one


@dataclass(frozen=True)
class Comparison:
    """A field's value compared with another; `relation` is one of = != < <= > >=."""

    field: str
    relation: str
    value: Value


@dataclass(frozen=True)
class Among:
    """A field's value is one of some values of one type."""

    field: str
    values: tuple[Value, ...]


@dataclass(frozen=True)
class Contains:
    """A text has some text in it, in upper or lower case."""

    field: str
    text: str


@dataclass(frozen=True)
class Missing:
    """A field is absent, null, NaN or empty."""

    field: str


@dataclass(frozen=True)
class Has:
    """A candidate has all of these elements."""

    symbols: tuple[str, ...]


@dataclass(frozen=True)
class Only:
    """A candidate has no elements but these."""

    symbols: tuple[str, ...]


@dataclass(frozen=True)
class Not:
    """A condition is false."""

    part: Condition


@dataclass(frozen=True)
class And:
    """All conditions are true; without any, that is true."""

    parts: tuple[Condition, ...]


@dataclass(frozen=True)
class Or:
    """One of the conditions is true."""

    parts: tuple[Condition, ...]


EVERYTHING = And(())


def to_criteria(condition: Condition, *, holds: bool = True) -> Criteria:
    """
    Translate a condition.

    Parameters
    ----------
    condition
        What documents shall meet.
    holds
        Whether it shall be true or, of the documents that know, false.

    Returns
    -------
    dict
        MongoDB's filter; empty if all documents meet it.
    """
    match condition:
        case Not(part):
            return to_criteria(part, holds=not holds)
        case And(parts) | Or(parts):
            found = [to_criteria(part, holds=holds) for part in parts]
            return _all(found) if isinstance(condition, And) == holds else {"$or": found}
        case Comparison(field, relation, value):
            return _comparison(field, relation if holds else _OPPOSITES[relation], value)
        case Among(field, values):
            among = list(values)
            return {field: {"$in": among} if holds else {"$nin": among} | _of_type(values[0])}
        case Contains(field, text):
            pattern = {"$regex": f"(?i){re.escape(text)}"}
            return {field: pattern if holds else {"$not": pattern} | _of_type(text)}
        case Missing(field):
            return {"$nor": [_known(field)]} if holds else _known(field)
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
    """Operator that all values of a type meet, and nothing else; servers look ranges up in their indexes."""
    return {"$gte": next(least for least in _LEAST.values() if isinstance(value, type(least)) or least == -math.inf)}


def _known(field: str) -> Criteria:
    kind = field_named(field).kind
    if kind in _LEAST:
        return {field: _of_type(_LEAST[kind])}
    return {field: {"$in": [True, False]} if kind == "boolean" else {"$nin": [None, *_EMPTY[kind]]}}


def _only(symbols: tuple[str, ...], *, holds: bool) -> Criteria:
    other = {"$elemMatch": {"$nin": list(symbols)}}
    if not holds:
        return {"elements": other}
    if len(symbols) <= _MOST_LISTED:
        return {"chemsys": {"$in": list(subsystems(symbols))}}
    return {"elements": {"$not": other}, "nelements": {"$gt": 0}}


def subsystems(symbols: Iterable[str]) -> Iterable[str]:
    """Chemical systems that some elements form among themselves."""
    ordered = sorted(set(symbols))
    return ("-".join(chosen) for n in range(len(ordered)) for chosen in combinations(ordered, n + 1))


def _all(parts: Iterable[Criteria]) -> Criteria:
    """One filter for several, in the flat form that servers plan best where it says the same."""
    flat: Criteria = {}
    apart: list[Criteria] = []
    for part in parts:
        if list(part) == ["$and"]:
            apart += part["$and"]
        elif all(not name.startswith("$") and _joins(flat, name, search) for name, search in part.items()):
            flat |= {name: flat[name] | search if name in flat else search for name, search in part.items()}
        else:
            apart.append(part)
    return {"$and": [*([flat] if flat else []), *apart]} if apart else flat


def _joins(flat: Criteria, name: str, search: Any) -> bool:
    """Whether a field is not asked for yet, or both ask for different ends of a range."""
    if name not in flat:
        return True
    both = (flat[name], search)
    return all(isinstance(s, dict) and s.keys() <= _RANGES for s in both) and not both[0].keys() & both[1].keys()
