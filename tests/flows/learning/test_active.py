"""The loop as a flow of jobflow, and as the manager's jobs."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from jobflow import JobStore, run_locally
from maggma.stores import MemoryStore
from monty.json import MontyDecoder, MontyEncoder

from matris.errors import MatrisError
from matris.flows import ActiveCampaignMaker
from matris.makers import BatchStaticMaker
from matris.model.checkpoints import read_file
from tests.flows.learning.small_loop import PLAN, EmtLabelMaker, checkpoint_of

if TYPE_CHECKING:
    from pathlib import Path


def maker(folder: Path, labels: EmtLabelMaker, **plan: Any) -> ActiveCampaignMaker:
    start = checkpoint_of(folder / "start.safetensors")
    return ActiveCampaignMaker(
        relax_maker=BatchStaticMaker(checkpoint=str(start), device="cpu"),
        label_maker=labels,
        plan=replace(PLAN, **plan).to_dict(),
        folder=str(folder / "learning"),
        chunk_size=8,
    )


def ran(made: ActiveCampaignMaker, folder: Path) -> dict[str, Any]:
    """Run the flow as a manager does, which writes and reads it as JSON."""
    flow = made.make("prototypes:Au-Cu?max_sites=6&limit=12")
    flow = MontyDecoder().process_decoded(json.loads(json.dumps(flow, cls=MontyEncoder)))
    store = JobStore(MemoryStore(), additional_stores={"data": MemoryStore()})
    run_locally(flow, store=store, log=False, ensure_success=True, root_dir=folder)
    output: dict[str, Any] = flow.output.resolve(store)
    return output


def test_two_rounds_as_one_flow(tmp_path: Path) -> None:
    output = ran(maker(tmp_path, EmtLabelMaker(), per_round=5, budget=9), tmp_path)
    first, second = output["rounds"]
    assert output["stopped"] == "the budget of 9 labels is spent"
    assert (first["n_labelled"], second["n_labelled"]) == (5, 9)
    trained = first["trained"]
    assert trained["taken"]
    assert second["sha256"] == trained["sha256"]
    assert read_file(tmp_path / "start.safetensors")[1].sha256 == first["sha256"] == trained["parent"]
    roots = [each["root"] for round_ in output["rounds"] for each in round_["chosen"]]
    assert len(set(roots)) == 9
    labelled = [row for row in output["ranking"] if row["dft"] is not None]
    assert {row["root"] for row in labelled} <= set(roots)
    assert labelled
    assert all(row["dft"]["functional"] == "EMT" for row in labelled)
    assert output["ranking"][0]["with_labels"]["hull_reference"].startswith("9 energies from first principles")


def test_a_calculation_that_fails_costs_only_itself(tmp_path: Path) -> None:
    output = ran(maker(tmp_path, EmtLabelMaker(refuses="Cu"), per_round=5, budget=3, learning_rate=30.0), tmp_path)
    only, *_ = output["rounds"]
    assert set(only["failed"].values()) == {"the electronic steps do not converge"}
    assert only["n_labelled"] + len(only["failed"]) == len(only["chosen"])


def test_labels_of_another_scale_end_the_flow_with_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="did not finish"):
        ran(maker(tmp_path, EmtLabelMaker(energy_scale="mp"), per_round=3, budget=3), tmp_path)


def test_what_cannot_begin(tmp_path: Path) -> None:
    with pytest.raises(MatrisError, match="needs a Maker of calculations"):
        ActiveCampaignMaker().make("prototypes:Au-Cu?limit=1")
    with pytest.raises(MatrisError, match="unexpected keyword argument 'colour'"):
        ActiveCampaignMaker(plan={"colour": 3})
    with pytest.raises(MatrisError, match="at least one candidate, not 0"):
        maker(tmp_path, EmtLabelMaker(), per_round=0)
