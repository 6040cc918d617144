"""Labelled paths: the points named are those of the crystal, in every Bravais lattice and for every primitive cell."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import seekpath
from phonopy.structure.atoms import PhonopyAtoms
from pymatgen.core import Lattice, Structure
from scipy.spatial.transform import Rotation

from matris.properties.band_path import band_path
from matris.properties.phonons import PhononSettings, analyse, displaced, find_force_constants

EXAMPLES = Path(seekpath.__file__).parent / "hpkot" / "band_path_data"
CELLS = sorted(EXAMPLES.glob("*/POSCAR*"))
NAMES = [f"{path.parent.name}-{path.name.removeprefix('POSCAR_')}" for path in CELLS]
SYMPREC = 1e-3
CUTOFF = 3.8  # Å, of springs
GALLIA = Structure.from_spacegroup(
    "C2/m",
    Lattice.from_parameters(12.23, 3.04, 5.80, 90, 103.8, 90),
    ["Ga", "Ga", "O", "O", "O"],
    [[0.0904, 0, 0.7948], [0.3414, 0, 0.6857], [0.1674, 0, 0.1011], [0.4957, 0, 0.2553], [0.8279, 0, 0.4365]],
)


def springs(distances: np.ndarray) -> np.ndarray:
    """Stiffness of bonds, eV/Å²: smooth to zero at the cut-off."""
    return 5 * np.exp(-distances) * (1 - (distances / CUTOFF) ** 2) ** 2


def force_constants(structure: Structure) -> tuple[np.ndarray, ...]:
    """Pairs within the cut-off, their bond vectors, and the force constants of central springs."""
    first, second, images, distances = structure.get_neighbor_list(CUTOFF)
    lattice = structure.lattice.matrix
    bonds = structure.cart_coords[second] + images @ lattice - structure.cart_coords[first]
    units = bonds / distances[:, None]
    return first, second, bonds, springs(distances)[:, None, None] * units[:, :, None] * units[:, None, :]


def frequencies(structure: Structure, cartesian: np.ndarray) -> np.ndarray:
    """Eigenvalues of the dynamical matrix at wave vectors (2π/Å), shape (q, 3n)."""
    first, second, bonds, constants = force_constants(structure)
    n, masses = len(structure), np.array([float(site.specie.atomic_mass) for site in structure])
    values = []
    for q in cartesian:
        matrix = np.zeros((n, n, 3, 3), dtype=complex)
        np.add.at(matrix, (first, first), constants)
        np.add.at(matrix, (first, second), -constants * np.exp(2j * np.pi * bonds @ q)[:, None, None])
        matrix /= np.sqrt(masses[:, None] * masses)[:, :, None, None]
        values.append(np.linalg.eigvalsh(matrix.transpose(0, 2, 1, 3).reshape(3 * n, 3 * n)))
    return np.array(values)


def any_primitive_cell(path: Path) -> Structure:
    """A primitive cell of a crystal in other vectors than anyone's standard, turned; every second one left-handed."""
    number = CELLS.index(path)
    random = np.random.default_rng(number)
    structure = Structure.from_str(path.read_text(), fmt="poscar").get_primitive_structure(tolerance=SYMPREC)
    vectors = np.eye(3, dtype=int)
    for i, j in ((0, 1), (1, 2), (2, 0)):
        step = np.eye(3, dtype=int)
        step[i, j] = random.integers(-1, 2)
        vectors = step @ vectors
    if number % 2:
        vectors = vectors[[1, 0, 2]]
    turn = Rotation.random(random_state=number).as_matrix()
    lattice = Lattice(vectors @ structure.lattice.matrix @ turn.T)
    return Structure(lattice, structure.species, structure.cart_coords @ turn.T, coords_are_cartesian=True)


def as_atoms(cell: Structure) -> PhonopyAtoms:
    return PhonopyAtoms(
        symbols=[site.specie.symbol for site in cell], cell=cell.lattice.matrix, scaled_positions=cell.frac_coords
    )


@pytest.mark.parametrize("path", CELLS, ids=NAMES)
def test_named_points_are_those_of_the_crystal(path):
    """At each named point and between them, frequencies are those of seekpath's standard cell at its coordinates."""
    cell = any_primitive_cell(path)
    found = band_path(as_atoms(cell), SYMPREC)
    assert found.lattice == path.parent.name
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        standard = seekpath.get_path(as_atoms(cell).totuple(), symprec=SYMPREC)
    perfect = Structure(
        standard["primitive_lattice"], standard["primitive_types"].tolist(), standard["primitive_positions"]
    )
    names = list(standard["point_coords"])
    theirs = np.array([standard["point_coords"][name] for name in names])
    ours = np.array([found.points[name] for name in names])
    weights = np.random.default_rng(7).dirichlet(np.ones(len(names)), 3)
    theirs, ours = np.vstack([theirs, weights @ theirs]), np.vstack([ours, weights @ ours])
    ours_cartesian = ours @ np.linalg.inv(cell.lattice.matrix).T
    theirs_cartesian = theirs @ np.linalg.inv(perfect.lattice.matrix).T
    assert np.linalg.norm(ours_cartesian, axis=1) == pytest.approx(
        np.linalg.norm(theirs_cartesian, axis=1), rel=1e-3, abs=1e-9
    )
    values = frequencies(perfect, theirs_cartesian)
    assert frequencies(cell, ours_cartesian) == pytest.approx(values, abs=2e-3 * values.max())


def harmonic_forces(perfect: Structure, moved: Structure) -> np.ndarray:
    """Forces of the springs, linear in the displacements."""
    moves = moved.frac_coords - perfect.frac_coords
    moves = (moves - moves.round()) @ perfect.lattice.matrix
    first, second, _, constants = force_constants(perfect)
    forces = np.zeros_like(moves)
    np.add.at(forces, first, np.einsum("nij,nj->ni", constants, moves[second] - moves[first]))
    return forces


@pytest.mark.parametrize("path", CELLS, ids=NAMES)
def test_bands_are_those_of_the_original_cell(path):
    """Along the whole path, bands from supercells equal the exact ones of the input cell at the same wave vectors."""
    cell = Structure.from_str(path.read_text(), fmt="poscar")
    settings = PhononSettings(min_length=2 * CUTOFF + 0.1, symprec=SYMPREC, temperatures=(0.0, 300.0))
    phonopy, cells = displaced(cell, settings)
    find_force_constants(phonopy, [harmonic_forces(cells[0], moved) for moved in cells])
    results = analyse(phonopy, settings)
    reciprocal = np.linalg.inv(phonopy.primitive.cell).T
    primitive = Structure(phonopy.primitive.cell, phonopy.primitive.symbols, phonopy.primitive.scaled_positions)
    for qpoints, found in zip(results.qpoints, results.frequencies, strict=True):
        values = frequencies(primitive, qpoints[::10] @ reciprocal)
        squares = np.sign(found) * (found / 15.633302) ** 2
        assert np.sort(squares[::10], axis=1) == pytest.approx(values, abs=1e-3 * values.max())


def test_gallium_oxide():
    """Y–Γ is 0.084 1/Å long (0.082 when relaxed); by coordinates for another cell it was 0.323."""
    phonopy, _ = displaced(GALLIA.get_primitive_structure(), PhononSettings(min_length=3))
    path = band_path(phonopy.primitive, SYMPREC)
    reciprocal = np.linalg.inv(phonopy.primitive.cell).T
    lengths = {
        segment: np.linalg.norm((path.points[segment[1]] - path.points[segment[0]]) @ reciprocal)
        for segment in path.segments
    }
    sizes = {frozenset(segment): length for segment, length in lengths.items()}
    assert sizes[frozenset({"Y_2", "GAMMA"})] == pytest.approx(0.084, abs=5e-4)


@pytest.mark.parametrize("digits", [8, 6, 5])
def test_path_has_the_symmetry_of_the_displacements(digits):
    """Five digits of hcp magnesium are hexagonal within 1e-3 Å, but not within seekpath's 1e-5 Å."""
    lattice = Lattice(Lattice.hexagonal(3.19405, 5.17198).matrix.round(digits))
    cell = Structure(lattice, ["Mg", "Mg"], np.round([[1 / 3, 2 / 3, 0.25], [2 / 3, 1 / 3, 0.75]], digits))
    phonopy, _ = displaced(cell, PhononSettings(min_length=3))
    path = band_path(phonopy.primitive, SYMPREC)
    assert path.lattice == "hP2"
    assert path.points["K"] == pytest.approx([1 / 3, 1 / 3, 0])
    assert path.labels[:4] == [r"$\Gamma$", r"$\mathrm{M}$", r"$\mathrm{K}$", r"$\Gamma$"]


def test_a_cell_that_no_standard_fits_is_refused(monkeypatch):
    cell = as_atoms(GALLIA)
    turned = {"rotation_matrix": Rotation.from_euler("z", 30, degrees=True).as_matrix()}
    wrong = {**seekpath.get_path(cell.totuple()), **turned}
    monkeypatch.setattr("matris.properties.band_path.get_path", lambda *_, **__: wrong)
    with pytest.raises(ValueError, match="does not fit"):
        band_path(cell, SYMPREC)
