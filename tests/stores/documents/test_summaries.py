"""Summaries of properties in candidate documents."""

import bson
import pytest

from matris.stores.documents.documents import CandidateDocument
from matris.stores.documents.summaries import SUMMARIES, summarise

DONE = {"state": "converged", "error": None}
ABOUT = {"job_uuid": "0" * 36, "settings_digest": "0123456789ab", "computed_at": "2026-11-23T10:00:00+00:00"}
TEMPERATURES = [0.0, 200.0, 400.0]


def modulus(vrh):
    return {"voigt": vrh + 1, "reuss": vrh - 1, "vrh": vrh}


DOCUMENTS = {
    "elastic": {
        "bulk_modulus": modulus(100.0),
        "shear_modulus": modulus(60.0),
        "young_modulus": 150.0,
        "homogeneous_poisson": 0.25,
        "is_mechanically_stable": True,
        "elastic_tensor": {"raw": [[1.0] * 6] * 6},
    },
    "eos": {
        "fits": [
            {"equation": "vinet", "e0": -1.0, "v0": 41.0, "b0": 99.0, "b1": 4.5, "residual": 0.0},
            {"equation": "birch_murnaghan", "e0": -1.0, "v0": 40.0, "b0": 98.0, "b1": 4.0, "residual": 0.0},
        ]
    },
    "phonon": {
        "has_imaginary_modes": False,
        "min_frequency": -0.01,
        "temperatures": TEMPERATURES,
        "heat_capacities": [0.0, 20.0, 24.0],
        "entropies": [0.0, 15.0, 30.0],
        "free_energies": [4500.0, 3000.0, -500.0],
        "nsites_primitive": 2,
    },
    "qha": {
        "temperatures": TEMPERATURES,
        "thermal_expansion": [0.0, 1e-5, 3e-5],
        "bulk_modulus_temperature": [100.0, 98.0, 96.0],
        "average_gruneisen": 1.5,
        "bulk_modulus": 103.0,
    },
    "kappa": {
        "temperatures": [200.0, 400.0],
        "kappa_mean": [60.0, 40.0],
        "kappa_coherence_mean": [0.5, 0.7],
        "mesh_change": 0.02,
    },
    "neb": {"lowest_barrier": 0.4, "paths": [{}, {}]},
    "diffusion": {
        "arrhenius": {
            "Li": {"activation_energy": 0.3, "error": 0.02, "room": {"value": 1e-8, "low": 5e-9, "high": 2e-8}},
            "Na": {"activation_energy": 0.4, "error": 0.03, "room": {"value": 1e-9, "low": 5e-10, "high": 2e-9}},
            "O": {"activation_energy": None, "error": None, "room": None},
        },
        "conductivity": {"value": 1e-3, "low": 5e-4, "high": 2e-3},
    },
    "defects": {"lowest_formation_energy": 1.2, "lowest_defect": "v_O", "defects": [{}, {}, {}]},
    "surfaces": {
        "lowest_surface_energy": 0.7,
        "lowest_surface": "(1 1 1)",
        "weighted_surface_energy": 0.8,
        "surfaces": [{}, {}],
        "skipped": [{}],
    },
    "md": {
        "n_steps": 1000,
        "mean_temperature": 301.0,
        "mean_pressure": 0.1,
        "energy_drift": 1e-6,
        "series": {"time": [0.0] * 1000},
    },
}
EXPECTED = {
    "elastic": {
        "bulk_modulus": 100.0,
        "bulk_modulus_voigt": 101.0,
        "shear_modulus": 60.0,
        "young_modulus": 150.0,
        "homogeneous_poisson": 0.25,
        "is_mechanically_stable": True,
    },
    "eos": {"v0": 40.0, "b0": 98.0, "b1": 4.0},
    "phonon": {
        "has_imaginary_modes": False,
        "min_frequency": -0.01,
        "heat_capacity": 22.0,
        "entropy": 22.5,
        "free_energy": 1250.0,
    },
    "qha": {"thermal_expansion": pytest.approx(2e-5), "bulk_modulus": 97.0, "average_gruneisen": 1.5},
    "kappa": {"conductivity": 50.0, "coherence": pytest.approx(0.6), "mesh_change": 0.02},
    "neb": {"lowest_barrier": 0.4, "n_paths": 2},
    "diffusion": {
        "element": "Li",
        "activation_energy": 0.3,
        "activation_energy_error": 0.02,
        "coefficient": 1e-8,
        "conductivity": 1e-3,
    },
    "defects": {"lowest_formation_energy": 1.2, "lowest_defect": "v_O", "n_defects": 3},
    "surfaces": {
        "lowest_surface_energy": 0.7,
        "lowest_surface": "(1 1 1)",
        "weighted_surface_energy": 0.8,
        "n_surfaces": 2,
        "n_skipped": 1,
    },
    "md": {"n_steps": 1000, "mean_temperature": 301.0, "mean_pressure": 0.1, "energy_drift": 1e-6},
}


def test_every_kind_is_a_field_of_candidate_documents():
    assert set(SUMMARIES) == set(DOCUMENTS) <= set(CandidateDocument.model_fields)


@pytest.mark.parametrize("kind", SUMMARIES)
def test_a_summary_has_the_queried_numbers(kind):
    summary = summarise(kind, DOCUMENTS[kind] | DONE, **ABOUT)
    unchecked = {"is_reliable": None, "cutoff_crossings": None, "warnings": []}
    assert summary == unchecked | EXPECTED[kind] | DONE | ABOUT
    assert len(bson.encode(summary)) < 1000


@pytest.mark.parametrize("kind", SUMMARIES)
def test_a_failure_keeps_its_reason_and_has_no_numbers(kind):
    summary = summarise(kind, {"state": "failed", "error": "x" * 5000, "temperatures": [], "fits": []}, **ABOUT)
    assert (summary["state"], len(summary["error"])) == ("failed", 300)
    assert summary.pop("warnings") == []
    assert all(value is None for name, value in summary.items() if name not in {"state", "error", *ABOUT})
    assert len(bson.encode(summary)) < 1000


def test_checks_can_be_queried():
    checks = {
        "is_reliable": False,
        "warnings": ["B0' of -19.9 (birch_murnaghan) is outside of 1 to 10" + "x" * 500] * 9,
        "crossings": [{"cutoff": 5.5, "distance": 5.501, "n_pairs": 48}],
    }
    summary = summarise("eos", DOCUMENTS["eos"] | DONE | checks, **ABOUT)
    assert summary["is_reliable"] is False
    assert summary["cutoff_crossings"] == 1
    assert len(summary["warnings"]) == 4
    assert summary["warnings"][0].startswith("B0' of -19.9 (birch_murnaghan) is outside")
    assert len(bson.encode(summary)) < 1000


def test_without_room_temperature_there_is_no_value():
    cold = DOCUMENTS["phonon"] | DONE | {"temperatures": [0.0, 100.0, 200.0]}
    assert summarise("phonon", cold)["heat_capacity"] is None
    cut = DOCUMENTS["phonon"] | DONE | {"heat_capacities": [0.0, 40.0]}  # the series ends before 300 K
    assert summarise("phonon", cut)["heat_capacity"] is None


def test_values_that_are_not_finite_become_none():
    broken = (
        DOCUMENTS["qha"] | DONE | {"average_gruneisen": float("nan"), "thermal_expansion": [0.0, float("inf"), 1.0]}
    )
    summary = summarise("qha", broken)
    assert (summary["average_gruneisen"], summary["thermal_expansion"], summary["bulk_modulus"]) == (None, None, 97.0)
