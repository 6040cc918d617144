"""MongoDB stores that read their address, with its password, from a file that only its owner may read."""

from __future__ import annotations

from typing import Any

from matris.stores.database.address import read_uri
from matris.stores.database.mongo import ResultsGridFSStore, ResultsMongoStore


class _PrivateStore:
    """Mixin that reads the address of a store from a file on connection."""

    def __init__(self, uri_file: str, database: str, collection_name: str, **kwargs: Any) -> None:
        super().__init__(database, collection_name, host=str(uri_file), **kwargs)  # type: ignore[call-arg]
        self.uri_file = str(uri_file)
        self.uri: str | None = None
        self._coll: Any

    def connect(self, force_reset: bool = False) -> None:
        """Connect to the database in the file."""
        if self._coll is None or force_reset:
            self.uri = read_uri(self.uri_file)
            try:
                super().connect(force_reset)  # type: ignore[misc]
            finally:
                self.uri = None


class PrivateMongoStore(_PrivateStore, ResultsMongoStore):
    """
    A collection in a database whose address is in a file.

    Neither the name of the store nor its dictionary form holds the password.

    Parameters
    ----------
    uri_file
        File with the address, as for `matris.stores.database.address.read_uri`; it is read when the store connects.
    database, collection_name
        Name of the database and of the collection.
    **kwargs
        Parameters of maggma's MongoStore.

    Examples
    --------
    >>> store = PrivateMongoStore("~/.screening-uri", "screening", "candidates", key="document_id")
    >>> store.as_dict()["uri_file"]
    '~/.screening-uri'
    """


class PrivateGridFSStore(_PrivateStore, ResultsGridFSStore):
    """
    GridFS files in a database whose address is in a file.

    Parameters
    ----------
    uri_file
        File with the address, as for `matris.stores.database.address.read_uri`; it is read when the store connects.
    database, collection_name
        Name of the database and of the collection.
    **kwargs
        Parameters of maggma's GridFSStore.
    """
