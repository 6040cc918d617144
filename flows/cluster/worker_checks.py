"""Checks of a worker: its host, folder, scheduler and Python environment."""

from __future__ import annotations

import json
import shlex
import subprocess
from typing import TYPE_CHECKING

import matris
from matris.flows.cluster.check_results import CheckResult, last_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from jobflow_remote.config.base import WorkerConfig
    from jobflow_remote.remote.host import BaseHost

_IMPORTS = 120  # seconds that importing may take from a cluster's disk
_VERSIONS = (
    "import json, sys, matris; from importlib.metadata import version; "
    "print('matris-check', json.dumps({'matris-flows': matris.__version__, "
    "'jobflow-remote': version('jobflow-remote'), 'python': sys.executable}))"
)


def check_worker(name: str, worker: WorkerConfig, file: Path) -> Iterator[CheckResult]:
    """Check a worker's host, folder, scheduler and Python environment."""
    host, where = worker.get_host(), getattr(worker, "host", "this machine")
    try:
        host.connect()
        problem = host.test()
    except remote_errors() as error:
        problem = f"{type(error).__name__}: {error}"
    if problem:
        way = f"see that `ssh {where} echo test` works without a password and prints nothing else"
        yield CheckResult(
            f"{name}: host", True, f"{where} cannot be reached ({last_line(problem)}): {way}, or correct {file}"
        )
        return
    try:
        yield CheckResult(f"{name}: host", False, f"{where} answers")
        folder = _check_folder(name, worker, host, where, file)
        yield folder
        yield _check_scheduler(name, worker, host, where, file, writable=not folder.wrong)
        yield _check_environment(name, worker, host, where, file)
    finally:
        host.close()


def _check_folder(name: str, worker: WorkerConfig, host: BaseHost, where: str, file: Path) -> CheckResult:
    canary = worker.work_dir / ".matris-check"
    try:
        host.mkdir(worker.work_dir)
        host.write_text_file(canary, "")
        host.remove(canary)
    except remote_errors() as error:
        told = f"{worker.work_dir} on {where} cannot be written ({error}): correct its rights, or work_dir in {file}"
        return CheckResult(f"{name}: folder", True, told)
    return CheckResult(f"{name}: folder", False, f"{worker.work_dir} on {where} can be written")


def _check_scheduler(
    name: str, worker: WorkerConfig, host: BaseHost, where: str, file: Path, *, writable: bool
) -> CheckResult:
    from jobflow_remote.remote.queue import QueueManager
    from qtoolkit.core.exceptions import QTKError

    what, kind = f"{name}: scheduler", worker.scheduler_type
    manager = QueueManager(scheduler_io=worker.get_scheduler_io(), host=host)
    try:
        process = ["1"] if kind == "shell" else None  # of all, qtoolkit chokes on those of the kernel
        manager.get_jobs_list(process, user=worker.scheduler_username)
        script = manager.get_submission_script("true", options=worker.resources)
        if kind == "slurm" and writable:
            path = worker.work_dir / ".matris-check.sh"
            host.write_text_file(path, script)
            _, refusal, code = host.execute(f"sbatch --test-only {shlex.quote(str(path))}")
            host.remove(path)
            if code:
                told = f"Slurm on {where} takes no such job ({last_line(refusal)}): correct workers.{name}.resources"
                return CheckResult(what, True, f"{told} in {file}")
    except (QTKError, ValueError, *remote_errors()) as error:
        told = f"{kind} on {where} does not answer ({last_line(str(error))}): see that a login shell there finds its "
        return CheckResult(what, True, f"{told}commands, or correct workers.{name} in {file}")
    return CheckResult(what, False, f"{kind} on {where} answers" + (" and takes the job" if kind == "slurm" else ""))


def _check_environment(name: str, worker: WorkerConfig, host: BaseHost, where: str, file: Path) -> CheckResult:
    what, way = f"{name}: environment", f"correct workers.{name}.pre_run in {file}"
    command = f"{worker.pre_run or ''}\ncommand -v jf && python -c {shlex.quote(_VERSIONS)}"
    if worker.is_local:
        command = f"bash -c {shlex.quote(command)}"
    try:
        printed, complaint, _ = host.execute(command, timeout=_IMPORTS)
    except remote_errors() as error:
        return CheckResult(what, True, f"Python on {where} does not answer ({last_line(str(error))}): {way}")
    told = next((line for line in printed.splitlines() if line.startswith("matris-check ")), None)
    if told is None:
        missing = last_line(complaint) or "there is no `jf`"
        install = "pip install 'matris-flows[remote]' into it"
        return CheckResult(
            what, True, f"the environment on {where} has no matris and jobflow-remote ({missing}): {install}, or {way}"
        )
    there = json.loads(told.partition(" ")[2])
    differing = [f"{package} {there[package]} there, {ours} here" for package, ours in _ours(there)]
    if differing:
        return CheckResult(what, True, f"{there['python']} on {where} has {', '.join(differing)}: install the same")
    return CheckResult(what, False, f"{there['python']} on {where} has matris-flows {there['matris-flows']}, as here")


def _ours(there: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Find packages that have another version here."""
    from importlib.metadata import version

    for package, ours in (("matris-flows", matris.__version__), ("jobflow-remote", version("jobflow-remote"))):
        if there[package] != ours:
            yield package, ours


def remote_errors() -> tuple[type[Exception], ...]:
    """Give what may go wrong between two machines."""
    from invoke.exceptions import CommandTimedOut
    from paramiko.ssh_exception import SSHException  # type: ignore[import-untyped]

    return (OSError, EOFError, SSHException, CommandTimedOut, subprocess.TimeoutExpired)
