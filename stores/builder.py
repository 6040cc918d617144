"""Builder that turns job outputs (chunks of candidates, and properties) into documents."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass, field
from itertools import batched
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from matris.stores.database.atomic import add_missing, set_fields
from matris.stores.documents.candidate import REFERENCE_SOURCES
from matris.stores.documents.documents import CHUNK_FORMAT, ERROR_LENGTH, ChunkDocument, unwind, utc_now
from matris.stores.documents.properties import PROPERTY_FORMAT, MissingArraysError, loaded
from matris.stores.documents.summaries import SUMMARIES, compared, summarise
from matris.stores.hull.hull import HULL_FIELDS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from jobflow.core.store import JobStore
    from maggma.core import Store

    from matris.stores.documents.documents import CandidateDocument

_BATCH = 200  # documents per write
_NAMED = 3  # jobs in a sentence
_COMPARED = ("job_uuid", "computed_at", "state", "energy")  # tell results of a candidate apart
_SET_LATER = {
    *HULL_FIELDS,
    "hulls",
    "dft",
    "chosen",
    "stage",
    "duplicate_of",
}  # by hulls and campaigns, not by this builder
_PROPERTY_FIELDS = (
    "candidate_id",
    "state",
    "error",
    "warnings",
    "formula_pretty",
    "chemsys",
    "elements",
    "nelements",
    "nsites",
    "pressure",
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
    Result of a build.

    Attributes
    ----------
    n_chunks, n_documents
        Number of chunks that were unwound, and number of their documents.
    n_properties
        Number of property documents that were unwound.
    chemical_systems
        Chemical systems whose hulls may have changed.
    refused
        Outputs that cannot be unwound, each with the reason.
    incomplete
        Outputs whose arrays are missing in the job store: their job was killed before it stored them, is storing them
        now, or kept them in another store. A later build tries again.
    """

    n_chunks: int = 0
    n_documents: int = 0
    n_properties: int = 0
    chemical_systems: frozenset[str] = field(default_factory=frozenset)
    refused: Mapping[str, str] = field(default_factory=dict)
    incomplete: tuple[str, ...] = ()


@dataclass(frozen=True)
class Collections:
    """
    Stores that a build writes to.

    Attributes
    ----------
    docs, data
        Candidate documents, and their structures and arrays, key ``document_id``.
    properties
        One small document for each candidate, checkpoint, kind of property and settings, key ``property_id``.
    chunks
        Marks of the outputs that are unwound, key ``chunk_id``.
    """

    docs: Store
    data: Store
    properties: Store
    chunks: Store


def build(into: Collections, job_store: JobStore, only: Collection[str] | None = None) -> Built:
    """
    Unwind job outputs that are new.

    An output is marked as unwound only after its documents are stored. An interrupted build is therefore repeated
    without loss, and repeating a build changes nothing. If a job was run again, its output is unwound again. An output
    with invalid content is marked with the reason and does not affect other outputs.

    Several processes may build and place documents on hulls at once. Existing documents are changed field by field, so
    that no process reverts the changes of another. If the energy of a document changes, its places on hulls are
    removed; the summaries of its properties remain. A failure never replaces a result.

    Parameters
    ----------
    into
        Connected stores to write to.
    job_store
        Connected job store with the outputs of the batch Makers.
    only
        UUIDs of the jobs to consider. By default all jobs are.

    Returns
    -------
    Built
        Numbers of added documents, and outputs that cannot be unwound.
    """
    n_chunks = n_documents = n_properties = 0
    systems: set[str] = set()
    refused: dict[str, str] = {}
    incomplete: list[str] = []
    for job, output_format in _new_outputs(into, job_store, only):
        name = _chunk_id(job)
        criteria = {"uuid": job["uuid"], "index": job["index"]}
        try:
            result = job_store.query_one(criteria, load=output_format == CHUNK_FORMAT) or {}
        except KeyError:  # the arrays are missing: jobflow stores them last, and was killed before
            incomplete.append(name)
            into.chunks.update([_incomplete_mark(job_store, criteria, name)], key="chunk_id")
            continue
        output = result.get("output")
        try:
            if output_format == CHUNK_FORMAT:
                documents = _unwind_chunk(into, ChunkDocument.model_validate(output), job["uuid"])
                n_chunks += 1
                n_documents += len(documents)
                systems |= {document.chemsys for document in documents if document.chemsys}
                mark: dict[str, Any] = {"n_documents": len(documents)}
            else:
                n = _unwind_properties(into, output, job["uuid"], result.get("completed_at"))
                n_properties += n
                mark = {"n_documents": n}
                added = _add_candidates(into, job_store, result["output"], job["uuid"])
                n_documents += len(added)
                systems |= {document.chemsys for document in added if document.chemsys}
        except MissingArraysError:
            incomplete.append(name)
            into.chunks.update([_incomplete_mark(job_store, criteria, name)], key="chunk_id")
            continue
        except (ValidationError, KeyError, TypeError, ValueError, AttributeError) as error:
            reason = f"the output cannot be unwound: {type(error).__name__}: {error}"[:ERROR_LENGTH]
            logger.warning("job %s (%s): %s", job["uuid"], job["index"], reason)
            refused[name] = reason
            mark = {"n_documents": 0, "error": reason}
        mark |= {"chunk_id": name, "completed_at": job.get("completed_at"), "last_updated": utc_now()}
        into.chunks.update([mark], key="chunk_id")
    return Built(n_chunks, n_documents, n_properties, frozenset(systems), refused, tuple(incomplete))


def incomplete_outputs(chunks: Store) -> dict[str, int]:
    """
    Find job outputs whose arrays were missing at the last build, so that their candidates have no documents.

    Parameters
    ----------
    chunks
        Connected store of the marks, see `Collections`.

    Returns
    -------
    dict
        Number of candidates of each output, by the id of its job; without jobs that ran again and are unwound.
    """
    marks = list(chunks.query({}, properties=["chunk_id", "incomplete"]))
    names = [(mark["chunk_id"].rpartition("-")[0], mark.get("incomplete")) for mark in marks]
    unwound = {uuid for uuid, n in names if n is None}
    return {uuid: n for uuid, n in names if n is not None and uuid not in unwound}


def incomplete_remark(incomplete: Mapping[str, int]) -> str | None:
    """
    Say which results lack, because the arrays of job outputs are missing.

    Parameters
    ----------
    incomplete
        Number of candidates of each output, by the id of its job, see
        `matris.stores.candidate_store.CandidateStore.incomplete`.

    Returns
    -------
    str or None
        A sentence; None if nothing lacks.

    Examples
    --------
    >>> incomplete_remark({"0c3f": 500})
    'Results of 500 candidates lack: the arrays of 1 job outputs are not in the store (0c3f), because their jobs ...'
    """
    if not incomplete:
        return None
    jobs = ", ".join(list(incomplete)[:_NAMED]) + (", …" if len(incomplete) > _NAMED else "")
    return (
        f"Results of {sum(incomplete.values())} candidates lack: the arrays of {len(incomplete)} job outputs are not "
        f"in the store ({jobs}), because their jobs were killed, or keep arrays elsewhere. To compute them again: run "
        "the same command or jobs again"
    )


def _incomplete_mark(job_store: JobStore, criteria: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Mark an output without its arrays, with the number of its candidates, until a later build unwinds it."""
    names = ["output.records", "output.documents"]
    output = (job_store.query_one(criteria, properties=names, load=False) or {}).get("output") or {}
    n = len(output.get("records") or output.get("documents") or ())
    return {"chunk_id": name, "incomplete": n, "last_updated": utc_now()}


def _new_outputs(
    into: Collections, job_store: JobStore, only: Collection[str] | None
) -> Iterator[tuple[dict[str, Any], str]]:
    """
    Yield the jobs whose outputs are not unwound, with the format of each output.

    Chunks come before properties, and each kind in the order of completion: a property of a material without a document
    makes one.
    """
    outputs: list[tuple[dict[str, Any], str]] = []
    for field_name, output_format in (
        ("output.chunk_format", CHUNK_FORMAT),
        ("output.property_format", PROPERTY_FORMAT),
    ):
        criteria: dict[str, Any] = {field_name: output_format}
        if only is not None:
            criteria["uuid"] = {"$in": list(only)}
        jobs = job_store.query(criteria, properties=["uuid", "index", "completed_at"], load=False)
        outputs += [(job, output_format) for job in jobs]
    of_these = {} if only is None else {"chunk_id": {"$in": [_chunk_id(job) for job, _ in outputs]}}
    marks = into.chunks.query(of_these, properties=["chunk_id", "completed_at", "incomplete"])
    unwound = {(mark["chunk_id"], mark.get("completed_at")) for mark in marks if mark.get("incomplete") is None}
    new = [(job, format_) for job, format_ in outputs if (_chunk_id(job), job.get("completed_at")) not in unwound]
    yield from sorted(new, key=lambda pair: (pair[1] != CHUNK_FORMAT, str(pair[0].get("completed_at"))))


def _unwind_chunk(into: Collections, chunk: ChunkDocument, uuid: str) -> list[CandidateDocument]:
    """Store the documents and arrays of one chunk, with the summaries of properties that are already stored."""
    unwound = {document.document_id: (document, arrays) for document, arrays in unwind(chunk, uuid)}
    for ids in batched(unwound, _BATCH):
        documents = [unwound[identity][0] for identity in ids]
        array_documents = {identity: {"document_id": identity} | unwound[identity][1].model_dump() for identity in ids}
        add_missing(into.data, array_documents.values())
        add_missing(into.docs, [document.model_dump() for document in documents])
        stored = into.docs.query({"document_id": {"$in": list(ids)}}, properties=["document_id", *_COMPARED])
        changes = {
            old["document_id"]: _changed_fields(unwound[old["document_id"]][0], old)
            for old in stored
            if _replaces(unwound[old["document_id"]][0], old)
        }
        if changes:
            into.data.update([array_documents[identity] for identity in changes], key="document_id")
            set_fields(into.docs, changes)
        _add_summaries(into, [document.candidate_id for document in documents], chunk.checkpoint.sha256)
    return [document for document, _ in unwound.values()]


def _replaces(new: CandidateDocument, old: Mapping[str, Any]) -> bool:
    """Whether a new result replaces the stored one: it comes from another run, and is no failure after a success."""
    if (old.get("job_uuid"), old.get("computed_at")) == (new.job_uuid, new.computed_at):
        return False
    return new.state == "converged" or old["state"] != "converged"


def _changed_fields(new: CandidateDocument, old: Mapping[str, Any]) -> dict[str, Any]:
    """Fields to set in a stored document. Summaries remain; places and stages remain if state and energy are equal."""
    untouched = set(SUMMARIES)
    if (new.state, new.energy) == (old["state"], old.get("energy")):
        untouched |= _SET_LATER
    return new.model_dump(exclude=untouched)


def _add_summaries(into: Collections, candidate_ids: Sequence[str], sha256: str) -> None:
    """
    Copy the summaries of stored properties into the documents of their candidates.

    This is called after candidate documents are stored and after property documents are stored. Whichever comes second
    finds the other. Of results at the pressure of the document, the latest that has not failed is used.
    """
    criteria = {"candidate_id": {"$in": list(candidate_ids)}, "checkpoint.sha256": sha256}
    properties = list(
        into.properties.query(
            criteria, properties=["candidate_id", "kind", "state", "computed_at", "pressure", "summary"]
        )
    )
    if not properties:
        return
    properties.sort(key=lambda document: (document["state"] != "failed", document["computed_at"] or ""))
    by_candidate: dict[tuple[str, float], dict[str, Any]] = {}
    for document in properties:
        by_candidate.setdefault(_at_pressure(document), {})[document["kind"]] = document["summary"]
    changes = {}
    for document in into.docs.query(criteria, properties=["document_id", "candidate_id", "pressure", *SUMMARIES]):
        summaries = compared(by_candidate.get(_at_pressure(document), {}))
        if new := {kind: summary for kind, summary in summaries.items() if document.get(kind) != summary}:
            changes[document["document_id"]] = new | {"last_updated": utc_now()}
    set_fields(into.docs, changes)


def _at_pressure(document: Mapping[str, Any]) -> tuple[str, float]:
    """Candidate and pressure: what a property of one document has in common with the document of the candidate."""
    return document["candidate_id"], document.get("pressure") or 0.0


def _unwind_properties(into: Collections, output: Any, uuid: str, completed_at: str | None) -> int:
    """Store the documents of one property job, and copy their summaries to the candidates."""
    kind = output["kind"]
    if kind not in SUMMARIES:
        raise ValueError(f"unknown kind of property {kind!r}")
    documents = {}
    for result in output["documents"]:
        digest = hashlib.sha256(json.dumps(result["settings"], sort_keys=True, default=str).encode()).hexdigest()[:12]
        computed_at = result.get("created") or completed_at
        about = {"job_uuid": uuid, "settings_digest": digest, "computed_at": computed_at}
        identity = f"{result['candidate_id']}-{result['checkpoint']['sha256'][:8]}-{kind}-{digest[:8]}"
        documents[identity] = (
            {"property_id": identity, "kind": kind, "job_uuid": uuid, "computed_at": computed_at}
            | {name: result.get(name) for name in _PROPERTY_FIELDS}
            | {"summary": summarise(kind, result, **about), "last_updated": utc_now()}
        )
    for ids in batched(documents, _BATCH):
        stored = into.properties.query({"property_id": {"$in": list(ids)}}, properties=["property_id", "state"])
        succeeded = {document["property_id"] for document in stored if document["state"] != "failed"}
        batch = [documents[name] for name in ids if documents[name]["state"] != "failed" or name not in succeeded]
        if batch:
            into.properties.update(batch, key="property_id")
        for sha256 in {document["checkpoint"]["sha256"] for document in batch}:
            _add_summaries(into, [document["candidate_id"] for document in batch], sha256)
    return len(documents)


def _add_candidates(
    into: Collections, job_store: JobStore, output: Mapping[str, Any], uuid: str
) -> list[CandidateDocument]:
    """
    Make documents of the materials of a property job that are no candidates of the store yet.

    Such a document has the relaxation with which the job began. A reference whose property was asked for becomes a
    candidate, under the source that it has in the job.

    Raises
    ------
    MissingArraysError
        If the structures of such materials are not in the additional store.
    """
    results = {result["candidate_id"]: result for result in reversed(output["documents"]) if result.get("start")}
    claimed: dict[str, dict[str, Any]] = {}
    documents: list[CandidateDocument] = []
    for ids in batched(results, _BATCH):
        sha256 = results[ids[0]]["checkpoint"]["sha256"]  # of one job, one checkpoint
        criteria = {"candidate_id": {"$in": list(ids)}, "checkpoint.sha256": sha256}
        known = set()
        fields_read = ["document_id", "candidate_id", "source", "pressure"]
        for document in into.docs.query(criteria, properties=fields_read):
            if _at_pressure(document) != _at_pressure(results[document["candidate_id"]]):
                continue
            known.add(document["candidate_id"])
            record = results[document["candidate_id"]]["start"]["record"]
            if document["source"] in REFERENCE_SOURCES and record["source"] not in REFERENCE_SOURCES:
                fields = {name: record[name] for name in ("source", "provenance")}
                claimed[document["document_id"]] = fields | {"last_updated": utc_now()}
        if new := [results[name] for name in ids if name not in known]:
            documents += _unwind_chunk(into, _chunk_of(job_store, new), uuid)
    set_fields(into.docs, claimed)
    return documents


def _chunk_of(job_store: JobStore, results: Sequence[Mapping[str, Any]]) -> ChunkDocument:
    """Make a chunk of the relaxations with which a property job began."""
    starts = [result["start"] for result in results]
    arrays = [
        {
            "candidate_id": result["candidate_id"],
            "structure": loaded(job_store, result["structure"]),
            **loaded(job_store, start["arrays"]),
        }
        for result, start in zip(results, starts, strict=True)
    ]
    common = {name: results[0][name] for name in ("checkpoint", "versions", "device", "dtype", "created")}
    records = [start["record"] for start in starts]
    return ChunkDocument.model_validate(
        common | {"records": records, "structures": arrays, "settings": starts[0]["settings"]}
    )


def _chunk_id(job: Mapping[str, Any]) -> str:
    return f"{job['uuid']}-{job['index']}"
