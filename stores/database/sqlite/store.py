"""A maggma store in one SQLite file: what keeps results where no database server runs."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bson
from bson.errors import InvalidDocument
from maggma.core import DateTimeFormat, Sort, Store
from maggma.core.validator import Validator  # noqa: TC002 - monty reads the signature
from mongomock_ng.aggregate import process_pipeline
from monty.json import jsanitize
from pydash import get, has, set_
from pymongo.errors import PyMongoError

from matris.errors import StoreError
from matris.stores.database.sqlite.entries import OTHER, Entry, compound, entry, value_of
from matris.stores.database.sqlite.file import SQLiteFile, Version, version
from matris.stores.database.sqlite.filters import EMPTY, MISSING, NULL, matches, order_key, sort_key, values_at
from matris.stores.database.sqlite.indexes import (
    Index,
    enter,
    held_by,
    indexes_of,
    make_index,
)
from matris.stores.database.sqlite.planner import Selection, direction, project, select, with_fields

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Iterator, Mapping, Sequence

type Document = dict[str, Any]

_OTHER_COLLECTIONS = {"$graphLookup", "$lookup", "$merge", "$out", "$unionWith"}


class SQLiteStore(Store):  # type: ignore[misc]
    """A collection of documents in a SQLite file that threads and processes of one machine may share.

    Each update is one transaction, on disk when the call returns. Criteria follow MongoDB: the indexes answer equality,
    ``$in`` and comparisons on indexed fields, the documents the rest. ``_id`` is a document's number in the file.
    A file on a network file system is refused, see `matris.stores.database.sqlite.disk`.

    Parameters
    ----------
    path
        The file; made on first use. A relative path is resolved once, here, as jobs change their folder.
    collection_name
        A file holds any number of collections.
    key, last_updated_field, last_updated_type, validator
        As for every maggma store.
    """

    def __init__(
        self,
        path: str | Path,
        collection_name: str,
        key: str = "task_id",
        last_updated_field: str = "last_updated",
        last_updated_type: DateTimeFormat | str = DateTimeFormat.DateTime,
        validator: Validator | None = None,
    ) -> None:
        self.path = str(Path(path).expanduser().absolute())
        self.collection_name = collection_name
        self._file = SQLiteFile(self.path)
        super().__init__(key, last_updated_field, DateTimeFormat(last_updated_type), validator)

    @property
    def name(self) -> str:
        """Where the documents are."""
        return f"sqlite://{self.path}/{self.collection_name}"

    @property
    def _collection(self) -> Any:
        raise StoreError(f"{self.name} has no MongoDB collection behind it; use the store's own methods")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SQLiteStore) and self.name == other.name

    def __hash__(self) -> int:
        return hash(self.name)

    def connect(self, force_reset: bool = False) -> None:
        """Open the file, see :meth:`SQLiteFile.connect`."""
        if force_reset:
            self.close()
        self._file.connect()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def query(
        self,
        criteria: Document | None = None,
        properties: Document | list[str] | None = None,
        sort: dict[str, Sort | int] | None = None,
        skip: int = 0,
        limit: int = 0,
    ) -> Iterator[Document]:
        """Yield the documents that match, read one at a time; parameters as in maggma."""
        for document in self._matches(criteria, sort, skip, limit):
            yield project(document, properties) if properties else document

    def count(self, criteria: Document | None = None) -> int:
        """Count the documents that match `criteria`."""
        chosen = self._select(criteria)
        if not chosen.exact:
            return sum(1 for _ in self._matches(criteria))
        with self._file.reading() as db:
            total: int = db.execute(f"SELECT count(*) FROM ({chosen.sql})", chosen.parameters).fetchone()[0]  # noqa: S608
            return total

    def distinct(self, field: str, criteria: Document | None = None, all_exist: bool = False) -> list[Any]:  # noqa: ARG002
        """Collect the different values of a field, an array's elements one by one."""
        if (known := self._distinct_entries(field, criteria)) is not None:
            return known
        values: dict[Any, Any] = {}
        for document in self._matches(criteria):
            for held in values_at(field, document):
                for value in held if isinstance(held, list) else [held]:
                    if value is not MISSING:
                        values.setdefault(order_key(value), value)
        return list(values.values())

    def aggregate(self, pipeline: list[Document]) -> Iterator[Document]:
        """
        Run an aggregation pipeline over the collection.

        A ``$match`` at the start uses the indexes, later ones the same filters; mongomock does the other stages in
        memory, with the documents that are left, so match first.

        Parameters
        ----------
        pipeline
            Stages in MongoDB's language.

        Raises
        ------
        StoreError
            If a stage reads or writes another collection, is unknown to mongomock, or is wrong.
        """
        stages = [name for stage in pipeline for name in stage]
        if refused := _OTHER_COLLECTIONS.intersection(stages):
            raise StoreError(f"the embedded store has no {', '.join(sorted(refused))}; use a MongoStore for it")
        first = 1 if stages[:1] == ["$match"] else 0
        documents = list(self._matches(pipeline[0]["$match"] if first else None))
        for stage in pipeline[first:]:
            if list(stage) == ["$match"]:
                criteria = _as_read(stage["$match"])
                documents = [document for document in documents if matches(criteria, document)]
                continue
            try:
                documents = list(process_pipeline(documents, None, [stage], None))
            except (NotImplementedError, PyMongoError, LookupError, TypeError, ValueError) as error:
                raise StoreError(f"the embedded store cannot run the stage {stage}: {error}") from error
        yield from documents

    def groupby(
        self,
        keys: list[str] | str,
        criteria: Document | None = None,
        properties: Document | list[str] | None = None,
        sort: dict[str, Sort | int] | None = None,
        skip: int = 0,
        limit: int = 0,
    ) -> Iterator[tuple[Document, list[Document]]]:
        """Group the documents that have all `keys`: pairs of the values and the documents that have them."""
        keys = keys if isinstance(keys, list) else [keys]
        wanted = [*properties, *keys] if properties else None
        groups: dict[Any, tuple[Document, list[Document]]] = {}
        for document in self._matches(criteria, sort, skip, limit):
            if all(has(document, key) for key in keys):
                values = [get(document, key) for key in keys]
                group = groups.setdefault(order_key(values), ({}, []))
                for key, value in zip(keys, values, strict=True):
                    set_(group[0], key, value)
                group[1].append(project(document, wanted) if wanted else document)
        yield from groups.values()

    def update(self, docs: list[Document] | Document, key: list[str] | str | None = None) -> None:
        """Store documents; each replaces the one with the same value or values of `key`. All are stored, or none.

        Raises
        ------
        StoreError
            If a document has no key, breaks a unique index or cannot be written.
        """
        fields = _fields(key or self.key)
        ready = [(document, self._identity(document, fields)) for document in self._valid(docs)]
        with self._file.writing() as db:
            indexes = self._indexes(db, fields)
            for document, identity in ready:
                rid = self._held(db, indexes[fields], identity)
                if rid is None:
                    self._insert(db, indexes.values(), document)
                else:
                    _replace(db, indexes.values(), rid, document)

    def add_missing(self, docs: list[Document]) -> None:
        """Store the documents whose key no document has, see `matris.stores.database.atomic.add_missing`."""
        fields = _fields(self.key)
        ready = [(document, self._identity(document, fields)) for document in self._valid(docs)]
        with self._file.writing() as db:
            indexes = self._indexes(db, fields)
            for document, identity in ready:
                if self._held(db, indexes[fields], identity) is None:
                    self._insert(db, indexes.values(), document)

    def set_fields(self, changes: Mapping[Any, Document]) -> int:
        """Set fields of documents named by key, all or none, see `matris.stores.database.atomic.set_fields`."""
        key = _fields(self.key)
        ready = [(self._identity({self.key: value}, key), _plain(fields)) for value, fields in changes.items()]
        found = 0
        with self._file.writing() as db:
            indexes = self._indexes(db, key)
            for identity, fields in ready:
                rid = self._held(db, indexes[key], identity)
                if rid is not None:
                    _replace(db, indexes.values(), rid, with_fields(_read(db, rid), fields))
                    found += 1
        return found

    def set_if(self, criteria: Document, fields: Document) -> bool:
        """Set fields of a document that meets `criteria`, see `matris.stores.database.atomic.set_if`."""
        plain = _plain(fields)
        if not self.count(criteria):  # so that who comes late waits for nobody
            return False
        with self._file.writing() as db:
            found = next(iter(self._matches(criteria, limit=1)), None)
            if found is None:
                return False
            rid = found.pop("_id")
            _replace(db, indexes_of(db, self.collection_name), rid, with_fields(found, plain))
            return True

    def ensure_index(self, key: str | list[str], unique: bool = False) -> bool:
        """Make an index on one field, or on several together.

        Returns
        -------
        bool
            Whether it exists, and is unique if asked for; False (and a warning) if documents have the same value or
            the file cannot be written.
        """
        fields = _fields(key)
        with self._file.reading() as db:
            if any(i.fields == fields and i.is_unique >= unique for i in indexes_of(db, self.collection_name)):
                return True
        try:
            with self._file.writing() as db:
                make_index(db, self.collection_name, fields, unique=unique)
        except StoreError as error:
            self.logger.warning("no index on %s in %s: %s", ", ".join(fields), self.name, error)
            return False
        return True

    def remove_docs(self, criteria: Document) -> None:
        """Remove the documents that match `criteria`."""
        with self._file.writing() as db:
            rids = [(document["_id"],) for document in self._matches(criteria)]
            db.executemany("DELETE FROM entries WHERE rid = ?", rids)
            db.executemany("DELETE FROM documents WHERE rid = ?", rids)

    def _select(self, criteria: Document | None) -> Selection:
        """Ask what the indexes can do for a query."""
        with self._file.reading() as db:
            return select(db, self.collection_name, _as_read(criteria or {}))

    def _documents(self, rids: Sequence[int], criteria: Document, known: Version | None) -> Iterator[Document]:
        """Read documents one at a time; all matched when the file had the version `known`, since then each is asked."""
        for rid in rids:
            with self._file.reading() as db:
                row = db.execute("SELECT document FROM documents WHERE rid = ?", [rid]).fetchone()
                document = row and {"_id": rid, **bson.decode(row[0])}
                sure = known is not None and version(db) == known
            if document and (sure or matches(criteria, document)):
                yield document

    def _matches(
        self,
        criteria: Document | None,
        sort: dict[str, Sort | int] | None = None,
        skip: int = 0,
        limit: int = 0,
    ) -> Iterator[Document]:
        """Documents that match, in order; keeps their numbers and sort keys in memory, never all of them."""
        criteria = _as_read(criteria or {})
        with self._file.reading() as db:
            now = version(db)
            chosen = select(db, self.collection_name, criteria, sort, (skip, limit))
            rids = [rid for (rid,) in db.execute(chosen.sql, chosen.parameters)]
        stop = skip + limit if limit else None
        known = now if chosen.exact else None
        if chosen.ordered:
            found = self._documents(rids, criteria, known)
            return found if chosen.exact else islice(found, skip, stop)
        ways = {field: direction(way) == "DESC" for field, way in (sort or {}).items()}
        keyed = [
            ([sort_key(field, document, descending=down) for field, down in ways.items()], document["_id"])
            for document in self._documents(rids, criteria, known)
        ]
        for place, down in reversed(list(enumerate(ways.values()))):
            keyed.sort(key=lambda item, place=place: item[0][place], reverse=down)  # type: ignore[misc]
        return self._documents([rid for _, rid in keyed[skip:stop]], criteria, now)

    def _distinct_entries(self, field: str, criteria: Document | None) -> list[Any] | None:
        """Different values of an indexed field without reading documents, or None where these must be asked."""
        chosen = self._select(criteria)
        with self._file.reading() as db:
            index = next((i for i in indexes_of(db, self.collection_name) if i.fields == (field,)), None)
            if index is None or not chosen.exact:
                return None
            sql, parameters = "SELECT DISTINCT rank, value FROM entries WHERE index_id = ?", [index.id]
            if criteria:
                sql += f" AND rid IN (SELECT rid FROM ({chosen.sql}))"  # noqa: S608 - made here
                parameters += chosen.parameters
            found = db.execute(sql, parameters).fetchall()
        if any(rank in {NULL, OTHER} for rank, _ in found):
            return None
        return [value_of(*item) for item in found if item[0] != EMPTY]

    def _indexes(self, db: sqlite3.Connection, key: tuple[str, ...]) -> dict[tuple[str, ...], Index]:
        """Indexes by their fields; those on the key and on the time of update are made if they are not there."""
        known = {index.fields for index in indexes_of(db, self.collection_name)}
        for needed in {key, (self.last_updated_field,)} - known:
            make_index(db, self.collection_name, needed, unique=False)
        return {index.fields: index for index in indexes_of(db, self.collection_name)}

    def _held(self, db: sqlite3.Connection, by: Index, identity: Entry) -> int | None:
        """Give the number of the document that has a key."""
        sql = "SELECT rid FROM entries WHERE index_id = ? AND rank = ? AND value = ? LIMIT 1"
        row = db.execute(sql, [by.id, *identity]).fetchone()
        return row and row[0]

    def _insert(self, db: sqlite3.Connection, indexes: Iterable[Index], document: Document) -> None:
        sql = "INSERT INTO documents (collection, document) VALUES (?, ?)"
        rid = db.execute(sql, [self.collection_name, bson.encode(document)]).lastrowid or 0
        for index in indexes:
            enter(db, index, rid, document)

    def _valid(self, docs: list[Document] | Document) -> Iterator[Document]:
        """Plain documents without ``_id``, less those the validator refuses (an error if it is strict)."""
        for doc in docs if isinstance(docs, list) else [docs]:
            document = _plain(doc)
            document.pop("_id", None)
            if not self.validator or self.validator.is_valid(document):
                yield document
            elif self.validator.strict:  # type: ignore[attr-defined]
                raise ValueError(self.validator.validation_errors(document))
            else:
                self.logger.error(self.validator.validation_errors(document))

    def _identity(self, document: Document, fields: tuple[str, ...]) -> Entry:
        """Entry of a document's key values in the index on them."""
        parts = [entry(get(document, field)) for field in fields]
        for field, (rank, _) in zip(fields, parts, strict=True):
            if rank == OTHER or not has(document, field):
                raise StoreError(
                    f"{self.name}: no plain value of the key {field!r} in a document with {list(document)}"
                )
        return parts[0] if len(parts) == 1 else compound(parts)


def _read(db: sqlite3.Connection, rid: int) -> Document:
    (blob,) = db.execute("SELECT document FROM documents WHERE rid = ?", [rid]).fetchone()
    document: Document = bson.decode(blob)
    return document


def _replace(db: sqlite3.Connection, indexes: Iterable[Index], rid: int, document: Document) -> None:
    db.execute("UPDATE documents SET document = ? WHERE rid = ?", [bson.encode(document), rid])
    held = held_by(db, rid)
    for index in indexes:
        enter(db, index, rid, document, held.get(index.id, frozenset()))


def _plain(document: Document) -> Document:
    """Document with nothing in it but what BSON holds, as a server would read it back."""
    try:
        plain: Document = bson.decode(bson.encode(document))
    except (InvalidDocument, OverflowError):  # numpy's numbers, structures, keys that are no strings
        plain = jsanitize(document, allow_bson=True, recursive_msonable=True)
    return plain


def _as_read(criteria: Document) -> Document:
    """Criteria as a server reads them: times in UTC and milliseconds, tuples as lists."""
    plain: Document = bson.decode(bson.encode(criteria))
    return plain


def _fields(key: list[str] | str) -> tuple[str, ...]:
    return (key,) if isinstance(key, str) else tuple(key)
