"""A SQLite file that threads and processes of one machine share: opening, format, transactions, error messages."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import weakref
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bson.errors import BSONError

from matris.errors import StoreError
from matris.stores.database.sqlite.disk import on_network_disk

if TYPE_CHECKING:
    from collections.abc import Iterator

type Version = tuple[sqlite3.Connection, int, int]

BUSY_SECONDS = 60
CACHE_KIBIBYTES = 65536  # holds the index pages of about 100,000 documents
APPLICATION_ID = 0x4D745253  # "MtRS" in the header of the file
FORMAT = 3
WITHOUT_LOG = -FORMAT
"""``PRAGMA user_version`` of a file whose log has newer documents; read with the log, the version is `FORMAT`."""
LOG_BYTES = 4 * 2**20
"""Growth of the log after which its documents are taken into the file."""
SCHEMA = "CREATE TABLE documents (_id INTEGER PRIMARY KEY AUTOINCREMENT, document BLOB NOT NULL)"
"""Each collection adds tables of its own, see `matris.stores.database.sqlite.collection`."""
REMEDIES = {
    sqlite3.SQLITE_NOTADB: "not a SQLite database, or damaged; move it away or choose another place for the results",
    sqlite3.SQLITE_CORRUPT: "damaged; restore a copy, or recover the readable part with `sqlite3 FILE .recover`",
    sqlite3.SQLITE_BUSY: f"another process kept it locked for {BUSY_SECONDS} s; wait for that process or stop it",
    sqlite3.SQLITE_FULL: "the disk is full and nothing of this update was stored; free some space and run it again",
    sqlite3.SQLITE_READONLY: "read-only, so nothing can be stored; store new results in another folder. To continue "
    "these, make a copy in a folder that you can write to, by `sqlite3 FILE '.backup COPY'`, not by cp: the newest "
    "documents are in FILE-wal while a process uses FILE",
    sqlite3.SQLITE_CANTOPEN: "the file cannot be opened or created; check that you can write to its folder",
    sqlite3.SQLITE_CONSTRAINT: "documents have the same values where a unique index allows one; remove all but one",
    sqlite3.SQLITE_TOOBIG: "a document is larger than 1 GB; keep large arrays in files, or put fewer into one document",
    sqlite3.SQLITE_IOERR: "the disk failed, or its file system has no locks; choose a folder on a local disk",
}


_CONNECTION: dict[str, Any] = {"isolation_level": None, "check_same_thread": False}
_BY_EFFECTIVE_USER = os.access in os.supports_effective_ids


class SQLiteFile:
    """A connection to one database file, which one thread uses at a time.

    The connection is closed while the process forks, and both processes open it again on next use. SQLite's locks
    belong to a process, so a forked child would rely on locks that it does not hold. Opening it again in the child
    alone would lose documents: the parent, as the last holder of a lock, removes the log that the child writes to.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.lock = threading.RLock()
        self._db: sqlite3.Connection | None = None
        self._wanted = False
        self._snapshot: tuple[int, int, int] | None = None  # of a file that is read as if nobody could change it
        self._marked_up_to = 0  # size of the log (bytes) from which the file is marked again
        _files.add(self)

    def connect(self) -> None:
        """Open the file, and create it if it does not exist; do nothing if it is open.

        Raises
        ------
        StoreError
            If the file is another program's, of another format, damaged, on a network file system, or cannot be
            opened or written.
        """
        with self.lock:
            if self._db is None:
                self._db = self._open()
            self._wanted = True

    def close(self) -> None:
        """Close the file."""
        with self.lock:
            self.pause()
            self._wanted = False

    def pause(self) -> None:
        """Close the file until its next use."""
        if self._db is not None:
            self._db.close()
        self._db = None

    @property
    def is_read_only(self) -> bool:
        """Whether this process may only read the file, or cannot make a log in its folder."""
        file = Path(self.path)
        return file.exists() and not all(
            os.access(place, os.W_OK, effective_ids=_BY_EFFECTIVE_USER) for place in (file, file.parent)
        )

    def _open(self) -> sqlite3.Connection:
        self._snapshot, self._marked_up_to = None, 0
        with self._explained():
            on_network = on_network_disk(self.path)
            Path(self.path).parent.mkdir(parents=True, exist_ok=True)
            if self.is_read_only:
                return self._open_to_read()
            has_log = _log(self.path).exists()
            db = sqlite3.connect(self.path, timeout=BUSY_SECONDS, **_CONNECTION)
            try:
                _prepare(db, self.path, "DELETE" if on_network else "WAL")
                if _lacks_its_log(db, self.path, has_log=has_log):  # a process ended while it marked the file
                    db.execute(f"PRAGMA user_version = {FORMAT}")
            except BaseException:
                db.close()
                raise
            return db

    def _open_to_read(self) -> sqlite3.Connection:
        """
        Open a file that this process may only read.

        SQLite reads a write-ahead log only with a file of shared memory beside it, which it cannot make in a read-only
        folder. Without a log, the file is complete and is read alone, until its state changes.
        """
        state = _state(self.path)
        log = _log(self.path)
        has_log = log.exists() and log.stat().st_size > 0
        address = f"{Path(self.path).as_uri()}?mode=ro{'' if has_log else '&immutable=1'}"
        db = sqlite3.connect(address, uri=True, timeout=BUSY_SECONDS, **_CONNECTION)
        try:
            db.execute(f"PRAGMA cache_size = -{CACHE_KIBIBYTES}")
            _check_format(db, self.path)
            _lacks_its_log(db, self.path, has_log=log.exists())
        except sqlite3.OperationalError as error:
            db.close()
            if not has_log:
                raise
            raise StoreError(
                f"{self.path}: its newest documents are in {log.name}, which SQLite cannot read in a "
                "folder that you cannot write to: copy both files together to another folder, and open the copy "
                f"({error})"
            ) from error
        except BaseException:
            db.close()
            raise
        self._snapshot = None if has_log else state
        return db

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Give the calling thread the connection."""
        with self.lock, self._explained():
            if not self._wanted:
                raise StoreError(f"{self.path} is not connected; call connect() first")
            if self._snapshot is not None and self._snapshot != _state(self.path):  # its owner changes it
                self.pause()
            if self._db is None:  # after a fork
                self._db = self._open()
            yield self._db

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Give the calling thread the connection in a write transaction, which is on disk at the end or rolled back."""
        with self.reading() as db:
            self._mark(db)
            with db:
                db.execute("BEGIN IMMEDIATE")
                yield db

    def _mark(self, db: sqlite3.Connection) -> None:
        """
        Make the file say that it lacks documents, unless it is read together with its log.

        A copy of the file alone would look whole, or empty. The last process that closes the file takes all of the log
        into it, and with it the mark away. This replaces SQLite's automatic checkpoints, which would take it away too.
        """
        log = _log(self.path)
        if not log.exists() or log.stat().st_size < self._marked_up_to:  # there is none on a network disk
            return
        db.execute(f"PRAGMA user_version = {WITHOUT_LOG}")
        db.execute("PRAGMA busy_timeout = 0")  # what readers still need stays in the log
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        db.execute(f"PRAGMA busy_timeout = {1000 * BUSY_SECONDS}")
        db.execute(f"PRAGMA user_version = {FORMAT}")
        self._marked_up_to = log.stat().st_size + LOG_BYTES

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn errors of SQLite, the disk and BSON into a StoreError that says what to do."""
        try:
            yield
        except sqlite3.Error as error:
            remedy = REMEDIES.get(getattr(error, "sqlite_errorcode", 0) & 0xFF, "SQLite refused the operation")
            raise StoreError(f"{self.path}: {remedy} ({error})") from error
        except OSError as error:
            raise StoreError(f"{self.path}: {error.strerror}; choose another place for the results") from error
        except (BSONError, OverflowError) as error:
            raise StoreError(f"{self.path}: a value that BSON cannot hold or read: {error}") from error


def version(db: sqlite3.Connection) -> Version:
    """Return a value that changes with every change of the file, through this connection or another."""
    return db, db.total_changes, db.execute("PRAGMA data_version").fetchone()[0]


_files: weakref.WeakSet[SQLiteFile] = weakref.WeakSet()
_locked: list[SQLiteFile] = []  # while this process forks; no other code holds the locks of two files at once


def _before_fork() -> None:
    for file in list(_files):
        file.lock.acquire()
        _locked.append(file)
        file.pause()


def _after_fork() -> None:
    while _locked:
        _locked.pop().lock.release()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)


def _prepare(db: sqlite3.Connection, path: str, journal: str) -> None:
    """Create the schema of a new file, or check the format of an existing one."""
    db.execute("PRAGMA synchronous = FULL")
    db.execute(f"PRAGMA cache_size = -{CACHE_KIBIBYTES}")
    db.execute("PRAGMA wal_autocheckpoint = 0")  # see SQLiteFile._mark
    if _is_empty(db):
        _set_journal(db, journal)
        with db:
            db.execute("BEGIN IMMEDIATE")
            if _is_empty(db):  # unless another process was faster
                db.execute(SCHEMA)
                db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                db.execute(f"PRAGMA user_version = {FORMAT}")
    _check_format(db, path)
    if db.execute("PRAGMA journal_mode").fetchone()[0].upper() != journal:  # the file was moved to another kind of disk
        _set_journal(db, journal)


def _check_format(db: sqlite3.Connection, path: str) -> None:
    """Raise StoreError for the file of another program, or of another version."""
    if db.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise StoreError(f"{path} is another program's database; choose another place for the results")
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version not in {FORMAT, WITHOUT_LOG}:
        raise StoreError(
            f"{path} has format {version}, and this version of matris-flows reads format {FORMAT} only: "
            "use the version that wrote the file, or choose another place for the results"
        )


def _lacks_its_log(db: sqlite3.Connection, path: str, *, has_log: bool) -> bool:
    """
    Find out whether a file is marked, see `SQLiteFile._mark`.

    Raises
    ------
    StoreError
        If the file is marked, and there was no log beside it before it was opened: it is a copy without its log.
    """
    for _ in range(20):  # another process may be marking it just now
        if db.execute("PRAGMA user_version").fetchone()[0] != WITHOUT_LOG:
            return False
        time.sleep(0.05)
    if has_log:
        return True
    raise StoreError(
        f"{path} lacks its newest documents: it was copied while a process used it, and {Path(path).name}-wal was not. "
        f"Copy it again by `sqlite3 FILE '.backup COPY'`, or by cp when no process uses it. If the original is lost, "
        f"`sqlite3 FILE 'PRAGMA user_version = {FORMAT}'` opens what is left"
    )


def _log(path: str) -> Path:
    """SQLite's write-ahead log of a file."""
    return Path(f"{path}-wal")


def _state(path: str) -> tuple[int, int, int]:
    """Return numbers that change when a process writes to a file or to its log."""
    file, log = Path(path).stat(), _log(path)
    return file.st_mtime_ns, file.st_size, log.stat().st_size if log.exists() else 0


def _is_empty(db: sqlite3.Connection) -> bool:
    return not db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]


def _set_journal(db: sqlite3.Connection, journal: str) -> None:
    """Set the journal mode; SQLite refuses this without waiting while another process does the same."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            db.execute(f"PRAGMA journal_mode = {journal}")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return
