"""Unique names of processes, and whether the process with a name has ended."""

from __future__ import annotations

import os
import socket
from pathlib import Path

_PROC = Path("/proc")
_ENDED = {"Z", "X"}  # states of a process that has ended, but whose parent has not waited for it


def this_process() -> str:
    """
    Name the calling process.

    Returns
    -------
    str
        Host and process id, then the start time of the process, and the boot and process id namespace (container) in
        which it runs. The last three make the name unique, as process ids are reused and containers have their own.
    """
    pid = os.getpid()
    _, started = _status(pid) or ("", "")
    return f"{socket.gethostname()}:{pid}:{started}:{_place()}"


def is_gone(process: str) -> bool:
    """
    Find out whether a process has certainly ended.

    Parameters
    ----------
    process
        Name of the process, from `this_process`.

    Returns
    -------
    bool
        False if the process runs, or if it cannot be seen from here: on another machine, in another container, or
        without ``/proc``.
    """
    _, pid, started, place = process.rsplit(":", 3)
    if not started or not place or place != _place():
        return False
    try:
        os.kill(int(pid), 0)  # also sees processes that /proc hides from other users
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    status = _status(int(pid))
    return status is not None and (status[0] in _ENDED or status[1] != started)


def _status(pid: int) -> tuple[str, str] | None:
    """Return the state of a process and its start time (clock ticks since boot); None if they cannot be read."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the name before them may contain spaces and brackets
    return fields[0], fields[19]


def _place() -> str:
    """Return boot id and process id namespace, within which process ids are unique; empty if they cannot be read."""
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        namespace = (_PROC / "self/ns/pid").readlink().name
    except OSError:
        return ""
    return f"{boot}/{namespace.removeprefix('pid:').strip('[]')}"
