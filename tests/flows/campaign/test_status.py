"""How far a campaign is, from records made by hand and from a campaign that was run."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

from matris.cli.console import rate
from matris.cli.status_view import duration, status_view
from matris.errors import StoreError
from matris.flows.campaign.status import lost_reasons, read_status, status
from matris.flows.queue.queue import WorkQueue
from matris.stores.database.jobstore import open_job_store, sibling_store

if TYPE_CHECKING:
    from pathlib import Path

    from matris.flows.campaign.status import Status

START = datetime(2026, 1, 1)  # noqa: DTZ001 - stores have no zones
RECORD = {
    "campaign_id": "0123456789ab",
    "title": "Screening [oxides]",
    "checkpoint": {"key": "tiny"},
    "reading": False,
    "intake": {"read": 1200, "identical": 100, "known": 50, "dropped": {"sanity": {"atoms too close": 40}}},
}


def item(state: str, *, seconds: float | None = None, start: float = 0.0, **changes: Any) -> dict[str, Any]:
    taken = START + timedelta(seconds=start)
    ended = None if seconds is None else taken + timedelta(seconds=seconds)
    about = {"work_id": "w", "stage": "relax", "n": 100, "cost": 1000.0, "deaths": 0, "error": None}
    return {**about, "state": state, "taken_at": taken, "ended_at": ended, **changes}


def shown(found: Status) -> str:
    console = Console(width=140, record=True, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
    console.print(status_view(found))
    return console.export_text()


def test_counts() -> None:
    items = [item("done", seconds=50, start=100 * n) for n in range(4)]
    items += [item("taken"), item("taken"), *[item("waiting")] * 3]
    items += [item("broken", n=20, error="KeyError: 'x'", deaths=2), item("waiting", stage="phonon", n=7)]
    found = status(RECORD, items, {"exploded": 3})
    relax, phonon = found.stages
    assert relax.chunks == {"waiting": 3, "taken": 2, "done": 4, "broken": 1}
    assert relax.candidates == {"waiting": 300, "taken": 200, "done": 400, "broken": 20}
    assert (found.read, found.identical, found.known) == (1200, 100, 50)
    assert (found.phase, found.broken, found.deaths) == ("running", ["KeyError: 'x'"], 2)
    assert relax.rate == pytest.approx(2 * 100 / 50)
    assert relax.remaining == pytest.approx((3 + 1) * 50 / 2)
    assert (phonon.stage, phonon.rate, phonon.remaining) == ("phonon", None, None)
    text = shown(found)
    for told in ("Screening [oxides]", "1\u202f200 read", "4.0/s", "2 min", "400/920", "40  sanity: atoms too close"):
        assert told in text
    assert "3  exploded" in text
    assert "chunk given up: KeyError: 'x'" in text


def test_finished_candidates_of_a_chunk_in_work_are_counted() -> None:
    items = [item("done", seconds=50), item("taken", finished=40), item("taken"), item("waiting", finished=70)]
    found = status(RECORD, items, {}).stages[0]
    assert found.candidates == {"waiting": 100, "taken": 160, "done": 140, "broken": 0}
    assert found.chunks["done"] == 1
    assert found.remaining == pytest.approx((1 + 0.5 + 0.6) * 50 / 2)  # chunks left, of 50 s each, for two processes
    assert "140/400" in shown(status(RECORD, items, {}))


def test_a_clock_that_jumps_spoils_one_chunk() -> None:
    items = [item("done", seconds=50, start=100 * n) for n in range(5)]
    before = status(RECORD, [*items, item("taken"), item("waiting")], {}).stages[0]
    jumped = [item("done", seconds=86400.0, start=600), item("done", seconds=-3600.0, start=700)]
    after = status(RECORD, [*items, *jumped, item("taken"), item("waiting")], {}).stages[0]
    assert after.rate == before.rate == 2.0
    assert after.remaining == before.remaining == 75.0


def test_dear_chunks_first_do_not_make_the_end_seem_far() -> None:
    dear = [item("done", seconds=200, n=100, cost=4000.0, start=n) for n in range(3)]
    cheap = [item("waiting", n=100, cost=400.0) for _ in range(10)]
    found = status(RECORD, [*dear, item("taken", cost=0.0), *cheap], {}).stages[0]
    assert found.remaining == pytest.approx(200)


@pytest.mark.parametrize(
    ("items", "record", "phase"),
    [
        ([], {}, "finished"),
        ([item("done", seconds=1)], {}, "finished"),
        ([item("waiting")], {}, "waiting"),
        ([item("taken")], {}, "running"),
        ([item("taken")], {"reading": True}, "reading"),
        ([], {"intake": None}, "finished"),
    ],
)
def test_phases(items: list[dict[str, Any]], record: dict[str, Any], phase: str) -> None:
    found = status({**RECORD, **record}, items, {})
    assert found.phase == phase
    assert all(stage.rate is None for stage in found.stages)
    assert found.title in shown(found)


def test_units_of_rate_and_time() -> None:
    assert [rate(each) for each in (None, 0.0, 12.0, 0.5, 0.01)] == ["–", "–", "12.0/s", "30.0/min", "36.0/h"]
    told = [duration(each) for each in (None, 3.0, 600.0, 7200.0, 200_000.0)]
    assert told == ["–", "< 1 min", "10 min", "2.0 h", "2.3 d"]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Two campaigns; of the first a chunk is done, in which two candidates were lost."""
    jobs = open_job_store(tmp_path)
    records = sibling_store(jobs, "campaigns", "campaign_id")
    records.update(
        [{**RECORD, "last_updated": START}, {**RECORD, "campaign_id": "fff", "last_updated": START.replace(year=2020)}]
    )
    queue = WorkQueue(sibling_store(jobs, "work_queue", "work_id"))
    about = {"campaign": RECORD["campaign_id"], "stage": "relax", "cost": 1.0, "n": 4, "payload": {"candidate_ids": []}}
    queue.put([{"work_id": name, **about} for name in ("one", "two")])
    taken = queue.take(RECORD["campaign_id"])
    assert taken is not None
    queue.finish(taken)
    lost = [("failed", "out of memory: 3 GB"), ("max_steps", None), ("converged", None)]
    documents = sibling_store(jobs, "candidates", "document_id")
    documents.update(
        [
            {"document_id": f"{job}{n}", "state": state, "error": error, "job_uuid": job}
            for job in (taken.work_id, "another")
            for n, (state, error) in enumerate(lost)
        ]
        + [{"document_id": "dropped", "state": "rejected", "error": "empty", "job_uuid": None}]
    )
    jobs.close()
    return tmp_path


def test_read_from_a_store(store: Path) -> None:
    found = read_status(store)
    assert found.name == RECORD["campaign_id"]
    assert found.stages[0].chunks == {"waiting": 1, "taken": 0, "done": 1, "broken": 0}
    assert found.lost == {"out of memory": 1, "out of steps": 1}
    assert read_status(store, "ff").name == "fff"
    assert read_status(store, "ff").stages == []
    with pytest.raises(StoreError, match=r"holds no campaign f\*"):
        read_status(store, "f*")


def test_lost_reasons_of_nothing(store: Path) -> None:
    documents = sibling_store(open_job_store(store), "candidates", "document_id")
    assert Counter(lost_reasons(documents, [])) == Counter()


def test_lost_reasons_leave_out_references(store: Path) -> None:
    documents = sibling_store(open_job_store(store), "candidates", "document_id")
    common = {"state": "max_steps", "error": None, "n_steps": 5, "job_uuid": "job"}
    sources = ("a.cif", "b.cif", "elemental reference", "references")
    documents.update([{"document_id": source, "source": source, **common} for source in sources], key="document_id")
    assert lost_reasons(documents, ["job"]) == {"out of steps": 2}


def test_a_campaign_that_stopped_says_why() -> None:
    found = status({**RECORD, "stopped": "the first 20 candidates all failed: no driver"}, [item("done")], {})
    assert found.phase == "stopped"
    assert "no driver" in shown(found)
    assert status({**RECORD, "stopped": None}, [item("done")], {}).phase == "finished"


def test_references_are_counted_apart() -> None:
    intake = RECORD["intake"] | {"references": 4}  # type: ignore[operator]
    assert "1\u202f200 read, 100 identical, 50 known already, 4 competing phases added" in shown(
        status({**RECORD, "intake": intake}, [], {})
    )


def test_a_chunk_that_was_given_up_without_a_reason_says_so() -> None:
    assert status(RECORD, [item("broken", error=None)], {}).broken == ["no reason is known"]
