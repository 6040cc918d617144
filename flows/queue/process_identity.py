"""Which process wrote something: a name that no other process has, and whether that process is known to be gone."""

from __future__ import annotations

import os
import socket
from pathlib import Path

_PROC = Path("/proc")
_ENDED = {"Z", "X"}  # what the kernel shows of a process that has ended and was not yet waited for


def this_process() -> str:
    """
    Name the calling process.

    Returns
    -------
    str
        Host and process id for people to read, then when it started, the boot of the machine and the process id
        namespace (of the container) it runs in: ids are used again, also side by side.
    """
    pid = os.getpid()
    _, started = _status(pid) or ("", "")
    return f"{socket.gethostname()}:{pid}:{started}:{_place()}"


def is_gone(process: str) -> bool:
    """
    Ask whether a process has certainly ended.

    Parameters
    ----------
    process
        What `this_process` said in it.

    Returns
    -------
    bool
        False where that cannot be known: on other machines, from inside other containers, without ``/proc``.
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
    found = _status(int(pid))
    return found is not None and (found[0] in _ENDED or found[1] != started)


def _status(pid: int) -> tuple[str, str] | None:
    """State of a process and when it started, in ticks since the boot; None where it cannot be read."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the name before may hold blanks and brackets
    return fields[0], fields[19]


def _place() -> str:
    """Boot and namespace, between which process ids do not compare; empty where the system does not tell."""
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        namespace = (_PROC / "self/ns/pid").readlink().name
    except OSError:
        return ""
    return f"{boot}/{namespace.removeprefix('pid:').strip('[]')}"
