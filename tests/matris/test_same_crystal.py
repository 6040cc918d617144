from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pymatgen.core import Lattice, Structure

from matris.same_crystal import MAX_DISPLACEMENT, MAX_STRAIN, SameCrystals, is_same_crystal


def perovskite(a: str, b: str, x: float, dz: float = 0.0, c: float | None = None) -> Structure:
    coordinates = [[0.5, 0.5, 0.5], [0, 0, dz], [0.5, 0, -0.8 * dz], [0, 0.5, -0.8 * dz], [0, 0, 0.5 - dz]]
    return Structure(Lattice.tetragonal(x, c or x), [a, b, "O", "O", "O"], coordinates)


def fcc(a: float, *species: str) -> Structure:
    basis = [[0, 0, 0], [0.5, 0.5, 0.5]]
    return Structure.from_spacegroup("Fm-3m", Lattice.cubic(a), species, basis[: len(species)])


POLYMORPHS = {
    "BaTiO3": (perovskite("Ba", "Ti", 4.03), perovskite("Ba", "Ti", 4.0, 0.02, 4.1)),
    "PbTiO3": (perovskite("Pb", "Ti", 3.97), perovskite("Pb", "Ti", 3.9, 0.04, 4.15)),
    "KNbO3": (perovskite("K", "Nb", 4.02), perovskite("K", "Nb", 4.0, 0.025, 4.1)),
    "GeTe": (
        fcc(5.98, "Ge", "Te").get_primitive_structure(),
        Structure(Lattice.rhombohedral(4.3, 58.0), ["Ge", "Te"], [[0, 0, 0], [0.475] * 3]),
    ),
    "In": (fcc(4.7, "In"), Structure(Lattice.tetragonal(3.25, 4.95), ["In", "In"], [[0, 0, 0], [0.5] * 3])),
}

CRYSTALS = {
    **{f"{name} {i}": crystal for name, pair in POLYMORPHS.items() for i, crystal in enumerate(pair)},
    "quartz": Structure.from_spacegroup(
        "P3_221", Lattice.hexagonal(4.916, 5.405), ["Si", "O"], [[0.4697, 0, 2 / 3], [0.4133, 0.2672, 0.7856]]
    ),
    "distorted perovskite": Structure.from_spacegroup(
        "Pnma",
        Lattice.orthorhombic(5.44, 7.64, 5.38),
        ["Ca", "Ti", "O", "O"],
        [[0.036, 0.25, 0.993], [0, 0, 0.5], [0.484, 0.25, 0.071], [0.289, 0.037, 0.711]],
    ),
    "triclinic": Structure(
        Lattice.from_parameters(3.6, 4.4, 5.1, 78, 83, 95),
        ["Li", "Fe", "O", "O"],
        np.random.default_rng(1).random((4, 3)),
    ),
}

UNIMODULAR = [np.eye(3, dtype=int), [[1, 1, 0], [0, 1, 0], [0, 0, 1]], [[1, 0, 0], [2, 1, 0], [1, -1, 1]]]
SUPERCELLS = [np.eye(3, dtype=int), np.diag([1, 1, 2]), [[1, 1, 0], [-1, 1, 0], [0, 0, 1]], np.diag([3, 1, 1])]


def disguised(structure: Structure, rng: np.random.Generator, unimodular: int, supercell: int, noise: float = 0.0):
    """The same crystal in another cell, at another origin, in another orientation and order."""
    large = structure.copy() * SUPERCELLS[supercell]
    basis = np.array(UNIMODULAR[unimodular])
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    coordinates = large.frac_coords @ np.linalg.inv(basis) + rng.random(3)
    order = rng.permutation(len(large))
    moved = Structure(basis @ large.lattice.matrix @ rotation, [large[i].specie for i in order], coordinates[order])
    return moved.perturb(noise, seed=int(rng.integers(2**31))) if noise else moved


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    name=st.sampled_from(sorted(CRYSTALS)),
    seed=st.integers(0, 2**31),
    unimodular=st.integers(0, 2),
    supercell=st.integers(0, 3),
    noise=st.sampled_from([0.0, 3e-4]),
)
def test_the_cell_the_origin_the_orientation_and_the_order_do_not_matter(name, seed, unimodular, supercell, noise):
    crystal = CRYSTALS[name]
    other = disguised(crystal, np.random.default_rng(seed), unimodular, supercell, noise)
    assert is_same_crystal(crystal, other)
    assert is_same_crystal(other, crystal)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    name=st.sampled_from(sorted(CRYSTALS)),
    seed=st.integers(0, 2**31),
    supercell=st.integers(1, 3),
    distance=st.floats(2 * MAX_DISPLACEMENT, 0.5),
)
def test_one_displaced_atom_of_a_supercell_makes_another_crystal(name, seed, supercell, distance):
    rng = np.random.default_rng(seed)
    crystal = disguised(CRYSTALS[name], rng, 0, supercell)
    direction = rng.normal(size=3)
    moved = crystal.copy()
    moved.translate_sites([0], distance * direction / np.linalg.norm(direction), frac_coords=False)
    assert not is_same_crystal(crystal, moved)
    assert not is_same_crystal(CRYSTALS[name], moved)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    name=st.sampled_from(sorted(CRYSTALS)),
    seed=st.integers(0, 2**31),
    size=st.floats(2 * MAX_STRAIN, 0.05),
    sign=st.sampled_from([-1, 1]),
)
def test_a_strained_crystal_is_another_one(name, seed, size, sign):
    rng = np.random.default_rng(seed)
    strain = rng.normal(size=(3, 3))
    strain = (strain + strain.T) / 2
    strain *= sign * size / np.abs(np.linalg.eigvalsh(strain)).max()
    crystal = CRYSTALS[name]
    strained = Structure(crystal.lattice.matrix @ (np.eye(3) + strain), crystal.species, crystal.frac_coords)
    assert not is_same_crystal(crystal, strained)
    assert not is_same_crystal(crystal, disguised(strained, rng, 1, 1))


@pytest.mark.parametrize("name", sorted(POLYMORPHS))
def test_polymorphs_are_different_crystals_in_either_order(name):
    for order in permutations(POLYMORPHS[name]):
        crystals = SameCrystals()
        assert [crystals.first_like(str(i), crystal) for i, crystal in enumerate(order)] == [None, None]


def test_digits_of_a_file_do_not_matter():
    crystal = CRYSTALS["distorted perovskite"]
    rounded = Structure(np.round(crystal.lattice.matrix, 3), crystal.species, np.round(crystal.frac_coords, 4))
    assert is_same_crystal(crystal, rounded)


def test_broken_symmetry_makes_another_crystal():
    cubic = perovskite("Ba", "Ti", 4.03)
    polar = perovskite("Ba", "Ti", 4.03, 0.0015)  # 0.006 Å
    tetragonal = perovskite("Ba", "Ti", 4.03, c=4.033)
    tilted = cubic * (2, 2, 2)
    tilted.perturb(0.005, seed=1)
    for other in (polar, tetragonal, tilted):
        assert not is_same_crystal(cubic, other)


def test_the_same_atoms_in_another_order_are_another_crystal():
    layered = Structure(Lattice.tetragonal(2.7, 3.7), ["Cu", "Au"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    cell = fcc(3.8, "Cu") * (2, 1, 1)
    ordered, antisite = cell.copy(), cell.copy()
    for i in (0, 1, 4, 5):
        ordered[i] = "Au"
    for i in (0, 1, 4, 6):
        antisite[i] = "Au"
    crystals = SameCrystals()
    assert [crystals.first_like(str(i), each) for i, each in enumerate((layered, ordered, antisite))] == [None] * 3


def test_volume_counts():
    assert not is_same_crystal(fcc(4.2, "Mg", "O"), fcc(4.25, "Mg", "O"))
    assert is_same_crystal(fcc(4.2, "Mg", "O"), fcc(4.2002, "Mg", "O"))


def test_isotopes_and_fixed_atoms_count():
    hydride = fcc(4.08, "Li", "H")
    deuteride = fcc(4.08, "Li", "D")
    heavy = hydride.copy(site_properties={"masses": [6.94] * 4 + [2.014] * 4})
    natural = hydride.copy(site_properties={"masses": [6.94] * 4 + [1.008] * 4})
    assert not is_same_crystal(hydride, deuteride)
    assert not is_same_crystal(hydride, heavy)
    assert is_same_crystal(deuteride, heavy)
    assert is_same_crystal(hydride, natural)
    fixed = hydride.copy(site_properties={"selective_dynamics": [[False] * 3] + [[True] * 3] * 7})
    free = hydride.copy(site_properties={"selective_dynamics": [[True] * 3] * 8})
    assert not is_same_crystal(hydride, fixed)
    assert is_same_crystal(hydride, free)


def test_the_first_one_is_named_among_many_of_one_formula():
    rng = np.random.default_rng(0)
    crystals, structures = SameCrystals(), []
    for number in range(60):
        structure = CRYSTALS["distorted perovskite"].copy()
        structure.perturb(0.05, seed=number)
        structures.append(structure)
    named = [crystals.first_like(str(i), structure) for i, structure in enumerate(structures)]
    assert named == [None] * 60
    again = [crystals.first_like("again", disguised(structure, rng, 1, 1)) for structure in structures]
    assert again == [str(i) for i in range(60)]
