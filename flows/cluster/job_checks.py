"""A test job on each worker of a project."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from matris.flows.cluster.check_results import CheckResult, last_line
from matris.stores.database.jobstore import read_output

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from jobflow_remote.config.base import Project, WorkerConfig

_POLL_INTERVAL = 2.0  # seconds between looks at a test job


def check_jobs(project: Project, file: Path, checkpoint: str | None, minutes: float) -> Iterator[CheckResult]:
    """
    Run a job on each worker that loads the checkpoint and reports its device.

    Parameters
    ----------
    project
        Project of jobflow-remote whose runner is running.
    file
        File of the project, for the messages.
    checkpoint
        Registry key or path on the workers; by default the embedded checkpoint.
    minutes
        Time limit (minutes).

    Yields
    ------
    CheckResult
        Result of each job, as soon as it ends or the time limit is reached.
    """
    from jobflow_remote import submit_flow

    from matris.flows.cluster.probe import probe

    jobs = {name: probe(checkpoint) for name in project.workers}
    for name, job in jobs.items():
        submit_flow(job, worker=name, project=project.name)
    controller = project.get_job_controller()
    deadline = time.monotonic() + 60 * minutes
    try:
        while jobs:
            for name, job in list(jobs.items()):
                info = controller.get_job_info(job_id=job.uuid)
                result = _job_result(name, project, file, info, controller.jobstore)
                if result is None and time.monotonic() > deadline:
                    state = f"is {info.state.value} after {minutes:g} min, and stays"
                    remedy = f"jf -p {project.name} job info {info.db_id}; or give it longer: --wait"
                    result = CheckResult(f"{name}: job", True, f"{state}: {remedy}")
                if result is not None:
                    yield result
                    del jobs[name]
            if jobs:
                time.sleep(_POLL_INTERVAL)
    finally:
        controller.close()


def _job_result(name: str, project: Project, file: Path, info: Any, job_store: Any) -> CheckResult | None:
    """Evaluate a test job; None while it is not finished."""
    from jobflow_remote.jobs.state import JobState

    check, state = f"{name}: job", info.state
    if state is JobState.COMPLETED:
        return _device_result(check, project.workers[name], file, read_output(job_store, info.uuid))
    if state in {JobState.FAILED, JobState.REMOTE_ERROR}:
        reason = last_line(info.error or info.remote.error or "")
        remedy = f"jf -p {project.name} job info {info.db_id}, jf -p {project.name} job queue-out {info.db_id}"
        return CheckResult(check, True, f"{state.value} ({reason}): {remedy}")
    if state in {JobState.STOPPED, JobState.USER_STOPPED, JobState.PAUSED}:
        return CheckResult(check, True, f"was set to {state.value}: run the check again")
    return None


def _device_result(check: str, worker: WorkerConfig, file: Path, output: Mapping[str, Any]) -> CheckResult:
    """Evaluate whether a job got exactly one GPU, if its worker requests GPUs."""
    visible = f"CUDA_VISIBLE_DEVICES={output['visible_devices']}"
    device = f"{output['device_name']} of {output['host']} ({output['device']}, {visible})"
    requests_gpu = "gpu" in json.dumps(worker.resources or {}, default=str).lower()
    if requests_gpu and not output["device"].startswith("cuda"):
        cause = f"torch {output['torch']} there finds no GPU: install the build that matches its driver"
        if not output["visible_devices"]:
            cause = f"the scheduler gave it no GPU: correct the resources in {file}"
        return CheckResult(check, True, f"ran on the {device}; {cause}")
    if requests_gpu and output["n_gpus"] != 1:
        return CheckResult(
            check, True, f"sees {output['n_gpus']} GPUs on {output['host']}: the scheduler must give one to each job"
        )
    checkpoint = f"checkpoint {output['checkpoint']}, sha256 {output['sha256']}"
    return CheckResult(check, False, f"ran on the {device} with {checkpoint}")
