"""Relaxation at fixed symmetry and with masked cells."""

from __future__ import annotations

import numpy as np
import pytest
import spglib
import torch
from ase.constraints import FixSymmetry
from ase.filters import FrechetCellFilter
from ase.optimize import FIRE
from pymatgen.core import Lattice, Structure
from pymatgen.io.ase import AseAtomsAdaptor

from matris.relaxation.batch import state_of
from matris.relaxation.fire import Fire
from matris.relaxation.lbfgs import Lbfgs
from matris.relaxation.records import RelaxRecord, RelaxSettings
from matris.relaxation.relax import relax
from matris.relaxation.symmetry import cell_projector, common, invariant, symmetrised
from tests.matris.argon import FCC, NEIGHBOR, Argon, AseArgon, crystal, primitive
from tests.matris.relaxation.test_fire import STARTS

CPU = torch.device("cpu")
OPTIMIZERS = ["lbfgs", "fire"]
PLANE = (True, True, False, False, False, True)
MASKS = ["volume", "shape", "lengths", "a", "bc", PLANE]


def space_group(structure, symprec=1e-5):
    cell = (structure.lattice.matrix, structure.frac_coords, [site.specie.Z for site in structure])
    return spglib.get_symmetry_dataset(cell, symprec=symprec).number


def hexagonal():
    """A close-packed crystal whose c and a are off, in a cell of eight atoms."""
    lattice = Lattice.hexagonal(NEIGHBOR * 1.02, NEIGHBOR * 1.6)
    return Structure(lattice, ["Ar"] * 2, [[1 / 3, 2 / 3, 0.25], [2 / 3, 1 / 3, 0.75]]) * (2, 2, 1)


def noisy(structure, size=1e-3):
    random = np.random.default_rng(2)
    lattice = structure.lattice.matrix @ (np.eye(3) + size / 5 * random.normal(size=(3, 3)))
    places = structure.frac_coords + size / 5 * random.normal(size=(len(structure), 3))
    return Structure(lattice, structure.species, places + np.array([0.137, 0.291, 0.873]))


@pytest.mark.parametrize("start", [hexagonal(), crystal(5.5), primitive(5.5) * (2, 2, 2)], ids=["hcp", "fcc", "double"])
def test_a_structure_becomes_exactly_symmetric(start):
    rough = noisy(start)
    assert space_group(rough) != space_group(start)
    exact, symmetry = symmetrised(rough, 0.03)
    assert space_group(exact, 1e-7) == space_group(start)
    assert np.abs(exact.cart_coords - rough.cart_coords).max() < 0.02
    assert exact.species == rough.species
    rotations, images = symmetry
    assert rotations @ rotations.transpose(0, 2, 1) == pytest.approx(
        np.broadcast_to(np.eye(3), rotations.shape), abs=1e-9
    )
    for rotation, image in zip(rotations, images, strict=True):  # distances between atoms survive each operation
        apart = exact.cart_coords - exact.cart_coords[0]
        moved = exact.lattice.get_fractional_coords(apart @ rotation.T)
        target = exact.frac_coords[image] - exact.frac_coords[image[0]]
        assert np.abs((moved - target) - np.round(moved - target)).max() < 1e-9
    same, _ = symmetrised(exact, 0.03)
    assert same.cart_coords == pytest.approx(exact.cart_coords, abs=1e-9)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_fixed_symmetry_is_kept_and_the_cell_is_that_of_ase(optimizer):
    start = hexagonal()
    atoms = AseAtomsAdaptor.get_atoms(start, msonable=False)
    atoms.calc = AseArgon()
    atoms.set_constraint(FixSymmetry(atoms))
    FIRE(FrechetCellFilter(atoms), logfile=None).run(fmax=1e-3, steps=1000)
    (record,) = relax(noisy(start), Argon(), fmax=1e-3, fix_symmetry=True, symprec=0.03, optimizer=optimizer)
    assert record.state == "converged"
    assert space_group(record.structure) == space_group(start) == 194
    assert record.structure.lattice.abc == pytest.approx(atoms.cell.lengths(), rel=1e-3)
    assert record.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-4)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_noise_of_the_model_breaks_no_fixed_symmetry(optimizer):
    """Forces and stresses with noise of 0.05 eV/Å, batch mates with and without symmetry."""
    random = torch.Generator().manual_seed(1)

    def after(_state, output):
        for name, size in (("forces", 0.05), ("stress", 1e-3)):
            noise = torch.randn(output[name].shape, generator=random, dtype=torch.float64)
            output[name] = output[name] + size * noise

    starts = [hexagonal(), STARTS[0], crystal(5.5)]
    common_settings = {"fmax": 1e-6, "max_steps": 15, "optimizer": optimizer, "max_batch_atoms": 100}
    kept = sorted(relax(starts, Argon(after=after), fix_symmetry=True, **common_settings), key=lambda r: r.index)
    assert [space_group(record.structure) for record in kept] == [space_group(start) for start in starts]
    lost = sorted(relax(starts, Argon(after=after), **common_settings), key=lambda r: r.index)
    assert space_group(lost[0].structure) == 1


def test_a_fixed_lattice_keeps_its_strain_and_loses_symmetry():
    strained = crystal(FCC)
    strained.apply_strain([1e-3, 0, 0])
    exact, symmetry = symmetrised(strained, 0.05, keep_lattice=True)
    assert np.array_equal(exact.lattice.matrix, strained.lattice.matrix)
    assert len(symmetry.rotations) == 16 * 4  # tetragonal, centred
    (record,) = relax(strained, Argon(), relax_cell=False, fix_symmetry=True, symprec=0.05)
    assert np.array_equal(record.structure.lattice.matrix, strained.lattice.matrix)


def test_fixed_atoms_and_symmetry():
    flags = [[False] * 3, *[[True] * 3] * 3]
    start = crystal(5.45)
    start.add_site_property("selective_dynamics", flags)
    (record,) = relax(start, Argon(), fix_symmetry=True, fmax=1e-3)
    assert record.state == "converged"
    assert record.structure.site_properties["selective_dynamics"] == flags
    start.add_site_property("selective_dynamics", [[True, False, True], *flags[1:]])
    (record,) = relax(start, Argon(), fix_symmetry=True)
    assert record.state == "failed"
    assert "along some directions only" in record.error


@pytest.mark.parametrize("mask", MASKS, ids=str)
def test_allowed_deformations_are_those_that_are_meant(mask):
    matrix = np.array([[5.0, 0.3, 0.1], [1.2, 5.5, -0.2], [0.3, -0.6, 6.1]])
    projector = cell_projector(matrix, mask)
    assert projector @ projector == pytest.approx(projector, abs=1e-12)
    assert projector == pytest.approx(projector.T, abs=1e-12)
    free = {"volume": 1, "shape": 8, "lengths": 3, "a": 1, "bc": 2, PLANE: 4}[mask]
    assert np.trace(projector) == pytest.approx(free)


def test_a_mask_and_a_symmetry_allow_what_both_allow():
    cyclic = np.eye(3)[[1, 2, 0]]
    turns = invariant(np.array([np.eye(3), cyclic, cyclic.T]))  # about [111]
    assert np.trace(turns) == pytest.approx(3)
    both = common(cell_projector(np.eye(3), "lengths"), turns)
    assert both == pytest.approx(cell_projector(np.eye(3), "volume"), abs=1e-12)
    assert np.abs(common(cell_projector(np.eye(3), "a"), turns)).max() < 1e-12


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("mask", MASKS, ids=str)
def test_masked_cells_stay_within_their_mask(mask, optimizer):
    start = STARTS[0]
    (record,) = relax(start, Argon(), fmax=2e-3, max_steps=800, cell_mask=mask, optimizer=optimizer)
    assert record.state == "converged"
    before, after = start.lattice, record.structure.lattice
    deformation = np.linalg.inv(before.matrix) @ after.matrix
    ratios = np.divide(after.abc, before.abc)
    assert deformation != pytest.approx(np.eye(3), abs=1e-3)
    if mask == "volume":
        assert deformation == pytest.approx(deformation[0, 0] * np.eye(3), abs=1e-9)
    elif mask == "shape":
        assert after.volume == pytest.approx(before.volume, rel=1e-9)
    elif isinstance(mask, str):
        assert after.angles == pytest.approx(before.angles, abs=1e-6)
        moving = [letter in mask or mask == "lengths" for letter in "abc"]
        assert (np.abs(ratios - 1) > 1e-9).tolist() == moving
    else:
        assert deformation[2] == pytest.approx([0, 0, 1], abs=1e-9)
        assert deformation[:, 2] == pytest.approx([0, 0, 1], abs=1e-9)
    free = next(relax(start, Argon(), fmax=2e-3, max_steps=800, optimizer=optimizer))
    assert record.energy > free.energy - 1e-3
    assert record.smax < 2e-3
    again = RelaxRecord.from_dict(record.to_dict())
    assert again.smax == record.smax


@pytest.mark.parametrize(("mask", "options"), [("volume", {"hydrostatic_strain": True}),
                                               ("shape", {"constant_volume": True}),
                                               (PLANE, {"mask": PLANE})], ids=["volume", "shape", "plane"])  # fmt: skip
def test_the_end_is_that_of_ase_with_its_mask(mask, options):
    start = STARTS[1] if mask != PLANE else crystal(5.45, 0.1)
    atoms = AseAtomsAdaptor.get_atoms(start, msonable=False)
    atoms.calc = AseArgon()
    FIRE(FrechetCellFilter(atoms, **options), logfile=None).run(fmax=1e-4, steps=2000)
    (record,) = relax(start, Argon(), fmax=1e-4, cell_mask=mask)
    assert record.state == "converged"
    assert record.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-4)
    assert record.structure.volume == pytest.approx(atoms.get_volume(), rel=1e-3)


@pytest.mark.parametrize("kind", [Fire, Lbfgs])
@pytest.mark.parametrize("mask", MASKS, ids=str)
def test_the_force_on_a_masked_cell_is_the_derivative_along_it(kind, mask):
    start = STARTS[0]
    freedom = cell_projector(start.lattice.matrix, mask)
    optimizer = kind(CPU, torch.float64, relax_cell=True, pressure=0.01)
    optimizer.add([state_of(start, CPU, torch.float64)], [None], [None], [freedom])
    optimizer.step(Argon())
    n, scale = len(start), float(optimizer._scales)
    random = np.random.default_rng(3)
    log = freedom @ (0.04 * random.normal(size=9))
    optimizer._rows[0, n:] = scale * torch.from_numpy(log).reshape(3, 3)
    optimizer._evaluate(Argon())
    force = optimizer._rows[2, n:].numpy().reshape(9).copy()
    assert freedom @ force == pytest.approx(force, abs=1e-12)
    along = freedom @ random.normal(size=9)
    enthalpies = []
    for step in (1e-5, -1e-5):
        optimizer._rows[0, n:] = torch.from_numpy(scale * log + step * along).reshape(3, 3)
        enthalpies.append(float(optimizer._evaluate(Argon())[-1]))
    assert force @ along == pytest.approx(-(enthalpies[0] - enthalpies[1]) / 2e-5, abs=1e-6)


def test_settings_that_mean_nothing_are_refused():
    assert RelaxSettings(cell_mask=[1, 1, 0, 0, 0, 1]) == RelaxSettings(cell_mask=PLANE)
    assert RelaxSettings(cell_mask=PLANE).digest() != RelaxSettings(cell_mask="volume").digest()
    assert RelaxSettings(cell_mask=PLANE).to_dict()["cell_mask"] == [True, True, False, False, False, True]
    assert RelaxSettings(fix_symmetry=True).digest() != RelaxSettings().digest()
    for mask in ("hydrostatic", "ba", "", [True] * 5, [False] * 6, [2] * 6):
        with pytest.raises(ValueError, match="cell_mask must be"):
            RelaxSettings(cell_mask=mask)
    with pytest.raises(ValueError, match="no effect on a fixed cell"):
        RelaxSettings(cell_mask="volume", relax_cell=False)
    with pytest.raises(ValueError, match="symprec"):
        RelaxSettings(symprec=0)
