"""Project and workers of jobflow-remote to which the jobs of a campaign are submitted."""

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
"""States of jobs that will not give an output."""

_NAMES = uuid.UUID("8d1f4c0e-0f0a-4a4e-9f3c-2d7f6a5e1b90")  # namespace of job ids

logger = logging.getLogger(__name__)

_LOCK_TIMEOUT = 30  # seconds to wait while the runner holds a job
_STALE = timedelta(minutes=10)  # age of a lock of which the runner must have died, as none of its steps takes so long


@dataclass(frozen=True)
class Submission:
    """
    Project, workers and resources for the jobs of a campaign.

    Parameters
    ----------
    project
        Name of the project of jobflow-remote.
    workers
        Workers for the jobs of chunks.
    cpu_worker
        Worker for supervising jobs, hulls and reports; a process with access to the database.
    resources
        Resources of the chunks' jobs, with the names of qtoolkit; they override those of the worker.
    jobs_collection
        Collection of jobflow-remote's jobs if it is in the database of the results. `matris status` reads it.
    """

    project: str
    workers: tuple[str, ...] = (GPU,)
    cpu_worker: str = CPU
    resources: Mapping[str, Any] = field(default_factory=dict)
    jobs_collection: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the submission as a JSON object."""
        return asdict(self) | {"workers": list(self.workers), "resources": dict(self.resources)}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """Read the submission from the output of `to_dict`."""
        return cls(**{**content, "workers": tuple(content["workers"])})


def choose_submission(
    project: str | None = None,
    workers: Iterable[str] = (),
    resources: Mapping[str, Any] | None = None,
) -> Submission:
    """
    Choose the project and the workers for the jobs of a campaign, and check that they exist.

    Supervising jobs run on the worker ``cpu`` if it is on this machine, else on the first worker that is.

    Parameters
    ----------
    project
        Name of the project. Default: jobflow-remote's own choice.
    workers
        Workers for the jobs of chunks. Default: ``gpu`` if it exists, else all but the worker of supervising jobs.
    resources
        Resources of the chunks' jobs, as for `Submission`.

    Raises
    ------
    MatrisError
        If the project lacks one of the workers, or has no worker on this machine.
    """
    config, file = read_project(project)
    local = [name for name, worker in config.workers.items() if worker.is_local]
    cpu = CPU if CPU in local else next(iter(local), None)
    if cpu is None:
        raise MatrisError(f"no worker in {file} is on this machine, which a job that sees the database needs: add one")
    others = tuple(name for name in config.workers if name != cpu)
    chosen = tuple(workers) or ((GPU,) if GPU in config.workers else others or (cpu,))
    if unknown := [name for name in chosen if name not in config.workers]:
        raise MatrisError(f"no worker {', '.join(unknown)} in {file}: there are {', '.join(config.workers)}")
    queue, docs = config.get_queue_store(), config.get_jobstore().docs_store
    same_database = getattr(queue, "database", None) == getattr(docs, "database", None)
    return Submission(config.name, chosen, cpu, dict(resources or {}), queue.collection_name if same_database else None)


class Cluster:
    """
    Context with the queue and the workers of a project.

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
        """Return the worker of a chunk; it is always the same, as its disk has the journal."""
        return self.submission.workers[uuid.UUID(name).int % len(self.submission.workers)]

    def resources(self, worker: str) -> dict[str, Any]:
        """Return the resources that a chunk's job requests on a worker."""
        return {**(self.project.workers[worker].resources or {}), **self.submission.resources}

    def device(self, name: str) -> str | None:
        """
        Return the device of a chunk's job.

        It is ``"cuda"`` if the job requests a GPU and its worker names no device, so that a job without a GPU fails;
        else None.
        """
        worker = self.worker_of(name)
        requested = json.dumps(self.resources(worker), default=str)
        named = DEVICE in (self.project.workers[worker].pre_run or "")
        return "cuda" if "gpu" in requested.lower() and not named else None

    def journal(self, name: str) -> str:
        """Return the folder of a chunk's journal on the disk of its worker."""
        return f"{self.project.workers[self.worker_of(name)].work_dir}/journals/{name}"

    def chunk_job(self, maker: BatchMaker, candidates: Any, name: str, job_id: str, **options: Any) -> Job:
        """
        Make the job of a chunk, for its worker.

        Parameters
        ----------
        maker
            Maker of the stage, with its journal in the folder `journal`.
        candidates
            Candidates of the chunk, or a reference to them.
        name
            Id of the chunk.
        job_id
            Id of the job.
        options
            Further arguments of `matris.flows.cluster.compute.compute_chunk`.
        """
        worker = self.worker_of(name)
        requested = self.resources(worker)
        job = cluster_job(maker, candidates, walltime=seconds(requested.get("walltime")), **options)
        job.set_uuid(job_id)
        set_run_config(job, worker=worker, resources=requested if self.submission.resources else None)
        return job

    def put(self, flow: Flow) -> None:
        """Add a flow to the queue; its jobs may refer to outputs in the job store."""
        self.controller.add_flow(flow, worker=self.submission.cpu_worker, allow_external_references=True)

    def jobs(self, job_ids: Iterable[str]) -> dict[str, dict[str, Any]]:
        """
        Read the documents of jobs from the queue.

        Returns
        -------
        dict
            Latest document of each job by id, with ``seconds``, the run time of the job and of those that it replaced.
        """
        fields = ["uuid", "index", "state", "error", "remote.error", "start_time", "end_time"]
        latest_last = self.controller.jobs.find({"uuid": {"$in": list(job_ids)}}, fields).sort("index", 1)
        documents: dict[str, dict[str, Any]] = {}
        for job in latest_last:
            spent = documents.get(job["uuid"], {}).get("seconds", 0.0)
            if job.get("start_time") and job.get("end_time"):
                spent += (job["end_time"] - job["start_time"]).total_seconds()
            documents[job["uuid"]] = {**job, "seconds": spent}
        return documents

    def unlock(self, job_ids: Iterable[str]) -> None:
        """Release stale locks on jobs and their flows, which a runner held when it died or lost the database."""
        flows = list(self.controller.flows.find({"jobs": {"$in": list(job_ids)}}, ["uuid", "jobs"]))
        stale = {"lock_time": {"$lt": datetime.now(UTC) - _STALE}}
        of_flows = {"uuid": {"$in": [flow["uuid"] for flow in flows]}}
        of_jobs = {"uuid": {"$in": [job for flow in flows for job in flow["jobs"]]}}
        unlocked = {"$set": {"lock_id": None, "lock_time": None}}
        for collection, criteria in ((self.controller.flows, of_flows), (self.controller.jobs, of_jobs)):
            if n := collection.update_many(criteria | stale, unlocked).modified_count:
                logger.warning("released stale locks on %s documents of %s", n, collection.name)

    def stop(self, job_id: str) -> None:
        """Stop a job and the jobs that wait for it."""
        latest = self.jobs([job_id]).get(job_id)
        if latest is not None:
            self.controller.stop_jobs(job_ids=[(job_id, latest["index"])], raise_on_error=False, wait=_LOCK_TIMEOUT)
        self.controller.stop_jobflow(job_uuid=job_id)

    def drop_journals(self, names: Iterable[str]) -> None:
        """Remove the journals of chunks whose outputs are stored, on workers that can be reached."""
        by_worker: dict[str, list[str]] = {}
        for name in names:
            by_worker.setdefault(self.worker_of(name), []).append(shlex.quote(self.journal(name)))
        for worker, folders in by_worker.items():
            host = self.project.workers[worker].get_host()
            try:
                host.connect()
                host.execute(f"rm -rf {' '.join(folders)}")
            except remote_errors() as error:
                logger.warning("cannot remove journals from the disk of worker %s: %s", worker, error)
            finally:
                host.close()


def job_id(work_id: str, n_before: int) -> str:
    """
    Make the id of a chunk's job.

    The first job has the id of the chunk, so that its output is found as that of any other runner's job.

    Parameters
    ----------
    work_id
        Id of the chunk.
    n_before
        Number of earlier jobs of the chunk.
    """
    return work_id if not n_before else str(uuid.uuid5(_NAMES, f"{work_id} {n_before}"))
