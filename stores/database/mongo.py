"""MongoDB stores that check the size of documents before they send any, and retry writes where that is safe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import bson
from bson.errors import BSONError
from maggma.stores import GridFSStore, MongoStore
from pymongo.errors import AutoReconnect, BulkWriteError, OperationFailure, ServerSelectionTimeoutError

from matris.errors import StoreError
from matris.masking import masked
from matris.stores.database.address import hosts
from matris.stores.database.plain import plain

if TYPE_CHECKING:
    from collections.abc import Callable

MOST_BYTES = 16 * 2**20
"""MongoDB's limit for the size of a document."""

_TRIES = 5
_DUPLICATE = 11000  # MongoDB's DuplicateKey


class ResultsMongoStore(MongoStore):  # type: ignore[misc]
    """
    A MongoStore for several writing processes, which survives a restart of its server and has no password in its name.

    An update replaces whole documents by key, so it can be retried: after a lost connection (the driver waits
    ``serverSelectionTimeoutMS`` for the server), and if two processes insert the same key at once and the unique index
    refuses the second. The parameters are those of maggma's MongoStore.

    Examples
    --------
    >>> store = ResultsMongoStore.from_uri("mongodb://localhost/screening", "candidates", key="document_id")
    >>> store.database, store.collection_name, store.key
    ('screening', 'candidates', 'document_id')
    """

    @property
    def name(self) -> str:
        """Address of the collection, without user and password; maggma's name is the whole address."""
        return collection_name("mongo", self)

    def update(self, docs: list[dict[str, Any]] | dict[str, Any], key: list[str] | str | None = None) -> None:
        """Store documents; each replaces the document with the same value or values of `key`.

        Raises
        ------
        StoreError
            If a document is too large for MongoDB or has a value that BSON cannot hold; then none is sent.
        """
        documents = [plain(document) for document in (docs if isinstance(docs, list) else [docs])]
        for document in documents:
            check_size(document, self.collection_name)
        repeated(lambda: super(ResultsMongoStore, self).update(documents, key))

    def ensure_index(self, key: str | list[str], unique: bool | None = False) -> bool:
        """Make an index on one field, or on several together.

        Returns
        -------
        bool
            True if the index exists, and is unique if `unique` is true (maggma's method accepts any index). False, with
            a warning, if documents have the same values or the server refuses.
        """
        fields = [(field, 1) for field in ([key] if isinstance(key, str) else key)]
        indexes = self._collection.index_information().values()
        if any(index["key"] == fields and index.get("unique", False) >= bool(unique) for index in indexes):
            return True
        try:
            self._collection.create_index(fields, unique=bool(unique))
        except OperationFailure as error:
            self.logger.warning("no index on %s in %s: %s", key, self.collection_name, error)
            return False
        return True


class ResultsGridFSStore(GridFSStore):  # type: ignore[misc]
    """A GridFSStore, for data larger than a document, that retries writes and has no password in its name."""

    @property
    def name(self) -> str:
        """Address of the collection, without user and password."""
        return collection_name("gridfs", self)

    def update(
        self,
        docs: list[dict[str, Any]] | dict[str, Any],
        key: list[str] | str | None = None,
        additional_metadata: str | list[str] | None = None,
    ) -> None:
        """Store documents as files; each replaces the file with the same `key`. The parameters are those of maggma."""
        repeated(lambda: super(ResultsGridFSStore, self).update(docs, key, additional_metadata))


def collection_name(scheme: str, store: MongoStore | GridFSStore) -> str:
    """Name a collection by scheme, hosts, database and collection, without user and password."""
    place = hosts(store.uri) if store.uri is not None else masked(f"{store.host}:{store.port}")
    return f"{scheme}://{place}/{store.database}/{store.collection_name}"


def check_size(document: dict[str, Any], collection: str) -> None:
    """Refuse a document that the server would refuse."""
    shown = ", ".join(f"{k}={v!r}" for k, v in document.items() if isinstance(v, (str, int)))[:200]
    try:
        size = len(bson.encode(document))
    except (BSONError, OverflowError, ValueError) as error:  # ValueError: lone surrogates
        raise StoreError(f"a document for {collection} ({shown}) has a value that BSON cannot hold: {error}") from error
    if size > MOST_BYTES:
        raise StoreError(
            f"a document for {collection} ({shown}) has {size / 2**20:.1f} MB; MongoDB accepts {MOST_BYTES // 2**20}, "
            "so none was sent. Keep its arrays in the data store (`data=[...]` of the Maker or of @job), or put fewer "
            "structures into a job (chunk_size)"
        )


def repeated[T](write: Callable[[], T]) -> T:
    """Do an idempotent write, and retry it where another attempt can succeed."""
    for left in reversed(range(_TRIES)):
        try:
            return write()
        except ServerSelectionTimeoutError:  # the driver has waited for the server already
            raise
        except AutoReconnect:
            if not left:
                raise
        except BulkWriteError as error:
            codes = {problem["code"] for problem in error.details["writeErrors"]}
            if not left or codes != {_DUPLICATE}:
                raise
    raise AssertionError("unreachable")
