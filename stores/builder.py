"""From job outputs to documents: chunks of candidates, and properties that are added to them."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass, field
from itertools import batched
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from matris.stores.database.atomic import add_missing, set_fields
from matris.stores.documents.documents import CHUNK_FORMAT, ERROR_LENGTH, ChunkDocument, unwind, utc_now
from matris.stores.documents.properties import PROPERTY_FORMAT
from matris.stores.documents.summaries import SUMMARIES, summarise
from matris.stores.hull.hull import HULL_FIELDS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from jobflow.core.store import JobStore
    from maggma.core import Store

    from matris.stores.documents.documents import CandidateDocument

_BATCH = 200  # documents in one write
_TOLD_APART = ("job_uuid", "computed_at", "state", "energy")
_ADDED = {*HULL_FIELDS, "hulls", "stage", "duplicate_of"}  # by others
_KEPT = (
    "candidate_id",
    "state",
    "error",
    "warnings",
    "formula_pretty",
    "chemsys",
    "elements",
    "nelements",
    "nsites",
    "checkpoint",
    "settings",
    "versions",
    "device",
    "dtype",
)

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
    nothing; a repeated one changes nothing. A job that was run again is unwound again. An output that is not what it
    says it is costs only itself: it is marked with the reason.

    Several processes may build at once, and take hulls meanwhile: what is there is changed by field, so that nobody
    undoes what another has added. A document's places on hulls go when its energy changes, the summaries of its
    properties stay. What has failed does not replace what has not.

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
            reason = f"no output that can be unwound: {type(error).__name__}: {error}"[:ERROR_LENGTH]
            logger.warning("job %s (%s): %s", job["uuid"], job["index"], reason)
            refused[name] = reason
            mark = {"n_documents": 0, "error": reason}
        about = {"chunk_id": name, "completed_at": job.get("completed_at"), "last_updated": utc_now()}
        into.chunks.update([about | mark], key="chunk_id")
    return Built(n_chunks, n_documents, n_properties, frozenset(systems), refused)


def _new(into: Collections, job_store: JobStore, only: Collection[str] | None) -> Iterator[tuple[dict[str, Any], str]]:
    """Jobs whose outputs are not unwound, in the order they ended, each with the format of its output."""
    marked = into.chunks.query({}, properties=["chunk_id", "completed_at"])
    known = {(each["chunk_id"], each.get("completed_at")) for each in marked}
    found = []
    for name, what in (("output.chunk_format", CHUNK_FORMAT), ("output.property_format", PROPERTY_FORMAT)):
        criteria: dict[str, Any] = {name: what}
        if only is not None:
            criteria["uuid"] = {"$in": list(only)}
        jobs = job_store.query(criteria, properties=["uuid", "index", "completed_at"], load=False)
        found += [(job, what) for job in jobs if (_chunk_id(job), job.get("completed_at")) not in known]
    yield from sorted(found, key=lambda each: str(each[0].get("completed_at")))


def _unwind_chunk(into: Collections, chunk: ChunkDocument, uuid: str) -> list[CandidateDocument]:
    """Store the documents and arrays of one chunk, with what is known of its candidates' properties."""
    unwound = {document.document_id: (document, large) for document, large in unwind(chunk, uuid)}
    for ids in batched(unwound, _BATCH):
        documents = [unwound[each][0] for each in ids]
        arrays = {each: {"document_id": each} | unwound[each][1].model_dump() for each in ids}
        add_missing(into.data, arrays.values())
        add_missing(into.docs, [document.model_dump() for document in documents])
        found = into.docs.query({"document_id": {"$in": list(ids)}}, properties=["document_id", *_TOLD_APART])
        again = {
            each["document_id"]: _news(unwound[each["document_id"]][0], each)
            for each in found
            if _replaces(unwound[each["document_id"]][0], each)
        }
        if again:
            into.data.update([arrays[each] for each in again], key="document_id")
            set_fields(into.docs, again)
        _add_summaries(into, [document.candidate_id for document in documents], chunk.checkpoint.sha256)
    return [document for document, _ in unwound.values()]


def _replaces(new: CandidateDocument, old: Mapping[str, Any]) -> bool:
    """Whether a result is another than the one stored, and not a failure where there was none."""
    if (old.get("job_uuid"), old.get("computed_at")) == (new.job_uuid, new.computed_at):
        return False
    return new.state == "converged" or old["state"] != "converged"


def _news(new: CandidateDocument, old: Mapping[str, Any]) -> dict[str, Any]:
    """Fields to set in a document that is there: not what others added to it, as long as that holds."""
    kept = set(SUMMARIES)
    if (new.state, new.energy) == (old["state"], old.get("energy")):
        kept |= _ADDED
    return new.model_dump(exclude=kept)


def _add_summaries(into: Collections, candidate_ids: Sequence[str], sha256: str) -> None:
    """
    Let the documents of candidates say what is known of their properties.

    What a chunk stores first and looks up then, a property's job does the other way round: whichever comes second
    finds the first. Of results with several settings, the last that has not failed is taken.
    """
    criteria = {"candidate_id": {"$in": list(candidate_ids)}, "checkpoint.sha256": sha256}
    known = list(
        into.properties.query(criteria, properties=["candidate_id", "kind", "state", "computed_at", "summary"])
    )
    if not known:
        return
    known.sort(key=lambda each: (each["state"] != "failed", each["computed_at"] or ""))
    summaries: dict[str, dict[str, Any]] = {}
    for each in known:
        summaries.setdefault(each["candidate_id"], {})[each["kind"]] = each["summary"]
    documents = into.docs.query(criteria, properties=["document_id", "candidate_id", *SUMMARIES])
    changes = {}
    for document in documents:
        told = summaries.get(document["candidate_id"], {})
        if news := {kind: summary for kind, summary in told.items() if document.get(kind) != summary}:
            changes[document["document_id"]] = news | {"last_updated": utc_now()}
    set_fields(into.docs, changes)


def _unwind_properties(into: Collections, output: Any, uuid: str, completed_at: str | None) -> int:
    """Store the documents of one property job, and their summaries with the candidates."""
    kind = output["kind"]
    if kind not in SUMMARIES:
        raise ValueError(f"unknown kind of property {kind!r}")
    documents = {}
    for each in output["documents"]:
        digest = hashlib.sha256(json.dumps(each["settings"], sort_keys=True, default=str).encode()).hexdigest()[:12]
        computed_at = each.get("created") or completed_at
        about = {"job_uuid": uuid, "settings_digest": digest, "computed_at": computed_at}
        identity = f"{each['candidate_id']}-{each['checkpoint']['sha256'][:8]}-{kind}-{digest[:8]}"
        documents[identity] = (
            {"property_id": identity, "kind": kind, "job_uuid": uuid, "computed_at": computed_at}
            | {name: each.get(name) for name in _KEPT}
            | {"summary": summarise(kind, each, **about), "last_updated": utc_now()}
        )
    for ids in batched(documents, _BATCH):
        found = into.properties.query({"property_id": {"$in": list(ids)}}, properties=["property_id", "state"])
        sound = {each["property_id"] for each in found if each["state"] != "failed"}
        batch = [documents[each] for each in ids if documents[each]["state"] != "failed" or each not in sound]
        if batch:
            into.properties.update(batch, key="property_id")
        for sha256 in {each["checkpoint"]["sha256"] for each in batch}:
            _add_summaries(into, [each["candidate_id"] for each in batch], sha256)
    return len(documents)


def _chunk_id(job: Mapping[str, Any]) -> str:
    return f"{job['uuid']}-{job['index']}"
