"""Faults of a campaign in one process; `benchmarks/torture.py` kills processes."""

from __future__ import annotations

import errno
import itertools
import os
import threading
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from pymatgen.core import Lattice, Structure

from matris.errors import DeviceError, MatrisError
from matris.flows.campaign.campaign import Campaign
from matris.flows.campaign.funnel import Funnel
from matris.flows.campaign.status import read_status
from matris.flows.local import worker
from matris.flows.local.runner import run
from matris.makers.batch_relax import BatchRelaxMaker
from matris.makers.failing_alike import FAILED_ALIKE
from matris.relaxation.journal import Journal
from matris.stores.documents.candidate import Candidate
from matris.torchsim import MatRISTorchSimModel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from matris.relaxation.records import RelaxRecord

N = 6


@pytest.fixture
def candidates() -> list[Candidate]:
    return [
        Candidate.from_structure(
            Structure(Lattice.cubic(3 + number / 10), ["Mg", "O"], [[0] * 3, [0.5] * 3]), f"cell {number}"
        )
        for number in range(N)
    ]


@pytest.fixture
def campaign(tiny_checkpoint: Path, tmp_path: Path) -> Callable[[], Campaign]:
    def make() -> Campaign:
        maker = BatchRelaxMaker(checkpoint=str(tiny_checkpoint), device="cpu", max_steps=2)
        return Campaign(tmp_path / "store", maker, Funnel(sanity=False, duplicates=False, hull=False), chunk_size=1)

    return make


def test_two_runners_share_the_work(campaign: Callable[[], Campaign], candidates: list[Candidate]) -> None:
    told: dict[int, list[dict[str, Any]]] = {0: [], 1: []}
    failures: list[BaseException] = []
    opened = [campaign(), campaign()]
    together = threading.Barrier(2)

    def runner(number: int) -> None:
        try:
            together.wait()
            run(opened[number], candidates, (), told[number].append)
        except BaseException as error:  # noqa: BLE001 - shown by the test
            failures.append(error)

    threads = [threading.Thread(target=runner, args=(number,)) for number in told]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    done = Counter(each["work_id"] for events in told.values() for each in events if each["event"] == "done")
    assert len(done) == N
    assert set(done.values()) == {1}
    documents = list(opened[0].store.docs.query({}))
    assert sorted(each["source"] for each in documents) == [f"cell {number}" for number in range(N)]
    assert all(each["job_uuid"] for each in documents)


def test_a_broken_device_ends_the_run_and_no_structure_failed(
    campaign: Callable[[], Campaign], candidates: list[Candidate], monkeypatch: pytest.MonkeyPatch
) -> None:
    computed, calls = MatRISTorchSimModel.forward, Counter()

    def forward(model: MatRISTorchSimModel, state: Any) -> Any:
        calls["all"] += 1
        if calls["all"] > 7:  # three steps of a candidate: it breaks in the third
            raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")
        return computed(model, state)

    monkeypatch.setattr(worker, "_PAUSES", (0.0, 0.0, 0.0))
    monkeypatch.setattr(MatRISTorchSimModel, "forward", forward)
    with pytest.raises(DeviceError, match="known crystal of"):
        run(campaign(), candidates, ())
    monkeypatch.setattr(MatRISTorchSimModel, "forward", computed)
    again = campaign()
    assert {each["state"] for each in again.store.docs.query({})} <= {"converged", "max_steps"}
    run(again, candidates, ())
    documents = list(again.store.docs.query({}))
    assert len(documents) == N
    assert {each["state"] for each in documents} <= {"converged", "max_steps"}


def test_a_full_disk_ends_the_run_and_loses_nothing(
    campaign: Callable[[], Campaign], candidates: list[Candidate], monkeypatch: pytest.MonkeyPatch
) -> None:
    written = Journal._write
    lines = Counter()

    def write(journal: Journal, line: bytes) -> None:
        lines["all"] += 1
        if lines["all"] > 5:  # a header and a record each: the third chunk has no room for its record
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written(journal, line)

    one = campaign()
    monkeypatch.setattr(Journal, "_write", write)
    with pytest.raises(OSError, match="No space left"):
        run(one, candidates, ())
    assert Counter(item["state"] for item in one.queue.items(one.name)) == {"done": 2, "waiting": 1}
    monkeypatch.setattr(Journal, "_write", written)
    told: list[dict[str, Any]] = []
    again = campaign()
    run(again, candidates, (), told.append)
    assert sum(each["event"] == "candidate" for each in told) == N - 2
    assert len(list(again.documents())) == N


def many(n: int) -> list[Candidate]:
    cells = (Structure(Lattice.cubic(3 + number / 100), ["Mg", "O"], [[0] * 3, [0.5] * 3]) for number in range(n))
    return [Candidate.from_structure(cell, f"cell {number}") for number, cell in enumerate(cells)]


def broken(monkeypatch: pytest.MonkeyPatch, works: Callable[[int], bool]) -> None:
    """Let the results of a relaxation fail alike, except those of which `works` is true of their numbers."""
    original = BatchRelaxMaker._relax
    numbers = itertools.count()

    def relax(maker: BatchRelaxMaker, structures: Any, potential: Any) -> Iterator[RelaxRecord]:
        for record in original(maker, structures, potential):
            failed = replace(record, state="failed", error=f"the driver is too old: {id(record)}", structure=None)
            yield record if works(next(numbers)) else failed

    monkeypatch.setattr(BatchRelaxMaker, "_relax", relax)


@pytest.mark.parametrize("chunk_size", [1, 7, 100])
def test_a_campaign_whose_first_candidates_fail_alike_stops_and_keeps_none(
    campaign: Callable[..., Campaign], monkeypatch: pytest.MonkeyPatch, chunk_size: int
) -> None:
    inputs = many(FAILED_ALIKE + 9)
    opened = campaign()
    opened.chunk_size = chunk_size
    events: list[dict[str, Any]] = []
    with monkeypatch.context() as patch:
        broken(patch, lambda _: False)
        with pytest.raises(MatrisError, match=f"the first {FAILED_ALIKE} candidates all failed.*driver.*--keep-going"):
            run(opened, inputs, (), events.append)
    assert sum(event["event"] == "candidate" for event in events) == FAILED_ALIKE
    assert "driver" in (read_status(opened.location).stopped or "")
    assert read_status(opened.location).phase == "stopped"
    again = campaign()
    again.chunk_size = chunk_size
    run(again, inputs, ())
    assert read_status(opened.location).phase == "finished"
    documents = list(again.documents())
    assert len(documents) == len(inputs)
    assert Counter(document["state"] for document in documents)["failed"] == 0
    assert all(document["error"] is None for document in documents if document["state"] == "converged")


def test_failures_do_not_stop_a_campaign_that_goes_on_or_had_a_result(
    campaign: Callable[..., Campaign], monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = many(FAILED_ALIKE + 3)
    with monkeypatch.context() as patch:
        broken(patch, lambda number: number == 5)
        run(campaign(), inputs, ())
    assert Counter(d["state"] == "failed" for d in campaign().documents()) == {True: FAILED_ALIKE + 2, False: 1}


def test_keep_going_computes_all(campaign: Callable[..., Campaign], monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = many(FAILED_ALIKE + 3)
    broken(monkeypatch, lambda _: False)
    run(campaign(), inputs, (), keep_going=True)
    assert Counter(d["state"] for d in campaign().documents()) == {"failed": FAILED_ALIKE + 3}
