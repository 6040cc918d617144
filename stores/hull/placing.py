"""
Places documents on their hulls: all of them, or those whose hulls new documents may have changed.

Several processes may do this at once, while others add documents. Each looks, after it has written, whether the phases
it has counted on are still those in the store, and places anew what has changed meanwhile. New documents get their
place after those that they move: a process that is killed in between leaves them without one, and the next begins
there.
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

_COMPARED = ("state", "energy_per_atom")  # a document in which one has changed since it was read is not written
_READ = ("document_id", "chemsys", "composition", "correction_scheme", "hull_reference", *_COMPARED)
_ASKED = 50  # ids or chemical systems in one query
_WRITTEN = 1000  # documents in one write
_APART = 5000  # documents placed together on a hull they are no part of
_ROUNDS = 5  # of placing anew; what others still add, they place

type Document = dict[str, Any]


@dataclass(frozen=True)
class _Origin:
    """Documents that lie on one hull: where they are, their checkpoint and settings, and what they compete with."""

    docs: Store
    about: Mapping[str, Any]
    references: References | None

    @property
    def label(self) -> str:
        return hull_label(self.about, self.references)

    def query(self, properties: Sequence[str], limit: int = 0, **criteria: Any) -> Iterator[Document]:
        found: Iterator[Document] = self.docs.query(self.criteria | criteria, properties=list(properties), limit=limit)
        return found

    def read(self, **criteria: Any) -> Iterator[Document]:
        """Documents as `hull_results` takes them."""
        return ({**document, **self.about} for document in self.query(_READ, **criteria))

    def systems(self) -> set[str]:
        """Chemical systems of all documents, of whatever origin: an index knows them without reading any."""
        return set(self.docs.distinct("chemsys", {"chemsys": {"$ne": None}}))

    @property
    def criteria(self) -> dict[str, Any]:
        return {
            "checkpoint.sha256": self.about["checkpoint"]["sha256"],
            "settings.digest": self.about["settings"]["digest"],
        }


def place_on_hulls(docs: Store, one: Mapping[str, Any], references: References | None = None) -> int:
    """
    Place the documents of one checkpoint and one set of settings on their hull.

    If they lie on this hull already, only those are read whose place may have changed: on a hull of references the
    new ones; on their own hull the documents of all systems that contain the system of a new one, and the stable phases
    these compete with. Otherwise all are.

    Parameters
    ----------
    docs
        Of candidates, connected.
    one
        ``checkpoint`` and ``settings`` of any of the documents.
    references
        Competing phases; None: the documents themselves.

    Returns
    -------
    int
        How many documents changed.

    Raises
    ------
    MatrisError
        If the references are on another energy scale than the checkpoint.
    """
    origin = _Origin(docs, {"checkpoint": one["checkpoint"], "settings": one["settings"]}, references)
    elsewhere = any(_lies(origin, {way: origin.label}) for way in ("$lt", "$gt"))
    anew = elsewhere or not _lies(origin, origin.label)
    return _place_together(origin, anew=anew) if references is None else _place_apart(origin, anew=anew)


def _lies(origin: _Origin, on: Any) -> bool:
    """Whether there is a document on some hull."""
    return any(origin.query(["document_id"], limit=1, hull_reference=on))


def _place_apart(origin: _Origin, *, anew: bool) -> int:
    """Place documents on a hull they are no part of."""
    new = {} if anew else {"hull_reference": None}
    return sum(
        _write(origin, batch, hull_results(batch, origin.references)) for batch in batched(origin.read(**new), _APART)
    )


def _place_together(origin: _Origin, *, anew: bool) -> int:
    """Place documents on their own hull."""
    n_changed = 0
    changed = None if anew else _new_systems(origin)
    for _ in range(_ROUNDS):
        if changed is not None and not changed:
            break
        if changed is None:
            placed, documents = None, list(origin.read())
        else:
            placed = {"", *containing(changed, origin.systems())}
            documents = list(_competing(origin, changed, placed))
        results = hull_results(documents, wanted=placed.__contains__ if placed else None)
        n_changed += _write(origin, documents, results)
        changed = _new_systems(origin) | _overtaken(origin, documents, results, placed)
    return n_changed


def _new_systems(origin: _Origin) -> set[str]:
    """Chemical systems of the documents that have no place; the empty one stands for those without a system."""
    new = origin.criteria | {"hull_reference": None}
    without = any(origin.docs.query({**new, "chemsys": None}, properties=["document_id"], limit=1))
    return {*origin.docs.distinct("chemsys", {**new, "chemsys": {"$ne": None}}), *([""] if without else [])}


def _competing(origin: _Origin, changed: Collection[str], placed: Collection[str]) -> Iterator[Document]:
    """Documents to place, and the stable phases of the subsystems, which keep their places."""
    if "" in changed:
        yield from origin.read(chemsys=None, hull_reference=None)
    for batch in batched(placed, _ASKED):
        yield from origin.read(chemsys={"$in": list(batch)})
    for batch in batched(within(placed, origin.systems()) - set(placed), _ASKED):
        yield from origin.read(chemsys={"$in": list(batch)}, energy_above_hull={"$lte": 0})


def _overtaken(
    origin: _Origin, documents: Iterable[Document], results: Mapping[str, HullResult], placed: Collection[str] | None
) -> set[str]:
    """Chemical systems whose stable phases are no longer those that were counted on, or that have come of it."""
    counted_on = {
        (document["document_id"], document["chemsys"])
        for document in documents
        if (place := results.get(document["document_id"])) is None or place.is_stable
    }
    stable: dict[str, Any] = {"hull_reference": origin.label, "energy_above_hull": {"$lte": 0}}
    if placed is None:
        found = origin.query(["document_id", "chemsys"], **stable)
    else:
        found = chain.from_iterable(
            origin.query(["document_id", "chemsys"], chemsys={"$in": list(batch)}, **stable)
            for batch in batched(within(placed, origin.systems()), _ASKED)
        )
    there = {(document["document_id"], document["chemsys"]) for document in found}
    return {chemsys for _, chemsys in counted_on ^ there}


def _write(origin: _Origin, documents: Iterable[Document], results: Mapping[str, HullResult]) -> int:
    """Store places that are not what the documents say; those of documents that have had none come last."""
    n_changed = 0
    placed = [document for document in documents if document["document_id"] in results]
    moved = [document for document in placed if document.get("hull_reference") is not None]
    new = [document for document in placed if document.get("hull_reference") is None]
    for batch in chain(batched(moved, _WRITTEN), batched(new, _WRITTEN)):
        before = {document["document_id"]: document for document in batch}
        changes = {}
        for document in _as_stored(origin, list(before)):
            identity = document["document_id"]
            place = results[identity].to_dict()
            same = all(document.get(name) == before[identity].get(name) for name in _COMPARED)
            if same and any(document.get(name) != value for name, value in place.items()):
                changes[identity] = _fields(place, origin.references)
        n_changed += set_fields(origin.docs, changes)
    return n_changed


def _as_stored(origin: _Origin, identities: Sequence[str]) -> Iterator[Document]:
    """Documents as they are now, as far as a place depends on them or is in them."""
    fields = ["document_id", *_COMPARED, *HULL_FIELDS]
    for batch in batched(identities, _ASKED):
        yield from origin.docs.query({"document_id": {"$in": list(batch)}}, properties=fields)


def _fields(place: dict[str, Any], references: References | None) -> dict[str, Any]:
    """Write a place on a hull twice: as that of the last hull, and as that of its kind."""
    now = utc_now()
    about = {"references_sha256": None if references is None else references.sha256, "taken_at": now}
    kept = {name: value for name, value in place.items() if name != "hull_type"}
    return place | {f"hulls.{place['hull_type']}": kept | about, "last_updated": now}
