"""Molecular dynamics as a job: one document per material, through real stores, with its trajectory."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import ase.io
import numpy as np
import pytest
from jobflow import run_locally
from monty.json import MontyDecoder, MontyEncoder
from pymatgen.core import Lattice, Structure

from matris.makers import BatchMDMaker
from matris.model.potential import load
from matris.properties.dynamics import DynamicsSettings, dynamics
from matris.stores.documents.candidate import Candidate
from matris.stores.documents.properties import DynamicsDocument

if TYPE_CHECKING:
    from pathlib import Path

    from jobflow import JobStore

MGO = Structure(Lattice.cubic(4.2), ["Mg", "O"], [[0, 0, 0], [0.5] * 3])
SI = Structure(Lattice([[0, 2.73, 2.73], [2.73, 0, 2.73], [2.73, 2.73, 0]]), ["Si", "Si"], [[0, 0, 0], [0.25] * 3])
CANDIDATES = [
    Candidate.from_structure(MGO, "MgO.cif"),
    Candidate.unreadable("empty.cif", "the file is empty", b""),
    Candidate.from_structure(Structure(Lattice.cubic(4), ["Xe", "Xe"], [[0, 0, 0], [0.5] * 3]), "Xe.cif"),
    SI,
]


def test_md(store: JobStore, tmp_path: Path, tiny_checkpoint: Path) -> None:
    maker = BatchMDMaker(
        checkpoint=str(tiny_checkpoint),
        device="cpu",
        ensemble="nve",
        temperature=50,
        time_step=0.5,
        n_steps=12,
        interval=4,
        seed=3,
        trajectory_dir=str(tmp_path / "trajectories"),
    )
    job = maker.make(CANDIDATES)
    job = MontyDecoder().process_decoded(json.loads(json.dumps(job, cls=MontyEncoder)))  # as it travels to a worker
    run_locally(job, store=store, log=False, raise_immediately=True, root_dir=tmp_path)
    small = store.query_one({"uuid": job.uuid}, load=False)["output"]["documents"]
    whole = store.query_one({"uuid": job.uuid}, load=True)["output"]["documents"]

    assert [d["state"] for d in small] == ["completed", "failed", "failed", "completed"]
    assert [d["formula_pretty"] for d in small] == ["MgO", None, "Xe", "Si"]
    assert small[1]["error"] == "the file is empty"
    assert "Xe" in small[2]["error"]
    assert all("time" not in (d["series"] or {}) for d in small)  # but a reference to it
    assert all("lattice" not in (d["structure"] or {}) for d in small)
    assert all("pairs" not in (d["radial_distribution"] or {}) for d in small)
    assert list(whole[0]["radial_distribution"]["pairs"]) == ["Mg-Mg", "Mg-O", "O-O"]
    assert all(len(json.dumps(d, default=str)) < 10_000 for d in small)

    settings = DynamicsSettings(ensemble="nve", temperature=50, time_step=0.5, n_steps=12, interval=4, seed=maker.seed)
    potential = load(str(tiny_checkpoint), device="cpu")
    for document, structure in ((whole[0], MGO), (whole[3], SI)):
        decoded = DynamicsDocument.model_validate(json.loads(json.dumps(document, cls=MontyEncoder)))
        assert decoded.dtype == "float32"
        assert decoded.settings["seed"] == 3
        assert "trajectory_dir" not in decoded.settings
        assert decoded.n_steps == 12
        assert decoded.n_frames == len(decoded.series["time"]) == 4
        assert decoded.mean_temperature == pytest.approx(np.mean(decoded.series["temperature"][2:]))
        (direct,) = dynamics([structure], potential, settings=settings)
        assert decoded.series["temperature"] == pytest.approx(direct.series.temperature.tolist(), rel=1e-3)
        assert decoded.volume == pytest.approx(structure.volume, rel=1e-5)
        frames = ase.io.read(decoded.trajectory, ":")
        assert [frame.info["step"] for frame in frames] == [0, 4, 8, 12]
        final = Structure.from_dict(document["structure"])
        assert frames[-1].positions == pytest.approx(final.cart_coords, abs=1e-4)


def test_settings_are_checked() -> None:
    assert BatchMDMaker(temperature=600, interval=7).settings() == DynamicsSettings(temperature=600, interval=7)
    with pytest.raises(ValueError, match="give a trajectory_dir"):
        BatchMDMaker(hdf5=True).settings()
    with pytest.raises(ValueError, match="temperature"):
        BatchMDMaker(temperature=-1).settings()
