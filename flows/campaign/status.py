"""Progress of a campaign, from its record and its queue: few, small documents, for any number of candidates."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from statistics import median
from typing import TYPE_CHECKING, Any

from matris.flows.campaign.finder import campaign_record
from matris.flows.queue.queue import BROKEN, DONE, SUBMITTED, TAKEN, WAITING, WorkQueue
from matris.stores.builder import incomplete_outputs, incomplete_remark
from matris.stores.database.jobstore import open_job_store, sibling_store
from matris.stores.documents.candidate import REFERENCE_SOURCES
from matris.stores.learning_records import LearningRecords
from matris.stores.report.outcomes import kind, reason
from matris.stores.report.rounds import round_rows, rounds_remarks

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from jobflow.core.store import JobStore
    from maggma.core import Store

_STATES = (WAITING, TAKEN, DONE, BROKEN)  # a submitted chunk counts as waiting or taken
_RUNNING = {"RUNNING", "BATCH_RUNNING", "RUN_FINISHED", "DOWNLOADED"}
_ENDED = {
    "COMPLETED": "ended",
    "FAILED": "lost",
    "REMOTE_ERROR": "lost",
    "STOPPED": "lost",
    "USER_STOPPED": "lost",
}

_RECENT = 50  # latest chunks, for the rate
_MAX_LOST = 5000  # documents of lost candidates per state that are read for their reasons


@dataclass(frozen=True)
class StageStatus:
    """
    Progress of one stage of a campaign.

    Attributes
    ----------
    stage
        ``"relax"`` or a property.
    chunks, candidates
        Number by state: ``"waiting"``, ``"taken"``, ``"done"``, ``"broken"``. The finished candidates of a chunk in
        work are done; its process tells their number every ten seconds.
    rate
        Candidates per second, of all processes that are working; None if no process works or no chunk is done.
    remaining
        Estimated seconds until the end of the stage; None like `rate`.
    """

    stage: str
    chunks: Mapping[str, int]
    candidates: Mapping[str, int]
    rate: float | None
    remaining: float | None


@dataclass(frozen=True)
class Status:
    """
    Progress of a campaign.

    Attributes
    ----------
    name, title, checkpoint
        Name and title of the campaign, and the key of its checkpoint.
    phase
        ``"reading"``, ``"running"``, ``"queued"`` (jobs wait in a cluster's queue), ``"waiting"`` (chunks wait, but no
        process works), ``"cancelled"``, ``"stopped"`` (the first candidates failed alike), ``"finished"``.
    read, identical, known
        Number of candidates read, of those identical to an earlier one, and of those already in the store or the queue;
        like the other numbers of candidates, without references.
    references
        Number of references: elements, known phases and prototypes that compete on the hulls. The stages count them.
    dropped
        Number of candidates that were not computed, by stage and kind of reason.
    stages
        Progress of each stage, in the order in which the stages started.
    lost
        Number of candidates whose computation failed, by kind of reason.
    broken
        Reasons for which chunks were given up.
    deaths
        Number of processes and jobs that died or fell silent while they worked on a chunk.
    cluster
        Workers and project to which the campaign was submitted, as text; empty if it was not submitted.
    jobs
        Number of submitted chunks by the state of their jobs: ``"running"``, ``"queued"``, ``"ended"``, ``"lost"``.
    stopped
        Reason for which the last run stopped early, or None.
    incomplete
        Sentence on results that lack because arrays are missing in the store, or None.
    rounds
        Rows of the table of rounds, if the campaign learns, as `matris.stores.report.rounds.round_rows` makes them.
    learning
        Sentences on these rounds.
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
    references: int = 0
    stopped: str | None = None
    incomplete: str | None = None
    rounds: Sequence[Mapping[str, Any]] = ()
    learning: Sequence[str] = ()


def status(
    record: Mapping[str, Any],
    items: Iterable[Mapping[str, Any]],
    lost: Mapping[str, int],
    jobs: Mapping[str, Mapping[str, Any]] | None = None,
) -> Status:
    """
    Summarise the progress of a campaign.

    The rate is computed from the time that each chunk took, by the clock of the process that worked on it. The median
    over chunks is used, so that a clock that jumps affects one chunk only. Clocks of two machines are never compared.

    Parameters
    ----------
    record
        Record of the campaign, as `matris.flows.campaign.campaign.Campaign.record` reads it.
    items
        Items of its queue, see `matris.flows.queue.queue.WorkQueue.items`.
    lost
        Number of candidates whose computation failed, by kind of reason.
    jobs
        Documents of submitted jobs by id, with ``state`` and ``start_time`` as jobflow-remote stores them.

    Returns
    -------
    Status
    """
    by_stage: dict[str, list[Mapping[str, Any]]] = {}
    job_states: Counter[str] = Counter()
    for item in items:
        counted = item
        if item["state"] == SUBMITTED:
            job = (jobs or {}).get(_job(item) or "", {})
            state = "running" if job.get("state") in _RUNNING else _ENDED.get(job.get("state", ""), "queued")
            job_states[state] += 1
            counted = {**item, "state": TAKEN if state == "running" else WAITING, "taken_at": job.get("start_time")}
        by_stage.setdefault(item["stage"], []).append(counted)
    stages = [_stage(name, stage_items) for name, stage_items in by_stage.items()]
    all_items = [item for stage_items in by_stage.values() for item in stage_items]
    states = Counter(item["state"] for item in all_items)
    intake = record.get("intake") or {}
    submission = record.get("submission")
    return Status(
        name=record["campaign_id"],
        title=record["title"],
        checkpoint=record["checkpoint"]["key"],
        phase=_phase(record, states, queued=bool(job_states)),
        read=intake.get("read", 0),
        identical=intake.get("identical", 0),
        known=intake.get("known", 0),
        dropped=intake.get("dropped") or {},
        stages=stages,
        lost=lost,
        broken=sorted({item.get("error") or "no reason is known" for item in all_items if item["state"] == BROKEN}),
        deaths=sum(item.get("deaths") or 0 for item in all_items),
        cluster=f"{', '.join(submission['workers'])} of project {submission['project']}" if submission else "",
        jobs=dict(job_states),
        references=intake.get("references", 0),
        stopped=record.get("stopped"),
    )


def read_status(location: str | Path | None = None, name: str | None = None) -> Status:
    """
    Read the progress of a campaign from its store, without loading the checkpoint.

    Parameters
    ----------
    location
        Store, as for `matris.stores.database.jobstore.open_job_store`.
    name
        Name of the campaign, or its first characters, as for `matris.flows.campaign.finder.campaign_record`.
        Default: the campaign that ran last.

    Returns
    -------
    Status

    Raises
    ------
    StoreError
        If there is no such campaign.

    Examples
    --------
    >>> from matris.flows import Campaign
    >>> from matris.flows.campaign.status import read_status
    >>> campaign = Campaign("results", title="Oxides")
    >>> campaign.keep(reading=True)
    >>> status = read_status("results")
    >>> status.title, status.phase, status.read
    ('Oxides', 'reading', 0)
    """
    job_store = open_job_store(location)
    return status_in(job_store, campaign_record(job_store, name, location))


def status_in(job_store: JobStore, record: Mapping[str, Any]) -> Status:
    """
    Read the progress of a campaign from an open store.

    Parameters
    ----------
    job_store
        Connected job store.
    record
        Record of the campaign, as `matris.flows.campaign.finder.campaign_record` reads it.
    """
    queue = WorkQueue(sibling_store(job_store, "work_queue", "work_id"))
    items = list(queue.items(record["campaign_id"]))
    documents = sibling_store(job_store, "candidates", "document_id")
    done = [name for item in items if item["state"] == DONE for name in (item["work_id"], _job(item)) if name]
    collection = (record.get("submission") or {}).get("jobs_collection")
    submitted = [name for item in items if item["state"] == SUBMITTED and (name := _job(item))]
    jobs = {}
    if collection and submitted:
        job_queue = sibling_store(job_store, collection, "uuid")
        fields = ["uuid", "state", "start_time"]
        latest_last = job_queue.query({"uuid": {"$in": submitted}}, properties=fields, sort={"index": 1})
        jobs = {job["uuid"]: job for job in latest_last}
    incomplete = incomplete_remark(incomplete_outputs(sibling_store(job_store, "candidate_chunks", "chunk_id")))
    found = status(record, items, lost_reasons(documents, done), jobs)
    loop = LearningRecords(job_store).of_campaign(record["campaign_id"])
    if loop is not None:
        found = replace(found, rounds=round_rows(loop), learning=rounds_remarks(loop))
    return replace(found, incomplete=incomplete)


def lost_reasons(documents: Store, work_ids: Sequence[str]) -> dict[str, int]:
    """
    Count the reasons for which candidates in finished chunks were lost, without references.

    Parameters
    ----------
    documents
        Connected store of candidate documents; at most 5,000 documents per state are read.
    work_ids
        Ids of the finished chunks and of their jobs.

    Returns
    -------
    dict
        Number of candidates by kind of reason, the most frequent first.
    """
    jobs = set(work_ids)
    kinds: Counter[str] = Counter()
    fields = ["state", "error", "job_uuid", "n_steps", "source"]
    for state in ("failed", "max_steps", "rejected"):
        criteria = {"state": state, "job_uuid": {"$ne": None}}
        for document in documents.query(criteria, properties=fields, limit=_MAX_LOST):
            if document["job_uuid"] in jobs and document.get("source") not in REFERENCE_SOURCES:
                kinds["out of steps" if state == "max_steps" else kind(reason(document))] += 1
    return dict(kinds.most_common())


def _stage(name: str, items: Sequence[Mapping[str, Any]]) -> StageStatus:
    """Summarise the progress of one stage."""
    chunks, candidates = Counter[str](), Counter[str]()
    left = dict.fromkeys(("cost", "n"), 0.0)  # of what waits or is in work
    for item in items:
        state = item["state"]
        finished = min(item.get("finished") or 0, item["n"]) if state == TAKEN else 0
        chunks[state] += 1
        candidates[state] += item["n"] - finished
        candidates[DONE] += finished
        if state in {WAITING, TAKEN}:
            share = 1.0 if state == WAITING else 1 - finished / item["n"] if finished else 0.5  # half, on average
            left = {name: amount + share * item[name] for name, amount in left.items()}
    done = [(item, seconds) for item in items if (seconds := _seconds(item))]
    done = sorted(done, key=lambda pair: pair[0]["ended_at"])[-_RECENT:]
    rate = remaining = None
    if done and chunks[TAKEN]:
        rate = chunks[TAKEN] * median(item["n"] / seconds for item, seconds in done)
        cost_rate = chunks[TAKEN] * median((item["cost"] or item["n"]) / seconds for item, seconds in done)
        remaining = left["cost" if all(item["cost"] for item, _ in done) else "n"] / cost_rate
    return StageStatus(
        name,
        {state: chunks[state] for state in _STATES},
        {state: candidates[state] for state in _STATES},
        rate,
        remaining,
    )


def _seconds(item: Mapping[str, Any]) -> float | None:
    """Return the seconds that a chunk took; None if it is not done, or the clock was set back meanwhile."""
    if item["state"] != DONE or item.get("taken_at") is None or item.get("ended_at") is None:
        return None
    seconds: float = (item["ended_at"] - item["taken_at"]).total_seconds()
    return seconds if seconds > 0 else None


def _phase(record: Mapping[str, Any], states: Mapping[str, int], *, queued: bool) -> str:
    """Determine the phase of a campaign from the number of chunks by state."""
    if record.get("reading"):
        return "reading"
    if states.get(TAKEN):
        return "running"
    if record.get("stopped"):
        return "stopped"
    if not states.get(WAITING):
        return "finished"
    if record.get("cancelled"):
        return "cancelled"
    return "queued" if queued else "waiting"


def _job(item: Mapping[str, Any]) -> str | None:
    """Return the id of a chunk's latest job on a cluster."""
    return (item.get("payload") or {}).get("job")
