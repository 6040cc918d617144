"""Chunks: the candidates of one job, kept in the job store until the job is done."""

from __future__ import annotations

import hashlib
import json
import math
import uuid
from itertools import batched
from typing import TYPE_CHECKING, Any

from jobflow import OutputReference
from monty.json import jsanitize

from matris.flows.campaign.sharing import ALONE
from matris.stores.documents.documents import utc_now

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from jobflow import Job, JobStore

    from matris.flows.campaign.computation import Computation
    from matris.flows.campaign.sharing import Sharing
    from matris.makers.batch import BatchMaker
    from matris.stores.documents.candidate import Candidate

MAX_BYTES = 8_000_000
"""Maximum size of the candidates of a chunk, as JSON; MongoDB limits documents to 16 MB."""

TYPICAL_COST = 1000.0
"""Bonds in a candidate of ordinary size; the cost of a chunk is at most `chunk_size` times this number."""

_CUTOFF = 6.0  # Å, bond length
_SITE_BYTES, _CANDIDATE_BYTES = 300, 1000
_ID_BATCH = 100  # chunks per query
_NAMES = uuid.UUID("6c0e7a54-8f6f-4a0e-9d0b-5c8c2f1f6a11")  # namespace of chunk ids


def cost(candidate: Candidate) -> float:
    """
    Estimate the computing time of a candidate by its number of bonds, for a uniform density of atoms.

    Parameters
    ----------
    candidate
        Candidate with or without a structure.

    Returns
    -------
    float
        Number of bonds up to 6 Å; 0 without a structure, or for a cell without volume.
    """
    structure = candidate.structure
    if structure is None or not len(structure):
        return 0.0
    volume = abs(structure.lattice.volume)
    bonds = len(structure) ** 2 * 4 / 3 * math.pi * _CUTOFF**3 / volume if volume > 0 else math.inf
    return bonds if math.isfinite(bonds) else 0.0  # the job reports the problem


def chunked(
    candidates: Iterable[Candidate], size: int, max_bytes: int = MAX_BYTES, sharing: Sharing = ALONE
) -> Iterator[list[Candidate]]:
    """
    Split candidates into chunks, bounded by number, cost and size.

    Parameters
    ----------
    candidates
        Candidates, read one by one.
    size
        Maximum number of candidates in a chunk, for cells of ordinary size; chunks of larger cells have fewer.
    max_bytes
        Maximum number of bytes in a chunk, as JSON.
    sharing
        Processes that share the chunks.

    Yields
    ------
    list of Candidate
        Next chunk; the candidates keep their order.
    """
    chunk: list[Candidate] = []
    chunk_cost = chunk_bytes = 0.0
    n_before, limit = 0, sharing.limit(size, 0)
    for candidate in candidates:
        candidate_cost, n_bytes = cost(candidate), _estimated_bytes(candidate)
        too_costly = chunk_cost + candidate_cost > limit * TYPICAL_COST
        if chunk and (len(chunk) >= limit or too_costly or chunk_bytes + n_bytes > max_bytes):
            yield chunk
            n_before += len(chunk)
            limit = sharing.limit(size, n_before)
            chunk, chunk_cost, chunk_bytes = [], 0.0, 0.0
        chunk.append(candidate)
        chunk_cost += candidate_cost
        chunk_bytes += n_bytes
    if chunk:
        yield chunk


def chunk_id(stage: str, origin: Sequence[str], candidates: Sequence[Candidate]) -> str:
    """
    Make the id of a chunk and of its job from the content, so that two runners give the same chunk the same id.

    Parameters
    ----------
    stage
        Stage of the campaign.
    origin
        Hashes of the checkpoint and the settings.
    candidates
        Candidates of the chunk.
    """
    content = "\n".join([stage, *origin, *(candidate.candidate_id for candidate in candidates)])
    return str(uuid.uuid5(_NAMES, hashlib.sha256(content.encode()).hexdigest()))


def queue_chunk(work: Computation, stage: str, candidates: Sequence[Candidate], chunk_cost: float) -> str:
    """
    Queue a chunk, after its candidates are written: every queued chunk can be computed.

    Parameters
    ----------
    work
        Open campaign, or other work in chunks.
    stage
        Stage of the campaign.
    candidates
        Candidates of the chunk.
    chunk_cost
        Expected cost; the queue hands out the costliest chunk first.

    Returns
    -------
    str
        Id of the chunk.
    """
    work_id = chunk_id(stage, work.origin, candidates)
    keep_candidates(work.job_store, work_id, candidates)
    work.queue.put(
        [
            {
                "work_id": work_id,
                "campaign": work.name,
                "stage": stage,
                "cost": chunk_cost,
                "n": len(candidates),
                "payload": {},  # small: every look at the queue reads the chunks in work
            }
        ]
    )
    return work_id


def keep_candidates(job_store: JobStore, work_id: str, candidates: Sequence[Candidate]) -> None:
    """
    Write the candidates of a chunk to a job store, in the form of the output of an earlier job.

    Parameters
    ----------
    job_store
        Connected job store.
    work_id
        Id of the chunk.
    candidates
        Candidates of the chunk.
    """
    drop_candidates(job_store, work_id)  # a killed intake may have left some
    document = {
        "uuid": _input_id(work_id),
        "index": 1,
        "name": "candidates",
        "output": {"candidates": [jsanitize(candidate.model_dump(), strict=True) for candidate in candidates]},
        "completed_at": utc_now().isoformat(),
        "metadata": {"chunk": work_id, "candidate_ids": [candidate.candidate_id for candidate in candidates]},
        "hosts": [],
    }
    job_store.update(document, key=["uuid", "index"], save={"data": ["candidates"]})


def kept_candidates(job_store: JobStore, work_id: str) -> list[dict[str, Any]]:
    """Read the candidates of a chunk from a job store, as dictionaries."""
    document = job_store.query_one({"uuid": _input_id(work_id)}, load=True)
    return document["output"]["candidates"] if document else []


def kept_candidate_ids(job_store: JobStore, work_ids: Iterable[str]) -> Iterator[str]:
    """Yield the ids of the candidates of some chunks, as long as the job store keeps them."""
    for batch in batched(work_ids, _ID_BATCH):
        criteria = {"uuid": {"$in": [_input_id(work_id) for work_id in batch]}}
        for document in job_store.query(criteria, properties=["metadata.candidate_ids"], load=False):
            yield from document["metadata"]["candidate_ids"]


def drop_candidates(job_store: JobStore, work_id: str) -> None:
    """Remove the candidates of a chunk from a job store."""
    job_store.remove_docs({"uuid": _input_id(work_id)})
    for store in job_store.additional_stores.values():
        store.remove_docs({"job_uuid": _input_id(work_id)})


def chunk_job(maker: BatchMaker, work_id: str) -> Job:
    """
    Make the job of a chunk; the job reads the candidates from the job store when it runs.

    Parameters
    ----------
    maker
        Maker of the stage.
    work_id
        Id of the chunk and of its job.
    """
    job = maker.make(chunk_reference(work_id))
    job.set_uuid(work_id)
    return job


def chunk_reference(work_id: str) -> OutputReference:
    """Make a reference to the candidates of a chunk, for the input of a job."""
    return OutputReference(_input_id(work_id))["candidates"]


def _input_id(work_id: str) -> str:
    """Make the id under which the job store holds the candidates of a chunk."""
    return str(uuid.uuid5(_NAMES, f"{work_id} candidates"))


def _estimated_bytes(candidate: Candidate) -> float:
    """Estimate the size of a candidate as JSON."""
    n_sites = len(candidate.structure) if candidate.structure is not None else 0
    return _CANDIDATE_BYTES + _SITE_BYTES * n_sites + len(json.dumps(candidate.provenance, default=str))
