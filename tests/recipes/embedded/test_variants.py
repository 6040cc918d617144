"""Training structures from crystals of the literature."""

from __future__ import annotations

import pytest

from recipes.embedded.labels import formulas_of_wbm, part_of
from recipes.embedded.materials import ELEMENTS, MIN_DISTANCE, distance_ratio
from recipes.embedded.variants import literature, unchanged, variants

from .conftest import CRYSTALS, WBM


def test_crystals_are_those_that_are_not_reserved(data):
    formulas = [atoms.get_chemical_formula() for atoms in CRYSTALS]
    free = {f for f in formulas if part_of(f) != "reserved"}
    assert 0 < len(free) < len(formulas)
    assert {source.split()[1] for source, _ in literature(data, reserved={"BN"})} == free
    assert {source.split()[1] for source, _ in literature(data)} == free | {WBM.get_chemical_formula()}


def test_variants_are_alike_and_new(data):
    reserved = formulas_of_wbm(data)
    made = list(variants(data, 4, 25, reserved=reserved))
    assert [m.to_dict() for m in variants(data, 4, 5, reserved=reserved)] == [m.to_dict() for m in made[:5]]
    assert len({(m.source, m.structure.composition.formula) for m in made}) == 25
    for material in made:
        assert {e.symbol for e in material.structure.composition} <= set(ELEMENTS)
        assert distance_ratio(material.structure) >= MIN_DISTANCE
        assert part_of(material.formula, reserved) != "reserved"


@pytest.mark.parametrize("symbol", ["Xe", "Pm", "Ac"])
def test_elements_with_few_alike_are_not_skipped(data, symbol):
    assert any(symbol in source for source, _ in literature(data))
    assert any(symbol in m.formula for m in variants(data, 1, 40, kept=1.0) if symbol in m.source)


def test_crystals_as_they_are(data):
    reserved = formulas_of_wbm(data)
    known = dict(literature(data, (2, 64), reserved))
    made = list(unchanged(data, (2, 64), reserved))
    assert known
    assert {m.source: m.structure for m in made} == known
    assert len({m.material for m in made}) == len(made)
