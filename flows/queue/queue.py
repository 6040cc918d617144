"""A queue of work in a store, for processes on any machines that see it.

An item is waiting, taken, submitted, done or broken. Every change of it is a compare and swap, so that one process gets
it. What is submitted to a cluster's queue nobody takes: a job stands for it there, under the name that the item keeps.
Whoever holds an item counts its beats up; a process that has watched them stand still for long enough, by its own
clock that nobody sets, takes the item over, and the former holder, should it only have been asleep, is told so at its
next beat. No clocks of two machines are ever compared.
"""

from __future__ import annotations

import itertools
import math
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
"""Seconds for which the beats of an item may stand still before another process takes it."""

WAITING, TAKEN, SUBMITTED, DONE, BROKEN = STATES = ("waiting", "taken", "submitted", "done", "broken")
_OPEN = (WAITING, TAKEN, SUBMITTED)

_INDEXES = (
    "stage",
    ["campaign", "state", "cost"],
    ["campaign", "stage", "state", "cost"],
    ["campaign", "state", "swept"],
)
_TRIES = 5
_BATCH = 500


@dataclass(frozen=True)
class WorkItem:
    """
    A piece of work in the hands of who took it.

    Parameters
    ----------
    work_id
        Its name.
    campaign, stage
        What it belongs to.
    cost, n
        Expected effort, of which the greatest is taken first; number of candidates.
    payload
        What is to be done.
    attempts
        How often it was taken, this time included, without being given back untouched.
    deaths
        How often its holder died or fell silent.
    error
        Why it was not finished before.
    owner, token
        The process that holds it, and what proves it.
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
    Items of work in a connected store.

    Where a server is lost in the middle of a change, the driver's error is raised once waiting for the server does not
    help; every method may then be called again.

    Parameters
    ----------
    store
        As `matris.stores.database.jobstore.sibling_store` opens it, key ``work_id``.
    abandoned_after
        Seconds, see `ABANDONED_AFTER`. Holders should beat several times in it.

    Raises
    ------
    StoreError
        If the store cannot be indexed.
    """

    def __init__(self, store: Store, abandoned_after: float = ABANDONED_AFTER) -> None:
        self.abandoned_after = abandoned_after
        self._store = store
        self._beats = itertools.count(1)
        self._watched: dict[str, tuple[tuple[str, int], float]] = {}  # token and beat of an item, and since when
        wanted = store.ensure_index("work_id", unique=True)
        if not isinstance(store, MemoryStore):
            wanted = wanted and all(store.ensure_index(index) for index in _INDEXES)
        if not wanted:
            raise StoreError(f"cannot index {store.name}: check the rights on this store")

    def put(self, items: Iterable[Mapping[str, Any]]) -> None:
        """
        Add items; those whose ``work_id`` is in the queue already stay as they are, whatever became of them.

        Parameters
        ----------
        items
            Each with `work_id`, `campaign`, `stage`, `cost`, `n` and `payload`, as `WorkItem` has them.

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
        Take an item: one that was abandoned, else the costliest that waits.

        Parameters
        ----------
        campaign, stage
            Of the item; without a stage, of any.

        Returns
        -------
        WorkItem or None
            None if nothing waits; what others hold may wait later.
        """
        which = {"campaign": campaign} | ({} if stage is None else {"stage": stage})
        while True:
            found = self._abandoned(which)
            if found is None:
                found = next(self._query({**which, "state": WAITING}, sort={"cost": -1}, limit=1), None)
            if found is None:
                return None
            taken = {
                "state": TAKEN,
                "owner": this_process(),
                "token": uuid.uuid4().hex,
                "beat": 0,
                "attempts": found["attempts"] + 1,
                "deaths": found["deaths"],
                "error": found["error"],
                "taken_at": utc_now(),
            }
            if found["state"] == TAKEN:
                taken |= {"deaths": found["deaths"] + 1, "error": f"{_shown(found['owner'])} died or fell silent"}
            as_seen = {name: found[name] for name in ("work_id", "state", "token", "beat")}
            if self._swap(as_seen, taken):
                return _item({**(self._store.query_one({"work_id": found["work_id"]}) or found), **taken})

    def submit(self, campaign: str, job_name: Callable[[str, int], str]) -> WorkItem | None:
        """
        Take the costliest item that waits for a job of a cluster, which is to be submitted next.

        Parameters
        ----------
        campaign
            Of the item.
        job_name
            Gives the job's name from the item's and the number of jobs that it had before.

        Returns
        -------
        WorkItem or None
            With ``job`` and ``jobs``, how many it has had, in its payload; None if nothing waits.
        """
        while True:
            found = next(self._store.query({"campaign": campaign, "state": WAITING}, sort={"cost": -1}, limit=1), None)
            if found is None:
                return None
            before = found["payload"].get("jobs", 0)
            job = job_name(found["work_id"], before)
            change = {
                "state": SUBMITTED,
                "owner": job,
                "token": uuid.uuid4().hex,
                "attempts": found["attempts"] + 1,
                "payload.job": job,
                "payload.jobs": before + 1,
            }
            if self._swap({name: found[name] for name in ("work_id", "state", "token")}, change):
                payload = found["payload"] | {"job": job, "jobs": before + 1}
                return _item({**found, **change, "payload": payload})

    def submitted(self, campaign: str) -> list[WorkItem]:
        """List what is submitted."""
        return [_item(found) for found in self._store.query({"campaign": campaign, "state": SUBMITTED})]

    def beat(self, item: WorkItem) -> bool:
        """Show that the item is being worked on; False if it is another's by now."""
        return self._swap(_held(item), {"beat": next(self._beats)})

    def note(self, item: WorkItem, **payload: Any) -> WorkItem:
        """
        Change the payload, for whoever takes the item next.

        Parameters
        ----------
        item
            Held.
        payload
            New values by name.

        Raises
        ------
        StoreError
            If it is another's by now.
        """
        if not self._swap(_held(item), {f"payload.{name}": value for name, value in payload.items()}):
            raise StoreError(f"{item.work_id} was taken over by another process; leave it to that one")
        return replace(item, payload=item.payload | payload)

    def finish(self, item: WorkItem, **times: datetime) -> bool:
        """
        Record that the item is done; False if it is another's by now, whose result counts.

        Parameters
        ----------
        item
            Held, or submitted.
        times
            ``taken_at`` and ``ended_at`` of a job that ran elsewhere, both by one clock.
        """
        return self._end(item, {"state": DONE, "error": None, **times})

    def give_back(self, item: WorkItem, error: str | None = None, *, died: bool = False) -> bool:
        """
        Let others take the item.

        Parameters
        ----------
        item
            Held, or submitted.
        error
            Why it was not finished; without, it is as if it had never been taken.
        died
            Whether its job died of it, or with it.

        Returns
        -------
        bool
            False as in `beat`.
        """
        untouched = {"attempts": item.attempts - 1} if error is None else {"error": error}
        return self._end(item, {"state": WAITING, "deaths": item.deaths + died, **untouched})

    def give_up(self, item: WorkItem, error: str) -> bool:
        """Record that the item cannot be done, and why; False as in `beat`."""
        return self._end(item, {"state": BROKEN, "error": error})

    def revive(self, campaign: str) -> None:
        """Let what was given up be tried again."""
        for found in list(self._query({"campaign": campaign, "state": BROKEN})):
            as_seen = {name: found[name] for name in ("work_id", "state", "token")}
            self._swap(as_seen, {"state": WAITING, "attempts": 0, "deaths": 0})

    def is_open(self, campaign: str) -> bool:
        """Ask whether anything waits, is being worked on or submitted."""
        return any(self._store.count({"campaign": campaign, "state": state}) for state in _OPEN)

    def open_items(self, campaign: str, stage: str) -> Iterator[dict[str, Any]]:
        """Yield what waits, is being worked on or submitted, as stored, payload and all."""
        for state in _OPEN:
            yield from self._store.query({"campaign": campaign, "stage": stage, "state": state})

    def items(self, campaign: str) -> Iterator[dict[str, Any]]:
        """Yield all items as stored but for what is to be done, in the order in which they were added."""
        known = ["work_id", "stage", "state", "cost", "n", "deaths", "error", "taken_at", "ended_at", "payload.job"]
        yield from self._store.query({"campaign": campaign}, properties=known, sort={"added_at": 1})

    def given_up(self, campaign: str) -> Iterator[dict[str, Any]]:
        """Yield what was given up, as stored, payload and all."""
        yield from self._store.query({"campaign": campaign, "state": BROKEN})

    def swept(self, campaign: str) -> Iterator[str]:
        """Yield the ids of what is done, for the caller to clear up after it; once each, if that does not raise."""
        for found in list(self._query({"campaign": campaign, "state": DONE, "swept": False})):
            yield found["work_id"]
            set_fields(self._store, {found["work_id"]: {"swept": True}})

    def counts(self, campaign: str) -> dict[str, dict[str, int]]:
        """Count the items of each stage by state."""
        return {
            stage: {
                state: self._store.count({"campaign": campaign, "stage": stage, "state": state}) for state in STATES
            }
            for stage in sorted(self._store.distinct("stage", {"campaign": campaign}))
        }

    def _abandoned(self, which: Mapping[str, str]) -> dict[str, Any] | None:
        """Find an item whose holder has ended, or sent no heartbeat while watched for `abandoned_after`."""
        now = time.monotonic()  # before reading: should this process sleep in between, it has seen less, not more
        for found in self._query({**which, "state": TAKEN}):
            mark = (found["token"], found["beat"])
            if is_gone(found["owner"]):
                return found
            seen, since = self._watched.get(found["work_id"], (None, now))
            if seen != mark:
                self._watched[found["work_id"]] = (mark, now)
            elif now - since > self.abandoned_after:
                return found
        return None

    def _query(self, criteria: Mapping[str, Any], **page: Any) -> Iterator[dict[str, Any]]:
        """Yield items without their payload."""
        known = ["work_id", "state", "owner", "token", "beat", "attempts", "deaths", "error"]
        found: Iterator[dict[str, Any]] = self._store.query(dict(criteria), properties=known, **page)
        return found

    def _end(self, item: WorkItem, ending: Mapping[str, Any]) -> bool:
        """Let go of an item; also True if that was done before, as when an answer was lost on the way."""
        if self._swap(_held(item), {"ended_at": utc_now(), **ending, "owner": None}):
            return True
        return bool(self._store.count({"work_id": item.work_id, "token": item.token, "state": ending["state"]}))

    def _swap(self, expected: Mapping[str, Any], change: Mapping[str, Any]) -> bool:
        """Compare and swap. Where the connection was lost, the item tells whether the change had arrived."""
        lost = False
        for left in reversed(range(_TRIES)):
            try:
                if set_if(self._store, expected, {**change, "last_updated": utc_now()}):
                    return True
                by = {"token": expected["token"], **change}
                return lost and bool(self._store.count({"work_id": expected["work_id"], **by}))
            except ServerSelectionTimeoutError:
                raise
            except AutoReconnect:
                lost = True
                if not left:
                    raise
        raise AssertionError("unreachable")


def _item(found: Mapping[str, Any]) -> WorkItem:
    return WorkItem(**{field.name: found[field.name] for field in fields(WorkItem)})


def _held(item: WorkItem) -> dict[str, Any]:
    return {"work_id": item.work_id, "token": item.token, "state": {"$in": [TAKEN, SUBMITTED]}}


def _shown(owner: str) -> str:
    host, pid = owner.split(":")[:2]
    return f"process {pid} on {host}"
