"""Indexes of the embedded store: what of a document is entered, and how it is found again.

An entry is a pair ``(rank, value)``. The rank is the BSON type's place in MongoDB's sort order [1]_, so that entries
sort as MongoDB sorts values of different types, and a comparison never crosses types.

.. [1] https://www.mongodb.com/docs/manual/reference/bson-type-comparison-order/
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import bson
from mongomock_ng.filtering import NOTHING, iter_key_candidates, resolve_key  # type: ignore[attr-defined]

from matris.errors import StoreError

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable

type Entry = tuple[int, Any]

EMPTY, NULL, NAN, NUMBER, STRING, OTHER, OBJECT_ID, BOOLEAN, DATE = 0, 5, 9, 10, 15, 20, 35, 40, 45
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Index(NamedTuple):
    """An index of a collection; `sorts` is true as long as every document has one plain value in it."""

    id: int
    fields: tuple[str, ...]
    is_unique: bool
    sorts: bool


def entry(value: Any) -> Entry:
    """Rank and SQLite value of one value; ``OTHER`` for what only the document itself can answer for."""
    if value is None or value is NOTHING:
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
        aware = value if value.tzinfo else value.replace(tzinfo=UTC)
        return DATE, (aware - _EPOCH) // timedelta(milliseconds=1)  # BSON's resolution
    return OTHER, 0


def compound(parts: Iterable[Entry]) -> Entry:
    """One entry for the values of several fields; equal numbers are equal whatever their type."""
    exact = [(r, int(v) if isinstance(v, float) and v.is_integer() else v) for r, v in parts]
    return EMPTY, json.dumps(exact, default=bytes.hex)


def entries(document: dict[str, Any], fields: tuple[str, ...]) -> tuple[set[Entry], bool]:
    """Entries of a document in the index on `fields`, and whether it has one plain value there.

    An array has one entry per element. A compound index has one, or none where an array or sub-document takes part.
    """
    if len(fields) > 1:
        parts = [entry(resolve_key(field, document)) for field in fields]  # type: ignore[no-untyped-call]
        return (set() if any(rank == OTHER for rank, _ in parts) else {compound(parts)}), False
    candidates = iter_key_candidates(fields[0], document)  # type: ignore[no-untyped-call]
    found = {entry(v) for held in candidates for v in (held if isinstance(held, list) else [held])}
    single = len(candidates) == 1 and not isinstance(candidates[0], list) and (OTHER, 0) not in found
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


def enter(db: sqlite3.Connection, index: Index, rid: int, document: dict[str, Any]) -> None:
    """Enter a document into an index.

    Raises
    ------
    StoreError
        If the index is unique and another document has the value.
    """
    found, single = entries(document, index.fields)
    if index.is_unique:
        sql = "SELECT 1 FROM entries WHERE index_id = ? AND rank = ? AND value = ? AND rid != ?"
        if any(rank != OTHER and db.execute(sql, [index.id, rank, value, rid]).fetchone() for rank, value in found):
            values = {field: resolve_key(field, document) for field in index.fields}  # type: ignore[no-untyped-call]
            raise StoreError(
                f"two documents have {values}, which must be unique; give them the same key, or remove one"
            )
    rows = [(index.id, rank, value, rid) for rank, value in found]
    db.executemany("INSERT INTO entries (index_id, rank, value, rid) VALUES (?, ?, ?, ?)", rows)
    if index.sorts and not single:
        db.execute("UPDATE indexes SET sorts = 0 WHERE id = ?", [index.id])
