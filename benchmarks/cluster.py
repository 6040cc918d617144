"""
Measure the delays of jobflow-remote and Slurm: ``python -m benchmarks.cluster --help``, from the repository root.

The setup is that of the tests: Slurm with four fake GPUs, a server of MongoDB's protocol and jobflow-remote's runner,
all on this machine. Jobs that sleep and import almost nothing (`asleep.py`) are submitted one by one to an idle
cluster, at times independent of the runner's polling. Then many jobs are submitted at once. With ``max_jobs`` above the
number of GPUs, some jobs wait in Slurm's queue; with ``max_jobs`` equal to it, the next job of a GPU waits for the
runner. The imports of a chunk's job come on top; they are measured with chunks of one candidate.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

import jobflow_remote
from jobflow import Flow
from jobflow_remote import JobController, submit_flow

from benchmarks.asleep import asleep
from benchmarks.peers import machine
from benchmarks.standin import StandInMaker
from tests.cluster.chunks import crystals
from tests.cluster.remote import project, runner
from tests.cluster.slurm import ask, cannot_run, slurm
from tests.conftest import free_port, mongo_process

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from jobflow import Job

GPUS = 4
CHUNKS = 3
_ON_CPU = ("--env", "MATRIS_DEVICE=cpu")
DELAYS = {"jobflow-remote's default delays (30, 30, 30 s)": {}, "delays of our projects (10, 10, 30 s)": None}
"""Delays of checkout, advance_status and check_run_status, as arguments of `tests.cluster.remote.project`."""


class Times(NamedTuple):
    """
    Times of a job's events, in seconds since the epoch.

    Slurm's times are whole seconds.
    """

    submitted: float
    in_slurm: float
    running: float
    started: float
    ended: float
    stored: float
    gpu: str


def main() -> None:
    """Print medians and ranges, one table per set of delays."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--singles", type=int, default=9, help="number of jobs submitted one by one")
    parser.add_argument("--every", type=float, default=13.0, help="time between their submissions (s)")
    parser.add_argument("--at-once", type=int, default=12, help="number of jobs submitted at once")
    parser.add_argument("--seconds", type=float, default=20.0, help="duration of each job submitted at once (s)")
    options = parser.parse_args()
    if reason := cannot_run():
        parser.error(reason)
    print(f"{machine('cpu', 1)}, {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        (folder / "mongo").mkdir()
        with mongo_process(folder / "mongo", free_port()) as uri, slurm(folder / "slurm", GPUS) as environment:
            os.environ |= environment
            jobflow_remote.SETTINGS.projects_folder = str(folder / "projects")
            for number, (told, delays) in enumerate(DELAYS.items()):
                load = os.getloadavg()[0]
                print(f"\n{told}; load {load:.1f} at the start\n\n| | n | median, s | range, s |\n|---|---|---|---|")
                for row in measured(folder / "projects", f"{uri}/bench{number}", delays, options):
                    print(row, flush=True)


def measured(folder: Path, uri: str, delays: dict[str, float] | None, options: argparse.Namespace) -> Iterator[str]:
    """Yield the rows of the table for one set of delays."""
    name = uri.rpartition("/")[2]
    ample, scarce = (
        project(folder, f"{name}_{most}", f"{uri}_{most}", *_ON_CPU, "--max-jobs", str(most), delays=delays)
        for most in (2 * GPUS, GPUS)
    )
    with runner(ample):
        _one_by_one(ample.stem, [asleep(0.0)], 0.0)  # wait for the runner
        singles = _one_by_one(ample.stem, [asleep(0.0) for _ in range(options.singles)], options.every)
        yield _row("from submission to the job's start", [each.started - each.submitted for each in singles])
        yield _row("– to Slurm's queue", [each.in_slurm - each.submitted for each in singles])
        yield _row("– in Slurm's queue", [each.running - each.in_slurm for each in singles])
        yield _row("– from Slurm's start to the job's", [each.started - each.running for each in singles])
        yield _row("from the job's end to its output in the database", [each.stored - each.ended for each in singles])
        yield from _gaps("more jobs in Slurm's queue", _at_once(ample.stem, options))
        chunks = _one_by_one(ample.stem, [StandInMaker().make(crystals(1, n)) for n in range(CHUNKS)], options.every)
        yield _row(
            "from Slurm's start to the start of a chunk: imports", [each.started - each.running for each in chunks]
        )
    with runner(scarce):
        _one_by_one(scarce.stem, [asleep(0.0)], 0.0)
        yield from _gaps("no jobs in Slurm's queue", _at_once(scarce.stem, options))


def _at_once(name: str, options: argparse.Namespace) -> list[Times]:
    jobs = [asleep(options.seconds) for _ in range(options.at_once)]
    submitted = time.time()
    submit_flow(Flow(jobs), worker="gpu", project=name)
    return _times(name, jobs, [submitted] * len(jobs))


def _one_by_one(name: str, jobs: Sequence[Job], every: float) -> list[Times]:
    submitted = []
    for job in jobs:
        submitted.append(time.time())
        submit_flow(job, worker="gpu", project=name)
        time.sleep(every)
    return _times(name, jobs, submitted)


def _times(name: str, jobs: Sequence[Job], submitted: Sequence[float]) -> list[Times]:
    """Wait for jobs, and return the times of their events."""
    controller = JobController.from_project_name(name)
    try:
        while True:
            infos = [controller.get_job_info(job_id=job.uuid) for job in jobs]
            if wrong := [info for info in infos if info.state.value in {"FAILED", "REMOTE_ERROR"}]:
                raise RuntimeError(wrong[0].error or wrong[0].remote.error)
            if all(info.state.value == "COMPLETED" for info in infos):
                break
            time.sleep(1.0)
        return [_time(controller, info, begin) for info, begin in zip(infos, submitted, strict=True)]
    finally:
        controller.close()


def _time(controller: JobController, info: Any, submitted: float) -> Times:
    output = controller.jobstore.get_output(info.uuid)
    told = ask(dict(os.environ), "scontrol", "show", "job", "-o", output["ran_on"]["scheduler_job"])
    slurm_times = dict(word.split("=", 1) for word in told.split() if "=" in word)
    return Times(
        submitted,
        datetime.fromisoformat(slurm_times["SubmitTime"]).timestamp(),
        datetime.fromisoformat(slurm_times["StartTime"]).timestamp(),
        datetime.fromisoformat(output["started"]).timestamp(),
        datetime.fromisoformat(output["created"]).timestamp(),
        info.updated_on.replace(tzinfo=UTC).timestamp()
        if info.updated_on.tzinfo is None
        else info.updated_on.timestamp(),
        output["ran_on"]["visible_devices"],
    )


def _gaps(which: str, times: Sequence[Times]) -> Iterator[str]:
    """Yield rows for the time between the end of a job and the start of the next job on the same GPU."""
    ordered = sorted(times, key=lambda each: (each.gpu, each.started))
    pairs = [(before, after) for before, after in pairwise(ordered) if after.gpu == before.gpu]
    what = f"between jobs of a GPU, {which}"
    yield _row(what, [after.started - before.ended for before, after in pairs])
    yield _row("– of it, until Slurm starts the next job", [after.running - before.ended for before, after in pairs])


def _row(what: str, seconds: Sequence[float]) -> str:
    return f"| {what} | {len(seconds)} | {median(seconds):.1f} | {min(seconds):.1f}–{max(seconds):.1f} |"


if __name__ == "__main__":
    main()
