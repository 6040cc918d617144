"""Writes that hold where several processes write the same documents: by field, on a condition, or only what is new.

A store's ``update`` replaces whole documents, so that of two processes that read, change and write one, the first is
undone. These three do not. They take any store that `matris.stores.database.jobstore.sibling_store` opens, with an
index on its key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from maggma.stores import MemoryStore
from monty.json import jsanitize
from pymongo import UpdateOne
from pymongo.errors import BulkWriteError, WriteError

from matris.errors import StoreError
from matris.stores.database.mongo import ResultsMongoStore, check_size, repeated
from matris.stores.database.sqlite.store import SQLiteStore

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from maggma.core import Store


def set_fields(store: Store, changes: Mapping[Any, Mapping[str, Any]]) -> int:
    """
    Set fields of documents and leave their other fields alone.

    Parameters
    ----------
    store
        Where.
    changes
        By key, the new values by name; a dotted name sets a field of a sub-document, which is made if there is none.
        In the embedded store all are set or none; on a server each document's fields are.

    Returns
    -------
    int
        How many of the documents exist.

    Raises
    ------
    StoreError
        If a value cannot be stored, or a name leads through what is no sub-document.
    """
    if not changes:
        return 0
    if isinstance(store, SQLiteStore):
        return store.set_fields({key: dict(fields) for key, fields in changes.items()})
    writes = [UpdateOne({store.key: key}, {"$set": _plain(fields)}) for key, fields in changes.items()]
    return _bulk(store, writes)


def set_if(store: Store, criteria: Mapping[str, Any], fields: Mapping[str, Any]) -> bool:
    """
    Set fields of one document if it still is what the caller believes: compare and swap.

    Parameters
    ----------
    store
        Where.
    criteria
        A filter that names the document by its key, and the values it must have.
    fields
        New values by name, as for `set_fields`.

    Returns
    -------
    bool
        Whether a document met `criteria` and was changed; of several processes that ask for the same, one is told so.

    Raises
    ------
    StoreError
        As `set_fields`.
    pymongo.errors.AutoReconnect
        If the connection to a server is lost: it may have been changed.
    """
    if isinstance(store, SQLiteStore):
        return store.set_if(dict(criteria), dict(fields))
    try:
        return bool(_collection(store).update_one(criteria, {"$set": _plain(fields)}).matched_count)
    except WriteError as error:
        raise StoreError(f"{store.name} cannot set {', '.join(fields)}: {error}") from error


def add_missing(store: Store, documents: Iterable[Mapping[str, Any]]) -> None:
    """
    Store the documents whose key no document has, and leave the others as they are.

    Parameters
    ----------
    store
        Where; on a server with a unique index on its key.
    documents
        New ones, each with a key.

    Raises
    ------
    StoreError
        If one cannot be stored.
    """
    new = [_plain(document) for document in documents]
    if isinstance(store, SQLiteStore):
        store.add_missing(new)
        return
    for document in new:
        document.pop("_id", None)
        if document.get(store.key) is None:
            raise StoreError(f"{store.name}: no {store.key!r} in a document with {list(document)}")
        check_size(document, store.collection_name)
    if new:
        _bulk(store, [UpdateOne({store.key: d[store.key]}, {"$setOnInsert": d}, upsert=True) for d in new])


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
    raise StoreError(f"{type(store).__name__} has no writes by field; use a SQLiteStore or ResultsMongoStore")


def _plain(fields: Mapping[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = jsanitize(dict(fields), allow_bson=True, recursive_msonable=True)
    return plain
