"""MongoDB's filters and sort order for one document, after its manual [1]_ [2]_.

mongomock's filters, which maggma's MemoryStore uses, treat True as 1 and a path that leads nowhere as null.

.. [1] https://www.mongodb.com/docs/manual/reference/operator/query/
.. [2] https://www.mongodb.com/docs/manual/reference/bson-type-comparison-order/
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import bson
from mongomock_ng.filtering import filter_applies

from matris.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

EMPTY, NULL, NAN, NUMBER, STRING, DOCUMENT, ARRAY, BYTES, OBJECT_ID, BOOLEAN, DATE, REGEX = (
    0, 5, 9, 10, 15, 20, 25, 30, 35, 40, 45, 55,
)  # fmt: skip
"""Ranks of the types in the sort order; a comparison never crosses types. NaN comes before all numbers."""

MISSING: Final = object()
"""Value of a path that leads to no field of a document."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TYPES: dict[str, tuple[int | None, Callable[[Any], bool]]] = {
    "double": (1, lambda v: isinstance(v, float)),
    "string": (2, lambda v: isinstance(v, str)),
    "object": (3, lambda v: isinstance(v, dict)),
    "array": (4, lambda v: isinstance(v, list)),
    "binData": (5, lambda v: isinstance(v, bytes)),
    "objectId": (7, lambda v: isinstance(v, bson.ObjectId)),
    "bool": (8, lambda v: isinstance(v, bool)),
    "date": (9, lambda v: isinstance(v, datetime)),
    "null": (10, lambda v: v is None),
    "int": (16, lambda v: _is_integer(v) and not isinstance(v, bson.Int64) and abs(v + 0.5) < 2**31),
    "long": (18, lambda v: _is_integer(v) and (isinstance(v, bson.Int64) or abs(v + 0.5) > 2**31)),
    "number": (None, lambda v: _is_integer(v) or isinstance(v, float)),
}
_FLAGS = {"i": re.IGNORECASE, "m": re.MULTILINE, "s": re.DOTALL, "x": re.VERBOSE}


def matches(criteria: Mapping[str, Any], document: Any) -> bool:
    """
    Return whether a document meets a filter.

    Parameters
    ----------
    criteria
        MongoDB filter, with values as BSON decodes them.
    document
        Document, decoded in the same way.

    Raises
    ------
    StoreError
        If the filter has an operator that is unknown or not supported (``$where``, ``$text``, geometry, bits).
    """
    return all(_meets(field, search, document) for field, search in criteria.items())


def values_at(path: str, document: Any) -> list[Any]:
    """
    Collect the values that a dotted path leads to.

    Parameters
    ----------
    path
        Names, or numbers of array elements. Arrays on the way are entered.
    document
        Document or array at which the path starts.

    Returns
    -------
    list
        Values (an array at the end as one value), and `MISSING` wherever a sub-document lacks the next name.
    """
    return [value for value, _ in reached(path, document)]


def spread(path: str, document: Any) -> Iterator[Any]:
    """Yield the values that a condition on a path is tried on: of an array its elements, then the array itself."""
    for value, numbered in reached(path, document):
        if isinstance(value, list) and not numbered:
            yield from value
        yield value


def reached(path: str, document: Any) -> Iterator[tuple[Any, bool]]:
    """Yield the values at a path, and whether each is a numbered element; an array that is one is not entered."""
    name, _, deeper = path.partition(".")
    if isinstance(document, dict):
        value = document.get(name, MISSING)
        if deeper and isinstance(value, (dict, list)):
            yield from reached(deeper, value)
        else:
            yield (MISSING if deeper else value), False
        return
    if name.isdigit() and int(name) < len(document):
        element = document[int(name)]
        if not deeper:
            yield element, True
        elif isinstance(element, (dict, list)):
            yield from reached(deeper, element)
    for element in document:
        if isinstance(element, dict):
            yield from reached(path, element)


def order_key(value: Any) -> tuple[Any, ...]:
    """Return a key that sorts as MongoDB sorts values; equal values have equal keys."""
    if value is None or value is MISSING:
        return (NULL,)
    if isinstance(value, bool):
        return BOOLEAN, value
    if isinstance(value, (int, float)):
        return (NAN,) if math.isnan(value) else (NUMBER, value)
    if isinstance(value, str):
        return STRING, value
    if isinstance(value, datetime):
        return DATE, milliseconds(value)
    if isinstance(value, dict):
        parts = ((order_key(item)[0], name, order_key(item)) for name, item in value.items())
        return DOCUMENT, tuple(parts)
    if isinstance(value, list):
        return ARRAY, tuple(order_key(item) for item in value)
    if isinstance(value, bytes):
        return BYTES, len(value), value
    if isinstance(value, bson.ObjectId):
        return OBJECT_ID, value.binary
    return REGEX, repr(value)


def sort_key(path: str, document: Any, *, descending: bool) -> tuple[Any, ...]:
    """Return the sort key of a document: that of an array is its least element, or the greatest if descending."""
    keys = []
    for value in values_at(path, document) or [MISSING]:
        elements = value if isinstance(value, list) else [value]
        keys += [order_key(element) for element in elements] or [(EMPTY,)]
    return max(keys) if descending else min(keys)


def milliseconds(value: datetime) -> int:
    """Return the time since 1970 in milliseconds, BSON's resolution; a time without a zone is UTC."""
    aware = value if value.tzinfo else value.replace(tzinfo=UTC)
    return (aware - _EPOCH) // timedelta(milliseconds=1)


def is_condition(search: Any) -> bool:
    """Return whether the search value of a field is a document of operators."""
    return isinstance(search, dict) and bool(search) and next(iter(search)).startswith("$")


def _meets(field: str, search: Any, document: Any) -> bool:
    if field in {"$and", "$or", "$nor"}:
        if not isinstance(search, list) or not search:
            raise StoreError(f"{field} needs a list of filters, not {search!r}")
        results = (matches(part, document) for part in search)
        return all(results) if field == "$and" else any(results) == (field == "$or")
    if field == "$comment":
        return True
    if field == "$expr":
        return bool(filter_applies({"$expr": search}, document))
    if field.startswith("$"):
        raise StoreError(f"the embedded store has no filter operator {field}; use a MongoStore")
    if is_condition(search):
        return _meets_all(search, lambda operator, value: _operator(operator, value, search, field, document))
    return any(_equal(value, search) for value in spread(field, document))


def _meets_all(conditions: Mapping[str, Any], ask: Any) -> bool:
    return all(ask(operator, value) for operator, value in conditions.items() if operator != "$options")


def _operator(operator: str, value: Any, search: Mapping[str, Any], field: str, document: Any) -> bool:
    """Return whether a field meets one operator."""
    match operator:
        case "$ne" | "$nin":
            return not _operator("$eq" if operator == "$ne" else "$in", value, search, field, document)
        case "$not":
            return not _meets(field, value, document)
        case "$exists":
            return any(v is not MISSING for v in values_at(field, document)) == bool(value)
        case "$size":
            return any(isinstance(v, list) and len(v) == value for v in values_at(field, document))
        case "$elemMatch":
            return any(isinstance(v, list) and _any_element(v, value) for v in values_at(field, document))
        case "$all":
            parts = [v if isinstance(v, dict) and "$elemMatch" in v else {"$in": [v]} for v in value]
            return bool(parts) and all(_meets(field, part, document) for part in parts)
        case _:
            return any(_holds(operator, value, search, v) for v in spread(field, document))


def _any_element(elements: list[Any], query: Mapping[str, Any]) -> bool:
    """Return whether one element meets all conditions of ``$elemMatch``."""
    if is_condition(query) and next(iter(query)) not in {"$and", "$or", "$nor"}:
        return any(_meets_all(query, lambda name, v, e=element: _element(name, v, query, e)) for element in elements)
    objects = [dict(zip(map(str, range(len(e))), e, strict=True)) if isinstance(e, list) else e for e in elements]
    return any(isinstance(element, dict) and matches(query, element) for element in objects)


def _element(operator: str, value: Any, search: Mapping[str, Any], element: Any) -> bool:
    """Return whether an array element meets one operator; an element that is an array is not entered."""
    if operator in {"$ne", "$nin"}:
        return not _element("$eq" if operator == "$ne" else "$in", value, search, element)
    if operator == "$not":
        inner = value if is_condition(value) else {"$in": [value]}
        return not _meets_all(inner, lambda name, v: _element(name, v, inner, element))
    if operator in {"$exists", "$size", "$elemMatch", "$all"}:
        return _operator(operator, value, search, "0", {"0": element})
    return _holds(operator, value, search, element)


def _holds(operator: str, value: Any, search: Mapping[str, Any], held: Any) -> bool:
    """Return whether one value meets one operator."""
    match operator:
        case "$eq":
            return order_key(held) == order_key(value)
        case "$in":
            return (type(held) is str and held in value) or any(_equal(held, v) for v in value)  # fast for lists of ids
        case "$gt" | "$gte" | "$lt" | "$lte":
            return _compares(operator, order_key(held), order_key(value))
        case "$regex":
            return isinstance(held, str) and bool(_pattern(value, search.get("$options", "")).search(held))
        case "$type":
            return held is not MISSING and any(
                _is_type(held, v) for v in (value if isinstance(value, list) else [value])
            )
        case "$mod":
            divisor, remainder = value
            return order_key(held)[0] == NUMBER and math.isfinite(held) and math.fmod(int(held), divisor) == remainder
        case _:
            raise StoreError(f"the embedded store has no filter operator {operator}; use a MongoStore")


def _equal(held: Any, value: Any) -> bool:
    """Return whether two values are equal, or a pattern matches."""
    if isinstance(value, bson.Regex):
        return isinstance(held, str) and bool(_pattern(value, "").search(held))
    return order_key(held) == order_key(value)


def _compares(operator: str, held: tuple[Any, ...], value: tuple[Any, ...]) -> bool:
    if held[0] != value[0]:
        return False
    if held == value:
        return operator in {"$gte", "$lte"}
    return (held > value) == (operator in {"$gt", "$gte"})


def _pattern(value: Any, options: str) -> re.Pattern[str]:
    flags = value.flags if isinstance(value, bson.Regex) else 0
    for letter in options:
        flags |= _FLAGS[letter]
    try:
        return re.compile(value.pattern if isinstance(value, bson.Regex) else value, flags)
    except re.error as error:
        raise StoreError(f"not a regular expression: {value!r}: {error}") from error


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_type(held: Any, name: Any) -> bool:
    tests = [test for alias, (code, test) in _TYPES.items() if name in {alias, code}]
    if not tests:
        raise StoreError(f"no BSON type {name!r}")
    return bool(tests[0](held))
