"""MongoDB filters and sort orders as SQL over the columns of a collection, as far as the columns decide them.

SQLite plans each query itself. It keeps no statistics here, so this module counts the documents that meet each
condition (up to a limit) and passes the count on with SQLite's ``likelihood`` function [1]_.

.. [1] https://www.sqlite.org/lang_corefunc.html#likelihood
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, NamedTuple

from maggma.core import Sort

from matris.stores.database.sqlite.collection import OTHER, element, encoded, quoted
from matris.stores.database.sqlite.filters import is_condition

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from matris.stores.database.sqlite.collection import Collection, Value

_COMPARISONS = {"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}
_FEW = 100  # documents; the other conditions are then checked one document at a time, and not counted
_MANY = 500  # documents; counting stops here
_ASSUMED_ROWS = 2**20  # SQLite's estimate for a table without statistics (sqlite3DefaultRowEst)


class Selection(NamedTuple):
    """SQL that yields document numbers.

    The documents are those that match, and unless `exact` is true also others. If `ordered` is true they come in the
    requested order; if both are true, SQL also cuts the page.
    """

    sql: str
    parameters: list[Any]
    exact: bool
    ordered: bool


class _Clause(NamedTuple):
    """A condition in SQL; unless `exact` is true, it also holds for documents that the filter excludes.

    `search` is SQL that finds the same documents with the same parameters through an index on `field`, or empty.
    """

    sql: str
    parameters: tuple[Any, ...] = ()
    exact: bool = True
    search: str = ""
    field: str = ""


_UNKNOWN = _Clause("TRUE", exact=False)


def select(
    collection: Collection,
    criteria: Mapping[str, Any],
    sort: Mapping[str, Sort | int] | None = None,
    page: tuple[int, int] = (0, 0),
) -> Selection:
    """Translate a query to SQL.

    Parameters
    ----------
    collection
        Collection to search.
    criteria
        MongoDB filter, with values as BSON decodes them.
    sort
        Directions by field.
    page
        Numbers of documents to skip and to yield (0: all).
    """
    if not collection.layout.exists:
        return Selection("SELECT _id FROM documents WHERE FALSE", [], exact=True, ordered=True)
    clauses = list(_clauses(collection, criteria))
    exact = all(clause.exact for clause in clauses)
    ways = sort or {}
    ordered = all(field in collection.layout.fields and not collection.is_irregular(field) for field in ways)
    order = [f"{quoted(field)} {direction(way)}" for field, way in ways.items()] if ordered else []
    clauses = [clause for clause in clauses if clause is not _UNKNOWN]
    condition = _all(_weighed(collection, clauses, next(iter(ways), "") if ordered else ""))
    sql = f"SELECT _id FROM {collection.table} AS held WHERE {condition.sql}"  # noqa: S608 - names are quoted
    skip, limit = page if exact and ordered else (0, 0)
    sql += f" ORDER BY {', '.join([*order, '_id'])} LIMIT ? OFFSET ?"
    return Selection(sql, [*condition.parameters, limit or -1, skip], exact, ordered)


def direction(way: Sort | int) -> str:
    """Return the SQL keyword for a maggma sort direction."""
    return "DESC" if Sort(way) is Sort.Descending else "ASC"


def _weighed(collection: Collection, clauses: Sequence[_Clause], sorted_by: str) -> Iterator[_Clause]:
    """Tell SQLite how many documents meet each condition, so that it starts from the rarest."""
    is_only = len(clauses) == 1 and not sorted_by  # then its index is the best start, however many meet it
    least = _MANY
    for clause in clauses:
        if not clause.search or clause.field == sorted_by:  # an index that sorts is used in any case
            yield clause
            continue
        n = 0 if is_only else _MANY
        if not is_only and least >= _FEW:
            sql = f"SELECT count(*) FROM ({clause.search} LIMIT {_MANY})"  # noqa: S608 - names are quoted
            n = collection.db.execute(sql, clause.parameters).fetchone()[0]
            least = min(n, least)
        if n < _MANY and "UNION" in clause.search:  # SQLite cannot turn the condition on elements around by itself
            yield clause._replace(sql=f"_id IN ({clause.search})")
        else:  # powers of two, so that few different statements are compiled
            share = 0.9 if n == _MANY else 2.0 ** math.ceil(math.log2((n + 1) / _ASSUMED_ROWS))
            yield clause._replace(sql=f"likelihood({clause.sql}, {share:.9f})")


def _clauses(collection: Collection, criteria: Mapping[str, Any]) -> Iterator[_Clause]:
    """Yield clauses that hold together; where the columns cannot decide, one of them is not exact."""
    for field, search in criteria.items():
        if field == "$and" and isinstance(search, list) and search:
            for part in search:
                yield from _clauses(collection, part)
        elif field in {"$or", "$nor"} and isinstance(search, list) and search:
            parts = [_all(_clauses(collection, part)) for part in search]
            either = _joined("OR", parts)
            yield either if field == "$or" else _not(either)
        elif field in collection.layout.fields:
            for operator, value in search.items() if is_condition(search) else [("$eq", search)]:
                yield from _operator(collection, field, operator, value)
        elif field != "_id" or search != {"$exists": True}:
            yield _UNKNOWN


def _operator(collection: Collection, field: str, operator: str, value: Any) -> Iterator[_Clause]:
    """Yield clauses for one operator on a field that has a column."""
    key = encoded(value)
    match operator:
        case "$eq" if key is not OTHER:
            yield from _held(collection, field, ("IS ?", key))
        case "$in" if isinstance(value, list) and all(map(_is_json, value)):
            if len(value) == 1:
                yield from _operator(collection, field, "$eq", value[0])
            else:  # a list of any length as one parameter
                yield from _held(collection, field, ("IN (SELECT value FROM json_each(?))", json.dumps(value)))
        case "$gt" | "$gte" | "$lt" | "$lte" if key is not None and key is not OTHER:
            low, high = _limits(key)
            limit = ("<", high) if operator.startswith("$g") else (">=", low)
            yield from _held(collection, field, (f"{_COMPARISONS[operator]} ?", key), (f"{limit[0]} ?", limit[1]))
        case "$ne" if key is None and not collection.is_irregular(field):
            yield from _held(
                collection, field, (">= ?", -math.inf)
            )  # all but NULL, and unlike NOT NULL it uses indexes
        case "$ne" | "$nin":
            yield _not(_all(_operator(collection, field, "$eq" if operator == "$ne" else "$in", value)))
        case "$not" if is_condition(value):
            yield _not(_all(c for name, v in value.items() for c in _operator(collection, field, name, v)))
        case "$all" if isinstance(value, list) and value:
            for each in value:
                yield from [_UNKNOWN] if is_condition(each) else _operator(collection, field, "$eq", each)
        case _:
            yield _UNKNOWN


def _held(collection: Collection, field: str, *tests: tuple[str, Value]) -> Iterator[_Clause]:
    """Yield clauses which hold where one value of a field passes all tests; an index answers the first test."""
    column = quoted(field)
    leads = any(index.fields[0] == field for index in collection.layout.indexes)
    find = f"SELECT _id FROM {collection.table} WHERE "  # noqa: S608 - names are quoted
    if not collection.is_irregular(field):
        (test, value), *others = tests
        yield _Clause(f"{column} {test}", (value,), search=f"{find}{column} {test}" if leads else "", field=field)
        yield from (_Clause(f"+{column} {test}", (value,)) for test, value in others)  # + rules the index out
        return
    whole = " AND ".join(f"{column} {test}" for test, _ in tests)
    among = f"SELECT _id FROM {collection.elements} AS element WHERE field = ? AND " + " AND ".join(  # noqa: S608
        f"value {test}" for test, _ in tests
    )
    parameters = (*(value for _, value in tests), field, *(element(value) for _, value in tests))
    sql = f"({whole} OR EXISTS ({among} AND element._id = held._id))"
    yield _Clause(sql, parameters, search=f"{find}{whole} UNION ALL {among}" if leads else "", field=field)


def _limits(key: float | str | bytes) -> tuple[Value, Value]:
    """Return the least value of the BSON type of a key, and a value that comes after all values of the type."""
    if isinstance(key, bytes):
        return key[:1], bytes([key[0] + 1])
    return ("", b"") if isinstance(key, str) else (-math.inf, "")


def _is_json(value: Any) -> bool:
    """Return whether JSON passes a value to SQLite unchanged."""
    key = encoded(value)
    return isinstance(key, int) or (isinstance(key, str) and "\0" not in key)


def _all(clauses: Iterable[_Clause]) -> _Clause:
    return _joined("AND", list(clauses) or [_Clause("TRUE")])


def _joined(operator: str, clauses: list[_Clause]) -> _Clause:
    sql = f" {operator} ".join(f"({clause.sql})" for clause in clauses)
    return _Clause(sql, tuple(p for c in clauses for p in c.parameters), all(c.exact for c in clauses))


def _not(clause: _Clause) -> _Clause:
    return _Clause(f"({clause.sql}) IS NOT TRUE", clause.parameters) if clause.exact else _UNKNOWN
