"""MongoDB's criteria as SQL over index entries, as far as these decide, and its projections."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from maggma.core import Sort

from matris.errors import StoreError
from matris.stores.sqlite_index import DATE, NAN, NUMBER, OBJECT_ID, OTHER, STRING, Index, entry, indexes_of

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Mapping, Sequence

_RANGES = {"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}


class Selection(NamedTuple):
    """SQL that yields document numbers; `rest` is the filter left to apply, `complete` if none and sorted and cut."""

    sql: str
    parameters: list[Any]
    rest: dict[str, Any]
    complete: bool


class _Clause(NamedTuple):
    """A condition on an entry's columns."""

    sql: str
    parameters: list[Any]


def select(
    db: sqlite3.Connection,
    collection: str,
    criteria: Mapping[str, Any],
    sort: Mapping[str, Sort | int] | None = None,
    window: tuple[int, int] = (0, 0),
) -> Selection:
    """Choose documents through the indexes.

    Parameters
    ----------
    db, collection
        Where to look.
    criteria
        A MongoDB filter.
    sort
        Fields and their directions; answered by an index if it is one field and its index sorts.
    window
        How many documents to skip and to yield (0: all).
    """
    plain = {index.fields[0]: index for index in indexes_of(db, collection) if len(index.fields) == 1}
    clauses, rest = _plan(criteria, plain)
    if len(clauses) > 1:  # start from the condition that fewest documents meet
        clauses.sort(key=lambda clause: _hits(db, clause))
    order = plain.get(next(iter(sort))) if sort and len(sort) == 1 else None
    by_index = bool(not rest and order and order.sorts)
    complete = not rest and (by_index or not sort)
    parameters = [p for clause in clauses for p in clause.parameters]
    if clauses:
        probe = " AND EXISTS (SELECT 1 FROM entries AS probe WHERE probe.rid = hit.rid AND {})"
        conditions = clauses[0].sql + "".join(probe.format(clause.sql) for clause in clauses[1:])
        sql = f"SELECT DISTINCT rid FROM entries AS hit WHERE {conditions}"  # noqa: S608 - made here, values apart
    elif not by_index:
        sql, parameters = "SELECT rid FROM documents WHERE collection = ?", [collection]
    if by_index and order and sort:
        found = f"({sql}) AS found CROSS JOIN " if clauses else ""
        same = "sorted.rid = found.rid AND " if clauses else ""
        way = direction(next(iter(sort.values())))
        sql = f"SELECT sorted.rid FROM {found}entries AS sorted WHERE {same}sorted.index_id = ?"  # noqa: S608 - as above
        sql += f" ORDER BY sorted.rank {way}, sorted.value {way}, sorted.rid"
        parameters.append(order.id)
    else:
        sql += " ORDER BY rid"
    skip, limit = window if complete else (0, 0)
    return Selection(f"{sql} LIMIT ? OFFSET ?", [*parameters, limit or -1, skip], rest, complete)


def direction(way: Sort | int) -> str:
    """SQL's word for a maggma sort direction."""
    return "DESC" if Sort(way) is Sort.Descending else "ASC"


def _plan(criteria: Mapping[str, Any], plain: Mapping[str, Index]) -> tuple[list[_Clause], dict[str, Any]]:
    """Split criteria into conditions the indexes answer exactly and the remaining filter."""
    clauses: list[_Clause] = []
    rest = []
    for field, search in _pairs(criteria):
        operators = search if isinstance(search, dict) and any(k.startswith("$") for k in search) else {"$eq": search}
        found = [_clause(plain[field].id, *item) for item in operators.items()] if field in plain else [None]
        clauses += [clause for clause in found if clause]
        if None in found:
            rest.append({field: search})
    return clauses, {"$and": rest} if rest else {}


def _hits(db: sqlite3.Connection, clause: _Clause) -> int:
    """Count the entries that meet a condition, up to a thousand."""
    sql = f"SELECT count(*) FROM (SELECT 1 FROM entries WHERE {clause.sql} LIMIT 1000)"  # noqa: S608 - made here
    hits: int = db.execute(sql, clause.parameters).fetchone()[0]
    return hits


def _pairs(criteria: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Pairs of field and condition, with nested ``$and`` unfolded."""
    for field, search in criteria.items():
        if field == "$and" and search:
            for part in search:
                yield from _pairs(part)
        else:
            yield field, search


def _clause(index: int, operator: str, value: Any) -> _Clause | None:
    """Condition for one operator on an indexed field, or None where the index cannot decide."""
    if operator == "$in" and isinstance(value, list):
        if any(isinstance(v, float) or entry(v)[0] not in {NUMBER, STRING} for v in value):
            return None  # JSON, the way to hand SQLite a list of any length, keeps integers and strings exactly
        sql = f"index_id = ? AND rank IN ({NUMBER}, {STRING}) AND value IN (SELECT value FROM json_each(?))"  # noqa: S608
        return _Clause(sql, [index, json.dumps(value)])
    rank, key = entry(value)
    if operator == "$eq" and rank not in {OTHER, NAN}:
        return _Clause("index_id = ? AND rank = ? AND value = ?", [index, rank, key])
    if operator in _RANGES and rank in {NUMBER, STRING, OBJECT_ID, DATE}:
        return _Clause(f"index_id = ? AND rank = ? AND value {_RANGES[operator]} ?", [index, rank, key])
    return None


def project(document: dict[str, Any], properties: Mapping[str, Any] | Sequence[str] | None) -> dict[str, Any]:
    """Keep the named fields (or drop them, with zeros), in sub-documents and arrays too; ``_id`` stays unless dropped.

    Raises
    ------
    StoreError
        If the projection uses operators or both keeps and drops.
    """
    wanted = dict(properties) if isinstance(properties, dict) else dict.fromkeys(properties or (), 1)
    with_id = wanted.pop("_id", None)
    if not {*wanted.values(), with_id or 0} <= {0, 1} or len({bool(way) for way in wanted.values()}) > 1:
        raise StoreError(f"projection {properties}: give only ones (keep) or only zeros (drop)")
    keep = bool(next(iter(wanted.values()), with_id))
    tree: dict[str, Any] = {}
    for path in sorted(wanted, reverse=True):  # "a" comes after "a.b": the shorter path wins
        *parents, leaf = path.split(".")
        branch = tree
        for name in parents:
            branch = branch.setdefault(name, {})
        branch[leaf] = {}
    result: dict[str, Any] = _walk(document, tree, keep=keep)
    if with_id == 0:
        result.pop("_id", None)
    elif "_id" in document:
        result["_id"] = document["_id"]
    return result


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
