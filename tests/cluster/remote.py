"""jobflow-remote for tests and benchmarks: a project for the tests' Slurm, and its runner."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from matris.makers.decoding import TRUSTED

if TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY = Path(__file__).parents[2]
FAST = {"delay_checkout": 1, "delay_advance_status": 1, "delay_check_run_status": 1, "delay_update_batch": 2}
"""Seconds between the runner's looks, as short as it knows them."""

_STOP_TIMEOUT = 30.0  # seconds for a runner to stop
_BIN = Path(sys.executable).parent


def project(folder: Path, name: str, uri: str, *options: str, delays: dict[str, float] | None = FAST) -> Path:
    """
    Write a project by `matris cluster init`.

    Parameters
    ----------
    folder
        Of the projects.
    name
        Of the project.
    uri
        Of its database.
    *options
        Further ones of the command.
    delays
        Seconds between the runner's looks; None leaves those that the command writes.

    Returns
    -------
    Path
        The project's file.
    """
    place = ["--scheduler", "slurm", "--partition", "gpu", "--work-dir", str(folder / name / "work")]
    size = ["--walltime", "00:10:00", "--cpus-per-gpu", "1", "--memory", "1G", "--gpus-per-node", "4"]
    variables = ["--env", f"PYTHONPATH={REPOSITORY}", "--env", "OMP_NUM_THREADS=1"]
    subprocess.run(
        [_BIN / "matris", "cluster", "init", name, *place, *size, *variables, *options],
        env=os.environ | {"JFREMOTE_PROJECTS_FOLDER": str(folder), "MATRIS_MONGO_URI": uri},
        check=True,
        stdout=subprocess.DEVNULL,
    )
    file = folder / f"{name}.yaml"
    if delays is not None:
        set_delays(file, delays)
    return file


def set_delays(file: Path, delays: dict[str, float]) -> None:
    """Write how often the runner looks into a project's file; what is not named is jobflow-remote's own."""
    kept = [line for line in file.read_text().splitlines(keepends=True) if not line.startswith("  delay_")]
    written = "".join(f"  {name}: {seconds}\n" for name, seconds in delays.items())
    runner = f"runner:\n{written}" if written else ""
    file.write_text("".join(kept).replace("runner:\n", runner))


@contextmanager
def runner(file: Path) -> Iterator[None]:
    """Run the runner of a project in a process of this one."""
    with file.with_suffix(".log").open("ab") as log:
        process = subprocess.Popen(
            [_BIN / "jf", "-p", file.stem, "runner", "run"], env=_environment(file), stdout=log, stderr=log
        )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(_STOP_TIMEOUT)
        except subprocess.TimeoutExpired:  # in the middle of a step, on a machine with much to do
            process.kill()
            process.wait()


@contextmanager
def daemon(file: Path) -> Iterator[None]:
    """Start the runner of a project as users do, in one process, and stop it."""
    _jf(file, "runner", "start", "--single")
    try:
        yield
    finally:
        _jf(file, "runner", "stop", "--wait", "--max-wait", f"{_STOP_TIMEOUT:.0f}")


def _jf(file: Path, *command: str) -> None:
    subprocess.run(
        [_BIN / "jf", "-p", file.stem, *command],
        env=_environment(file),
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _environment(file: Path) -> dict[str, str]:
    path = f"{_BIN}{os.pathsep}{os.environ['PATH']}"  # of supervisord
    # jobs of a local worker have the runner's environment, and the stand-in is no part of the package
    stand_in = {"PYTHONPATH": str(REPOSITORY), TRUSTED: "benchmarks.standin"}
    return os.environ | stand_in | {"JFREMOTE_PROJECTS_FOLDER": str(file.parent), "PATH": path}
