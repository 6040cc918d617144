"""MongoDB stores whose address, with its password, stands in a file of its own that only its owner may read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pymongo.errors import PyMongoError
from pymongo.uri_parser import parse_uri

from matris.errors import StoreError
from matris.files.whole_file import whole_file
from matris.stores.database.mongo import ResultsGridFSStore, ResultsMongoStore

_OTHERS = 0o077  # rights of a file's group and of everybody


def write_uri(path: Path, uri: str) -> str:
    """
    Write a database's address where only the user may read it.

    Parameters
    ----------
    path
        File; an older one is replaced.
    uri
        ``mongodb://USER:PASSWORD@HOST:PORT/DATABASE``.

    Returns
    -------
    str
        Name of the database, which is no secret.

    Raises
    ------
    StoreError
        If the address cannot be read, or names no database.
    """
    database = uri_database(uri, "the address of the database")
    with whole_file(path) as draft:
        draft.touch(0o600, exist_ok=False)
        draft.write_text(uri + "\n", encoding="utf-8")
    return database


def read_uri(path: str | Path) -> str:
    """
    Read a database's address.

    Parameters
    ----------
    path
        File with the address as its only line; ``~`` is the user's home.

    Raises
    ------
    StoreError
        If there is no such file, others may read it, or it holds no address.
    """
    file = Path(path).expanduser()
    try:
        rights = file.stat().st_mode
        if rights & _OTHERS:
            raise StoreError(f"{file} holds a password and others may read it: chmod 600 {file}")
        uri = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(
            f"the address of the database cannot be read from {file} ({error}): write "
            "mongodb://USER:PASSWORD@HOST:PORT/DATABASE into it, and chmod 600 it"
        ) from error
    uri_database(uri, str(file))
    return uri


def uri_database(uri: str, where: str) -> str:
    """
    Name of the database in an address.

    Parameters
    ----------
    uri
        Address.
    where
        Where it stands, for errors, which do not repeat it.

    Raises
    ------
    StoreError
        If the address cannot be read, or names no database.
    """
    try:
        database = parse_uri(uri)["database"]
    except (PyMongoError, ValueError) as error:
        raise StoreError(f"{where} is no MongoDB address: {error}") from None
    if not database:
        raise StoreError(f"{where} names no database: write mongodb://USER:PASSWORD@HOST:PORT/DATABASE")
    return str(database)


class _PrivateStore:
    """What a store needs to find its database in a file; for a class beside one of maggma's."""

    def __init__(self, uri_file: str, database: str, collection_name: str, **kwargs: Any) -> None:
        super().__init__(database, collection_name, host=str(uri_file), **kwargs)  # type: ignore[call-arg]
        self.uri_file = str(uri_file)
        self.uri: str | None = None
        self._coll: Any

    def connect(self, force_reset: bool = False) -> None:
        """Connect to the database that the file names."""
        if self._coll is None or force_reset:
            self.uri = read_uri(self.uri_file)
            try:
                super().connect(force_reset)  # type: ignore[misc]
            finally:
                self.uri = None


class PrivateMongoStore(_PrivateStore, ResultsMongoStore):
    """
    A collection of a database whose address stands in a file.

    Neither the store as a dictionary nor its name holds a password.

    Parameters
    ----------
    uri_file
        File with the address, as for `read_uri`; read when the store connects.
    database, collection_name
        Collection.
    **kwargs
        Of maggma's MongoStore.
    """


class PrivateGridFSStore(_PrivateStore, ResultsGridFSStore):
    """
    Files of a database whose address stands in a file.

    Parameters
    ----------
    uri_file
        File with the address, as for `read_uri`; read when the store connects.
    database, collection_name
        Collection.
    **kwargs
        Of maggma's GridFSStore.
    """
