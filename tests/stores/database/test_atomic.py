"""Processes that write the same document at once."""

from __future__ import annotations

import multiprocessing

import pytest
from maggma.stores import MongoStore

from matris.errors import StoreError
from matris.stores.database.atomic import set_fields, set_if
from matris.stores.database.mongo import ResultsMongoStore
from matris.stores.database.sqlite.store import SQLiteStore

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload([__name__])
ROUNDS = 50


def open_store(location):
    location = str(location)
    store = (
        ResultsMongoStore.from_uri(location, "c", "atomic", key="task_id")
        if location.startswith("mongodb:")
        else SQLiteStore(location, "c")
    )
    store.connect()
    return store


def count(location, name):
    store = open_store(location)
    for _ in range(ROUNDS):
        while True:
            n = store.query_one({"task_id": "counter"})["n"]
            if set_if(store, {"task_id": "counter", "n": n}, {"n": n + 1}):
                break
        set_fields(store, {"everyone's": {f"by.{name}": n}})


@pytest.mark.parametrize("kind", ["sqlite", "server"])
def test_four_processes_count_together(tmp_path, request, kind):
    """No increment by compare and swap is lost, and no field that a process sets in a shared document."""
    location = tmp_path / "matris.sqlite" if kind == "sqlite" else request.getfixturevalue("killable_server").uri
    store = open_store(location)
    assert store.ensure_index("task_id", unique=True)
    store.update([{"task_id": "counter", "n": 0}, {"task_id": "everyone's"}])
    processes = [PROCESSES.Process(target=count, args=(location, name)) for name in "abcd"]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert store.query_one({"task_id": "counter"})["n"] == 4 * ROUNDS
    assert set(store.query_one({"task_id": "everyone's"})["by"]) == set("abcd")
    store.close()


def test_a_store_of_another_kind_is_refused():
    store = MongoStore.from_uri("mongodb://127.0.0.1:9/d", "c", key="task_id")
    for write in (lambda: set_fields(store, {1: {"n": 1}}), lambda: set_if(store, {"task_id": 1}, {"n": 1})):
        with pytest.raises(StoreError, match="ResultsMongoStore"):
            write()
