"""Vibrational densities of states, against oscillators and a Langevin particle."""

from __future__ import annotations

import numpy as np
import pytest
from pymatgen.core import Structure

from matris.properties.dynamics import DynamicsSettings, dynamics
from matris.properties.ensembles import FEMTOSECOND
from matris.properties.velocity_spectrum import MAX_FRAMES, moving_frames
from tests.matris.wells import Wells, lattice_gas


def salt(n: int = 4) -> Structure:
    """Return a lattice gas of lithium and, one atom in two, chlorine."""
    gas = lattice_gas(n, element="Li")
    return Structure(gas.lattice, ["Li", "Cl"] * (n**3 // 2), gas.frac_coords)


def test_an_einstein_solid_has_its_frequencies():
    """ω = √(k/m) for each element, three states for each atom."""
    settings = DynamicsSettings(ensemble="nve", temperature=300, time_step=2, n_steps=1200, interval=3)
    (record,) = dynamics([salt()], Wells(2.0), settings=settings)
    found = record.vibrational_dos
    frequencies = np.array(found["frequencies"])
    assert found["resolution"] == pytest.approx(1000 / (100 * 6))
    for element, mass in (("Li", 6.94), ("Cl", 35.453)):
        density = np.array(found["elements"][element])
        exact = 1000 * np.sqrt(2.0 / mass) * FEMTOSECOND / (2 * np.pi)
        peak = np.average(frequencies, weights=density * (np.abs(frequencies - exact) < 2))
        assert peak == pytest.approx(exact, rel=0.01)
        assert frequencies[density.argmax()] == pytest.approx(exact, abs=frequencies[1])
        assert np.trapezoid(density, frequencies) == pytest.approx(3, rel=1e-3)
        half = density > density.max() / 2
        assert half.sum() * frequencies[1] == pytest.approx(found["resolution"], rel=0.3)


def test_a_langevin_particle_has_a_lorentzian():
    """g = 12 τ/(1 + (2πντ)²), which at 0 is 12 m D/kT with D = kT τ/m."""
    settings = DynamicsSettings(temperature=500, time_step=5, n_steps=1000, interval=2, thermostat_time=100)
    (record,) = dynamics([lattice_gas(6)], Wells(), settings=settings)
    found = record.vibrational_dos
    frequencies, density = np.array(found["frequencies"]), np.array(found["elements"]["Ar"])
    exact = 12 * 0.1 / (1 + (2 * np.pi * frequencies * 0.1) ** 2)
    near = frequencies < 5
    assert density[near] == pytest.approx(exact[near], abs=0.1 * exact[0])
    assert density[0] == pytest.approx(exact[0], rel=0.08)


def test_frames_too_far_apart_give_no_spectrum():
    """Lithium vibrates with 8.4 THz, which frames 90 fs apart would show at 2.7 THz."""
    (record,) = dynamics(
        [salt(2)], Wells(2.0), settings=DynamicsSettings(time_step=3, n_steps=1800, interval=30, ensemble="nve")
    )
    assert list(record.vibrational_dos) == ["problem"]
    assert "frames 90 fs apart are too far for atoms that vibrate with" in record.vibrational_dos["problem"]
    few = DynamicsSettings(time_step=3, n_steps=30, interval=1)
    (short,) = dynamics([salt(2)], Wells(2.0), settings=few)
    assert "fewer than 20 frames" in short.vibrational_dos["problem"]
    (ramp,) = dynamics([salt(2)], Wells(2.0), settings=DynamicsSettings(n_steps=60, interval=1, final_temperature=500))
    assert ramp.vibrational_dos == {"problem": "the temperature changes during the run"}


def test_moving_frames():
    assert moving_frames(1) == range(1)
    for n_frames in (2, 4095, 4097, 100_000):
        frames = moving_frames(n_frames)
        assert frames[-1] == n_frames - 1
        assert frames[0] >= n_frames // 2
        assert len(frames) <= MAX_FRAMES
