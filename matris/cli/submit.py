"""What commands do to submit their work to a cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.markup import escape

from matris.cli.console import stderr, stdout
from matris.errors import MatrisError
from matris.masking import masked

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
    """
    Read the project, the workers and the resources of jobs from the options of a command.

    Raises
    ------
    MatrisError
        If the options name several devices, or workers that the project lacks.
    """
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


def project_store(submission: Submission, store: str | None) -> str:
    """
    Return the store of a project, which holds the results of submitted work.

    Raises
    ------
    MatrisError
        If the option ``--store`` names another one.
    """
    from matris.stores.database.jobstore import PROJECT

    if store not in {None, f"{PROJECT}{submission.project}"}:
        raise MatrisError(
            f"submitted work is stored in the database of project {submission.project}: leave --store {store} out"
        )
    return f"{PROJECT}{submission.project}"


def submit_campaign(campaign: Campaign, candidates: Iterable[Candidate], submission: Submission) -> bool:
    """Submit what the campaign lacks, print a summary, and return whether the campaign is finished."""
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
        counts = f"{n['read']} read; {n['candidates']} candidates in {n['chunks']} chunks submitted to "
        target = f"{', '.join(submission.workers)} of project {submission.project}, campaign {campaign.name}"
        stdout().print(f"{counts}{target}", soft_wrap=True)
        warn_without_runner(submission)
        store = escape(masked(str(campaign.location)))
        stdout().print(
            f"Progress: matris status --store {store}. To stop: matris cancel --store {store}", soft_wrap=True
        )
    return finished


def submit_properties(
    name: str, files: Sequence[Path], maker: BatchMaker, submission: Submission, store: str | None
) -> list[dict[str, Any]] | None:
    """Submit the structures of some files and print a summary, or return the documents if all are computed."""
    from matris.flows.cluster import property_jobs
    from matris.stores.database.jobstore import open_job_store

    with stderr.status("Submitting …"):
        job_store = open_job_store(project_store(submission, store))
        documents, counts = property_jobs.submit_properties(files, name, maker, job_store, submission)
    if documents is None:
        states = ", ".join(f"{n} {state}" for state, n in counts.items())
        workers = f"{', '.join(submission.workers)} of project {submission.project}"
        stdout().print(
            f"{states}, by {workers}. Run the same command again for the results; "
            f"list the jobs by jf -p {submission.project} job list",
            soft_wrap=True,
        )
        warn_without_runner(submission)
    return documents


def warn_without_runner(submission: Submission) -> None:
    """Print a warning if no runner submits the jobs in the project's queue."""
    from matris.flows.cluster.checks import check_runner
    from matris.flows.cluster.project_files import read_project

    result = check_runner(read_project(submission.project)[0])
    if result.failed:
        stderr.print(f"[yellow]The runner[/yellow] {escape(result.message)}", soft_wrap=True)
