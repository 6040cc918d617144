"""
What this process may use of its machine: cores and memory.

Schedulers and containers limit a process by the set of its cores, and by control groups (cgroups) of the Linux kernel,
of which there are two versions. Other systems know neither.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

from matris.errors import MatrisError

if TYPE_CHECKING:
    from collections.abc import Iterator

PROCESSES = "MATRIS_PROCESSES_PER_DEVICE"
"""
Environment variable: number of processes that share a device, a GPU or the CPU, each of which takes its part of the
memory. A runner sets it for its worker processes.
"""

_GROUPS = Path("/sys/fs/cgroup")
_OWN_GROUPS = Path("/proc/self/cgroup")
_MEMORY = Path("/proc/meminfo")


def usable_cores() -> int:
    """
    Count the cores that this process may use: those it is bound to, at most the quota of its control groups.

    Examples
    --------
    >>> usable_cores() >= 1
    True
    """
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([bound, *map(math.ceil, _quotas())]))


def total_memory() -> float:
    """
    Memory that this process may use (bytes): that of the machine, at most the limit of its control groups.

    Examples
    --------
    >>> total_memory() >= free_memory() > 0
    True
    """
    return min([float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")), *_memory_limits()])


def free_memory() -> float:
    """Memory that no process uses (bytes), at most `total_memory`; all of that where the system does not tell."""
    total = total_memory()
    lines = _MEMORY.read_text().splitlines() if _MEMORY.exists() else []
    return min([total, *(1024.0 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))])


def n_processes() -> int:
    """
    Return the number of processes that share the device of this process, itself included; 1 if nobody told it.

    Raises
    ------
    MatrisError
        If the environment variable is no positive number.
    """
    told = os.environ.get(PROCESSES) or "1"
    if not told.isdigit() or not int(told):
        raise MatrisError(f"{PROCESSES}={told} is no number of processes: set a positive number, or none")
    return int(told)


def _quotas() -> Iterator[float]:
    """Yield the quotas of processor time of the control groups of this process, in cores."""
    for folder in _groups("cpu"):
        words = _words(folder / "cpu.max") or _words(folder / "cpu.cfs_quota_us") + _words(folder / "cpu.cfs_period_us")
        if len(words) == 2 and all(word.isdigit() for word in words):  # noqa: PLR2004 - quota and period; without a limit max or -1
            yield int(words[0]) / int(words[1])


def _memory_limits() -> Iterator[float]:
    """Yield the limits of memory of the control groups of this process, in bytes."""
    for folder in _groups("memory"):
        yield from map(float, filter(str.isdigit, _words(folder / "memory.max")))
        yield from map(float, _words(folder / "memory.limit_in_bytes"))


def _groups(controller: str) -> Iterator[Path]:
    """Yield the folders of the control groups that limit this process, from its own to the outermost."""
    for line in _OWN_GROUPS.read_text().splitlines() if _OWN_GROUPS.exists() else ():
        _, controllers, group = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root = _GROUPS / controller if controllers else _GROUPS
        folder = root / group.lstrip("/")  # in a container it may not exist: there the root is its own group
        yield folder
        while folder not in {root, folder.parent}:
            folder = folder.parent
            yield folder


def _words(file: Path) -> list[str]:
    """Words of a file; none if it cannot be read."""
    try:
        return file.read_text().split()
    except OSError:
        return []
