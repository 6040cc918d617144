"""Chunks: the candidates that one job works through, kept in the job store until the job takes them."""

from __future__ import annotations

import hashlib
import json
import math
import uuid
from typing import TYPE_CHECKING, Any

from jobflow import OutputReference
from monty.json import jsanitize

from matris.stores.documents.documents import utc_now

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from jobflow import Job, JobStore

    from matris.makers.batch import BatchMaker
    from matris.stores.documents.candidate import Candidate

MAX_BYTES = 8_000_000
"""Of the candidates of a chunk, as JSON: a document of a MongoDB may not pass 16 MB."""

TYPICAL_COST = 1000.0
"""Bonds of a candidate of ordinary size; `chunk_size` of them are the most that a chunk may cost."""

_CUTOFF = 6.0  # Å, of bonds
_SITE_BYTES, _CANDIDATE_BYTES = 300, 1000
_NAMES = uuid.UUID("6c0e7a54-8f6f-4a0e-9d0b-5c8c2f1f6a11")  # of chunks, among all that is named by uuid5


def cost(candidate: Candidate) -> float:
    """
    Estimate the time a candidate takes: its number of bonds, were its density even.

    Parameters
    ----------
    candidate
        With a structure or without; without, it takes no time.
    """
    structure = candidate.structure
    if structure is None or not len(structure):
        return 0.0
    volume = abs(structure.lattice.volume)
    bonds = len(structure) ** 2 * 4 / 3 * math.pi * _CUTOFF**3 / volume if volume > 0 else math.inf
    return bonds if math.isfinite(bonds) else 0.0  # the job will say what is wrong with it


def chunked(candidates: Iterable[Candidate], size: int, max_bytes: int = MAX_BYTES) -> Iterator[list[Candidate]]:
    """
    Cut candidates into chunks of about equal cost.

    Parameters
    ----------
    candidates
        Taken one by one.
    size
        Most candidates in a chunk, of ordinary cells; fewer of larger ones.
    max_bytes
        Most bytes in a chunk, as JSON.

    Yields
    ------
    list of Candidate
        In the order given.
    """
    chunk: list[Candidate] = []
    spent = n_bytes = 0.0
    for candidate in candidates:
        price, weight = cost(candidate), _bytes(candidate)
        full = len(chunk) >= size or spent + price > size * TYPICAL_COST or n_bytes + weight > max_bytes
        if chunk and full:
            yield chunk
            chunk, spent, n_bytes = [], 0.0, 0.0
        chunk.append(candidate)
        spent += price
        n_bytes += weight
    if chunk:
        yield chunk


def chunk_id(stage: str, origin: Sequence[str], candidates: Sequence[Candidate]) -> str:
    """
    Name a chunk by its content, so that two runners give one name to one chunk; it is the id of its job.

    Parameters
    ----------
    stage
        What is done with the candidates.
    origin
        Hashes of the checkpoint and the settings.
    candidates
        Of the chunk.
    """
    content = "\n".join([stage, *origin, *(candidate.candidate_id for candidate in candidates)])
    return str(uuid.uuid5(_NAMES, hashlib.sha256(content.encode()).hexdigest()))


def keep_candidates(job_store: JobStore, work_id: str, candidates: Sequence[Candidate]) -> None:
    """
    Keep the candidates of a chunk in a job store, as if they were the output of an earlier job.

    Parameters
    ----------
    job_store
        Connected.
    work_id
        Id of the chunk.
    candidates
        Of the chunk.
    """
    drop_candidates(job_store, work_id)  # an intake that was killed may have left them
    document = {
        "uuid": _input_id(work_id),
        "index": 1,
        "name": "candidates",
        "output": {"candidates": [jsanitize(candidate.model_dump(), strict=True) for candidate in candidates]},
        "completed_at": utc_now().isoformat(),
        "metadata": {"chunk": work_id},
        "hosts": [],
    }
    job_store.update(document, key=["uuid", "index"], save={"data": ["candidates"]})


def kept_candidates(job_store: JobStore, work_id: str) -> list[dict[str, Any]]:
    """Read the candidates of a chunk back, as dictionaries."""
    found = job_store.query_one({"uuid": _input_id(work_id)}, load=True)
    return found["output"]["candidates"] if found else []


def drop_candidates(job_store: JobStore, work_id: str) -> None:
    """Remove the candidates of a chunk whose job is done."""
    job_store.remove_docs({"uuid": _input_id(work_id)})
    for store in job_store.additional_stores.values():
        store.remove_docs({"job_uuid": _input_id(work_id)})


def chunk_job(maker: BatchMaker, work_id: str) -> Job:
    """
    Make the job of a chunk; it takes the candidates from the job store when it runs.

    Parameters
    ----------
    maker
        What is done with them.
    work_id
        Id of the chunk, and of the job.
    """
    job = maker.make(chunk_reference(work_id))
    job.set_uuid(work_id)
    return job


def chunk_reference(work_id: str) -> OutputReference:
    """Refer to the candidates of a chunk, as a job's input."""
    return OutputReference(_input_id(work_id))["candidates"]


def _input_id(work_id: str) -> str:
    return str(uuid.uuid5(_NAMES, f"{work_id} candidates"))


def _bytes(candidate: Candidate) -> float:
    n_sites = len(candidate.structure) if candidate.structure is not None else 0
    return _CANDIDATE_BYTES + _SITE_BYTES * n_sites + len(json.dumps(candidate.provenance, default=str))
