"""How many worker processes a machine takes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import torch

from matris.machine import PROCESSES, free_memory, usable_cores
from matris.model.potential import DEVICE, chosen_device

if TYPE_CHECKING:
    from collections.abc import Sequence

WORKER_MEMORY = 0.8e9
"""Memory of a worker process on a CPU (bytes), without libraries that all processes share; some 0.6 GB are usual."""

_THREADS = "OMP_NUM_THREADS"


def default_devices(device: str | None = None) -> list[str | None]:
    """
    Choose the devices of the worker processes of a run that names none.

    Parameters
    ----------
    device
        Device of the run's Maker, or None.

    Returns
    -------
    list of str or None
        One entry for each process; None is the device of the Maker, or the default one. If the Maker names a device, or
        ``MATRIS_DEVICE`` a GPU, one process. Otherwise one for each GPU. Without a GPU one for each core, as many as
        there is memory for; fewer if ``OMP_NUM_THREADS`` gives each process several threads.

    Raises
    ------
    CheckpointError
        If ``MATRIS_DEVICE`` names a device that is not available.

    Examples
    --------
    >>> default_devices("cpu")
    [None]
    """
    if device is not None:
        return [None]
    if chosen_device().type == "cuda":
        n_gpus = 1 if os.environ.get(DEVICE) else torch.cuda.device_count()
        return [f"cuda:{number}" for number in range(n_gpus)] if n_gpus > 1 else [None]
    n = min(usable_cores() // (_given_threads() or 1), int(free_memory() / WORKER_MEMORY))
    return [None] * max(1, n)


def on_gpu(devices: Sequence[str | None]) -> bool:
    """Whether one of some devices is a GPU by its name; None is the default device of a machine."""
    return any(name is not None and name.startswith("cuda") for name in devices)


def environment_of(n: int, sharers: int) -> dict[str, str]:
    """
    Make the environment variables of one of several worker processes on this machine.

    Parameters
    ----------
    n
        Number of processes, which share the cores.
    sharers
        Number of those that share its device and the memory of that.

    Examples
    --------
    >>> environment_of(4, 2)["MATRIS_PROCESSES_PER_DEVICE"]
    '2'
    """
    variables = {PROCESSES: str(sharers)}
    threads = max(1, usable_cores() // n)
    is_limited = threads < torch.get_num_threads()  # torch does not know of quotas
    if _given_threads() is None and (n > 1 or is_limited):
        variables[_THREADS] = str(threads)
    return variables


def _given_threads() -> int | None:
    """Return the number of threads of a process that the user set, or None."""
    given = os.environ.get(_THREADS, "").split(",")[0].strip()
    return int(given) if given.isdigit() and int(given) else None
