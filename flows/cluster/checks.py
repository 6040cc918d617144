"""Checks of a jobflow-remote project: one line per check, with the remedy if it fails."""

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
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from jobflow_remote.config.base import Project
    from maggma.core import Store

_DATABASE_TIMEOUT = 5000  # ms for the database to answer
_RUNNER_START = 60.0  # s for a runner to start


def check_cluster(
    project: Project, file: Path, *, checkpoint: str | None = None, minutes: float | None = None
) -> Iterator[CheckResult]:
    """
    Check a project: its database, its workers, its runner, and a test job on each worker.

    Nothing is started except the test jobs. Checks that depend on a failed check are skipped.

    Parameters
    ----------
    project
        Project of jobflow-remote.
    file
        File of the project, for the messages.
    checkpoint
        Registry key or path on the workers, for the test jobs. Default: the embedded checkpoint.
    minutes
        Time limit for the test jobs (minutes); None for no test jobs.

    Yields
    ------
    CheckResult
        Result of each check, as soon as it ends.
    """
    database = check_database(project, file)
    yield database
    for name, worker in project.workers.items():
        yield from check_worker(name, worker, file)
    if database.failed:
        return
    runner = check_runner(project)
    yield runner
    if minutes is not None and not runner.failed:
        yield from check_jobs(project, file, checkpoint, minutes)


def check_database(project: Project, file: Path) -> CheckResult:
    """Write test documents to the queue's database and to the job store, and remove them."""
    from pymongo.errors import PyMongoError

    test_id = f"matris-check-{uuid.uuid4()}"
    job_store = project.get_jobstore()
    stores = [job_store.docs_store, *job_store.additional_stores.values()]
    queue = project.get_queue_store()
    try:
        for store in (queue, *stores):
            connect_soon(store, _DATABASE_TIMEOUT)
        auxiliary = queue._collection.database[project.queue.auxiliary_collection]  # noqa: SLF001 - no public access
        auxiliary.insert_one({"_id": test_id})
        auxiliary.delete_one({"_id": test_id})
        write_and_remove(stores, test_id)
        ready = auxiliary.find_one({"next_id": {"$exists": True}}) is not None
    except StoreError as error:
        return CheckResult("database", True, str(error))
    except PyMongoError as error:
        reason = str(error).split(", Timeout:")[0]
        message = f"{queue.name} does not answer or refuses ({reason}): see the address in {_uri_file(file)}"
        return CheckResult("database", True, message)
    if not ready:
        return CheckResult("database", True, f"its queue is not prepared: jf -p {project.name} admin reset")
    if "data" not in job_store.additional_stores:
        return CheckResult(
            "database", True, f'the job store in {file} has no additional store "data": add a GridFSStore'
        )
    return CheckResult("database", False, f"{queue.database} answers and can be written")


def connect_soon(store: Store, milliseconds: int) -> None:
    """Connect a store; one of MongoDB then waits at most so long for its server."""
    if hasattr(store, "mongoclient_kwargs"):
        store.mongoclient_kwargs = store.mongoclient_kwargs | {"serverSelectionTimeoutMS": milliseconds}
    store.connect()


def write_and_remove(stores: Iterable[Store], test_id: str) -> None:
    """Write a test document to each store, and remove it."""
    for store in stores:
        store.update([{store.key: test_id, "index": 1}], key=store.key)
        store.remove_docs({store.key: test_id})


def check_runner(project: Project) -> CheckResult:
    """Find out whether the runner is running; wait for a runner that is starting, but start none."""
    from jobflow_remote.jobs.daemon import DaemonError, DaemonManager, DaemonStatus

    remedy = f"jf -p {project.name} runner start"
    try:
        manager, deadline = DaemonManager.from_project(project), time.monotonic() + _RUNNER_START
        while (status := manager.check_status()) is DaemonStatus.STARTING and time.monotonic() < deadline:
            time.sleep(1.0)
    except DaemonError as error:
        return CheckResult("runner", True, f"{error}: jf -p {project.name} runner kill, and {remedy}")
    if status is DaemonStatus.RUNNING:
        return CheckResult("runner", False, "runs on this machine")
    controller = project.get_job_controller()
    try:
        running = controller.get_running_runner()
    finally:
        controller.close()
    if isinstance(running, dict) and running.get("hostname") != socket.gethostname():
        message = f"runs on {running.get('hostname')}, last heartbeat at {running.get('last_pinged')} UTC"
        return CheckResult("runner", False, message)
    return CheckResult("runner", True, f"does not run ({status.value}): {remedy}")


def _uri_file(file: Path) -> Path:
    """Return the file that contains the address of a project's database."""
    uri_file = file.with_suffix(".mongodb")
    return uri_file if uri_file.exists() else file
