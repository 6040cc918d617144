"""Competing phases that a campaign adds, and what it says about those that lack."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Self

import pytest
from pymatgen.core import Composition, Lattice, Structure
from pymatgen.entries.computed_entries import ComputedEntry

from matris.errors import MatrisError
from matris.flows.campaign.campaign import Campaign
from matris.flows.campaign.chunks import kept_candidate_ids
from matris.flows.campaign.competing import competing_prototypes, hull_remarks, systems_to_complete
from matris.flows.campaign.funnel import Funnel
from matris.flows.campaign.intake import take_in
from matris.flows.campaign.mp_references import largest_systems
from matris.flows.campaign.survivors import _replace_references, replaced_references
from matris.makers.batch_relax import BatchRelaxMaker
from matris.stores import CandidateStore
from matris.stores.documents.candidate import COMPETING_PROTOTYPE_SOURCE, REFERENCE_SOURCES, Candidate
from matris.stores.documents.corrections import mp_parameters
from matris.stores.hull.hull import hull_results
from matris.stores.hull.references import load_references

if TYPE_CHECKING:
    from pathlib import Path


def rock_salt(a: float, cation: str, anion: str) -> Structure:
    vectors = [[0, a / 2, a / 2], [a / 2, 0, a / 2], [a / 2, a / 2, 0]]
    return Structure(Lattice(vectors), [cation, anion], [[0, 0, 0], [0.5] * 3])


MGO = Candidate.from_structure(rock_salt(4.2, "Mg", "O"), "MgO.cif")


@pytest.fixture
def relax_maker(tiny_checkpoint: Path) -> BatchRelaxMaker:
    return BatchRelaxMaker(checkpoint=str(tiny_checkpoint), device="cpu", max_steps=1)


def queued(campaign: Campaign, candidates: list[Candidate]) -> list[str]:
    """Sources of the candidates that a campaign queues."""
    for _ in take_in(campaign, candidates):
        pass
    items = campaign.queue.open_items(campaign.name, "relax")
    return list(kept_candidate_ids(campaign.job_store, [item["work_id"] for item in items]))


def test_few_chemical_systems_are_completed_many_only_if_asked() -> None:
    metals = "Li Na K Rb Cs Be Mg Ca Sr Ba Sc Y La Ti Zr Hf V Nb Ta Cr Mo".split()  # noqa: SIM905
    many = {"-".join(sorted([metal, "O"])) for metal in metals}
    assert systems_to_complete(many, None) == []
    assert len(systems_to_complete(many, True)) == 21
    assert systems_to_complete(set(list(many)[:20]), None) == sorted(list(many)[:20])
    assert systems_to_complete({"Mg"}, True) == []
    assert largest_systems({"Mg", "Mg-O", "Fe"}) == ["Fe", "Mg-O"]


def test_competing_prototypes_are_no_candidates_of_the_campaign() -> None:
    prototypes = list(competing_prototypes({"Mg-O", "Mg"}, None))
    assert len(prototypes) > 3
    assert {p.source for p in prototypes} == {COMPETING_PROTOTYPE_SOURCE}
    assert COMPETING_PROTOTYPE_SOURCE in REFERENCE_SOURCES
    assert {p.structure.composition.chemical_system for p in prototypes if p.structure} == {"Mg-O"}


@pytest.mark.parametrize("choice", [True, None, False])
def test_a_campaign_on_files_computes_them(choice: bool | None, relax_maker: BatchRelaxMaker, tmp_path: Path) -> None:
    campaign = Campaign(tmp_path / "store", relax_maker, Funnel(complete_hull=choice))
    ids = queued(campaign, [MGO])
    prototypes = {p.candidate_id for p in competing_prototypes({"Mg-O"}, True)}
    assert MGO.candidate_id in ids
    assert bool(prototypes & set(ids)) is (choice is not False)
    assert campaign.record()["intake"]["read"] == 1
    assert Campaign.open(tmp_path / "store").funnel.complete_hull is choice


def document(**changes: Any) -> dict[str, Any]:
    return {
        "state": "converged",
        "source": "a.cif",
        "formula_pretty": "MgO",
        "hull_state": "ok",
        "hull_type": "self-consistent",
        "only_elements_compete": True,
        "hull_lacks": ["Mg-O"],
        **changes,
    }


def test_remarks_tell_which_hull_and_what_it_lacks() -> None:
    prototype = document(source=COMPETING_PROTOTYPE_SOURCE)
    other = document(formula_pretty="BaTiO3", only_elements_compete=False, hull_lacks=["Ba-Ti"])
    hull, alone, lacking = hull_remarks([document(), prototype, other])
    assert "1 compounds from prototypes" in hull
    assert "1 of 2 candidates" in alone
    assert "MgO" in alone
    assert "BaTiO3" not in alone
    assert "Ba-Ti, Mg-O" in lacking
    assert "--competitors" not in lacking  # it was given
    assert "--competitors" in hull_remarks([document()])[2]
    assert len(hull_remarks([document(only_elements_compete=False, hull_lacks=[])])) == 1
    undecided = hull_remarks([document(only_elements_compete=False, hull_lacks=[], correction_state="undecided")])
    assert "corrections of 1 candidates are undecided" in undecided[1]
    assert hull_remarks([document(hull_state="missing reference: O")]) == []


class Client:
    """Stub of mp_api.client.MPRester."""

    db_version = "2025_09_25"
    asked: list[list[str]] = []  # noqa: RUF012

    def __init__(self, key: str = "") -> None:
        self.key = key

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def get_entries_in_chemsys(self, elements: list[str], **_: Any) -> list[ComputedEntry]:
        self.asked.append(elements)
        energies = {"Mg": -1.6, "O2": -9.9, "MgO": -12.0, "Fe": -8.4, "NaCl": -6.8, "Na": -1.3, "Cl": -1.8}
        entries = []
        for formula, energy in energies.items():
            composition = Composition(formula)
            if composition.chemical_system_set <= set(elements):
                parameters = mp_parameters(composition)
                data = {"oxide_type": "oxide"}
                entries.append(
                    ComputedEntry(formula, energy, parameters=parameters, data=data, entry_id=f"mp-{formula}")
                )
        return entries


@pytest.fixture
def materials_project(monkeypatch: pytest.MonkeyPatch) -> type[Client]:
    stub: Any = type(sys)("mp_api.client")
    stub.MPRester = Client
    monkeypatch.setitem(sys.modules, "mp_api", type(sys)("mp_api"))
    monkeypatch.setitem(sys.modules, "mp_api.client", stub)
    monkeypatch.setenv("MP_API_KEY", "secret")
    monkeypatch.setattr(Client, "asked", [])
    return Client


def test_references_are_fetched_once_and_kept(
    relax_maker: BatchRelaxMaker, tmp_path: Path, materials_project: type[Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign = Campaign(tmp_path / "store", relax_maker, references="mp")
    assert campaign.references is None
    assert len(queued(campaign, [MGO])) == 1  # neither elements nor prototypes are computed
    assert materials_project.asked == [["Mg", "O"]]
    assert campaign.references is not None
    assert {entry.entry_id for entry in campaign.references.entries} == {"mp-Mg", "mp-O2", "mp-MgO"}
    monkeypatch.delenv("MP_API_KEY")  # from now on the file serves
    again = Campaign.open(tmp_path / "store")
    assert again.references is not None
    assert again.references.sha256 == campaign.references.sha256
    queued(again, [MGO])
    assert len(materials_project.asked) == 1
    monkeypatch.setenv("MP_API_KEY", "secret")
    queued(again, [MGO, Candidate.from_structure(rock_salt(5.6, "Na", "Cl"), "NaCl.cif")])
    assert materials_project.asked[1:] == [["Cl", "Na"], ["Mg", "O"]]
    (kept,) = (tmp_path / "store").glob("references-mp-*.json.gz")
    assert len(load_references(kept, "mp").entries) == 6


def test_without_key_client_or_network_the_error_says_the_way_out(
    relax_maker: BatchRelaxMaker, tmp_path: Path, materials_project: type[Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: Any, **__: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(materials_project, "get_entries_in_chemsys", unreachable)
    with pytest.raises(MatrisError, match=r"cannot be reached.*no route to host.*another machine"):
        queued(Campaign(tmp_path / "store", relax_maker, references="mp"), [MGO])
    monkeypatch.delenv("MP_API_KEY")
    with pytest.raises(MatrisError, match="set MP_API_KEY"):
        Campaign(tmp_path / "other", relax_maker, references="mp")
    monkeypatch.setitem(sys.modules, "mp_api.client", None)
    with pytest.raises(MatrisError, match="pip install"):
        Campaign(tmp_path / "third", relax_maker, references="mp")


def test_a_candidate_takes_the_place_of_its_twin_among_the_references(tmp_path: Path) -> None:
    """Otherwise it lies above itself by what two relaxations of one crystal differ."""
    common = {"checkpoint": {"key": "demo", "sha256": "0" * 64, "energy_scale": "matpes-pbe"}}
    common |= {"settings": {"digest": "0" * 12}, "state": "converged", "correction_scheme": None}

    def stored(name: str, source: str, composition: dict[str, float], energy: float) -> dict[str, Any]:
        chemsys, formula = "-".join(sorted(composition)), Composition(composition).reduced_formula
        keys = {"document_id": name, "candidate_id": f"candidate {name}", "source": source, "chemsys": chemsys}
        return {**common, **keys, "composition": composition, "formula_pretty": formula, "energy_per_atom": energy}

    documents = [
        stored("mg", "elemental reference", {"Mg": 1}, -1.0),
        stored("o", "elemental reference", {"O": 2}, -2.0),
        stored("mine", "MgO.cif", {"Mg": 1, "O": 1}, -4.0),
        stored("twin", COMPETING_PROTOTYPE_SOURCE, {"Mg": 1, "O": 1}, -4.0004),
        stored("other", COMPETING_PROTOTYPE_SOURCE, {"Mg": 1, "O": 1}, -3.9995),
        stored("far", COMPETING_PROTOTYPE_SOURCE, {"Mg": 1, "O": 1}, -3.9),
    ]
    cubic = MGO.structure
    assert cubic is not None
    crystals = dict.fromkeys(["mine", "twin", "far"], cubic)
    crystals["other"] = Structure(cubic.lattice, cubic.species, [[0, 0, 0], [0.25, 0.25, 0.25]])
    before = hull_results(documents)
    assert before["mine"].energy_above_hull == pytest.approx(0.0004)
    replaced = replaced_references(documents, crystals.get)
    assert replaced == {"twin": "candidate mine"}
    after = hull_results([{**d, "duplicate_of": replaced.get(d["document_id"])} for d in documents])
    assert after["mine"].is_stable
    assert after["other"].energy_above_hull == pytest.approx(0.0005)
    assert after["twin"].hull_state == "the same crystal as candidate candidate mine"
    assert after["twin"].energy_above_hull is None

    store = CandidateStore.open(tmp_path / "store")
    store.docs.update(documents, key="document_id")
    store.update_hulls()
    store.set_fields({"twin": {"duplicate_of": "candidate mine", "hull_reference": None}})
    store.update_hulls()  # only of the systems that changed
    places = {d["document_id"]: d["energy_above_hull"] for d in store.docs.query({})}
    assert places["mine"] == 0
    assert places["twin"] is None


def test_a_mark_stays_off_what_another_campaign_ranks() -> None:
    """The store holds one document of a crystal that is a reference here and a candidate there."""
    row = {"state": "converged", "formula_pretty": "MgO", "energy_per_atom": -4.0}
    here = [
        {"document_id": "mine", "candidate_id": "a", "source": "a.cif", **row},
        {"document_id": "twin", "candidate_id": "b", "source": COMPETING_PROTOTYPE_SOURCE, **row},
        {"document_id": "theirs", "candidate_id": "c", "source": COMPETING_PROTOTYPE_SOURCE, **row},
    ]
    stored = {"twin": COMPETING_PROTOTYPE_SOURCE, "theirs": "c.cif"}
    changes: dict[str, Any] = {}
    store = SimpleNamespace(
        structure=lambda _: MGO.structure,
        documents=lambda names, _: [{"document_id": name, "source": stored[name]} for name in names],
        set_fields=changes.update,
    )
    campaign: Any = SimpleNamespace(documents=lambda _: iter(here), store=store)
    _replace_references(campaign)
    assert changes == {"twin": {"duplicate_of": "a", "hull_reference": None}}
