"""Properties and hulls under pressure, against copper and gold by ASE's effective-medium theory."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from scipy.optimize import brentq, minimize_scalar

import matris
from matris.properties.elastic import elastic
from matris.properties.eos import eos
from matris.properties.phonons import PhononSettings
from matris.properties.qha import quasi_harmonic
from matris.stores.documents.documents import hull_fields
from matris.stores.hull.hull import hull_results
from matris.units import GPA

PRESSURE = 20.0  # GPa


def emt(atoms):
    atoms.calc = EMT()
    return atoms


def scaled(atoms, a):
    """Scale a cubic cell to a lattice constant."""
    copy = atoms.copy()
    copy.set_cell(atoms.cell * (a / atoms.cell.cellpar()[0]), scale_atoms=True)
    return emt(copy)


def pressure(a, atoms):
    return -GPA * np.trace(scaled(atoms, a).get_stress(voigt=False)) / 3


@pytest.fixture(scope="module")
def cubic():
    """Copper at the pressure, by a root of ASE's stress."""
    cell = bulk("Cu", cubic=True)
    return scaled(cell, brentq(lambda a: pressure(a, cell) - PRESSURE, 3.3, 3.7, xtol=1e-10))


def test_elastic_constants_are_slopes_of_the_cauchy_stress(cubic):
    (record,) = elastic([bulk("Cu", cubic=True)], matris.AseModel(EMT()), fmax=1e-4, pressure=PRESSURE)
    assert record.state == "converged"
    assert record.structure.volume == pytest.approx(cubic.cell.volume, rel=1e-5)
    slopes = {}
    for mode, strain in {
        "stretch": np.diag([1.0, 0, 0]),
        "shear": np.array([[0, 0, 0], [0, 0, 0.5], [0, 0.5, 0]]),
    }.items():
        ends = []
        for size in (-1e-4, 1e-4):
            cell = cubic.copy()
            cell.set_cell(cubic.cell @ (np.eye(3) + size * strain), scale_atoms=True)
            ends.append(emt(cell).get_stress())
        slopes[mode] = GPA * (ends[1] - ends[0]) / 2e-4
    expected = [slopes["stretch"][0], slopes["stretch"][1], slopes["shear"][3]]
    c = record.fit.tensor
    assert [c[0, 0], c[0, 1], c[3, 3]] == pytest.approx(expected, rel=2e-3)
    assert record.fit.moduli()["k_voigt"] == pytest.approx((expected[0] + 2 * expected[1]) / 3, rel=2e-3)
    with pytest.raises(ValueError, match="no effect on cells that do not relax"):
        elastic([bulk("Cu")], matris.AseModel(EMT()), relax_first=False, pressure=PRESSURE)


def test_equation_of_state_at_a_pressure(cubic):
    """Volume and bulk modulus at 20 GPa are those of ASE's pressures; the work of the pressures agrees."""
    (record,) = eos([bulk("Cu")], matris.AseModel(EMT()), fmax=1e-4, pressure=PRESSURE)
    a, step = cubic.cell.cellpar()[0], 1e-3
    slope = (pressure(a + step, cubic) - pressure(a - step, cubic)) / (2 * step)
    for fit in record.fits:
        assert fit.v0 == pytest.approx(cubic.cell.volume / 4, rel=1e-3)
        assert fit.b0 == pytest.approx(-a / 3 * slope, rel=2e-2)
        assert fit.e0 == pytest.approx(
            (cubic.get_potential_energy() + PRESSURE / GPA * cubic.cell.volume) / 4, abs=1e-3
        )
    assert record.is_reliable, record.warnings


def test_quasi_harmonic_free_energies_at_a_pressure(cubic):
    settings = PhononSettings(min_length=3.5, temperatures=(0.0, 150.0, 300.0))
    volumes = (0.98, 1.0, 1.02, 1.04, 1.06)
    (record,) = quasi_harmonic(
        [bulk("Cu")], matris.AseModel(EMT()), settings=settings, volumes=volumes, fmax=1e-3, pressure=PRESSURE
    )
    result = record.thermodynamics
    enthalpy = (cubic.get_potential_energy() + PRESSURE / GPA * cubic.cell.volume) / 4
    assert result.gibbs[0] - enthalpy == pytest.approx(0.035, abs=0.015)  # zero-point energy of a metal
    static = result.energies + PRESSURE / GPA * result.volumes
    assert result.helmholtz[0] + PRESSURE / GPA * result.volumes - static == pytest.approx(0.035, abs=0.015)
    assert result.volume[2] > result.volume[0] > cubic.cell.volume / 4
    assert record.start.enthalpy(PRESSURE) == pytest.approx(enthalpy, abs=1e-5)


def phases():
    """Copper, gold and Cu3Au: cubic, their atoms fixed by symmetry."""
    ordered = bulk("Cu", cubic=True)
    ordered.symbols[0] = "Au"
    ordered.set_cell(3.75 * np.eye(3), scale_atoms=True)
    return {"Cu": bulk("Cu", cubic=True), "Au": bulk("Au", cubic=True), "Cu3Au": ordered}


@pytest.mark.parametrize("applied", [0.0, 40.0])
def test_enthalpy_hull_by_hand(applied):
    """Cu3Au lies below copper and gold by the enthalpies that ASE gives at the best lattice constant."""
    by_hand, documents = {}, []
    records = sorted(
        matris.relax(phases().values(), matris.AseModel(EMT()), fmax=1e-4, pressure=applied), key=lambda r: r.index
    )
    for (name, atoms), record in zip(phases().items(), records, strict=True):
        best = minimize_scalar(
            lambda a, atoms=atoms: scaled(atoms, a).get_potential_energy() + applied / GPA * a**3,
            bounds=(3.2, 4.3),
            method="bounded",
            options={"xatol": 1e-9},
        )
        by_hand[name] = best.fun / 4
        fields = hull_fields(record.structure, record.energy, "matpes-pbe", applied)
        tag = {"max_steps": 500, "pressure": applied, "digest": "0" * 12}
        checkpoint = {"key": "EMT", "sha256": "0" * 64, "energy_scale": "matpes-pbe"}
        documents.append(
            {"document_id": name, "state": "converged", "settings": tag, "checkpoint": checkpoint, **fields}
        )
    place = hull_results(documents)["Cu3Au"]
    formation = by_hand["Cu3Au"] - 0.75 * by_hand["Cu"] - 0.25 * by_hand["Au"]
    assert place.formation_energy_per_atom == pytest.approx(formation, abs=1e-5)
    assert place.equilibrium_reaction_energy_per_atom == pytest.approx(formation, abs=1e-5)
    assert ("40 GPa" in place.hull_reference) is bool(applied)
    energies = [document["energy_per_atom"] for document in documents]
    without_work = energies[2] - 0.75 * energies[0] - 0.25 * energies[1]
    assert abs(without_work - formation) < 1e-5 if not applied else abs(without_work - formation) > 1e-3
