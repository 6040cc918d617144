"""What is counted of candidates, and in what order they are shown."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import pytest

from matris.stores.report.outcomes import FAILED, SOUND, UNSOUND, Outcomes, kind, lost, lost_at, ranked
from tests.stores.report.campaign_documents import campaign_documents, document
from tests.stores.report.campaign_documents import lost as lost_document


def test_order() -> None:
    documents = [
        document(1, "FeO", 0.3),
        document(2, "Li2O", 0.0),
        document(3, "FeO", 0.0),
        document(4, "O", 0.0, source="elemental reference"),
        document(5, "FeO", 0.0, energy_above_hull=None, hull_state="missing reference: O"),
        lost_document(6, "FeO", state="failed", error="exploded"),
        lost_document(7, "FeO", state="rejected", error="empty"),
    ]
    assert [d["candidate_id"][-1] for d in ranked(documents)] == ["3", "2", "1", "5"]
    assert [d["state"] for d in lost(documents)] == ["rejected", "failed"]


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("overlapping atoms: sites 0 and 1", "overlapping atoms"),
        ("disordered site 3 (Fe:0.5)", "disordered"),
        ("unsupported element U, Pu: the checkpoint", "unsupported element"),
        ("site 2 (O) has a NaN or infinite coordinate", "NaN or infinite coordinate"),
        ("equal to candidate 0123abc", "equal to candidate"),
        ("14 atoms, of which at most 10 are asked for", "N atoms"),
        ("the cell is 1.5e+04 Å long, beyond 1000 Å", "the cell is N Å long"),
        (": strange", ": strange"),
    ],
)
def test_kinds_of_reasons(message: str, expected: str) -> None:
    assert kind(message) == expected


@pytest.mark.parametrize(
    ("candidate", "expected"),
    [
        (document(1, "FeO", 0.1), None),
        (document(1, "FeO", 0.1001), ("hull window", "more than 100 meV/atom above the hull")),
        (document(1, "FeO", -0.2), None),
        (
            document(1, "FeO", 0.0, energy_above_hull=float("nan")),
            ("hull window", "more than 100 meV/atom above the hull"),
        ),
        (
            document(1, "FeO", 0.0, energy_above_hull=None, hull_state="missing reference: O"),
            ("hull window", "no distance: missing reference"),
        ),
        (document(1, "FeO", 0.0, duplicate_of="2"), ("duplicates after relaxing", "equal to another candidate")),
        (
            lost_document(1, "FeO", state="duplicate", error="equal to candidate 3"),
            ("duplicates", "equal to another candidate"),
        ),
        (lost_document(1, "FeO", state="max_steps"), ("not converged", "out of steps")),
        (lost_document(1, "FeO", state="failed", error="out of memory: even alone"), ("failed", "out of memory")),
        (lost_document(1, "FeO", state="rejected", stage=None, error="empty"), ("sanity", "empty")),
        (lost_document(1, "FeO", state="rejected", stage="chemistry", error="no balance"), ("chemistry", "no balance")),
        (lost_document(1, "FeO", state="failed", error=None), ("failed", "no reason recorded")),
    ],
)
def test_where_a_candidate_is_lost(candidate: dict[str, Any], expected: tuple[str, str] | None) -> None:
    assert lost_at(candidate) == expected


def test_without_a_hull_all_that_converged_survives() -> None:
    assert lost_at(document(1, "FeO", 5.0), None) is None
    outcomes = Outcomes.of([document(1, "FeO", 5.0), lost_document(2, "FeO", state="rejected", error="x")], window=None)
    assert outcomes.summary() == "2 read, 1 converged, 1 rejected"


def test_outcomes_add_up() -> None:
    documents = list(campaign_documents(600))
    outcomes = Outcomes.of(documents, {"read": 700, "identical": 60})
    assert (outcomes.documents, outcomes.distinct, outcomes.unfinished) == (600, 640, 40)
    states = Counter(d["state"] for d in documents[3:])
    assert outcomes.converged == states["converged"]
    assert outcomes.lost["duplicates"].total() == states["duplicate"]
    assert sum(kinds.total() for kinds in outcomes.lost.values()) + outcomes.survivors == 600
    survivors = [d for d in documents[3:] if lost_at(d) is None]
    assert outcomes.survivors == len(survivors)
    assert outcomes.stable == sum(d["energy_above_hull"] <= 0 for d in survivors) > 0
    soft = sum(d["phonon"]["has_imaginary_modes"] for d in survivors)
    assert outcomes.verdicts["phonon"] == Counter({SOUND: len(survivors) - soft, UNSOUND: soft})
    assert outcomes.lost["failed"].keys() == {"the cell exploded", "out of memory"}
    summary = outcomes.summary()
    assert summary.startswith(f"700 read, 60 identical, {outcomes.ranked} ranked ({outcomes.stable} on the hull), ")
    assert outcomes.ranked == len(ranked(documents)) < outcomes.converged  # some are duplicates
    read, *others = map(int, re.findall(r"(?<!\()\b\d+", summary))
    assert read == sum(others)
    assert summary.endswith("40 unfinished")


def test_a_property_that_failed_is_no_verdict() -> None:
    broken = document(1, "FeO", 0.0, phonon={"state": "failed", "has_imaginary_modes": None})
    outcomes = Outcomes.of([broken])
    assert outcomes.verdicts == {"phonon": Counter({FAILED: 1}), "elastic": Counter()}


def test_reasons_without_end_are_counted_together() -> None:
    names = [f"{a}{b}" for a in "abcdefghijklmnop" for b in "abcdefghijklmnopqrst"]
    outcomes = Outcomes.of(lost_document(n, "FeO", state="failed", error=name) for n, name in enumerate(names))
    assert outcomes.lost["failed"].total() == len(names) == 320
    assert len(outcomes.lost["failed"]) == 201
    assert outcomes.lost["failed"]["other reasons"] == 120
