"""MongoDB stores that read their address, with its password, from a file that only its owner may read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pymongo.errors import PyMongoError
from pymongo.uri_parser import parse_uri

from matris.errors import StoreError
from matris.files.whole_file import whole_file
from matris.stores.database.mongo import ResultsGridFSStore, ResultsMongoStore

_OTHERS = 0o077  # permissions of a file's group and of everybody


def write_uri(path: Path, uri: str) -> str:
    """
    Write the address of a database to a file that only the user may read.

    Parameters
    ----------
    path
        File; an existing file is replaced.
    uri
        ``mongodb://USER:PASSWORD@HOST:PORT/DATABASE``.

    Returns
    -------
    str
        Name of the database, which is not secret.

    Raises
    ------
    StoreError
        If the address is invalid, or names no database.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     write_uri(Path(folder) / "uri", "mongodb://me:secret@localhost:27017/screening")
    ...     read_uri(Path(folder) / "uri")
    'screening'
    'mongodb://me:secret@localhost:27017/screening'
    """
    database = uri_database(uri, "the address of the database")
    with whole_file(path) as draft:
        draft.touch(0o600, exist_ok=False)
        draft.write_text(uri + "\n", encoding="utf-8")
    return database


def read_uri(path: str | Path) -> str:
    """
    Read the address of a database from a file, see `write_uri`.

    Parameters
    ----------
    path
        File with the address as its only line; ``~`` is the user's home folder.

    Raises
    ------
    StoreError
        If the file does not exist, others may read it, or it holds no valid address.
    """
    file = Path(path).expanduser()
    try:
        mode = file.stat().st_mode
        if mode & _OTHERS:
            raise StoreError(f"{file} holds a password and others may read it: chmod 600 {file}")
        uri = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(
            f"the address of the database cannot be read from {file} ({error}): write "
            "mongodb://USER:PASSWORD@HOST:PORT/DATABASE into it, and chmod 600 it"
        ) from error
    uri_database(uri, str(file))
    return uri


def uri_database(uri: str, origin: str) -> str:
    """
    Return the name of the database in an address.

    Parameters
    ----------
    uri
        Address.
    origin
        Origin of the address, for error messages; these do not repeat the address.

    Raises
    ------
    StoreError
        If the address is invalid, or names no database.

    Examples
    --------
    >>> uri_database("mongodb://me:secret@localhost:27017/screening", "this example")
    'screening'
    """
    try:
        database = parse_uri(uri)["database"]
    except (PyMongoError, ValueError) as error:
        raise StoreError(f"{origin} is not a MongoDB address: {error}") from None
    if not database:
        raise StoreError(f"{origin} names no database: write mongodb://USER:PASSWORD@HOST:PORT/DATABASE")
    return str(database)


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
        File with the address, as for `read_uri`; it is read when the store connects.
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
        File with the address, as for `read_uri`; it is read when the store connects.
    database, collection_name
        Name of the database and of the collection.
    **kwargs
        Parameters of maggma's GridFSStore.
    """
