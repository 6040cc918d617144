"""Steps of a campaign that only one process at a time may run."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from matris.flows.queue.heartbeat import Heartbeat

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from matris.flows.campaign.campaign import Campaign

_POLL_INTERVAL = 0.5  # seconds between attempts to take the turn


@contextmanager
def turn(campaign: Campaign, step: str, meanwhile: Callable[[], object] = lambda: None) -> Iterator[None]:
    """
    Run a step of a campaign in one process at a time.

    Other processes wait here. If the process that holds the turn dies, another one takes it over.

    Parameters
    ----------
    campaign
        Open campaign.
    step
        Name of the step.
    meanwhile
        Function that is called again and again while the process waits.
    """
    queue, name = campaign.queue, f"{campaign.name} {step}"
    queue.put([{"work_id": name, "campaign": name, "stage": step, "cost": 0.0, "n": 0, "payload": {}}])
    while (item := queue.take(name)) is None:
        meanwhile()
        time.sleep(_POLL_INTERVAL)
    try:
        with Heartbeat(queue, item):
            yield
    finally:
        queue.give_back(item)
