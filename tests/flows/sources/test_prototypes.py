"""Generated candidates: what a person who knows the system expects is among them, and nothing absurd."""

from collections import Counter

import pytest
from pymatgen.core import Composition, Element

from matris.errors import MatrisError
from matris.flows.sources.prototypes import _tags, elemental_references, generate_candidates, library
from matris.stores.documents.candidate import ELEMENTAL_REFERENCE_SOURCE
from matris.structures import problem_with


@pytest.fixture(scope="module")
def li_fe_o():
    return list(generate_candidates("Li-Fe-O"))


def test_li_fe_o_has_a_campaign_of_useful_size(li_fe_o):
    assert 30 <= len(li_fe_o) <= 60
    assert {c.structure.composition.chemical_system for c in li_fe_o} == {
        "Fe",
        "Li",
        "Fe-Li",
        "Fe-O",
        "Li-O",
        "Fe-Li-O",
    }
    assert len({c.candidate_id for c in li_fe_o}) == len(li_fe_o)
    assert max(len(c.structure) for c in li_fe_o) <= 14
    assert [problem_with(c.structure, min_distance=1.0) for c in li_fe_o] == [None] * len(li_fe_o)


@pytest.mark.parametrize(
    ("formula", "aflow", "volume"),
    [
        ("FeO", "AB_cF8_225_a_b", 10.2),  # rock salt, a = 4.33 Å
        ("Fe2O3", "A2B3_hR10_167_c_e", 10.1),  # corundum, hematite
        ("Li2O", "AB2_cF12_225_a_c", 8.2),  # antifluorite, a = 4.62 Å
        ("LiFeO2", "ABC2_hR4_166_a_b_c", 10.5),
        ("Fe", "A_cI2_229_a", 11.8),
    ],
)
def test_known_crystals_are_among_them_at_about_their_volume(li_fe_o, formula, aflow, volume):
    (candidate,) = [c for c in li_fe_o if c.structure.reduced_formula == formula and c.provenance["aflow"] == aflow]
    assert candidate.structure.volume / len(candidate.structure) == pytest.approx(volume, rel=0.35)
    assert candidate.source == f"{candidate.provenance['prototype']} type"
    assert candidate.provenance["generator"] == "prototype"
    assert set(candidate.provenance["mapping"].values()) == {e.symbol for e in Composition(formula)}


def test_every_compound_with_an_anion_balances(li_fe_o):
    ionic = [c for c in li_fe_o if "O" in c.structure.composition]
    assert ionic
    for candidate in ionic:
        charges = candidate.provenance["oxidation_states"]
        composition = candidate.structure.composition
        assert sum(composition[e] * q for e, q in charges.items()) == pytest.approx(0)
        assert charges["O"] == -2
        assert 2 <= charges.get("Fe", 2) <= 3
    assert max(Counter(c.structure.reduced_formula for c in ionic).values()) <= 6


def test_the_order_and_content_are_always_the_same(li_fe_o):
    again = [c.candidate_id for c in generate_candidates(["O", "Fe", "Li"])]
    assert again == [c.candidate_id for c in li_fe_o]


def test_limits_are_kept():
    small = list(generate_candidates("Na-Cl", max_sites=2, per_formula=2))
    assert all(len(c.structure) <= 2 for c in small)
    salts = [c.provenance["prototype"] for c in small if c.structure.reduced_formula == "NaCl"]
    assert salts[0] == "B1, Halite, Rock Salt"
    assert len(salts) == 2
    assert {c.structure.chemical_system for c in small} == {"Na", "Cl-Na"}  # no chlorine crystal, no NaCl3


def test_covalent_ions_without_a_tabulated_radius_get_a_sensible_bond():
    candidates = {c.provenance["aflow"]: c.structure for c in generate_candidates("Ga-As")}
    zincblende = candidates["AB_cF8_216_c_a"]
    assert zincblende.volume / 2 == pytest.approx(22.6, rel=0.2)  # a = 5.65 Å


def test_references_cover_elements_with_and_without_a_ground_state_in_the_collection():
    references = list(elemental_references(["Fe", "O", "Ce"]))
    assert {c.source for c in references} == {ELEMENTAL_REFERENCE_SOURCE}
    by_element = Counter(c.structure.reduced_formula for c in references)
    assert by_element == {"Ce": 4, "Fe": 1, "O2": 1}
    iron = next(c.structure for c in references if c.structure.reduced_formula == "Fe")
    assert len(iron) == 1
    assert iron.volume == pytest.approx(11.37, abs=0.05)
    assert not iron.site_properties
    assert [c.candidate_id for c in elemental_references("Ce-Fe-O")] == [c.candidate_id for c in references]


def test_every_element_a_potential_may_know_has_a_reference():
    symbols = [Element.from_Z(z).symbol for z in range(1, 95) if z not in {85, 87}]  # At and Fr have no known volume
    candidates = {e.symbol for c in elemental_references(symbols) for e in c.structure.composition}
    assert candidates == set(symbols)


def test_what_is_no_element_is_named():
    with pytest.raises(MatrisError, match="'Xx'"):
        generate_candidates("Li-Xx")


def test_no_name_of_a_prototype_holds_latex():
    tags = [_tags(prototype, {}) for prototype in library()]
    names = {tag["prototype"] for tag in tags}
    assert {"D8_5, Frank-Kasper μ Phase", "Lavarevićite", "L'2"} <= names
    assert not [name for name in names if set(name) & set("\\${}")]
