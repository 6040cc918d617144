from itertools import permutations

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from matris import duplicates
from matris.duplicates import Duplicates, group_equal


def salt(a=5.64, anion="Cl"):
    faces = [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]
    return Structure(Lattice.cubic(a), ["Na"] * 4 + [anion] * 4, faces + [[x + 0.5, y, z] for x, y, z in faces])


def cscl(a=3.5):
    return Structure(Lattice.cubic(a), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])


def disguised(structure, seed=0):
    """The same crystal in another cell, place, orientation, order and scale."""
    rng = np.random.default_rng(seed)
    large = structure * [[1, 1, 0], [0, 1, 0], [0, 0, 2]]
    large.translate_sites(range(len(large)), rng.random(3))
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    order = rng.permutation(len(large))
    lattice = Lattice(large.lattice.matrix @ rotation * 1.03)
    return Structure(lattice, [large[int(i)].specie for i in order], large.frac_coords[order])


@pytest.mark.parametrize("seed", range(4))
def test_a_disguised_crystal_is_found(seed):
    structures = Duplicates()
    assert structures.first_like("a", salt()) is None
    assert structures.first_like("b", disguised(salt(), seed)) == "a"
    assert structures.first_like("c", salt().get_primitive_structure()) == "a"


def test_small_displacements_and_strains_do_not_matter():
    structures = Duplicates()
    structures.first_like("a", salt())
    moved = salt()
    moved.perturb(0.08, seed=1)
    moved.apply_strain([0.02, -0.01, 0])
    assert structures.first_like("b", moved) == "a"


def test_other_crystals_are_others():
    structures = Duplicates()
    assert structures.first_like("a", salt()) is None
    assert structures.first_like("b", cscl()) is None
    assert structures.first_like("c", salt(anion="Br")) is None
    assert structures.first_like("d", cscl(3.6)) == "b"


def test_energies_tell_structures_apart_where_both_are_known():
    structures = Duplicates()
    assert structures.first_like("a", salt(), -3.0) is None
    assert structures.first_like("b", salt(), -2.9) is None
    assert structures.first_like("c", salt(), -2.999) == "a"
    assert structures.first_like("d", salt(), -2.901) == "b"
    assert structures.first_like("e", salt()) == "a"


def test_looking_is_not_remembering():
    structures = Duplicates()
    assert structures.like(salt()) is None
    assert structures.like(salt()) is None
    structures.remember("a", salt())
    assert structures.like(disguised(salt())) == "a"


def test_a_formula_of_its_own_is_neither_reduced_nor_matched(monkeypatch):
    monkeypatch.setattr(duplicates, "_reduced", None)
    structures = Duplicates()
    assert [structures.first_like(x, salt(anion=x)) for x in ("F", "Cl", "Br", "I")] == [None] * 4


def test_one_atom_and_a_thousand_get_along():
    structures = Duplicates()
    iron = Structure(Lattice.cubic(2.87), ["Fe", "Fe"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    assert structures.first_like("small", iron.get_primitive_structure()) is None
    assert structures.first_like("large", iron * (4, 4, 4)) == "small"


def test_the_lowest_in_energy_represents_in_whatever_order_they_come():
    items = [
        ("d", salt(), -3.0),
        ("a", disguised(salt(), 1), -2.995),
        ("c", disguised(salt(), 2), -3.0),
        ("b", cscl(), -3.0),
        ("e", salt(), -2.5),
    ]
    expected = {"a": "c", "b": "b", "c": "c", "d": "c", "e": "e"}
    for order in list(permutations(items))[::17]:
        assert group_equal(order) == expected
    assert group_equal([]) == {}


def test_a_structure_takes_some_two_hundred_bytes():
    assert len(duplicates.packed(salt())) == 36 + 13 * 8
    back = duplicates.unpacked(duplicates.packed(salt()))
    assert back.composition == salt().composition
    assert np.allclose(back.lattice.matrix, salt().lattice.matrix, atol=1e-6)
