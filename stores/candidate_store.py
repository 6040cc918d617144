"""The queryable results: one small document per candidate, checkpoint and settings, its arrays beside it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from pymatgen.core.structure import Structure

from matris.errors import StoreError
from matris.stores.candidate_query import CandidateQuery
from matris.stores.documents import CHUNK_FORMAT, CandidateDocument, ChunkDocument, unwind, utc_now
from matris.stores.hull import hull_results
from matris.stores.jobstore import open_job_store, sibling_store
from matris.stores.mongo import ResultsMongoStore
from matris.stores.query_terms import query_terms
from matris.stores.references import References, load_references

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime
    from pathlib import Path

    from jobflow.core.store import JobStore
    from maggma.core import Store

INDEXED = (
    "candidate_id",
    "formula_pretty",
    "chemsys",
    "elements",
    "nelements",
    "energy_above_hull",
    "state",
    "checkpoint.key",
    "checkpoint.sha256",
    "last_updated",
)
"""Fields people and builders query by."""

_HULL_INPUT = (
    "document_id",
    "state",
    "chemsys",
    "composition",
    "energy_per_atom",
    "correction_scheme",
    "checkpoint",
    "settings",
    "hull_type",
    "hull_reference",
    "hull_state",
    "formation_energy_per_atom",
    "energy_above_hull",
    "is_stable",
    "decomposes_to",
)
_BATCH = 1000  # ids in one query


@dataclass(frozen=True)
class Built:
    """
    What a build added.

    Attributes
    ----------
    n_chunks, n_documents
        How many outputs of chunk jobs were unwound, and into how many documents.
    chemical_systems
        Systems whose hulls may have changed.
    """

    n_chunks: int = 0
    n_documents: int = 0
    chemical_systems: frozenset[str] = field(default_factory=frozenset)


class CandidateStore:
    """
    Documents of candidates, and what is too large for them.

    Parameters
    ----------
    docs
        Connected store of `matris.stores.documents.CandidateDocument`, key ``document_id``.
    data
        Connected store of structures and per-atom arrays, key ``document_id``.
    chunks
        Connected store that remembers which job outputs were unwound, key ``chunk_id``.

    Raises
    ------
    StoreError
        If an index cannot be made.
    """

    def __init__(self, docs: Store, data: Store, chunks: Store) -> None:
        self.docs = docs
        self.data = data
        self.chunks = chunks
        _index(docs, "document_id", unique=True)
        _index(data, "document_id", unique=True)
        _index(chunks, "chunk_id", unique=True)
        for name in INDEXED:
            _index(docs, name)
        if isinstance(docs, ResultsMongoStore):  # a window of one chemical system without reading all of either
            _index(docs, ["chemsys", "energy_above_hull"])

    @classmethod
    def open(cls, location: str | Path | None = None) -> CandidateStore:
        """
        Open the documents beside a job store.

        Parameters
        ----------
        location
            Folder or MongoDB URI, as `matris.stores.jobstore.open_job_store` takes it.
        """
        return cls.beside(open_job_store(location))

    @classmethod
    def beside(cls, job_store: JobStore) -> CandidateStore:
        """Open the documents in the database of a connected job store."""
        return cls(
            sibling_store(job_store, "candidates", "document_id"),
            sibling_store(job_store, "candidate_data", "document_id"),
            sibling_store(job_store, "candidate_chunks", "chunk_id"),
        )

    def build(self, job_store: JobStore) -> Built:
        """
        Unwind the outputs of chunk jobs that are new since the last build.

        An output is marked only after its documents are stored, so that a build that was interrupted is repeated and
        loses nothing; a repeated one changes nothing.

        Parameters
        ----------
        job_store
            Connected store with the outputs of `matris.makers.BatchRelaxMaker`.

        Returns
        -------
        Built
            What was added.

        Raises
        ------
        StoreError
            If an output says it is a chunk and is not.
        """
        known = set(self.chunks.distinct("chunk_id"))
        found = job_store.query(
            {"output.chunk_format": CHUNK_FORMAT}, properties=["uuid", "index", "completed_at"], load=False
        )
        new = [job for job in found if _chunk_id(job) not in known]
        n_documents = 0
        systems: set[str] = set()
        for job in sorted(new, key=lambda job: str(job.get("completed_at"))):
            documents = self._unwind(job_store, job)
            n_documents += len(documents)
            systems |= {document.chemsys for document in documents if document.chemsys}
        return Built(len(new), n_documents, frozenset(systems))

    def upsert(self, documents: Iterable[CandidateDocument]) -> None:
        """Store documents, each in place of the one with its id."""
        by_id = {document.document_id: document.model_dump() for document in documents}
        if by_id:
            self.docs.update(list(by_id.values()), key="document_id")

    def update_hulls(
        self,
        references: str | Path | References | None = None,
        *,
        changed: Iterable[str] | None = None,
        checkpoint_sha256: str | None = None,
        settings_digest: str | None = None,
    ) -> int:
        """
        Place the documents on their hulls.

        Parameters
        ----------
        references
            Entries to compare with, or a file of them. By default the documents of the same checkpoint and settings.
        changed
            Chemical systems with new documents; only hulls they may have changed are taken again. By default all are.
        checkpoint_sha256, settings_digest
            Only documents of this checkpoint and these settings. By default all, each combination by itself.

        Returns
        -------
        int
            How many documents changed.

        Raises
        ------
        MatrisError
            If the references cannot be read or are on another energy scale.
        """
        touched = None if changed is None else [set(chemsys.split("-")) for chemsys in changed]

        def wanted(chemsys: str) -> bool:
            return touched is None or not chemsys or any(symbols <= set(chemsys.split("-")) for symbols in touched)

        n_changed = 0
        for criteria in self._origins(checkpoint_sha256, settings_digest):
            documents = list(self.docs.query(criteria, properties=list(_HULL_INPUT)))
            if documents:
                loaded = _load(references, documents[0]["checkpoint"]["energy_scale"])
                results = hull_results(documents, loaded, wanted=wanted)
                n_changed += self._write_hulls(documents, {i: result.to_dict() for i, result in results.items()})
        return n_changed

    def done_ids(self, checkpoint_sha256: str, settings_digest: str) -> set[str]:
        """
        Candidates that need not be computed again, whatever became of them.

        Parameters
        ----------
        checkpoint_sha256
            Hash of the weights.
        settings_digest
            Hash of the settings.

        Returns
        -------
        set of str
            Candidate ids.
        """
        criteria = {"checkpoint.sha256": checkpoint_sha256, "settings.digest": settings_digest}
        return {document["candidate_id"] for document in self.docs.query(criteria, properties=["candidate_id"])}

    def query(
        self,
        *,
        formula: str | None = None,
        chemsys: str | Sequence[str] | None = None,
        within: str | None = None,
        elements: Sequence[str] | None = None,
        exclude_elements: Sequence[str] | None = None,
        spacegroup: str | int | None = None,
        below: float | None = None,
        stable: bool | None = None,
        state: str | Sequence[str] | None = None,
        checkpoint: str | None = None,
        since: datetime | None = None,
    ) -> CandidateQuery:
        """
        Ask for documents; all that is given must be met. See `CandidateQuery` for filters, order, pages and tables.

        Parameters
        ----------
        formula
            Formula in any order and multiple.
        chemsys
            Exactly these elements, as ``"Li-Fe-O"`` in any order; or one of several such systems.
        within
            No elements but these, as ``"Li-Fe-O"``: the system and all its subsystems.
        elements
            At least these elements.
        exclude_elements
            None of these elements.
        spacegroup
            Number or symbol.
        below
            Largest energy above the hull (eV/atom).
        stable
            Whether it is on the hull.
        state
            ``converged``, ``max_steps``, ``failed``, …; or one of several.
        checkpoint
            Key, or the first eight digits or more of the hash.
        since
            Documents that were updated then or later; UTC if it has no zone.

        Raises
        ------
        MatrisError
            If there is no such element, formula, space group or state.
        """
        terms = query_terms(
            formula=formula,
            chemsys=chemsys,
            within=within,
            elements=elements,
            exclude_elements=exclude_elements,
            spacegroup=spacegroup,
            below=below,
            stable=stable,
            state=state,
            checkpoint=checkpoint,
            since=since,
        )
        return CandidateQuery(self.docs, self.data).meeting(*terms)

    def documents(self, document_ids: Sequence[str]) -> list[dict[str, Any]]:
        """Documents by id, in the order given, without those that do not exist."""
        found = {
            document["document_id"]: _plain(document)
            for batch in _batches(list(document_ids))
            for document in self.docs.query({"document_id": {"$in": batch}})
        }
        return [found[identity] for identity in document_ids if identity in found]

    def arrays(self, document_id: str) -> dict[str, Any] | None:
        """Structures (as dictionaries), forces (n, 3; eV/Å), stress (3, 3; eV/Å³) and magnetic moments (n; μB)."""
        found = self.data.query_one({"document_id": document_id})
        return _plain(found) if found else None

    def structure(self, document_id: str, *, initial: bool = False) -> Structure | None:
        """
        Crystal of a document.

        Parameters
        ----------
        document_id
            Of the document.
        initial
            The input instead of the relaxed crystal.

        Returns
        -------
        Structure or None
            None if there is none, as after a failure.
        """
        arrays = self.arrays(document_id) or {}
        known = arrays.get("initial_structure" if initial else "structure")
        return Structure.from_dict(known) if known else None

    def _unwind(self, job_store: JobStore, job: dict[str, Any]) -> list[CandidateDocument]:
        """Store the documents and arrays of one chunk, then remember it."""
        uuid, index = job["uuid"], job["index"]
        try:
            found = job_store.query_one({"uuid": uuid, "index": index}, load=True) or {}
        except KeyError:  # its arrays are not there: jobflow stores them last, and was killed in between
            return []
        try:
            chunk = ChunkDocument.model_validate(found.get("output"))
        except ValidationError as error:
            raise StoreError(f"the output of job {uuid} ({index}) is no chunk that can be unwound: {error}") from error
        documents: dict[str, CandidateDocument] = {}
        arrays: dict[str, dict[str, Any]] = {}
        for document, large in unwind(chunk, uuid):
            documents[document.document_id] = document
            arrays[document.document_id] = {"document_id": document.document_id} | large.model_dump()
        if arrays:
            self.data.update(list(arrays.values()), key="document_id")
        self.upsert(documents.values())
        mark = {"chunk_id": _chunk_id(job), "n_documents": len(documents), "last_updated": utc_now()}
        self.chunks.update([mark], key="chunk_id")
        return list(documents.values())

    def _write_hulls(self, documents: list[dict[str, Any]], results: dict[str, dict[str, Any]]) -> int:
        """Write the results that differ from what the documents say, and count them."""
        stale = [
            document["document_id"]
            for document in documents
            if any(document.get(name) != value for name, value in results.get(document["document_id"], {}).items())
        ]
        for batch in _batches(stale):
            found = self.docs.query({"document_id": {"$in": batch}})
            stamp = {"last_updated": utc_now()}
            self.docs.update([_plain(document) | results[document["document_id"]] | stamp for document in found])
        return len(stale)

    def _origins(self, checkpoint_sha256: str | None, settings_digest: str | None) -> Iterator[dict[str, str]]:
        """Criteria of each checkpoint and settings whose documents share a hull."""
        checkpoints = [checkpoint_sha256] if checkpoint_sha256 else sorted(self.docs.distinct("checkpoint.sha256"))
        for sha256 in checkpoints:
            criteria = {"checkpoint.sha256": sha256}
            digests = [settings_digest] if settings_digest else sorted(self.docs.distinct("settings.digest", criteria))
            for digest in digests:
                yield criteria | {"settings.digest": digest}


def _index(store: Store, name: str | list[str], *, unique: bool = False) -> None:
    if not store.ensure_index(name, unique=unique):
        raise StoreError(f"cannot index {name!r} of {store.name}: check the rights on this store, and for duplicates")


def _load(references: str | Path | References | None, energy_scale: str) -> References | None:
    if references is None or isinstance(references, References):
        return references
    return load_references(references, energy_scale)


def _chunk_id(job: dict[str, Any]) -> str:
    return f"{job['uuid']}-{job['index']}"


def _plain(document: dict[str, Any]) -> dict[str, Any]:
    """Document without the store's own id."""
    return {key: value for key, value in document.items() if key != "_id"}


def _batches(items: list[str]) -> Iterator[list[str]]:
    return (items[start : start + _BATCH] for start in range(0, len(items), _BATCH))
