"""Quasi-harmonic thermodynamics of a crystal held by Lennard-Jones bonds between nearest neighbors."""

from __future__ import annotations

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from matris.properties.phonons import PhononSettings
from matris.properties.qha import quasi_harmonic
from matris.units import GPA
from tests.matris.argon import FCC, Argon, crystal, primitive

BOLTZMANN = 8.617333e-5  # eV/K
SETTINGS = PhononSettings(min_length=10.0, temperatures=tuple(np.arange(0.0, 301.0, 5.0)))


@pytest.fixture(scope="module")
def argon():
    (record,) = quasi_harmonic([primitive(FCC * 1.01)], Argon(), settings=SETTINGS)
    return record


def test_trace_of_the_dynamical_matrix(argon):
    """Σω² goes with φ'' + 2φ'/r, whose logarithmic derivative by volume makes Σω²γ / Σω² = 19/6 at the minimum."""
    modes = argon.thermodynamics.gruneisen
    squares = modes.frequencies**2 * modes.weights[:, None]
    mean = (squares * np.nan_to_num(modes.parameters)).sum() / squares.sum()
    assert mean == pytest.approx(19 / 6, rel=5e-3)


def test_two_ways_to_the_gruneisen_parameter(argon):
    """α B V / C_V from the free energies' fits is the average of the modes' own parameters, at the static volume."""
    qha = argon.thermodynamics
    assert argon.state == "converged"
    (low,) = qha.thermal_gruneisen[qha.temperatures == 60.0]
    assert low == pytest.approx(qha.gruneisen.mean(60.0), rel=0.05)


def test_thermodynamics(argon):
    qha = argon.thermodynamics
    assert qha.temperatures == pytest.approx(SETTINGS.temperatures)
    assert qha.volume[0] > FCC**3 / 4  # vibrations at zero temperature already expand it
    assert (np.diff(qha.volume) > 0).all()
    assert (np.diff(qha.bulk_moduli) < 0).all()
    assert qha.bulk_moduli[0] < qha.bulk_modulus
    slope = np.gradient(qha.volume, qha.temperatures) / qha.volume
    assert qha.thermal_expansion[2:-1] == pytest.approx(slope[2:-1], rel=1e-6)
    assert qha.heat_capacity[0] == 0


def test_heat_capacities_at_constant_pressure_and_volume(argon):
    """C_P − C_V = α² B V T, with C_V from the modes' frequencies at the volume of that temperature."""
    qha, modes, at = argon.thermodynamics, argon.thermodynamics.gruneisen, 50
    temperature = qha.temperatures[at]
    frequencies = modes.frequencies * (qha.volume[at] / (FCC**3 / 4)) ** -np.nan_to_num(modes.parameters)
    x = 47.9924307 * np.clip(frequencies, 1e-6, None) / temperature / 2
    capacity = BOLTZMANN * (modes.weights[:, None] * (x / np.sinh(x)) ** 2).sum() / modes.weights.sum()
    difference = qha.thermal_expansion[at] ** 2 * qha.bulk_moduli[at] / GPA * qha.volume[at] * temperature
    assert 0.05 * capacity < difference < 0.5 * capacity
    assert qha.heat_capacity[at] - difference == pytest.approx(capacity, rel=0.01)


def test_results_refer_to_the_cell_given(argon):
    (record,) = quasi_harmonic([crystal(FCC * 1.01)], Argon(), settings=SETTINGS)
    four, one = record.thermodynamics, argon.thermodynamics
    assert four.volume == pytest.approx(4 * one.volume, rel=1e-4)
    assert four.heat_capacity[1:] == pytest.approx(4 * one.heat_capacity[1:], rel=1e-3)
    assert four.gibbs == pytest.approx(4 * one.gibbs, rel=1e-4)
    assert four.thermal_expansion == pytest.approx(one.thermal_expansion, rel=1e-2, abs=1e-7)


def test_a_material_that_fails_has_its_reason_and_affects_no_other():
    overlapping = Structure(Lattice.cubic(5), ["Ar", "Ar"], [[0, 0, 0], [0, 0, 0.01]])
    simple_cubic = Structure(Lattice.cubic(3.8), ["Ar"], [[0, 0, 0]])  # pressed, it gives way to shear
    short = PhononSettings(min_length=7.0, temperatures=(0.0, 100.0, 200.0))
    pressed = (0.9, 0.92, 0.94, 0.96, 0.98, 1.0, 1.02)
    broken, soft, whole = quasi_harmonic(
        [overlapping, simple_cubic, primitive()], Argon(), settings=short, volumes=pressed
    )
    assert broken.state == soft.state == "failed"
    assert broken.error
    assert "imaginary modes at" in soft.error
    assert whole.state == "converged"
    assert "outside of the computed ones" in whole.warnings[0]
    assert quasi_harmonic([], Argon()) == []
    with pytest.raises(ValueError, match="volumes must be at least 5"):
        quasi_harmonic([primitive()], Argon(), volumes=(0.9, 1.0, 1.1))
    with pytest.raises(ValueError, match="start at 0 K"):
        quasi_harmonic([primitive()], Argon(), settings=PhononSettings(temperatures=(100.0, 200.0, 300.0)))


def test_volumes_with_imaginary_modes_are_left_out():
    """Such bonds are unstable when stretched far."""
    (record,) = quasi_harmonic(
        [primitive()], Argon(), settings=SETTINGS, volumes=(0.96, 0.98, 1.0, 1.02, 1.04, 1.06, 1.5)
    )
    assert record.state == "converged"
    assert any("volume 1.5 (" in warning for warning in record.warnings)
    assert len(record.thermodynamics.volumes) == 6
