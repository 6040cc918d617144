"""How far a campaign is, from its record and its queue: a few hundred small documents, however many candidates."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any

from matris.flows.campaign.finder import campaign_record
from matris.flows.queue.queue import BROKEN, DONE, SUBMITTED, TAKEN, WAITING, WorkQueue
from matris.stores.database.jobstore import open_job_store, sibling_store
from matris.stores.report.outcomes import kind, reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from maggma.core import Store

_STATES = (WAITING, TAKEN, DONE, BROKEN)  # what is submitted waits or is taken there
_RUNNING = {"RUNNING", "BATCH_RUNNING", "RUN_FINISHED", "DOWNLOADED"}
_ENDED = {
    "COMPLETED": "ended",
    "FAILED": "lost",
    "REMOTE_ERROR": "lost",
    "STOPPED": "lost",
    "USER_STOPPED": "lost",
}

_RECENT = 50  # chunks by which the rate is taken
_LOST = 5000  # documents of lost candidates that are read for their reasons


@dataclass(frozen=True)
class StageStatus:
    """
    One stage of a campaign.

    Attributes
    ----------
    stage
        ``"relax"`` or a property.
    chunks, candidates
        Number by state: ``"waiting"``, ``"taken"``, ``"done"``, ``"broken"``.
    rate
        Candidates per second, by all processes that work now; None while nobody works or no chunk is done.
    remaining
        Seconds until the end at this rate; None as `rate`.
    """

    stage: str
    chunks: Mapping[str, int]
    candidates: Mapping[str, int]
    rate: float | None
    remaining: float | None


@dataclass(frozen=True)
class Status:
    """
    How far a campaign is.

    Attributes
    ----------
    name, title, checkpoint
        Of the campaign, and the key of its checkpoint.
    phase
        ``"reading"``, ``"running"``, ``"queued"`` (a cluster's jobs wait), ``"waiting"`` (there is work, but nobody
        works), ``"cancelled"``, ``"finished"``.
    read, identical, known
        Candidates read; of them those read before, and those whose results were in the store or the queue.
    dropped
        Candidates that were not computed, by stage and kind of reason.
    stages
        In the order in which they came up.
    lost
        Candidates that were computed and lost, by kind of reason.
    broken
        Reasons for which chunks were given up.
    deaths
        How often a process or job died or fell silent over a chunk.
    cluster
        Where the campaign was submitted to, for people to read; empty if it was not.
    jobs
        Chunks that are submitted, by how their jobs are: ``"running"``, ``"queued"``, ``"ended"``, ``"lost"``.
    """

    name: str
    title: str
    checkpoint: str
    phase: str
    read: int
    identical: int
    known: int
    dropped: Mapping[str, Mapping[str, int]]
    stages: Sequence[StageStatus]
    lost: Mapping[str, int] = field(default_factory=dict)
    broken: Sequence[str] = ()
    deaths: int = 0
    cluster: str = ""
    jobs: Mapping[str, int] = field(default_factory=dict)


def status(
    record: Mapping[str, Any],
    items: Iterable[Mapping[str, Any]],
    lost: Mapping[str, int],
    jobs: Mapping[str, Mapping[str, Any]] | None = None,
) -> Status:
    """
    Sum a campaign up.

    The rate comes from how long chunks took: each by the clock of the process that worked on it, from taking to ending.
    Of these the median counts, so that a clock that jumps spoils one chunk and not the rate. The present time is not
    asked for, and clocks of two machines are never compared.

    Parameters
    ----------
    record
        Of the campaign, as `matris.flows.campaign.campaign.Campaign.record` reads it.
    items
        Of its queue, see `matris.flows.queue.queue.WorkQueue.items`.
    lost
        Candidates that were computed and lost, by kind of reason.
    jobs
        Of a cluster, by id, for what is submitted: ``state`` and ``start_time`` as jobflow-remote keeps them.

    Returns
    -------
    Status
    """
    by_stage: dict[str, list[Mapping[str, Any]]] = {}
    of_jobs: Counter[str] = Counter()
    for item in items:
        seen = item
        if item["state"] == SUBMITTED:
            job = (jobs or {}).get(_job(item) or "", {})
            how = "running" if job.get("state") in _RUNNING else _ENDED.get(job.get("state", ""), "queued")
            of_jobs[how] += 1
            seen = {**item, "state": TAKEN if how == "running" else WAITING, "taken_at": job.get("start_time")}
        by_stage.setdefault(item["stage"], []).append(seen)
    stages = [_stage(name, of_stage) for name, of_stage in by_stage.items()]
    everything = [item for of_stage in by_stage.values() for item in of_stage]
    states = Counter(item["state"] for item in everything)
    intake = record.get("intake") or {}
    where = record.get("submission")
    return Status(
        name=record["campaign_id"],
        title=record["title"],
        checkpoint=record["checkpoint"]["key"],
        phase=_phase(record, states, queued=bool(of_jobs)),
        read=intake.get("read", 0),
        identical=intake.get("identical", 0),
        known=intake.get("known", 0),
        dropped=intake.get("dropped") or {},
        stages=stages,
        lost=lost,
        broken=sorted({item.get("error") or "no reason is known" for item in everything if item["state"] == BROKEN}),
        deaths=sum(item.get("deaths") or 0 for item in everything),
        cluster=f"{', '.join(where['workers'])} of project {where['project']}" if where else "",
        jobs=dict(of_jobs),
    )


def read_status(location: str | Path | None = None, name: str | None = None) -> Status:
    """
    Read how far a campaign is, without its checkpoint, and without changing anything.

    Parameters
    ----------
    location
        Store, as for `matris.stores.database.jobstore.open_job_store`.
    name
        Name of the campaign, or its first characters, as for `matris.flows.campaign.finder.campaign_record`.

    Raises
    ------
    StoreError
        If there is no such campaign.
    """
    job_store = open_job_store(location)
    record = campaign_record(job_store, name, location)
    queue = WorkQueue(sibling_store(job_store, "work_queue", "work_id"))
    items = list(queue.items(record["campaign_id"]))
    documents = sibling_store(job_store, "candidates", "document_id")
    ran = [name for item in items if item["state"] == DONE for name in (item["work_id"], _job(item)) if name]
    collection = (record.get("submission") or {}).get("jobs_collection")
    jobs = {}
    if collection and (there := [name for item in items if item["state"] == SUBMITTED and (name := _job(item))]):
        queue = sibling_store(job_store, collection, "uuid")
        known = ["uuid", "state", "start_time"]
        found = queue.query({"uuid": {"$in": there}}, properties=known, sort={"index": 1})
        jobs = {job["uuid"]: job for job in found}
    return status(record, items, lost_reasons(documents, ran), jobs)


def lost_reasons(documents: Store, work_ids: Sequence[str]) -> dict[str, int]:
    """
    Count why candidates were lost in chunks that are done, by kind of reason, the most frequent first.

    Parameters
    ----------
    documents
        Connected store of candidate documents; only those that were lost are read, and no more than some thousands.
    work_ids
        Of the chunks, whose jobs have these ids.
    """
    jobs = set(work_ids)
    kinds: Counter[str] = Counter()
    fields = ["state", "error", "job_uuid", "n_steps"]
    for state in ("failed", "max_steps", "rejected"):
        criteria = {"state": state, "job_uuid": {"$ne": None}}
        for document in documents.query(criteria, properties=fields, limit=_LOST):
            if document["job_uuid"] in jobs:
                kinds["out of steps" if state == "max_steps" else kind(reason(document))] += 1
    return dict(kinds.most_common())


def _stage(name: str, items: Sequence[Mapping[str, Any]]) -> StageStatus:
    chunks, candidates = Counter[str](), Counter[str]()
    effort = Counter[str]()
    for item in items:
        chunks[item["state"]] += 1
        candidates[item["state"]] += item["n"]
        effort[item["state"]] += item["cost"]
    done = [(item, seconds) for item in items if (seconds := _seconds(item))]
    done = sorted(done, key=lambda each: each[0]["ended_at"])[-_RECENT:]
    rate = remaining = None
    if done and chunks[TAKEN]:
        rate = chunks[TAKEN] * median(item["n"] / seconds for item, seconds in done)
        pace = chunks[TAKEN] * median((item["cost"] or item["n"]) / seconds for item, seconds in done)
        left = effort if all(item["cost"] for item, _ in done) else candidates
        remaining = (left[WAITING] + left[TAKEN] / 2) / pace  # those in work are half done, on average
    return StageStatus(
        name,
        {state: chunks[state] for state in _STATES},
        {state: candidates[state] for state in _STATES},
        rate,
        remaining,
    )


def _seconds(item: Mapping[str, Any]) -> float | None:
    """Time from taking a chunk to its end; None if it is not done, or the clock was put back in between."""
    if item["state"] != DONE or item.get("taken_at") is None or item.get("ended_at") is None:
        return None
    seconds: float = (item["ended_at"] - item["taken_at"]).total_seconds()
    return seconds if seconds > 0 else None


def _phase(record: Mapping[str, Any], states: Mapping[str, int], *, queued: bool) -> str:
    if record.get("reading"):
        return "reading"
    if states.get(TAKEN):
        return "running"
    if not states.get(WAITING):
        return "finished"
    if record.get("cancelled"):
        return "cancelled"
    return "queued" if queued else "waiting"


def _job(item: Mapping[str, Any]) -> str | None:
    """Job of a cluster that a chunk had last."""
    return (item.get("payload") or {}).get("job")
