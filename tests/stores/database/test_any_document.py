"""Any documents, any filters, any order of writes: the indexes of the embedded store find what the referee finds."""

from __future__ import annotations

import math
from datetime import datetime
from enum import Enum, IntEnum, StrEnum
from pathlib import Path
from uuid import UUID

import bson
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matris.errors import StoreError
from matris.stores.database.mongo import ResultsMongoStore
from matris.stores.database.sqlite.filters import MISSING, matches, order_key, sort_key, values_at
from matris.stores.database.sqlite.store import SQLiteStore

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=3)
NUMBERS = st.one_of(
    st.integers(-3, 3),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.sampled_from([2**53, 2**53 + 1, float(2**53), 2.0**63, -0.0, math.nan, math.inf, 5e-324, 1e308]),
)
TIMES = st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1)).map(  # noqa: DTZ001 - as BSON returns times
    lambda time: time.replace(microsecond=time.microsecond // 1000 * 1000)
)
PLAIN = st.one_of(st.none(), st.booleans(), NUMBERS, TEXT, TIMES, st.binary(max_size=2))
NAMES = st.sampled_from(["a", "b", "c"])
VALUES = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=2), max_leaves=5
)
DOCUMENTS = st.dictionaries(NAMES, VALUES, max_size=3)
PATHS = st.sampled_from(["a", "b", "a.b", "a.c", "b.0", "b.a.c"])
CONDITIONS = st.one_of(
    st.tuples(st.sampled_from(["$eq", "$ne", "$gt", "$gte", "$lt", "$lte"]), VALUES),
    st.tuples(st.sampled_from(["$in", "$nin", "$all"]), st.lists(VALUES, min_size=1, max_size=3)),
    st.tuples(st.just("$exists"), st.booleans()),
    st.tuples(st.just("$size"), st.integers(0, 2)),
).map(lambda pair: dict([pair]))
FILTERS = st.recursive(
    st.one_of(
        st.dictionaries(PATHS, VALUES.filter(lambda v: not isinstance(v, dict)) | CONDITIONS, max_size=2),
        st.tuples(PATHS, CONDITIONS).map(lambda pair: {pair[0]: {"$not": pair[1]}}),
    ),
    lambda inner: st.tuples(st.sampled_from(["$and", "$or", "$nor"]), st.lists(inner, min_size=1, max_size=3)).map(
        lambda pair: dict([pair])
    ),
    max_leaves=4,
)
WRITES = st.one_of(
    st.tuples(st.just("update"), st.integers(0, 5), DOCUMENTS),
    st.tuples(st.just("set"), st.integers(0, 5), st.dictionaries(NAMES, VALUES, min_size=1, max_size=2)),
    st.tuples(st.just("remove"), st.integers(0, 5), st.none()),
    st.tuples(st.just("index"), st.lists(PATHS, min_size=1, max_size=2, unique=True), st.none()),
)


def decoded(value):
    """What a store returns for a document."""
    return bson.decode(bson.encode(value))


def same(found, expected):
    return order_key(found) == order_key(expected) and repr(found) == repr(expected)


@settings(max_examples=150, deadline=None)
@given(st.lists(WRITES, max_size=12), st.lists(FILTERS, min_size=1, max_size=4), PATHS, st.sampled_from([1, -1]))
def test_the_store_agrees_with_the_referee(tmp_path_factory, writes, filters, path, direction):
    file = tmp_path_factory.mktemp("any") / "any.sqlite"
    with SQLiteStore(file, "c", key="k") as store:
        expected = {}
        for kind, what, content in writes:
            if kind == "update":
                store.update([{"k": what, **content}])
                expected[what] = decoded({"k": what, **content})
            elif kind == "set":
                assert store.set_fields({what: content}) == (what in expected)
                if what in expected:
                    expected[what] |= decoded(content)
            elif kind == "remove":
                store.remove_docs({"k": what})
                expected.pop(what, None)
            else:
                assert store.ensure_index(what)
        for criteria in filters:
            read = decoded(criteria)
            right = {k for k, document in expected.items() if matches(read, document)}
            found = [{n: v for n, v in document.items() if n != "_id"} for document in store.query(criteria)]
            assert {document["k"] for document in found} == right, criteria
            assert all(same(document, expected[document["k"]]) for document in found)
            assert store.count(criteria) == len(found) == len(right)
            values = {
                order_key(value)
                for k in right
                for held in values_at(path, expected[k])
                for value in (held if isinstance(held, list) else [held])
                if value is not MISSING
            }
            assert sorted(map(order_key, store.distinct(path, criteria)), key=repr) == sorted(values, key=repr)
            keys = [
                sort_key(path, document, descending=direction < 0)
                for document in store.query(criteria, sort={path: direction})
            ]
            assert keys == sorted(keys, reverse=direction < 0)
            page = [
                document["k"] for document in store.query(criteria, sort={path: direction, "k": 1}, skip=1, limit=2)
            ]
            whole = [document["k"] for document in store.query(criteria, sort={path: direction, "k": 1})]
            assert page == whole[1:3]


class Kind(Enum):
    BULK = "bulk"


class Number(IntEnum):
    TWO = 2


class Word(StrEnum):
    ONE = "one"


@pytest.fixture(params=["sqlite", "mongo"])
def store(request, tmp_path):
    if request.param == "sqlite":
        made = SQLiteStore(tmp_path / "values.sqlite", "values", key="k")
    else:
        uri = request.getfixturevalue("mongo_server")
        made = ResultsMongoStore.from_uri(f"{uri}/values", tmp_path.name, key="k")
    made.connect()
    return made


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (UUID(int=5), "00000000-0000-0000-0000-000000000005"),
        (Kind.BULK, "bulk"),
        (Word.ONE, "one"),
        (Number.TWO, 2),
        ([{"deep": Kind.BULK}], [{"deep": "bulk"}]),
        (Path("a.cif"), "a.cif"),
        (np.float64(0.1), 0.1),
        (np.array([[1, 2]]), [[1, 2]]),
        ("a\0b", "a\0b"),
    ],
    ids=str,
)
def test_values_are_stored_alike(store, value, stored):
    store.update([{"k": 1, "value": value, "other": UUID(int=1)}])
    assert store.query_one({"k": 1})["value"] == stored
    assert store.count({"value": stored}) == 1


@pytest.mark.parametrize("value", ["a\ud800b", {"\udc00": 1}, 2**70, {"a\0b": 1}], ids=ascii)
def test_values_that_no_store_can_hold(store, value):
    store.update([{"k": 0}])
    with pytest.raises(StoreError, match="a value that BSON cannot hold"):
        store.update([{"k": 1}, {"k": 2, "value": value}])
    assert store.count({}) == 1  # all documents of an update, or none
