"""Heartbeat of the process that holds a queue item."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Self

from pymongo.errors import PyMongoError

from matris.errors import MatrisError

if TYPE_CHECKING:
    from matris.flows.queue.queue import WorkItem, WorkQueue

_BEATS = 6  # heartbeats within the time after which other processes count the item as abandoned
_NEWS_INTERVAL = 10.0  # seconds between heartbeats that tell of finished candidates

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

    Attributes
    ----------
    finished
        Number of candidates of the item that are done; the heartbeats tell it.
    """

    def __init__(self, queue: WorkQueue, item: WorkItem) -> None:
        self.finished = 0
        self._queue = queue
        self._item = item
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _beat(self) -> None:
        interval = self._queue.abandoned_after / _BEATS
        told, silent = 0, 0.0
        while not self._over.wait(pause := min(_NEWS_INTERVAL, interval)):
            silent += pause
            if self.finished == told and silent < interval:
                continue
            told, silent = self.finished, 0.0
            try:
                if not self._queue.beat(self._item, told):
                    return  # another process has the item; results of this one are the same and are dropped
            except (PyMongoError, MatrisError, OSError):
                logger.warning("the store does not answer; work on %s continues", self._item.work_id)
