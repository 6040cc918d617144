"""Signs of life of whoever holds an item of the queue."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pymongo.errors import PyMongoError

from matris.errors import MatrisError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matris.flows.campaign import Campaign
    from matris.stores.work_queue import WorkItem, WorkQueue

_BEATS = 6  # within the others' patience
_PAUSE = 0.5  # seconds between looks whether it is one's turn

logger = logging.getLogger(__name__)


class Pulse:
    """
    Beats for a taken item in a thread of its own, as long as the context is open.

    Parameters
    ----------
    queue
        Where the item is.
    item
        Taken by this process.
    """

    def __init__(self, queue: WorkQueue, item: WorkItem) -> None:
        self._queue = queue
        self._item = item
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="pulse", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._over.wait(self._queue.patience / _BEATS):
            try:
                if not self._queue.beat(self._item):
                    return  # another has it: what this one computes is the same, and will not count
            except (PyMongoError, MatrisError, OSError):
                logger.warning("the store does not answer; %s goes on", self._item.work_id)


@contextmanager
def turn(campaign: Campaign, what: str) -> Iterator[None]:
    """
    Let one runner of a campaign do something at a time; the others wait here, also for one that has died.

    Parameters
    ----------
    campaign
        Open.
    what
        Is to be done.
    """
    queue, name = campaign.queue, f"{campaign.name} {what}"
    queue.put([{"work_id": name, "campaign": name, "stage": what, "cost": 0.0, "n": 0, "payload": {}}])
    while (item := queue.take(name)) is None:
        time.sleep(_PAUSE)
    try:
        with Pulse(queue, item):
            yield
    finally:
        queue.give_back(item)
