"""Diffusion as a job: one document per material, through real stores, with the charges of the input."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from jobflow import run_locally
from monty.json import MontyDecoder, MontyEncoder
from pymatgen.core import Lattice, Structure

from matris.makers import BatchDiffusionMaker
from matris.stores.documents.candidate import Candidate
from matris.stores.documents.properties import DiffusionDocument

if TYPE_CHECKING:
    from pathlib import Path

    from jobflow import JobStore

CHARGED = Structure(Lattice.cubic(4.2), ["Mg3+", "O3-"], [[0, 0, 0], [0.5] * 3])
CANDIDATES = [
    Candidate.from_structure(CHARGED, "MgO.cif"),
    Candidate.from_structure(CHARGED.copy().remove_oxidation_states() * (2, 1, 1), "MgO-2.cif"),
    Candidate.unreadable("empty.cif", "the file is empty", b""),
    Candidate.from_structure(Structure(Lattice.cubic(4), ["Xe", "Xe"], [[0, 0, 0], [0.5] * 3]), "Xe.cif"),
]


def test_diffusion(store: JobStore, tmp_path: Path, tiny_checkpoint: Path) -> None:
    maker = BatchDiffusionMaker(
        checkpoint=str(tiny_checkpoint), device="cpu", temperatures=[60, 40], time_step=0.5, n_steps=40, interval=1
    )
    job = maker.make(CANDIDATES)
    job = MontyDecoder().process_decoded(json.loads(json.dumps(job, cls=MontyEncoder)))  # as it travels to a worker
    run_locally(job, store=store, log=False, raise_immediately=True, root_dir=tmp_path)
    small = store.query_one({"uuid": job.uuid}, load=False)["output"]["documents"]
    whole = store.query_one({"uuid": job.uuid}, load=True)["output"]["documents"]

    assert [d["state"] for d in small] == ["completed", "completed", "failed", "failed"]
    assert small[2]["error"] == "the file is empty"
    assert "Xe" in small[3]["error"]
    assert all(len(json.dumps(d, default=str)) < 10_000 for d in small)
    document = DiffusionDocument.model_validate(json.loads(json.dumps(whole[0], cls=MontyEncoder)))
    assert (document.charges, document.charges_from) == ({"Mg": 3, "O": -3}, "input")
    assert whole[1]["charges_from"] == "composition"
    assert [run.temperature for run in document.runs] == [40, 60]
    assert [len(moved["errors"]["Mg"]) for moved in document.displacements] == [3, 3]
    for run in document.runs:
        assert run.mean_volume == pytest.approx(4.2**3, rel=1e-5)
        assert run.conductivity is None
        assert run.diffusion["O"].problem
    assert document.arrhenius["O"].problem
    assert not document.is_reliable
    assert any("O at 60 K: " in warning for warning in document.warnings)


def test_settings_are_checked() -> None:
    assert BatchDiffusionMaker(temperatures=[800, 600]).settings().temperature == 600
    with pytest.raises(ValueError, match="twice"):
        BatchDiffusionMaker(temperatures=[600, 600]).settings()
    with pytest.raises(ValueError, match="charge of Li"):
        BatchDiffusionMaker(charges={"Li": float("inf")}).settings()
