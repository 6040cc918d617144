"""Training structures from prototypes, and all elements as frequent."""

from __future__ import annotations

import logging
from collections import Counter

import numpy as np
import pytest

from matris.errors import MatrisError
from matris.flows.sources.prototypes import elemental_references, generate_candidates
from matris.structures import content_id
from recipes.embedded import structures, substitution
from recipes.embedded.labels import formulas_of_wbm, part_of, reduced
from recipes.embedded.materials import (
    ELEMENTS,
    MIN_DISTANCE,
    distance_ratio,
    elements,
    generate,
    read_structures,
    write_structures,
)  # fmt: skip
from recipes.embedded.substitution import NOBLE, PER_FORMULA, balanced, likeness, templates
from recipes.embedded.volumes import atomic_volumes, own_volume


def free(formula):
    return part_of(formula) != "reserved"


@pytest.fixture(scope="module")
def materials():
    return list(generate(7, 12))


def test_the_seed_decides_and_more_materials_keep_the_first_ones(materials):
    again = list(generate(7, 3))
    assert [m.to_dict() for m in again] == [m.to_dict() for m in materials[:3]]
    assert again[0].to_dict() != next(iter(generate(8, 1))).to_dict()


def test_materials_are_distinct_dense_enough_and_of_the_known_elements(materials):
    assert len({(m.source, m.structure.composition.reduced_formula) for m in materials}) == len(materials)
    assert min(distance_ratio(m.structure) for m in materials) >= MIN_DISTANCE
    assert {e.symbol for m in materials for e in m.structure.composition} <= set(ELEMENTS)
    assert not any(part_of(m.formula) == "reserved" for m in materials)


def test_no_material_has_a_formula_that_is_reserved_by_name(materials):
    first = reduced(materials[0].formula)
    assert first not in {reduced(m.formula) for m in generate(7, 3, {first})}


def test_materials_are_candidates_of_the_generators(materials):
    for material in materials[:3]:
        elements = sorted({element.symbol for element in material.structure.composition})
        made = elemental_references(elements) if len(elements) == 1 else generate_candidates(elements)
        assert content_id(material.structure) in {candidate.candidate_id for candidate in made}


def test_structures_survive_the_file(materials, tmp_path):
    path = tmp_path / "structures.jsonl.gz"
    write_structures(path, materials[:3])
    assert [m.to_dict() for m in read_structures(path)] == [m.to_dict() for m in materials[:3]]
    with pytest.raises(MatrisError, match="structures"):
        read_structures(tmp_path / "absent.gz")


def test_every_element_has_a_volume():
    volumes = atomic_volumes([])
    assert list(volumes) == list(ELEMENTS)
    for symbol in ELEMENTS:
        assert 4 <= volumes[symbol] < 120, symbol
        assert volumes[symbol] == pytest.approx(max(own_volume(symbol), 4.0))


@pytest.mark.parametrize("symbol", [*sorted(NOBLE), "Pm", "Ac", "Th", "Pa", "U", "Np", "Pu"])
def test_rare_elements_are_like_others(symbol):
    assert all(0 <= likeness(symbol, other) <= 1 for other in ELEMENTS)
    assert max(likeness(symbol, other) for other in ELEMENTS if other != symbol) > 0.05


@pytest.fixture(scope="module")
def made(data):
    return list(balanced(templates(data, {"BN"}), atomic_volumes([]), 3, 3, {"BN"}))


def test_each_element_is_in_as_many_materials(made):
    counts = Counter(e.symbol for m in made for e in m.structure.composition)
    assert set(counts) == set(ELEMENTS)
    assert min(counts.values()) == 3
    assert np.median(list(counts.values())) <= 6
    assert all(any(symbol in m.structure.symbol_set for m in made) for symbol in NOBLE)


def test_balanced_materials_are_new_loose_and_not_reserved(made, data):
    formulas = Counter(reduced(m.formula) for m in made)
    assert max(formulas.values()) <= PER_FORMULA
    assert len({(m.source, reduced(m.formula)) for m in made}) == len(made)
    assert not any(part_of(m.formula, {"BN"}) == "reserved" for m in made)
    assert min(distance_ratio(m.structure) for m in made) >= MIN_DISTANCE
    assert max(len(m.structure) for m in made) <= 24
    again = balanced(templates(data, {"BN"}), atomic_volumes([]), 3, 4, {"BN"})
    assert [m.to_dict() for m, _ in zip(again, range(40), strict=False)] == [m.to_dict() for m in made[:40]]


def test_elements_of_which_too_few_can_be_made_are_named(data, caplog, monkeypatch):
    monkeypatch.setattr(substitution, "_TRIES", 3)
    pool = [t for t in templates(data) if len(t.elements) == 1][:1]
    with caplog.at_level(logging.WARNING):
        made = list(balanced(pool, atomic_volumes([]), 1, 2))
    assert sorted(m.formula.rstrip("0123456789") for m in made) == sorted(s for s in ELEMENTS if free(s))
    assert "more templates are needed" in caplog.text
    assert "'Al': 1" in caplog.text


def test_the_command_makes_a_file_once(data, tmp_path):
    path = tmp_path / "p.jsonl.gz"
    command = ["prototypes", "--output", f"{path}", "--data", f"{data}", "--seed", "7", "--count", "3"]
    structures.main(command)
    first = path.read_bytes()
    assert [m.material for m in read_structures(path)] == ["m7-00000", "m7-00001", "m7-00002"]
    structures.main(command)
    assert path.read_bytes() == first
    assert [p.name for p in tmp_path.iterdir()] == ["p.jsonl.gz"]
    assert not {reduced(m.formula) for m in read_structures(path)} & formulas_of_wbm(data)


def test_each_element_has_its_own_crystal_and_simple_ones():
    made = list(elements(own_volume))
    by_element = Counter(m.structure[0].specie.symbol for m in made)
    assert set(by_element) == set(ELEMENTS)
    assert min(by_element.values()) >= 6
    assert len({m.material for m in made}) == len(made)
    assert all(distance_ratio(m.structure) > 0.5 for m in made)
