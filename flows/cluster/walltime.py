"""A job that ends in order before its scheduler ends it."""

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

_MARGIN, _LEAST, _PART = 60.0, 5.0, 0.05  # seconds before the end: of all, at least, of what is left at the start
_AGAIN = 2.0  # seconds until it is said again, should it have been swallowed, as in a destructor
_ASKING = 30.0  # seconds that a scheduler may take to answer
_UNITS = (1, 60, 3600)


class Ending(BaseException):
    """The scheduler ends the job, or is about to; no error, which a structure could be blamed for."""


@contextmanager
def ended_in_time(walltime: float | None = None) -> Iterator[None]:
    """
    Raise `Ending` in this block shortly before the scheduler's limit, and where the scheduler sends SIGTERM.

    Signals only reach the main thread; in another one this does nothing.

    Parameters
    ----------
    walltime
        Seconds that the job has, if its scheduler does not tell: Slurm does.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reasons: list[str] = []

    def end(number: int, _frame: Any) -> None:
        reasons.append("its scheduler ended it" if number == signal.SIGTERM else "its time was nearly over")
        signal.setitimer(signal.ITIMER_REAL, _AGAIN)
        raise Ending(reasons[0])

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGALRM)}
    try:
        left = seconds_left(walltime)
        if left is not None:
            signal.setitimer(signal.ITIMER_REAL, max(left - min(_MARGIN, max(_LEAST, _PART * left)), 1e-3))
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


def seconds_left(walltime: float | None = None) -> float | None:
    """
    Ask how long the job may still run.

    Parameters
    ----------
    walltime
        Seconds, if the scheduler does not tell.

    Returns
    -------
    float or None
        Seconds; None if there is no limit, or none is known.
    """
    if end := os.environ.get("SLURM_JOB_END_TIME"):
        return float(end) - time.time()
    job = os.environ.get("SLURM_JOB_ID")
    if job and (squeue := shutil.which("squeue")):
        try:
            asked = subprocess.run(  # noqa: S603 - found on the path, with a number
                [squeue, "-h", "-j", job, "-o", "%L"], capture_output=True, text=True, timeout=_ASKING, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            return walltime
        if (left := seconds(asked.stdout.strip())) is not None:
            return left
    return walltime


def seconds(text: Any) -> float | None:
    """
    Read a scheduler's time.

    Parameters
    ----------
    text
        ``[DAYS-]HH:MM:SS`` or ``MM:SS``.

    Returns
    -------
    float or None
        Seconds; None if it is something else, such as ``UNLIMITED``.
    """
    days, _, clock = str(text).rpartition("-")
    parts = clock.split(":")
    if not (days or "0").isdigit() or not 1 < len(parts) <= len(_UNITS) or not all(part.isdigit() for part in parts):
        return None
    clock_seconds = sum(int(part) * unit for part, unit in zip(reversed(parts), _UNITS, strict=False))
    return float(86400 * int(days or 0) + clock_seconds)
