"""Checks of a jobflow-remote project: one finding a line, each with the way out."""

from __future__ import annotations

import socket
import time
import uuid
from typing import TYPE_CHECKING

from matris.errors import StoreError
from matris.flows.cluster.check_results import CheckResult
from matris.flows.cluster.job_checks import check_jobs
from matris.flows.cluster.worker_checks import check_worker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from jobflow_remote.config.base import Project

_DATABASE_TIMEOUT = 5000  # ms for the database to answer
_STARTING = 60.0  # s for a runner to start


def check_cluster(
    project: Project, file: Path, *, checkpoint: str | None = None, minutes: float | None = None
) -> Iterator[CheckResult]:
    """
    Check a project: its database, workers, runner, and a job on each worker.

    Nothing is started but the jobs. Checks that need what is wrong are left out.

    Parameters
    ----------
    project
        Of jobflow-remote.
    file
        Of the project, to be named.
    checkpoint
        Registry key or path on the workers, for the jobs.
    minutes
        Most time for the jobs; None for none.

    Yields
    ------
    CheckResult
        As each check ends.
    """
    database = check_database(project, file)
    yield database
    for name, worker in project.workers.items():
        yield from check_worker(name, worker, file)
    if database.wrong:
        return
    runner = check_runner(project)
    yield runner
    if minutes is not None and not runner.wrong:
        yield from check_jobs(project, file, checkpoint, minutes)


def check_database(project: Project, file: Path) -> CheckResult:
    """Write into the queue's database and the job store, and remove it again."""
    from pymongo.errors import PyMongoError

    mark = f"matris-check-{uuid.uuid4()}"
    job_store = project.get_jobstore()
    parts = [job_store.docs_store, *job_store.additional_stores.values()]
    queue = project.get_queue_store()
    try:
        for part in (queue, *parts):
            if hasattr(part, "mongoclient_kwargs"):
                part.mongoclient_kwargs = part.mongoclient_kwargs | {"serverSelectionTimeoutMS": _DATABASE_TIMEOUT}
            part.connect()
        auxiliary = queue._collection.database[project.queue.auxiliary_collection]  # noqa: SLF001 - maggma offers none
        auxiliary.insert_one({"_id": mark})
        auxiliary.delete_one({"_id": mark})
        for part in parts:
            part.update([{part.key: mark, "index": 1}], key=part.key)
            part.remove_docs({part.key: mark})
        ready = auxiliary.find_one({"next_id": {"$exists": True}}) is not None
    except StoreError as error:
        return CheckResult("database", True, str(error))
    except PyMongoError as error:
        reason = str(error).split(", Timeout:")[0]
        return CheckResult(
            "database", True, f"{queue.name} does not answer or refuses ({reason}): see the address in {_address(file)}"
        )
    if not ready:
        return CheckResult("database", True, f"its queue is not prepared: jf -p {project.name} admin reset")
    if "data" not in job_store.additional_stores:
        return CheckResult(
            "database", True, f'the job store in {file} has no additional store "data": add a GridFSStore'
        )
    return CheckResult("database", False, f"{queue.database} answers and can be written")


def check_runner(project: Project) -> CheckResult:
    """See whether the runner is there, and wait for one that is starting; it is not started."""
    from jobflow_remote.jobs.daemon import DaemonError, DaemonManager, DaemonStatus

    way = f"jf -p {project.name} runner start"
    try:
        manager, until = DaemonManager.from_project(project), time.monotonic() + _STARTING
        while (status := manager.check_status()) is DaemonStatus.STARTING and time.monotonic() < until:
            time.sleep(1.0)
    except DaemonError as error:
        return CheckResult("runner", True, f"{error}: jf -p {project.name} runner kill, and {way}")
    if status is DaemonStatus.RUNNING:
        return CheckResult("runner", False, "runs on this machine")
    controller = project.get_job_controller()
    try:
        elsewhere = controller.get_running_runner()
    finally:
        controller.close()
    if isinstance(elsewhere, dict) and elsewhere.get("hostname") != socket.gethostname():
        told = f"runs on {elsewhere.get('hostname')}, last heard of at {elsewhere.get('last_pinged')} UTC"
        return CheckResult("runner", False, told)
    return CheckResult("runner", True, f"does not run ({status.value}): {way}")


def _address(file: Path) -> Path:
    """File in which the address of a project's database stands."""
    own = file.with_suffix(".mongodb")
    return own if own.exists() else file
