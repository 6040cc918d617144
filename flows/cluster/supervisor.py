"""Looking after a campaign whose chunks are jobs of a cluster: what has ended, what is lost, what comes next."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from jobflow import Flow, OnMissing, job
from jobflow_remote import set_run_config

from matris.errors import MatrisError
from matris.flows.campaign.campaign import Campaign
from matris.flows.campaign.chunks import chunk_reference
from matris.flows.campaign.harvest import harvest, record_given_up
from matris.flows.campaign.intake import take_in
from matris.flows.campaign.poison import CHUNK_DEATHS
from matris.flows.campaign.stages import stage_maker
from matris.flows.campaign.survivors import advance
from matris.flows.campaign.turns import turn
from matris.flows.cluster.check_results import last_line
from matris.flows.cluster.submission import LOST, STOPPED, Cluster, Submission, job_id
from matris.flows.queue.retry import MAX_ATTEMPTS, with_retries
from matris.stores.database.jobstore import PROJECT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from matris.flows.queue.queue import WorkItem
    from matris.stores.documents.candidate import Candidate

_FIRST = 10  # priority of the jobs that look after the others

LOSSES = 6
"""So often a chunk's job may be lost, killed or end without an answer; then the chunk is given up, and says why."""

_KILLED = "The output file"  # so jobflow-remote begins, where a job left no answer

type Watch = Callable[[dict[str, Any]], None]


def submit(
    campaign: Campaign, candidates: Iterable[Candidate], submission: Submission, watch: Watch = lambda _: None
) -> None:
    """
    Read candidates into a campaign's queue, and submit its chunks to a cluster.

    Submitted again, with the same or with more candidates, it submits what neither was computed nor is submitted.

    Parameters
    ----------
    campaign
        In the store of the project's results.
    candidates
        Read one by one; the first chunks are submitted meanwhile.
    submission
        Project and workers.
    watch
        Called with ``{"event": "read", …}`` and the counts of `matris.flows.campaign.intake.Intake`, and with
        ``{"event": "submitted", "stage": …, "n": …}``.
    """
    campaign.keep(submission=submission.to_dict(), cancelled=False)
    campaign.queue.revive(campaign.name)
    with Cluster(submission) as cluster:
        for counts in take_in(campaign, candidates):
            watch({"event": "read", **counts.to_dict()})
            with turn(campaign, "supervision"):
                _send(campaign, cluster, watch)
        supervise(campaign, cluster, watch)


def supervise(campaign: Campaign, cluster: Cluster, watch: Watch = lambda _: None) -> bool:
    """
    Collect what ended, submit again what is lost, and what comes next.

    Anybody may do so at any time; one at a time does, and nothing is done twice.

    Parameters
    ----------
    campaign
        Submitted.
    cluster
        Where its jobs are.
    watch
        As for `submit`.

    Returns
    -------
    bool
        Whether the campaign is finished.
    """
    with turn(campaign, "supervision"):
        _hear(campaign, cluster)
        _send(campaign, cluster, watch)
        if campaign.queue.is_open(campaign.name) or campaign.record().get("reading"):
            return False
        record_given_up(campaign)
        if not advance(campaign):
            return True
        _send(campaign, cluster, watch)
        return False


def resume(campaign: Campaign, watch: Watch = lambda _: None) -> bool:
    """
    Go on with a campaign that was cancelled, given up in parts, or left alone.

    Returns
    -------
    bool
        Whether it is finished.
    """
    submission = submitted_to(campaign)
    campaign.keep(cancelled=False)
    campaign.queue.revive(campaign.name)
    with Cluster(submission) as cluster:
        return supervise(campaign, cluster, watch)


def cancel(campaign: Campaign) -> int:
    """
    Stop the jobs of a campaign; what is finished is kept.

    Returns
    -------
    int
        Chunks whose jobs were stopped.
    """
    submission = submitted_to(campaign)
    campaign.keep(cancelled=True)
    n = 0
    with Cluster(submission) as cluster, turn(campaign, "supervision"):
        _hear(campaign, cluster)
        for item in campaign.queue.submitted(campaign.name):
            cluster.stop(item.payload["job"])
            n += campaign.queue.give_back(item)
    return n


def submitted_to(campaign: Campaign) -> Submission:
    """
    Read where a campaign was submitted to.

    Raises
    ------
    MatrisError
        If it was not.
    """
    found = campaign.record().get("submission")
    if found is None:
        raise MatrisError(f"campaign {campaign.name} was not submitted: run its command again, which goes on with it")
    return Submission.from_dict(found)


@job(name="matris supervise")
def supervise_campaign(chunk: Any, project: str, name: str) -> dict[str, Any]:  # noqa: ARG001 - what it waits for
    """
    Look after a campaign when the job of one of its chunks has ended.

    Parameters
    ----------
    chunk
        Reference to the output of the chunk's job.
    project
        Of jobflow-remote.
    name
        Of the campaign.

    Returns
    -------
    dict
        Whether the campaign is ``finished``.
    """

    def look() -> bool:
        campaign = Campaign.open(f"{PROJECT}{project}", name)
        with Cluster(submitted_to(campaign)) as cluster:
            return supervise(campaign, cluster)

    return {"campaign": name, "finished": with_retries(look)}


def _send(campaign: Campaign, cluster: Cluster, watch: Watch) -> None:
    """Submit what waits, a flow for each chunk: its job, and one that looks after the campaign when that has ended."""
    submission = cluster.submission
    if campaign.record().get("cancelled"):
        return
    while (item := campaign.queue.submit(campaign.name, job_id)) is not None:
        name = item.work_id
        device = campaign.maker.device or cluster.device(name)
        maker = stage_maker(item.stage, campaign.maker, cluster.journal(name), device)
        careful = item.deaths >= CHUNK_DEATHS
        chunk = cluster.chunk_job(maker, chunk_reference(name), name, item.payload["job"], careful=careful)
        after = supervise_campaign(chunk.output, submission.project, campaign.name)
        after.config.resolve_references = False  # it only waits for the chunk
        after.config.on_missing_references = OnMissing.NONE  # also for one whose job failed
        set_run_config(after, worker=submission.cpu_worker, resources={}, priority=_FIRST)
        flow = Flow([chunk, after], name=f"{campaign.title}: {item.stage} {name[:8]}")
        flow.update_metadata({"campaign": campaign.name})
        cluster.put(flow)
        watch({"event": "submitted", "stage": item.stage, "n": item.n})


def _hear(campaign: Campaign, cluster: Cluster) -> None:
    """See which jobs have ended, and how."""
    items = {item.payload["job"]: item for item in campaign.queue.submitted(campaign.name)}
    cluster.unlock(items)
    told = cluster.jobs(items)
    done = {name: each for name, each in told.items() if each["state"] == "COMPLETED"}
    if done:
        campaign.store.build(campaign.job_store, list(done))
    for name, ended in done.items():
        campaign.queue.finish(items[name], **_times(ended))
    if done:
        cluster.drop_journals(items[name].work_id for name in done)
    harvest(campaign)
    for name, item in items.items():
        if name not in told:  # whoever submitted it died before it did: another name is taken, nothing is counted
            campaign.queue.give_back(item)
        elif told[name]["state"] in LOST:
            _lost(campaign, item, told[name])


def _lost(campaign: Campaign, item: WorkItem, ended: Mapping[str, Any]) -> None:
    """Let a chunk be submitted again whose job failed, or give it up."""
    if ended["state"] in STOPPED:
        campaign.queue.give_up(item, "its job was stopped: matris resume")
        return
    error = ended.get("error") or (ended.get("remote") or {}).get("error") or ""
    died = ended["state"] == "REMOTE_ERROR" or error.startswith(_KILLED)
    reason = last_line(error) or ended["state"]
    if item.attempts >= (LOSSES if died else MAX_ATTEMPTS):
        campaign.queue.give_up(item, reason)
    else:
        campaign.queue.give_back(item, reason, died=died)


def _times(ended: Mapping[str, Any]) -> dict[str, Any]:
    """When a chunk's jobs began and ended, without the time between them."""
    end = ended.get("end_time")
    return {} if end is None else {"taken_at": end - timedelta(seconds=ended["seconds"]), "ended_at": end}
