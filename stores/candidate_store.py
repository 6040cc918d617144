"""The queryable results: one small document per candidate, checkpoint and settings, its arrays beside it."""

from __future__ import annotations

from itertools import batched, product
from typing import TYPE_CHECKING, Any

from maggma.stores import MemoryStore
from pymatgen.core.structure import Structure

from matris.errors import StoreError
from matris.stores.builder import Built, Collections, build
from matris.stores.database.atomic import add_missing, set_fields, set_if
from matris.stores.database.jobstore import open_job_store, sibling_store
from matris.stores.documents.documents import SCHEMA_VERSION, utc_now
from matris.stores.documents.summaries import SUMMARIES
from matris.stores.hull.placing import place_on_hulls
from matris.stores.hull.references import References, load_references
from matris.stores.query.query import CandidateQuery
from matris.stores.query.terms import query_terms

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from jobflow.core.store import JobStore
    from maggma.core import Store

    from matris.stores.documents.documents import CandidateDocument

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
    "settings.digest",
    "hull_state",
    "elastic.bulk_modulus",
    "phonon.has_imaginary_modes",
    "schema_version",
    "last_updated",
)
"""Fields people and builders query by."""

_BATCH = 100  # ids in one query
_SAID = ("state", "stage", "error", "duplicate_of")  # of a candidate that was dropped


class CandidateStore:
    """
    Documents of candidates, with their structures, arrays and properties.

    Parameters
    ----------
    docs
        Connected store of `matris.stores.documents.documents.CandidateDocument`, key ``document_id``.
    data
        Connected store of structures and per-atom arrays, key ``document_id``.
    properties
        Connected store of documents of properties, key ``property_id``.
    chunks
        Connected store that remembers which job outputs were unwound, key ``chunk_id``.

    Raises
    ------
    StoreError
        If an index cannot be made, or the store holds documents of another schema version.
    """

    def __init__(self, docs: Store, data: Store, properties: Store, chunks: Store) -> None:
        self.docs = docs
        self.data = data
        self.properties = properties
        self.chunks = chunks
        for store in (docs, data, properties, chunks):
            _index(store, store.key, unique=True)
        for name in INDEXED:
            _index(docs, name)
        _index(properties, "candidate_id")
        if not isinstance(docs, MemoryStore):  # pages, also of one chemical system, without reading the rest
            _index(docs, ["chemsys", "energy_above_hull", "document_id"])
            _index(docs, ["checkpoint.key", "state", "energy_above_hull", "document_id"])
            _index(docs, ["energy_above_hull", "document_id"])
            _index(docs, ["last_updated", "document_id"])
            _index(docs, ["checkpoint.sha256", "settings.digest", "hull_reference"])  # what lies on which hull
        _refuse_other_versions(docs)

    @classmethod
    def open(cls, location: str | Path | None = None) -> CandidateStore:
        """
        Open the documents beside a job store.

        Parameters
        ----------
        location
            Folder or MongoDB URI, as `matris.stores.database.jobstore.open_job_store` takes it.
        """
        return cls.beside(open_job_store(location))

    @classmethod
    def beside(cls, job_store: JobStore) -> CandidateStore:
        """Open the documents in the database of a connected job store."""
        return cls(
            sibling_store(job_store, "candidates", "document_id"),
            sibling_store(job_store, "candidate_data", "document_id"),
            sibling_store(job_store, "properties", "property_id"),
            sibling_store(job_store, "candidate_chunks", "chunk_id"),
        )

    def build(self, job_store: JobStore, only: Collection[str] | None = None) -> Built:
        """
        Unwind the outputs of jobs that are new since the last build, see `matris.stores.builder.build`.

        Parameters
        ----------
        job_store
            Connected store with the outputs of the batch Makers.
        only
            Jobs to look at; by default all.

        Returns
        -------
        Built
            What was added.
        """
        return build(Collections(self.docs, self.data, self.properties, self.chunks), job_store, only)

    def refused(self) -> dict[str, str]:
        """Name the outputs of jobs that could not be unwound, and why."""
        return {each["chunk_id"]: each["error"] for each in self.chunks.query({"error": {"$ne": None}})}

    def add_dropped(self, documents: Iterable[CandidateDocument]) -> None:
        """
        Store documents of candidates that no job has computed, in batches.

        What a job has computed stays, also if it does so meanwhile; what was dropped before says why it is now.

        Parameters
        ----------
        documents
            As `matris.stores.documents.documents.make_dropped` makes them.
        """
        for batch in batched(documents, _BATCH):
            by_id = {document.document_id: document.model_dump() for document in batch}
            found = self.docs.query(
                {"document_id": {"$in": list(by_id)}}, properties=["document_id", "job_uuid", *_SAID]
            )
            there = {each["document_id"]: each for each in found}
            add_missing(self.docs, [document for identity, document in by_id.items() if identity not in there])
            for identity, old in there.items():
                news = {name: value for name, value in by_id[identity].items() if name not in SUMMARIES}
                if not old.get("job_uuid") and any(old.get(name) != news[name] for name in _SAID):
                    set_if(self.docs, {"document_id": identity, "job_uuid": None}, news)

    def set_fields(self, changes: Mapping[str, Mapping[str, Any]]) -> None:
        """
        Set fields of documents.

        Parameters
        ----------
        changes
            New values by name, by document id.
        """
        now = utc_now()
        set_fields(self.docs, {identity: {**fields, "last_updated": now} for identity, fields in changes.items()})

    def upsert(self, documents: Iterable[CandidateDocument]) -> None:
        """Store documents, each in place of the one with its id."""
        by_id = {document.document_id: document.model_dump() for document in documents}
        if by_id:
            self.docs.update(list(by_id.values()), key="document_id")

    def update_hulls(
        self,
        references: str | Path | References | None = None,
        *,
        checkpoint_sha256: str | None = None,
        settings_digest: str | None = None,
    ) -> int:
        """
        Place the documents on their hulls: those that are new, and those whose hulls the new ones change.

        Parameters
        ----------
        references
            Entries to compare with, or a file of them. By default the documents of the same checkpoint and settings.
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
        n_changed = 0
        loaded: dict[str, References | None] = {}
        for one in self._origins(checkpoint_sha256, settings_digest):
            scale = one["checkpoint"]["energy_scale"]
            if scale not in loaded:
                loaded[scale] = _load(references, scale)
            n_changed += place_on_hulls(self.docs, one, loaded[scale])
        return n_changed

    def computed_ids(self, checkpoint_sha256: str, settings_digest: str) -> set[str]:
        """
        Candidates that a job has computed, whatever became of them.

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
        criteria = {
            "checkpoint.sha256": checkpoint_sha256,
            "settings.digest": settings_digest,
            "job_uuid": {"$ne": None},
        }
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

    def documents(self, document_ids: Sequence[str], properties: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """
        Documents by id, in the order given, without those that do not exist.

        Parameters
        ----------
        document_ids
            Any number.
        properties
            Fields to read, ``document_id`` always; by default all.
        """
        fields = None if properties is None else list({"document_id", *properties})
        found = {
            document["document_id"]: _plain(document)
            for batch in batched(document_ids, _BATCH)
            for document in self.docs.query({"document_id": {"$in": list(batch)}}, properties=fields)
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

    def _origins(self, checkpoint_sha256: str | None, settings_digest: str | None) -> Iterator[dict[str, Any]]:
        """Give ``checkpoint`` and ``settings`` of one document of each pair of them."""
        checkpoints = [checkpoint_sha256] if checkpoint_sha256 else sorted(self.docs.distinct("checkpoint.sha256"))
        digests = [settings_digest] if settings_digest else sorted(self.docs.distinct("settings.digest"))
        for sha256, digest in product(checkpoints, digests):
            criteria = {"checkpoint.sha256": sha256, "settings.digest": digest}
            yield from self.docs.query(criteria, properties=["checkpoint", "settings"], limit=1)


def _index(store: Store, name: str | list[str], *, unique: bool = False) -> None:
    if not store.ensure_index(name, unique=unique):
        raise StoreError(f"cannot index {name!r} of {store.name}: check the rights on this store, and for duplicates")


def _refuse_other_versions(docs: Store) -> None:
    """Raise if a document has another schema version, or none. Each query is one look into the index."""
    for criteria in ({"$gt": SCHEMA_VERSION}, {"$lt": SCHEMA_VERSION}, None):
        for document in docs.query({"schema_version": criteria}, properties=["schema_version"], limit=1):
            raise StoreError(
                f"{docs.name} holds documents of schema version {document.get('schema_version')}, but this version of "
                f"matris-flows reads and writes version {SCHEMA_VERSION}: use the version of matris-flows that wrote "
                "the store, or start a new store"
            )


def _load(references: str | Path | References | None, energy_scale: str) -> References | None:
    if references is None or isinstance(references, References):
        return references
    return load_references(references, energy_scale)


def _plain(document: dict[str, Any]) -> dict[str, Any]:
    """Document without the store's own id."""
    return {key: value for key, value in document.items() if key != "_id"}
