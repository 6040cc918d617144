"""Sorted windows of documents. Documents without a value to sort by come last in both directions."""

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
_BATCH = 1000  # documents per query by ids


def in_order(
    store: Store,
    criteria: Criteria,
    order: Order = (),
    skip: int = 0,
    limit: int | None = None,
    names: Sequence[str] | None = None,
) -> Iterator[Document]:
    """
    Yield documents in order.

    For one sort field, the indexes of the store give a page without reading the other documents; equal documents follow
    by id in the same direction. For several sort fields, ids and these fields are read as far as the page needs them
    and sorted here; equal documents follow by ascending id. Without sort fields, a window is sorted by id, and all
    documents come in the order of the store.

    Parameters
    ----------
    store
        Store of documents with a ``document_id``.
    criteria
        MongoDB filter.
    order
        Sort fields, each with 1 (ascending) or -1 (descending).
    skip, limit
        Window of the sorted documents: number to skip and maximum number to yield. A limit of None means no limit.
    names
        Fields to read; by default all.
    """
    if limit == 0:
        return iter(())
    if len(order) > 1:
        return _by_several(store, criteria, order, skip, limit, names)
    if order:
        return _by_one(store, criteria, *order[0], skip, limit, names)
    sort = {KEY: 1} if skip or limit else None
    return _read(store, criteria, names, sort, skip, limit)


def _by_one(
    store: Store,
    criteria: Criteria,
    name: str,
    direction: int,
    skip: int,
    limit: int | None,
    names: Sequence[str] | None,
) -> Iterator[Document]:
    sort = {name: direction, KEY: direction}  # the same direction, so that one index serves both
    all_have_value = _is_range(criteria.get(name))
    with_value = criteria if all_have_value else _both(criteria, to_criteria(Missing(name), holds=False))
    n = 0
    for document in _read(store, with_value, names, sort, skip, limit):
        yield document
        n += 1
    if n == limit or all_have_value:
        return
    skip = max(skip - store.count(with_value), 0) if skip and not n else 0
    without_value = _both(criteria, to_criteria(Missing(name)))
    yield from _read(store, without_value, names, {KEY: 1}, skip, None if limit is None else limit - n)


def _by_several(
    store: Store, criteria: Criteria, order: Order, skip: int, limit: int | None, names: Sequence[str] | None
) -> Iterator[Document]:
    stop = None if limit is None else skip + limit
    ids = [key[KEY] for key in _keys(store, criteria, order, stop)[skip:stop]]
    fields = None if names is None else [KEY, *names]
    for batch in batched(ids, _BATCH):
        by_id = {d[KEY]: d for d in _read(store, {KEY: {"$in": list(batch)}}, fields)}
        yield from (by_id[key] for key in batch if key in by_id)


def _keys(store: Store, criteria: Criteria, order: Order, stop: int | None) -> list[Document]:
    """Sorted ids and sort fields of all documents, or of at least the first `stop` documents."""
    names = [KEY, *(name for name, _ in order)]
    first, direction = order[0]
    if stop is None:
        keys = list(_read(store, criteria, names))
    else:
        keys = list(_by_one(store, criteria, first, direction, 0, stop, names))
        if len(keys) == stop:  # further documents may be equal to the last one in the first sort field
            last = _sortable(keys[-1], first)
            keys = [key for key in keys if _sortable(key, first) != last]
            equal = to_criteria(Missing(first)) if last is None else {first: last}
            keys += _read(store, _both(criteria, equal), names)
    keys.sort(key=lambda key: str(key[KEY]))
    for name, direction in reversed(order):
        keys.sort(key=lambda key, name=name: order_key(_sortable(key, name)), reverse=direction < 0)  # type: ignore[misc]
        keys.sort(key=lambda key, name=name: _sortable(key, name) is None)  # type: ignore[misc]
    return keys


def _sortable(document: Document, name: str) -> Any:
    """Value of a sort field; None if it is missing or NaN."""
    value = value_of(document, name)
    return None if isinstance(value, float) and math.isnan(value) else value


def _is_range(test: Any) -> bool:
    """Whether the filter of a field is a range, which only documents with a sortable value can match."""
    return isinstance(test, dict) and not _RANGES.isdisjoint(test)


def _both(one: Criteria, other: Criteria) -> Criteria:
    """Combine two filters, if possible in a flat form, which some servers need to use an index."""
    return {"$and": [one, other]} if set(one) & set(other) else {**one, **other}


def _read(
    store: Store,
    criteria: Criteria,
    names: Sequence[str] | None = None,
    sort: dict[str, int] | None = None,
    skip: int = 0,
    limit: int | None = None,
) -> Iterator[Document]:
    """Yield documents without the internal id of the store."""
    if limit == 0:
        return
    properties = outermost(names) if names is not None else None
    for document in store.query(criteria, properties, sort=sort, skip=skip, limit=limit or 0):
        document.pop("_id", None)
        yield document
