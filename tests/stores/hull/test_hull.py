"""Hulls calculated by hand, and Li–Fe–O of the Materials Project."""

from pathlib import Path

import pytest
from pymatgen.analysis.phase_diagram import PhaseDiagram
from pymatgen.core import Composition
from pymatgen.entries.computed_entries import ComputedEntry

from matris.errors import MatrisError
from matris.stores.hull.hull import hull_results
from matris.stores.hull.references import References, load_references, references_from_documents

LI_FE_O = Path(__file__).parents[4] / "shared/data/li_fe_o_entries.json.gz"


def document(identity, formula, energy_per_atom, **other):
    composition = Composition(formula)
    return {
        "document_id": identity,
        "state": "converged",
        "chemsys": composition.chemical_system,
        "composition": composition.get_el_amt_dict(),
        "energy_per_atom": energy_per_atom,
        "correction_scheme": "none",
        "checkpoint": {"key": "demo", "sha256": "a" * 64, "energy_scale": "matpes-pbe"},
        "settings": {"digest": "0123456789ab"},
        **other,
    }


# A–B with A at -1 and B at -2 eV/atom: the line between them is -1.5 at AB.
LI_CL = [
    document("li", "Li", -1.0),
    document("li high", "Li2", -0.9),
    document("cl", "Cl2", -2.0),
    document("licl", "LiCl", -2.5),  # formation energy -1.0: on the hull
    document("licl high", "Li2Cl2", -2.3),
    document("li3cl", "Li3Cl", -1.5),  # tie line Li–LiCl at x = 1/4: (-1.0 - 2.5) / 2 = -1.75, so 0.25 above
]


def test_a_binary_hull_calculated_by_hand():
    results = hull_results(LI_CL)
    assert {r.hull_state for r in results.values()} == {"ok"}
    assert {r.hull_type for r in results.values()} == {"self-consistent"}
    assert results["li"].hull_reference == "demo (matpes-pbe, sha256 aaaaaaaaaaaa, settings 0123456789ab)"
    above = {i: r.energy_above_hull for i, r in results.items()}
    assert above == pytest.approx({"li": 0, "li high": 0.1, "cl": 0, "licl": 0, "licl high": 0.2, "li3cl": 0.25})
    formation = {i: r.formation_energy_per_atom for i, r in results.items()}
    expected = {"li": 0, "li high": 0.1, "cl": 0, "licl": -1.0, "licl high": -0.8, "li3cl": -1.5 - (-1.25)}
    assert formation == pytest.approx(expected)
    assert {i for i, r in results.items() if r.is_stable} == {"li", "cl", "licl"}
    assert results["licl"].decomposes_to == []
    assert results["licl high"].decomposes_to == [{"formula": "LiCl", "amount": 1.0, "document_id": "licl"}]
    assert results["li3cl"].decomposes_to == [
        {"formula": "Li", "amount": pytest.approx(0.5), "document_id": "li"},
        {"formula": "LiCl", "amount": pytest.approx(0.5), "document_id": "licl"},
    ]


def test_a_missing_element_is_a_state_without_numbers():
    results = hull_results([d for d in LI_CL if d["document_id"] != "cl"])
    assert results["licl"].hull_state == "missing reference: Cl"
    assert results["licl"].energy_above_hull is None
    assert results["licl"].formation_energy_per_atom is None
    assert results["licl"].decomposes_to is None
    assert results["li high"].energy_above_hull == pytest.approx(0.1)  # lithium contains no Cl
    assert hull_results([document("x", "FeCl", -1.0)])["x"].hull_state == "missing reference: Cl, Fe"


@pytest.mark.parametrize(
    ("change", "state"),
    [
        ({"state": "max_steps"}, "not converged: max_steps"),
        ({"state": "failed", "energy_per_atom": None}, "not converged: failed"),
        ({"state": "rejected", "energy_per_atom": None, "chemsys": None}, "not converged: rejected"),
        ({"energy_per_atom": None, "correction_scheme": "omat24 is not supported"}, "no comparable energy: omat24"),
    ],
)
def test_what_is_not_converged_or_not_comparable_takes_no_part(change, state):
    results = hull_results([*LI_CL, document("low", "LiCl", -9.0) | change])
    assert results["low"].hull_state.startswith(state)
    assert results["low"].energy_above_hull is None
    assert results["licl"].energy_above_hull == 0


def references(scale="matpes-pbe"):
    entries = [("Li", -1.0), ("Cl2", -2.0), ("LiCl", -2.5), ("Li3Cl", -1.0)]
    computed = [ComputedEntry(f, e * Composition(f).num_atoms, entry_id=f"ref-{f}") for f, e in entries]
    return References("toy", scale, tuple(computed), date="2025-01-31")


def test_a_candidate_may_lie_below_a_reference_hull():
    candidates = [document("new", "Li3Cl", -2.0), document("old", "LiCl", -2.5), document("high", "LiCl", -2.4)]
    results = hull_results(candidates, references())
    assert results["new"].energy_above_hull == pytest.approx(-0.25)  # the tie line Li–LiCl is at -1.75
    assert results["new"].is_stable
    assert [p["entry_id"] for p in results["new"].decomposes_to] == ["ref-Li", "ref-LiCl"]
    assert results["old"].energy_above_hull == 0
    assert results["old"].is_stable
    assert results["high"].energy_above_hull == pytest.approx(0.1)
    assert not results["high"].is_stable
    assert {(r.hull_type, r.hull_reference) for r in results.values()} == {("reference", references().label)}
    assert references().label.startswith("toy (matpes-pbe, 2025-01-31, sha256 ")
    assert hull_results([document("x", "LiF", -3.0)], references())["x"].hull_state == "missing reference: F"


def test_mixed_energy_scales_and_checkpoints_are_errors():
    with pytest.raises(MatrisError, match="corrected for the energy scale 'mp'"):
        hull_results(LI_CL, references("mp"))
    other = document("x", "LiCl", -9.0, checkpoint={"key": "b", "sha256": "b" * 64, "energy_scale": "mp"})
    with pytest.raises(MatrisError, match="one checkpoint"):
        hull_results([*LI_CL, other])


def test_only_the_wanted_systems_are_placed_and_the_others_still_compete():
    results = hull_results(LI_CL, wanted=lambda chemsys: chemsys == "Cl-Li")
    assert set(results) == {"licl", "licl high", "li3cl"}
    assert results["li3cl"].energy_above_hull == pytest.approx(0.25)
    assert hull_results([]) == {}


@pytest.mark.skipif(
    not LI_FE_O.exists(), reason="needs shared/data/li_fe_o_entries.json.gz, which is not in the repository"
)
def test_li_fe_o_of_the_materials_project_has_eleven_stable_phases():
    phases = load_references(LI_FE_O, "mp")
    checkpoint = {"key": "dft", "sha256": "d" * 64, "energy_scale": "mp"}
    documents = [
        document(e.entry_id, e.composition, e.energy_per_atom, checkpoint=checkpoint, correction_scheme="MP2020")
        for e in phases.entries
    ]
    own = hull_results(documents)
    stable = sorted(e.reduced_formula for e in phases.entries if own[str(e.entry_id)].is_stable)
    print(f"stable phases of Li-Fe-O: {', '.join(stable)}")  # noqa: T201 - shown by `pytest -s`
    names = ["Fe", "Fe2O3", "FeO", "Li", "Li2FeO3", "Li2O", "Li2O2", "Li5FeO4", "LiFeO2", "LiO8", "O2"]
    assert stable == names
    diagram = PhaseDiagram(phases.entries)
    assert {i for i, r in own.items() if r.is_stable} == {e.entry_id for e in diagram.stable_entries}
    peer = {e.entry_id: diagram.get_e_above_hull(e) for e in phases.entries}
    assert {i: r.energy_above_hull for i, r in own.items()} == pytest.approx(
        peer, abs=1e-8
    )  # smaller distances count as 0
    against_itself = hull_results(documents, phases)
    assert {i: r.energy_above_hull for i, r in own.items()} == pytest.approx(
        {i: r.energy_above_hull for i, r in against_itself.items()}, abs=1e-8
    )


def test_a_cell_with_vacuum_is_on_no_hull():
    """On the hull, the slab would be the ground state of its composition and change the other distances."""
    slab = document("slab", "Li3Cl", -2.4, vacuum=12.04)
    results = hull_results([*LI_CL, slab])
    assert results["slab"].hull_state == "no crystal: a gap of 12.0 Å without atoms (slab, wire or molecule in vacuum)"
    assert results["slab"].energy_above_hull is None
    alone = hull_results(LI_CL)
    assert {name: results[name].energy_above_hull for name in alone} == {
        name: place.energy_above_hull for name, place in alone.items()
    }
    tag = {"uncorrected_energy_per_atom": -2.4}
    references = references_from_documents([{**each, **tag} for each in (*LI_CL, slab)])
    assert len(references.entries) == len(LI_CL)
    assert references.omitted[0] == ("slab", "a cell with vacuum")
