import numpy as np
import pytest
import torch
import torch_sim as ts
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.emt import EMT
from pymatgen.core import Lattice, Structure
from pymatgen.io.ase import AseAtomsAdaptor

import matris
from matris.errors import StructureError
from matris.properties.dynamics import dynamics
from matris.structures import content_id, masses_of, near_pairs, problem_with, to_structure


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


def test_isotopes_keep_their_masses_through_everything_that_forgets_them():
    ice = Structure(Lattice.cubic(4), ["D", "T", "H", "O"], [[0, 0, 0], [0.5, 0, 0], [0, 0.5, 0], [0.5, 0.5, 0.5]])
    kept = to_structure(ice)
    again = Structure.from_dict(kept.as_dict())
    for structure in (kept, again, again.copy().remove_oxidation_states()):
        assert masses_of(structure) == pytest.approx([2.01355, 3.0155, 1.00794, 15.9994], abs=1e-4)
    light = Structure(ice.lattice, ["H", "H", "H", "O"], ice.frac_coords)
    assert content_id(kept) == content_id(again) != content_id(light)


def test_masses_of_ase_atoms_are_carried():
    atoms = bulk("MgO", "rocksalt", a=4.2)
    natural = to_structure(atoms)
    atoms.set_masses([25.98, 17.999])
    heavy = to_structure(atoms)
    assert masses_of(heavy).tolist() == [25.98, 17.999]
    assert content_id(heavy) != content_id(natural)
    atoms.set_masses("defaults")
    assert content_id(to_structure(atoms)) == content_id(natural)


@pytest.mark.parametrize("species", ["X", {"X": 0.5, "Au": 0.5}])
def test_a_site_without_an_element_is_named(species):
    structure = to_structure(Structure(Lattice.cubic(4), ["Au", species], [[0, 0, 0], [0.5, 0.5, 0.5]]))
    problem = problem_with(structure)
    assert problem.startswith("site 1 (X0+")
    assert problem.endswith("is no element")
    assert content_id(structure) != content_id(Structure(structure.lattice, ["Au"], [[0, 0, 0]]))


@pytest.mark.parametrize("mass", [0, -1.0, float("nan"), float("inf"), "heavy"])
def test_a_mass_that_is_none_is_named(mass):
    gold = Structure(Lattice.cubic(4), ["Au"], [[0, 0, 0]], site_properties={"masses": [mass]})
    assert f"site 0 (Au) has the mass {mass}" in problem_with(gold)
    assert content_id(gold) != content_id(Structure(Lattice.cubic(4), ["Au"], [[0, 0, 0]]))


def entry_points():
    """All ways to compute something that is not a crystal in three directions."""
    potential = matris.load()

    def calculator(atoms):
        atoms.calc = matris.MatRISCalculator(potential)
        atoms.get_potential_energy()

    def torch_sim(atoms):
        model = matris.MatRISTorchSimModel(potential)
        model(ts.io.atoms_to_state([atoms], model.device, model.dtype))

    def ase_model(atoms):
        model = matris.AseModel(EMT())
        model(ts.io.atoms_to_state([atoms], model.device, model.dtype))

    def relaxed(atoms):
        (record,) = matris.relax(atoms, potential, max_steps=0)
        raise StructureError(record.error)

    def moved(atoms):
        (record,) = dynamics([atoms], potential)
        raise StructureError(record.error)

    return {
        "predict": potential.predict,
        "relax": relaxed,
        "dynamics": moved,
        "calculator": calculator,
        "torch-sim": torch_sim,
        "AseModel": ase_model,
    }


ENTRY_POINTS = ["predict", "relax", "dynamics", "calculator", "torch-sim", "AseModel"]


@pytest.mark.parametrize("entry", ENTRY_POINTS)
@pytest.mark.parametrize(
    ("cell", "pbc", "message"),
    [
        ([0, 0, 0], True, "cell vectors a, b, c are zero"),
        ([4, 4, 0], True, "cell vector c is zero"),
        ([0, 4, 4], (True, True, False), "cell vector a is zero"),
        ([[4, 0, 0], [4, 0, 0], [0, 0, 4]], True, "its cell has no volume"),
        ([[4, 0, 0], [8, 0, 0], [0, 0, 4]], (True, True, False), "its cell has no volume"),
    ],
)
def test_periodic_without_a_lattice_vector_is_an_error_everywhere(entry, cell, pbc, message):
    """ASE allows it, and the missing vectors once became 1 Å long."""
    with pytest.raises(StructureError, match=message):
        entry_points()[entry](Atoms("Cu2", positions=[[0, 0, 0], [2.5, 0, 0]], cell=cell, pbc=pbc))


@pytest.mark.parametrize("entry", ENTRY_POINTS[:3])
@pytest.mark.parametrize("pbc", [(True, True, False), (False, True, True), (False, False, False)])
def test_what_needs_a_crystal_takes_no_slab(entry, pbc):
    """A slab as ASE's Atoms, as pymatgen's Structure, and as its JSON."""
    slab = bulk("Cu", cubic=True)
    slab.cell[2, 2] += 12
    slab.pbc = pbc
    structure = AseAtomsAdaptor.get_structure(slab)
    for given in (slab, structure, Structure.from_dict(structure.as_dict())):
        with pytest.raises(StructureError, match="not periodic in three directions"):
            entry_points()[entry](given)


def test_slabs_have_energies_and_forces_but_no_stress():
    slab = bulk("Cu", cubic=True)
    slab.cell[2, 2] += 12
    slab.pbc = (True, True, False)
    slab.calc = matris.MatRISCalculator()
    model = matris.MatRISTorchSimModel()
    output = model(ts.io.atoms_to_state([slab], model.device, model.dtype))
    assert float(output["energy"][0]) == pytest.approx(slab.get_potential_energy(), abs=1e-5)
    assert torch.isnan(output["stress"]).all()
    with pytest.raises(PropertyNotImplementedError, match="three directions"):
        slab.get_stress()


@pytest.mark.parametrize("cells", [10, 10_000, 500_000])
def test_atoms_far_outside_the_cell_are_the_same_crystal(cells):
    near = Structure.from_spacegroup(
        "P4_2/mnm", Lattice.tetragonal(4.6533, 2.9692), ["Ti", "O"], [[0, 0, 0], [0.29, 0.29, 0]]
    )
    away = np.zeros((6, 3))
    away[0, 0], away[3, 2] = cells, -cells
    far = Structure(near.lattice, near.species, near.frac_coords + away)
    potential = matris.load()
    expected, predicted = potential.predict([near, far])
    assert predicted.forces == pytest.approx(expected.forces, abs=1e-5)
    atoms = AseAtomsAdaptor.get_atoms(far, msonable=False)
    atoms.calc = matris.MatRISCalculator(potential)
    assert atoms.get_forces() == pytest.approx(expected.forces, abs=1e-5)
    assert atoms.positions == pytest.approx(far.cart_coords)  # the user's stay as they are
    model = matris.MatRISTorchSimModel(potential)
    state = ts.io.atoms_to_state([atoms], model.device, torch.float64)
    assert model(state)["forces"].numpy() == pytest.approx(expected.forces, abs=1e-5)


def test_a_vacancy_made_after_a_calculation_is_computed_anew():
    """The calculator still holds results of all atoms."""
    nickel = bulk("Ni", cubic=True)
    nickel.calc = matris.MatRISCalculator()
    nickel.get_forces()
    del nickel[0]
    fresh = nickel.copy()
    fresh.calc = matris.MatRISCalculator()
    assert nickel.get_forces().shape == (3, 3)
    assert nickel.get_potential_energy() == pytest.approx(fresh.get_potential_energy(), abs=1e-9)
    (record,) = matris.relax(nickel, max_steps=0, relax_cell=False)
    assert record.energy == pytest.approx(fresh.get_potential_energy(), abs=1e-5)


def test_the_calculator_notices_every_change():
    atoms = bulk("MgO", "rocksalt", a=4.2)
    atoms.calc = matris.MatRISCalculator()

    def cell():
        atoms.cell[0, 0] += 0.1

    def numbers():
        atoms.numbers[0] = 20

    def pbc():
        atoms.pbc = (True, True, False)

    def length():
        atoms.append("O")
        atoms.positions[-1] = (2.0, 2.0, 1.0)

    def positions():
        atoms.positions[0] += 0.1

    for change in (cell, numbers, positions, pbc, length):
        before = atoms.get_potential_energy()
        change()
        fresh = atoms.copy()
        fresh.calc = matris.MatRISCalculator()
        assert atoms.get_potential_energy() == pytest.approx(fresh.get_potential_energy(), abs=1e-9)
        assert abs(atoms.get_potential_energy() - before) > 1e-4
        assert atoms.get_forces().shape == (len(atoms), 3)
