"""What any interatomic potential must obey, whatever its weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pymatgen.core import Lattice, Structure
from scipy.spatial.transform import Rotation

from tests.matris.golden import golden_potential, structures


@pytest.fixture(scope="module")
def potential():
    return golden_potential("released_uneven", torch.float64)


@pytest.fixture
def crystal():
    return structures()["CuInSe2_triclinic"].copy()


def compute(potential, structure):
    return next(iter(potential.predict(structure)))


def test_rotation(potential, crystal):
    rotation = Rotation.from_euler("xyz", [0.3, -1.1, 0.7]).as_matrix()
    turned = Structure(Lattice(crystal.lattice.matrix @ rotation.T), crystal.species, crystal.frac_coords)
    before, after = compute(potential, crystal), compute(potential, turned)
    assert after.energy == pytest.approx(before.energy, abs=1e-9)
    assert np.allclose(after.forces, before.forces @ rotation.T, atol=1e-9)
    assert np.allclose(after.stress, rotation @ before.stress @ rotation.T, atol=1e-10)
    assert np.allclose(after.magmoms, before.magmoms, atol=1e-10)


def test_translation_and_periodic_images(potential, crystal):
    before = compute(potential, crystal)
    moved = crystal.copy()
    moved.translate_sites(range(len(moved)), [0.31, -0.2, 0.55], to_unit_cell=False)
    moved.translate_sites([1], [2, -1, 0], to_unit_cell=False)
    after = compute(potential, moved)
    assert after.energy == pytest.approx(before.energy, abs=1e-9)
    assert np.allclose(after.forces, before.forces, atol=1e-9)


def test_permutation(potential, crystal):
    order = [2, 0, 3, 1]
    before = compute(potential, crystal)
    after = compute(potential, Structure.from_sites([crystal[i] for i in order]))
    assert after.energy == pytest.approx(before.energy, abs=1e-10)
    assert np.allclose(after.forces, before.forces[order], atol=1e-10)


def test_supercell_is_extensive(potential, crystal):
    before = compute(potential, crystal)
    after = compute(potential, crystal.make_supercell([[2, 0, 0], [0, 1, 0], [1, 0, 2]], in_place=False))
    assert after.energy == pytest.approx(4 * before.energy, abs=1e-9)
    assert np.allclose(after.stress, before.stress, atol=1e-10)


def test_no_net_force_and_symmetric_stress(potential, crystal):
    result = compute(potential, crystal)
    assert np.abs(result.forces).max() > 0.01
    assert np.allclose(result.forces.sum(axis=0), 0, atol=1e-10)
    assert np.allclose(result.stress, result.stress.T, atol=1e-14)


@pytest.mark.parametrize("name", ["released_small", "released_uneven", "sh_rms", "gauss_mlp_bias"])
def test_forces_against_finite_differences(name):
    potential, crystal, step = golden_potential(name, torch.float64), structures()["CuInSe2_triclinic"], 1e-4
    forces = compute(potential, crystal).forces
    for atom, axis in ((0, 0), (1, 2), (3, 1)):
        energies = []
        for sign in (1, -1):
            moved = crystal.copy()
            moved.translate_sites([atom], sign * step * np.eye(3)[axis], frac_coords=False, to_unit_cell=False)
            energies.append(compute(potential, moved).energy)
        assert forces[atom, axis] == pytest.approx(-(energies[0] - energies[1]) / (2 * step), abs=2e-6)


def test_stress_against_finite_differences(potential, crystal):
    stress, step = compute(potential, crystal).stress, 1e-4
    for i, j in ((0, 0), (1, 2), (0, 2)):
        energies = []
        for sign in (1, -1):
            strain = np.eye(3)
            strain[i, j] += sign * step / 2
            strain[j, i] += sign * step / 2
            strained = Structure(Lattice(crystal.lattice.matrix @ strain), crystal.species, crystal.frac_coords)
            energies.append(compute(potential, strained).energy)
        slope = (energies[0] - energies[1]) / (2 * step) / crystal.volume
        assert stress[i, j] == pytest.approx(slope, abs=1e-7)


@pytest.mark.parametrize("cutoff", [4.5, 6.0], ids=["three-body", "pair"])
def test_enveloped_messages_are_smooth_as_an_atom_crosses_a_cutoff(cutoff):
    """Everything but the attention vanishes smoothly with the bond, energy and force.

    The attention of the published architecture has no envelope, so it jumps (docs/decisions.md); here its messages are
    silenced. How little it jumps in the trained embedded checkpoint is tested in test_embedded.py.
    """
    potential = golden_potential("released_uneven", torch.float64)
    for block in potential.network.blocks:
        for attention in (block.line_attention, block.atom_attention):
            attention.edge_mlp.norm.weight.zero_()
            attention.edge_mlp.norm.bias.zero_()
    third = [2.4, 0.3, 0.1]  # gives both bonds angles

    def at(distance):
        sites = [[0, 0, 0], [distance, 0, 0], third]
        cluster = Structure(Lattice.cubic(20.0), ["Cu", "Se", "In"], sites, coords_are_cartesian=True)
        return compute(potential, cluster)

    before, inside, outside = at(cutoff - 0.05), at(cutoff - 1e-7), at(cutoff + 1e-7)
    assert abs(before.energy - outside.energy) > 1e-3  # the pair does matter
    assert abs(inside.energy - outside.energy) < 1e-6
    assert np.abs(inside.forces - outside.forces).max() < 1e-5


def test_isolated_atoms_do_not_interact(potential):
    lone = Structure(Lattice.cubic(20.0), ["Cu"], [[0.1, 0.2, 0.3]])
    two = Structure(Lattice.orthorhombic(20, 20, 40), ["Cu", "Cu"], [[0, 0, 0], [0, 0, 0.5]])
    one, pair = compute(potential, lone), compute(potential, two)
    assert np.allclose(one.forces, 0)
    assert np.allclose(one.stress, 0)
    assert pair.energy == pytest.approx(2 * one.energy, abs=1e-9)
