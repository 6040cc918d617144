"""A maggma store in one SQLite file, for results on a machine without a database server."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bson
from bson.errors import BSONError, InvalidDocument
from maggma.core import DateTimeFormat, Sort, Store
from maggma.core.validator import Validator  # noqa: TC002 - monty reads the signature
from mongomock_ng.aggregate import process_pipeline
from pydash import get, has, set_
from pymongo.errors import PyMongoError

from matris.errors import StoreError
from matris.stores.database.plain import plain
from matris.stores.database.sqlite.collection import (
    EMPTY_ARRAY,
    NULL_ELEMENT,
    OTHER,
    Collection,
    decoded,
    encoded,
    quoted,
    read_layout,
)
from matris.stores.database.sqlite.fields import project, with_fields
from matris.stores.database.sqlite.file import SQLiteFile, Version, version
from matris.stores.database.sqlite.filters import MISSING, matches, order_key, sort_key, values_at
from matris.stores.database.sqlite.planner import direction, select

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Mapping, Sequence

    from matris.stores.database.sqlite.collection import Layout, Value

type Document = dict[str, Any]

_OTHER_COLLECTIONS = {"$graphLookup", "$lookup", "$merge", "$out", "$unionWith"}


class SQLiteStore(Store):  # type: ignore[misc]
    """A collection of documents in a SQLite file, which threads and processes of one machine may share.

    Each update is one transaction, which is on disk when the call returns. Filters follow MongoDB. Indexes answer
    equality, ``$in``, comparisons and their negations on indexed fields; the documents answer all other conditions.
    ``_id`` is the number of a document in the file. Files on network file systems are refused, see
    `matris.stores.database.sqlite.disk`.

    Parameters
    ----------
    path
        Database file, created on first use. A relative path is made absolute here, because jobs change their folder.
    collection_name
        Name of the collection; a file holds any number of collections.
    key, last_updated_field, last_updated_type, validator
        As for every maggma store.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder, SQLiteStore(Path(folder) / "runs.sqlite", "runs") as store:
    ...     store.ensure_index("energy")
    ...     store.update([{"task_id": i, "energy": -1.5 * i, "tags": ["bulk"]} for i in range(4)])
    ...     store.count({"tags": "bulk", "energy": {"$lte": -1.5}})
    ...     [document["task_id"] for document in store.query(sort={"energy": 1}, limit=2)]
    True
    3
    [3, 2]
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
        self._layout: tuple[tuple[sqlite3.Connection, int], Layout] | None = None
        super().__init__(key, last_updated_field, DateTimeFormat(last_updated_type), validator)

    @property
    def name(self) -> str:
        """Address of the collection."""
        return f"sqlite://{self.path}/{self.collection_name}"

    @property
    def _collection(self) -> Any:
        raise StoreError(f"{self.name} has no MongoDB collection behind it; use the store's own methods")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SQLiteStore) and self.name == other.name

    def __hash__(self) -> int:
        return hash(self.name)

    def connect(self, force_reset: bool = False) -> None:
        """Open the file, and create it if it does not exist."""
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
        """Yield the documents that match, reading one at a time; the parameters are those of maggma."""
        for document in self._matches(criteria, sort, skip, limit):
            yield project(document, properties) if properties else document

    def count(self, criteria: Document | None = None) -> int:
        """Count the documents that match `criteria`."""
        with self._file.reading() as db:
            selection = select(self._tables(db), _as_read(criteria or {}))
            if selection.exact:
                total: int = db.execute(f"SELECT count(*) FROM ({selection.sql})", selection.parameters).fetchone()[0]  # noqa: S608
                return total
        return sum(1 for _ in self._matches(criteria))

    def distinct(self, field: str, criteria: Document | None = None, all_exist: bool = False) -> list[Any]:  # noqa: ARG002
        """Collect the different values of a field; each element of an array is a value."""
        if (values := self._distinct_values(field, criteria)) is not None:
            return values
        by_key: dict[Any, Any] = {}
        for document in self._matches(criteria):
            for held in values_at(field, document):
                for value in held if isinstance(held, list) else [held]:
                    if value is not MISSING:
                        by_key.setdefault(order_key(value), value)
        return list(by_key.values())

    def aggregate(self, pipeline: list[Document]) -> Iterator[Document]:
        """
        Run an aggregation pipeline over the collection.

        A ``$match`` at the start uses the indexes; later ones use the same filters. mongomock runs all other stages in
        memory on the documents that are left, so put the ``$match`` first.

        Parameters
        ----------
        pipeline
            Stages, as in MongoDB.

        Raises
        ------
        StoreError
            If a stage uses another collection, is unknown to mongomock, or is invalid.
        """
        stages = [name for stage in pipeline for name in stage]
        if refused := _OTHER_COLLECTIONS.intersection(stages):
            raise StoreError(f"the embedded store has no {', '.join(sorted(refused))}; use a MongoStore")
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
        """Group the documents that have all `keys`: pairs of key values and the documents with these values."""
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
        """Store documents; each replaces the document with the same value or values of `key`. All are stored, or none.

        Raises
        ------
        StoreError
            If a document has no key, breaks a unique index or cannot be written.
        """
        self._store(docs, _fields(key or self.key), replace=True)

    def add_missing(self, docs: list[Document]) -> None:
        """Store the documents whose key no document has, see `matris.stores.database.atomic.add_missing`."""
        self._store(docs, _fields(self.key), replace=False)

    def _store(self, docs: list[Document] | Document, key: tuple[str, ...], *, replace: bool) -> None:
        keyed = [(document, blob, self._identity(document, key)) for document, blob in self._valid(docs)]
        with self._file.writing() as db:
            collection = self._indexed(db, key)
            for document, blob, identity in keyed:
                number = collection.find(key, identity)
                if number is None:
                    collection.insert(document, blob)
                elif replace:
                    collection.replace(number, document, blob)

    def set_fields(self, changes: Mapping[Any, Document]) -> int:
        """Set fields of documents by key, all or none, see `matris.stores.database.atomic.set_fields`."""
        key = _fields(self.key)
        keyed = [(self._identity({self.key: value}, key), _plain(fields)[0]) for value, fields in changes.items()]
        n_documents = 0
        with self._file.writing() as db:
            collection = self._indexed(db, key)
            for identity, fields in keyed:
                number = collection.find(key, identity)
                if number is not None:
                    document = with_fields(collection.read(number), fields)
                    collection.replace(number, document, bson.encode(document))
                    n_documents += 1
        return n_documents

    def set_if(self, criteria: Document, fields: Document) -> bool:
        """Set fields of a document that meets `criteria`, see `matris.stores.database.atomic.set_if`."""
        plain, _ = _plain(fields)
        if not self.count(criteria):  # a process that comes late waits for no lock
            return False
        with self._file.writing() as db:
            document = next(iter(self._matches(criteria, limit=1)), None)
            if document is None:
                return False
            number = document.pop("_id")
            document = with_fields(document, plain)
            self._tables(db).replace(number, document, bson.encode(document))
            return True

    def ensure_index(self, key: str | list[str], unique: bool = False) -> bool:
        """Make an index on one field, or on several together.

        Returns
        -------
        bool
            True if the index exists, and is unique if `unique` is true, or if this process may only read the file: then
            a query without the index is slower. False, with a warning, if documents have the same values or the file
            cannot be written.
        """
        fields = _fields(key)
        if fields == ("_id",):
            return True
        with self._file.reading() as db:
            indexes = read_layout(db, self.collection_name).indexes
        if any(index.fields == fields and index.is_unique >= unique for index in indexes) or self._file.is_read_only:
            return True
        try:
            with self._file.writing() as db:
                Collection(db, self.collection_name).ensure_index(fields, unique=unique)
        except StoreError as error:
            self.logger.warning("no index on %s in %s: %s", ", ".join(fields), self.name, error)
            return False
        return True

    def remove_docs(self, criteria: Document) -> None:
        """Remove the documents that match `criteria`."""
        with self._file.writing() as db:
            numbers = [document["_id"] for document in self._matches(criteria)]
            if numbers:
                self._tables(db).remove(numbers)

    def _tables(self, db: sqlite3.Connection) -> Collection:
        """Return the tables of the collection; their layout is read again only after a change of SQLite's schema."""
        schema = db, db.execute("PRAGMA schema_version").fetchone()[0]
        if self._layout is None or self._layout[0] != schema:
            self._layout = schema, read_layout(db, self.collection_name)
        return Collection(db, self.collection_name, self._layout[1])

    def _indexed(self, db: sqlite3.Connection, key: tuple[str, ...]) -> Collection:
        """Return the tables of the collection for writing, indexed by the key and by the time of the last update."""
        collection = Collection(db, self.collection_name)
        for fields in (key, (self.last_updated_field,)):
            collection.ensure_index(fields)
        return collection

    def _documents(self, numbers: Sequence[int], criteria: Document, sure_at: Version | None) -> Iterator[Document]:
        """Read documents one at a time; check `criteria` unless the file still has the version `sure_at`."""
        for number in numbers:
            with self._file.reading() as db:
                row = db.execute("SELECT document FROM documents WHERE _id = ?", [number]).fetchone()
                document = row and {"_id": number, **bson.decode(row[0])}
                sure = sure_at is not None and version(db) == sure_at
            if document and (sure or matches(criteria, document)):
                yield document

    def _matches(
        self,
        criteria: Document | None,
        sort: dict[str, Sort | int] | None = None,
        skip: int = 0,
        limit: int = 0,
    ) -> Iterator[Document]:
        """Yield the documents that match, in order; only their numbers and sort keys are in memory at once."""
        criteria = _as_read(criteria or {})
        with self._file.reading() as db:
            now = version(db)
            selection = select(self._tables(db), criteria, sort, (skip, limit))
            numbers = [number for (number,) in db.execute(selection.sql, selection.parameters)]
        stop = skip + limit if limit else None
        sure_at = now if selection.exact else None
        if selection.ordered:
            documents = self._documents(numbers, criteria, sure_at)
            return documents if selection.exact else islice(documents, skip, stop)
        descending = {field: direction(way) == "DESC" for field, way in (sort or {}).items()}
        keyed = [
            ([sort_key(field, document, descending=down) for field, down in descending.items()], document["_id"])
            for document in self._documents(numbers, criteria, sure_at)
        ]
        for place, down in reversed(list(enumerate(descending.values()))):
            keyed.sort(key=lambda item, place=place: item[0][place], reverse=down)  # type: ignore[misc]
        return self._documents([number for _, number in keyed[skip:stop]], criteria, now)

    def _distinct_values(self, field: str, criteria: Document | None) -> list[Any] | None:
        """Return the different values of an indexed field, or None if documents must be read for them."""
        with self._file.reading() as db:
            collection = self._tables(db)
            selection = select(collection, _as_read(criteria or {}))
            if field not in collection.layout.fields or not selection.exact:
                return None
            among = f"_id IN ({selection.sql})" if criteria else "TRUE"
            parameters = selection.parameters if criteria else []
            column = quoted(field)
            plain = f"SELECT DISTINCT {column} FROM {collection.table} WHERE {column} < ? AND {among}"  # noqa: S608
            null = f"SELECT NULL FROM {collection.table} WHERE {column} IS NULL AND {among} LIMIT 1"  # noqa: S608
            several = f"SELECT DISTINCT value FROM {collection.elements} WHERE field = ? AND {among}"  # noqa: S608
            queries: list[tuple[str, list[Value]]] = [(null, []), (plain, [OTHER]), (several, [field])]
            values = {value for sql, first in queries for (value,) in db.execute(sql, [*first, *parameters])}
        if values & {None, NULL_ELEMENT, OTHER}:
            return None
        return [decoded(value) for value in values - {EMPTY_ARRAY}]

    def _valid(self, docs: list[Document] | Document) -> Iterator[tuple[Document, bytes]]:
        """Yield documents without ``_id``, plain and in BSON; skip those that a lenient validator refuses."""
        for doc in docs if isinstance(docs, list) else [docs]:
            document, blob = _plain({name: value for name, value in doc.items() if name != "_id"})
            if not self.validator or self.validator.is_valid(document):
                yield document, blob
            elif self.validator.strict:  # type: ignore[attr-defined]
                raise ValueError(self.validator.validation_errors(document))
            else:
                self.logger.error(self.validator.validation_errors(document))

    def _identity(self, document: Document, key: tuple[str, ...]) -> list[Value]:
        """Return the values of a document's key as columns hold them."""
        values = [encoded(get(document, field)) for field in key]
        for field, value in zip(key, values, strict=True):
            if value is OTHER or not has(document, field):
                raise StoreError(
                    f"{self.name}: no plain value of the key {field!r} in a document with the fields {list(document)}"
                )
        return values


def _plain(document: Mapping[str, Any]) -> tuple[Document, bytes]:
    """Return a document as a server would send it back, and its BSON."""
    try:
        blob = bson.encode(document)
    except (InvalidDocument, OverflowError, ValueError):  # numpy numbers, UUIDs, structures, keys that are not strings
        try:
            blob = bson.encode(plain(document))
        except (BSONError, OverflowError, ValueError) as error:  # ValueError: lone surrogates
            raise StoreError(f"a value that BSON cannot hold: {error}") from error
    return bson.decode(blob), blob


def _as_read(criteria: Document) -> Document:
    """Return a filter as a server reads it: times in UTC and milliseconds, tuples as lists."""
    try:
        read: Document = bson.decode(bson.encode(criteria))
    except (BSONError, OverflowError, ValueError) as error:
        raise StoreError(f"a filter with a value that no document can hold: {error}") from error
    return read


def _fields(key: list[str] | str) -> tuple[str, ...]:
    return (key,) if isinstance(key, str) else tuple(key)
