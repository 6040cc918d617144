"""What a card says of itself."""

from __future__ import annotations

from matris.model.card_text import limits, measured_errors
from matris.model.checkpoints import Card

DETAILS = {
    "errors": {
        "dcdft": {"structures": 3, "converged": 2, "median": 0.5, "mean": 1.25, "mean_signed": -0.5},
        "crystals": {"structures": 7, "energy": 80.4, "energy_median": 55.0},
        "aside": {"frames": 9, "energy": 0.0704, "force": 0.3, "force_component": 0.1739, "stress": 0.871},
        "validation": {"energy": 0.05, "force_component": 0.1, "magmom": 0.02},
    },
    "trained_on": {"pressure_GPa": [-8.7, 167.4], "force_eV_per_A": 12.5, "atoms": 144},
    "domain": {"quantile": 0.95, "wrong_force_error": 0.3, "flagged_of_wrong": 0.541},
}


def test_what_it_is_worth():
    assert measured_errors(Card("x", details=DETAILS)) == [
        ("dcdft", "median / mean absolute error; mean error; 2 of 3 converged", "0.50 / 1.25 %; -0.50 %"),
        ("crystals", "energy at the DFT geometry, mean / median; 7 crystals", "80 / 55 meV/atom"),
        ("aside", "energy; force; stress; 9 frames", "70 meV/atom; 0.174 eV/Å; 0.87 GPa"),
        ("validation", "energy; force; magnetic moment", "50 meV/atom; 0.100 eV/Å; 0.020 μB"),
    ]


def test_where_it_must_not_be_used():
    text = " ".join(limits(Card("x", elements=("O", "U"), details=DETAILS)))
    for words in ("2 elements", "O U", "-8.7 to 167.4 GPa", "12.5 eV/Å", "95 %", "above 0.3 eV/Å, 54 %"):
        assert words in text


def test_a_card_that_knows_nothing_says_nothing():
    assert limits(Card("x")) == []
    assert measured_errors(Card("x")) == []
