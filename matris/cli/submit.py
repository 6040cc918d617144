"""What commands do that hand their work to a cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.markup import escape

from matris.cli.console import stderr, stdout
from matris.errors import MatrisError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from matris.flows.campaign.campaign import Campaign
    from matris.flows.cluster.submission import Submission
    from matris.makers.batch import BatchMaker
    from matris.stores.documents.candidate import Candidate


def submission_of(
    project: str | None, worker: str | None, resource: Sequence[str] | None, device: str | None
) -> Submission:
    """Read from the options where jobs are sent."""
    if device is not None and "," in device:
        raise MatrisError(f"a job computes on one device, not on {device}: the scheduler binds each job to a GPU")
    from matris.flows.cluster.project_files import need_jobflow_remote

    need_jobflow_remote()
    from matris.flows.cluster.submission import choose_submission

    pairs = [setting.partition("=") for setting in resource or ()]
    for name, equals, _ in pairs:
        if not equals:
            raise MatrisError(f"--resource {name} has no value: write --resource {name}=VALUE")
    workers = [name.strip() for name in worker.split(",")] if worker else []
    return choose_submission(project, workers, resources={name: value for name, _, value in pairs})


def store_of(submission: Submission, store: str | None) -> str:
    """Store of the project's results, where those of a submitted command are."""
    from matris.stores.database.jobstore import PROJECT

    if store not in {None, f"{PROJECT}{submission.project}"}:
        raise MatrisError(
            f"what is submitted goes to the database of project {submission.project}: leave --store {store} out"
        )
    return f"{PROJECT}{submission.project}"


def submit_campaign(campaign: Campaign, candidates: Iterable[Candidate], submission: Submission) -> bool:
    """Submit what a campaign lacks, and say what became of it; whether nothing is left to do."""
    from matris.flows.cluster.supervisor import submit

    n = {"read": 0, "chunks": 0, "candidates": 0}

    with stderr.status("Reading …") as line:

        def watch(event: dict[str, Any]) -> None:
            if event["event"] == "read":
                n["read"] = event["read"]
            elif event["event"] == "submitted":
                n["chunks"] += 1
                n["candidates"] += event["n"]
            line.update(f"{n['read']} read, {n['candidates']} submitted …")

        submit(campaign, candidates, submission, watch)
    finished = not campaign.queue.is_open(campaign.name)
    if not finished:
        told = f"{n['read']} read; {n['candidates']} candidates in {n['chunks']} chunks submitted to "
        stdout().print(
            f"{told}{', '.join(submission.workers)} of project {submission.project}, campaign {campaign.name}",
            soft_wrap=True,
        )
        warn_of_runner(submission)
        store = escape(str(campaign.location))
        stdout().print(
            f"Watch it: matris status --store {store}. Stop it: matris cancel --store {store}", soft_wrap=True
        )
    return finished


def submit_properties(
    name: str, files: Sequence[Path], maker: BatchMaker, submission: Submission, store: str | None
) -> list[dict[str, Any]] | None:
    """Submit what is to be computed of some files, and say so; or the documents, if all are there."""
    from matris.flows.cluster import property_jobs
    from matris.stores.database.jobstore import open_job_store

    with stderr.status("Submitting …"):
        job_store = open_job_store(store_of(submission, store))
        documents, counts = property_jobs.submit_properties(files, name, maker, job_store, submission)
    if documents is None:
        told = ", ".join(f"{n} {how}" for how, n in counts.items())
        stdout().print(
            f"{told}, by {', '.join(submission.workers)} of project {submission.project}. The same command again shows "
            f"the results; jobs: jf -p {submission.project} job list",
            soft_wrap=True,
        )
        warn_of_runner(submission)
    return documents


def warn_of_runner(submission: Submission) -> None:
    """Say so if nobody submits what is in the project's queue."""
    from matris.flows.cluster.checks import check_runner
    from matris.flows.cluster.project_files import read_project

    finding = check_runner(read_project(submission.project)[0])
    if finding.wrong:
        stderr.print(f"[yellow]The runner[/yellow] {escape(finding.told)}", soft_wrap=True)
