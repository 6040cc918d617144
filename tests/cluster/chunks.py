"""Chunks of candidates for the tests' Slurm, and what their records say of the GPUs they were given."""

from __future__ import annotations

import time
from datetime import datetime
from typing import TYPE_CHECKING, Any

from pymatgen.core import Lattice, Structure

from tests.cluster.slurm import Use

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jobflow import Job

_ENDED = {"COMPLETED", "FAILED", "REMOTE_ERROR", "STOPPED", "USER_STOPPED"}


def crystals(number: int, chunk: int = 0) -> list[Structure]:
    """Rock salts, no two of one size."""
    found = []
    for place in range(number):
        a = (4.2 + 1e-3 * (place + 100 * chunk)) / 2
        found.append(Structure(Lattice([[0, a, a], [a, 0, a], [a, a, 0]]), ["Mg", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]]))
    return found


def outputs(project: str, jobs: Sequence[Job], minutes: float) -> tuple[list[str], list[Any]]:
    """
    Wait until jobs have ended.

    Returns
    -------
    tuple
        Their states, and the outputs of those that completed, None for the others: what they say is in the states.
    """
    from jobflow_remote import JobController

    controller = JobController.from_project_name(project)
    end = time.monotonic() + 60 * minutes
    try:
        while True:
            infos = [controller.get_job_info(job_id=job.uuid) for job in jobs]
            if all(info.state.value in _ENDED for info in infos):
                break
            assert time.monotonic() < end, [info.state.value for info in infos]
            time.sleep(0.5)
        states = [info.error or info.remote.error or info.state.value for info in infos]
        store = controller.jobstore
        done = [store.get_output(info.uuid) if info.state.value == "COMPLETED" else None for info in infos]
        return states, done
    finally:
        controller.close()


def uses(chunks: Sequence[Mapping[str, Any]]) -> list[Use]:
    """Tell which GPU each chunk had, and when."""
    return [
        Use(
            chunk["ran_on"]["visible_devices"],
            datetime.fromisoformat(chunk["started"]).timestamp(),
            datetime.fromisoformat(chunk["created"]).timestamp(),
        )
        for chunk in chunks
    ]
