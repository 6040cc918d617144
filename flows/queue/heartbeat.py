"""Heartbeat of the process that holds a queue item."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from pymongo.errors import PyMongoError

from matris.errors import MatrisError

if TYPE_CHECKING:
    from matris.flows.queue.queue import WorkItem, WorkQueue

_BEATS = 6  # heartbeats within the time after which other processes count the item as abandoned

logger = logging.getLogger(__name__)


class Heartbeat:
    """
    Context in which a thread sends heartbeats for an item that this process has taken.

    Parameters
    ----------
    queue
        Queue that holds the item.
    item
        Item that this process has taken.
    """

    def __init__(self, queue: WorkQueue, item: WorkItem) -> None:
        self._queue = queue
        self._item = item
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._over.wait(self._queue.abandoned_after / _BEATS):
            try:
                if not self._queue.beat(self._item):
                    return  # another process has the item; results of this one are the same and are dropped
            except (PyMongoError, MatrisError, OSError):
                logger.warning("the store does not answer; work on %s continues", self._item.work_id)
