"""What a Maker's function knows of the job that runs it: its store, and a folder of its own."""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobflow import CURRENT_JOB, JobConfig
from maggma.stores import MemoryStore

from matris.errors import StoreError

if TYPE_CHECKING:
    from jobflow import JobStore

SEES_STORE = JobConfig(expose_store=True)
"""Configuration of a job that checks its store before it computes."""

_ADVICE = (
    "add it to the job store, for example with matris.stores.open_job_store('results'), or as additional_stores: data: "
    "in jobflow.yaml"
)


def check_store(store: JobStore | None = None) -> None:
    """
    Check that a job store can keep the arrays of an output, before they are computed.

    Parameters
    ----------
    store
        Job store. Default: the store of the running job, if there is one.

    Raises
    ------
    StoreError
        If the store has no additional store ``data``, or keeps arrays in memory and documents elsewhere: then the
        documents would outlive their arrays.

    Examples
    --------
    >>> from jobflow import JobStore
    >>> check_store(JobStore(MemoryStore(), additional_stores={"data": MemoryStore()}))
    >>> check_store(JobStore(MemoryStore()))
    Traceback (most recent call last):
    matris.errors.StoreError: the job store has no additional store "data" for arrays: add it ...
    """
    store = store if store is not None else CURRENT_JOB.store
    if store is None:
        return
    additional: dict[str, Any] = store.additional_stores  # type: ignore[has-type]
    has_data = "data" in additional or isinstance(additional, defaultdict)  # jobflow's default makes it on first use
    if not has_data:
        raise StoreError(f'the job store has no additional store "data" for arrays: {_ADVICE}')
    if type(additional.get("data")) is MemoryStore and type(store.docs_store) is not MemoryStore:
        raise StoreError(
            f'the additional store "data" of {store.docs_store.name} is in memory, so that the arrays would be lost '
            f"when this process ends: {_ADVICE}"
        )


def own_folder() -> Path:
    """
    Name a folder in the current one for the journals of the running job alone.

    Two jobs with equal settings that run in one folder at the same time would share a journal, which only one of them
    can hold.
    """
    name = CURRENT_JOB.job.uuid if CURRENT_JOB.job is not None else f"process-{os.getpid()}"
    return Path(f"journal-{name}").absolute()
