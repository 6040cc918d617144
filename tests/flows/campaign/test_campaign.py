from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from pymatgen.core import Lattice, Structure
from pymatgen.entries.computed_entries import ComputedEntry, ComputedStructureEntry

from matris.errors import MatrisError, StoreError
from matris.flows.campaign.campaign import Campaign
from matris.flows.campaign.funnel import Funnel
from matris.flows.local.runner import run
from matris.flows.sources.prototypes import elemental_references
from matris.makers.batch_relax import BatchRelaxMaker
from matris.stores.database.jobstore import local_folder
from matris.stores.documents.candidate import ELEMENTAL_REFERENCE_SOURCE, KNOWN_PHASE_SOURCE, Candidate
from matris.stores.report.outcomes import Outcomes, ranked

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PLAIN = Funnel(sanity=False, duplicates=False)


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
def relax_maker(tiny_checkpoint: Path) -> BatchRelaxMaker:
    return BatchRelaxMaker(checkpoint=str(tiny_checkpoint), device="cpu", max_steps=30, fmax=0.1)


@pytest.fixture
def campaign(relax_maker: BatchRelaxMaker, tmp_path: Path) -> Callable[..., Campaign]:
    def make(funnel: Funnel = PLAIN, **options: Any) -> Campaign:
        return Campaign(tmp_path / "store", relax_maker, funnel, **options)

    return make


def states(campaign: Campaign) -> dict[str, str]:
    return {document["source"]: document["state"] for document in campaign.documents()}


def test_every_candidate_ends_as_a_document(campaign: Callable[..., Campaign], candidates: list[Candidate]) -> None:
    one = campaign(chunk_size=2)
    events: list[dict[str, Any]] = []
    run(one, [*candidates, candidates[0]], (), events.append)
    documents = list(one.documents())
    assert [d["source"] for d in documents][:8] == [c.source for c in candidates]
    assert {d["source"] for d in documents[8:]} == {ELEMENTAL_REFERENCE_SOURCE}
    assert Counter(d["state"] for d in documents[3:8]) == {"rejected": 5}
    assert {d["stage"] for d in documents[3:8]} == {"sanity", "reading"}
    assert all(d["hull_state"] for d in documents)
    record = one.record()
    assert record["intake"]["read"] == 9
    assert record["intake"]["identical"] == 1
    assert record["intake"]["dropped"]["reading"] == {"the file is empty": 1}
    assert sum(event["event"] == "candidate" for event in events) == record["intake"]["queued"] == 6
    assert not list((local_folder(one.location) / "journal").glob("*"))
    assert one.queue.counts(one.name)["relax"]["done"] == 3
    assert one.job_store.count({"name": "candidates"}) == 0


def test_run_again_only_what_is_new_is_computed(campaign: Callable[..., Campaign], candidates: list[Candidate]) -> None:
    run(campaign(), candidates[:2], ())
    before = {d["document_id"]: d for d in campaign().documents()}
    events: list[dict[str, Any]] = []
    again = campaign()
    run(again, candidates[:2], (), events.append)
    assert not [event for event in events if event["event"] == "candidate"]
    assert {d["document_id"]: d for d in again.documents()} == before
    run(again, candidates[:3], (), events.append)
    assert sum(event["event"] == "candidate" for event in events) == 1
    other = campaign(title="another")
    run(other, candidates[1:3], (), events.append)
    assert sum(event["event"] == "candidate" for event in events) == 1
    assert list(states(other))[:2] == ["FeO", "one atom"]


def test_a_wider_funnel_takes_what_a_narrow_one_dropped(
    campaign: Callable[..., Campaign], candidates: list[Candidate]
) -> None:
    run(campaign(Funnel(sanity=False, max_sites=1)), candidates[:3], ())
    assert states(campaign())["MgO"] == "rejected"
    assert states(campaign())["one atom"] in {"converged", "max_steps"}
    run(campaign(), candidates[:3], ())
    assert states(campaign())["MgO"] in {"converged", "max_steps"}


def test_a_campaign_is_found_again(campaign: Callable[..., Campaign], candidates: list[Candidate]) -> None:
    one = campaign(title="first")
    run(one, candidates[:1], ())
    run(campaign(title="second"), candidates[:1], ())
    assert Campaign.open(one.location).title == "second"
    found = Campaign.open(one.location, one.name[:5])
    assert (found.title, found.name, found.maker) == ("first", one.name, one.maker)
    assert list(found.documents()) == list(one.documents())
    with pytest.raises(StoreError, match="no campaign nonsense"):
        Campaign.open(one.location, "nonsense")


def test_against_references(campaign: Callable[..., Campaign], candidates: list[Candidate], tmp_path: Path) -> None:
    entries = [
        ComputedEntry(formula, energy, parameters={"run_type": "GGA", "hubbards": {}}, data={"oxide_type": oxide})
        for formula, energy, oxide in (("Mg", -1.5, "None"), ("O2", -9.8, "None"), ("MgO", -500.0, "oxide"))
    ]
    file = tmp_path / "entries.json"
    file.write_text(json.dumps([entry.as_dict() for entry in entries]))
    one = campaign(references=file)
    run(one, candidates[:2], ())
    magnesia, iron_oxide = one.documents()  # and no elements
    assert magnesia["hull_type"] == "reference"
    assert "entries.json" in magnesia["hull_reference"]
    assert magnesia["energy_above_hull"] > 100
    assert "Fe" in iron_oxide["hull_state"]
    with pytest.raises(MatrisError, match="cannot read"):
        campaign(references=tmp_path / "none.json")


def test_where_files_go(tmp_path: Path) -> None:
    assert local_folder(tmp_path) == tmp_path
    assert str(local_folder(None)) == "matris-results"
    assert str(local_folder("mongodb://host/database")) == "matris-results"


def test_known_phases_compete_and_are_no_discoveries(
    campaign: Callable[..., Campaign], candidates: list[Candidate], tmp_path: Path
) -> None:
    file = tmp_path / "known.json"
    crystals = {"known": rock_salt(4.25, "Mg", "O"), "elsewhere": rock_salt(4.8, "Li", "O")}
    entries = [ComputedStructureEntry(crystal, -9.0, entry_id=name) for name, crystal in crystals.items()]
    file.write_text(json.dumps([entry.as_dict() for entry in entries]))
    one = campaign(known_phases=file)
    run(one, candidates[:1], ())
    documents = list(one.documents())
    assert [d["source"] for d in documents] == [
        "MgO",
        KNOWN_PHASE_SOURCE,
        ELEMENTAL_REFERENCE_SOURCE,
        ELEMENTAL_REFERENCE_SOURCE,
    ]
    assert documents[1]["provenance"]["entry_id"] == "known"
    assert [d["source"] for d in ranked(documents)] in ([], ["MgO"])
    assert Campaign.open(one.location).known_phases == str(file)


def outcomes(campaign: Campaign) -> Outcomes:
    return Outcomes.of(campaign.documents(), campaign.record()["intake"], campaign.funnel.window)


def test_a_candidate_that_is_a_reference_crystal_remains_a_candidate(
    campaign: Callable[..., Campaign], candidates: list[Candidate]
) -> None:
    (reference,) = elemental_references(["Fe"])
    assert reference.structure is not None
    moved = Structure(reference.structure.lattice.matrix * 1.01, ["Fe"], [[0.3, 0.3, 0.3]])
    same = Structure(reference.structure.lattice.matrix, ["Fe"], [[0, 0, 0]])
    mine = [Candidate.from_structure(each, f"{name}.cif") for each, name in ((moved, "moved"), (same, "same"))]
    one = campaign(Funnel(window=1e9), title="iron")
    run(one, [candidates[1], *mine], ())
    documents = {d["source"]: d for d in one.documents()}
    assert not {d["candidate_id"] for d in one.documents() if d["source"] == ELEMENTAL_REFERENCE_SOURCE} & {
        documents[f"{name}.cif"]["candidate_id"] for name in ("moved", "same")
    }
    duplicates = {d["source"]: d["duplicate_of"] for d in documents.values() if d["duplicate_of"]}
    by_id = {d["candidate_id"]: d["source"] for d in documents.values()}
    assert all(by_id[first].endswith(".cif") for first in duplicates.values())
    counts = outcomes(one)
    assert counts.read == 3
    assert counts.distinct == counts.documents == 3


def test_a_candidate_that_another_campaign_computed_as_a_reference_is_a_candidate(
    campaign: Callable[..., Campaign], candidates: list[Candidate]
) -> None:
    oxides = campaign(Funnel(), title="oxides")
    run(oxides, candidates[:2], ())
    (reference,) = elemental_references(["Fe"])
    assert reference.structure is not None
    iron = campaign(Funnel(), title="iron")
    run(iron, [Candidate.from_structure(reference.structure, "iron.cif", block="1")], ())
    (document,) = iron.documents()
    assert (document["source"], document["provenance"]) == ("iron.cif", {"block": "1"})
    assert (outcomes(iron).documents, outcomes(iron).distinct) == (1, 1)
    assert {d["source"] for d in oxides.documents()} == {"MgO", "FeO", ELEMENTAL_REFERENCE_SOURCE}
    assert (outcomes(oxides).documents, outcomes(oxides).distinct) == (2, 2)
    run(oxides, candidates[:2], ())  # again: the store now has the source iron.cif
    assert (outcomes(oxides).documents, outcomes(oxides).distinct) == (2, 2)
    assert oxides.record()["intake"]["known"] == 2


def test_duplicates_before_relaxing_are_the_same_crystal(campaign: Callable[..., Campaign]) -> None:
    primitive = rock_salt(4.2, "Mg", "O")
    distorted = primitive.copy()
    distorted.translate_sites([1], [0.02, 0, 0])
    crystals = {
        "large": primitive * (2, 1, 1),
        "primitive": primitive,
        "distorted": distorted,
        "expanded": rock_salt(4.3, "Mg", "O"),
    }
    for names in (list(crystals), list(reversed(crystals))):
        one = campaign(Funnel(hull=False), title="-".join(names))
        run(one, [Candidate.from_structure(crystals[name], name) for name in names], ())
        found = {d["source"]: d for d in one.documents()}
        dropped = {name for name, d in found.items() if d["state"] == "duplicate"}
        assert len(dropped & {"large", "primitive"}) <= 1
        assert dropped <= {"large", "primitive"}
        assert len(dropped) == one.record()["intake"]["dropped"].get("duplicates", {}).get("equal to candidate", 0)
        ready = [d for d in found.values() if d["state"] == "converged"]
        for d in ready:
            if d["duplicate_of"]:
                first = next(other for other in ready if other["candidate_id"] == d["duplicate_of"])
                assert first["energy_per_atom"] <= d["energy_per_atom"]


@pytest.mark.parametrize("error", ["the cell exploded: 3 steps", "out of memory: 4 atoms are too many for cpu"])
def test_the_twin_of_a_failed_crystal_does_not_vanish(
    campaign: Callable[..., Campaign], monkeypatch: pytest.MonkeyPatch, error: str
) -> None:
    relaxed = BatchRelaxMaker._relax

    def fails(maker: BatchRelaxMaker, structures: list[Structure], potential: Any) -> Any:
        for record in relaxed(maker, structures, potential):
            large = len(structures[record.index]) > 2
            yield replace(record, state="failed", structure=None, energy=None, error=error) if large else record

    monkeypatch.setattr(BatchRelaxMaker, "_relax", fails)
    primitive = rock_salt(4.2, "Mg", "O")
    moved = primitive.copy()
    moved.translate_sites([0, 1], [0.1, 0.2, 0.3])
    crystals = {"large": primitive * (2, 1, 1), "primitive": primitive, "moved": moved}
    inputs = [Candidate.from_structure(crystal, name) for name, crystal in crystals.items()]
    events: list[dict[str, Any]] = []
    for _ in range(2):  # the second run changes nothing
        one = campaign(Funnel(hull=False))
        run(one, inputs, (), events.append)
        found = {d["source"]: d for d in one.documents()}
        if error.startswith("out of memory"):
            assert states(one) == {"large": "failed", "primitive": "converged", "moved": "duplicate"}
            assert found["primitive"]["duplicate_of"] is None
            assert found["moved"]["duplicate_of"] == found["primitive"]["candidate_id"]
            assert outcomes(one).summary() == "3 read, 1 ranked (0 on the hull), 1 duplicates, 1 failed"
        else:
            assert states(one) == {"large": "failed", "primitive": "duplicate", "moved": "duplicate"}
            for name in ("primitive", "moved"):
                reason = f"its representative failed: {error} (candidate {found['large']['candidate_id']})"
                assert found[name]["error"] == reason
                assert found[name]["duplicate_of"] == found["large"]["candidate_id"]
            assert outcomes(one).summary() == "3 read, 0 ranked (0 on the hull), 2 duplicates of failed ones, 1 failed"
            assert one.store.query(state="duplicate").where('error contains "representative failed"').count() == 2
    computed = [event for event in events if event["event"] == "candidate"]
    assert len(computed) == (2 if error.startswith("out of memory") else 1)


def test_the_report_says_which_hull_it_is(campaign: Callable[..., Campaign], candidates: list[Candidate]) -> None:
    one = campaign(Funnel(sanity=False, duplicates=False, complete_hull=False, window=1e9))
    run(one, candidates[:2], ())
    page = one.report(one.location / "report").read_text()
    assert (
        "Hull: the candidates of this campaign, their elements and what else the store has, by the same checkpoint"
        in page
    )
    assert "No compound of another composition competes in" in page
    assert "only the elements compete" in page
