"""
Placement of documents on their hulls: of all documents, or of those whose hulls new documents may have changed.

Several processes may place documents at once, while others add documents. After writing, each process checks whether
the stable phases that it used are still those in the store, and repeats the placement of systems that have changed.
New documents are written after the documents whose places they change. If the process is killed in between, the new
documents still have no place, and the next process starts from them.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import batched, chain
from typing import TYPE_CHECKING, Any

from matris.stores.database.atomic import set_fields
from matris.stores.documents.documents import utc_now
from matris.stores.hull.chemical_systems import containing, within
from matris.stores.hull.hull import HULL_FIELDS, hull_label, hull_results

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from maggma.core import Store

    from matris.stores.hull.hull import HullResult
    from matris.stores.hull.references import References

_COMPARED = ("state", "energy_per_atom", "enthalpy_per_atom")
# If one of these has changed since it was read, a document is not written.
_READ = (
    "document_id",
    "chemsys",
    "composition",
    "correction_scheme",
    "vacuum",
    "hull_reference",
    "source",
    "duplicate_of",
    *_COMPARED,
)
_QUERY_BATCH = 50  # ids or chemical systems per query
_WRITE_BATCH = 1000  # documents per write
_REFERENCE_BATCH = 5000  # documents placed together on a reference hull
_MAX_ROUNDS = 5  # of repeated placement; processes that add documents later place them themselves

type Document = dict[str, Any]


@dataclass(frozen=True)
class _Members:
    """Documents on one hull: their store, checkpoint and settings, and the references they compete with."""

    docs: Store
    about: Mapping[str, Any]
    references: References | None

    @property
    def label(self) -> str:
        return hull_label(self.about, self.references)

    def query(self, properties: Sequence[str], limit: int = 0, **criteria: Any) -> Iterator[Document]:
        documents: Iterator[Document] = self.docs.query(
            self.criteria | criteria, properties=list(properties), limit=limit
        )
        return documents

    def read(self, **criteria: Any) -> Iterator[Document]:
        """Read documents in the form that `hull_results` takes."""
        return ({**document, **self.about} for document in self.query(_READ, **criteria))

    def systems(self) -> set[str]:
        """Chemical systems of all documents in the store, read from an index."""
        return set(self.docs.distinct("chemsys", {"chemsys": {"$ne": None}}))

    @property
    def criteria(self) -> dict[str, Any]:
        return {
            "checkpoint.sha256": self.about["checkpoint"]["sha256"],
            "settings.digest": self.about["settings"]["digest"],
        }


def place_on_hulls(docs: Store, origin: Mapping[str, Any], references: References | None = None) -> int:
    """
    Place the documents of one checkpoint and one set of settings on their hull.

    If documents are already on this hull, only those are read whose places may have changed. On a reference hull these
    are the new documents. On a self-consistent hull they are the documents of all systems that contain the system of a
    new document, and the stable phases that compete with them. Otherwise all documents are read.

    Parameters
    ----------
    docs
        Connected store of candidate documents.
    origin
        ``checkpoint`` and ``settings`` of the documents.
    references
        Competing phases. None stands for the documents themselves.

    Returns
    -------
    int
        Number of documents that changed.

    Raises
    ------
    MatrisError
        If the references are on another energy scale than the checkpoint.
    """
    members = _Members(docs, {"checkpoint": origin["checkpoint"], "settings": origin["settings"]}, references)
    on_other_hull = any(_any_on(members, {relation: members.label}) for relation in ("$lt", "$gt"))
    place_all = on_other_hull or not _any_on(members, members.label)
    if references is None:
        return _place_self_consistent(members, place_all=place_all)
    return _place_on_references(members, place_all=place_all)


def _any_on(members: _Members, hull_reference: Any) -> bool:
    """Whether any document is on a hull."""
    return any(members.query(["document_id"], limit=1, hull_reference=hull_reference))


def _place_on_references(members: _Members, *, place_all: bool) -> int:
    """Place documents on a reference hull."""
    criteria = {} if place_all else {"hull_reference": None}
    return sum(
        _write(members, batch, hull_results(batch, members.references))
        for batch in batched(members.read(**criteria), _REFERENCE_BATCH)
    )


def _place_self_consistent(members: _Members, *, place_all: bool) -> int:
    """Place documents on their own hull."""
    n_changed = 0
    changed = None if place_all else _new_systems(members)
    for _ in range(_MAX_ROUNDS):
        if changed is not None and not changed:
            break
        if changed is None:
            placed, documents = None, list(members.read())
        else:
            placed = {"", *containing(changed, members.systems())}
            documents = list(_competing(members, changed, placed))
        results = hull_results(
            documents,
            wanted=placed.__contains__ if placed else None,
            populated=_populated(members, placed) if placed else (),
        )
        n_changed += _write(members, documents, results)
        changed = _new_systems(members) | _systems_changed_by_others(members, documents, results, placed)
    return n_changed


def _new_systems(members: _Members) -> set[str]:
    """Chemical systems of the documents without a place; ``""`` stands for documents without a chemical system."""
    new = members.criteria | {"hull_reference": None}
    without = any(members.docs.query({**new, "chemsys": None}, properties=["document_id"], limit=1))
    return {*members.docs.distinct("chemsys", {**new, "chemsys": {"$ne": None}}), *([""] if without else [])}


def _competing(members: _Members, changed: Collection[str], placed: Collection[str]) -> Iterator[Document]:
    """Yield the documents to place, and the stable phases of their subsystems, whose places do not change."""
    if "" in changed:
        yield from members.read(chemsys=None, hull_reference=None)
    for batch in batched(placed, _QUERY_BATCH):
        yield from members.read(chemsys={"$in": list(batch)})
    for batch in batched(within(placed, members.systems()) - set(placed), _QUERY_BATCH):
        yield from members.read(chemsys={"$in": list(batch)}, energy_above_hull={"$lte": 0})


def _populated(members: _Members, placed: Collection[str]) -> set[str]:
    """Chemical systems within some others in which a document competes, above the hull or on it."""
    criteria = members.criteria | {"state": "converged", "energy_per_atom": {"$ne": None}, "vacuum": None}
    populated: set[str] = set()
    for batch in batched(within(placed, members.systems()) - set(placed), _QUERY_BATCH):
        populated |= set(members.docs.distinct("chemsys", criteria | {"chemsys": {"$in": list(batch)}}))
    return populated


def _systems_changed_by_others(
    members: _Members, documents: Iterable[Document], results: Mapping[str, HullResult], placed: Collection[str] | None
) -> set[str]:
    """Chemical systems whose stable phases in the store differ from those that the placement used."""
    used = {
        (document["document_id"], document["chemsys"])
        for document in documents
        if (place := results.get(document["document_id"])) is None or place.is_stable
    }
    stable: dict[str, Any] = {"hull_reference": members.label, "energy_above_hull": {"$lte": 0}}
    if placed is None:
        on_hull = members.query(["document_id", "chemsys"], **stable)
    else:
        on_hull = chain.from_iterable(
            members.query(["document_id", "chemsys"], chemsys={"$in": list(batch)}, **stable)
            for batch in batched(within(placed, members.systems()), _QUERY_BATCH)
        )
    stored = {(document["document_id"], document["chemsys"]) for document in on_hull}
    return {chemsys for _, chemsys in used ^ stored}


def _write(members: _Members, documents: Iterable[Document], results: Mapping[str, HullResult]) -> int:
    """Write places that differ from those in the store; documents without a place come last."""
    n_changed = 0
    placed = [document for document in documents if document["document_id"] in results]
    moved = [document for document in placed if document.get("hull_reference") is not None]
    new = [document for document in placed if document.get("hull_reference") is None]
    for batch in chain(batched(moved, _WRITE_BATCH), batched(new, _WRITE_BATCH)):
        before = {document["document_id"]: document for document in batch}
        changes = {}
        for document in _as_stored(members, list(before)):
            identity = document["document_id"]
            place = results[identity].to_dict()
            same = all(document.get(name) == before[identity].get(name) for name in _COMPARED)
            if same and any(document.get(name) != value for name, value in place.items()):
                changes[identity] = _fields(place, members.references)
        n_changed += set_fields(members.docs, changes)
    return n_changed


def _as_stored(members: _Members, identities: Sequence[str]) -> Iterator[Document]:
    """Read the fields that a place consists of or depends on, as they are in the store now."""
    fields = ["document_id", *_COMPARED, *HULL_FIELDS]
    for batch in batched(identities, _QUERY_BATCH):
        yield from members.docs.query({"document_id": {"$in": list(batch)}}, properties=fields)


def _fields(place: dict[str, Any], references: References | None) -> dict[str, Any]:
    """Fields to set for a place: those of the last hull, and the entry of its type in `hulls`."""
    now = utc_now()
    about = {"references_sha256": None if references is None else references.sha256, "taken_at": now}
    kept = {name: value for name, value in place.items() if name != "hull_type"}
    return place | {f"hulls.{place['hull_type']}": kept | about, "last_updated": now}
