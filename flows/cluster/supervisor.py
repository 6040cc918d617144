"""Supervise a campaign whose chunks are jobs of a cluster: harvest results, resubmit lost chunks, submit the next."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from jobflow import Flow, OnMissing, job
from jobflow_remote import set_run_config

from matris.errors import MatrisError
from matris.flows.campaign.campaign import Campaign
from matris.flows.campaign.chunks import chunk_reference
from matris.flows.campaign.harvest import forget_incomplete, harvest, record_given_up, sweep
from matris.flows.campaign.intake import take_in
from matris.flows.campaign.poison import CHUNK_DEATHS
from matris.flows.campaign.stages import stage_maker
from matris.flows.campaign.survivors import advance
from matris.flows.campaign.turns import turn
from matris.flows.cluster.check_results import last_line
from matris.flows.cluster.submission import LOST, STOPPED, Cluster, Submission, job_id
from matris.flows.queue.retry import MAX_ATTEMPTS, with_retries
from matris.makers.failing_alike import FailedAlikeError
from matris.stores.database.jobstore import PROJECT

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from matris.flows.campaign.events import Watch
    from matris.flows.queue.queue import WorkItem
    from matris.stores.documents.candidate import Candidate

LOSSES = 6
"""Number of jobs of a chunk that may be lost, killed or end without an answer before the chunk is given up."""

_TURN = "supervision"
_PRIORITY = 10  # of supervising jobs, above that of chunk jobs
_KILLED = "The output file"  # start of jobflow-remote's error for a job that left no answer


def submit(
    campaign: Campaign, candidates: Iterable[Candidate], submission: Submission, watch: Watch = lambda _: None
) -> None:
    """
    Read candidates into a campaign's queue, and submit its chunks to a cluster.

    A further call, with the same or with more candidates, submits what is neither computed nor submitted.

    Parameters
    ----------
    campaign
        Campaign in the store of the project's results.
    candidates
        Candidates, read one by one; the first chunks are submitted meanwhile.
    submission
        Project and workers.
    watch
        Function that is called with every event: ``{"event": "read", …}`` with the counts of
        `matris.flows.campaign.intake.Intake`, and ``{"event": "submitted", "stage": …, "n": …}``.

    Raises
    ------
    MatrisError
        If the campaign is new and there are no candidates.
    """
    candidates = iter(candidates)
    first = list(islice(candidates, 1))  # a source that cannot be read must not become the current campaign
    if not first and not campaign.record():
        raise MatrisError(f"there are no candidates for the campaign {campaign.title!r}: nothing was submitted")
    campaign.keep(submission=submission.to_dict(), cancelled=False)
    campaign.queue.revive(campaign.name)
    forget_incomplete(campaign)
    with Cluster(submission) as cluster:
        for counts in take_in(campaign, chain(first, candidates)):
            watch({"event": "read", **counts.to_dict()})
            with turn(campaign, _TURN):
                _submit_waiting(campaign, cluster, watch)
        supervise(campaign, cluster, watch)


def supervise(campaign: Campaign, cluster: Cluster, watch: Watch = lambda _: None) -> bool:
    """
    Harvest ended jobs, submit lost chunks again, and submit what follows.

    Any process may do so at any time; only one does at a time, and nothing is done twice.

    Parameters
    ----------
    campaign
        Submitted campaign.
    cluster
        Cluster of its jobs.
    watch
        As for `submit`.

    Returns
    -------
    bool
        Whether the campaign is finished.
    """
    with turn(campaign, _TURN):
        _harvest_jobs(campaign, cluster)
        _submit_waiting(campaign, cluster, watch)
        if campaign.queue.is_open(campaign.name) or campaign.record().get("reading"):
            return False
        harvest(campaign)
        record_given_up(campaign)
        if not advance(campaign):
            return not campaign.queue.is_open(campaign.name)
        _submit_waiting(campaign, cluster, watch)
        return False


def resume(campaign: Campaign, watch: Watch = lambda _: None) -> bool:
    """
    Resume a submitted campaign that was cancelled, partly given up, or that no job supervises any more.

    Parameters
    ----------
    campaign
        Submitted campaign.
    watch
        As for `submit`.

    Returns
    -------
    bool
        Whether the campaign is finished.

    Raises
    ------
    MatrisError
        If the campaign was not submitted.
    """
    submission = submitted_to(campaign)
    campaign.keep(cancelled=False, stopped=None)
    campaign.queue.revive(campaign.name)
    with Cluster(submission) as cluster:
        return supervise(campaign, cluster, watch)


def cancel(campaign: Campaign) -> int:
    """
    Stop the jobs of a submitted campaign; finished results are kept.

    Returns
    -------
    int
        Number of chunks whose jobs were stopped.

    Raises
    ------
    MatrisError
        If the campaign was not submitted.
    """
    submission = submitted_to(campaign)
    campaign.keep(cancelled=True)
    n = 0
    with Cluster(submission) as cluster, turn(campaign, _TURN):
        _harvest_jobs(campaign, cluster)
        for item in campaign.queue.submitted(campaign.name):
            cluster.stop(item.payload["job"])
            n += campaign.queue.give_back(item)
    return n


def submitted_to(campaign: Campaign) -> Submission:
    """
    Read the project and the workers to which a campaign was submitted.

    Raises
    ------
    MatrisError
        If the campaign was not submitted.
    """
    content = campaign.record().get("submission")
    if content is None:
        raise MatrisError(f"campaign {campaign.name} was not submitted: to resume it, run its command again")
    return Submission.from_dict(content)


@job(name="matris supervise")
def supervise_campaign(chunk: Any, project: str, name: str) -> dict[str, Any]:  # noqa: ARG001 - the job waits for it
    """
    Supervise a campaign after the job of one of its chunks has ended.

    Parameters
    ----------
    chunk
        Reference to the output of the chunk's job.
    project
        Project of jobflow-remote.
    name
        Name of the campaign.

    Returns
    -------
    dict
        Name of the ``campaign``, and whether it is ``finished``.
    """

    def supervise_once() -> bool:
        campaign = Campaign.open(f"{PROJECT}{project}", name)
        with Cluster(submitted_to(campaign)) as cluster:
            return supervise(campaign, cluster)

    return {"campaign": name, "finished": with_retries(supervise_once)}


def _submit_waiting(campaign: Campaign, cluster: Cluster, watch: Watch) -> None:
    """Submit a flow for each waiting chunk: its job, and a job that supervises the campaign after it."""
    submission = cluster.submission
    if campaign.record().get("cancelled"):
        return
    while (item := campaign.queue.submit(campaign.name, job_id)) is not None:
        name = item.work_id
        device = campaign.maker.device or cluster.device(name)
        relax_maker = replace(campaign.maker, keep_going=campaign.maker.keep_going or _failed_alike(item.error))
        maker = stage_maker(item.stage, relax_maker, cluster.journal(name), device)
        careful = item.deaths >= CHUNK_DEATHS
        chunk = cluster.chunk_job(maker, chunk_reference(name), name, item.payload["job"], careful=careful)
        supervision = supervise_campaign(chunk.output, submission.project, campaign.name)
        supervision.config.resolve_references = False  # it only waits for the chunk
        supervision.config.on_missing_references = OnMissing.NONE  # it also runs if the chunk's job failed
        set_run_config(supervision, worker=submission.cpu_worker, resources={}, priority=_PRIORITY)
        flow = Flow([chunk, supervision], name=f"{campaign.title}: {item.stage} {name[:8]}")
        flow.update_metadata({"campaign": campaign.name})
        cluster.put(flow)
        watch({"event": "submitted", "stage": item.stage, "n": item.n})


def _harvest_jobs(campaign: Campaign, cluster: Cluster) -> None:
    """Record which jobs have ended, build documents from their outputs, and return lost chunks to the queue."""
    items = {item.payload["job"]: item for item in campaign.queue.submitted(campaign.name)}
    cluster.unlock(items)
    jobs = cluster.jobs(items)
    completed = {name: job for name, job in jobs.items() if job["state"] == "COMPLETED"}
    if completed:
        campaign.store.build(campaign.job_store, list(completed))
    for name, document in completed.items():
        campaign.queue.finish(items[name], **_times(document))
    if completed:
        cluster.drop_journals(items[name].work_id for name in completed)
    sweep(campaign)
    for name, item in items.items():
        if name not in jobs:  # the submitting process died first: the chunk gets a new job, and no loss is counted
            campaign.queue.give_back(item)
        elif jobs[name]["state"] in LOST:
            _return_lost(campaign, item, jobs[name])


def _return_lost(campaign: Campaign, item: WorkItem, document: Mapping[str, Any]) -> None:
    """Return a chunk whose job failed to the queue, or give it up after too many failures."""
    if document["state"] in STOPPED:
        campaign.queue.give_up(item, "its job was stopped: matris resume")
        return
    error = document.get("error") or (document.get("remote") or {}).get("error") or ""
    died = document["state"] == "REMOTE_ERROR" or error.startswith(_KILLED)
    reason = last_line(error) or document["state"]
    if _failed_alike(reason) and not _has_results(campaign):
        campaign.queue.give_back(item)
        campaign.keep(stopped=reason.partition(": ")[2], cancelled=True)  # resumed by the user
        return
    if item.attempts >= (LOSSES if died else MAX_ATTEMPTS):
        campaign.queue.give_up(item, reason)
    else:
        campaign.queue.give_back(item, reason, died=died)


def _failed_alike(error: str | None) -> bool:
    """Whether a job stopped because its first candidates failed for one reason."""
    return FailedAlikeError.__name__ in (error or "").partition(": ")[0]


def _has_results(campaign: Campaign) -> bool:
    """Whether a job computed a candidate, so that the failures of others are their own: they are all computed."""
    sha256, digest = campaign.origin
    criteria = {"checkpoint.sha256": sha256, "settings.digest": digest, "state": {"$in": ["converged", "max_steps"]}}
    return campaign.store.docs.query_one(criteria, properties=["state"]) is not None


def _times(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return start and end of a chunk's jobs, without the time between the jobs."""
    end = document.get("end_time")
    return {} if end is None else {"taken_at": end - timedelta(seconds=document["seconds"]), "ended_at": end}
