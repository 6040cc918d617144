"""Steps of a campaign that one process at a time may run."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from matris.flows.queue.heartbeat import Heartbeat

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matris.flows.campaign.campaign import Campaign

_PAUSE = 0.5  # seconds between attempts to take the turn


@contextmanager
def turn(campaign: Campaign, what: str) -> Iterator[None]:
    """
    Run a step of a campaign in one process at a time.

    Other processes wait here. If the process that holds the turn dies, another takes it over.

    Parameters
    ----------
    campaign
        An open campaign.
    what
        Name of the step.
    """
    queue, name = campaign.queue, f"{campaign.name} {what}"
    queue.put([{"work_id": name, "campaign": name, "stage": what, "cost": 0.0, "n": 0, "payload": {}}])
    while (item := queue.take(name)) is None:
        time.sleep(_PAUSE)
    try:
        with Heartbeat(queue, item):
            yield
    finally:
        queue.give_back(item)
