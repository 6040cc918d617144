"""Phonons against the analytic ones of a crystal held by springs between nearest neighbors."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from matris.properties.instability import UnstableMode, commensurate_cell, distorted
from matris.properties.phonons import BornCharges, PhononSettings, phonons, supercell_matrix
from tests.matris.argon import FCC, NEIGHBOR, Argon, lennard_jones
from tests.matris.properties.test_elastic import STIFFNESS, primitive

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
    results = springs.phonons
    assert results.n_atoms == 1
    assert not results.has_imaginary_modes
    assert results.phonopy.run_qpoints([[0, 0, 0]]).frequencies[0] == pytest.approx(0, abs=1e-4)
    assert results.labels[0].endswith("Gamma$") or "Γ" in results.labels[0] or "GAMMA" in results.labels[0].upper()
    assert len(results.frequencies) == len(results.distances) == len(results.connections)
    assert np.trapezoid(results.dos, results.dos_frequencies) == pytest.approx(3, rel=1e-3)


def test_heat_capacity_of_dulong_and_petit(springs):
    results = springs.phonons
    assert results.heat_capacity[0] == pytest.approx(0, abs=1e-9)
    assert results.heat_capacity[-1] == pytest.approx(3 * BOLTZMANN, rel=5e-3)
    assert (np.diff(results.free_energy) < 0).all()
    assert (np.diff(results.entropy) > 0).all()


def test_instability_is_told():
    """A simple cubic crystal of such springs does not resist shear; compressed, its transverse modes are imaginary."""
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


def rocksalt(a: float = 0.98 * 2 * NEIGHBOR) -> Structure:
    """Conventional cell; unstable under pressure, because springs connect only nearest neighbors."""
    return Structure.from_spacegroup("Fm-3m", Lattice.cubic(a), ["Ar", "Kr"], [[0, 0, 0], [0.5] * 3])


def charged(cell: Structure, z: float = 1.2) -> np.ndarray:
    return np.array([(z if site.specie.symbol == "Ar" else -z) * np.eye(3) for site in cell])


def test_longitudinal_modes_feel_their_field():
    """In a cubic crystal of two atoms ω²(LO) − ω²(TO) = Z² e² / (ε₀ ε μ V)."""
    cell, z, epsilon = rocksalt(), 1.2, 2.5
    uneven = charged(cell, z) + 0.05 * np.eye(3)  # removed by the sum rule
    without, with_field = phonons(
        [cell, cell], Argon(), settings=SETTINGS, max_steps=0, born=[None, BornCharges(uneven, epsilon * np.eye(3))]
    )
    transverse = without.phonons.phonopy.run_qpoints([[0, 0, 0]]).frequencies[0]
    field = with_field.phonons.phonopy.run_qpoints([[0, 0, 0]], nac_q_direction=[1, 0, 0]).frequencies[0]
    reduced = MASS * 83.798 / (MASS + 83.798)
    split = THZ**2 * 4 * np.pi * 14.399645 * z**2 / (epsilon * reduced * cell.volume / 4)
    assert field[5] ** 2 - transverse[5] ** 2 == pytest.approx(split, rel=1e-5)
    assert field[3:5] == pytest.approx(transverse[3:5], rel=1e-6)


def test_wrong_charges_cost_only_their_material():
    cell = rocksalt()
    nan = charged(cell)
    nan[0, 0, 0] = np.nan
    given = [BornCharges(charged(cell)[:2], np.eye(3)), BornCharges(nan, np.eye(3)), None]
    short, broken, whole = phonons([cell] * 3, Argon(), settings=SETTINGS, max_steps=0, born=given)
    assert (short.state, broken.state) == ("failed", "failed")
    assert "not (8, 3, 3)" in short.error
    assert "NaN" in broken.error
    assert whole.phonons is not None
    with pytest.raises(ValueError, match="1 entries for 2 structures"):
        phonons([cell] * 2, Argon(), born=[None])


def test_worst_instability_is_followed_downhill():
    (record,) = phonons([rocksalt()], Argon(), settings=SETTINGS, fmax=1e-3, max_steps=0, follow=True)
    mode, phonopy = record.phonons.unstable_mode, record.phonons.phonopy
    assert mode.frequency < -0.5
    assert phonopy.run_qpoints([mode.qpoint]).frequencies.min() == pytest.approx(mode.frequency)
    assert np.linalg.norm(mode.eigenvector) == pytest.approx(1)
    assert len(mode.relaxed.structure) == 4  # a wave vector of the zone's boundary doubles the primitive cell
    assert mode.energy_gain(record.start) < -1e-4
    (record,) = phonons([rocksalt()], Argon(), settings=SETTINGS, fmax=1e-3, max_steps=0)
    assert record.phonons.unstable_mode.relaxed is None


@pytest.mark.parametrize("qpoint", [[0, 0, 0], [0.5, 0, 0.5], [1 / 3, 1 / 3, 0], [0.25, 0.5, 0.75], [0.5, 1 / 3, 0]])
def test_smallest_cell_that_holds_a_wave(qpoint):
    fractions = [Fraction(x).limit_denominator(12) for x in qpoint]
    vectors = commensurate_cell(np.array(qpoint), 12)
    assert (vectors @ qpoint).round(9) % 1 == pytest.approx(0)
    assert round(np.linalg.det(vectors)) == math.lcm(*(x.denominator for x in fractions))
    assert np.linalg.det(vectors) >= 1


@pytest.mark.parametrize("qpoint", [[0.5, 0, 0.5], [1 / 3, 1 / 3, 0]])
def test_distorted_cell_moves_as_the_mode_does(qpoint):
    """To second order the energy changes by ½ ω² Σ m u²."""
    (record,) = phonons([rocksalt()], Argon(), settings=SETTINGS, max_steps=0)
    phonopy = record.phonons.phonopy
    phonopy.run_qpoints([qpoint], with_eigenvectors=True)
    modes = phonopy.qpoints
    mode = UnstableMode(np.array(qpoint), modes.frequencies[0, 5], modes.eigenvectors[0, :, 5].reshape(-1, 3))
    cell = distorted(phonopy, mode)
    assert cell.lattice.volume / phonopy.primitive.volume == pytest.approx(len(cell) / 2)
    perfect = phonopy.primitive
    lattice = Lattice(perfect.cell)
    moves = []
    for site in cell:
        places = lattice.get_fractional_coords(site.coords) - perfect.scaled_positions
        near = places - places.round()
        moves.append(min((lattice.get_cartesian_coords(x) for x in near), key=np.linalg.norm))
    moves = np.array(moves)
    assert np.linalg.norm(moves, axis=1).max() == pytest.approx(0.1)
    masses = np.array([MASS if site.specie.symbol == "Ar" else 83.798 for site in cell])
    still = Structure(cell.lattice, cell.species, cell.cart_coords - moves, coords_are_cartesian=True)
    small = Structure(cell.lattice, cell.species, cell.cart_coords - 0.9 * moves, coords_are_cartesian=True)
    energies = [lennard_jones(s.cart_coords, s.lattice.matrix)[0] for s in (still, small)]
    expected = 0.5 * (mode.frequency / THZ) ** 2 * (masses[:, None] * (0.1 * moves) ** 2).sum()
    assert energies[1] - energies[0] == pytest.approx(expected, rel=0.02)
