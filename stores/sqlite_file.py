"""One SQLite file that threads and processes of a machine share: opening, schema, transactions, errors explained."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from bson.errors import BSONError

from matris.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator

BUSY_SECONDS = 60
APPLICATION_ID = 0x4D745253  # "MtRS" in the file's header
SCHEMA_VERSION = 1
SCHEMA = """
CREATE TABLE documents (rid INTEGER PRIMARY KEY AUTOINCREMENT, collection TEXT NOT NULL, document BLOB NOT NULL);
CREATE INDEX documents_of ON documents (collection);
CREATE TABLE indexes (id INTEGER PRIMARY KEY, collection TEXT NOT NULL, fields TEXT NOT NULL,
  is_unique INTEGER NOT NULL, sorts INTEGER NOT NULL, UNIQUE (collection, fields));
CREATE TABLE entries (index_id INTEGER NOT NULL, rank INTEGER NOT NULL, value NOT NULL, rid INTEGER NOT NULL,
  PRIMARY KEY (index_id, rank, value, rid)) WITHOUT ROWID;
CREATE INDEX entries_of ON entries (rid, index_id);
"""
REMEDIES = {
    sqlite3.SQLITE_NOTADB: "no SQLite database, or damaged; move it away or choose another place for the results",
    sqlite3.SQLITE_CORRUPT: "damaged; restore a copy, or save what is left with `sqlite3 FILE .recover`",
    sqlite3.SQLITE_BUSY: f"another process kept it locked for {BUSY_SECONDS} s; wait for that process or stop it",
    sqlite3.SQLITE_FULL: "the disk is full; nothing of this update was stored, free some space and run it again",
    sqlite3.SQLITE_READONLY: "read-only; copy it to a place you can write to",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened or made; check that you can write in its folder",
}
_inherited: list[sqlite3.Connection] = []  # from the parent process: closing one here would harm the parent's


class SQLiteFile:
    """A connection to one results file, handed to one thread at a time and opened anew after a fork."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._db: sqlite3.Connection | None = None
        self._pid = os.getpid()
        self._lock = threading.RLock()

    def connect(self) -> None:
        """Open the file and make it if there is none; do nothing if it is open in this process.

        Raises
        ------
        StoreError
            If the file is something else, of a newer version, damaged, or cannot be opened or written.
        """
        if self._db is not None and self._pid == os.getpid():
            return
        self.close()
        with self._explained():
            Path(self.path).parent.mkdir(parents=True, exist_ok=True)
            db = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
            try:
                _prepare(db, self.path)
            except BaseException:
                db.close()
                raise
        self._db = db

    def close(self) -> None:
        """Close the file."""
        if self._pid != os.getpid():  # the parent's connection, and a lock one of its threads may have held
            if self._db is not None:
                _inherited.append(self._db)
            self._pid, self._lock, self._db = os.getpid(), threading.RLock(), None
        with self._lock:
            if self._db is not None:
                self._db.close()
            self._db = None

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Lend the connection to the calling thread."""
        if self._db is None:
            raise StoreError(f"{self.path} is not connected; call connect() first")
        self.connect()  # after a fork
        with self._lock, self._explained():
            yield self._db

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Lend the connection inside a transaction no other process can enter; on disk at the end, or undone."""
        with self.reading() as db, db:
            db.execute("BEGIN IMMEDIATE")
            yield db

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn what SQLite, the disk or BSON report into a StoreError with a way out."""
        try:
            yield
        except sqlite3.Error as error:
            remedy = REMEDIES.get(getattr(error, "sqlite_errorcode", 0) & 0xFF, "SQLite could not do it")
            raise StoreError(f"{self.path}: {remedy} ({error})") from error
        except OSError as error:
            raise StoreError(f"{self.path}: {error.strerror}; choose another place for the results") from error
        except (BSONError, OverflowError) as error:
            raise StoreError(f"{self.path}: a value that BSON cannot hold or read: {error}") from error


def _prepare(db: sqlite3.Connection, path: str) -> None:
    """Make or check the schema of an opened file."""
    db.execute("PRAGMA synchronous = FULL")
    if _is_empty(db):
        _write_ahead(db)
        with db:
            db.execute("BEGIN IMMEDIATE")
            if _is_empty(db):  # else another process was faster
                for statement in SCHEMA.split(";"):
                    db.execute(statement)
                db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    if db.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise StoreError(f"{path} is another program's database; choose another place for the results")
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version > SCHEMA_VERSION:
        raise StoreError(
            f"{path} has schema version {version}, this program knows {SCHEMA_VERSION}: upgrade matris-flows"
        )


def _is_empty(db: sqlite3.Connection) -> bool:
    return not db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]


def _write_ahead(db: sqlite3.Connection) -> None:
    """Switch to write-ahead logging, which SQLite refuses without waiting while other processes do the same."""
    until = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
            time.sleep(0.01)
        else:
            return
