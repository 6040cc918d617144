"""Tables of one collection: a column per indexed field, and SQLite's own indexes on these columns.

The table ``documents`` holds the documents in BSON. A column holds a field's value in a form that SQLite sorts as
MongoDB sorts BSON types [1]_: NULL for null and missing fields, numbers, text, and for any other type a blob whose
first byte is the rank of the type. A field whose value is an array, a sub-document, bytes or NaN is *irregular*: its
column holds a marker, and the table of elements has a row for each value that a filter on the field is tried on.

.. [1] https://www.mongodb.com/docs/manual/reference/bson-type-comparison-order/
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import bson

from matris.errors import StoreError
from matris.stores.database.sqlite.filters import (
    BOOLEAN,
    DATE,
    EMPTY,
    MISSING,
    NULL,
    OBJECT_ID,
    milliseconds,
    reached,
    values_at,
)

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

type Document = dict[str, Any]
type Value = float | str | bytes | None

OTHER = b"\xff"
"""Stands for any value that only the document itself can answer for; SQLite sorts it after all other values."""
NULL_ELEMENT = bytes([NULL])
EMPTY_ARRAY = bytes([EMPTY])

_FIELDS = " fields"
_ELEMENTS = " elements"
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - documents hold naive UTC, as MongoDB returns them
_SIGN = 1 << 63


def encoded(value: Any) -> Value:
    """Encode a value of a document or filter for a column."""
    if value is None or value is MISSING:
        return None
    if isinstance(value, bool):
        return bytes([BOOLEAN, value])
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        return int(value)  # without BSON's own type
    if isinstance(value, float):
        return value if value == value else OTHER  # noqa: PLR0124 - only NaN differs from itself
    if isinstance(value, datetime):
        return bytes([DATE]) + (milliseconds(value) + _SIGN).to_bytes(8)
    if isinstance(value, bson.ObjectId):
        return bytes([OBJECT_ID]) + value.binary
    return OTHER


def decoded(value: Value) -> Any:
    """Decode a value of a column or element; not for `OTHER` and `EMPTY_ARRAY`, which stand for several values."""
    if not isinstance(value, bytes) or value == NULL_ELEMENT:
        return None if isinstance(value, bytes) else value
    if value[0] == BOOLEAN:
        return bool(value[1])
    if value[0] == DATE:
        return _EPOCH + timedelta(milliseconds=int.from_bytes(value[1:]) - _SIGN)
    return bson.ObjectId(value[1:])


@lru_cache(1000)
def quoted(name: str) -> str:
    """Quote a name for SQL; a ``^`` marks each capital, as SQLite's names ignore case and MongoDB's do not."""
    return '"' + _escaped(name).replace('"', '""') + '"'


class Index(NamedTuple):
    """An index of a collection."""

    fields: tuple[str, ...]
    is_unique: bool


class Layout(NamedTuple):
    """Columns and indexes of a collection; both are empty if it does not exist."""

    exists: bool
    fields: tuple[str, ...]
    indexes: tuple[Index, ...]


def read_layout(db: sqlite3.Connection, name: str) -> Layout:
    """Read the columns and indexes of a collection from SQLite's schema."""
    table = _escaped(name) + _FIELDS
    columns = [_unescaped(column) for (column,) in db.execute("SELECT name FROM pragma_table_info(?)", [table])]
    sql = (
        'SELECT lists.name, lists."unique", columns.name FROM pragma_index_list(?) AS lists, '
        "pragma_index_info(lists.name) AS columns ORDER BY lists.seq DESC, columns.seqno"
    )
    indexes: dict[str, Index] = {}
    for index, unique, column in db.execute(sql, [table]):
        before = indexes.get(index, Index((), bool(unique)))
        indexes[index] = before._replace(fields=(*before.fields, _unescaped(column)))
    return Layout(bool(columns), tuple(columns[1:]), tuple(indexes.values()))


class Collection:
    """
    Documents of a collection, within one transaction.

    Parameters
    ----------
    db
        Connection that the transaction belongs to.
    name
        Name of the collection.
    layout
        Columns and indexes if they are known; by default they are read.
    """

    def __init__(self, db: sqlite3.Connection, name: str, layout: Layout | None = None) -> None:
        self.db = db
        self.name = name
        self.table = quoted(name + _FIELDS)
        self.elements = quoted(name + _ELEMENTS)
        self.layout = layout or read_layout(db, name)
        self._irregular: dict[str, bool] = {}

    def is_irregular(self, field: str) -> bool:
        """Return whether an indexed field is irregular in any document, so that its column does not sort."""
        if field not in self._irregular:
            sql = f"SELECT 1 FROM {self.elements} WHERE field = ? LIMIT 1"  # noqa: S608 - names are quoted
            self._irregular[field] = self.db.execute(sql, [field]).fetchone() is not None
        return self._irregular[field]

    def find(self, fields: Sequence[str], values: Sequence[Value]) -> int | None:
        """Return the number of a document with these encoded values, or None."""
        row = self.db.execute(f"SELECT _id FROM {self.table} WHERE {_same(fields)} LIMIT 1", values).fetchone()  # noqa: S608
        return row and row[0]

    def read(self, number: int) -> Document:
        """Read the document with a number."""
        (blob,) = self.db.execute("SELECT document FROM documents WHERE _id = ?", [number]).fetchone()
        document: Document = bson.decode(blob)
        return document

    def insert(self, document: Document, blob: bytes) -> None:
        """Store a new document, `blob` in BSON.

        Raises
        ------
        StoreError
            If the document breaks a unique index.
        """
        number = self.db.execute("INSERT INTO documents (document) VALUES (?)", [blob]).lastrowid or 0
        row, elements = self._columns(number, document)
        names = ", ".join(["_id", *map(quoted, row)])
        marks = ", ".join("?" * (len(row) + 1))
        self.db.execute(f"INSERT INTO {self.table} ({names}) VALUES ({marks})", [number, *row.values()])  # noqa: S608
        self._add_elements(number, elements)

    def replace(self, number: int, document: Document, blob: bytes) -> None:
        """Store a document, `blob` in BSON, in place of the one with a number.

        Raises
        ------
        StoreError
            If the document breaks a unique index.
        """
        self.db.execute("UPDATE documents SET document = ? WHERE _id = ?", [blob, number])
        self._fill(number, document)

    def remove(self, numbers: Sequence[int]) -> None:
        """Remove the documents with these numbers."""
        for table in (self.elements, self.table, "documents"):
            self.db.executemany(f"DELETE FROM {table} WHERE _id = ?", [(number,) for number in numbers])  # noqa: S608

    def ensure_index(self, fields: tuple[str, ...], *, unique: bool = False) -> None:
        """Create an index on one field or several, unless it exists; make an existing one unique if `unique` is true.

        Raises
        ------
        StoreError, sqlite3.IntegrityError
            If the index is to be unique and documents have the same values.
        """
        if any(index.fields == fields and index.is_unique >= unique for index in self.layout.indexes):
            return
        if not self.layout.exists:
            self._create()
        new = [field for field in fields if field not in self.layout.fields]
        for field in new:
            self.db.execute(f"ALTER TABLE {self.table} ADD COLUMN {quoted(field)}")
        name = quoted(f"{self.name} by {', '.join(fields)}")
        self.db.execute(f"DROP INDEX IF EXISTS {name}")
        kind = "UNIQUE INDEX" if unique else "INDEX"
        self.db.execute(f"CREATE {kind} {name} ON {self.table} ({', '.join(map(quoted, fields))})")
        self.layout = read_layout(self.db, self.name)
        if new or unique:
            for (number,) in self.db.execute(f"SELECT _id FROM {self.table}").fetchall():  # noqa: S608
                self._fill(number, self.read(number))

    def _create(self) -> None:
        self.db.execute(f"CREATE TABLE {self.table} (_id INTEGER PRIMARY KEY)")
        columns = "_id INTEGER NOT NULL, field TEXT NOT NULL, value NOT NULL, PRIMARY KEY (_id, field, value)"
        self.db.execute(f"CREATE TABLE {self.elements} ({columns}) WITHOUT ROWID")
        self.db.execute(f"CREATE INDEX {quoted(self.name + _ELEMENTS + ' index')} ON {self.elements} (field, value)")

    def _fill(self, number: int, document: Document) -> None:
        """Write the changed columns and elements of a document."""
        row, elements = self._columns(number, document)
        names = ", ".join(["_id", *map(quoted, row)])
        old = self.db.execute(f"SELECT {names} FROM {self.table} WHERE _id = ?", [number]).fetchone()[1:]  # noqa: S608
        changed = {f: v for (f, v), o in zip(row.items(), old, strict=True) if (type(v), v) != (type(o), o)}
        if changed:  # SQLite leaves the indexes on all other columns alone
            values = ", ".join(f"{quoted(field)} = ?" for field in changed)
            self.db.execute(f"UPDATE {self.table} SET {values} WHERE _id = ?", [*changed.values(), number])  # noqa: S608
        if elements or any(map(_is_marker, old)):
            self.db.execute(f"DELETE FROM {self.elements} WHERE _id = ?", [number])  # noqa: S608
            self._add_elements(number, elements)

    def _columns(self, number: int, document: Document) -> tuple[dict[str, Value], set[tuple[str, Value]]]:
        """Return columns by field, and fields and values of elements; refuse a document that breaks a unique index."""
        row: dict[str, Value] = {}
        elements: set[tuple[str, Value]] = set()
        for field in self.layout.fields:
            places = list(reached(field, document))
            row[field] = encoded(places[0][0]) if len(places) == 1 else OTHER
            if row[field] is OTHER:
                row[field] = OTHER + number.to_bytes(8)
                tried = [v for value, whole in places for v in (value if _has_elements(value, whole) else [value])]
                elements |= {(field, element(encoded(v))) for v in tried} or {(field, EMPTY_ARRAY)}
        for index in self.layout.indexes:
            if index.is_unique:
                self._check_unique(index.fields, number, row, elements, document)
        return row, elements

    def _check_unique(
        self, fields: Sequence[str], number: int, row: Document, elements: set[tuple[str, Value]], document: Document
    ) -> None:
        """Refuse a document if another has the same values; null counts as a value, and so does each array element."""
        keys: list[list[Value]] = [[row[field] for field in fields]]
        sql = f"SELECT _id FROM {self.table} WHERE {_same(fields)}"  # noqa: S608 - names are quoted
        if len(fields) == 1:
            sql += f" UNION ALL SELECT _id FROM {self.elements} WHERE field = ? AND value = ?"  # noqa: S608
            own = [value for field, value in elements if field == fields[0] and value != OTHER] or keys[0]
            keys = [[None if v == NULL_ELEMENT else v, fields[0], element(v)] for v in own]
        if any(holder != number for key in keys for (holder,) in self.db.execute(sql, key)):
            values = {field: v for field in fields for v in values_at(field, document) if v is not MISSING}
            raise StoreError(
                f"two documents have {values}, which must be unique; give them the same key, or remove one"
            )

    def _add_elements(self, number: int, elements: set[tuple[str, Value]]) -> None:
        self._irregular |= {field: True for field, _ in elements}
        sql = f"INSERT INTO {self.elements} (_id, field, value) VALUES (?, ?, ?)"  # noqa: S608 - names are quoted
        self.db.executemany(sql, [(number, *each) for each in elements])


def element(value: Value) -> Value:
    """Encode a column's value for the table of elements, which has no NULL."""
    return NULL_ELEMENT if value is None else value


def _has_elements(value: Any, is_numbered: bool) -> bool:
    """Return whether filters try the elements of a value; they do not enter an array that is itself an element."""
    return isinstance(value, list) and not is_numbered


def _is_marker(value: Value) -> bool:
    return isinstance(value, bytes) and value >= OTHER


def _same(fields: Sequence[str]) -> str:
    return " AND ".join(f"{quoted(field)} IS ?" for field in fields)


def _escaped(name: str) -> str:
    return re.sub(r"[A-Z^]", r"^\g<0>", name)


def _unescaped(name: str) -> str:
    return re.sub(r"\^(.)", r"\1", name)
