"""Waiting for a store that is away."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pymongo.errors import PyMongoError

from matris.errors import StoreError
from matris.relaxation.journal import JournalInUseError

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_ATTEMPTS = 3
"""Times the job of a chunk may raise an error; then the chunk is given up, with the last error as the reason."""

_AWAY = 600.0  # seconds that a store may be away
_ENDING = 60.0  # seconds in which a process that ends lets go of its journal


def with_retries[T](action: Callable[[], T], waiting: Callable[[str], None] = lambda _: None) -> T:
    """
    Do something with a store, again and again while it is away, or while a process that ends holds a journal.

    Parameters
    ----------
    action
        May be repeated.
    waiting
        Called with the reason before every wait.
    """
    start = time.monotonic()
    pause = 1.0
    while True:
        try:
            return action()
        except (PyMongoError, StoreError, JournalInUseError) as error:
            if isinstance(error, StoreError) and not isinstance(error.__cause__, PyMongoError):
                raise
            if time.monotonic() - start > (_ENDING if isinstance(error, JournalInUseError) else _AWAY):
                raise
            waiting(str(error))
            time.sleep(pause)
            pause = min(2 * pause, 30.0)
