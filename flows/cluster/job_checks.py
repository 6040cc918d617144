"""A test job on each worker of a project."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from matris.flows.cluster.check_results import CheckResult, last_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from jobflow_remote.config.base import Project, WorkerConfig

_LOOK = 2.0  # seconds between looks at a test job


def check_jobs(project: Project, file: Path, checkpoint: str | None, minutes: float) -> Iterator[CheckResult]:
    """Run a job on each worker that loads the checkpoint and tells its device."""
    from jobflow_remote import submit_flow

    from matris.flows.cluster.probe import probe

    jobs = {name: probe(checkpoint) for name in project.workers}
    for name, job in jobs.items():
        submit_flow(job, worker=name, project=project.name)
    controller = project.get_job_controller()
    end = time.monotonic() + 60 * minutes
    try:
        while jobs:
            for name, job in list(jobs.items()):
                info = controller.get_job_info(job_id=job.uuid)
                finding = _judged(name, project, file, info, controller.jobstore)
                if finding is None and time.monotonic() > end:
                    told = f"is {info.state.value} after {minutes:g} min, and stays: jf -p {project.name} job info"
                    finding = CheckResult(f"{name}: job", True, f"{told} {info.db_id}; or give it longer: --wait")
                if finding is not None:
                    yield finding
                    del jobs[name]
            if jobs:
                time.sleep(_LOOK)
    finally:
        controller.close()


def _judged(name: str, project: Project, file: Path, info: Any, job_store: Any) -> CheckResult | None:
    """Judge a test job; None while it is under way."""
    from jobflow_remote.jobs.state import JobState

    what, state = f"{name}: job", info.state
    if state is JobState.COMPLETED:
        return _judged_device(what, project.workers[name], file, job_store.get_output(info.uuid, load=True))
    if state in {JobState.FAILED, JobState.REMOTE_ERROR}:
        reason = last_line(info.error or info.remote.error or "")
        look = f"jf -p {project.name} job info {info.db_id}, jf -p {project.name} job queue-out {info.db_id}"
        return CheckResult(what, True, f"{state.value} ({reason}): {look}")
    if state in {JobState.STOPPED, JobState.USER_STOPPED, JobState.PAUSED}:
        return CheckResult(what, True, f"somebody made it {state.value}: check again")
    return None


def _judged_device(what: str, worker: WorkerConfig, file: Path, told: Mapping[str, Any]) -> CheckResult:
    """Judge whether a job had the GPU that its worker asks for, and no other."""
    visible = f"CUDA_VISIBLE_DEVICES={told['visible_devices']}"
    where = f"{told['device_name']} of {told['host']} ({told['device']}, {visible})"
    wanted = "gpu" in json.dumps(worker.resources or {}, default=str).lower()
    if wanted and not told["device"].startswith("cuda"):
        cause = f"torch {told['torch']} there finds no GPU: install the one for its driver"
        if not told["visible_devices"]:
            cause = f"the scheduler gave it no GPU: correct the resources in {file}"
        return CheckResult(what, True, f"ran on the {where}; {cause}")
    if wanted and told["n_gpus"] != 1:
        return CheckResult(
            what, True, f"sees {told['n_gpus']} GPUs on {told['host']}: the scheduler must give one to a job"
        )
    return CheckResult(what, False, f"ran on the {where} with checkpoint {told['checkpoint']}, sha256 {told['sha256']}")
