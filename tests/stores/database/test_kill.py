"""Processes and servers killed while they write: acknowledged documents survive."""

from __future__ import annotations

import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import uuid

import pytest
from jobflow import Flow, JobStore, job, run_locally
from maggma.stores import GridFSStore, MongoStore

from matris.stores.database.jobstore import open_job_store
from matris.stores.database.mongo import ResultsMongoStore
from matris.stores.database.sqlite.store import SQLiteStore

WRITER = """
import os, sys
from matris.stores.database.mongo import ResultsMongoStore
from matris.stores.database.sqlite.store import SQLiteStore
location, name, told = sys.argv[1:]
if location.startswith("mongodb:"):
    store = ResultsMongoStore.from_uri(location, "c", "kills", key="task_id")
else:
    store = SQLiteStore(location, "c")
store.connect()
with open(told, "ab", buffering=0) as file:
    for i in range(10**6):
        ids = [f"{name}-{i}-{k}" for k in range(3)]
        store.update([{"task_id": t, "text": "x" * 1500, "shared": i % 7} for t in ids])
        store.update({"task_id": f"everyone's {i % 50}", "by": name})
        file.write("".join(t + "\\n" for t in ids).encode())
        os.fsync(file.fileno())
"""


def start_writer(location, folder):
    name = uuid.uuid4().hex[:8]
    command = [sys.executable, "-c", WRITER, str(location), name, str(folder / f"told-{name}")]
    return subprocess.Popen(command, stderr=subprocess.PIPE)


def acknowledged(folder):
    return {line for path in folder.glob("told-*") for line in path.read_text().splitlines(keepends=True)}


def wait_for_more(folder, number):
    until = time.monotonic() + 60
    while len(acknowledged(folder)) < number:
        assert time.monotonic() < until, "writers write nothing"
        time.sleep(0.02)


def check(store, folder, trials):
    """Each acknowledged document is stored once."""
    confirmed = {line.rstrip("\n") for line in acknowledged(folder) if line.endswith("\n")}
    stored = [document["task_id"] for document in store.query(properties=["task_id"])]
    print(f"\n{store.name}: {trials} kills, {len(confirmed)} documents acknowledged, lost {len(confirmed - {*stored})}")  # noqa: T201
    assert len(confirmed) > 3 * trials
    assert confirmed <= {*stored}
    assert len(stored) == len({*stored})


def kill_writers(location, folder, trials, rng):
    for _ in range(trials):
        writers = [start_writer(location, folder) for _ in range(2)]
        wait_for_more(folder, len(acknowledged(folder)) + 6)
        time.sleep(rng.uniform(0, 0.5))
        for writer in writers:
            writer.send_signal(signal.SIGKILL)
        for writer in writers:
            assert writer.wait() == -signal.SIGKILL, writer.stderr.read().decode()


@pytest.mark.parametrize("trials", [2, pytest.param(15, marks=pytest.mark.slow)])
def test_killed_writers_of_the_embedded_store(tmp_path, trials):
    path = tmp_path / "matris.sqlite"
    with SQLiteStore(path, "c") as store:
        assert store.ensure_index("task_id", unique=True)
        assert store.ensure_index("shared")
    kill_writers(path, tmp_path, trials, random.Random(trials))
    with SQLiteStore(path, "c") as store:
        check(store, tmp_path, trials)
        counted = sum(store.count({"shared": i}) for i in range(7))  # indexes and documents agree
        assert counted == sum("shared" in document for document in store.query())
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def results(server):
    store = ResultsMongoStore.from_uri(server.uri, "c", "kills", key="task_id")
    store.connect()
    assert store.ensure_index("task_id", unique=True)
    return store


@pytest.mark.parametrize("trials", [1, pytest.param(5, marks=pytest.mark.slow)])
def test_killed_writers_and_server(tmp_path, killable_server, trials):
    """A store that was opened before the server was killed answers after its restart; so do those of the writers."""
    store = results(killable_server)
    kill_writers(killable_server.uri, tmp_path, trials, random.Random(trials))
    writers = [start_writer(killable_server.uri, tmp_path) for _ in range(2)]
    rng = random.Random(trials)
    for _ in range(trials):
        wait_for_more(tmp_path, len(acknowledged(tmp_path)) + 6)
        time.sleep(rng.uniform(0, 0.5))
        killable_server.kill()
        time.sleep(rng.uniform(0, 0.5))
        killable_server.start()
        wait_for_more(tmp_path, len(acknowledged(tmp_path)) + 6)  # the same writers go on
    for writer in writers:
        assert writer.poll() is None, writer.stderr.read().decode()
        writer.kill()
        writer.wait()
    check(store, tmp_path, 2 * trials)


def test_concurrent_upserts_of_the_same_keys(killable_server):
    store = results(killable_server)
    problems = []

    def work(number):
        own = ResultsMongoStore.from_uri(killable_server.uri, "c", "kills", key="task_id")
        own.connect()
        try:
            for i in range(100):
                own.update({"task_id": i, "by": number})
        except Exception as error:  # noqa: BLE001 - checked in the main thread
            problems.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems
    assert sorted(store.distinct("task_id")) == list(range(100))
    assert store.count({"_id": {"$exists": True}}) == 100


@job(data=["forces"])
def relax(n):
    return {"energy": -1.5 * n, "forces": [[float(n)] * 3] * 4}


@pytest.mark.parametrize("data", ["gridfs", "mongo"])
def test_a_job_store_survives_its_server(tmp_path, monkeypatch, killable_server, data):
    """Documents and arrays, in GridFS or a second collection, survive a kill of the server."""
    monkeypatch.chdir(tmp_path)
    uri = f"{killable_server.uri}/results"
    if data == "gridfs":
        store = open_job_store(uri)
        assert isinstance(store.additional_stores["data"], GridFSStore)
    else:
        blobs = MongoStore.from_uri(uri, "blobs", key="blob_uuid")
        store = JobStore(MongoStore.from_uri(uri, "outputs", key="uuid"), additional_stores={"data": blobs})
        store.connect()
    jobs = [relax(n) for n in (1, 2, 3)]
    run_locally(Flow(jobs[:2]), store=store, ensure_success=True)
    killable_server.kill()
    killable_server.start()
    assert store.get_output(jobs[1].uuid, load=True) == {"energy": -3.0, "forces": [[2.0] * 3] * 4}
    run_locally(Flow(jobs[2:]), store=store, ensure_success=True)
    assert store.get_output(jobs[2].uuid, load=True)["forces"] == [[3.0] * 3] * 4
    assert store.count({"uuid": {"$exists": True}}) == 3
