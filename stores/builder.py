"""From job outputs to documents: chunks of candidates, and properties that are added to them."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass, field
from itertools import batched
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from matris.stores.atomic import set_fields
from matris.stores.documents import CHUNK_FORMAT, ChunkDocument, unwind, utc_now
from matris.stores.property_documents import PROPERTY_FORMAT
from matris.stores.property_summaries import SUMMARIES, summarise

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from jobflow.core.store import JobStore
    from maggma.core import Store

    from matris.stores.documents import CandidateDocument

_BATCH = 200  # documents in one write
_KEPT = ("candidate_id", "state", "error", "warnings", "formula_pretty", "chemsys", "elements", "nelements", "nsites")
_KEPT += ("checkpoint", "settings", "versions", "device", "dtype")
_ERROR_LENGTH = 1000

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Built:
    """
    What a build added.

    Attributes
    ----------
    n_chunks, n_documents
        How many outputs of chunk jobs were unwound, and into how many documents.
    n_properties
        How many documents of properties there are more.
    chemical_systems
        Systems whose hulls may have changed.
    refused
        Outputs that cannot be unwound, and why.
    """

    n_chunks: int = 0
    n_documents: int = 0
    n_properties: int = 0
    chemical_systems: frozenset[str] = field(default_factory=frozenset)
    refused: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Collections:
    """
    Where documents go.

    Attributes
    ----------
    docs, data
        Documents of candidates, their structures and arrays, key ``document_id``.
    properties
        One small document for each candidate, checkpoint, kind of property and settings, key ``property_id``.
    chunks
        Remembers which outputs were unwound, key ``chunk_id``.
    """

    docs: Store
    data: Store
    properties: Store
    chunks: Store


def build(into: Collections, job_store: JobStore, only: Collection[str] | None = None) -> Built:
    """
    Unwind the outputs of jobs that are new.

    An output is marked only after its documents are stored, so that a build that was interrupted is repeated and loses
    nothing; a repeated one changes nothing. An output that is not what it says it is costs only itself: it is
    marked with the reason.

    Parameters
    ----------
    into
        Connected.
    job_store
        Connected, with outputs of the batch Makers.
    only
        Jobs to look at; by default all.

    Returns
    -------
    Built
        What was added.
    """
    n_chunks = n_documents = n_properties = 0
    systems: set[str] = set()
    refused: dict[str, str] = {}
    for job, what in _new(into, job_store, only):
        name = _chunk_id(job)
        try:
            found = job_store.query_one({"uuid": job["uuid"], "index": job["index"]}, load=what == CHUNK_FORMAT) or {}
        except KeyError:  # its arrays are not there: jobflow stores them last, and was killed in between
            continue
        output = found.get("output")
        try:
            if what == CHUNK_FORMAT:
                documents = _unwind_chunk(into, ChunkDocument.model_validate(output), job["uuid"])
                n_chunks += 1
                n_documents += len(documents)
                systems |= {document.chemsys for document in documents if document.chemsys}
                mark: dict[str, Any] = {"n_documents": len(documents)}
            else:
                n = _unwind_properties(into, output, job["uuid"], found.get("completed_at"))
                n_properties += n
                mark = {"n_documents": n}
        except (ValidationError, KeyError, TypeError, ValueError, AttributeError) as error:
            reason = f"no output that can be unwound: {type(error).__name__}: {error}"[:_ERROR_LENGTH]
            logger.warning("job %s (%s): %s", job["uuid"], job["index"], reason)
            refused[name] = reason
            mark = {"n_documents": 0, "error": reason}
        into.chunks.update([{"chunk_id": name, "last_updated": utc_now(), **mark}], key="chunk_id")
    return Built(n_chunks, n_documents, n_properties, frozenset(systems), refused)


def _new(into: Collections, job_store: JobStore, only: Collection[str] | None) -> Iterator[tuple[dict[str, Any], str]]:
    """Jobs whose outputs are not unwound, in the order they ended, each with the format of its output."""
    known = set(into.chunks.distinct("chunk_id"))
    found = []
    for name, what in (("output.chunk_format", CHUNK_FORMAT), ("output.property_format", PROPERTY_FORMAT)):
        criteria: dict[str, Any] = {name: what}
        if only is not None:
            criteria["uuid"] = {"$in": list(only)}
        jobs = job_store.query(criteria, properties=["uuid", "index", "completed_at"], load=False)
        found += [(job, what) for job in jobs if _chunk_id(job) not in known]
    yield from sorted(found, key=lambda each: str(each[0].get("completed_at")))


def _unwind_chunk(into: Collections, chunk: ChunkDocument, uuid: str) -> list[CandidateDocument]:
    """Store the documents and arrays of one chunk, with what is known of its candidates' properties already."""
    documents: dict[str, CandidateDocument] = {}
    arrays: dict[str, dict[str, Any]] = {}
    for document, large in unwind(chunk, uuid):
        documents[document.document_id] = document
        arrays[document.document_id] = {"document_id": document.document_id} | large.model_dump()
    for ids in batched(documents, _BATCH):
        into.data.update([arrays[each] for each in ids], key="document_id")
        stored = _stored(into.docs, ids, uuid)  # by a build that was interrupted; hulls may have been taken since
        fresh = [documents[each] for each in ids if each not in stored]
        if fresh:
            summaries = _summaries(into.properties, fresh)
            into.docs.update(
                [document.model_dump() | summaries.get(document.candidate_id, {}) for document in fresh],
                key="document_id",
            )
    return list(documents.values())


def _stored(docs: Store, ids: Sequence[str], uuid: str) -> set[str]:
    found = docs.query({"document_id": {"$in": list(ids)}}, properties=["document_id", "job_uuid"])
    return {each["document_id"] for each in found if each.get("job_uuid") == uuid}


def _summaries(properties: Store, documents: Sequence[CandidateDocument]) -> dict[str, dict[str, Any]]:
    """Summaries by kind of what was computed before for some candidates, all of one checkpoint."""
    criteria = {
        "candidate_id": {"$in": [document.candidate_id for document in documents]},
        "checkpoint.sha256": documents[0].checkpoint.sha256,
    }
    found: dict[str, dict[str, Any]] = {}
    for each in properties.query(criteria, sort={"last_updated": 1}):
        found.setdefault(each["candidate_id"], {})[each["kind"]] = each["summary"]
    return found


def _unwind_properties(into: Collections, output: dict[str, Any], uuid: str, completed_at: str | None) -> int:
    """Store the documents of one property job, and their summaries with the candidates."""
    kind = output["kind"]
    if kind not in SUMMARIES:
        raise ValueError(f"unknown kind of property {kind!r}")
    documents = []
    for each in output["documents"]:
        digest = hashlib.sha256(json.dumps(each["settings"], sort_keys=True, default=str).encode()).hexdigest()[:12]
        computed_at = each.get("created") or completed_at
        about = {"job_uuid": uuid, "settings_digest": digest, "computed_at": computed_at}
        identity = f"{each['candidate_id']}-{each['checkpoint']['sha256'][:8]}-{kind}-{digest[:8]}"
        documents.append(
            {"property_id": identity, "kind": kind, "job_uuid": uuid, "computed_at": computed_at}
            | {name: each.get(name) for name in _KEPT}
            | {"summary": summarise(kind, each, **about), "last_updated": utc_now()}
        )
    for batch in batched(documents, _BATCH):
        into.properties.update(list(batch), key="property_id")
        by_origin = {(each["candidate_id"], each["checkpoint"]["sha256"]): each["summary"] for each in batch}
        criteria = {"candidate_id": {"$in": [candidate_id for candidate_id, _ in by_origin]}}
        found = into.docs.query(criteria, properties=["document_id", "candidate_id", "checkpoint.sha256"])
        changes = {
            each["document_id"]: {kind: summary, "last_updated": utc_now()}
            for each in found
            if (summary := by_origin.get((each["candidate_id"], each["checkpoint"]["sha256"])))
        }
        set_fields(into.docs, changes)
    return len(documents)


def _chunk_id(job: Mapping[str, Any]) -> str:
    return f"{job['uuid']}-{job['index']}"
