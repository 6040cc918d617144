"""Retries while a store is unavailable."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pymongo.errors import PyMongoError

from matris.errors import StoreError
from matris.relaxation.journal import JournalInUseError

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_ATTEMPTS = 3
"""Number of errors of a chunk's job after which the chunk is given up, with the last error as the reason."""

_STORE_TIMEOUT = 600.0  # seconds that a store may be unavailable
_JOURNAL_TIMEOUT = 60.0  # seconds for an ending process to release its journal


def with_retries[T](action: Callable[[], T], on_retry: Callable[[str], None] = lambda _: None) -> T:
    """
    Call a function, and repeat the call while its store is unavailable or an ending process holds its journal.

    The pause between calls doubles from 1 s to 30 s. After 10 min (1 min for a journal) the error is raised.

    Parameters
    ----------
    action
        Function that may be called repeatedly.
    on_retry
        Function that is called with the reason before every pause.

    Returns
    -------
    object
        Result of `action`.
    """
    start = time.monotonic()
    pause = 1.0
    while True:
        try:
            return action()
        except (PyMongoError, StoreError, JournalInUseError) as error:
            if isinstance(error, StoreError) and not isinstance(error.__cause__, PyMongoError):
                raise
            timeout = _JOURNAL_TIMEOUT if isinstance(error, JournalInUseError) else _STORE_TIMEOUT
            if time.monotonic() - start > timeout:
                raise
            on_retry(str(error))
            time.sleep(pause)
            pause = min(2 * pause, 30.0)
