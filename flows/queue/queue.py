"""
A queue of work in a store, for processes on any machines that can access the store.

An item is waiting, taken, submitted, done or broken. Every change is a compare and swap, so that only one process gets
an item. No process takes an item that was submitted to a cluster: a job with the item's name represents it there.

The holder of an item sends heartbeats by incrementing a counter. Another process that sees no increment for
`ABANDONED_AFTER` seconds, by its own monotonic clock, takes the item over. A former holder that was only suspended
learns of this at its next heartbeat. Clocks of two machines are never compared.
"""

from __future__ import annotations

import itertools
import math
import random
import time
import uuid
from dataclasses import dataclass, fields, replace
from itertools import batched
from typing import TYPE_CHECKING, Any

from maggma.stores import MemoryStore
from pymongo.errors import AutoReconnect, ServerSelectionTimeoutError

from matris.errors import StoreError
from matris.flows.queue.process_identity import is_gone, this_process
from matris.stores.database.atomic import add_missing, set_fields, set_if
from matris.stores.documents.documents import utc_now

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from datetime import datetime

    from maggma.core import Store

ABANDONED_AFTER = 300.0
"""Seconds without a heartbeat after which an item counts as abandoned and another process takes it."""

WAITING, TAKEN, SUBMITTED, DONE, BROKEN = STATES = ("waiting", "taken", "submitted", "done", "broken")
_OPEN = (WAITING, TAKEN, SUBMITTED)

_INDEXES = (
    "stage",
    ["campaign", "state", "cost"],
    ["campaign", "stage", "state", "cost"],
    ["campaign", "state", "swept"],
    ["campaign", "added_at"],
)
_MAX_TRIES = 5  # of a change while the connection is lost
_BATCH = 500  # items in one write
_MAX_CHOICE = 1024  # costliest items among which a process chooses, after others were faster


@dataclass(frozen=True)
class WorkItem:
    """
    An item of the queue, held by a process or submitted to a cluster.

    Parameters
    ----------
    work_id
        Id of the item.
    campaign, stage
        Campaign and stage of the item.
    cost
        Expected cost; the costliest item is taken first.
    n
        Number of candidates.
    payload
        Description of the work.
    attempts
        Number of times the item was taken, including this time, without those after which it was given back untouched.
    deaths
        Number of holders that died or stopped sending heartbeats.
    error
        Reason for which it was not finished before.
    owner
        Process that holds the item, or job that represents it.
    token
        Random token of this holding, which proves the ownership.
    """

    work_id: str
    campaign: str
    stage: str
    cost: float
    n: int
    payload: dict[str, Any]
    attempts: int
    deaths: int
    error: str | None
    owner: str
    token: str


class WorkQueue:
    """
    Work items in a connected store.

    If the connection to a server is lost during a change and does not come back, methods raise the error of the driver;
    every method may then be called again.

    Parameters
    ----------
    store
        Store from `matris.stores.database.jobstore.sibling_store`, with the key ``work_id``.
    abandoned_after
        Seconds without a heartbeat after which an item counts as abandoned. Holders should send several heartbeats in
        this time.

    Raises
    ------
    StoreError
        If the store cannot be indexed.

    Examples
    --------
    >>> from matris.flows.queue.queue import WorkQueue
    >>> from matris.stores.database.jobstore import open_job_store, sibling_store
    >>> queue = WorkQueue(sibling_store(open_job_store("results"), "work_queue", "work_id"))
    >>> item = {"work_id": "a", "campaign": "oxides", "stage": "relax", "cost": 1.0, "n": 2, "payload": {}}
    >>> queue.put([item])
    >>> taken = queue.take("oxides")
    >>> taken.work_id, taken.attempts, queue.take("oxides")
    ('a', 1, None)
    >>> queue.finish(taken)
    True
    >>> queue.is_open("oxides")
    False
    """

    def __init__(self, store: Store, abandoned_after: float = ABANDONED_AFTER) -> None:
        self.abandoned_after = abandoned_after
        self._store = store
        self._beats = itertools.count(1)
        self._watched: dict[
            str, tuple[tuple[str, int], float]
        ] = {}  # token and heartbeat of an item, and the time of its last change
        indexed = store.ensure_index("work_id", unique=True)
        if not isinstance(store, MemoryStore):
            indexed = indexed and all(store.ensure_index(index) for index in _INDEXES)
        if not indexed:
            raise StoreError(f"cannot index {store.name}: check the rights on this store")

    def put(self, items: Iterable[Mapping[str, Any]]) -> None:
        """
        Add items; an item whose ``work_id`` is in the queue already stays unchanged, in any state.

        Parameters
        ----------
        items
            Items with the fields ``work_id``, ``campaign``, ``stage``, ``cost``, ``n`` and ``payload`` of `WorkItem`.

        Raises
        ------
        StoreError
            If a cost is not a finite number, or an item cannot be stored.
        """
        fresh = {"state": WAITING, "owner": None, "token": None, "beat": 0, "error": None, "swept": False}
        fresh |= {"attempts": 0, "deaths": 0}
        for batch in batched(items, _BATCH):
            for item in batch:
                if not math.isfinite(item["cost"]):
                    raise StoreError(f"the cost of {item['work_id']} is {item['cost']}; give a finite number")
            now = utc_now()
            add_missing(self._store, [{**item, **fresh, "added_at": now, "last_updated": now} for item in batch])

    def take(self, campaign: str, stage: str | None = None) -> WorkItem | None:
        """
        Take an item: an abandoned one, else the costliest waiting one.

        A process that loses an item to another one chooses among the two costliest, then among four, and so on: many
        processes that start at once do not all wait for the same item.

        Parameters
        ----------
        campaign, stage
            Campaign and stage of the item. Default: any stage.

        Returns
        -------
        WorkItem or None
            None if no item waits; items that other processes hold may be given back later.
        """
        criteria = {"campaign": campaign} | ({} if stage is None else {"stage": stage})
        item, n_choice = self._abandoned(criteria), 1
        while True:
            if item is None:
                waiting = list(self._query({**criteria, "state": WAITING}, sort={"cost": -1}, limit=n_choice))
                if not waiting:
                    return None
                item = random.choice(waiting)
            change = {
                "state": TAKEN,
                "owner": this_process(),
                "token": uuid.uuid4().hex,
                "beat": 0,
                "finished": 0,
                "attempts": item["attempts"] + 1,
                "deaths": item["deaths"],
                "error": item["error"],
                "taken_at": utc_now(),
            }
            if item["state"] == TAKEN:
                change |= {"deaths": item["deaths"] + 1, "error": f"{_owner_name(item['owner'])} died or fell silent"}
            expected = {name: item[name] for name in ("work_id", "state", "token", "beat")}
            if self._swap(expected, change):
                return _item({**(self._store.query_one({"work_id": item["work_id"]}) or item), **change})
            item, n_choice = None, min(2 * n_choice, _MAX_CHOICE)

    def submit(self, campaign: str, job_name: Callable[[str, int], str]) -> WorkItem | None:
        """
        Mark the costliest waiting item as submitted, for the caller to submit its job.

        Parameters
        ----------
        campaign
            Campaign of the item.
        job_name
            Function that returns the id of the job from the id of the item and the number of its earlier jobs.

        Returns
        -------
        WorkItem or None
            Item with ``job``, the id of the job, and ``jobs``, the number of its jobs, in its payload; None if no item
            waits.
        """
        criteria = {"campaign": campaign, "state": WAITING}
        while True:
            item = next(self._store.query(criteria, sort={"cost": -1}, limit=1), None)
            if item is None:
                return None
            n_before = item["payload"].get("jobs", 0)
            job = job_name(item["work_id"], n_before)
            change = {
                "state": SUBMITTED,
                "owner": job,
                "token": uuid.uuid4().hex,
                "attempts": item["attempts"] + 1,
                "payload.job": job,
                "payload.jobs": n_before + 1,
            }
            if self._swap({name: item[name] for name in ("work_id", "state", "token")}, change):
                payload = item["payload"] | {"job": job, "jobs": n_before + 1}
                return _item({**item, **change, "payload": payload})

    def submitted(self, campaign: str) -> list[WorkItem]:
        """List the submitted items."""
        return [_item(document) for document in self._store.query({"campaign": campaign, "state": SUBMITTED})]

    def beat(self, item: WorkItem, finished: int = 0) -> bool:
        """
        Send a heartbeat for a held item; False if another process has taken it over.

        Parameters
        ----------
        item
            Item that this process holds.
        finished
            Number of its candidates that are done, for those who watch the progress.
        """
        return self._swap(_held(item), {"beat": next(self._beats), "finished": finished})

    def note(self, item: WorkItem, **payload: Any) -> WorkItem:
        """
        Change the payload of a held item; a later holder sees the change.

        Parameters
        ----------
        item
            Item that this process holds.
        payload
            New values by name.

        Returns
        -------
        WorkItem
            Item with the changed payload.

        Raises
        ------
        StoreError
            If another process has taken the item over.
        """
        if not self._swap(_held(item), {f"payload.{name}": value for name, value in payload.items()}):
            raise StoreError(f"{item.work_id} was taken over by another process, which continues it")
        return replace(item, payload=item.payload | payload)

    def finish(self, item: WorkItem, **times: datetime) -> bool:
        """
        Record that an item is done.

        Parameters
        ----------
        item
            Held or submitted item.
        times
            ``taken_at`` and ``ended_at`` of a job that ran elsewhere, both by the same clock.

        Returns
        -------
        bool
            False if another process has taken the item over; then the result of that process counts.
        """
        return self._end(item, {"state": DONE, "error": None, **times})

    def give_back(self, item: WorkItem, error: str | None = None, *, died: bool = False) -> bool:
        """
        Make an item available to other processes.

        Parameters
        ----------
        item
            Held or submitted item.
        error
            Reason for which it was not finished. Without a reason, this attempt is not counted.
        died
            Whether its job died.

        Returns
        -------
        bool
            False if another process has taken the item over.
        """
        untouched = {"attempts": item.attempts - 1} if error is None else {"error": error}
        return self._end(item, {"state": WAITING, "deaths": item.deaths + died, **untouched})

    def give_up(self, item: WorkItem, error: str) -> bool:
        """Record that an item cannot be done, and the reason; False if another process has taken it over."""
        return self._end(item, {"state": BROKEN, "error": error})

    def revive(self, campaign: str) -> None:
        """Make items that were given up available again."""
        for item in list(self._query({"campaign": campaign, "state": BROKEN})):
            expected = {name: item[name] for name in ("work_id", "state", "token")}
            self._swap(expected, {"state": WAITING, "attempts": 0, "deaths": 0})

    def remove(self, work_ids: Iterable[str]) -> None:
        """Remove items in any state."""
        self._store.remove_docs({"work_id": {"$in": list(work_ids)}})

    def is_open(self, campaign: str) -> bool:
        """Whether any item is waiting, taken or submitted."""
        return next(self._query({"campaign": campaign, "state": {"$in": list(_OPEN)}}, limit=1), None) is not None

    def n_waiting(self, campaign: str) -> int:
        """Count the waiting items."""
        n: int = self._store.count({"campaign": campaign, "state": WAITING})
        return n

    def open_items(self, campaign: str, stage: str) -> Iterator[dict[str, Any]]:
        """Yield the stored documents of waiting, taken and submitted items."""
        for state in _OPEN:
            yield from self._store.query({"campaign": campaign, "stage": stage, "state": state})

    def items(self, campaign: str) -> Iterator[dict[str, Any]]:
        """Yield the stored documents of all items, without most of the payload, in the order of adding."""
        names = ["work_id", "stage", "state", "cost", "n", "finished", "deaths", "error"]
        names += ["taken_at", "ended_at", "payload.job"]
        yield from self._store.query({"campaign": campaign}, properties=names, sort={"added_at": 1})

    def given_up(self, campaign: str) -> Iterator[dict[str, Any]]:
        """Yield the stored documents of items that were given up."""
        yield from self._store.query({"campaign": campaign, "state": BROKEN})

    def swept(self, campaign: str) -> Iterator[str]:
        """Yield the ids of done items, for the caller to clean up; each id once, unless cleaning up raises."""
        for item in list(self._query({"campaign": campaign, "state": DONE, "swept": False})):
            yield item["work_id"]
            set_fields(self._store, {item["work_id"]: {"swept": True}})

    def counts(self, campaign: str) -> dict[str, dict[str, int]]:
        """Count the items of each stage by state."""
        return {
            stage: {
                state: self._store.count({"campaign": campaign, "stage": stage, "state": state}) for state in STATES
            }
            for stage in sorted(self._store.distinct("stage", {"campaign": campaign}))
        }

    def _abandoned(self, criteria: Mapping[str, str]) -> dict[str, Any] | None:
        """Find an item whose holder has ended, or sent no heartbeat while watched for `abandoned_after` seconds."""
        now = (
            time.monotonic()
        )  # before the query: if this process is suspended during it, the watched time is too short
        for item in self._query({**criteria, "state": TAKEN}):
            heartbeat = (item["token"], item["beat"])
            if is_gone(item["owner"]):
                return item
            last, since = self._watched.get(item["work_id"], (None, now))
            if last != heartbeat:
                self._watched[item["work_id"]] = (heartbeat, now)
            elif now - since > self.abandoned_after:
                return item
        return None

    def _query(self, criteria: Mapping[str, Any], **page: Any) -> Iterator[dict[str, Any]]:
        """Yield the documents of items, without their payload."""
        names = ["work_id", "state", "owner", "token", "beat", "attempts", "deaths", "error"]
        documents: Iterator[dict[str, Any]] = self._store.query(dict(criteria), properties=names, **page)
        return documents

    def _end(self, item: WorkItem, ending: Mapping[str, Any]) -> bool:
        """Release an item; also True if an earlier call did it, whose answer was lost."""
        if self._swap(_held(item), {"ended_at": utc_now(), **ending, "owner": None}):
            return True
        return bool(self._store.count({"work_id": item.work_id, "token": item.token, "state": ending["state"]}))

    def _swap(self, expected: Mapping[str, Any], change: Mapping[str, Any]) -> bool:
        """Compare and swap; after a lost connection, read from the item whether the change was made."""
        connection_lost = False
        for tries_left in reversed(range(_MAX_TRIES)):
            try:
                if set_if(self._store, expected, {**change, "last_updated": utc_now()}):
                    return True
                changed = {"work_id": expected["work_id"], "token": expected["token"], **change}
                return connection_lost and bool(self._store.count(changed))
            except ServerSelectionTimeoutError:
                raise
            except AutoReconnect:
                connection_lost = True
                if not tries_left:
                    raise
        raise AssertionError("unreachable")


def _item(document: Mapping[str, Any]) -> WorkItem:
    return WorkItem(**{field.name: document[field.name] for field in fields(WorkItem)})


def _held(item: WorkItem) -> dict[str, Any]:
    """Make the criteria for an item that is still in the same hands."""
    return {"work_id": item.work_id, "token": item.token, "state": {"$in": [TAKEN, SUBMITTED]}}


def _owner_name(owner: str) -> str:
    """Describe the process that holds an item."""
    host, pid = owner.split(":")[:2]
    return f"process {pid} on {host}"
