"""Results that cannot be trusted say so; masses, handedness and vacuum are what they are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from matris.model.potential import load
from matris.properties.crossings import crossings_of_cells, crossings_of_displacements, cutoffs_of
from matris.properties.elastic import ElasticFit, elastic
from matris.properties.eos import curve_doubts, eos, fit_eos
from matris.properties.phonons import PhononSettings, displaced, phonons
from matris.properties.qha import _thermal_doubts, quasi_harmonic
from matris.structures import masses_of
from matris.torchsim import MatRISTorchSimModel
from matris.vacuum import vacuum
from tests.conftest import SMALL_PUBLISHED
from tests.matris.argon import FCC, Argon, crystal, primitive
from tests.matris.properties.test_elastic import STIFFNESS

THZ = 15.633302  # of one (eV/Å²/u)^½
MASS = 39.948
SMALL = PhononSettings(min_length=7.0, temperatures=(0.0, 100.0, 200.0, 300.0))
MGO = Structure.from_spacegroup("Fm-3m", Lattice.cubic(4.25), ["Mg", "O"], [[0] * 3, [0.5] * 3])
SILICON = Structure.from_spacegroup("Fd-3m", Lattice.cubic(5.46), ["Si"], [[0] * 3])
RUTILE = Structure.from_spacegroup(
    "P4_2/mnm", Lattice.tetragonal(4.6533, 2.9692), ["Ti", "O"], [[0, 0, 0], [0.30478, 0.30478, 0]]
)


def left_handed(structure: Structure) -> Structure:
    """The same crystal by other vectors."""
    swapped = Lattice(structure.lattice.matrix[[1, 0, 2]])
    return Structure(swapped, structure.species, structure.cart_coords, coords_are_cartesian=True)


def highest(record) -> float:
    return max(frequencies.max() for frequencies in record.phonons.frequencies)


def test_a_kink_at_straight_bond_angles_is_told():
    """MgO has them and silicon has none; the warning has both values."""
    settings = PhononSettings(min_length=4.0, temperatures=(0.0, 300.0))
    cells = [MGO.get_primitive_structure(), SILICON.get_primitive_structure()]
    straight, bent = phonons(cells, load(SMALL_PUBLISHED, device="cpu"), settings=settings)
    check = straight.linearity
    assert check.element == "O"
    assert check.displacements == pytest.approx((0.03, 0.01))
    assert check.disagreement > 0.05
    assert not straight.is_reliable
    (warning,) = [text for text in straight.warnings if "not linear" in text]
    assert f"{check.frequencies[0]:.2f} THz at 0.03 Å and {check.frequencies[1]:.2f} THz at 0.01 Å" in warning
    assert bent.linearity.disagreement < 0.01
    assert bent.is_reliable
    assert not any("not linear" in text for text in bent.warnings)


def test_even_forces_are_left_out():
    """A force quadratic in the displacement of an atom without inversion cancels."""
    polar = Structure(Lattice.tetragonal(FCC / 2**0.5, 1.08 * FCC), ["Ar", "Ar"], [[0, 0, 0], [0.5, 0.5, 0.47]])
    (record,) = phonons([polar], Argon(), settings=replace(SMALL, displacement=0.06), max_steps=0)
    assert record.linearity.force_constants[0] == pytest.approx(record.linearity.force_constants[1], rel=0.02)


def test_wrong_displacements_are_refused():
    for wrong in (0.0, -0.03, float("nan"), 1.0):
        with pytest.raises(ValueError, match="displacement must be"):
            PhononSettings(displacement=wrong)
    for wrong in (0.0, -12.0, float("nan"), float("inf")):
        for name in ("min_length", "symprec"):
            with pytest.raises(ValueError, match=f"{name} must be a positive length"):
                PhononSettings(**{name: wrong})


@pytest.mark.parametrize("cell", [primitive(FCC * 1.01), crystal(FCC * 1.01)], ids=["primitive", "conventional"])
def test_left_handed_cells_are_the_same_crystal(cell):
    right, left = phonons([cell, left_handed(cell)], Argon(), settings=SMALL)
    assert left.state == "converged"
    assert np.linalg.det(left.structure.lattice.matrix) < 0
    assert highest(left) == pytest.approx(highest(right), rel=1e-6)
    assert left.phonons.free_energy == pytest.approx(right.phonons.free_energy, rel=1e-6)
    right, left = quasi_harmonic([cell, left_handed(cell)], Argon(), settings=SMALL)
    assert left.thermodynamics.volume == pytest.approx(right.thermodynamics.volume, rel=1e-6)
    right, left = elastic([cell, left_handed(cell)], Argon())
    assert left.fit.tensor == pytest.approx(right.fit.tensor, abs=0.01)


def test_masses_of_isotopes():
    """Frequencies go with 1/√m, for masses of sites and for deuterium by its name."""
    heavy = primitive().copy(site_properties={"masses": [4 * MASS]})
    deuterium, hydrogen = (Structure(primitive().lattice, [symbol], [[0, 0, 0]]) for symbol in ("D", "H"))
    natural, slow, deuteride, hydride = phonons([primitive(), heavy, deuterium, hydrogen], Argon(), settings=SMALL)
    assert highest(natural) == pytest.approx(2 * highest(slow), rel=1e-6)
    ratio = masses_of(deuterium)[0] / masses_of(hydrogen)[0]
    assert ratio == pytest.approx(2, rel=2e-3)
    assert highest(hydride) / highest(deuteride) == pytest.approx(ratio**0.5, rel=1e-6)
    assert deuteride.phonons.heat_capacity[2] > hydride.phonons.heat_capacity[2]


def test_isotopes_of_one_element_at_equivalent_sites():
    """Masses are not merged with the primitive cell: Σω² = Σ tr Φ / m at Γ, with 12 springs to each atom."""
    masses = [MASS, MASS, 2 * MASS, 3 * MASS]
    cell = crystal().copy(site_properties={"masses": masses})
    (record,) = phonons([cell], Argon(), settings=SMALL)
    assert record.phonons.n_atoms == 4
    squares = (record.phonons.phonopy.run_qpoints([[0, 0, 0]]).frequencies / THZ) ** 2
    assert squares.sum() == pytest.approx(12 * STIFFNESS * sum(1 / mass for mass in masses), rel=5e-3)
    whole = record.phonons.phonopy.run_mesh([4, 4, 4], is_mesh_symmetry=False).frequencies
    assert len(whole) > len(record.phonons.phonopy.run_mesh([4, 4, 4]).frequencies) / 2


def test_atoms_out_of_reach_of_each_other():
    lone = Structure(Lattice.cubic(14), ["Ar"], [[0, 0, 0]])
    (record,) = phonons([lone], Argon(), settings=SMALL)
    assert record.state == "failed"
    assert "no atom feels the displacement of another one" in record.error
    (record,) = quasi_harmonic([lone], Argon(), settings=SMALL)
    assert "no atom feels the displacement of another one" in record.error
    (record,) = eos([lone], Argon())
    assert record.state == "failed"
    assert "gap of 14.0 Å without atoms" in record.error


def test_fixed_atoms_that_vibrate_are_told():
    cell = crystal()
    cell.add_site_property("selective_dynamics", [[False] * 3, [True] * 3, [True] * 3, [True] * 3])
    (record,) = phonons([cell], Argon(), settings=SMALL)
    assert any("atoms that the input fixes" in warning for warning in record.warnings)


def test_vacuum():
    slab = crystal().make_supercell([1, 1, 2], in_place=False)
    box = Lattice.from_parameters(*slab.lattice.abc[:2], slab.lattice.c + 9, 90, 90, 90)
    slab = Structure(box, slab.species, slab.cart_coords, coords_are_cartesian=True)
    assert vacuum(slab) == pytest.approx(9 + crystal().lattice.a / 2, abs=1e-6)
    assert vacuum(crystal()) is None
    assert vacuum(crystal().make_supercell([[2, 1, 0], [0, 1, 3], [1, 0, 1]], in_place=False)) is None
    records = [*elastic([slab], Argon(), max_steps=0), *eos([slab], Argon(), max_steps=0)]
    for record in records:
        assert not record.is_reliable
        assert record.state == "failed" or "without atoms" in record.warnings[0]
        assert not any("mechanically unstable" in warning for warning in record.warnings)


def test_curves_that_jump():
    """A smooth curve passes; one that jumps does not, nor do energies that are not the pressures' work."""
    volumes = np.linspace(36, 44, 7)
    energies = 0.5 * 0.6 * (volumes - 40) ** 2 / 40 - 0.02 * (volumes - 40) ** 3 / 40
    pressures = -160.21766 * (0.6 * (volumes - 40) / 40 - 0.06 * (volumes - 40) ** 2 / 40)

    def doubts(values, work=None):
        fits = [fit_eos(volumes, values, 2, name) for name in ("birch_murnaghan", "vinet")]
        return " ".join(curve_doubts(volumes, values, 2, fits, work))

    assert doubts(energies, pressures) == ""
    jump = energies - 0.1 * np.ptp(energies) * (volumes > 40.1)
    assert "energies and stresses disagree" in doubts(jump, pressures)
    assert "residuals in meV/atom" in doubts(energies - 0.15 * np.ptp(energies) * (volumes > 42))
    assert "residuals in meV/atom" in doubts(energies + 0.05 * np.ptp(energies) * (np.arange(7) == 3))
    assert "not convex" in doubts(energies + 0.1 * np.ptp(energies) * (np.arange(7) == 3))
    steep = 0.5 * 0.6 * (volumes - 40) ** 2 / 40 - 0.12 * (volumes - 40) ** 3 / 40 + 0.02 * (volumes - 40) ** 4 / 40
    assert "B0' of" in doubts(steep)


def test_rutile_by_a_potential_that_jumps():
    """The energy of a published network jumps at 5.5 Å, where rutile has a shell: B0' of −20 was "converged"."""
    potential = load(SMALL_PUBLISHED, device="cpu")
    jumping, smooth = eos([RUTILE, MGO.get_primitive_structure()], potential)
    assert not jumping.is_reliable
    assert any("B0' of" in warning for warning in jumping.warnings)
    assert any("energies and stresses disagree" in warning for warning in jumping.warnings)
    assert any("crosses the cutoff of 5.5 Å" in warning for warning in jumping.warnings)
    assert {crossing.cutoff for crossing in jumping.crossings} == set(cutoffs_of(potential))
    assert smooth.is_reliable
    assert smooth.warnings == ()


def test_elastic_constants_that_are_not_those_of_an_energy():
    raw = np.diag([300.0, 300, 300, 100, 100, 100])
    good = ElasticFit(raw, raw, residual=0.01, nonlinearity=0.01, stress=np.zeros(6), largest_stress=3.0)
    assert good.doubts() == []
    lopsided = raw.copy()
    lopsided[0, 1] = 18.0
    assert "differ by 18.0 GPa" in replace(good, raw=lopsided).doubts()[0]
    assert "not smooth" in replace(good, residual=0.1).doubts()[0]
    assert "use smaller ones" in replace(good, nonlinearity=0.2).doubts()[0]


def test_jumping_stresses_are_told():
    """A stress that jumps by 1 GPa between expansion and compression, as at a shell that crosses a cut-off."""

    def jumps(state, output):
        grown = torch_det(state.cell) > FCC**3 / 4 * state.n_atoms_per_system
        output["stress"] += 0.00624 * grown[:, None, None] * unit

    import torch

    torch_det, unit = torch.linalg.det, torch.eye(3, dtype=torch.float64)
    (smooth,) = elastic([primitive(FCC)], Argon(), relax_first=False)
    (record,) = elastic([primitive(FCC)], Argon(after=jumps), relax_first=False)
    assert smooth.is_reliable
    assert not record.is_reliable
    assert record.warnings


def test_a_bulk_modulus_that_rises_with_temperature():
    (record,) = quasi_harmonic([primitive(FCC * 1.01)], Argon(), settings=SMALL)
    assert record.is_reliable
    qha = record.thermodynamics
    assert _thermal_doubts(qha) == []
    (doubt,) = _thermal_doubts(replace(qha, bulk_moduli=qha.bulk_moduli[0] * np.array([1, 1.02, 1.05, 1.1])))
    assert "rises with temperature" in doubt


def test_shells_at_a_cutoff():
    potential = load(SMALL_PUBLISHED, device="cpu")
    assert cutoffs_of(MatRISTorchSimModel(potential)) == cutoffs_of(potential) == (5.5, 3.3)
    assert cutoffs_of(load(device="cpu")) == ()  # it is smooth
    assert cutoffs_of(Argon()) == ()
    silicon = SILICON.get_primitive_structure()
    third = silicon.lattice.a * 2**0.5 * 11**0.5 / 4
    for cutoff, found in ((third - 0.01, True), (third + 0.01, True), (third - 0.1, False)):
        pressed, pulled = silicon.copy(), silicon.copy()
        pressed.apply_strain(-0.005)
        pulled.apply_strain(0.005)
        crossings = crossings_of_cells(silicon, [pressed, pulled], [cutoff])
        assert bool(crossings) is found
        phonopy, _ = displaced(silicon, PhononSettings(min_length=5))
        assert bool(crossings_of_displacements(phonopy, [cutoff])) is found
        if crossings:
            assert crossings[0].distance == pytest.approx(third)
            assert crossings[0].n_pairs == 12  # of two atoms with twelve third neighbors each
    moved = silicon.copy()
    moved.translate_sites([0], [1, 0, 0])  # the same crystal
    assert crossings_of_cells(silicon, [moved], [third - 0.01]) == ()
