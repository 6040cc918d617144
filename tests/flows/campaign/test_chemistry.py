import sys

import pytest
from pymatgen.core import Composition

from matris.errors import MatrisError
from matris.flows.campaign import chemistry
from matris.flows.campaign.chemistry import chemistry_problem


def test_unknown_elements_are_named_without_any_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "smact", None)
    monkeypatch.setitem(sys.modules, "smact.screening", None)
    assert chemistry_problem(Composition("NaCl2"), ["Na", "Cl"], charge_balance=False) is None
    assert "unsupported element Cl, Xe" in chemistry_problem(Composition("XeCl2Na"), ["Na"], charge_balance=True)
    chemistry._balances.cache_clear()
    with pytest.raises(MatrisError, match=r"pip install 'matris-flows\[chemistry\]'"):
        chemistry_problem(Composition("NaCl"), ["Na", "Cl"], charge_balance=True)


@pytest.mark.parametrize("formula", ["NaCl", "Fe3O4", "LiFePO4", "GaAs", "Al12Mg17", "Fe", "O2", "Xe", "Fe20Ni21O60"])
def test_salts_mixed_valence_alloys_and_elements_balance(formula):
    pytest.importorskip("smact")
    assert chemistry_problem(Composition(formula)) is None


@pytest.mark.parametrize("formula", ["NaCl2", "Na2Cl", "Na4Cl8", "Al7O"])
def test_what_has_no_neutral_choice_is_named(formula):
    pytest.importorskip("smact")
    reduced = Composition(formula).reduced_formula
    assert chemistry_problem(Composition(formula)) == (
        f"no charge balance: {reduced} has no neutral choice of common oxidation states"
    )


def test_oxidation_states_of_the_input_have_no_influence():
    pytest.importorskip("smact")
    assert chemistry_problem(Composition({"Na+": 2, "Cl-": 2}), ["Na", "Cl"]) is None
    assert "NaCl2" in chemistry_problem(Composition({"Na+": 1, "Cl-": 2}))
