"""Checks of a worker: its host, work folder, scheduler and Python environment."""

from __future__ import annotations

import json
import shlex
import subprocess
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING

import matris
from matris.flows.cluster.check_results import CheckResult, last_line

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from jobflow_remote.config.base import WorkerConfig
    from jobflow_remote.remote.host import BaseHost

_IMPORT_TIMEOUT = 120  # seconds for importing matris from a cluster's disk
_MARK = "matris-check "  # start of the line that is read; a login shell may print other lines
_PRINT_VERSIONS = (
    "import json, sys, matris; from importlib.metadata import version; "
    "print('matris-check', json.dumps({'matris-flows': matris.__version__, "
    "'jobflow-remote': version('jobflow-remote'), 'python': sys.executable}))"
)


@dataclass
class _Worker:
    """A worker under check: `place` is the name of its machine, `file` the file of its project."""

    name: str
    config: WorkerConfig
    host: BaseHost
    place: str
    file: Path

    def result(self, what: str, message: str, *, failed: bool = False) -> CheckResult:
        return CheckResult(f"{self.name}: {what}", failed, message)

    def failure(self, what: str, message: str) -> CheckResult:
        return self.result(what, message, failed=True)


def check_worker(name: str, config: WorkerConfig, file: Path) -> Iterator[CheckResult]:
    """
    Check a worker's host, folder, scheduler and Python environment.

    Parameters
    ----------
    name, config
        Name and configuration of the worker.
    file
        File of the project, for the messages.

    Yields
    ------
    CheckResult
        Result of each check; only the first one if the host cannot be reached.
    """
    worker = _Worker(name, config, config.get_host(), getattr(config, "host", "this machine"), file)
    host, place = worker.host, worker.place
    try:
        host.connect()
        problem = host.test()
    except remote_errors() as error:
        problem = f"{type(error).__name__}: {error}"
    if problem:
        remedy = f"make `ssh {place} echo test` work without a password and print nothing else, or correct {file}"
        yield worker.failure("host", f"{place} cannot be reached ({last_line(problem)}): {remedy}")
        return
    try:
        yield worker.result("host", f"{place} answers")
        folder = _check_folder(worker)
        yield folder
        yield _check_scheduler(worker, writable=not folder.failed)
        yield _check_environment(worker)
    finally:
        host.close()


def _check_folder(worker: _Worker) -> CheckResult:
    """Write and remove a file in the work folder."""
    work_dir, place = worker.config.work_dir, worker.place
    test_file = work_dir / ".matris-check"
    try:
        worker.host.mkdir(work_dir)
        worker.host.write_text_file(test_file, "")
        worker.host.remove(test_file)
    except remote_errors() as error:
        remedy = f"correct its permissions, or work_dir in {worker.file}"
        return worker.failure("folder", f"{work_dir} on {place} cannot be written ({error}): {remedy}")
    return worker.result("folder", f"{work_dir} on {place} can be written")


def _check_scheduler(worker: _Worker, *, writable: bool) -> CheckResult:
    """Ask the scheduler for its jobs; for Slurm and a writable work folder, also test the job's resources."""
    from jobflow_remote.remote.queue import QueueManager
    from qtoolkit.core.exceptions import QTKError

    config, host, place = worker.config, worker.host, worker.place
    kind = config.scheduler_type
    manager = QueueManager(scheduler_io=config.get_scheduler_io(), host=host)
    try:
        process = ["1"] if kind == "shell" else None  # qtoolkit cannot parse kernel processes in a full list
        manager.get_jobs_list(process, user=config.scheduler_username)
        script = manager.get_submission_script("true", options=config.resources)
        if kind == "slurm" and writable:
            path = config.work_dir / ".matris-check.sh"
            host.write_text_file(path, script)
            _, refusal, code = host.execute(f"sbatch --test-only {shlex.quote(str(path))}")
            host.remove(path)
            if code:
                remedy = f"correct workers.{worker.name}.resources in {worker.file}"
                return worker.failure(
                    "scheduler", f"Slurm on {place} takes no such job ({last_line(refusal)}): {remedy}"
                )
    except (QTKError, ValueError, *remote_errors()) as error:
        remedy = f"make a login shell there find its commands, or correct workers.{worker.name} in {worker.file}"
        return worker.failure("scheduler", f"{kind} on {place} does not answer ({last_line(str(error))}): {remedy}")
    return worker.result("scheduler", f"{kind} on {place} answers" + (" and takes the job" if kind == "slurm" else ""))


def _check_environment(worker: _Worker) -> CheckResult:
    """Compare the versions of matris-flows and jobflow-remote on the worker with those here."""
    config, place = worker.config, worker.place
    remedy = f"correct workers.{worker.name}.pre_run in {worker.file}"
    command = f"{config.pre_run or ''}\ncommand -v jf && python -c {shlex.quote(_PRINT_VERSIONS)}"
    if config.is_local:
        command = f"bash -c {shlex.quote(command)}"
    try:
        output, errors, _ = worker.host.execute(command, timeout=_IMPORT_TIMEOUT)
    except remote_errors() as error:
        return worker.failure("environment", f"Python on {place} does not answer ({last_line(str(error))}): {remedy}")
    line = next((line for line in output.splitlines() if line.startswith(_MARK)), None)
    if line is None:
        missing = last_line(errors) or "there is no `jf`"
        install = "pip install 'matris-flows[remote]' into it"
        return worker.failure(
            "environment",
            f"the environment on {place} has no matris and jobflow-remote ({missing}): {install}, or {remedy}",
        )
    remote = json.loads(line.removeprefix(_MARK))
    local = {"matris-flows": matris.__version__, "jobflow-remote": version("jobflow-remote")}
    different = [
        f"{package} {remote[package]} there, {local_version} here"
        for package, local_version in local.items()
        if remote[package] != local_version
    ]
    if different:
        return worker.failure(
            "environment", f"{remote['python']} on {place} has {', '.join(different)}: install the same"
        )
    return worker.result(
        "environment", f"{remote['python']} on {place} has matris-flows {remote['matris-flows']}, as here"
    )


def remote_errors() -> tuple[type[Exception], ...]:
    """Return the exceptions that a connection to another machine may raise."""
    from invoke.exceptions import CommandTimedOut
    from paramiko.ssh_exception import SSHException  # type: ignore[import-untyped]

    return (OSError, EOFError, SSHException, CommandTimedOut, subprocess.TimeoutExpired)
