"""Oxidation states: those of pymatgen, which lists all choices, also for formulas of any length."""

import random
import time

from pymatgen.core import Composition, Element

from matris.stores.documents.charge_balance import balance


def test_states_are_those_of_the_first_guess_of_pymatgen():
    chance = random.Random(1)
    symbols = [element.symbol for element in Element if element.Z < 84 and element.icsd_oxidation_states]
    n_neutral = 0
    for _ in range(300):
        composition = Composition({s: chance.randint(1, 4) for s in chance.sample(symbols, chance.randint(2, 4))})
        guesses = composition.oxi_state_guesses(max_sites=-1)
        found = balance(composition)
        assert found.states == (dict(sorted(guesses[0].items())) if guesses else {}), composition.formula
        n_neutral += bool(guesses)
    assert n_neutral > 30


def test_long_formulas_take_no_long_time():
    started = time.perf_counter()
    found = balance(Composition("Fe600O801H20Cl5Si100"), ["H", "Cl", "Si"])
    assert time.perf_counter() - started < 5
    assert found.states["O"] == -2
    assert abs(sum(n * found.states[s] for s, n in {"Fe": 600, "O": 801, "H": 20, "Cl": 5, "Si": 100}.items())) < 1e-9
    assert balance(Composition("Fe6000O8001H2Cl5")).states == {}  # too long


def test_an_element_that_may_or_may_not_be_an_anion_is_ambiguous(monkeypatch):
    states = {"H": {-1: 1.0, 1: 1.0}, "Li": {1: 2.0}, "X": {-1: 1.0, 1: 1.0}}
    monkeypatch.setattr(
        "matris.stores.documents.charge_balance._states", lambda symbol: states.get(symbol, {-1: 1.0, 1: 1.0})
    )
    monkeypatch.setattr("matris.stores.documents.charge_balance._scores", _scores_uncached())
    found = balance(Composition("HF"), ["H", "F"])
    assert found.ambiguous == ("F", "H")
    assert balance(Composition("LiH"), ["H"]).ambiguous == ()


def _scores_uncached():
    from matris.stores.documents import charge_balance

    return charge_balance._scores.__wrapped__
