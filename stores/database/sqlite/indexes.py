"""Indexes of the embedded store: what of a document is entered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import bson

from matris.errors import StoreError
from matris.stores.database.sqlite.entries import OTHER, Entry, compound, entry
from matris.stores.database.sqlite.filters import (
    EMPTY,
    MISSING,
    reached,
    values_at,
)

if TYPE_CHECKING:
    import sqlite3


class Index(NamedTuple):
    """An index of a collection; `sorts` is true as long as every document has one plain value of each of its fields."""

    id: int
    fields: tuple[str, ...]
    is_unique: bool
    sorts: bool


def entries(document: dict[str, Any], fields: tuple[str, ...]) -> tuple[set[Entry], bool]:
    """Entries of a document in the index on `fields`, and whether it has one plain value there.

    An array has one entry per element. A compound index has one, or none where an array or sub-document takes part.
    """
    if len(fields) > 1:
        held = [values_at(field, document) for field in fields]
        parts = [entry(values[0]) if len(values) == 1 else (OTHER, 0) for values in held]
        single = all(rank != OTHER for rank, _ in parts)
        return ({compound(parts)} if single else set()), single
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
