"""Activation energies and conductivities, against pymatgen's analyser and particles whose diffusion is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pymatgen.core import Lattice, Structure
from scipy.special import i0

from matris.properties.arrhenius import arrhenius, charges_of, checked_temperatures, diffusion, nernst_einstein
from matris.properties.diffusivity import CM2_PER_S
from matris.properties.dynamics import DynamicsSettings, dynamics
from matris.properties.ensembles import BOLTZMANN, FEMTOSECOND
from tests.matris.argon import Argon, crystal
from tests.matris.wells import Cosine, Wells, lattice_gas

SHORT = DynamicsSettings(n_steps=8, interval=1)


def test_fit_of_pymatgen():
    """The same line and, where coefficients scatter more than by their errors, the same error of its slope."""
    analyzer = pytest.importorskip("pymatgen.analysis.diffusion.analyzer")
    kelvins = [600, 700, 850, 1000, 1200]
    values = 2e-3 * np.exp(-0.31 / (BOLTZMANN * np.array(kelvins))) * np.array([1.2, 0.8, 1.1, 0.9, 1.05])
    found = arrhenius({kelvin: (value, 0.01 * value) for kelvin, value in zip(kelvins, values, strict=True)})
    energy, prefactor, error = analyzer.fit_arrhenius(kelvins, values)
    assert found.activation_energy == pytest.approx(energy)
    assert found.prefactor == pytest.approx(prefactor)
    assert found.error == pytest.approx(error)
    assert found.room.value == pytest.approx(analyzer.get_extrapolated_diffusivity(kelvins, values, 300))
    assert found.probability < 1e-3


def test_errors_of_the_fit_are_those_of_repeated_fits():
    random = np.random.default_rng(0)
    kelvins = np.array([600.0, 800.0, 1000.0])
    exact = 1e-3 * np.exp(-0.3 / (BOLTZMANN * kelvins))
    fits = []
    for _ in range(300):
        blocks = exact[:, None] * (1 + 0.3 * random.standard_normal((3, 5)))
        means, errors = blocks.mean(axis=1), blocks.std(axis=1, ddof=1) / 5**0.5
        fits.append(arrhenius(dict(zip(kelvins, zip(means, errors, strict=True), strict=True))))
    assert np.mean([fit.activation_energy for fit in fits]) == pytest.approx(0.3, abs=0.01)
    assert 0.5 < np.mean([abs(fit.activation_energy - 0.3) < fit.error for fit in fits]) < 0.85
    room = 1e-3 * np.exp(-0.3 / (BOLTZMANN * 300))
    assert 0.5 < np.mean([fit.room.low < room < fit.room.high for fit in fits]) < 0.85
    assert np.mean([fit.probability < 0.01 for fit in fits]) < 0.03


def test_conductivity_of_pymatgen():
    analyzer = pytest.importorskip("pymatgen.analysis.diffusion.analyzer")
    fluorite = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.46), ["Ca2+", "F-"], [[0, 0, 0], [0.25] * 3])
    per_cm2 = analyzer.get_conversion_factor(fluorite, "Ca2+", 700) / 1000
    assert nernst_einstein(4, 2, 1.0, 700, fluorite.volume) == pytest.approx(per_cm2)


def test_charges():
    fluorite = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.46), ["Ca", "F"], [[0, 0, 0], [0.25] * 3])
    assert charges_of(fluorite) == ({"Ca": 2, "F": -1}, "composition")
    magnetite = Structure(Lattice.cubic(4), ["Fe2+", "Fe3+", "O2-"], [[0, 0, 0], [0.5, 0, 0], [0, 0.5, 0]])
    assert charges_of(magnetite) == ({"Fe": 2.5, "O": -2}, "input")
    assert charges_of(magnetite, {"Fe": 1, "Li": 3}) == ({"Fe": 1}, "given")
    assert charges_of(lattice_gas(2)) == ({}, None)


def test_a_gas_at_three_temperatures_in_one_batch():
    """D = kT τ/m at each temperature, as in a run of its own; conductivity by hand."""
    settings = DynamicsSettings(time_step=5, n_steps=1000, interval=5, thermostat_time=25, seed=4)
    (record,) = diffusion(
        [lattice_gas(5)],
        Wells(),
        temperatures=[900, 300, 600],
        charges={"Ar": 2},
        settings=settings,
        max_batch_atoms=1000,
    )
    assert record.temperatures == (300, 600, 900)
    for n, (kelvin, run) in enumerate(zip(record.temperatures, record.runs, strict=True)):
        found = run.diffusion["Ar"]
        exact = CM2_PER_S * BOLTZMANN * kelvin / 39.95 * FEMTOSECOND**2 * 25 * (1 - 1 / 5**3)
        assert found.coefficient == pytest.approx(exact, abs=4 * found.error)
        assert found.error < 0.1 * exact
        value, error = record.conductivities[n]
        assert value == pytest.approx(nernst_einstein(125, 2, found.coefficient, kelvin, 1e6))
        assert error / value == pytest.approx(found.error / found.coefficient)
    line = record.elements["Ar"]
    assert line.temperatures == record.temperatures
    assert 0.02 < line.activation_energy < 0.08  # d ln T/d(-1/kT) is kT
    assert record.conductivity.low < record.conductivity.value < record.conductivity.high
    expected = nernst_einstein(125, 2, line.room.value, 300, 1e6)
    assert record.conductivity.value == pytest.approx(expected)
    assert record.charges_from == "given"
    assert not record.is_reliable  # the thermostat slows
    assert "300 K: the friction of the thermostat" in record.warnings[0]


def test_a_run_does_not_depend_on_the_other_temperatures():
    settings = DynamicsSettings(n_steps=100, interval=2, seed=4, time_step=5)
    (record,) = diffusion([lattice_gas(3)], Wells(), temperatures=[300, 600], settings=settings, max_batch_atoms=1000)
    own = DynamicsSettings(n_steps=100, interval=2, seed=5, time_step=5, temperature=600)
    (alone,) = dynamics([lattice_gas(3)], Wells(), settings=own)
    assert alone.diffusion == record.runs[1].diffusion
    assert alone.structure == record.runs[1].structure


@pytest.mark.slow
def test_hops_between_wells():
    """D = kT τ/m / I0(U/kT)² in the potential U cos(kx) of strong friction: S. Lifson, J. L. Jackson (1962)."""
    kelvins, depth, period = (350.0, 500.0, 800.0), 0.05, 1.5
    settings = DynamicsSettings(time_step=2, n_steps=12_000, interval=20, thermostat_time=4)
    gas = lattice_gas(4, spacing=30, element="He")
    (record,) = diffusion([gas], Cosine(depth, period), temperatures=kelvins, settings=settings)
    exact = [
        CM2_PER_S * BOLTZMANN * t / 4.0026 * FEMTOSECOND**2 * 4 / i0(depth / (BOLTZMANN * t)) ** 2 for t in kelvins
    ]
    for run, expected in zip(record.runs, exact, strict=True):
        found = run.diffusion["He"]
        assert found.error < 0.15 * expected
        assert found.coefficient == pytest.approx(expected, abs=3 * found.error + 0.05 * expected)
    line = arrhenius({t: (value, 0.1 * value) for t, value in zip(kelvins, exact, strict=True)})
    assert record.elements["He"].activation_energy == pytest.approx(
        line.activation_energy, abs=3 * record.elements["He"].error
    )


def test_what_is_missing_is_said():
    records = diffusion(
        [crystal(), Structure(Lattice.cubic(3), ["Ar"], [[0, 0, 0]])], Argon(), temperatures=[50], settings=SHORT
    )
    still, single = records
    assert still.state == "completed"
    assert not still.is_reliable
    assert still.elements["Ar"].problem == "no temperature has a diffusion coefficient; two are needed"
    assert "Ar at 50 K: fewer than 20 frames" in still.warnings[0]
    assert still.conductivities == (None,)
    assert single.state == "failed"
    assert "one atom" in single.error


def test_one_temperature_fails():
    """The run at the higher temperature fails; the other one is kept."""

    def explode(state, output):
        output["forces"][state.system_idx == 1] = torch.nan

    (record,) = diffusion([crystal()], Argon(after=explode), temperatures=[20, 40], settings=SHORT, max_batch_atoms=100)
    assert [run.state for run in record.runs] == ["completed", "failed"]
    assert record.state == "completed"
    assert "40 K: energy, forces or stress are NaN" in record.warnings[0]
    assert not record.is_reliable


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"temperatures": []}, "temperatures are missing"),
        ({"temperatures": [600, 600.0]}, "600 K is there twice"),
        ({"temperatures": [0, 600]}, "above 0 K, got 0"),
        ({"temperatures": [float("nan")]}, "above 0 K, got nan"),
        ({"temperatures": [600], "charges": {"Ar": float("nan")}}, "charge of Ar must be a number"),
        ({"temperatures": [600], "settings": DynamicsSettings(ensemble="nve")}, "not nve"),
    ],
)
def test_settings_out_of_range(given, message):
    with pytest.raises(ValueError, match=message):
        diffusion([crystal()], Argon(), **given)


def test_settings_of_a_batch_differ_in_temperatures_alone():
    both = [DynamicsSettings(temperature=100), DynamicsSettings(temperature=200, n_steps=3)]
    with pytest.raises(ValueError, match="temperatures and seeds alone"):
        dynamics([crystal()] * 2, Argon(), settings=both)
    with pytest.raises(ValueError, match="2 settings for 1 materials"):
        dynamics([crystal()], Argon(), settings=both)
    assert checked_temperatures((3, 1, 2)) == (1, 2, 3)
