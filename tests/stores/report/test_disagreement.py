from math import isnan, sqrt

import pytest

from matris.errors import MatrisError
from matris.stores.disagreement import disagreement, most_probable, stability_probability


def document(name, distance, formation=-1.0, **more):
    return {
        "candidate_id": name,
        "state": "converged",
        "hull_type": "reference",
        "energy_above_hull": distance,
        "formation_energy_per_atom": formation,
        **more,
    }


def test_differences_are_second_minus_first():
    first = [document("a", 0.0), document("b", 0.1), document("c", None, None), document("only", 0.0)]
    second = [document("a", 0.03, -0.9), document("b", 0.06), document("c", 0.2), document("x", 0, state="failed")]
    found = disagreement(first, second)
    assert found.differences["a"] == pytest.approx({"energy_above_hull": 0.03, "formation_energy_per_atom": 0.1})
    assert found.differences["c"] == {"energy_above_hull": None, "formation_energy_per_atom": None}
    spread = found.energy_above_hull
    assert (spread.n, spread.largest) == (2, pytest.approx(-0.04))
    assert spread.mean == pytest.approx(-0.005)
    assert spread.mean_absolute == pytest.approx(0.035)
    assert spread.rms == pytest.approx(sqrt((0.03**2 + 0.04**2) / 2))
    assert spread.sigma == pytest.approx(0.025)
    assert found.n_only_one == 1


def test_nothing_in_common_is_no_error():
    found = disagreement([document("a", 0.0)], [])
    assert found.differences == {}
    assert found.energy_above_hull.n == 0
    assert isnan(found.energy_above_hull.sigma)


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(MatrisError, match="reference, self-consistent"):
        disagreement([document("a", 0.0)], [document("a", 0.0, hull_type="self-consistent")])
    with pytest.raises(MatrisError, match="candidate a has two documents"):
        disagreement([document("a", 0.0), document("a", 0.0)], [])


@pytest.mark.parametrize(
    ("distance", "probability"), [(0.0, 0.5), (0.03, 0.158655), (-0.03, 0.841345), (0.06, 0.022750), (10.0, 0.0)]
)
def test_probabilities_are_those_of_the_normal_distribution(distance, probability):
    assert stability_probability(distance, 0.03) == pytest.approx(probability, abs=1e-6)


@pytest.mark.parametrize("sigma", [0.0, -1.0, float("nan"), float("inf")])
def test_an_error_must_be_a_positive_number(sigma):
    with pytest.raises(MatrisError, match=f"not {sigma}"):
        stability_probability(0.0, sigma)


def test_the_most_probable_comes_first():
    documents = [document("far", 0.1), document("near", 0.01), document("below", -0.02), document("none", None)]
    assert [d["candidate_id"] for d, _ in most_probable(documents, 0.03)] == ["below", "near", "far"]
    sure = {"far": 1.0, "near": 0.005, "below": 0.02}
    ranked = [(d["candidate_id"], round(p, 4)) for d, p in most_probable(documents, sure)]
    assert ranked == [("below", 0.8413), ("far", 0.4602), ("near", 0.0228)]
    with pytest.raises(MatrisError, match="candidate near"):
        most_probable(documents, {"far": 0.1})
