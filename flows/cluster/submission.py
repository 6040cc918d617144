"""Where the jobs of a campaign are sent: workers and queue of a project of jobflow-remote."""

from __future__ import annotations

import json
import logging
import shlex
import uuid
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Self

from jobflow_remote import set_run_config

from matris.errors import MatrisError
from matris.flows.cluster.compute import cluster_job
from matris.flows.cluster.project_files import read_project
from matris.flows.cluster.walltime import seconds
from matris.flows.cluster.worker_checks import remote_errors
from matris.model.potential import DEVICE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from jobflow import Flow, Job

    from matris.makers.batch import BatchMaker

GPU, CPU = "gpu", "cpu"
"""Workers of a project that `matris cluster init` wrote."""

STOPPED = {"STOPPED", "USER_STOPPED"}
LOST = {"FAILED", "REMOTE_ERROR", *STOPPED}
"""States of jobs that give no output any more."""

_NAMES = uuid.UUID("8d1f4c0e-0f0a-4a4e-9f3c-2d7f6a5e1b90")  # of jobs, among all that is named by uuid5

logger = logging.getLogger(__name__)

_LOCKED = 30  # seconds to wait while the runner holds a job
_STALE = timedelta(minutes=10)  # for which no step of the runner holds one


@dataclass(frozen=True)
class Submission:
    """
    Where the jobs of a campaign are sent.

    Parameters
    ----------
    project
        Of jobflow-remote.
    workers
        Of chunks.
    cpu_worker
        Of hulls and reports, and of what is to be submitted next; a process that sees the database.
    resources
        Of chunks' jobs, in the scheduler's words as qtoolkit has them, over those of the worker.
    jobs_collection
        Where jobflow-remote keeps its jobs, if that is beside the results; for `matris status` elsewhere.
    """

    project: str
    workers: tuple[str, ...] = (GPU,)
    cpu_worker: str = CPU
    resources: Mapping[str, Any] = field(default_factory=dict)
    jobs_collection: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Give it as a JSON object."""
        return asdict(self) | {"workers": list(self.workers), "resources": dict(self.resources)}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """Read what `to_dict` gave."""
        return cls(**{**content, "workers": tuple(content["workers"])})


def choose_submission(
    project: str | None = None,
    workers: Iterable[str] = (),
    resources: Mapping[str, Any] | None = None,
) -> Submission:
    """
    Choose where jobs are sent, and see that the project has all of it.

    Parameters
    ----------
    project
        By default jobflow-remote's own choice.
    workers
        Workers for the jobs of chunks. Default: ``gpu`` if there is one, else all but the worker of supervising jobs,
        which is ``cpu`` if there is one, else the first worker on this machine.
    resources
        As `Submission` has them.

    Raises
    ------
    MatrisError
        If the project has no such worker, or no worker on this machine.
    """
    found, file = read_project(project)
    local = [name for name, worker in found.workers.items() if worker.is_local]
    cpu = CPU if CPU in local else next(iter(local), None)
    if cpu is None:
        raise MatrisError(f"no worker in {file} is on this machine, which a job that sees the database needs: add one")
    others = tuple(name for name in found.workers if name != cpu)
    chosen = tuple(workers) or ((GPU,) if GPU in found.workers else others or (cpu,))
    if unknown := [name for name in (*chosen, cpu) if name not in found.workers]:
        raise MatrisError(f"no worker {', '.join(unknown)} in {file}: there are {', '.join(found.workers)}")
    queue, docs = found.get_queue_store(), found.get_jobstore().docs_store
    beside = getattr(queue, "database", None) == getattr(docs, "database", None)
    return Submission(found.name, chosen, cpu, dict(resources or {}), queue.collection_name if beside else None)


class Cluster:
    """
    The queue and the workers of a project, as long as the context is open.

    Parameters
    ----------
    submission
        Project and workers.
    """

    def __init__(self, submission: Submission) -> None:
        self.submission = submission
        self.project, self.file = read_project(submission.project)
        self.controller = self.project.get_job_controller()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.controller.close()

    def worker_of(self, name: str) -> str:
        """Worker of a chunk; always the same, whose disk holds its journal."""
        return self.submission.workers[uuid.UUID(name).int % len(self.submission.workers)]

    def resources(self, worker: str) -> dict[str, Any]:
        """Give what a chunk's job asks the scheduler for."""
        return {**(self.project.workers[worker].resources or {}), **self.submission.resources}

    def device(self, name: str) -> str | None:
        """Device of a chunk's job: a GPU if its worker promises one and names none itself; a job without then fails."""
        worker = self.worker_of(name)
        asked = json.dumps(self.resources(worker), default=str)
        return "cuda" if "gpu" in asked.lower() and DEVICE not in (self.project.workers[worker].pre_run or "") else None

    def journal(self, name: str) -> str:
        """Folder of a chunk's journal on its worker's disk."""
        return f"{self.project.workers[self.worker_of(name)].work_dir}/journals/{name}"

    def chunk_job(self, maker: BatchMaker, candidates: Any, name: str, job_id: str, **how: Any) -> Job:
        """
        Make the job of a chunk, for its worker.

        Parameters
        ----------
        maker
            With a journal in `journal`.
        candidates
            Of the chunk, or where they will be found.
        name
            Of the chunk.
        job_id
            Of the job.
        how
            Further arguments of `matris.flows.cluster.compute.compute_chunk`.
        """
        worker = self.worker_of(name)
        asked = self.resources(worker)
        job = cluster_job(maker, candidates, walltime=seconds(asked.get("walltime")), **how)
        job.set_uuid(job_id)
        set_run_config(job, worker=worker, resources=asked if self.submission.resources else None)
        return job

    def put(self, flow: Flow) -> None:
        """Hand a flow to the queue; its jobs may refer to what the job store holds."""
        self.controller.add_flow(flow, worker=self.submission.cpu_worker, allow_external_references=True)

    def jobs(self, job_ids: Iterable[str]) -> dict[str, dict[str, Any]]:
        """
        Read how jobs stand.

        Returns
        -------
        dict
            By id, the last document of the queue, with ``seconds``, the time that it and those it replaced took.
        """
        known = ["uuid", "index", "state", "error", "remote.error", "start_time", "end_time"]
        found = self.controller.jobs.find({"uuid": {"$in": list(job_ids)}}, known).sort("index", 1)
        told: dict[str, dict[str, Any]] = {}
        for job in found:
            spent = told.get(job["uuid"], {}).get("seconds", 0.0)
            if job.get("start_time") and job.get("end_time"):
                spent += (job["end_time"] - job["start_time"]).total_seconds()
            told[job["uuid"]] = {**job, "seconds": spent}
        return told

    def unlock(self, job_ids: Iterable[str]) -> None:
        """Free jobs, and those that wait for them, that a runner held when it died, or when it lost the database."""
        flows = list(self.controller.flows.find({"jobs": {"$in": list(job_ids)}}, ["uuid", "jobs"]))
        old = {"lock_time": {"$lt": datetime.now(UTC) - _STALE}}
        of_flows = {"uuid": {"$in": [flow["uuid"] for flow in flows]}}
        of_jobs = {"uuid": {"$in": [job for flow in flows for job in flow["jobs"]]}}
        free = {"$set": {"lock_id": None, "lock_time": None}}
        for collection, which in ((self.controller.flows, of_flows), (self.controller.jobs, of_jobs)):
            if n := collection.update_many(which | old, free).modified_count:
                logger.warning("freed %s documents of %s that no runner works on", n, collection.name)

    def stop(self, job_id: str) -> None:
        """Stop a job, and what waits for it."""
        last = self.jobs([job_id]).get(job_id)
        if last is not None:
            self.controller.stop_jobs(job_ids=[(job_id, last["index"])], raise_on_error=False, wait=_LOCKED)
        self.controller.stop_jobflow(job_uuid=job_id)

    def drop_journals(self, names: Iterable[str]) -> None:
        """Remove the journals of chunks whose outputs are stored, where the disks can be reached."""
        by_worker: dict[str, list[str]] = {}
        for name in names:
            by_worker.setdefault(self.worker_of(name), []).append(shlex.quote(self.journal(name)))
        for worker, folders in by_worker.items():
            host = self.project.workers[worker].get_host()
            try:
                host.connect()
                host.execute(f"rm -rf {' '.join(folders)}")
            except remote_errors() as error:
                logger.warning("journals stay on the disk of worker %s: %s", worker, error)
            finally:
                host.close()


def job_id(work_id: str, before: int) -> str:
    """Name a chunk's job: the first as the chunk, so that its output is the one that any runner gives."""
    return work_id if not before else str(uuid.uuid5(_NAMES, f"{work_id} {before}"))
