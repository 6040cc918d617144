"""MongoDB's criteria as SQL over index entries, as far as these decide, its projections, and its way to set fields."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from maggma.core import Sort

from matris.errors import StoreError
from matris.stores.database.sqlite.entries import OTHER, entry
from matris.stores.database.sqlite.filters import DATE, EMPTY, NAN, NULL, NUMBER, OBJECT_ID, STRING, is_condition
from matris.stores.database.sqlite.indexes import Index, indexes_of
from matris.stores.database.sqlite.window import Condition, window

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Mapping, Sequence

_RANGES = {"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}
_FEW = 5000  # documents that are sorted sooner than an index is walked
_VERY_FEW = 200  # no other condition needs to be looked at to begin with these
_PART = f"{{0}}.index_id = ? AND {{0}}.rank = {EMPTY} AND {{0}}.value >= ? AND {{0}}.value < ?"


class Selection(NamedTuple):
    """SQL that yields document numbers: `exact` if of no others, `ordered` if as sorted; then also cut to the page."""

    sql: str
    parameters: list[Any]
    exact: bool
    ordered: bool


class _Clause(NamedTuple):
    """A condition on the entries of an index; ``{0}`` in it is the table."""

    index_id: int
    sql: str
    parameters: tuple[Any, ...]


class _Order(NamedTuple):
    """An index to go along, and which way."""

    index_id: int
    way: str


def select(
    db: sqlite3.Connection,
    collection: str,
    criteria: Mapping[str, Any],
    sort: Mapping[str, Sort | int] | None = None,
    page: tuple[int, int] = (0, 0),
) -> Selection:
    """Choose documents through the indexes.

    Parameters
    ----------
    db, collection
        Where to look.
    criteria
        A MongoDB filter.
    sort
        Fields and their directions; answered by indexes on each of them, or by one on several together.
    page
        How many documents to skip and to yield (0: all).
    """
    plan = _plan(criteria, indexes_of(db, collection), sort or {})
    clauses, orders = plan.clauses, plan.orders
    ordered = orders is not None
    hits: dict[_Clause, int] = {}
    if len(clauses) > 1 or (orders and clauses and clauses[0].index_id != orders[0].index_id):
        for clause in clauses:
            hits[clause] = _hits(db, clause)
            if hits[clause] < _VERY_FEW:
                break
        clauses = sorted(clauses, key=lambda clause: hits.get(clause, _FEW))  # start from what fewest documents meet
    if not orders:
        sql, parameters = _found(clauses, collection)
        sql += " ORDER BY rid"
    elif clauses and clauses[0].index_id != orders[0].index_id and hits[clauses[0]] < _FEW:
        found, parameters = _found(clauses, collection)
        sql = f"SELECT found.rid FROM ({found}) AS found" + _sorted(orders, "found")  # noqa: S608 - made here
        parameters += [order.index_id for order in orders]
    else:  # go along the index, asking of each document what else it must meet
        own = [clause for clause in clauses if clause.index_id == orders[0].index_id]
        other = [clause for clause in clauses if clause.index_id != orders[0].index_id]
        conditions = ["key0.index_id = ?", *(c.sql.format("key0") for c in own), *(_probe(c, "key0") for c in other)]
        sql = "SELECT key0.rid FROM entries AS key0"
        sql += _sorted(orders, "key0", " AND ".join(conditions))
        parameters = [order.index_id for order in orders[1:]] + [orders[0].index_id]
        parameters += [p for clause in (*own, *other) for p in clause.parameters]
    skip, limit = page if ordered and plan.exact else (0, 0)
    return Selection(f"{sql} LIMIT ? OFFSET ?", [*parameters, limit or -1, skip], plan.exact, ordered)


def direction(way: Sort | int) -> str:
    """SQL's word for a maggma sort direction."""
    return "DESC" if Sort(way) is Sort.Descending else "ASC"


def _found(clauses: Sequence[_Clause], collection: str) -> tuple[str, list[Any]]:
    """Give SQL for the documents that meet all conditions, in any order."""
    if not clauses:
        return "SELECT rid FROM documents WHERE collection = ?", [collection]
    conditions = " AND ".join([clauses[0].sql.format("hit"), *(_probe(clause, "hit") for clause in clauses[1:])])
    parameters = [p for clause in clauses for p in clause.parameters]
    return f"SELECT DISTINCT rid FROM entries AS hit WHERE {conditions}", parameters  # noqa: S608 - values apart


def _probe(clause: _Clause, table: str) -> str:
    return f"EXISTS (SELECT 1 FROM entries AS probe WHERE probe.rid = {table}.rid AND {clause.sql.format('probe')})"  # noqa: S608


def _sorted(orders: Sequence[_Order], table: str, conditions: str = "1") -> str:
    """Join the indexes that sort, add what must hold, and the order; `table` may be the first of them."""
    joins = [
        f" CROSS JOIN entries AS key{i} ON key{i}.rid = {table}.rid AND key{i}.index_id = ?"
        for i in range(len(orders))
        if table != f"key{i}"
    ]
    by = [f"key{i}.rank {order.way}, key{i}.value {order.way}" for i, order in enumerate(orders)]
    return f"{''.join(joins)} WHERE {conditions} ORDER BY {', '.join([*by, f'{table}.rid'])}"


class _Plan(NamedTuple):
    """Conditions the indexes answer, whether these are all, and the indexes that sort; None if documents must tell."""

    clauses: list[_Clause]
    exact: bool
    orders: list[_Order] | None


def _plan(criteria: Mapping[str, Any], indexes: Sequence[Index], sort: Mapping[str, Sort | int]) -> _Plan:
    """Take the index on several fields that answers most, and indexes on one field for the rest."""
    asked = [
        (field, operator, value)
        for field, search in _pairs(criteria)
        for operator, value in (search if is_condition(search) else {"$eq": search}).items()
    ]
    plain = {index.fields[0]: index for index in indexes if len(index.fields) == 1}
    clauses: list[_Clause] = []
    chosen: list[_Order] | None = None
    used: frozenset[int] = frozenset()
    best = (0, False)  # how many conditions an index on several fields answers, and whether it sorts as well
    for index in indexes:
        if len(index.fields) == 1 or not index.sorts:
            continue
        part = window(index.fields, [Condition(f, o, entry(v)) for f, o, v in asked])
        along = _along(index, part.depth, sort, plain)
        if (len(part.used), bool(along)) > best:
            best = (len(part.used), bool(along))
            clauses = [_Clause(index.id, _PART, (index.id, part.low, part.high))] if part.used else []
            used = part.used
            chosen = along
    orders = chosen or _singly(sort, plain)
    exact = True
    for i, (field, operator, value) in enumerate(asked):
        if i not in used:
            clause = _clause(plain[field], operator, value) if field in plain else None
            clauses += [clause] if clause else []
            exact = exact and clause is not None
    return _Plan(clauses, exact, orders)


def _along(index: Index, depth: int, sort: Mapping[str, Sort | int], plain: Mapping[str, Index]) -> list[_Order] | None:
    """Indexes that sort documents with the same first `depth` fields of an index: that one, then any on one field."""
    fields = index.fields[depth:]
    names = tuple(sort)[: len(fields)]
    ways = {direction(sort[name]) for name in names}
    rest = _singly({name: way for name, way in sort.items() if name not in names}, plain)
    if names != fields[: len(names)] or len(ways) != 1 or rest is None:
        return None
    return [_Order(index.id, *ways), *rest]


def _singly(sort: Mapping[str, Sort | int], plain: Mapping[str, Index]) -> list[_Order] | None:
    """Indexes on one field that sort, if each field has one."""
    if not all(name in plain and plain[name].sorts for name in sort):
        return None
    return [_Order(plain[name].id, direction(way)) for name, way in sort.items()]


def _hits(db: sqlite3.Connection, clause: _Clause) -> int:
    """Count the entries that meet a condition, as far as it matters."""
    sql = f"SELECT count(*) FROM (SELECT 1 FROM entries AS hit WHERE {clause.sql.format('hit')} LIMIT {_FEW})"  # noqa: S608
    hits: int = db.execute(sql, clause.parameters).fetchone()[0]
    return hits


def _pairs(criteria: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Pairs of field and condition, ``$and``, ``$nor`` and ``$all`` unfolded and what all documents meet left out."""
    for field, search in criteria.items():
        if field == "$and" and isinstance(search, list) and search:
            for part in search:
                yield from _pairs(part)
        elif field == "$nor" and isinstance(search, list) and all(_is_plain(part) for part in search):
            yield from ((name, {"$not": condition}) for part in search for name, condition in part.items())
        elif is_condition(search) and list(search) == ["$all"] and search["$all"]:
            for value in search["$all"]:
                yield field, value if isinstance(value, dict) else {"$in": [value]}
        elif field != "_id" or search != {"$exists": True}:
            yield field, search


def _is_plain(criteria: Any) -> bool:
    """Ask whether criteria are a single operator on a single field."""
    if not isinstance(criteria, dict) or len(criteria) != 1:
        return False
    ((field, search),) = criteria.items()
    return not field.startswith("$") and is_condition(search) and len(search) == 1


def _clause(index: Index, operator: str, value: Any) -> _Clause | None:
    """Condition for one operator on an indexed field, or None where the index cannot decide."""
    here = "{0}.index_id = ? AND {0}.rank "
    if operator == "$not" and index.sorts and is_condition(value) and len(value) == 1:  # one entry for each document
        met = _clause(index, *next(iter(value.items())))
        return met and _Clause(index.id, f"{{0}}.index_id = ? AND NOT ({met.sql})", (index.id, *met.parameters))
    if operator == "$in" and isinstance(value, list):
        if any(isinstance(v, float) or entry(v)[0] not in {NUMBER, STRING} for v in value):
            return None
        if len(value) == 1:
            return _clause(index, "$eq", value[0])
        # JSON, the way to hand SQLite a list of any length, keeps integers and strings exactly
        sql = f"{here} IN ({NUMBER}, {STRING}) AND {{0}}.value IN (SELECT value FROM json_each(?))"  # noqa: S608
        return _Clause(index.id, sql, (index.id, json.dumps(value)))
    rank, key = entry(value)
    if operator == "$ne" and rank == NULL and index.sorts:
        return _Clause(index.id, f"{here} > ?", (index.id, NULL))
    if operator == "$eq" and rank not in {OTHER, NAN}:
        return _Clause(index.id, f"{here} = ? AND {{0}}.value = ?", (index.id, rank, key))
    if operator in _RANGES and rank in {NUMBER, STRING, OBJECT_ID, DATE}:
        return _Clause(index.id, f"{here} = ? AND {{0}}.value {_RANGES[operator]} ?", (index.id, rank, key))
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


def with_fields(document: dict[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """Set fields, those in sub-documents by dotted names; sub-documents that lack are made.

    Raises
    ------
    StoreError
        If a name leads through what is no sub-document.
    """
    changed = dict(document)
    for path, value in fields.items():
        *parents, leaf = path.split(".")
        place = changed
        for name in parents:
            below = place.get(name, {})
            if not isinstance(below, dict):
                raise StoreError(f"cannot set {path!r}: {name!r} is {type(below).__name__}, not a sub-document")
            place[name] = dict(below)
            place = place[name]
        place[leaf] = value
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
