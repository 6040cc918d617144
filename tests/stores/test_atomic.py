"""Processes that write the same document at once."""

from __future__ import annotations

import subprocess
import sys

import pytest
from maggma.stores import MongoStore

from matris.errors import StoreError
from matris.stores.atomic import set_fields, set_if
from matris.stores.mongo import ResultsMongoStore
from matris.stores.sqlite import SQLiteStore

COUNTER = """
import sys
from tests.stores.test_atomic import open_store
from matris.stores.atomic import set_fields, set_if
where, name, rounds = sys.argv[1:]
store = open_store(where)
for _ in range(int(rounds)):
    while True:
        n = store.query_one({"task_id": "counter"})["n"]
        if set_if(store, {"task_id": "counter", "n": n}, {"n": n + 1}):
            break
    set_fields(store, {"everyone's": {f"by.{name}": n}})
"""
ROUNDS = 50


def open_store(where):
    where = str(where)
    store = (
        ResultsMongoStore.from_uri(where, "c", "atomic", key="task_id")
        if where.startswith("mongodb:")
        else SQLiteStore(where, "c")
    )
    store.connect()
    return store


@pytest.mark.parametrize("kind", ["sqlite", "server"])
def test_four_processes_count_together(tmp_path, request, kind):
    """Each increment by compare and swap is there, and so is each process's field of a document they share."""
    where = tmp_path / "matris.sqlite" if kind == "sqlite" else request.getfixturevalue("killable_server").uri
    store = open_store(where)
    assert store.ensure_index("task_id", unique=True)
    store.update([{"task_id": "counter", "n": 0}, {"task_id": "everyone's"}])
    command = [sys.executable, "-c", COUNTER, str(where)]
    processes = [subprocess.Popen([*command, name, str(ROUNDS)], stderr=subprocess.PIPE) for name in "abcd"]
    errors = [process.communicate()[1].decode() for process in processes]
    assert not any(errors), errors
    assert store.query_one({"task_id": "counter"})["n"] == 4 * ROUNDS
    assert set(store.query_one({"task_id": "everyone's"})["by"]) == set("abcd")
    store.close()


def test_a_store_of_another_kind_is_refused():
    store = MongoStore.from_uri("mongodb://127.0.0.1:9/d", "c", key="task_id")
    for write in (lambda: set_fields(store, {1: {"n": 1}}), lambda: set_if(store, {"task_id": 1}, {"n": 1})):
        with pytest.raises(StoreError, match="ResultsMongoStore"):
            write()
