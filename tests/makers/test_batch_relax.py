from __future__ import annotations

import json
import logging
import socket
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from jobflow import JobStore, run_locally
from maggma.stores import MemoryStore
from monty.json import MontyDecoder, MontyEncoder
from pymatgen.core import Lattice, Structure

from matris.makers.batch import provenance
from matris.makers.batch_relax import BatchRelaxMaker, BatchStaticMaker
from matris.makers.failing_alike import FAILED_ALIKE, FailedAlikeError, failed_alike
from matris.model.potential import Potential, load
from matris.relaxation.records import RelaxRecord
from matris.relaxation.relax import engine_of
from matris.stores.documents.candidate import Candidate
from matris.stores.documents.documents import ChunkDocument, unwind
from matris.structures import content_id
from matris.units import GPA

if TYPE_CHECKING:
    from pathlib import Path


def rock_salt(a: float, cation: str = "Na", anion: str = "Cl") -> Structure:
    return Structure(
        Lattice([[0, a / 2, a / 2], [a / 2, 0, a / 2], [a / 2, a / 2, 0]]), [cation, anion], [[0, 0, 0], [0.5] * 3]
    )


@pytest.fixture
def job_store() -> JobStore:
    return JobStore(MemoryStore(), additional_stores={"data": MemoryStore()})


def run(maker: BatchRelaxMaker, candidates: list, store: JobStore, folder: Path) -> dict:
    job = maker.make(candidates)
    job = MontyDecoder().process_decoded(json.loads(json.dumps(job, cls=MontyEncoder)))  # as it travels to a worker
    run_locally(job, store=store, log=False, raise_immediately=True, root_dir=folder)
    return store.query_one({"uuid": job.uuid}, load=False)["output"]


@pytest.fixture
def mixed() -> list:
    overlapping = Structure(Lattice.cubic(4), ["Na", "Cl"], [[0, 0, 0], [0.01, 0, 0]])
    return [
        Candidate.from_structure(rock_salt(5.6), "good.cif", batch=1),
        Candidate.unreadable("empty.cif", "the file is empty", b""),
        Candidate.from_structure(overlapping, "overlap.cif"),
        rock_salt(5.0, "U", "O"),
        rock_salt(4.3, "Mg", "O"),
    ]


def test_each_candidate_has_its_record_in_order(
    tiny_checkpoint: Path, job_store: JobStore, tmp_path: Path, mixed: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    maker = BatchRelaxMaker(checkpoint=str(tiny_checkpoint), device="cpu", max_steps=3, fmax=1e-6, tags=["t"])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    output = run(maker, mixed, job_store, tmp_path)
    records = output["records"]
    assert [record["state"] for record in records] == ["max_steps", "rejected", "rejected", "rejected", "max_steps"]
    assert records[1]["error"] == "the file is empty"
    assert "overlapping" in records[2]["error"]
    assert "U" in records[3]["error"]
    assert [record["source"] for record in records] == [
        "good.cif",
        "empty.cif",
        "overlap.cif",
        "structure",
        "structure",
    ]
    assert records[0]["provenance"] == {"batch": 1, "tags": ["t"]}
    assert records[4]["candidate_id"] == content_id(rock_salt(4.3, "Mg", "O"))
    assert records[0]["n_steps"] == 3
    assert output["checkpoint"]["key"] == "tiny"
    assert output["settings"] == maker.tag().model_dump()
    assert output["settings"]["digest"] == maker.settings().digest()
    assert (output["device"], output["dtype"]) == ("cpu", "float32")
    assert output["versions"]["torch"]
    assert output["ran_on"] == {"host": socket.gethostname(), "visible_devices": "2,3", "scheduler_job": "17"}
    assert output["started"] <= output["created"]


def test_arrays_go_to_the_data_store(tiny_checkpoint: Path, job_store: JobStore, tmp_path: Path, mixed: list) -> None:
    output = run(
        BatchRelaxMaker(checkpoint=str(tiny_checkpoint), device="cpu", max_steps=2), mixed, job_store, tmp_path
    )
    assert "blob_uuid" in output["structures"]
    loaded = job_store.query_one({}, load=True)["output"]
    chunk = ChunkDocument.model_validate(loaded)
    assert np.shape(chunk.structures[0].forces) == (2, 3)
    assert np.shape(chunk.structures[0].stress) == (3, 3)
    assert np.shape(chunk.structures[0].magmoms) == (2,)
    assert Structure.from_dict(chunk.structures[4].structure).composition.reduced_formula == "MgO"
    assert chunk.structures[1].structure is None
    energy = chunk.records[0].energy
    assert energy is not None
    assert np.isfinite(energy)


def test_a_second_run_reads_the_journal(
    tiny_checkpoint: Path,
    job_store: JobStore,
    tmp_path: Path,
    mixed: list,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    journals = tmp_path / "journals"
    maker = BatchRelaxMaker(checkpoint=str(tiny_checkpoint), device="cpu", max_steps=2, journal_dir=str(journals))
    first = run(maker, mixed, job_store, tmp_path)
    assert len(list(journals.glob("*.jsonl"))) == 1

    def no_computing(*_: object) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr("matris.model.potential.Potential.evaluate", no_computing)
    with caplog.at_level(logging.INFO, logger="matris.makers.batch_relax"):
        second = run(maker, mixed, job_store, tmp_path)
    assert second["records"] == first["records"]
    announced = [entry.record for entry in caplog.records if hasattr(entry, "record")]
    assert sorted(record.source for record in announced) == sorted(record["source"] for record in first["records"])


def test_empty_chunk(tiny_checkpoint: Path, job_store: JobStore, tmp_path: Path) -> None:
    output = run(BatchRelaxMaker(checkpoint=str(tiny_checkpoint), device="cpu"), [], job_store, tmp_path)
    assert output["records"] == []


def test_static_evaluates_candidates_as_they_are(
    tiny_checkpoint: Path, job_store: JobStore, tmp_path: Path, mixed: list
) -> None:
    output = run(BatchStaticMaker(checkpoint=str(tiny_checkpoint), device="cpu"), mixed, job_store, tmp_path)
    assert [r["state"] for r in output["records"]] == ["converged", "rejected", "rejected", "rejected", "converged"]
    assert (output["settings"]["max_steps"], output["settings"]["relax_cell"]) == (0, False)
    loaded = job_store.query_one({}, load=True)["output"]
    (expected,) = load(str(tiny_checkpoint), device="cpu").predict([rock_salt(5.6)])
    assert output["records"][0]["energy"] == pytest.approx(expected.energy, abs=1e-5)
    assert np.array(loaded["structures"][0]["stress"]) == pytest.approx(expected.stress, abs=1e-6)
    assert Structure.from_dict(loaded["structures"][0]["structure"]).matches(rock_salt(5.6))


def test_a_cheap_relaxation_comes_first(tiny_checkpoint, tmp_path, monkeypatch):
    cell = rock_salt(4.8, "Na", "O").make_supercell([2, 1, 1], in_place=False).perturb(0.1, seed=3)
    candidates = [Candidate.from_structure(cell, "MgO"), Candidate.unreadable("empty.cif", "empty", b"")]
    common = {"checkpoint": str(tiny_checkpoint), "device": "cpu"}
    plain = BatchRelaxMaker(**common, max_steps=300, fmax=0.05, journal_dir=str(tmp_path / "plain"))
    first = BatchRelaxMaker(**common, max_steps=300, fmax=0.05)
    cascade = replace(plain, first=first, journal_dir=str(tmp_path / "cascade"))
    alone, after = (maker.make.original(maker, candidates) for maker in (plain, cascade))
    assert alone.records[0].first_steps is None
    assert after.records[0].first_steps == alone.records[0].n_steps > 0
    assert after.records[0].n_steps < alone.records[0].n_steps
    assert after.records[0].energy == pytest.approx(alone.records[0].energy, abs=1e-3)
    assert after.structures[0].initial_structure == alone.structures[0].initial_structure
    assert after.records[1].state == "rejected"
    assert after.settings.digest != alone.settings.digest
    assert after.settings.first["sha256"] == after.checkpoint.sha256
    again = MontyDecoder().process_decoded(json.loads(json.dumps(cascade, cls=MontyEncoder)))
    assert again.tag() == cascade.tag()
    monkeypatch.setattr("matris.model.potential.Potential.evaluate", None)  # all is in the journals
    assert cascade.make.original(cascade, candidates).records[0].energy == after.records[0].energy


def test_energies_of_relaxed_crystals_in_double_precision(tiny_checkpoint, tmp_path):
    cell = rock_salt(4.8, "Na", "O").make_supercell([2, 1, 1], in_place=False).perturb(0.1, seed=3)
    candidates = [Candidate.from_structure(cell, "NaO"), Candidate.from_structure(rock_salt(5.6), "NaCl")]
    common = {"checkpoint": str(tiny_checkpoint), "device": "cpu", "journal_dir": str(tmp_path)}
    relax = BatchRelaxMaker(**common, max_steps=20, optimizer="fire", fmax=0.05)
    cheap = replace(relax, max_steps=3)
    static = BatchStaticMaker(**common, dtype="float64", first=replace(relax, first=cheap))
    relaxed, evaluated = (maker.make.original(maker, candidates) for maker in (replace(relax, first=cheap), static))
    assert evaluated.dtype == "float64" != relaxed.dtype
    assert [record.state for record in evaluated.records] == [record.state for record in relaxed.records]
    assert "max_steps" in [record.state for record in evaluated.records]
    for one, other, structure in zip(evaluated.records, relaxed.records, relaxed.structures, strict=True):
        assert (one.n_steps, one.first_steps) == (0, other.n_steps)
        (expected,) = load(str(tiny_checkpoint), device="cpu", dtype="float64").predict(
            [Structure.from_dict(structure.structure)]
        )
        assert one.energy == pytest.approx(expected.energy, abs=1e-9)
        assert one.energy != other.energy
        assert one.energy == pytest.approx(other.energy, abs=1e-3)  # random weights step at a cutoff
    assert evaluated.settings.first["first"]["max_steps"] == 3
    assert len({maker.tag().digest for maker in (relax, replace(relax, first=cheap), static)}) == 3


def test_what_does_not_relax_has_no_energy_afterwards(tiny_checkpoint, tmp_path, monkeypatch):
    common = {"checkpoint": str(tiny_checkpoint), "device": "cpu", "journal_dir": str(tmp_path)}
    static = BatchStaticMaker(**common, first=BatchRelaxMaker(**common))
    lost = RelaxRecord(0, "0" * 20, "failed", error="the cell exploded", n_steps=7)
    original = BatchRelaxMaker._relax
    monkeypatch.setattr(
        BatchRelaxMaker,
        "_relax",
        lambda maker, *given: original(maker, *given) if isinstance(maker, BatchStaticMaker) else iter([lost]),
    )
    (record,) = static.make.original(static, [rock_salt(5.6)]).records
    assert (record.state, record.error, record.energy, record.n_steps) == ("failed", "the cell exploded", None, 7)


def failing(maker, structures, potential):
    for record in RELAX(maker, structures, potential):
        yield replace(record, state="failed", error=f"the driver is too old: {record.index}", structure=None)


RELAX = BatchRelaxMaker._relax


def test_a_job_whose_first_candidates_fail_alike_stops_and_keeps_none(tiny_checkpoint, tmp_path, monkeypatch):
    cells = [Structure(Lattice.cubic(3 + n / 100), ["Mg", "O"], [[0] * 3, [0.5] * 3]) for n in range(FAILED_ALIKE + 5)]
    maker = BatchRelaxMaker(checkpoint=str(tiny_checkpoint), device="cpu", max_steps=1, journal_dir=str(tmp_path))
    rejected = Structure(Lattice.cubic(3), ["U"], [[0, 0, 0]])  # no element of the checkpoint: it says nothing
    with monkeypatch.context() as patch:
        patch.setattr(BatchRelaxMaker, "_relax", failing)
        with pytest.raises(FailedAlikeError, match=r"first 20 candidates all failed.*too old.*keep_going=True"):
            maker.make.original(maker, [cells[0], rejected, *cells[1:]])
        few = maker.make.original(maker, cells[: FAILED_ALIKE - 1])
        assert {record.state for record in few.records} == {"failed"}
        all_of_them = replace(maker, keep_going=True)
        chunk = all_of_them.make.original(all_of_them, cells)
        assert [record.state for record in chunk.records] == ["failed"] * len(cells)
    for file in tmp_path.glob("*"):
        file.unlink()
    with monkeypatch.context() as patch:
        patch.setattr(BatchRelaxMaker, "_relax", failing)
        with pytest.raises(FailedAlikeError):
            maker.make.original(maker, cells)
    assert not list(tmp_path.glob("*.jsonl"))
    again = maker.make.original(maker, cells)  # nothing of the stopped job remains
    assert "failed" not in {record.state for record in again.records}


@pytest.mark.parametrize(
    ("states", "stops"),
    [
        ("fff", True),
        ("ff", False),
        ("f.ff", False),  # the second one may still succeed
        ("fff.", True),
        ("fffc", False),
        ("ffm", False),
        ("rffrf", True),
        ("ffg", False),  # another reason
        ("", False),
    ],
)
def test_only_failures_of_one_kind_stop(states, stops):
    meaning = {"f": ("failed", "too old: 1"), "g": ("failed", "exploded"), "c": ("converged", None), ".": None}
    meaning |= {"r": ("rejected", "no element"), "m": ("max_steps", None)}
    assert (failed_alike([meaning[each] for each in states], limit=3) is not None) == stops


@pytest.mark.parametrize("static", [False, True])
def test_structures_under_pressure_have_an_enthalpy(tiny_checkpoint, tmp_path, static):
    common = {"checkpoint": str(tiny_checkpoint), "device": "cpu", "journal_dir": str(tmp_path)}
    relax = BatchRelaxMaker(**common, max_steps=1, pressure=20)
    maker = BatchStaticMaker(**common, first=relax) if static else relax
    chunk = maker.make.original(maker, [rock_salt(5.6)])
    ((document, arrays),) = unwind(chunk)
    volume = Structure.from_dict(arrays.structure).volume
    assert document.pressure == 20.0
    assert document.enthalpy_per_atom - document.energy_per_atom == pytest.approx(20 / GPA * volume / document.nsites)
    assert relax.tag().pressure == 20.0
    assert relax.tag().digest != replace(relax, pressure=0.0).tag().digest
    assert replace(relax, optimizer="fire").tag().digest != relax.tag().digest
    assert (relax.tag().optimizer, replace(relax, optimizer="fire").tag().optimizer) == ("lbfgs", "fire")


@pytest.mark.parametrize(
    ("precision", "tiled", "name"),
    [
        ("bf16x3", False, "float32"),  # on a CPU it has no effect
        (None, True, "float32"),
        ("ieee", True, "float32"),
        ("tf32x3", True, "float32"),
        ("bf16x3", True, "float32-bf16x3"),
    ],
)
def test_journals_and_documents_name_fewer_digits_than_float32(precision, tiled, name, tiny_checkpoint, monkeypatch):
    loaded = load(tiny_checkpoint, device="cpu")
    potential = Potential(loaded.network, loaded.card, precision)
    monkeypatch.setattr(Potential, "tiled", tiled)
    assert provenance(potential)["dtype"] == name
    assert engine_of(potential).dtype == name
    assert BatchRelaxMaker().journal(potential).name.endswith(f"-{name}.jsonl")
