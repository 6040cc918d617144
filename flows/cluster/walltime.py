"""Stop a job before its scheduler kills it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

_MAX_MARGIN, _MIN_MARGIN = 60.0, 5.0  # seconds before the time limit
_MARGIN = 0.05  # of the time left at the start, within these bounds
_REPEAT = 2.0  # seconds until `Ending` is raised again, in case a destructor swallowed it
_SQUEUE_TIMEOUT = 30.0  # seconds for the scheduler to answer
_UNITS = (1, 60, 3600)


class Ending(BaseException):
    """The job reaches its time limit, or the scheduler ends it. No subclass of `Exception`, as no structure fails."""


@contextmanager
def ended_in_time(walltime: float | None = None) -> Iterator[None]:
    """
    Raise `Ending` in this context shortly before the time limit of the job, and when the scheduler sends SIGTERM.

    Python handles signals in the main thread only; in another thread this context does nothing.

    Parameters
    ----------
    walltime
        Time limit of the job (seconds), for schedulers that do not report it; Slurm does.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reasons: list[str] = []

    def end(number: int, _frame: Any) -> None:
        reasons.append("its scheduler ended it" if number == signal.SIGTERM else "its time limit was nearly reached")
        signal.setitimer(signal.ITIMER_REAL, _REPEAT)
        raise Ending(reasons[0])

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGALRM)}
    try:
        left = seconds_left(walltime)
        if left is not None:
            margin = min(_MAX_MARGIN, max(_MIN_MARGIN, _MARGIN * left))
            signal.setitimer(signal.ITIMER_REAL, max(left - margin, 1e-3))
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


def seconds_left(walltime: float | None = None) -> float | None:
    """
    Find out how long the job may still run.

    Parameters
    ----------
    walltime
        Result for schedulers that do not report the remaining time (seconds).

    Returns
    -------
    float or None
        Remaining time (seconds); None if there is no limit, or if it is unknown.
    """
    if end := os.environ.get("SLURM_JOB_END_TIME"):
        return float(end) - time.time()
    job = os.environ.get("SLURM_JOB_ID")
    if job and (squeue := shutil.which("squeue")):
        try:
            answer = subprocess.run(  # noqa: S603 - found on the path, with a number
                [squeue, "-h", "-j", job, "-o", "%L"],
                capture_output=True,
                text=True,
                timeout=_SQUEUE_TIMEOUT,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return walltime
        if (left := seconds(answer.stdout.strip())) is not None:
            return left
    return walltime


def seconds(text: Any) -> float | None:
    """
    Convert the time of a scheduler to seconds.

    Parameters
    ----------
    text
        Time as ``[DAYS-]HH:MM:SS`` or ``MM:SS``.

    Returns
    -------
    float or None
        Seconds; None for other text, such as ``UNLIMITED``.

    Examples
    --------
    >>> seconds("1-02:00:30"), seconds("10:00"), seconds("UNLIMITED")
    (93630.0, 600.0, None)
    """
    days, _, clock = str(text).rpartition("-")
    parts = clock.split(":")
    if not (days or "0").isdigit() or not 1 < len(parts) <= len(_UNITS) or not all(part.isdigit() for part in parts):
        return None
    clock_seconds = sum(int(part) * unit for part, unit in zip(reversed(parts), _UNITS, strict=False))
    return float(86400 * int(days or 0) + clock_seconds)
