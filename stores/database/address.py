"""Addresses of MongoDB databases: in files that only their owner may read, checked, and shown without passwords."""

from __future__ import annotations

import re
from pathlib import Path

from pymongo.errors import PyMongoError
from pymongo.uri_parser import parse_uri

from matris.errors import StoreError
from matris.files.whole_file import whole_file

MONGODB = ("mongodb://", "mongodb+srv://")
"""Beginnings of an address."""

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
        # the driver's message may repeat a part of a password that is not quoted
        detail = (
            "write @ : / ? # [ ] % in user and password as %40 %3A %2F %3F %23 %5B %5D %25" if "@" in uri else error
        )
        raise StoreError(f"{origin} is not a MongoDB address: {detail}") from None
    if not database:
        raise StoreError(f"{origin} names no database: write mongodb://USER:PASSWORD@HOST:PORT/DATABASE")
    return str(database)


def hosts(uri: str) -> str:
    """
    Return the hosts of a valid address, without user and password.

    Examples
    --------
    >>> hosts("mongodb://me:secret@one:27017,two:27017/screening?replicaSet=rs0")
    'one:27017,two:27017'
    """
    authority = re.split(r"[/?]", uri.partition("://")[2], maxsplit=1)[0]
    return authority.rpartition("@")[2]
