"""Entries: what of a value stands in an index of the embedded store.

An entry is a pair ``(rank, value)``. The rank is the BSON type's place in MongoDB's sort order [1]_, so that entries
sort as MongoDB sorts values of different types, and a comparison never crosses types.

The values of several fields have one entry together, of bytes that sort as the tuples of values do. Each value gives
its rank in a byte, then bytes that compare as the values of that rank do and that no other value's begin with; so all
documents with the same first values, and a range of the next, stand side by side.

.. [1] https://www.mongodb.com/docs/manual/reference/bson-type-comparison-order/
"""

from __future__ import annotations

import struct
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import bson

from matris.stores.database.sqlite.filters import (
    BOOLEAN,
    DATE,
    EMPTY,
    MISSING,
    NAN,
    NULL,
    NUMBER,
    OBJECT_ID,
    STRING,
    milliseconds,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

type Entry = tuple[int, Any]

OTHER = 20
"""Rank of what has no entry of its own: sub-documents, arrays, bytes."""

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - documents hold naive UTC, as MongoDB returns them
_SIGN = 1 << 63


def entry(value: Any) -> Entry:
    """Rank and SQLite value of one value; ``OTHER`` for what only the document itself can answer for."""
    if value is None or value is MISSING:
        return NULL, 0
    if isinstance(value, bool):
        return BOOLEAN, int(value)
    if isinstance(value, (int, float)):
        return (NUMBER, value) if value == value else (NAN, 0)  # noqa: PLR0124 - only NaN differs from itself
    if isinstance(value, str) and "\0" not in value:
        return STRING, value
    if isinstance(value, bson.ObjectId):
        return OBJECT_ID, value.binary
    if isinstance(value, datetime):
        return DATE, milliseconds(value)
    return OTHER, 0


def value_of(rank: int, value: Any) -> Any:
    """Value whose entry this is; not for ``NULL``, ``EMPTY`` and ``OTHER``, which stand for several."""
    if rank == DATE:
        return _EPOCH + timedelta(milliseconds=value)
    if rank == OBJECT_ID:
        return bson.ObjectId(value)
    if rank == NAN:
        return float("nan")
    return bool(value) if rank == BOOLEAN else value


def compound(parts: Iterable[Entry]) -> Entry:
    """Entry for the values of several fields; equal numbers are equal whatever their type."""
    return EMPTY, b"".join(map(key, parts))


def key(part: Entry) -> bytes:
    """Bytes of one value among several."""
    rank, value = part
    return bytes([rank]) + _bytes(rank, value)


def _bytes(rank: int, value: Any) -> bytes:
    if rank == NUMBER:
        return _number(value)
    if rank == STRING:
        return str(value).encode(errors="surrogatepass") + b"\0"  # no string in an index has a NUL
    if rank == DATE:
        return struct.pack(">Q", value + _SIGN)
    if rank == OBJECT_ID:
        return bytes(value)
    return bytes([value]) if rank == BOOLEAN else b""


def _number(value: float) -> bytes:
    """Bits of the nearest double, turned so that they sort, then what an integer differs from it by."""
    if isinstance(value, int):
        value = max(-_SIGN, min(value, _SIGN))  # BSON refuses what lies beyond
    near = float(value)
    (bits,) = struct.unpack(">Q", struct.pack(">d", near + 0.0))
    bits = bits ^ (2 * _SIGN - 1) if bits & _SIGN else bits | _SIGN
    rest = value - int(near) if isinstance(value, int) else 0
    return struct.pack(">QH", bits, rest + 2**15)
