"""The integrators sample their ensembles: tests of P. T. Merz and M. R. Shirts, PLoS ONE 13, e0202764 (2018)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import physical_validation as pv
import pytest

from matris.properties.dynamics import DynamicsSettings, dynamics
from matris.properties.ensembles import BOLTZMANN
from tests.matris.argon import FCC, Argon, crystal

if TYPE_CHECKING:
    from matris.properties.dynamics import TimeSeries

ATOMS = 32
UNITS = pv.data.UnitData(
    kb=BOLTZMANN,
    energy_conversion=96.48533212,  # eV to kJ/mol
    length_conversion=0.1,
    volume_conversion=1e-3,
    temperature_conversion=1,
    pressure_conversion=1e4,  # GPa to bar
    time_conversion=1e-3,
)
SHORT, LONG = 2000, 12000  # steps
TOLERATED = 3.5  # standard deviations


def run(ensemble: str, temperature: float, n_steps: int, **other: float) -> TimeSeries:
    """Thirty-two atoms so cold that none crosses the cut-off; the first fifth of the frames is left out later."""
    settings = DynamicsSettings(
        ensemble=ensemble,
        temperature=temperature,
        **{"time_step": 4.0, "interval": 10, "barostat_time": 200.0, "n_steps": n_steps, "seed": 5} | other,
    )
    (record,) = dynamics([crystal(FCC * 1.005).make_supercell(2)], Argon(), settings=settings)
    assert record.state == "completed"
    return record.series


def data(series: TimeSeries, ensemble: str, temperature: float, pressure: float = 0.0) -> pv.data.SimulationData:
    kept = slice(len(series.time) // 5, None)
    potential, total = ATOMS * series.potential_energy[kept], ATOMS * series.total_energy[kept]
    fixed = {"pressure": pressure} if ensemble == "NPT" else {"volume": float(series.volume[0])}
    return pv.data.SimulationData(
        units=UNITS,
        ensemble=pv.data.EnsembleData(ensemble, natoms=ATOMS, temperature=temperature, **fixed),
        system=pv.data.SystemData(natoms=ATOMS, nconstraints=0, ndof_reduction_tra=3, ndof_reduction_rot=0),
        observables=pv.data.ObservableData(
            kinetic_energy=total - potential,
            potential_energy=potential,
            total_energy=total,
            volume=series.volume[kept],
            temperature=series.temperature[kept],
        ),
    )


@pytest.mark.parametrize(
    ("ensemble", "n_steps"),
    [
        ("nvt", SHORT),
        pytest.param("nvt", LONG, marks=pytest.mark.slow),
        pytest.param("npt", LONG, marks=pytest.mark.slow),
    ],
)
def test_kinetic_energy_and_ensemble_at_two_temperatures(ensemble, n_steps):
    """Kinetic energies have the Γ distribution; energies (enthalpies) at two temperatures have Boltzmann's ratio."""
    cold, warm = (
        data(run(ensemble, kelvin, n_steps, seed=seed), ensemble.upper(), kelvin)
        for seed, kelvin in enumerate((40.0, 46.0))
    )
    for one in (cold, warm):
        mean, width = pv.kinetic_energy.distribution(one, verbosity=0, bootstrap_seed=1)
        assert mean < TOLERATED
        assert width < TOLERATED
    (off,) = pv.ensemble.check(cold, warm, verbosity=0)
    assert abs(off) < TOLERATED


def test_kinetic_energy_under_pressure():
    mean, width = pv.kinetic_energy.distribution(data(run("npt", 45.0, SHORT), "NPT", 45.0), verbosity=0)
    assert mean < TOLERATED
    assert width < TOLERATED


@pytest.mark.slow
def test_volumes_at_two_pressures():
    low, high = (
        data(run("npt", 45.0, LONG, pressure=pressure, seed=seed), "NPT", 45.0, pressure)
        for seed, pressure in enumerate((0.0, 0.1))
    )
    (off,) = pv.ensemble.check(low, high, verbosity=0)
    assert abs(off) < TOLERATED


def test_a_wrong_ensemble_is_found():
    """The same test with temperatures that are not those of the runs: so that it can fail."""
    cold, warm = (
        data(run("nvt", kelvin, SHORT, seed=seed), "NVT", wrong)
        for seed, (kelvin, wrong) in enumerate(((40.0, 40.0), (46.0, 60.0)))
    )
    mean, _ = pv.kinetic_energy.distribution(warm, verbosity=0, bootstrap_seed=1)
    assert mean > 2 * TOLERATED
    (off,) = pv.ensemble.check(cold, warm, verbosity=0)
    assert abs(off) > TOLERATED


def test_nve_drift_goes_with_the_square_of_the_time_step():
    """A symplectic integrator's energy fluctuates by dt², and does not drift."""
    runs = []
    for step in (8.0, 4.0, 2.0):
        series = run("nve", 60.0, round(1600 * 2 / step), time_step=step, interval=1)
        slope, error = series.drift()
        assert abs(slope) < max(4 * error, 1e-6)
        runs.append(
            pv.data.SimulationData(
                units=UNITS,
                dt=step,
                ensemble=pv.data.EnsembleData("NVE", natoms=ATOMS, volume=float(series.volume[0]), energy=0.0),
                system=pv.data.SystemData(natoms=ATOMS, nconstraints=0, ndof_reduction_tra=3, ndof_reduction_rot=0),
                observables=pv.data.ObservableData(constant_of_motion=ATOMS * series.total_energy),
            )
        )
    assert pv.integrator.convergence(runs, verbose=False) < 0.3
    assert np.std(runs[0].observables.constant_of_motion) > 1e-5  # so that the line above can fail
