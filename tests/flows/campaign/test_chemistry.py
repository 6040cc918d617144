import sys

import pytest
from pymatgen.core import Composition, Lattice, Structure

from matris.errors import MatrisError
from matris.flows.campaign import chemistry
from matris.flows.campaign.chemistry import charge_problem
from matris.flows.campaign.funnel import Funnel
from matris.stores.documents.candidate import Candidate


def test_unknown_elements_are_named_without_any_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "smact", None)
    monkeypatch.setitem(sys.modules, "smact.screening", None)
    vectors = [[0, 2.8, 2.8], [2.8, 0, 2.8], [2.8, 2.8, 0]]
    salt = Candidate.from_structure(Structure(Lattice(vectors), ["Xe", "Cl"], [[0] * 3, [0.5] * 3]), "XeCl")
    chemistry._balances.cache_clear()
    assert Funnel(charge_balance=False).problem(salt, ["Xe", "Cl"]) is None
    stage, reason = Funnel(charge_balance=True).problem(salt, ["Na"])
    assert (stage, "unsupported element Cl, Xe" in reason) == ("sanity", True)
    with pytest.raises(MatrisError, match=r"pip install 'matris-flows\[chemistry\]'"):
        Funnel(charge_balance=True).problem(salt, ["Xe", "Cl"])
    with pytest.raises(MatrisError, match=r"pip install 'matris-flows\[chemistry\]'"):
        charge_problem(Composition("NaCl"))


@pytest.mark.parametrize("formula", ["NaCl", "Fe3O4", "LiFePO4", "GaAs", "Al12Mg17", "Fe", "O2", "Xe", "Fe20Ni21O60"])
def test_salts_mixed_valence_alloys_and_elements_balance(formula):
    pytest.importorskip("smact")
    assert charge_problem(Composition(formula)) is None


@pytest.mark.parametrize("formula", ["NaCl2", "Na2Cl", "Na4Cl8", "Al7O"])
def test_what_has_no_neutral_choice_is_named(formula):
    pytest.importorskip("smact")
    reduced = Composition(formula).reduced_formula
    assert charge_problem(Composition(formula)) == (
        f"no charge balance: {reduced} has no neutral choice of common oxidation states"
    )


def test_oxidation_states_of_the_input_have_no_influence():
    pytest.importorskip("smact")
    assert charge_problem(Composition({"Na+": 2, "Cl-": 2})) is None
    assert "NaCl2" in charge_problem(Composition({"Na+": 1, "Cl-": 2}))
