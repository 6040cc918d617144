"""Store of queryable results: one small document per candidate, checkpoint and settings, and its arrays."""

from __future__ import annotations

from itertools import batched, product
from typing import TYPE_CHECKING, Any

from maggma.stores import MemoryStore

from matris.errors import StoreError
from matris.files.stored_objects import structure_of
from matris.stores.builder import Built, Collections, build, incomplete_outputs
from matris.stores.database.atomic import add_missing, set_fields, set_if
from matris.stores.database.jobstore import open_job_store, sibling_store
from matris.stores.documents.documents import SCHEMA_VERSION, pressure_of, utc_now
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
    from pymatgen.core.structure import Structure

    from matris.stores.documents.documents import CandidateDocument

INDEXED = (
    "candidate_id",
    "source",
    "formula_pretty",
    "chemsys",
    "elements",
    "nelements",
    "energy_above_hull",
    "checkpoint.key",
    "checkpoint.sha256",
    "settings.digest",
    "hull_state",
    "elastic.bulk_modulus",
    "phonon.has_imaginary_modes",
    "schema_version",
    "last_updated",
)
"""Indexed fields, which users and builders query by."""

_BATCH = 100  # ids per query
_DROP_FIELDS = ("state", "stage", "error", "duplicate_of")  # describe why a candidate was dropped


class CandidateStore:
    """
    Candidate documents, with their structures, arrays and properties.

    Parameters
    ----------
    docs
        Connected store of `matris.stores.documents.documents.CandidateDocument`, key ``document_id``.
    data
        Connected store of structures and per-atom arrays, key ``document_id``.
    properties
        Connected store of property documents, key ``property_id``.
    chunks
        Connected store that records which job outputs are unwound, key ``chunk_id``.

    Raises
    ------
    StoreError
        If an index cannot be made, or the store holds documents of another schema version.

    Examples
    --------
    The folder holds the output of a job that relaxed one candidate:

    >>> from tempfile import TemporaryDirectory
    >>> from matris.stores import CandidateStore, open_job_store
    >>> from matris.stores.documents.documents import ChunkDocument
    >>> from pymatgen.core import Lattice, Structure
    >>> iron = Structure(Lattice.cubic(2.83), ["Fe", "Fe"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    >>> chunk = ChunkDocument(
    ...     records=[{"candidate_id": "iron", "source": "iron.cif", "state": "converged", "energy": -16.6}],
    ...     structures=[{"candidate_id": "iron", "initial_structure": iron, "structure": iron}],
    ...     checkpoint={"key": "demo", "sha256": "0" * 64, "energy_scale": "mp"},
    ...     settings={"fmax": 0.05, "max_steps": 500, "relax_cell": True, "digest": "0" * 12},
    ...     device="cpu",
    ...     dtype="float32",
    ... )
    >>> folder = TemporaryDirectory()
    >>> job_store = open_job_store(folder.name)
    >>> job_store.update([{"uuid": "job", "index": 1, "output": chunk.model_dump()}], save={"data": ["structures"]})

    Build the candidate documents and query them:

    >>> store = CandidateStore.open(folder.name)
    >>> store.build(job_store).n_documents
    1
    >>> store.update_hulls()  # number of documents that got a place on the hull
    1
    >>> document = store.query(formula="Fe").first()
    >>> document["energy_above_hull"], document["energy_per_atom"]
    (0.0, -8.3)
    >>> store.structure(document["document_id"]).volume == iron.volume
    True
    >>> folder.cleanup()
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
        if not isinstance(docs, MemoryStore):  # compound indexes give pages without reading the other documents
            _index(docs, ["chemsys", "energy_above_hull", "document_id"])
            _index(docs, ["checkpoint.key", "state", "energy_above_hull", "document_id"])
            _index(docs, ["energy_above_hull", "document_id"])
            _index(docs, ["state", "job_uuid"])  # without those that were dropped before a job
            _index(docs, ["last_updated", "document_id"])
            _index(docs, ["checkpoint.sha256", "settings.digest", "hull_reference"])  # documents by hull
        _refuse_other_versions(docs)

    def __repr__(self) -> str:
        return f"CandidateStore({self.docs.name})"

    @classmethod
    def open(cls, location: str | Path | None = None) -> CandidateStore:
        """
        Open the candidates of a folder or database.

        Parameters
        ----------
        location
            Folder or MongoDB URI, as in `matris.stores.database.jobstore.open_job_store`.

        Examples
        --------
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     CandidateStore.open(folder).query(chemsys="Li-Fe-O", below=0.05).count()  # the store is empty
        0
        """
        return cls.beside(open_job_store(location))

    @classmethod
    def beside(cls, job_store: JobStore) -> CandidateStore:
        """Open the candidates in the database of a connected job store."""
        return cls(
            sibling_store(job_store, "candidates", "document_id"),
            sibling_store(job_store, "candidate_data", "document_id"),
            sibling_store(job_store, "properties", "property_id"),
            sibling_store(job_store, "candidate_chunks", "chunk_id"),
        )

    def build(self, job_store: JobStore, only: Collection[str] | None = None) -> Built:
        """
        Turn job outputs that are new since the last build into documents; see `matris.stores.builder.build`.

        Parameters
        ----------
        job_store
            Connected job store with the outputs of the batch Makers.
        only
            UUIDs of the jobs to consider. By default all jobs are.

        Returns
        -------
        Built
            Numbers of added documents, and outputs that could not be unwound.
        """
        return build(Collections(self.docs, self.data, self.properties, self.chunks), job_store, only)

    def refused(self) -> dict[str, str]:
        """Job outputs that could not be unwound, each with the reason."""
        marks = self.chunks.query({"error": {"$ne": None}})
        return {mark["chunk_id"]: mark["error"] for mark in marks}

    def incomplete(self) -> dict[str, int]:
        """Find job outputs whose arrays are missing, see `matris.stores.builder.incomplete_outputs`."""
        return incomplete_outputs(self.chunks)

    def add_dropped(
        self, documents: Iterable[CandidateDocument], structures: Mapping[str, Structure] | None = None
    ) -> None:
        """
        Store documents of candidates that were dropped without a calculation.

        Documents of computed candidates are never replaced, even if a job stores them at the same time. For candidates
        that were dropped before, the new reason replaces the old one.

        Parameters
        ----------
        documents
            Documents made by `matris.stores.documents.documents.make_dropped`.
        structures
            Input structures to keep, by document id: of candidates that may yet be computed.
        """
        arrays = [
            {"document_id": identity, "initial_structure": structure.as_dict()}
            for identity, structure in (structures or {}).items()
        ]
        for kept in batched(arrays, _BATCH):
            add_missing(self.data, kept)
        for batch in batched(documents, _BATCH):
            by_id = {document.document_id: document.model_dump() for document in batch}
            stored = self.docs.query(
                {"document_id": {"$in": list(by_id)}}, properties=["document_id", "job_uuid", *_DROP_FIELDS]
            )
            old_by_id = {document["document_id"]: document for document in stored}
            add_missing(self.docs, [document for identity, document in by_id.items() if identity not in old_by_id])
            for identity, old in old_by_id.items():
                new = {name: value for name, value in by_id[identity].items() if name not in SUMMARIES}
                if not old.get("job_uuid") and any(old.get(name) != new[name] for name in _DROP_FIELDS):
                    set_if(self.docs, {"document_id": identity, "job_uuid": None}, new)

    def set_fields(self, changes: Mapping[str, Mapping[str, Any]]) -> None:
        """
        Set fields of documents.

        Parameters
        ----------
        changes
            New values by field name, for each document id.
        """
        now = utc_now()
        set_fields(self.docs, {identity: {**fields, "last_updated": now} for identity, fields in changes.items()})

    def upsert(self, documents: Iterable[CandidateDocument]) -> None:
        """Store documents; each replaces the stored document with the same id."""
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
        Place new documents on their hulls, and update the places that the new documents change.

        Parameters
        ----------
        references
            Competing phases: a reference set or a file for `load_references`. By default the competing phases are the
            documents of the same checkpoint and settings.
        checkpoint_sha256, settings_digest
            Restrict the update to one checkpoint or one set of settings. By default each combination is placed on its
            own hull.

        Returns
        -------
        int
            Number of documents that changed.

        Raises
        ------
        MatrisError
            If the references cannot be read, or are on another energy scale or at another pressure.
        """
        n_changed = 0
        loaded: dict[tuple[str, float], References | None] = {}
        for origin in self._origins(checkpoint_sha256, settings_digest):
            kind = origin["checkpoint"]["energy_scale"], pressure_of(origin["settings"])
            if kind not in loaded:
                loaded[kind] = _load(references, *kind)
            n_changed += place_on_hulls(self.docs, origin, loaded[kind])
        return n_changed

    def computed_ids(self, checkpoint_sha256: str, settings_digest: str) -> set[str]:
        """
        Ids of the candidates that a job has processed, in any state.

        Parameters
        ----------
        checkpoint_sha256
            SHA-256 hash of the weights.
        settings_digest
            Hash of the relaxation settings.

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
        with_references: bool = False,
    ) -> CandidateQuery:
        """
        Query documents that meet all given criteria. `CandidateQuery` adds filters, order, pages and tables.

        Parameters
        ----------
        formula
            Formula, with elements in any order and any multiple.
        chemsys
            Chemical system with exactly these elements, as ``"Li-Fe-O"`` in any order; or several such systems.
        within
            Chemical system as ``"Li-Fe-O"``; also selects all its subsystems.
        elements
            Elements that the candidates must contain.
        exclude_elements
            Elements that the candidates must not contain.
        spacegroup
            Number or symbol of the space group.
        below
            Largest energy above the hull (eV/atom).
        stable
            Whether the candidates are on the hull.
        state
            ``converged``, ``max_steps``, ``failed``, …; or several states.
        checkpoint
            Key of the checkpoint, or at least the first eight digits of its hash.
        since
            Select documents updated at or after this time; UTC if it has no time zone.
        with_references
            Whether to include the elements, known phases and prototypes that only compete on the hulls of campaigns.

        Raises
        ------
        MatrisError
            If there is no such element, formula, space group or state.

        Examples
        --------
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     query = CandidateStore.open(folder).query(elements=["Li", "O"], state="converged", below=0.05)
        ...     list(query.where("nsites <= 20").sort("energy_above_hull").limit(10))  # the store is empty
        []
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
        return CandidateQuery(self.docs, self.data, with_references=with_references).meeting(*terms)

    def documents(self, document_ids: Sequence[str], properties: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """
        Read documents by id, in the given order. Missing documents are omitted.

        Parameters
        ----------
        document_ids
            Ids of the documents.
        properties
            Fields to read in addition to ``document_id``. By default all.
        """
        fields = None if properties is None else list({"document_id", *properties})
        by_id = {
            document["document_id"]: _without_internal_id(document)
            for batch in batched(document_ids, _BATCH)
            for document in self.docs.query({"document_id": {"$in": list(batch)}}, properties=fields)
        }
        return [by_id[identity] for identity in document_ids if identity in by_id]

    def arrays(self, document_id: str) -> dict[str, Any] | None:
        """
        Read the structures and arrays of a document.

        Returns
        -------
        dict or None
            `initial_structure` and `structure` (dictionaries), `forces` (n, 3; eV/Å), `stress` (3, 3; eV/Å³) and
            `magmoms` (n; μB); None if there is no such document.
        """
        arrays = self.data.query_one({"document_id": document_id})
        return _without_internal_id(arrays) if arrays else None

    def structure(self, document_id: str, *, initial: bool = False) -> Structure | None:
        """
        Read the structure of a document.

        Parameters
        ----------
        document_id
            Id of the document.
        initial
            Whether to read the input structure instead of the relaxed structure.

        Returns
        -------
        Structure or None
            None if there is no such structure, for example after a failure.
        """
        arrays = self.arrays(document_id) or {}
        stored = arrays.get("initial_structure" if initial else "structure")
        return structure_of(document_id, stored) if stored else None

    def _origins(self, checkpoint_sha256: str | None, settings_digest: str | None) -> Iterator[dict[str, Any]]:
        """Yield each combination of ``checkpoint`` and ``settings`` in the store."""
        checkpoints = [checkpoint_sha256] if checkpoint_sha256 else sorted(self.docs.distinct("checkpoint.sha256"))
        digests = [settings_digest] if settings_digest else sorted(self.docs.distinct("settings.digest"))
        for sha256, digest in product(checkpoints, digests):
            criteria = {"checkpoint.sha256": sha256, "settings.digest": digest}
            yield from self.docs.query(criteria, properties=["checkpoint", "settings"], limit=1)


def _index(store: Store, name: str | list[str], *, unique: bool = False) -> None:
    if not store.ensure_index(name, unique=unique):
        raise StoreError(
            f"cannot index {name!r} of {store.name}: check the permissions of this store, and for duplicates"
        )


def _refuse_other_versions(docs: Store) -> None:
    """Raise if a document has another schema version, or none. Each query is one look into the index."""
    for criteria in ({"$gt": SCHEMA_VERSION}, {"$lt": SCHEMA_VERSION}, None):
        for document in docs.query({"schema_version": criteria}, properties=["schema_version"], limit=1):
            raise StoreError(
                f"{docs.name} holds documents of schema version {document.get('schema_version')}, but this version of "
                f"matris-flows reads and writes version {SCHEMA_VERSION}: use the version of matris-flows that wrote "
                "the store, or start a new store"
            )


def _load(references: str | Path | References | None, energy_scale: str, pressure: float) -> References | None:
    if references is None or isinstance(references, References):
        return references
    return load_references(references, energy_scale, pressure=pressure)


def _without_internal_id(document: dict[str, Any]) -> dict[str, Any]:
    """Remove the internal id of the store."""
    return {key: value for key, value in document.items() if key != "_id"}
