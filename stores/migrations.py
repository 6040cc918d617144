"""Documents of earlier schema versions, brought up to the present one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from matris.errors import StoreError
from matris.stores.database.atomic import set_fields
from matris.stores.documents.documents import DROPPED_AT, SCHEMA_VERSION

if TYPE_CHECKING:
    from collections.abc import Callable

    from maggma.core import Store

_BATCH = 500

type Document = dict[str, Any]


def migrate(store: Store) -> int:
    """
    Bring the candidate documents of a store up to the present schema version.

    Only what a step adds or changes is written. Killed in between, it goes on the next time; of two processes that do
    it at once, both write the same.

    Parameters
    ----------
    store
        Connected, indexed by ``schema_version``.

    Returns
    -------
    int
        How many documents were changed.

    Raises
    ------
    StoreError
        If there are documents of a version that this package does not know.
    """
    newer = store.query({"schema_version": {"$gt": SCHEMA_VERSION}}, properties=["schema_version"], limit=1)
    for document in newer:
        raise StoreError(
            f"{store.name} holds documents of schema version {document['schema_version']}, and this version of "
            f"matris-flows knows up to {SCHEMA_VERSION}: update the package"
        )
    changed = 0
    for version in (None, *range(SCHEMA_VERSION)):
        while old := list(store.query({"schema_version": version}, limit=_BATCH)):
            set_fields(store, {document[store.key]: _changes(document) for document in old})
            changed += len(old)
    return changed


def _changes(document: Document) -> Document:
    return {
        name: value for name, value in upgraded(document).items() if name not in document or document[name] != value
    }


def upgraded(document: Document) -> Document:
    """
    Bring one document up to the present schema version.

    Parameters
    ----------
    document
        Of any earlier version; without ``schema_version`` it is of the first.

    Returns
    -------
    dict
        A new document.
    """
    version = document.get("schema_version") or 0
    found = {key: value for key, value in document.items() if key != "_id"}
    for number in range(version, SCHEMA_VERSION):
        found = _STEPS[number](found) | {"schema_version": number + 1}
    return found


def _stages_and_hulls(old: Document) -> Document:
    """0 to 1: both hulls are kept, and the stage at which a candidate was dropped."""
    new = old | {"stage": DROPPED_AT.get(old["state"]), "duplicate_of": None, "hulls": {}, "first_steps": None}
    new |= {"computed_at": None, "elastic": None, "eos": None, "phonon": None, "qha": None, "md": None}
    if old.get("hull_type") and old.get("hull_state"):
        names = ("hull_reference", "hull_state", "formation_energy_per_atom", "energy_above_hull", "is_stable")
        place = {name: old.get(name) for name in (*names, "decomposes_to")}
        new["hulls"] = {old["hull_type"]: place | {"references_sha256": None, "taken_at": old["last_updated"]}}
    new["settings"] = {"first": None, **old["settings"]}
    return new


_STEPS: tuple[Callable[[Document], Document], ...] = (_stages_and_hulls,)
