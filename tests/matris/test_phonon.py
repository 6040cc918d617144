"""Phonons against the analytic ones of a crystal held by springs between nearest neighbors."""

from __future__ import annotations

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from matris.phonon import PhononSettings, phonons, supercell_matrix

from .argon import FCC, Argon
from .test_elastic import STIFFNESS, primitive

MASS = 39.948
THZ = 15.633302  # of one (eV/Å²/u)^½
BOLTZMANN = 8.617333e-5  # eV/K
SETTINGS = PhononSettings(min_length=10.0, temperatures=(0.0, 50.0, 300.0, 2000.0))


@pytest.fixture(scope="module")
def springs():
    (record,) = phonons([primitive(FCC * 1.01)], Argon(), settings=SETTINGS)
    return record


def test_zone_boundary(springs):
    """At X of fcc with central springs k: ω² = 8k/m (longitudinal) and 4k/m (transverse, twice)."""
    assert springs.state == "converged"
    assert not springs.warnings
    qpoints = springs.phonons.phonopy.run_qpoints([[0.5, 0.5, 0.0]])
    unit = THZ * (STIFFNESS / MASS) ** 0.5
    assert qpoints.frequencies[0] == pytest.approx(np.array([2, 2, 8**0.5]) * unit, rel=2e-3)


def test_sum_rule_and_path(springs):
    found = springs.phonons
    assert found.n_atoms == 1
    assert not found.has_imaginary_modes
    assert found.phonopy.run_qpoints([[0, 0, 0]]).frequencies[0] == pytest.approx(0, abs=1e-4)
    assert found.labels[0].endswith("Gamma$") or "Γ" in found.labels[0] or "GAMMA" in found.labels[0].upper()
    assert len(found.frequencies) == len(found.distances) == len(found.connections)
    assert np.trapezoid(found.dos, found.dos_frequencies) == pytest.approx(3, rel=0.02)


def test_heat_capacity_of_dulong_and_petit(springs):
    found = springs.phonons
    assert found.heat_capacity[0] == pytest.approx(0, abs=1e-9)
    assert found.heat_capacity[-1] == pytest.approx(3 * BOLTZMANN, rel=5e-3)
    assert (np.diff(found.free_energy) < 0).all()
    assert (np.diff(found.entropy) > 0).all()


def test_instability_is_told():
    """A simple cubic crystal of such springs does not resist shear; stretched, its transverse modes are imaginary."""
    cubic = Structure(Lattice.cubic(3.9), ["Ar"], [[0, 0, 0]])
    (record,) = phonons([cubic], Argon(), settings=SETTINGS, max_steps=0)
    assert record.state == "max_steps"
    assert record.phonons.has_imaginary_modes == any("unstable" in w for w in record.warnings)
    pressed = Structure(Lattice.cubic(3.75), ["Ar"], [[0, 0, 0]])
    (record,) = phonons([pressed], Argon(), settings=SETTINGS, max_steps=0)
    assert record.phonons.min_frequency < -0.1
    assert any("unstable" in w for w in record.warnings)


@pytest.mark.parametrize(
    "cell", [primitive(5.4), Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.4), ["Ar"], [[0] * 3])]
)
def test_supercell_is_cubic_where_the_crystal_is(cell):
    matrix = supercell_matrix(cell, 10.0, 1e-3)
    lattice = Lattice(matrix.T @ cell.lattice.matrix)
    assert lattice.abc == pytest.approx((10.8, 10.8, 10.8))
    assert lattice.angles == pytest.approx((90, 90, 90))


def test_supercell_of_a_slanted_cell_is_wide_enough():
    slanted = Structure(Lattice.from_parameters(3, 4, 5, 50, 60, 70), ["Ar", "Kr"], [[0, 0, 0], [0.4, 0.5, 0.6]])
    vectors = supercell_matrix(slanted, 9.0, 1e-3).T @ slanted.lattice.matrix
    assert (1 / np.linalg.norm(np.linalg.inv(vectors), axis=0) >= 9 - 1e-6).all()


def test_a_broken_material_costs_only_itself():
    overlapping = Structure(Lattice.cubic(5), ["Ar", "Ar"], [[0, 0, 0], [0, 0, 0.01]])
    broken, whole = phonons([overlapping, primitive()], Argon(), settings=SETTINGS)
    assert broken.state == "failed"
    assert broken.error
    assert whole.state == "converged"
    assert phonons([], Argon()) == []
