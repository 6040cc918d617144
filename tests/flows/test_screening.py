from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ase.build import bulk, molecule
from jobflow import JobStore, run_locally
from maggma.stores import MemoryStore
from monty.json import MontyDecoder, MontyEncoder
from pymatgen.core import Lattice, Structure

from matris.errors import MatrisError
from matris.flows.campaign.chunks import chunked
from matris.flows.rank_jobs import rank_candidates
from matris.flows.screening import ScreeningFlowMaker, all_candidates, with_elements, without_duplicates
from matris.makers.batch_relax import BatchRelaxMaker
from matris.stores.candidate_store import CandidateStore
from matris.stores.documents.candidate import ELEMENTAL_REFERENCE_SOURCE, Candidate


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
    return BatchRelaxMaker(checkpoint=str(tiny_checkpoint), device="cpu", max_steps=30, fmax=0.1)


def run(flow: Any, store: JobStore, folder: Path) -> dict[str, Any]:
    flow = MontyDecoder().process_decoded(json.loads(json.dumps(flow, cls=MontyEncoder)))
    run_locally(flow, store=store, log=False, ensure_success=True, root_dir=folder)
    ranking: dict[str, Any] = flow.output.resolve(store)
    return ranking


def test_whatever_users_call_candidates(tmp_path: Path) -> None:
    salt = rock_salt(5.6, "Na", "Cl")
    salt.to(filename=str(tmp_path / "salt.cif"))
    rock_salt(4.2, "Mg", "O").to(filename=str(tmp_path / "POSCAR"), fmt="poscar")
    candidate = Candidate.from_structure(salt, "mine")
    many = [bulk("Cu"), salt, tmp_path / "salt.cif", str(tmp_path), "prototypes:Na-Cl?limit=2", candidate]
    found = list(all_candidates(many))
    sources = [
        "structure",
        "structure",
        "salt.cif",
        "POSCAR",
        "salt.cif",
        "A1, Copper type",
        "A2, Tungsten type",
        "mine",
    ]
    assert [Path(each.source).name for each in found] == sources
    assert all(each.error is None for each in found)
    for one in (bulk("Cu"), salt, tmp_path / "salt.cif", str(tmp_path / "POSCAR"), candidate):
        assert len(list(all_candidates(one))) == 1
        assert len(ScreeningFlowMaker(add_elements=False).make(one).jobs) == 2
    (water,) = all_candidates(molecule("H2O"))
    assert "not periodic" in str(water.problem())


@pytest.mark.parametrize(
    ("inputs", "told"),
    [
        ([rock_salt(5.6, "Na", "Cl"), 3], "candidate 1 is an int: give Candidates, pymatgen Structures, ASE Atoms, or"),
        (3, "candidate 0 is an int: give"),
        (rock_salt(5.6, "Na", "Cl").as_dict(), "candidate 0 is a dict: give"),
        ([None], "candidate 0 is a NoneType: give"),
        (["no-such-file.cif"], "no-such-file.cif"),
    ],
    ids=str,
)
def test_what_is_no_candidate_is_one_sentence(inputs: Any, told: str) -> None:
    with pytest.raises(MatrisError, match=told) as error:
        ScreeningFlowMaker().make(inputs)
    assert "\n" not in str(error.value)


def test_flow_ranks_what_converged(
    relax_maker: BatchRelaxMaker, candidates: list[Candidate], job_store: JobStore, tmp_path: Path
) -> None:
    flow = ScreeningFlowMaker(relax_maker=relax_maker, chunk_size=3).make(candidates)
    assert [job.name for job in flow.jobs] == [*(f"batch relax {n}/4" for n in range(1, 5)), "rank"]
    ranking = run(flow, job_store, tmp_path)
    assert ranking["hull_type"] == "self-consistent"
    assert "tiny" in ranking["hull_reference"]
    assert ranking["missing_chunks"] == 0
    assert ranking["counts"] == {"converged": 3, "rejected": 5}  # without the elements
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
        found.append({d["document_id"]: d for d in documents.query(with_references=True)})
    one, other = found
    assert len(one) == 8 + 4  # with the elements; only the job finds that Al is unsupported
    assert one.keys() == other.keys()
    for name, document in one.items():
        assert (document["state"], document["error"]) == (other[name]["state"], other[name]["error"])
        assert document["energy"] == pytest.approx(other[name]["energy"], abs=1e-4)  # batch mates differ


def test_chunks_are_bounded_by_number_bytes_and_cost(candidates: list[Candidate]) -> None:
    def sizes(*bounds: int) -> list[int]:
        chunks = list(chunked(candidates, *bounds))
        assert [each for chunk in chunks for each in chunk] == candidates
        return [len(chunk) for chunk in chunks]

    assert sizes(3) == [3, 3, 2]
    assert sizes(100, 1) == [1] * 8
    assert max(sizes(100, 4000)) <= 4  # each at least 1 kB
    large = Candidate.from_structure(rock_salt(4.2, "Mg", "O").make_supercell(10), "2,000 atoms")
    assert [len(chunk) for chunk in chunked([*candidates[:2], large, candidates[2]], 100)] == [2, 1, 1]
    assert list(chunked([], 3)) == []


def test_survivors_add_their_jobs_to_the_flow(
    relax_maker: BatchRelaxMaker, candidates: list[Candidate], job_store: JobStore, tmp_path: Path
) -> None:
    maker = ScreeningFlowMaker(relax_maker=relax_maker, chunk_size=2, window=1e9, properties=("elastic",))
    ranking = run(maker.make(candidates[:3]), job_store, tmp_path)
    survivors = set(ranking["survivors"])
    assert {candidate.candidate_id for candidate in candidates[:3]} <= survivors
    store = CandidateStore.beside(job_store)
    assert store.build(job_store).n_properties == len(survivors)
    documents = {document["candidate_id"]: document for document in store.query()}
    assert {name for name, document in documents.items() if document["elastic"]} == survivors
    assert all(documents[name]["elastic"]["state"] in {"converged", "max_steps", "failed"} for name in survivors)


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
    assert sum(ranking["counts"].values()) == 2


def test_elements_are_added_once(candidates: list[Candidate]) -> None:
    listed = with_elements(candidates)  # Na is in broken candidates only
    added = [candidate for candidate in listed if candidate.source == ELEMENTAL_REFERENCE_SOURCE]
    assert sorted(c.structure.composition.chemical_system for c in added) == ["Al", "Fe", "Mg", "O"]
    assert with_elements(listed) == listed


def test_the_same_crystal_is_computed_once(
    relax_maker: BatchRelaxMaker, candidates: list[Candidate], job_store: JobStore, tmp_path: Path
) -> None:
    large = Candidate.from_structure(rock_salt(4.2, "Mg", "O") * (2, 1, 1), "large cell")
    distorted = rock_salt(4.2, "Mg", "O")
    distorted.translate_sites([1], [0.02, 0, 0])
    given = [*candidates, large, candidates[0], Candidate.from_structure(distorted, "distorted")]
    kept, dropped = without_duplicates(given)
    assert dropped == {large.candidate_id: candidates[0].candidate_id}
    assert [candidate.source for candidate in kept] == [*(c.source for c in candidates), "distorted"]
    ranking = run(ScreeningFlowMaker(relax_maker=relax_maker).make([candidates[0], large]), job_store, tmp_path)
    assert ranking["counts"] == {"converged": 1, "duplicate": 1}
    assert ranking["duplicates"] == dropped
    assert [entry["source"] for entry in ranking["ranking"]] == ["MgO"]
    flow = ScreeningFlowMaker(relax_maker=relax_maker, duplicates=False).make([candidates[0], large])
    assert len(flow.jobs[0].function_args[0]) == 4  # with the elements


def test_crystals_that_became_equal_are_ranked_once_and_references_take_no_part() -> None:
    crystal = rock_salt(4.2, "Mg", "O")
    checkpoint = {"key": "tiny", "sha256": "0" * 64, "energy_scale": "custom"}
    energies = {"high": -6.0, "low": -6.001, "far": -5.9, "references": -6.002}

    def record(name: str, energy: float) -> dict[str, Any]:
        hull = {"chemsys": "Mg-O", "composition": {"Mg": 1.0, "O": 1.0}, "correction_scheme": "none"}
        hull |= {"energy_per_atom": energy, "uncorrected_energy_per_atom": energy}
        return {"candidate_id": name, "source": name, "state": "converged", "formula": "MgO", "hull": hull}

    chunk = [record(name, energy) for name, energy in energies.items()]
    structures = [{"candidate_id": name, "structure": crystal.as_dict()} for name in energies]
    for order in (1, -1):
        found = rank_candidates.original(
            [chunk[::order]], [checkpoint], [{"digest": "0" * 12}], structures=[structures[::order]]
        )
        assert found["duplicates"] == {"high": "low"}
        assert found["counts"] == {"converged": 2, "duplicate": 1}
        assert {entry["candidate_id"] for entry in found["ranking"]} == {"low", "far"}


def test_duplicates_of_failed_candidates_are_named() -> None:
    record = {"candidate_id": "first", "source": "a", "state": "failed", "formula": "MgO", "hull": None}
    record |= {"error": "the cell exploded"}
    checkpoint = {"key": "tiny", "sha256": "0" * 64, "energy_scale": "custom"}
    dropped = {"twin": "first", "other": "in a missing chunk"}
    found = rank_candidates.original(
        [[record], None], [checkpoint, None], [{"digest": "0" * 12}, None], dropped=dropped
    )
    assert found["counts"] == {"duplicate": 2, "failed": 1}
    assert found["failed_duplicates"] == {"twin": "the cell exploded", "other": "the job of its chunk failed"}
