"""Atomic writes, for documents that several processes change: by field, on a condition, or new documents only.

A store's ``update`` replaces whole documents: if two processes read, change and write the same document, the change of
the first is lost. The three functions here lose none. They take any store that
`matris.stores.database.jobstore.sibling_store` opens, with an index on its key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from maggma.stores import MemoryStore
from pymongo import UpdateOne
from pymongo.errors import BulkWriteError, WriteError

from matris.errors import StoreError
from matris.stores.database.mongo import ResultsMongoStore, check_size, repeated
from matris.stores.database.plain import plain
from matris.stores.database.sqlite.store import SQLiteStore

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from maggma.core import Store


def set_fields(store: Store, changes: Mapping[Any, Mapping[str, Any]]) -> int:
    """
    Set fields of documents, and leave their other fields alone.

    Parameters
    ----------
    store
        Store of the documents.
    changes
        For each key, new values by field name. A dotted name sets a field of a sub-document, which is created if it is
        missing. The embedded store sets all fields of all documents or none; a server sets all fields of a document or
        none.

    Returns
    -------
    int
        Number of documents that exist.

    Raises
    ------
    StoreError
        If a value cannot be stored, or a name leads through a value that is not a sub-document.

    Examples
    --------
    >>> from maggma.stores import MemoryStore
    >>> with MemoryStore(key="name") as store:
    ...     store.update([{"name": "Si", "energy": -5.4}, {"name": "Ge"}])
    ...     set_fields(store, {"Si": {"hull.distance": 0.0}, "unknown": {"energy": 0.0}})
    ...     store.query_one({"name": "Si"}, {"_id": 0})
    1
    {'name': 'Si', 'energy': -5.4, 'hull': {'distance': 0.0}}
    """
    if not changes:
        return 0
    if isinstance(store, SQLiteStore):
        return store.set_fields({key: dict(fields) for key, fields in changes.items()})
    writes = [UpdateOne({store.key: key}, {"$set": plain(fields)}) for key, fields in changes.items()]
    return _bulk(store, writes)


def set_if(store: Store, criteria: Mapping[str, Any], fields: Mapping[str, Any]) -> bool:
    """
    Set fields of one document if it still has the expected values (compare and swap).

    Parameters
    ----------
    store
        Store of the document.
    criteria
        Filter with the key of the document and the values that it must have.
    fields
        New values by field name, as for `set_fields`.

    Returns
    -------
    bool
        True if a document met `criteria` and was changed. If several processes try the same change, one gets True.

    Raises
    ------
    StoreError
        As for `set_fields`.
    pymongo.errors.AutoReconnect
        If the connection to a server is lost; the document may have been changed.

    Examples
    --------
    >>> from maggma.stores import MemoryStore
    >>> with MemoryStore(key="name") as store:
    ...     store.update({"name": "chunk 1", "state": "waiting"})
    ...     [set_if(store, {"name": "chunk 1", "state": "waiting"}, {"state": "taken"}) for _ in range(2)]
    [True, False]
    """
    if isinstance(store, SQLiteStore):
        return store.set_if(dict(criteria), dict(fields))
    try:
        return bool(_collection(store).update_one(criteria, {"$set": plain(fields)}).matched_count)
    except WriteError as error:
        raise StoreError(f"{store.name} cannot set {', '.join(fields)}: {error}") from error


def add_missing(store: Store, documents: Iterable[Mapping[str, Any]]) -> None:
    """
    Store the documents whose keys are new, and leave stored documents as they are.

    Parameters
    ----------
    store
        Store of the documents; on a server it needs a unique index on its key.
    documents
        Documents, each with a key.

    Raises
    ------
    StoreError
        If a document has no key or cannot be stored.

    Examples
    --------
    >>> from maggma.stores import MemoryStore
    >>> with MemoryStore(key="name") as store:
    ...     store.update({"name": "Si", "energy": -5.4})
    ...     add_missing(store, [{"name": "Si", "energy": 0.0}, {"name": "Ge", "energy": -4.6}])
    ...     sorted(document["energy"] for document in store.query())
    [-5.4, -4.6]
    """
    missing = [plain(document) for document in documents]
    if isinstance(store, SQLiteStore):
        store.add_missing(missing)
        return
    for document in missing:
        document.pop("_id", None)
        if document.get(store.key) is None:
            raise StoreError(f"{store.name}: no key {store.key!r} in a document with the fields {list(document)}")
        check_size(document, store.collection_name)
    if missing:
        _bulk(store, [UpdateOne({store.key: d[store.key]}, {"$setOnInsert": d}, upsert=True) for d in missing])


def _bulk(store: Store, writes: list[UpdateOne]) -> int:
    collection = _collection(store)
    try:
        return repeated(lambda: int(collection.bulk_write(writes, ordered=False).matched_count))
    except BulkWriteError as error:
        problem = error.details["writeErrors"][0]
        raise StoreError(f"{store.name} refuses a document: {problem.get('errmsg')}") from error


def _collection(store: Store) -> Any:
    if type(store) is MemoryStore or isinstance(store, ResultsMongoStore):
        return store._collection  # noqa: SLF001 - maggma's own way to MongoDB's operators
    raise StoreError(f"{type(store).__name__} cannot set single fields; use a SQLiteStore or ResultsMongoStore")
