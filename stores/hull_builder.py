"""Places documents on their hulls: all of them, or those whose hulls may have changed."""

from __future__ import annotations

from itertools import batched
from typing import TYPE_CHECKING, Any

from matris.stores.atomic import set_fields
from matris.stores.documents import utc_now
from matris.stores.hull import REFERENCE, SELF_CONSISTENT, hull_label, hull_results

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from maggma.core import Store

    from matris.stores.references import References

_READ = (
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
_SYSTEMS = 200  # chemical systems in one query
_WRITTEN = 1000  # documents in one write

type Document = dict[str, Any]


def place_on_hulls(
    docs: Store,
    criteria: dict[str, Any],
    references: References | None,
    changed: Iterable[str] | None = None,
) -> int:
    """
    Place the documents of one checkpoint and one set of settings on their hull.

    Parameters
    ----------
    docs
        Of candidates, connected.
    criteria
        Filter that names the checkpoint and the settings.
    references
        Competing phases; None: the documents themselves.
    changed
        Chemical systems with new documents. Only those are read whose hulls they may have changed: on a hull of
        references the documents of these systems, on their own hull also those of all systems that contain one, and the
        phases these compete with. By default all.

    Returns
    -------
    int
        How many documents changed.
    """
    if changed is None:
        documents, wanted = list(docs.query(criteria, properties=list(_READ))), None
    else:
        touched = {_elements(chemsys) for chemsys in changed}
        systems = {_elements(chemsys): chemsys for chemsys in docs.distinct("chemsys") if chemsys}
        if references is not None:
            placed = {each for each in systems if each in touched}
            read = placed
        else:
            placed = {each for each in systems if any(part <= each for part in touched)}
            union = frozenset().union(*placed)
            read = {each for each in systems if each <= union and any(each <= whole for whole in placed)}
        names = {systems[each] for each in placed}
        wanted = lambda chemsys: not chemsys or chemsys in names  # noqa: E731
        documents = list(_of_systems(docs, criteria, sorted(systems[each] for each in read)))
    if not documents:
        return 0
    results = hull_results(documents, references, wanted=wanted)
    stale: list[tuple[str, dict[str, Any]]] = []
    for document in documents:
        result = results.get(document["document_id"])
        found = {} if result is None else result.to_dict()
        if any(document.get(name) != value for name, value in found.items()):
            stale.append((document["document_id"], found))
    n_changed = 0
    for batch in batched(stale, _WRITTEN):
        set_fields(docs, {identity: _fields(found) for identity, found in batch})
        n_changed += len(batch)
    return n_changed


def systems_to_place(docs: Store, criteria: dict[str, Any], references: References | None) -> list[str] | None:
    """
    Chemical systems with documents that have no place on a hull yet.

    Parameters
    ----------
    docs
        Of candidates, connected.
    criteria
        Filter that names the checkpoint and the settings.
    references
        Of the hull; None: the documents themselves.

    Returns
    -------
    list of str or None
        None if the documents lie on another hull, or on that of other references, and all are to be placed anew.
    """
    one = docs.query_one({**criteria, "hull_state": {"$ne": None}}, properties=list(_READ))
    if one is None:
        return None
    label = hull_label(one, references)
    kind = SELF_CONSISTENT if references is None else REFERENCE
    elsewhere = {"$or": [{"hull_type": {"$ne": kind}}, {"hull_reference": {"$ne": label}}]}
    if docs.query_one({"$and": [criteria, {"hull_state": {"$ne": None}}, elsewhere]}, properties=["document_id"]):
        return None
    found = docs.query({**criteria, "hull_state": None}, properties=["chemsys"])
    return sorted({document.get("chemsys") or "" for document in found})


def _of_systems(docs: Store, criteria: dict[str, Any], systems: list[str]) -> Iterator[Document]:
    """Documents of some chemical systems, and those without one that have no place yet."""
    for batch in batched(systems, _SYSTEMS):
        yield from docs.query({**criteria, "chemsys": {"$in": list(batch)}}, properties=list(_READ))
    yield from docs.query({**criteria, "chemsys": None, "hull_state": None}, properties=list(_READ))


def _fields(found: dict[str, Any]) -> dict[str, Any]:
    """Write a place on a hull twice: as that of the last hull, and as that of its kind."""
    now = utc_now()
    place = {name: value for name, value in found.items() if name != "hull_type"}
    return found | {f"hulls.{found['hull_type']}": place | {"taken_at": now}, "last_updated": now}


def _elements(chemsys: str) -> frozenset[str]:
    return frozenset(chemsys.split("-"))
