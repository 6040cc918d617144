"""Which failed MongoDB writes are retried."""

from __future__ import annotations

import pytest
from maggma.stores import MongoStore
from pymongo.errors import AutoReconnect, BulkWriteError, ServerSelectionTimeoutError

from matris.stores.database.mongo import ResultsMongoStore


def refused(*codes):
    return BulkWriteError({"writeErrors": [{"code": code} for code in codes]})


@pytest.mark.parametrize(
    ("errors", "tries"),
    [
        ([], 1),
        ([refused(11000), refused(11000, 11000)], 3),  # another process was faster; the retry replaces its document
        ([AutoReconnect("killed"), AutoReconnect("starting")], 3),
        ([AutoReconnect("killed"), refused(11000)], 3),  # the write had arrived
    ],
)
def test_repeated(monkeypatch, errors, tries):
    assert attempts(monkeypatch, errors) == tries


@pytest.mark.parametrize(
    ("errors", "tries"),
    [
        ([refused(11000)] * 9, 5),  # another unique index: a retry cannot help
        ([refused(11000, 121)], 1),
        ([AutoReconnect("gone")] * 9, 5),
        ([ServerSelectionTimeoutError("30 s passed")], 1),
        ([KeyError("task_id")], 1),
    ],
)
def test_given_up(monkeypatch, errors, tries):
    made = []
    with pytest.raises(type(errors[0])):
        attempts(monkeypatch, errors, made)
    assert len(made) == tries


def attempts(monkeypatch, errors, made=None):
    made = [] if made is None else made
    left = list(errors)

    def update(_, docs, key):
        made.append((docs, key))
        if left:
            raise left.pop(0)

    monkeypatch.setattr(MongoStore, "update", update)
    store = ResultsMongoStore.from_uri("mongodb://127.0.0.1:9/d", "c")
    store.update({"task_id": 1}, key="task_id")
    assert made == [([{"task_id": 1}], "task_id")] * len(made)
    return len(made)
