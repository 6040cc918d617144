"""The part of an index on several fields that a filter asks for: the first have one value, the next is in a range."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from matris.stores.database.sqlite.entries import OTHER, Entry, key
from matris.stores.database.sqlite.filters import DATE, NAN, NULL, NUMBER, OBJECT_ID, STRING

if TYPE_CHECKING:
    from collections.abc import Sequence

_COMPARED = {NUMBER, STRING, OBJECT_ID, DATE}


class Condition(NamedTuple):
    """One operator on one field, and the entry of its value."""

    field: str
    operator: str
    entry: Entry


class Window(NamedTuple):
    """Keys from `low` to below `high`; `used` numbers the conditions they meet, `depth` fields have one value."""

    low: bytes
    high: bytes
    used: frozenset[int]
    depth: int


def window(fields: Sequence[str], conditions: Sequence[Condition]) -> Window:
    """
    Find the part of an index that conditions leave.

    Parameters
    ----------
    fields
        Of the index, in which every document has one plain value of each.
    conditions
        That all hold.
    """
    used = []
    for field in fields:
        found = next((i for i, c in enumerate(conditions) if c.field == field and _fixes(c)), None)
        if found is None:
            break
        used.append(found)
    depth = len(used)
    start = b"".join(key(conditions[i].entry) for i in used)
    low, high = start, _after(start)
    for i, condition in enumerate(conditions):
        if depth < len(fields) and condition.field == fields[depth] and (bounds := _bounds(start, condition)):
            low, high = max(low, bounds[0]), min(high, bounds[1])
            used.append(i)
    return Window(low, high, frozenset(used), depth)


def _fixes(condition: Condition) -> bool:
    return condition.operator == "$eq" and condition.entry[0] not in {NAN, OTHER}


def _bounds(start: bytes, condition: Condition) -> tuple[bytes, bytes] | None:
    """First key that meets a condition on the field after `start`, and first that does so no more."""
    rank, _ = condition.entry
    if condition.operator == "$ne" and rank == NULL:
        return start + bytes([NULL + 1]), _after(start)
    if rank not in _COMPARED:
        return None
    kind, value = start + bytes([rank]), start + key(condition.entry)
    match condition.operator:
        case "$gt":
            return _after(value), _after(kind)
        case "$gte":
            return value, _after(kind)
        case "$lt":
            return kind, value
        case "$lte":
            return kind, _after(value)
    return None


def _after(start: bytes) -> bytes:
    """First key after all that begin with `start`."""
    kept = start.rstrip(b"\xff") or b"\xfe"
    return kept[:-1] + bytes([kept[-1] + 1])
