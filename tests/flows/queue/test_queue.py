"""One holder per item, whatever happens to holders, clocks and servers."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import signal
import time
import uuid
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime

import pytest
from maggma.stores import MemoryStore
from pymongo import MongoClient
from pymongo.errors import AutoReconnect

from matris.errors import StoreError
from matris.flows.queue import queue as work_queue
from matris.flows.queue.heartbeat import Heartbeat
from matris.flows.queue.queue import WorkQueue
from matris.stores.database.mongo import ResultsMongoStore
from matris.stores.database.sqlite.store import SQLiteStore

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload([__name__])


def drain(where, tell, pause=0.0):
    queue = open_queue(where)
    while (item := queue.take("c")) is not None:
        time.sleep(pause)
        tell.send((item.work_id, queue.finish(item)))


def hold(where, tell):
    queue = open_queue(where)
    item = queue.take("c")
    tell.send(item.work_id)
    while queue.beat(item):
        time.sleep(0.05)


def fall_asleep(where, tell):
    queue = open_queue(where)
    item = queue.take("c")
    tell.send(item.work_id)
    os.kill(os.getpid(), signal.SIGSTOP)
    tell.send((queue.beat(item), queue.finish(item), queue.give_back(item, "e"), queue.give_up(item, "e")))


def open_queue(where, abandoned_after=300.0):
    where = str(where)
    if where.startswith("mongodb:"):
        uri, name = where.rsplit("/", 1)
        store = ResultsMongoStore.from_uri(uri, "work", name, key="work_id")
    else:
        store = SQLiteStore(where, "work", key="work_id")
    store.connect()
    return WorkQueue(store, abandoned_after)


@pytest.fixture(params=["sqlite", "server"])
def where(request, tmp_path):
    if request.param == "sqlite":
        yield tmp_path / "matris.sqlite"
        return
    uri, name = request.getfixturevalue("mongo_server"), f"matris-{uuid.uuid4().hex[:8]}"
    yield f"{uri}/{name}"
    MongoClient(uri).drop_database(name)


@pytest.fixture(params=["sqlite", "memory", "server"])
def queue(request, tmp_path):
    if request.param == "memory":
        store = MemoryStore("work", key="work_id")
        store.connect()
        return WorkQueue(store)
    return open_queue(
        tmp_path / "matris.sqlite"
        if request.param == "sqlite"
        else f"{request.getfixturevalue('mongo_server')}/matris-{uuid.uuid4().hex[:8]}"
    )


def item(name, cost=1.0, stage="relax", campaign="c"):
    return {"work_id": name, "campaign": campaign, "stage": stage, "cost": cost, "n": 2, "payload": {"of": name}}


def stored(queue, name):
    return queue._store.query_one({"work_id": name})


@contextmanager
def running(work, *arguments):
    """A process, and what it tells."""
    told, tell = PROCESSES.Pipe(duplex=False)
    process = PROCESSES.Process(target=work, args=(arguments[0], tell, *arguments[1:]))
    process.start()
    tell.close()
    try:
        yield process, told
    finally:
        process.kill()
        process.join()


def hear(told):
    assert told.poll(60), "nothing is told"
    return told.recv()


def hear_all(told):
    with suppress(EOFError):
        while True:
            yield hear(told)


def takes_within(queue, seconds):
    """Ask again and again, as a runner does that has nothing to do."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if (found := queue.take("c")) is not None:
            return found
        time.sleep(0.02)
    return None


def test_the_costliest_first(queue):
    assert (queue.take("c"), queue.counts("c"), queue.is_open("c")) == (None, {}, False)
    queue.put([])
    queue.put([item("small", 1), item("large", 30.5), item("middle", 2), item("other", 99, campaign="d")])
    queue.put([item("static", 50, stage="static")])
    first = queue.take("c", "relax")
    assert (first.work_id, first.n, first.payload, first.attempts, first.deaths) == ("large", 2, {"of": "large"}, 1, 0)
    assert [queue.take("c").work_id for _ in range(3)] == ["static", "middle", "small"]
    assert queue.take("c") is None
    assert queue.counts("c") == {
        "relax": {"waiting": 0, "taken": 3, "submitted": 0, "done": 0, "broken": 0},
        "static": {"waiting": 0, "taken": 1, "submitted": 0, "done": 0, "broken": 0},
    }
    assert queue.counts("d") == {"relax": {"waiting": 1, "taken": 0, "submitted": 0, "done": 0, "broken": 0}}


def test_what_becomes_of_an_item(queue):
    queue.put([item("a")])
    held = queue.take("c")
    assert queue.beat(held)
    assert queue.give_back(held)
    assert not queue.beat(held)
    held = queue.take("c")
    assert (held.attempts, held.error) == (1, None)  # nothing had been tried
    assert queue.give_back(held, "no luck")
    held = queue.take("c")
    assert (held.attempts, held.deaths, held.error) == (2, 0, "no luck")
    noted = queue.note(held, suspect="x")
    assert noted.payload == {"of": "a", "suspect": "x"} == stored(queue, "a")["payload"]
    assert queue.give_up(held, "never")
    assert (stored(queue, "a")["state"], stored(queue, "a")["error"], queue.is_open("c")) == ("broken", "never", False)
    assert queue.take("c") is None
    queue.put([item("a", 7)])
    assert queue.take("c") is None
    queue.revive("c")
    held = queue.take("c")
    assert (held.attempts, held.error, held.cost, held.payload["suspect"]) == (1, "never", 1.0, "x")
    assert queue.is_open("c")
    assert [found["payload"]["of"] for found in queue.open_items("c", "relax")] == ["a"]
    assert queue.finish(held)
    assert queue.finish(held)  # asked again, as after a lost answer
    assert not queue.give_back(held)
    with pytest.raises(StoreError, match="a was taken over"):
        queue.note(held, suspect="y")
    assert queue.counts("c") == {"relax": {"waiting": 0, "taken": 0, "submitted": 0, "done": 1, "broken": 0}}
    assert (list(queue.swept("c")), list(queue.swept("c")), list(queue.open_items("c", "relax"))) == (["a"], [], [])


def test_clearing_up_that_was_interrupted_is_repeated(queue):
    queue.put([item("a")])
    queue.finish(queue.take("c"))
    assert next(queue.swept("c")) == "a"
    assert list(queue.swept("c")) == ["a"]


def test_a_cost_that_cannot_be_compared_is_refused(queue):
    with pytest.raises(StoreError, match=r"cost of bad is nan"):
        queue.put([item("good"), item("bad", math.nan)])
    assert queue.counts("c") == {}


def test_four_processes_share_200_items(where):
    queue = open_queue(where)
    queue.put(item(f"i{i}", cost=i % 7) for i in range(200))
    with ExitStack() as stack:
        told = [stack.enter_context(running(drain, where))[1] for _ in range(4)]
        done = [item for each in told for item in hear_all(each)]
    assert sorted(done) == sorted((f"i{i}", True) for i in range(200))
    assert {(d["state"], d["attempts"]) for d in queue._store.query()} == {("done", 1)}


def test_the_item_of_a_killed_process_on_this_machine_is_taken_at_once(where):
    queue = open_queue(where)
    queue.put([item("a")])
    with running(hold, where) as (_, told):
        assert hear(told) == "a"
        assert takes_within(queue, 0.5) is None
    taken = queue.take("c")
    assert (taken.attempts, taken.deaths) == (2, 1)
    assert taken.error.endswith("died or fell silent")
    assert queue.finish(taken)


def test_the_item_of_a_killed_process_elsewhere_is_taken_after_a_while(where, monkeypatch):
    """As seen from another machine, where nobody knows which processes live; while it beats, it keeps the item."""
    monkeypatch.setattr(work_queue, "is_gone", lambda _: False)
    queue = open_queue(where, abandoned_after=3)
    queue.put([item("a"), item("b", 0.5)])
    with running(hold, where) as (_, told):
        assert hear(told) == "a"
        other = queue.take("c")
        assert other.work_id == "b"
        assert queue.finish(other)
        assert takes_within(queue, 4) is None
    start_of_watch = time.monotonic()
    taken = takes_within(queue, 30)
    assert time.monotonic() - start_of_watch > 1.3  # the last beat seen may be older than the kill on a busy machine
    assert (taken.work_id, taken.attempts, taken.deaths) == ("a", 2, 1)


def test_a_process_that_was_asleep_finds_that_its_item_is_another_ones(where):
    queue = open_queue(where, abandoned_after=0.5)
    queue.put([item("a")])
    with running(fall_asleep, where) as (holder, told):
        assert hear(told) == "a"
        taken = takes_within(queue, 30)
        assert (taken.work_id, taken.attempts) == ("a", 2)
        while not told.poll(0.1):
            os.kill(holder.pid, signal.SIGCONT)
        assert hear(told) == (False, False, False, False)
    assert queue.beat(taken)
    assert queue.finish(taken)
    document = stored(queue, "a")
    assert (document["state"], document["token"], document["error"]) == ("done", taken.token, None)


def test_heartbeats_tell_how_many_candidates_are_finished(tmp_path):
    queue = open_queue(tmp_path / "matris.sqlite", abandoned_after=0.6)
    queue.put([item("a")])
    held = queue.take("c")
    with Heartbeat(queue, held) as heartbeat:
        heartbeat.finished = 3
        deadline = time.monotonic() + 30
        while stored(queue, "a")["finished"] != 3 and time.monotonic() < deadline:
            time.sleep(0.05)
    (found,) = queue.items("c")
    assert found["finished"] == 3
    queue.give_back(held)
    queue.take("c")
    assert stored(queue, "a")["finished"] == 0


def test_clocks_that_jump_do_not_matter(tmp_path, monkeypatch):
    monkeypatch.setattr(work_queue, "is_gone", lambda _: False)
    queue, other = (open_queue(tmp_path / "matris.sqlite", abandoned_after=60) for _ in range(2))
    queue.put([item("a")])
    held = queue.take("c")
    for year in (1971, 2090, 2026):
        monkeypatch.setattr(work_queue, "utc_now", lambda year=year: datetime(year, 1, 1))  # noqa: DTZ001
        assert queue.beat(held)
        assert other.take("c") is None
    assert queue.finish(held)


def test_a_server_that_is_away_for_a_while(killable_server):
    where = f"{killable_server.uri}/away"
    queue = open_queue(where)
    queue.put(item(f"i{i}") for i in range(30))
    with ExitStack() as stack:
        told = [stack.enter_context(running(drain, where, 0.05))[1] for _ in range(2)]
        done = [hear(each) for each in told]
        killable_server.kill()
        time.sleep(0.5)
        killable_server.start()
        done += [item for each in told for item in hear_all(each)]
    assert sorted(done) == sorted((f"i{i}", True) for i in range(30))
    assert {(d["state"], d["attempts"]) for d in queue._store.query()} == {("done", 1)}
    assert queue.counts("c")["relax"]["done"] == 30


@pytest.mark.parametrize("arrives", [True, False])
def test_an_answer_that_is_lost(queue, monkeypatch, arrives):
    """The change may have reached the store or not; it is made once."""
    queue.put([item("a"), item("b", 0.5)])
    change = work_queue.set_if
    left = [True]

    def lossy(*arguments):
        if left.pop() if left else False:
            if arrives:
                change(*arguments)
            raise AutoReconnect("lost")
        return change(*arguments)

    monkeypatch.setattr(work_queue, "set_if", lossy)
    held = queue.take("c")
    assert (held.work_id, held.attempts) == ("a", 1)
    for action in (queue.beat, queue.give_back):
        left.append(True)
        assert action(held)
    held = queue.take("c")
    left.append(True)
    assert queue.finish(held)
    assert (
        json.dumps(queue.counts("c")["relax"]) == '{"waiting": 1, "taken": 0, "submitted": 0, "done": 1, "broken": 0}'
    )
