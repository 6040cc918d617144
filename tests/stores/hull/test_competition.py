"""Stability of stable phases, and which competing phases a hull lacks."""

import random

import pytest
from pymatgen.analysis.phase_diagram import PhaseDiagram
from pymatgen.core import Composition
from pymatgen.entries.computed_entries import ComputedEntry

from matris.stores.hull.hull import hull_results
from matris.stores.hull.references import References

CHECKPOINT = {"key": "demo", "sha256": "0" * 64, "energy_scale": "matpes-pbe"}


def document(name, formula, energy):
    composition = Composition(formula)
    return {
        "document_id": name,
        "state": "converged",
        "chemsys": composition.chemical_system,
        "composition": composition.get_el_amt_dict(),
        "energy_per_atom": energy,
        "correction_scheme": "none",
        "checkpoint": CHECKPOINT,
        "settings": {"digest": "0" * 12},
    }


def elements(*symbols):
    return [document(symbol, symbol, 0.0) for symbol in symbols]


@pytest.mark.parametrize("seed", range(4))
def test_reaction_energies_are_those_of_pymatgen(seed):
    chance = random.Random(seed)
    symbols = ["Li", "Fe", "O", "Cl"]
    documents = elements(*symbols)
    for i in range(40):
        some = chance.sample(symbols, chance.choice([2, 3, 4]))
        formula = "".join(f"{symbol}{chance.randint(1, 3)}" for symbol in some)
        documents.append(document(f"{i}", formula, chance.uniform(-1.5, 0.2)))
    results = hull_results(documents)
    entries = [
        ComputedEntry(c := Composition(d["composition"]), d["energy_per_atom"] * c.num_atoms, entry_id=d["document_id"])
        for d in documents
    ]
    diagram = PhaseDiagram(entries)
    stable = {entry.entry_id: diagram.get_equilibrium_reaction_energy(entry) for entry in diagram.stable_entries}
    ours = {name: result.equilibrium_reaction_energy_per_atom for name, result in results.items() if result.is_stable}
    assert len(ours) > 8
    assert ours == pytest.approx(stable, abs=1e-8)
    assert all(r.equilibrium_reaction_energy_per_atom is None for r in results.values() if not r.is_stable)


def test_a_hull_of_elements_says_so():
    results = hull_results([*elements("Mg", "O"), document("mgo", "MgO", -3.0), document("other", "MgO", -2.9)])
    assert results["mgo"].is_stable
    assert results["mgo"].only_elements_compete
    assert results["other"].only_elements_compete  # a polymorph does not make a decomposition
    assert results["mgo"].hull_lacks == ["Mg-O"]
    assert results["mgo"].equilibrium_reaction_energy_per_atom == pytest.approx(-3.0)
    assert (results["Mg"].only_elements_compete, results["Mg"].hull_lacks) == (False, [])
    assert results["Mg"].equilibrium_reaction_energy_per_atom == 0


def test_the_subsystems_without_competing_compounds_are_listed():
    documents = [*elements("Ba", "Ti", "O"), document("bto", "BaTiO3", -3.0), document("bao", "BaO", -2.5)]
    result = hull_results(documents)["bto"]
    assert not result.only_elements_compete
    assert result.hull_lacks == ["Ba-Ti", "O-Ti", "Ba-O-Ti"]
    documents += [document("above", "Ti3O", 2.0), document("ternary", "Ba2TiO4", -2.0)]  # above the hull, but computed
    assert hull_results(documents)["bto"].hull_lacks == ["Ba-Ti"]
    assert hull_results(documents[:-2], populated=["O-Ti"])["bto"].hull_lacks == ["Ba-Ti", "Ba-O-Ti"]


def test_references_compete_even_with_the_composition_of_a_candidate():
    entries = [ComputedEntry(name, energy, entry_id=name) for name, energy in [("Mg", 0), ("O", 0), ("MgO", -6.0)]]
    references = References("some", "matpes-pbe", tuple(entries))
    result = hull_results([document("mgo", "MgO", -3.1)], references)["mgo"]
    assert (result.only_elements_compete, result.hull_lacks) == (False, [])
    assert result.energy_above_hull == pytest.approx(-0.1)
    assert result.equilibrium_reaction_energy_per_atom == pytest.approx(-3.1)
    lacking = References("elements", "matpes-pbe", tuple(entries[:2]))
    assert hull_results([document("mgo", "MgO", -3.1)], lacking)["mgo"].only_elements_compete


def test_a_document_without_a_place_says_nothing_about_competition():
    result = hull_results([document("mgo", "MgO", -3.0)])["mgo"]
    assert result.only_elements_compete is None
    assert result.hull_lacks is None
