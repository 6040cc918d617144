"""Surface energies: effective-medium theory against ASE, and a pair potential against the count of broken bonds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import spglib
from ase.build import bulk, fcc100, fcc110, fcc111, molecule
from ase.calculators.emt import EMT
from ase.calculators.morse import MorsePotential
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS
from ase.units import J, m
from pymatgen.core import Lattice, Structure

import matris
from matris.errors import MatrisError
from matris.properties.surfaces import J_PER_M2, distinct_millers, surfaces

if TYPE_CHECKING:
    from pathlib import Path

R, EPSILON = 2.5, 0.5  # Å, eV
BONDS = {"r0": R, "rho0": 6.0, "epsilon": EPSILON, "rcut1": 1.2, "rcut2": 1.35}
"""Only next neighbors interact, and their distance is the minimum: surfaces break bonds and do not relax."""


@pytest.fixture(scope="module")
def aluminium():
    disordered = Structure(Lattice.cubic(4.0), [{"Cu": 0.5, "Au": 0.5}], [[0, 0, 0]])
    slab = bulk("Cu", cubic=True)
    slab.center(vacuum=10.0, axis=2)
    several = [bulk("Al"), molecule("N2"), disordered, bulk("U"), slab]
    return surfaces(several, matris.AseModel(EMT()), min_slab=14, fmax=2e-3)


@pytest.fixture(scope="module")
def by_bonds():
    noble = bulk("Ar", a=R * 2**0.5)
    salt = bulk("NaCl", "rocksalt", a=2 * R)
    blende = bulk("ZnS", "zincblende", a=4 * R / 3**0.5)
    triclinic = Structure(
        Lattice.from_parameters(2.9, 3.3, 4.1, 80, 85, 95), ["Zn", "S"], [[0, 0, 0], [0.4, 0.45, 0.55]]
    )
    first = surfaces([noble, salt, blende], matris.AseModel(MorsePotential(**BONDS)), min_slab=9)
    return [*first, *surfaces([triclinic], matris.AseModel(MorsePotential(**BONDS)), min_slab=9, max_steps=0)]


def energies(record):
    return {surface.miller: surface.energy for surface in record.surfaces}


@pytest.mark.parametrize(("cut", "miller"), [(fcc111, (1, 1, 1)), (fcc100, (1, 0, 0)), (fcc110, (1, 1, 0))])
def test_aluminium_against_ase(aluminium, cut, miller):
    """A slab of ASE's own, of another thickness."""
    metal = bulk("Al", cubic=True)
    metal.calc = EMT()
    BFGS(FrechetCellFilter(metal), logfile=None).run(fmax=1e-3)
    slab = cut("Al", (1, 1, 9), a=metal.cell[0, 0], vacuum=8)
    slab.calc = EMT()
    BFGS(slab, logfile=None).run(fmax=1e-3)
    area = np.linalg.norm(np.cross(slab.cell[0], slab.cell[1]))
    expected = (slab.get_potential_energy() - 9 * metal.get_potential_energy() / 4) / (2 * area)
    assert energies(aluminium[0])[miller] == pytest.approx(expected / (J / m**2), abs=1e-3)


def test_aluminium_as_a_whole(aluminium):
    record = aluminium[0]
    assert record.is_reliable
    assert record.skipped == ()
    assert min(record.surfaces, key=lambda surface: surface.energy).name == "(1 1 1)"
    assert sum(surface.area_fraction for surface in record.surfaces) == pytest.approx(1)
    mean = sum(surface.area_fraction * surface.energy for surface in record.surfaces)
    assert record.shape.weighted_energy == pytest.approx(mean)
    assert all(surface.thickness > 11 for surface in record.surfaces)


def test_one_failure_is_one_failure(aluminium):
    assert [record.state for record in aluminium] == ["converged", "failed", "failed", "failed", "failed"]
    assert "not periodic" in aluminium[1].error
    assert "occupanc" in aluminium[2].error or "disorder" in aluminium[2].error
    assert "EMT" in aluminium[3].error
    assert aluminium[4].error.startswith("no crystal, so that it has no surfaces: the cell has a gap of 2")


def test_broken_bonds_of_a_close_packed_crystal(by_bonds):
    """Broken bonds for each surface atom: 3 on (1 1 1), 4 on (1 0 0), 6 in two layers on (1 1 0); each costs ε/2."""
    found = energies(by_bonds[0])
    half = EPSILON / 2 * J_PER_M2
    assert found[1, 1, 1] == pytest.approx(3 * half / (3**0.5 / 2 * R**2), rel=1e-6)
    assert found[1, 0, 0] == pytest.approx(4 * half / R**2, rel=1e-6)
    assert found[1, 1, 0] == pytest.approx(6 * half / (2**0.5 * R**2), rel=1e-6)


def test_shape_of_a_close_packed_crystal(by_bonds):
    """A regular truncated octahedron: 6 squares and 8 hexagons of one edge."""
    shape = by_bonds[0].shape
    squares = 6 / (6 + 12 * 3**0.5)
    assert shape.fractions == pytest.approx({(1, 0, 0): squares, (1, 1, 1): 1 - squares, (1, 1, 0): 0}, abs=1e-6)
    assert sorted((miller, len(corners)) for miller, corners in shape.faces) == [
        *[((1, 0, 0), 4)] * 6,
        *[((1, 1, 1), 6)] * 8,
    ]
    for miller, corners in shape.faces:  # all at the surface energy from the centre
        normal = np.cross(np.subtract(corners[1], corners[0]), np.subtract(corners[2], corners[0]))
        distance = abs(np.dot(corners[0], normal)) / np.linalg.norm(normal)
        assert distance == pytest.approx(energies(by_bonds[0])[miller], rel=1e-6)


def test_broken_bonds_of_compounds(by_bonds):
    """Each surface atom breaks the known number of bonds. Polar orientations are skipped, and the shape lacks them."""
    _, salt, blende, _ = by_bonds
    half = EPSILON / 2 * J_PER_M2
    assert energies(salt) == pytest.approx({(1, 0, 0): half / R**2, (1, 1, 0): 2 * half / (2**0.5 * R**2)}, rel=1e-6)
    assert [miller for miller, _ in salt.skipped] == [(1, 1, 1)]
    assert "symmetric and stoichiometric" in salt.skipped[0][1]
    assert "the equilibrium shape lacks the orientations without a slab" in salt.warnings
    assert len(salt.shape.faces) == 6  # a cube
    assert energies(blende) == pytest.approx({(1, 1, 0): 2 * half * 2**0.5 / (16 / 3 * R**2)}, rel=1e-6)
    assert [miller for miller, _ in blende.skipped] == [(1, 0, 0), (1, 1, 1)]


def test_a_crystal_with_polar_surfaces_only_fails(by_bonds):
    assert by_bonds[3].state == "failed"
    assert by_bonds[3].error.startswith("(1 0 0): none of its 2 terminations gives a slab that is symmetric")


def test_orientations_have_the_symmetry_of_the_crystal():
    """Pyrite is cubic without a fourfold axis: (1 2 0) and (2 1 0) differ. In calcite, so do (1 0 4) and (0 1 4)."""
    pyrite = spglib.get_symmetry_from_database(501)["rotations"]  # Pa-3
    assert (2, 1, 0) in distinct_millers(pyrite, 2)
    assert (1, 2, 0) in distinct_millers(pyrite, 2) or (2, 0, 1) in distinct_millers(pyrite, 2)
    rocksalt = spglib.get_symmetry_from_database(523)["rotations"]
    assert distinct_millers(rocksalt, 2) == [(1, 0, 0), (1, 1, 0), (1, 1, 1), (2, 1, 0), (2, 1, 1), (2, 2, 1)]
    calcite = spglib.get_symmetry_from_database(460)["rotations"]  # R-3c, hexagonal axes
    assert {(1, 0, 1), (0, 1, 1)} <= set(distinct_millers(calcite, 1))


def test_slabs_thinner_than_the_cutoff(tiny_checkpoint: Path):
    potential = matris.load(tiny_checkpoint, device="cpu")
    cutoff = potential.config.pairwise_cutoff
    metal = Structure(Lattice.cubic(2.9), ["Mg"], [[0, 0, 0]])
    for sizes in ({"min_slab": cutoff - 0.1}, {"min_vacuum": cutoff - 0.1}):
        with pytest.raises(MatrisError, match="both sides would interact within the cutoff"):
            surfaces([metal], potential, **sizes)
    (record,) = surfaces([metal], potential, min_slab=cutoff, max_steps=0)
    assert "Å thick, less than the cutoff of the potential" in record.error
    with pytest.raises(ValueError, match="max_index must be at least 1"):
        surfaces([metal], potential, max_index=0)
