"""Atoms that an input fixes stay where they are, whoever says so and whoever relaxes beside them."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
from ase.constraints import FixAtoms, FixCartesian, FixCom, FixedLine, FixedPlane, FixScaled, FixSymmetry
from ase.filters import FrechetCellFilter
from ase.optimize import FIRE
from pymatgen.core import Lattice, Structure
from pymatgen.io.ase import AseAtomsAdaptor
from pymatgen.io.vasp import Poscar

from matris.relaxation.relax import RelaxRecord, relax
from matris.structures import content_id, to_structure
from tests.matris.argon import Argon, AseArgon, crystal

FLAGS = "selective_dynamics"
SKEWED = np.array([[5.4, 0, 0], [1.2, 5.5, 0], [0.3, -0.6, 5.6]])


def argon(*, fixed=(), shift=0.3):
    """Four atoms off their places, some of them fixed."""
    structure = crystal(5.4, shift=shift)
    structure.add_site_property(FLAGS, [[i not in fixed] * 3 for i in range(len(structure))])
    return structure


@pytest.mark.parametrize(
    ("optimizer", "fmax", "near"), [("fire", 0.02, 1e-5), ("lbfgs", 1e-5, 1e-3)]
)  # ASE's path, and another
@pytest.mark.parametrize("relax_cell", [True, False])
def test_the_result_is_that_of_ase_with_its_constraint(relax_cell, optimizer, fmax, near):
    fixed = [0, 2]
    atoms = AseAtomsAdaptor.get_atoms(argon(fixed=fixed), msonable=False)
    assert isinstance(atoms.constraints[0], FixAtoms)
    start = atoms.get_scaled_positions(wrap=False)
    atoms.calc = AseArgon()
    FIRE(FrechetCellFilter(atoms) if relax_cell else atoms, logfile=None).run(fmax=fmax, steps=600)
    (record,) = relax(argon(fixed=fixed), Argon(), fmax=fmax, relax_cell=relax_cell, optimizer=optimizer)
    assert record.state == "converged"
    assert record.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-6)
    assert record.structure.cart_coords == pytest.approx(atoms.positions, abs=near)
    assert record.structure.frac_coords[fixed] == pytest.approx(start[fixed], abs=1e-12)
    moved = np.abs(record.structure.frac_coords - start).max(axis=1)
    assert moved[[1, 3]].min() > 1e-3
    assert np.abs(record.forces[fixed]).max() > 0.05  # as the model gives them
    assert record.fmax < fmax


def test_fixed_and_free_crystals_relax_together_as_alone():
    starts = [argon(), argon(fixed=[1]), argon(shift=0.2), argon(fixed=[0, 3], shift=-0.2)]
    together = {r.index: r for r in relax(starts, Argon(), fmax=0.02, max_batch_atoms=1000)}
    for index, start in enumerate(starts):
        (alone,) = relax(start, Argon(), fmax=0.02)
        assert together[index].n_steps == alone.n_steps
        assert together[index].structure.cart_coords == pytest.approx(alone.structure.cart_coords, abs=1e-8)
    assert len({record.n_steps for record in together.values()}) > 1  # some left earlier


def test_a_poscar_fixes_along_its_lattice_vectors():
    """VASP's meaning of the flags, in a cell whose vectors are not at right angles."""
    start = Structure(Lattice(SKEWED), ["Ar"] * 2, [[0, 0, 0], [0.45, 0.55, 0.4]])
    poscar = Poscar(start, selective_dynamics=[[False] * 3, [True, False, True]])
    read = Poscar.from_str(poscar.get_str()).structure
    (record,) = relax(read, Argon(), fmax=0.02, relax_cell=False, max_steps=300)
    assert record.state == "converged"
    change = record.structure.frac_coords - read.frac_coords
    assert change[0] == pytest.approx(0, abs=1e-12)
    assert change[1, 1] == pytest.approx(0, abs=1e-12)
    assert np.abs(change[1, [0, 2]]).max() > 1e-3
    # no force is left along the free vectors, as ASE's constraint of the same meaning has it
    along = record.forces[1] @ (SKEWED[[0, 2]] / np.linalg.norm(SKEWED[[0, 2]], axis=1)[:, None]).T
    assert np.abs(along).max() < 0.03
    back = RelaxRecord.from_dict(json.loads(json.dumps(record.to_dict()))).structure
    assert Poscar(back).get_str().splitlines()[10].endswith("T F T Ar")


def test_an_input_of_fixed_atoms_alone_has_converged():
    (record,) = relax(argon(fixed=range(4)), Argon(), relax_cell=False)
    assert (record.state, record.n_steps, record.fmax) == ("converged", 0, 0.0)
    assert np.abs(record.forces).max() > 0.1


def test_flags_that_are_none_fail_alone():
    broken = argon()
    broken.add_site_property(FLAGS, [[True, True]] * 4)
    first, second = sorted(relax([broken, argon()], Argon(), max_steps=0), key=lambda r: r.index)
    assert first.state == "failed"
    assert "three flags" in first.error
    assert second.state == "max_steps"


def test_fixed_atoms_are_a_part_of_the_identity():
    bare = crystal(5.4, shift=0.3)
    assert content_id(bare) == content_id(argon())
    assert len({content_id(argon(fixed=fixed)) for fixed in ([], [0], [0, 2])}) == 3


@pytest.mark.parametrize(
    ("constraint", "flags"),
    [
        (FixAtoms([-1]), [0, 0, 0]),
        (FixAtoms(mask=[False, True]), [0, 0, 0]),
        (FixScaled(1, (True, False, False)), [0, 1, 1]),
        (FixCartesian(1, (False, True, True)), [1, 0, 0]),
        (FixedLine(1, (1, 0, 0)), [1, 0, 0]),
        (FixedPlane(1, (0, 0, 1)), [1, 1, 0]),
        (FixCom(), None),
    ],
    ids=lambda value: type(value).__name__,
)
def test_constraints_of_ase_become_flags(constraint, flags):
    atoms = AseAtomsAdaptor.get_atoms(Structure(Lattice(SKEWED), ["Ar"] * 2, [[0, 0, 0], [0.5] * 3]), msonable=False)
    atoms.set_constraint(constraint)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        structure = to_structure(atoms)
    assert structure.site_properties.get(FLAGS) == (flags and [[True] * 3, [bool(flag) for flag in flags]])


@pytest.mark.parametrize("lost", ["FixCartesian", "FixedLine", "FixSymmetry"])
def test_a_constraint_that_is_not_kept_is_named(lost):
    atoms = AseAtomsAdaptor.get_atoms(crystal(5.4), msonable=False)
    atoms.set_cell(SKEWED, scale_atoms=True)
    made = {"FixCartesian": lambda: FixCartesian(1, (1, 0, 0)), "FixedLine": lambda: FixedLine(0, (1, 1, 0))}
    atoms.set_constraint(made.get(lost, lambda: FixSymmetry(atoms))())
    with pytest.warns(UserWarning, match=rf"{lost} are not kept.*MatRISCalculator"):
        structure = to_structure(atoms)
    assert FLAGS not in structure.site_properties


def test_atoms_far_away_have_the_same_forces_and_stay_in_their_cells():
    """In float32, 10⁴ cells away, an atom would have two digits of its place."""
    import torch

    class Single(Argon):
        def __init__(self):
            super().__init__()
            self._dtype = torch.float32

        def forward(self, state, **_):
            return super().forward(state.to(dtype=torch.float64))

    near = crystal(5.4, shift=0.3)
    away = np.array([[10_000, 0, 0], [0, -700, 3], [0, 0, 0], [1, 0, 0]])
    far = Structure(near.lattice, near.species, near.frac_coords + away)
    (one,), (other,) = (list(relax(s, Single(), fmax=0.02)) for s in (near, far))
    assert other.state == "converged"
    assert other.forces == pytest.approx(one.forces, abs=1e-4)
    assert other.energy == pytest.approx(one.energy, abs=1e-5)
    assert other.structure.frac_coords - away == pytest.approx(one.structure.frac_coords, abs=1e-5)
