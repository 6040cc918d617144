"""matris learn: round by round, and what status and report show."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import torch
from typer.testing import CliRunner

from matris.cli import app
from matris.model.checkpoints import Card, read_file, save
from tests.flows.learning.small_loop import checkpoint_of, screened

if TYPE_CHECKING:
    from pathlib import Path


def run(*arguments: str | Path) -> str:
    result = CliRunner().invoke(app, [str(each) for each in arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """The first campaign of a loop."""
    screened(tmp_path / "store", checkpoint_of(tmp_path / "start.safetensors"))
    return tmp_path / "store"


OPTIONS = ("--labels", "5", "--budget", "5", "--epochs", "5", "--spread", "1")


def test_the_first_call_says_which_candidates_to_calculate(store: Path) -> None:
    shown = run("learn", "--store", store, *OPTIONS)
    assert "Candidates to calculate: 5" in shown
    assert shown.count("element: a corner of the hulls") == 2
    assert "Round 0 waits for labels of its 5 candidates" in shown
    waiting = run("learn", "--store", store, "--format", "csv").splitlines()  # the settings are kept
    assert waiting[0] == "candidate_id,formula,energy_above_hull,source,reasons"
    assert len([line for line in waiting if "near the hull" in line or "corner" in line]) == 5
    listed = json.loads(run("learn", "--store", store, "--format", "json"))
    assert [each["candidate_id"] for each in listed] == [line.split(",")[0] for line in waiting[1:]]
    assert listed[0]["reasons"] == ["element: a corner of the hulls"]
    status = json.loads(run("status", "--store", store, "--format", "json"))
    assert status["rounds"][0]["chosen"] == 5
    assert status["learning"] == ["Round 0 waits for labels of its 5 candidates"]


@pytest.mark.slow
def test_to_the_end_with_another_checkpoint_as_teacher(store: Path) -> None:
    network, card = read_file(store.with_name("start.safetensors"))
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.01)
    teacher = store.with_name("teacher.safetensors")
    save(teacher, network, Card("other", energy_scale="emt", elements=card.elements))
    run("learn", "--store", store, "--teacher", teacher, "--device", "cpu", *OPTIONS)
    status = run("status", "--store", store)
    assert "Rounds of learning" in status
    assert "The loop has ended: the budget of 5 labels is spent" in status
    assert json.loads(run("status", "--store", store, "--format", "json"))["rounds"][0]["labelled"] == 5
    run("report", "--store", store)
    page = (store / "report" / "index.html").read_text(encoding="utf-8")
    assert "<h2>Rounds of learning</h2>" in page
    assert "The loop has ended: the budget of 5 labels is spent" in page


def test_what_cannot_be_learned(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["learn", "--store", str(tmp_path)])
    assert result.exit_code == 1
    assert "Traceback" not in result.output
