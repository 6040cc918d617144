import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from matris.structures import near_pairs, problem_with


@pytest.mark.parametrize("cutoff", [0.5, 2.6])
def test_pairs_are_those_of_pymatgen_in_cells_of_any_shape(cutoff):
    rng = np.random.default_rng(0)
    for n in (1, 2, 7, 30):
        lattice = Lattice(rng.normal(size=(3, 3)) * 2 * n ** (1 / 3) + np.eye(3) * 3)
        structure = Structure(lattice, ["Si"] * n, rng.uniform(-2, 2, (n, 3)))
        ours, theirs = near_pairs(structure, cutoff), structure.get_neighbor_list(cutoff)
        actual = np.array(sorted(zip(*ours, strict=True)))
        expected = np.array(sorted(zip(theirs[0], theirs[1], theirs[3], strict=True)))
        assert len(actual) == len(expected)
        assert np.allclose(actual, expected)


@pytest.mark.parametrize("angle", [60, 30, 10, 3])
def test_pairs_in_flat_cells_are_those_of_pymatgen(angle):
    """The height of the flattest cell is 0.36 Å."""
    structure = Structure(Lattice.rhombohedral(8, angle), ["Si", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    ours, theirs = near_pairs(structure, 5.0), structure.get_neighbor_list(5.0)
    actual = np.array(sorted(zip(*ours, strict=True))).reshape(-1, 3)
    expected = np.array(sorted(zip(theirs[0], theirs[1], theirs[3], strict=True))).reshape(-1, 3)
    assert actual.shape == expected.shape
    assert np.allclose(actual, expected)


def test_atoms_on_one_place_are_a_pair():
    structure = Structure(Lattice.cubic(5), ["Na", "Cl"], [[0, 0, 0], [1, 0, 0]])
    first, second, distances = near_pairs(structure, 1.0)
    assert sorted(zip(first.tolist(), second.tolist(), strict=True)) == [(0, 1), (1, 0)]
    assert np.allclose(distances, 0, atol=1e-12)
    assert "sites 0 (Na) and 1 (Cl) are 0.00 Å apart" in problem_with(structure)


@pytest.mark.parametrize("edge", [30.0, 300.0, 999.0])
def test_a_large_empty_box_costs_neither_memory_nor_time(edge):
    structure = Structure(Lattice.cubic(edge), ["Na", "Cl"], [[0, 0, 0], [0.9, 0.9, 0.9]])
    assert problem_with(structure) is None
    assert len(near_pairs(structure, 2.0)[0]) == 0


@pytest.mark.parametrize(
    ("lattice", "coords", "reason"),
    [
        (Lattice.orthorhombic(0.01, 100, 100), [0, 0, 0], "repeats itself after 0.01 Å"),
        (Lattice.orthorhombic(1e-5, 900, 900), [0, 0, 0], "repeats itself"),
        (Lattice.from_parameters(40, 40, 40, 0.05, 90, 90), [0, 0, 0], "repeats itself after"),
        (Lattice.cubic(1e6), [0, 0, 0], "the cell is 1e+06 Å long"),
        (Lattice([[4, 0, 0], [0, 4, 0], [4, 4, 0]]), [0, 0, 0], "no volume"),
        (Lattice(np.zeros((3, 3))), [0, 0, 0], "no volume"),
        (Lattice(np.full((3, 3), np.inf)), [0, 0, 0], "NaN or infinite"),
        (Lattice.cubic(4), [1e300, 0, 0], "site 0 (Na) lies 1e+06 cells away"),
        (Lattice.cubic(4), [np.nan, 0, 0], "site 0 (Na) has a NaN"),
    ],
)
def test_cells_that_are_none_are_named(lattice, coords, reason):
    assert reason in problem_with(Structure(lattice, ["Na"], [coords]))


@pytest.mark.parametrize("matrix", [[[0, 4, 0], [4, 0, 0], [0, 0, 4]], [[-4, 0, 0], [0, -4, 0], [0, 0, -4]]])
def test_left_handed_cells_are_fine(matrix):
    assert problem_with(Structure(Lattice(matrix), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])) is None
