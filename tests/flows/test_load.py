"""What a large campaign asks of its store: steps read no more than they need, processes do not wait for each other."""

from __future__ import annotations

import threading
import time
import types
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from maggma.stores import MemoryStore
from pymatgen.core import Lattice, Structure

from matris.flows.campaign import intake
from matris.flows.campaign.campaign import Campaign
from matris.flows.campaign.funnel import Funnel
from matris.flows.campaign.intake import take_in
from matris.flows.campaign.status import lost_reasons, read_status
from matris.flows.campaign.survivors import advance, ranking_inputs
from matris.flows.campaign.turns import turn
from matris.flows.local import worker
from matris.flows.local.runner import run
from matris.flows.queue import queue as work_queue
from matris.flows.queue.queue import WorkQueue
from matris.makers.batch_relax import BatchRelaxMaker
from matris.stores.database.sqlite.store import SQLiteStore
from matris.stores.documents.candidate import Candidate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count the documents that embedded stores read, by collection."""
    counts: Counter[str] = Counter()
    read = SQLiteStore._documents

    def counting(store: SQLiteStore, numbers: list[int], *rest: Any) -> Iterator[dict[str, Any]]:
        def counted() -> Iterator[int]:
            for number in numbers:
                counts[store.collection_name] += 1
                yield number

        return read(store, counted(), *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(SQLiteStore, "_documents", counting)
    return counts


@pytest.fixture
def open_campaign(tiny_checkpoint: Path, tmp_path: Path) -> Callable[[], Campaign]:
    maker = BatchRelaxMaker(
        checkpoint=str(tiny_checkpoint), device="cpu", max_steps=0, relax_kwargs={"max_batch_atoms": 100}
    )
    return lambda: Campaign(tmp_path / "store", maker, Funnel(hull=False, duplicates=False), chunk_size=2)


def candidates(n: int) -> list[Candidate]:
    def crystal(i: int) -> Structure:
        return Structure(Lattice.cubic(4.0 + 0.01 * i), ["Mg", "O"], [[0, 0, 0], [0.5] * 3])

    return [Candidate.from_structure(crystal(i), f"{i}.cif") for i in range(n)]


def test_the_documents_of_a_chunk_are_built_without_reading_of_others(
    open_campaign: Callable[[], Campaign], reads: Counter[str]
) -> None:
    campaign = open_campaign()
    run(campaign, candidates(12), ())
    reads.clear()
    last = [item["work_id"] for item in campaign.queue.items(campaign.name)][-1]
    assert reads == {"work_queue": 6}  # in the order of an index
    campaign.store.build(campaign.job_store, [last])
    assert (reads["candidate_chunks"], reads["outputs"]) == (1, 1)


def test_a_supervising_job_reads_outputs_of_its_chunk_only(
    open_campaign: Callable[[], Campaign], reads: Counter[str]
) -> None:
    supervisor = pytest.importorskip("matris.flows.cluster.supervisor", reason="the extra `remote` is not installed")
    campaign = open_campaign()
    run(campaign, candidates(8), ())
    list(take_in(campaign, candidates(14)))
    while campaign.queue.submit(campaign.name, lambda work_id, _: work_id):
        pass
    submitted = campaign.queue.submitted(campaign.name)
    assert [set(item.payload) for item in submitted] == [{"job", "jobs"}] * 3  # and no ids of candidates
    ended = submitted[0].work_id
    states = {item.work_id: {"state": "COMPLETED" if item.work_id == ended else "RUNNING"} for item in submitted}
    cluster = types.SimpleNamespace(unlock=len, jobs=lambda _: states, drop_journals=list)
    reads.clear()
    supervisor._harvest_jobs(campaign, cluster)
    assert reads["outputs"] == 2  # the candidates of the chunk, found and removed: its job has left no output
    assert reads["candidate_chunks"] == 0
    assert campaign.queue.counts(campaign.name)["relax"]["done"] == 5


def test_processes_that_start_at_once_do_not_all_want_the_same_item(monkeypatch: pytest.MonkeyPatch) -> None:
    n, tries, lock = 32, [], threading.Lock()
    set_if = work_queue.set_if

    def slow(*arguments: Any) -> bool:
        tries.append(arguments[1]["work_id"])
        time.sleep(0.02)  # all processes read before the first of them writes
        with lock:
            return set_if(*arguments)

    monkeypatch.setattr(work_queue, "set_if", slow)
    with MemoryStore("work", key="work_id") as store:
        queue = WorkQueue(store)
        about = {"campaign": "c", "stage": "relax", "n": 1, "payload": {}}
        queue.put({"work_id": f"{i}", "cost": float(i), **about} for i in range(2 * n))
        taken: list[str] = []
        take = [threading.Thread(target=lambda: taken.append(str(queue.take("c")))) for _ in range(n)]
        for thread in take:
            thread.start()
        for thread in take:
            thread.join()
        assert len(set(taken)) == n
        assert len(tries) < 5 * n  # n (n + 1) / 2 if one process got an item each time


def test_an_idle_worker_looks_ever_less_often(open_campaign: Callable[[], Campaign]) -> None:
    pauses: list[float] = []

    def is_over(seconds: float) -> bool:
        pauses.append(seconds)
        return len(pauses) == 7

    worker.work(open_campaign(), None, lambda *_, **__: None, is_over)
    assert pauses == pytest.approx([0.3, 0.6, 1.2, 2.4, 4.8, 5.0, 5.0])


def test_a_runner_computes_while_another_one_reads(open_campaign: Callable[[], Campaign]) -> None:
    first, second = open_campaign(), open_campaign()
    list(take_in(first, candidates(4)))
    other = threading.Thread(target=run, args=(second, candidates(4), ()))
    with turn(first, "intake"):
        other.start()
        limit = time.monotonic() + 60
        while first.queue.is_open(first.name) and time.monotonic() < limit:
            time.sleep(0.1)
        assert first.queue.counts(first.name)["relax"]["done"] == 2
        assert other.is_alive()  # it waits to read
    other.join(60)
    assert not other.is_alive()


def test_reading_known_candidates_does_not_keep_workers_waiting(
    open_campaign: Callable[[], Campaign], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "PAGE", 3)
    list(take_in(open_campaign(), candidates(9)))
    calls: list[int] = []
    counts = list(take_in(open_campaign(), candidates(9), lambda: calls.append(1)))
    assert (len(calls), counts[-1].known, counts[-1].queued) == (3, 9, 0)


def test_the_status_reads_what_was_lost_and_not_what_was_dropped(
    open_campaign: Callable[[], Campaign], reads: Counter[str]
) -> None:
    campaign = open_campaign()
    run(campaign, candidates(2), ())
    dropped = [{"document_id": f"{i}", "state": "rejected", "error": "empty", "job_uuid": None} for i in range(40)]
    lost = [{"document_id": f"lost {i}", "state": "failed", "error": "exploded", "job_uuid": "job"} for i in range(2)]
    campaign.store.docs.update([*dropped, *lost], key="document_id")
    reads.clear()
    assert lost_reasons(campaign.store.docs, ["job"]) == {"exploded": 2}
    assert reads["candidates"] == 4  # the two, and the two that ran out of steps
    reads.clear()
    read_status(campaign.location)
    assert reads["candidates"] == 4
    assert reads["work_queue"] == 1


def test_one_of_several_runners_ranks(open_campaign: Callable[[], Campaign], reads: Counter[str]) -> None:
    first, second = open_campaign(), open_campaign()
    before = second.record().get("ranked")
    run(first, candidates(4), ())
    reads.clear()
    assert advance(second, ranking_inputs(second), before) == {}
    assert reads["candidates"] == 0

    run(second, candidates(4), ())  # a run on its own ranks
    assert reads["candidates"] > 0
    list(take_in(first, candidates(6)))
    while (item := first.queue.take(first.name)) is not None:
        first.queue.finish(item)
    reads.clear()
    advance(second, ranking_inputs(second), before)  # so does one that knows of more results
    assert reads["candidates"] > 0
