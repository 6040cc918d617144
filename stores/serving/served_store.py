"""The store that a server reads, which may disappear and come back while the server runs."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

from pymongo.errors import PyMongoError

from matris.errors import StoreError
from matris.stores.candidate_store import CandidateStore
from matris.stores.database import DATABASE_FILE
from matris.stores.database.jobstore import chosen_location, is_folder, open_job_store
from matris.stores.database.sqlite.store import SQLiteStore

if TYPE_CHECKING:
    from jobflow.core.store import JobStore

GONE = (StoreError, PyMongoError, sqlite3.Error, OSError)
"""Errors of a store that cannot be read now."""


class Opened(NamedTuple):
    """Job outputs and candidates of one store."""

    jobs: JobStore
    candidates: CandidateStore


class ServedStore:
    """
    A store that is opened on first use, and again if its file was replaced.

    Parameters
    ----------
    location
        Store, as for `matris.stores.database.jobstore.open_job_store`.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     _ = CandidateStore.open(folder)
    ...     ServedStore(folder).open().candidates.query().count()
    0
    >>> ServedStore(folder).open()
    Traceback (most recent call last):
    matris.errors.StoreError: ... holds no results: it has no matris.sqlite
    """

    def __init__(self, location: str | Path | None = None) -> None:
        self.location = location
        self._opened: Opened | None = None
        self._file: tuple[int, int] | None = None
        self._lock = Lock()

    def open(self) -> Opened:
        """
        Open the store.

        Raises
        ------
        StoreError
            If there is none, or it does not answer.
        """
        with self._lock:
            if self._opened is None:
                chosen = chosen_location(self.location)
                if chosen is not None and is_folder(chosen):  # opening would make an empty store
                    _identity(Path(chosen) / DATABASE_FILE)
                jobs = open_job_store(self.location)
                self._opened = Opened(jobs, CandidateStore.beside(jobs))
            docs = self._opened.candidates.docs
            if isinstance(docs, SQLiteStore):  # a removed file can be read as long as it is open
                identity = _identity(Path(docs.path))
                if self._file not in {None, identity}:
                    jobs = open_job_store(self.location)
                    self._opened = Opened(jobs, CandidateStore.beside(jobs))
                self._file = identity
            return self._opened


def _identity(file: Path) -> tuple[int, int]:
    """Return device and number of a file, by which another file under its name is recognised."""
    try:
        state = file.stat()
    except OSError as error:
        raise StoreError(f"{file.parent} holds no results: it has no {file.name}") from error
    return state.st_dev, state.st_ino
