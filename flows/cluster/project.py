"""A jobflow-remote project from a short description of a cluster."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from matris.errors import MatrisError
from matris.flows.cluster.walltime import seconds
from matris.stores.database.jobstore import STAMP

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

GPU_REQUEST = {"slurm": "gres=gpu:{n}", "pbs": "ngpus={n}", "sge": "gpu={n}", "shell": ""}
"""Resource that requests n GPUs, by scheduler."""

CACHES = {
    "MATRIS_CACHE": "matris",
    "TORCHINDUCTOR_CACHE_DIR": "inductor",
    "TRITON_CACHE_DIR": "triton",
    "TORCH_EXTENSIONS_DIR": "extensions",
}
"""Environment variables for the cache folders of checkpoints and compiled kernels, and their folders."""

_CONNECT_TIMEOUT = 30  # seconds
_RUNNER_INTERVAL = 10.0  # seconds between the runner's queries of its database
_LAST_START = 0.8  # fraction of the time limit after which a whole node takes no further job
_MAX_IDLE = 300.0  # seconds that a whole node waits for the next job


@dataclass(frozen=True)
class ClusterAnswers:
    """
    Description of a cluster.

    Parameters
    ----------
    name
        Name of the project.
    scheduler
        ``slurm``, ``pbs``, ``sge``, or ``shell`` for a machine without a scheduler.
    work_dir
        Absolute path of the folder for jobs on the cluster, accessible from login and compute nodes; without variables
        or ``~``.
    folder
        Folder of jobflow-remote's projects on this machine.
    executables
        Folder of ``jf`` on this machine.
    database
        Name of the database; its address is in `uri_file`.
    host, user
        Login node, reached by SSH, and the user's name on it. Default: the cluster is this machine.
    partition, account, walltime
        Partition or queue, account and time limit of a job; the time as ``[DAYS-]HH:MM:SS``.
    gpus_per_node
        Number of GPUs per node.
    gpu_request
        Resource that requests ``{n}`` GPUs, such as ``gres=gpu:a100:{n}`` or ``gpus_per_node={n}`` for Slurm. Default:
        `GPU_REQUEST`.
    cpus_per_gpu
        Number of CPU cores per GPU.
    memory
        Memory of a job with one GPU, such as ``32G``.
    modules
        Environment modules to load first.
    environment
        Environment variables and their values, which may refer to other variables, such as ``$SCRATCH``.
    python
        Folder of the virtual environment on the cluster, or a command that activates an environment.
    cache_dir
        Folder for checkpoints and compiled kernels on the cluster.
    max_jobs
        Maximum number of jobs in the scheduler at a time.
    whole_node
        Whether one Slurm job uses all GPUs of a node, and runs jobs on each of them, one after the other.
    """

    name: str
    scheduler: str
    work_dir: str
    folder: Path
    executables: Path
    database: str
    host: str | None = None
    user: str | None = None
    partition: str | None = None
    account: str | None = None
    walltime: str = "24:00:00"
    gpus_per_node: int = 1
    gpu_request: str | None = None
    cpus_per_gpu: int = 4
    memory: str | None = None
    modules: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    python: str | None = None
    cache_dir: str | None = None
    max_jobs: int = 8
    whole_node: bool = False

    @property
    def file(self) -> Path:
        """Path of the project's file."""
        return self.folder / f"{self.name}.yaml"

    @property
    def uri_file(self) -> Path:
        """Path of the file with the address of the database."""
        return self.folder / f"{self.name}.mongodb"


def project_spec(answers: ClusterAnswers) -> dict[str, Any]:
    """
    Make the content of a project file of jobflow-remote.

    The project has two workers: ``gpu`` on the cluster, and ``cpu``, a process on the machine of the runner that has
    access to the database. Results go to the same collections as with a store ``mongodb://…``.

    Parameters
    ----------
    answers
        Description of the cluster.

    Returns
    -------
    dict
        Content of the project's file, without secrets.

    Raises
    ------
    MatrisError
        If the answers contradict each other.
    """
    _check(answers)

    def store(kind: str, collection: str, **more: str) -> dict[str, Any]:
        address = {"uri_file": str(answers.uri_file), "database": answers.database, "collection_name": collection}
        return {"@module": "matris.stores.database.private_mongo", "@class": kind, **address, **more}

    return {
        "name": answers.name,
        "runner": {"delay_checkout": _RUNNER_INTERVAL, "delay_advance_status": _RUNNER_INTERVAL},
        "queue": {
            "store": store("PrivateMongoStore", f"{answers.name}_jobs"),
            "flows_collection": f"{answers.name}_flows",
            "auxiliary_collection": f"{answers.name}_auxiliary",
            "batches_collection": f"{answers.name}_batches",
        },
        "jobstore": {
            "@module": "jobflow.core.store",
            "@class": "JobStore",
            "docs_store": store(
                "PrivateMongoStore", "outputs", key="uuid", last_updated_field=STAMP, last_updated_type="isoformat"
            ),
            "additional_stores": {"data": store("PrivateGridFSStore", "outputs_blobs", key="blob_uuid")},
        },
        "workers": {"gpu": _gpu_worker(answers), "cpu": _cpu_worker(answers)},
    }


def _gpu_worker(answers: ClusterAnswers) -> dict[str, Any]:
    location: dict[str, Any] = {"type": "local"}
    if answers.host:
        location = _given(type="remote", host=answers.host, user=answers.user, connect_timeout=_CONNECT_TIMEOUT)
    worker: dict[str, Any] = {
        **location,
        "scheduler_type": answers.scheduler,
        "work_dir": answers.work_dir,
        "max_jobs": answers.max_jobs,
        "pre_run": _pre_run(answers),
    }
    if answers.scheduler == "sge":  # qstat cannot list jobs by id
        worker["scheduler_username"] = answers.user
    resources = _RESOURCES[answers.scheduler](answers, answers.gpus_per_node if answers.whole_node else 1)
    if resources:
        worker["resources"] = resources
    if answers.whole_node:
        key, _, gpu = _gpus(answers, 1).partition("=")  # the same kind of request as for the node: kinds do not mix
        gpu = f"--{key.replace('_', '-')}={gpu}"
        step = f"srun --exact -N1 -n1 -c{answers.cpus_per_gpu} {gpu} --mem={answers.memory or 0}"
        worker["execution_cmd"] = f"{step} jf -fe execution run {{}}"
        worker["batch"] = {
            "jobs_handle_dir": f"{answers.work_dir}/{answers.name}-handles",
            "work_dir": f"{answers.work_dir}/{answers.name}-nodes",
            "parallel_jobs": answers.gpus_per_node,
            "max_time": _LAST_START * (seconds(answers.walltime) or 0.0),
            "max_wait": _MAX_IDLE,
        }
    return worker


def _cpu_worker(answers: ClusterAnswers) -> dict[str, Any]:
    return {
        "type": "local",
        "scheduler_type": "shell",
        "work_dir": str(answers.folder / answers.name / "cpu"),
        "max_jobs": 2,
        "pre_run": f'export PATH={shlex.quote(str(answers.executables))}:"$PATH"',
    }


def _pre_run(answers: ClusterAnswers) -> str:
    """
    Make the shell commands that run before a job.

    They belong to the worker, so that they apply to every flow and to whole nodes. An execution configuration would
    load its modules after the environment is activated, and their Python would take precedence.
    """
    from matris.model.potential import DEVICE  # loads torch

    # a job that gets no GPU fails instead of computing on the CPU
    variables = {} if answers.scheduler == "shell" else {DEVICE: "cuda"}
    if answers.cache_dir:
        variables |= {name: f"{answers.cache_dir}/{folder}" for name, folder in CACHES.items()}
    variables |= answers.environment
    lines = [f"module load {module}" for module in answers.modules]
    lines += [f'export {name}="{value}"' for name, value in variables.items()]
    if answers.python:
        is_folder = answers.python.startswith(("/", "$", "~")) and " " not in answers.python
        lines.append(f"source {answers.python}/bin/activate" if is_folder else answers.python)
    return "\n".join(lines)


def _slurm(answers: ClusterAnswers, n_gpus: int) -> dict[str, Any]:
    key, _, value = _gpus(answers, n_gpus).partition("=")
    return _given(
        partition=answers.partition,
        account=answers.account,
        time=answers.walltime,
        nodes=1,
        ntasks=n_gpus,
        cpus_per_task=answers.cpus_per_gpu,
        mem=_times(answers.memory, n_gpus),
    ) | {key: value}


def _pbs(answers: ClusterAnswers, n_gpus: int) -> dict[str, Any]:
    node = [f"1:ncpus={answers.cpus_per_gpu * n_gpus}", _gpus(answers, n_gpus)]
    if answers.memory:
        node.append(f"mem={_times(answers.memory, n_gpus)}")
    return _given(
        queue=answers.partition, account=answers.account, walltime=answers.walltime, select="select=" + ":".join(node)
    )


def _sge(answers: ClusterAnswers, n_gpus: int) -> dict[str, Any]:
    requests = [_gpus(answers, n_gpus)] + ([f"h_vmem={answers.memory}"] if answers.memory else [])
    return _given(
        queue=answers.partition,
        device=answers.account,  # qtoolkit's name for the project of SGE
        walltime=answers.walltime,
        select=",".join(requests),
        qverbatim="#$ -S /bin/bash",
    )


def _shell(_answers: ClusterAnswers, _n_gpus: int) -> dict[str, Any]:
    return {}


_RESOURCES: dict[str, Callable[[ClusterAnswers, int], dict[str, Any]]] = {
    "slurm": _slurm,
    "pbs": _pbs,
    "sge": _sge,
    "shell": _shell,
}


def _given(**resources: Any) -> dict[str, Any]:
    """Select the resources that are not None."""
    return {key: value for key, value in resources.items() if value is not None}


def _gpus(answers: ClusterAnswers, n_gpus: int) -> str:
    """Make the request KEY=VALUE for a number of GPUs."""
    return (answers.gpu_request or GPU_REQUEST[answers.scheduler]).replace("{n}", str(n_gpus))


def _times(memory: str | None, n: int) -> str | None:
    """Multiply the memory of one job by n, in the same unit."""
    return None if memory is None else re.sub(r"^\d+", lambda number: str(int(number[0]) * n), memory)


def _check(answers: ClusterAnswers) -> None:
    """Check that the answers make a working project."""
    request = answers.gpu_request or GPU_REQUEST.get(answers.scheduler, "")
    problems = {
        f"no scheduler {answers.scheduler!r}: give one of {', '.join(GPU_REQUEST)}": (
            answers.scheduler not in GPU_REQUEST
        ),
        f"the project's name {answers.name!r} may contain only letters, digits, - and _": (
            re.fullmatch(r"[A-Za-z0-9_-]+", answers.name) is None
        ),
        f"the work folder {answers.work_dir!r} is no absolute path: write it without variables and ~": (
            re.fullmatch(r"/[^$~]*", answers.work_dir) is None
        ),
        f"the time {answers.walltime!r} is not [DAYS-]HH:MM:SS": (
            re.fullmatch(r"(\d+-)?\d+:\d\d:\d\d", answers.walltime) is None
        ),
        f"the memory {answers.memory!r} is no whole number with a unit, such as 32G": (
            answers.memory is not None and re.fullmatch(r"\d+[A-Za-z]*", answers.memory) is None
        ),
        f"the request {request!r} for GPUs is not KEY=VALUE with {{n}} for their number": (
            answers.scheduler != "shell" and re.fullmatch(r"\w+=.*\{n\}.*", request) is None
        ),
        "without a scheduler, no job is bound to one of several GPUs: use no jobflow-remote, but name the GPUs by "
        "`matris screen --device cuda:0,cuda:1`": answers.scheduler == "shell" and answers.gpus_per_node > 1,
        f"only Slurm can run a job on each GPU of a whole node, not {answers.scheduler}": (
            answers.whole_node and answers.scheduler != "slurm"
        ),
        "SGE lists jobs by user: give the user's name": answers.scheduler == "sge" and not answers.user,
        "the Python environment on another machine is not known: give its folder, or a command that activates it": (
            answers.host is not None and not answers.python
        ),
        "names of environment variables contain only letters, digits and _": any(
            re.fullmatch(r"[A-Za-z_]\w*", name) is None for name in answers.environment
        ),
    }
    for problem, is_present in problems.items():
        if is_present:
            raise MatrisError(problem)
