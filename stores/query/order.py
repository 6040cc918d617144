"""Documents in order, a window of them at a time; those without a value to sort by come last, whatever the way."""

from __future__ import annotations

import math
from itertools import batched
from typing import TYPE_CHECKING, Any

from matris.stores.database.sqlite.filters import order_key
from matris.stores.documents.fields import outermost, value_of
from matris.stores.query.conditions import Missing, to_criteria

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from maggma.core import Store

    from matris.stores.query.conditions import Criteria

type Document = dict[str, Any]
type Order = tuple[tuple[str, int], ...]

KEY = "document_id"
_RANGES = {"$gt", "$gte", "$lt", "$lte"}
_BATCH = 1000  # documents read by their ids at once


def in_order(
    store: Store,
    criteria: Criteria,
    order: Order = (),
    skip: int = 0,
    most: int | None = None,
    names: Sequence[str] | None = None,
) -> Iterator[Document]:
    """
    Yield documents.

    Sorted by one field, the store's indexes give a page without reading the rest. By several, ids and these fields are
    read as far as the page needs, and sorted here. Equals come by id, in the way of a single field. Without an order,
    a window is taken from the documents by id; all of them come as they are stored.

    Parameters
    ----------
    store
        Of documents with a ``document_id``.
    criteria
        MongoDB's filter.
    order
        Fields, each with 1 or, for the largest first, -1.
    skip, most
        Window of the documents in order; None: to the end.
    names
        Fields to read; by default all.
    """
    if most == 0:
        return iter(())
    if len(order) > 1:
        return _by_several(store, criteria, order, skip, most, names)
    if order:
        return _by_one(store, criteria, *order[0], skip, most, names)
    sort = {KEY: 1} if skip or most else None
    return _read(store, criteria, names, sort, skip, most)


def _by_one(
    store: Store, criteria: Criteria, name: str, way: int, skip: int, most: int | None, names: Sequence[str] | None
) -> Iterator[Document]:
    sort = {name: way, KEY: way}  # both one way, as one index has them
    all_have_it = _compares(criteria.get(name))
    known = criteria if all_have_it else _both(criteria, to_criteria(Missing(name), holds=False))
    n = 0
    for document in _read(store, known, names, sort, skip, most):
        yield document
        n += 1
    if n == most or all_have_it:
        return
    skip = max(skip - store.count(known), 0) if skip and not n else 0
    rest = _both(criteria, to_criteria(Missing(name)))
    yield from _read(store, rest, names, {KEY: 1}, skip, None if most is None else most - n)


def _by_several(
    store: Store, criteria: Criteria, order: Order, skip: int, most: int | None, names: Sequence[str] | None
) -> Iterator[Document]:
    stop = None if most is None else skip + most
    ids = [key[KEY] for key in _keys(store, criteria, order, stop)[skip:stop]]
    wanted = None if names is None else [KEY, *names]
    for batch in batched(ids, _BATCH):
        found = {d[KEY]: d for d in _read(store, {KEY: {"$in": list(batch)}}, wanted)}
        yield from (found[key] for key in batch if key in found)


def _keys(store: Store, criteria: Criteria, order: Order, stop: int | None) -> list[Document]:
    """Ids and sort fields of at least the first documents, in order."""
    names = [KEY, *(name for name, _ in order)]
    first, way = order[0]
    if stop is None:
        keys = list(_read(store, criteria, names))
    else:
        keys = list(_by_one(store, criteria, first, way, 0, stop, names))
        if len(keys) == stop:  # there may be more equal to the last, to be put in order with it
            last = _sortable(keys[-1], first)
            keys = [key for key in keys if _sortable(key, first) != last]
            same = to_criteria(Missing(first)) if last is None else {first: last}
            keys += _read(store, _both(criteria, same), names)
    keys.sort(key=lambda key: str(key[KEY]))
    for name, direction in reversed(order):
        keys.sort(key=lambda key, name=name: order_key(_sortable(key, name)), reverse=direction < 0)  # type: ignore[misc]
        keys.sort(key=lambda key, name=name: _sortable(key, name) is None)  # type: ignore[misc]
    return keys


def _sortable(document: Document, name: str) -> Any:
    """Value that a document is sorted by, or None."""
    value = value_of(document, name)
    return None if isinstance(value, float) and math.isnan(value) else value


def _compares(search: Any) -> bool:
    """Ask whether a condition on a field is met by values in an order alone."""
    return isinstance(search, dict) and not _RANGES.isdisjoint(search)


def _both(one: Criteria, other: Criteria) -> Criteria:
    """One filter for two, flat where it can be, which some servers need to use an index."""
    return {"$and": [one, other]} if set(one) & set(other) else {**one, **other}


def _read(
    store: Store,
    criteria: Criteria,
    names: Sequence[str] | None = None,
    sort: dict[str, int] | None = None,
    skip: int = 0,
    most: int | None = None,
) -> Iterator[Document]:
    """Documents without the store's own id."""
    if most == 0:
        return
    properties = outermost(names) if names is not None else None
    for document in store.query(criteria, properties, sort=sort, skip=skip, limit=most or 0):
        document.pop("_id", None)
        yield document
