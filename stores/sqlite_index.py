"""Indexes of the embedded store: what of a document is entered, and how it is found again.

An entry is a pair ``(rank, value)``. The rank is the BSON type's place in MongoDB's sort order [1]_, so that entries
sort as MongoDB sorts values of different types, and a comparison never crosses types.

.. [1] https://www.mongodb.com/docs/manual/reference/bson-type-comparison-order/
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import bson

from matris.errors import StoreError
from matris.stores.sqlite_match import (
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
    reached,
    values_at,
)

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable

type Entry = tuple[int, Any]

OTHER = 20
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - documents hold naive UTC, as MongoDB returns them


class Index(NamedTuple):
    """An index of a collection; `sorts` is true as long as every document has one plain value in it."""

    id: int
    fields: tuple[str, ...]
    is_unique: bool
    sorts: bool


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
    """One entry for the values of several fields; equal numbers are equal whatever their type."""
    exact = [(r, int(v) if isinstance(v, float) and v.is_integer() else v) for r, v in parts]
    return EMPTY, json.dumps(exact, default=bytes.hex)


def entries(document: dict[str, Any], fields: tuple[str, ...]) -> tuple[set[Entry], bool]:
    """Entries of a document in the index on `fields`, and whether it has one plain value there.

    An array has one entry per element. A compound index has one, or none where an array or sub-document takes part.
    """
    if len(fields) > 1:
        held = [values_at(field, document) for field in fields]
        parts = [entry(values[0]) if len(values) == 1 else (OTHER, 0) for values in held]
        return (set() if any(rank == OTHER for rank, _ in parts) else {compound(parts)}), False
    candidates = values_at(fields[0], document)
    single = len(candidates) == 1 and not isinstance(candidates[0], list) and entry(candidates[0]) != (OTHER, 0)
    places = reached(fields[0], document)
    found = {entry(v) for held, whole in places for v in (held if isinstance(held, list) and not whole else [held])}
    return found or {(EMPTY, 0)}, single


def indexes_of(db: sqlite3.Connection, collection: str) -> list[Index]:
    """Read the indexes of a collection."""
    rows = db.execute("SELECT id, fields, is_unique, sorts FROM indexes WHERE collection = ?", [collection])
    return [Index(number, tuple(fields.split("\n")), bool(u), bool(s)) for number, fields, u, s in rows]


def make_index(db: sqlite3.Connection, collection: str, fields: tuple[str, ...], *, unique: bool) -> None:
    """Make an index, or make one unique, inside a transaction.

    Raises
    ------
    StoreError
        If the index is to be unique and documents have the same value.
    """
    where = [collection, "\n".join(fields)]
    old = "SELECT id FROM indexes WHERE (collection, fields) = (?, ?)"
    db.execute(f"DELETE FROM entries WHERE index_id = ({old})", where)  # noqa: S608 - a constant
    db.execute("DELETE FROM indexes WHERE (collection, fields) = (?, ?)", where)
    sql = "INSERT INTO indexes (collection, fields, is_unique, sorts) VALUES (?, ?, ?, 1)"
    index = Index(db.execute(sql, [*where, unique]).lastrowid or 0, fields, unique, sorts=True)
    for (rid,) in db.execute("SELECT rid FROM documents WHERE collection = ?", [collection]).fetchall():
        (blob,) = db.execute("SELECT document FROM documents WHERE rid = ?", [rid]).fetchone()
        enter(db, index, rid, bson.decode(blob))


def enter(
    db: sqlite3.Connection, index: Index, rid: int, document: dict[str, Any], held: frozenset[Entry] = frozenset()
) -> None:
    """Enter a document into an index, where it has the entries `held` so far.

    Raises
    ------
    StoreError
        If the index is unique and another document has the value.
    """
    found, single = entries(document, index.fields)
    added = found - held
    if index.is_unique:
        sql = "SELECT 1 FROM entries WHERE index_id = ? AND rank = ? AND value = ? AND rid != ?"
        if any(rank != OTHER and db.execute(sql, [index.id, rank, value, rid]).fetchone() for rank, value in added):
            values = {field: v for field in index.fields for v in values_at(field, document) if v is not MISSING}
            raise StoreError(
                f"two documents have {values}, which must be unique; give them the same key, or remove one"
            )
    sql = "DELETE FROM entries WHERE index_id = ? AND rank = ? AND value = ? AND rid = ?"
    db.executemany(sql, [(index.id, rank, value, rid) for rank, value in held - found])
    sql = "INSERT INTO entries (index_id, rank, value, rid) VALUES (?, ?, ?, ?)"
    db.executemany(sql, [(index.id, rank, value, rid) for rank, value in added])
    if index.sorts and not single:
        db.execute("UPDATE indexes SET sorts = 0 WHERE id = ?", [index.id])


def held_by(db: sqlite3.Connection, rid: int) -> dict[int, frozenset[Entry]]:
    """Read a document's entries, by index."""
    held: dict[int, set[Entry]] = {}
    for number, rank, value in db.execute("SELECT index_id, rank, value FROM entries WHERE rid = ?", [rid]):
        held.setdefault(number, set()).add((rank, value))
    return {number: frozenset(found) for number, found in held.items()}
