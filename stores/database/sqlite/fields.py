"""Fields of one document: MongoDB's projections, and fields set by dotted names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from matris.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def project(document: dict[str, Any], properties: Mapping[str, Any] | Sequence[str] | None) -> dict[str, Any]:
    """Apply a projection, which keeps fields (ones) or drops them (zeros); ``_id`` stays unless it is dropped.

    Raises
    ------
    StoreError
        If the projection has operators, or both keeps and drops fields.
    """
    ways = dict(properties) if isinstance(properties, dict) else dict.fromkeys(properties or (), 1)
    id_way = ways.pop("_id", None)
    if not {*ways.values(), id_way or 0} <= {0, 1} or len({bool(way) for way in ways.values()}) > 1:
        raise StoreError(f"projection {properties}: give only ones (keep) or only zeros (drop)")
    keep = bool(next(iter(ways.values()), id_way))
    tree: dict[str, Any] = {}
    for path in sorted(ways, reverse=True):  # "a" comes after "a.b": the shorter path wins
        *parents, leaf = path.split(".")
        branch = tree
        for name in parents:
            branch = branch.setdefault(name, {})
        branch[leaf] = {}
    result: dict[str, Any] = _walk(document, tree, keep=keep)
    if id_way == 0:
        result.pop("_id", None)
    elif "_id" in document:
        result["_id"] = document["_id"]
    return result


def with_fields(document: dict[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return a document with fields set; a dotted name leads into sub-documents, and creates missing ones.

    Raises
    ------
    StoreError
        If a name leads through a value that is not a sub-document.
    """
    changed = dict(document)
    for path, value in fields.items():
        *parents, leaf = path.split(".")
        target = changed
        for name in parents:
            child = target.get(name, {})
            if not isinstance(child, dict):
                raise StoreError(f"cannot set {path!r}: {name!r} is {type(child).__name__}, not a sub-document")
            target[name] = dict(child)
            target = target[name]
        target[leaf] = value
    return changed


def _walk(value: Any, tree: Mapping[str, Any], *, keep: bool) -> Any:
    """Apply a projection to a sub-document, or to each element of an array."""
    if isinstance(value, list):
        return [_walk(v, tree, keep=keep) for v in value if isinstance(v, (dict, list)) or not keep]
    if not isinstance(value, dict):
        return value
    chosen = {}
    for name, item in value.items():
        deeper = tree.get(name)
        if deeper and (isinstance(item, (dict, list)) or not keep):
            chosen[name] = _walk(item, deeper, keep=keep)
        elif not deeper and keep == (name in tree):
            chosen[name] = item
    return chosen
