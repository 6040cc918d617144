"""Every Maker's job, as it travels to a worker and back, through every kind of store."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from jobflow import JobStore, run_locally
from maggma.stores import MemoryStore
from monty.json import MontyDecoder, MontyEncoder
from pymatgen.core import Lattice, Structure
from pymatgen.entries.computed_entries import ComputedEntry

from matris import makers

if TYPE_CHECKING:
    from pathlib import Path

MGO = Structure(Lattice([[0, 2.13, 2.13], [2.13, 0, 2.13], [2.13, 2.13, 0]]), ["Mg", "O"], [[0, 0, 0], [0.5] * 3])
FEW = {"fmax": 0.5, "max_steps": 2}
COMPETING = [json.dumps(ComputedEntry(symbol, 0.0).as_dict()) for symbol in ("Mg", "O")]
SETTINGS: dict[str, dict[str, Any]] = {
    "RelaxMaker": {"steps": 2},
    "StaticMaker": {},
    "BatchRelaxMaker": {"max_steps": 2},
    "BatchStaticMaker": {},
    "BatchDiffusionMaker": {"temperatures": [100, 200], "n_steps": 2, "interval": 1},
    "BatchDefectsMaker": FEW | {"kinds": ("vacancy",), "min_length": 3.0, "competing": COMPETING, "references": "ions"},
    "BatchElasticMaker": FEW | {"strains": (-0.01, 0.01)},
    "BatchEosMaker": FEW,
    "BatchKappaMaker": FEW | {"min_length": 3.0, "min_length_fc3": 3.0, "mesh": 10.0},
    "BatchMDMaker": {"n_steps": 2, "interval": 1},
    "BatchNebMaker": FEW | {"end": [[0, 0, 0.05], [0.5, 0.5, 0.5]], "n_images": 1},
    "BatchPhononMaker": FEW | {"min_length": 3.0},
    "BatchQhaMaker": FEW | {"min_length": 3.0},
    "BatchSurfacesMaker": FEW | {"min_slab": 7.0, "min_vacuum": 6.0},
}
CHANGING = {
    "created",
    "started",
    "seconds",
    "dir_name",
    "journal_dir",
    "uuid",
    "last_updated",
    "elapsed_time",
    "completed_at",
}


def plain(content: Any) -> Any:
    """JSON without the fields that differ from run to run."""
    if isinstance(content, dict):
        return {key: plain(value) for key, value in content.items() if key not in CHANGING}
    return [plain(value) for value in content] if isinstance(content, list) else content


def output(job: Any, store: JobStore, folder: Path) -> Any:
    folder.mkdir()
    run_locally(job, store=store, log=False, raise_immediately=True, root_dir=folder)
    return plain(json.loads(json.dumps(store.query_one({"uuid": job.uuid}, load=True)["output"], cls=MontyEncoder)))


def test_every_maker_is_here():
    assert {*SETTINGS, "LabelMaker"} == set(makers.__all__)  # first principles, see test_label


@pytest.mark.parametrize("name", SETTINGS)
def test_serialised_and_stored_it_gives_the_same(
    name: str, store: JobStore, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    if name == "BatchKappaMaker":
        pytest.importorskip("phono3py", reason="needs the extra kappa")
    if name == "BatchDefectsMaker":
        pytest.importorskip("pymatgen.analysis.defects", reason="needs the extra defects")
    maker = getattr(makers, name)(checkpoint=str(tiny_checkpoint), device="cpu", **SETTINGS[name])
    batch = name.startswith("Batch")
    direct = output(
        maker.make([MGO] if batch else MGO),
        JobStore(MemoryStore(), additional_stores={"data": MemoryStore()}),
        tmp_path / "direct",
    )
    sent = json.dumps(maker, cls=MontyEncoder)
    travelled = MontyDecoder().process_decoded(json.loads(sent))
    assert json.dumps(travelled, cls=MontyEncoder) == sent
    job = travelled.make([MGO] if batch else MGO)
    job = MontyDecoder().process_decoded(json.loads(json.dumps(job, cls=MontyEncoder)))
    stored = output(job, store, tmp_path / "stored")
    assert json.dumps(stored, sort_keys=True) == json.dumps(direct, sort_keys=True)
    assert "energ" in json.dumps(direct)
