"""Random crystals have the asked composition, size, distances and volume, and lead to ground states."""

from __future__ import annotations

import numpy as np
import pytest
from pymatgen.core import Composition, Element

import matris
from matris.errors import MatrisError
from matris.flows.sources.compositions import charge_balanced
from matris.flows.sources.opening import open_source
from matris.flows.sources.random_search import random_crystals, sizes_of
from tests.matris.silicon import COHESION, Silicon


def needs_pyxtal() -> None:
    pytest.importorskip("pyxtal", reason="needs the extra random")


def test_what_was_asked_for() -> None:
    needs_pyxtal()
    candidates = list(open_source("random:Li2O?count=2&sizes=2-3"))
    assert len({candidate.candidate_id for candidate in candidates}) == 2
    for candidate in candidates:
        structure = candidate.structure
        assert structure.composition.reduced_formula == "Li2O"
        assert candidate.provenance["formula_units"] in {2, 3}
        assert len(structure) == 3 * candidate.provenance["formula_units"]
        assert 0.85 < structure.volume / len(structure) / (sizes_of({"Li": 2, "O": 1})[0] / 3) < 1.3
        distances = structure.distance_matrix + np.diag([min(structure.lattice.abc)] * len(structure))
        oxygen = np.array([site.specie == Element("O") for site in structure])
        assert distances[np.ix_(oxygen, oxygen)].min() > 0.65 * 2 * 1.26  # Shannon's radius in pymatgen's table
        assert distances.min() > 1.4


def test_each_depends_on_its_number_and_the_seed_alone() -> None:
    needs_pyxtal()
    few, many = (list(random_crystals(["NaCl"], count=n, seed=3)) for n in (1, 2))
    assert [c.candidate_id for c in few] == [c.candidate_id for c in many[:1]]
    (other,) = random_crystals(["NaCl"], count=1, seed=4)
    assert other.candidate_id != few[0].candidate_id
    mixed = list(random_crystals(["MgO", "Na2Cl2"], count=1, seed=3))
    assert mixed[1].candidate_id == few[0].candidate_id


def test_it_finds_diamond() -> None:
    """The ground state of Stillinger–Weber silicon, from nothing but its name: -2 ε per atom."""
    needs_pyxtal()
    starts = [candidate.structure for candidate in open_source("random:Si?count=12&sizes=2")]
    records = list(matris.relax(starts, Silicon(), fmax=0.01, max_steps=300))
    best = min(records, key=lambda record: record.energy / len(record.structure))
    assert best.energy / len(best.structure) == pytest.approx(COHESION, abs=1e-3)
    assert best.structure.get_space_group_info(symprec=0.1)[1] == 227


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("random:Li2X?count=2", "'Li2X' is no formula"),
        ("random:?count=2", "there is no formula"),
        ("random:Li2O?sizes=4-1", "sizes as 1-4"),
        ("random:Li2O?count=0", "count ≥ 1"),
        ("random:Li2O?sizes=few", "expected a range as 1-4"),
        ("random:Li2O?cuont=3", "did you mean count"),
        ("compositions:Li-O", "write random:compositions:Li-O"),
    ],
)
def test_errors_name_the_culprit(source: str, message: str) -> None:
    needs_pyxtal()
    with pytest.raises(MatrisError, match=message):
        list(open_source(source))


def test_charge_balance() -> None:
    pytest.importorskip("smact", reason="needs the extra chemistry")
    assert charge_balanced("Na-Cl") == ["NaCl"]
    found = charge_balanced("Li-Fe-O")
    assert {"Li2O", "Li2O2", "FeO", "Fe2O3", "LiFeO2"} <= set(found)
    assert max(max(Composition(formula).get_el_amt_dict().values()) for formula in found) == 3
    assert not {"LiFe", "Li3Fe", "LiO"} & set(found)
    with pytest.raises(MatrisError, match="as random:Al3Mg2"):
        charge_balanced("Al-Mg")


def test_random_compositions() -> None:
    needs_pyxtal()
    pytest.importorskip("smact", reason="needs the extra chemistry")
    candidates = list(open_source("random:compositions:Na-Cl?max_amount=1?count=2&sizes=1-2"))
    assert [candidate.provenance["formula"] for candidate in candidates] == ["NaCl", "NaCl"]
