"""Which candidates are chosen for first-principles calculations, and which never are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from matris.flows.learning.selection import Errors, select
from matris.stores.documents.candidate import ELEMENTAL_REFERENCE_SOURCE

ERRORS = Errors(spread=0.05)


def candidate(name: str, distance: float | None, **fields: Any) -> dict[str, Any]:
    document = {
        "document_id": f"{name}-document",
        "candidate_id": name,
        "source": "a.cif",
        "state": "converged",
        "formula_pretty": "LiCl",
        "chemsys": "Cl-Li",
        "energy_above_hull": distance,
    }
    return document | fields


def alike(names):
    return np.zeros((len(names), 1))


def chosen(documents, budget=10, **options) -> dict[str, tuple[str, ...]]:
    options = {"errors": ERRORS, "features_of": alike} | options
    return {each.candidate_id: each.reasons for each in select(documents, budget, **options)}


def test_probability_is_that_of_a_normal_error():
    assert ERRORS.probability(0.0) == pytest.approx(0.5)
    assert ERRORS.probability(0.05) == pytest.approx(0.158655, abs=1e-6)
    assert Errors(0.05, bias=-0.05).probability(0.05) == pytest.approx(0.5)  # predicted too high by the bias
    assert ERRORS.probability(0.1, widen=2.0) == pytest.approx(ERRORS.probability(0.05))


def test_near_the_hull_from_both_sides():
    documents = [
        candidate("certain", 0.0, equilibrium_reaction_energy_per_atom=-0.4),  # on the hull by far
        candidate("barely", 0.0, equilibrium_reaction_energy_per_atom=-0.01),
        candidate("above", 0.08),
        candidate("below references", -0.06),
        candidate("hopeless", 0.4),
    ]
    found = chosen(documents)
    assert set(found) == {"barely", "above", "below references"}
    assert found["barely"] == ("near the hull: stable with probability 0.58",)


def test_what_never_is_chosen():
    documents = [
        candidate("labelled", 0.0),
        candidate("later round of labelled", 0.0, provenance={"root": "labelled"}),
        candidate("duplicate", 0.0, duplicate_of="x"),
        candidate("failed", None, state="failed"),
        candidate("unconverged", 0.0, state="max_steps"),
        candidate("without hull", None),
        candidate("known phase", 0.0, source="references"),
        candidate("nan", float("nan")),
    ]
    assert chosen(documents, labelled={"labelled"}) == {}
    assert set(chosen([*documents, candidate("good", 0.0)], labelled={"labelled"})) == {"good"}


def test_extrapolation_widens_the_errors():
    documents = [
        candidate("known chemistry", 0.12),
        candidate("new chemistry", 0.12, is_extrapolating=True, extrapolation=1.8),
    ]
    found = chosen(documents)
    assert found["new chemistry"][1] == "extrapolating: 1.8 times the reach of the training data"
    assert found["known chemistry"] == ("diverse: unlike those labelled or chosen before",)
    assert next(iter(found)) == "new chemistry"


def test_disagreement_of_two_checkpoints_counts():
    documents = [candidate("a", 0.12), candidate("b", 0.12)]
    found = chosen(documents, budget=1, second={"a": 0.13, "b": 0.0})
    assert found == {"b": ("disagreement: the distances by two checkpoints differ by 120 meV/atom",)}


def test_of_equal_candidates_one_is_chosen_and_then_the_unlike():
    places = {"a": 0.0, "b": 0.01, "c": 10.0, "labelled": 0.005}
    documents = [candidate("a", 0.0), candidate("b", 0.0), candidate("c", 0.06), candidate("labelled", 0.0)]

    def features(names):
        return np.array([[places[name.removesuffix("-document")]] for name in names])

    found = chosen(documents, budget=2, features_of=features)
    assert list(found) == ["a", "c"]  # b is as likely as a, but like it
    assert found["c"][-1] == "diverse: unlike those labelled or chosen before"
    found = chosen(documents, budget=1, features_of=features, labelled={"labelled"})
    assert list(found) == ["c"]  # what is like a labelled one comes last


def test_elements_come_first_and_count():
    elements = [candidate(s, 0.0, source=ELEMENTAL_REFERENCE_SOURCE, chemsys=s, formula_pretty=s) for s in ("Li", "Cl")]
    compound = candidate("LiCl", 0.0)
    assert list(chosen([compound, *elements])) == ["Cl", "Li", "LiCl"]
    assert list(chosen([compound, *elements], budget=2)) == ["Cl", "Li"]
    assert list(chosen([compound, *elements], labelled={"Li"})) == ["Cl", "LiCl"]
    assert list(chosen([compound, *elements], corners=False)) == ["LiCl"]
    replaced = elements[0] | {"duplicate_of": "a candidate"}
    assert list(chosen([compound, replaced, elements[1]])) == ["Cl", "LiCl"]


def test_budget_is_kept_and_nothing_is_chosen_twice():
    rng = np.random.default_rng(0)
    documents = [candidate(str(i), d) for i, d in enumerate(rng.uniform(0, 0.3, 200))]
    points = rng.normal(size=(200, 3))
    found = select(documents, 30, errors=ERRORS, features_of=lambda names: points[: len(names)])
    assert len({each.candidate_id for each in found}) == len(found) == 30
    assert select([], 5, errors=ERRORS, features_of=alike) == []
    assert select(documents, 0, errors=ERRORS, features_of=lambda names: points[: len(names)]) == []
