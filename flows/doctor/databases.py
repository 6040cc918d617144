"""The jobflow configuration, the store of the results, and the project of jobflow-remote."""

from __future__ import annotations

import os
import uuid
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from maggma.stores import MemoryStore
from pymongo.errors import PyMongoError

from matris.errors import MatrisError, StoreError
from matris.flows.doctor.finding import Finding
from matris.flows.doctor.machine import can_be_written
from matris.masking import masked
from matris.stores.database.jobstore import STORE_VARIABLE, chosen_location, job_store_at
from matris.stores.database.sqlite.disk import on_network_disk
from matris.stores.database.sqlite.store import SQLiteStore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jobflow import JobStore

    from matris.flows.doctor.finding import State

_CONFIG = "JOBFLOW_CONFIG_FILE"
_TIMEOUT = 2000  # ms for a database to answer


def check_store(location: str | None) -> Iterator[Finding]:
    """
    Check the jobflow configuration, and that the store of the results can be read and written; nothing is left there.

    Parameters
    ----------
    location
        Store, as for `matris.stores.database.jobstore.open_job_store`.
    """
    config = os.environ.get(_CONFIG)
    if config and not Path(config).expanduser().exists():
        remedy = f"correct or unset {_CONFIG}; without it results go to a folder"
        yield Finding("jobflow", "wrong", f"{_CONFIG} names {config}, which does not exist", remedy)
    try:
        store = job_store_at(location)
    except MatrisError as error:
        where = "store" if chosen_location(location) is not None else "jobflow"
        yield Finding(where, "wrong", str(error), "correct it, or name a store: --store DIR|URI|FILE")
        return
    origin = "--store" if location else STORE_VARIABLE if chosen_location() else "jobflow's configuration"
    is_default = isinstance(store.docs_store, SQLiteStore) and chosen_location(location) is None
    if not config or Path(config).expanduser().exists():
        told = "names no store; results go to a folder" if is_default else f"results go to the store of {origin}"
        yield Finding("jobflow", "ok", told)
    yield _check(store)


def _check(store: JobStore) -> Finding:
    """Check a store: a folder is opened only if it holds results; a database gets a document, which is removed."""
    docs = store.docs_store
    if type(docs) is MemoryStore:
        remedy = "give JOB_STORE a database, or name a store: --store DIR"
        return Finding("store", "wrong", "the job store is in memory: results are lost when the process ends", remedy)
    if isinstance(docs, SQLiteStore):
        file = Path(docs.path)
        try:
            on_network_disk(file)
            if not file.is_file():
                return _new_folder(file.parent)
            docs.connect()
            n_jobs = docs.count()
            docs.close()
        except StoreError as error:
            return Finding("store", "wrong", str(error), "name another folder: --store DIR")
        if can_be_written(file.parent) and os.access(file, os.W_OK):
            return Finding("store", "ok", f"{file} holds the outputs of {n_jobs} jobs")
        return Finding("store", "wrong", f"{file} can be read, but not written", f"chown or chmod {file.parent}")
    from matris.flows.cluster.checks import connect_soon, write_and_remove

    stores = [docs, *store.additional_stores.values()]
    try:
        for part in stores:
            connect_soon(part, _TIMEOUT)
        write_and_remove(stores, f"matris-doctor-{uuid.uuid4()}")
    except (PyMongoError, StoreError, OSError, ValueError) as error:
        reason = masked(str(error)).split(", Timeout:")[0]
        remedy = "start the server, or correct the address, the user's rights and the firewall"
        return Finding("store", "wrong", f"{masked(str(docs.name))} does not answer or refuses ({reason})", remedy)
    return Finding("store", "ok", f"{masked(str(docs.name))} answers and can be written")


def _new_folder(folder: Path) -> Finding:
    if can_be_written(folder):
        return Finding("store", "ok", f"{folder.absolute()} can be made, and holds no results yet")
    return Finding("store", "wrong", f"{folder.absolute()} cannot be written", "name another folder: --store DIR")


def check_project(name: str | None) -> Iterator[Finding]:
    """
    Check jobflow-remote, and the database and the runner of a project on this machine.

    What is missing is wrong only if the project is named: nothing but --submit needs one.

    Parameters
    ----------
    name
        Name of the project; by default jobflow-remote's own choice.
    """
    bad: State = "note" if name is None else "wrong"
    if find_spec("jobflow_remote") is None:
        message = "jobflow-remote is not installed; only clusters need it"
        yield Finding("project", bad, message, "pip install 'matris-flows[remote]'")
        return
    from matris.flows.cluster.checks import check_database, check_runner
    from matris.flows.cluster.project_files import read_project

    try:
        project, file = read_project(name)
    except (MatrisError, OSError) as error:
        yield Finding("project", bad, f"{error}" if name else f"{error}; only --submit needs one")
        return
    database = check_database(project, file)
    yield Finding(
        "project",
        bad if database.failed else "ok",
        f"{project.name}: {masked(database.message)}",
        f"matris cluster check {project.name}" if database.failed else "",
    )
    if not database.failed:
        runner = check_runner(project)
        yield Finding("runner", bad if runner.failed else "ok", f"{project.name}: {masked(runner.message)}")
