from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from jobflow import JobStore, run_locally
from maggma.stores import MemoryStore
from monty.json import MontyDecoder, MontyEncoder
from pymatgen.core import Lattice, Structure
from pymatgen.entries.computed_entries import ComputedEntry

from matris.errors import MatrisError
from matris.flows.campaign import Campaign, Intake, local_folder
from matris.flows.screening import ScreeningFlowMaker, with_elements
from matris.makers.batch_relax import BatchRelaxMaker
from matris.relaxation import relax
from matris.stores.candidate_store import CandidateStore
from matris.stores.candidates import Candidate
from matris.stores.prototypes import REFERENCE_SOURCE

if TYPE_CHECKING:
    from pathlib import Path


def rock_salt(a: float, cation: str, anion: str) -> Structure:
    vectors = [[0, a / 2, a / 2], [a / 2, 0, a / 2], [a / 2, a / 2, 0]]
    return Structure(Lattice(vectors), [cation, anion], [[0, 0, 0], [0.5] * 3])


@pytest.fixture
def candidates() -> list[Candidate]:
    return [
        Candidate.from_structure(rock_salt(4.2, "Mg", "O"), "MgO"),
        Candidate.from_structure(rock_salt(4.3, "Fe", "O"), "FeO"),
        Candidate.from_structure(Structure(Lattice.cubic(3), ["Fe"], [[0, 0, 0]]), "one atom"),
        Candidate.from_structure(Structure(Lattice.cubic(4), [{"Na": 0.5, "Mg": 0.5}], [[0, 0, 0]]), "disordered"),
        Candidate.from_structure(Structure(Lattice.cubic(4), ["Na", "Na"], [[0, 0, 0], [0, 0, 0.01]]), "overlapping"),
        Candidate.from_structure(rock_salt(5, "Al", "O"), "unknown element"),
        Candidate.from_structure(Structure(Lattice.cubic(4), ["Na"], [[float("nan"), 0, 0]]), "NaN"),
        Candidate.unreadable("empty.cif", "the file is empty", b""),
    ]


@pytest.fixture
def job_store() -> JobStore:
    return JobStore(MemoryStore(), additional_stores={"data": MemoryStore()})


@pytest.fixture
def relax_maker(tiny_checkpoint: Path) -> BatchRelaxMaker:
    return BatchRelaxMaker(checkpoint=str(tiny_checkpoint), device="cpu", steps=30, relax_kwargs={"fmax": 0.1})


def run(flow: Any, store: JobStore, folder: Path) -> dict[str, Any]:
    flow = MontyDecoder().process_decoded(json.loads(json.dumps(flow, cls=MontyEncoder)))
    run_locally(flow, store=store, log=False, ensure_success=True, root_dir=folder)
    ranking: dict[str, Any] = flow.output.resolve(store)
    return ranking


def test_flow_ranks_what_converged(
    relax_maker: BatchRelaxMaker, candidates: list[Candidate], job_store: JobStore, tmp_path: Path
) -> None:
    flow = ScreeningFlowMaker(relax_maker=relax_maker, chunk_size=3).make(candidates)
    assert [job.name for job in flow.jobs] == [*(f"batch relax {n}/4" for n in range(1, 5)), "rank"]
    ranking = run(flow, job_store, tmp_path)
    assert ranking["hull_type"] == "self-consistent"
    assert "tiny" in ranking["hull_reference"]
    assert ranking["missing_chunks"] == 0
    assert ranking["counts"]["read"] == 8
    assert ranking["counts"]["sound"] == 3
    listed = ranking["ranking"]
    assert {entry["source"] for entry in listed} == {"MgO", "FeO", "one atom"}
    distances = [entry["energy_above_hull"] for entry in listed]
    assert None not in distances
    assert distances == sorted(distances)
    assert min(distances) >= 0


def test_flow_documents_equal_those_of_one_chunk(
    relax_maker: BatchRelaxMaker, candidates: list[Candidate], tmp_path: Path
) -> None:
    found = []
    for size in (2, 100):
        store = JobStore(MemoryStore(), additional_stores={"data": MemoryStore()})
        relax_maker.journal_dir = str(tmp_path / str(size))
        run(ScreeningFlowMaker(relax_maker=relax_maker, chunk_size=size).make(candidates), store, tmp_path)
        documents = CandidateStore.beside(store)
        documents.build(store)
        found.append({d["document_id"]: d for d in documents.query()})
    one, other = found
    assert len(one) == 8 + 4  # elements of sound candidates; only the job knows that Al is unknown
    assert one.keys() == other.keys()
    for name, document in one.items():
        assert (document["state"], document["error"]) == (other[name]["state"], other[name]["error"])
        assert document["energy"] == pytest.approx(other[name]["energy"], abs=1e-4)  # batch mates differ


def test_chunks_are_bounded_by_bytes(candidates: list[Candidate]) -> None:
    maker = ScreeningFlowMaker(chunk_size=100, max_chunk_bytes=2500)
    chunks = list(maker._chunks(candidates))
    assert len(chunks) > 1
    assert all(len(json.dumps(chunk, cls=MontyEncoder)) < 2500 + 2 * len(chunk) for chunk in chunks if len(chunk) > 1)
    assert [item["candidate_id"] for chunk in chunks for item in chunk] == [c.candidate_id for c in candidates]


def test_a_broken_chunk_does_not_cost_the_ranking(
    relax_maker: BatchRelaxMaker,
    candidates: list[Candidate],
    job_store: JobStore,
    tmp_path: Path,
) -> None:
    flow = ScreeningFlowMaker(relax_maker=relax_maker, chunk_size=2, add_elements=False).make(candidates[:4])
    flow.jobs[1].function_args = ([{"nonsense": 1}],)
    run_locally(flow, store=job_store, log=False, root_dir=tmp_path)
    ranking = flow.output.resolve(job_store)
    assert ranking["missing_chunks"] == 1
    assert ranking["counts"]["read"] == 2


def test_elements_are_added_once(candidates: list[Candidate]) -> None:
    listed = with_elements(candidates, known=["Fe", "Mg", "O", "Na"])  # Na is in broken candidates only
    added = [candidate for candidate in listed if candidate.source == REFERENCE_SOURCE]
    assert sorted(c.structure.composition.chemical_system for c in added) == ["Fe", "Mg", "O"]
    assert with_elements(listed, known=["Fe", "Mg", "O", "Na"]) == listed


def test_campaign_computes_only_what_is_missing(
    relax_maker: BatchRelaxMaker, candidates: list[Candidate], tmp_path: Path
) -> None:
    store = tmp_path / "store"
    first = Campaign(Intake.of([*candidates[:2], candidates[0]]), store, relax_maker)
    assert first.intake.n_read == 3
    first.compete_with(None)
    assert len(first.pending()) == 2 + 3
    first.compute(first.pending())
    first.rank()
    assert first.pending() == []
    assert not list((store / "journal").iterdir())
    assert [d["source"] for d in first.documents()][:2] == ["MgO", "FeO"]
    assert all(d["hull_state"] == "ok" for d in first.documents() if d["state"] == "converged")
    second = Campaign(Intake.of(candidates), store, relax_maker)
    second.compete_with(None)
    assert {c.source for c in second.pending()} - {REFERENCE_SOURCE} == {c.source for c in candidates[2:]}
    page = first.report(tmp_path / "report", "test")
    assert len(list((page.parent / "structures").glob("*.cif"))) == 2
    written = first.write_structures(tmp_path / "relaxed")
    assert (tmp_path / "relaxed" / "MgO.cif") in written.values()


def test_a_job_killed_while_it_stored_is_computed_again(
    relax_maker: BatchRelaxMaker, candidates: list[Candidate], tmp_path: Path
) -> None:
    campaign = Campaign(Intake.of(candidates[:2]), tmp_path / "store", relax_maker)
    flow = ScreeningFlowMaker(relax_maker=relax_maker, add_elements=False).make(candidates[:2])
    run_locally(flow, store=campaign.job_store, log=False, ensure_success=True, root_dir=tmp_path)
    campaign.job_store.additional_stores["data"].remove_docs({})
    assert len(campaign.pending()) == 2
    campaign.compute(campaign.pending())
    assert campaign.pending() == []


def test_the_journal_of_another_campaign_is_kept(
    relax_maker: BatchRelaxMaker, candidates: list[Candidate], tmp_path: Path
) -> None:
    interrupted = Campaign(Intake.of(candidates[:1]), tmp_path / "store", relax_maker)
    journal = relax_maker.journal(interrupted.potential)
    list(relax([candidates[0].structure], interrupted.potential, fmax=0.1, max_steps=30, journal=journal))
    other = Campaign(Intake.of(candidates[1:2]), tmp_path / "store", relax_maker)
    other.compute(other.pending())
    assert journal.exists()
    interrupted.compute(interrupted.pending())
    assert not journal.exists()


def test_campaign_against_references(relax_maker: BatchRelaxMaker, candidates: list[Candidate], tmp_path: Path) -> None:
    entries = [
        ComputedEntry(formula, energy, parameters={"run_type": "GGA", "hubbards": {}}, data={"oxide_type": oxide})
        for formula, energy, oxide in (("Mg", -1.5, "None"), ("O2", -9.8, "None"), ("MgO", -500.0, "oxide"))
    ]
    file = tmp_path / "entries.json"
    file.write_text(json.dumps([entry.as_dict() for entry in entries]))
    campaign = Campaign(Intake.of(candidates[:2]), tmp_path / "store", relax_maker)
    campaign.compete_with(file)
    assert len(campaign.pending()) == 2  # no elements are computed
    campaign.compute(campaign.pending())
    campaign.rank()
    magnesia, iron_oxide = campaign.documents()
    assert magnesia["hull_type"] == "reference"
    assert "entries.json" in magnesia["hull_reference"]
    assert magnesia["energy_above_hull"] > 100
    assert "Fe" in iron_oxide["hull_state"]
    assert "entries.json" in campaign.report(tmp_path / "report", "test").read_text(encoding="utf-8")
    with pytest.raises(MatrisError, match="cannot read"):
        campaign.compete_with(tmp_path / "none.json")


def test_where_files_go(tmp_path: Path) -> None:
    assert local_folder(tmp_path) == tmp_path
    assert str(local_folder(None)) == "matris-results"
    assert str(local_folder("mongodb://host/database")) == "matris-results"
