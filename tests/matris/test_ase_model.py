"""ASE calculators through our flows give what ASE and phonopy give with them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.eos import EquationOfState
from ase.optimize import BFGS
from ase.phonons import Phonons
from ase.units import GPa
from phonopy import Phonopy
from phonopy.structure.atoms import PhonopyAtoms
from pymatgen.io.ase import AseAtomsAdaptor
from torch_sim.models.interface import validate_model_outputs

import matris
from matris import AseModel
from matris.ase_model import identity_of
from matris.properties.elastic import elastic
from matris.properties.eos import eos
from matris.properties.phonons import PhononSettings, displaced, phonons

SETTINGS = PhononSettings(min_length=7.9, temperatures=(300.0,))
POINTS = {"X": (0.5, 0.0, 0.5), "L": (0.5, 0.5, 0.5), "W": (0.5, 0.25, 0.75)}
"""Of the fcc primitive cell; commensurate with two conventional cells a side, and with four primitive ones."""

THZ_PER_EV = 241.798924


def lennard_jones(**changes):
    """Argon-like crystals of 3.4 Å neighbors; smooth at the cutoff, so that stress is the derivative of energy."""
    return LennardJones(**({"sigma": 3.0, "epsilon": 0.1, "rc": 6.5, "ro": 5.0, "smooth": True} | changes))


def test_contract_of_torch_sim():
    validate_model_outputs(AseModel(lennard_jones()), torch.device("cpu"), torch.float64)


def test_answers_are_the_calculators():
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=1)
    atoms.calc = EMT()
    model = AseModel(EMT())
    (record,) = matris.relax(atoms, model, max_steps=0)
    assert record.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-10)
    assert record.forces == pytest.approx(atoms.get_forces(), abs=1e-10)
    assert record.stress == pytest.approx(atoms.get_stress(voigt=False), abs=1e-12)


def test_relaxation_ends_where_ase_does():
    crystals = [bulk("Al", cubic=True), bulk("Cu", cubic=True)]
    for number, crystal in enumerate(crystals):
        crystal.rattle(0.1, seed=number)
    records = sorted(matris.relax(crystals, AseModel(EMT()), fmax=1e-3, relax_cell=False), key=lambda r: r.index)
    for crystal, record in zip(crystals, records, strict=True):
        crystal.calc = EMT()
        BFGS(crystal, logfile=None).run(fmax=1e-3)
        assert record.state == "converged"
        assert record.energy == pytest.approx(crystal.get_potential_energy(), abs=1e-5)


class NoStress(EMT):
    implemented_properties = ("energy", "forces")


def test_a_calculator_without_stress():
    model = AseModel(NoStress())
    assert not model.compute_stress
    with pytest.raises(ValueError, match="needs stress"):
        matris.relax(bulk("Al"), model)
    (record,) = matris.relax(bulk("Al", cubic=True), model, relax_cell=False)
    assert record.state == "converged"
    assert record.stress is None
    (refused,) = elastic([bulk("Al")], model, relax_first=False)
    assert refused.state == "failed"
    assert "no stress" in refused.error


def test_a_calculator_without_forces():
    class NoForces(EMT):
        implemented_properties = ("energy",)

    with pytest.raises(ValueError, match="forces are needed"):
        AseModel(NoForces())


def test_what_the_calculator_refuses_is_told():
    silicon, aluminium = sorted(matris.relax([bulk("Si"), bulk("Al")], AseModel(EMT())), key=lambda r: r.index)
    assert silicon.state == "failed"
    assert "No EMT-potential for Si" in silicon.error
    assert aluminium.state == "converged"


def test_identity_is_what_decides_the_numbers():
    assert identity_of(lennard_jones()) == identity_of(lennard_jones())
    assert identity_of(EMT()) == identity_of(EMT())
    others = [lennard_jones(sigma=3.0001), lennard_jones(smooth=False), EMT(), NoStress()]
    assert len({identity_of(calculator) for calculator in [lennard_jones(), *others]}) == 5
    assert AseModel(lennard_jones(), identity="argon").identity == "argon"


def test_weights_count_and_what_cannot_be_read_is_unlike_anything():
    def made(scale, extra=None):
        calculator = EMT()
        layer = torch.nn.Linear(2, 1)
        torch.nn.init.constant_(layer.weight, scale)
        torch.nn.init.constant_(layer.bias, 0.0)
        calculator.models, calculator.extra = [layer], extra
        return calculator

    assert identity_of(made(1.0)) == identity_of(made(1.0))
    assert identity_of(made(1.0)) != identity_of(made(1.5))
    opaque = made(1.0, object())
    assert identity_of(opaque) != identity_of(opaque)


def test_calculators_share_no_journal(tmp_path):
    atoms = bulk("Ar", a=4.9)
    first, second = (AseModel(lennard_jones(epsilon=e)) for e in (0.1, 0.2))
    energies = [
        next(matris.relax(atoms, model, max_steps=0, journal=tmp_path)).energy
        for model in (first, second, AseModel(lennard_jones()))
    ]
    assert energies[1] == pytest.approx(2 * energies[0])
    assert energies[2] == energies[0]
    assert len(list(tmp_path.glob("*.jsonl"))) == 2


@pytest.mark.parametrize(
    ("atoms", "calculator"),
    [(bulk("Al"), EMT), (bulk("Cu", cubic=True), EMT), (bulk("Ar", a=4.8), lennard_jones)],
    ids=["Al, primitive", "Cu, conventional", "Lennard-Jones"],
)
def test_equation_of_state_is_that_of_ase(atoms, calculator):
    (record,) = eos([atoms], AseModel(calculator()), fmax=1e-4, volumes=np.linspace(0.97, 1.03, 9).tolist())
    energies = []
    for volume in record.volumes:
        scaled = atoms.copy()
        scaled.set_cell(atoms.cell * (volume / atoms.get_volume()) ** (1 / 3), scale_atoms=True)
        scaled.calc = calculator()
        energies.append(scaled.get_potential_energy())
    assert record.energies == pytest.approx(energies, abs=1e-8)
    v0, e0, b0 = EquationOfState(record.volumes, energies, "birchmurnaghan").fit()
    fit = next(fit for fit in record.fits if fit.equation == "birch_murnaghan")
    assert (fit.v0, fit.e0, fit.b0) == pytest.approx((v0, e0, b0 / GPa), rel=1e-5)


def cubic_constants(atoms, calculator, strain=1e-3):
    """C11, C12 and C44 (GPa) by central differences of ASE's stress, of a crystal whose atoms symmetry holds."""

    def stress(deformation):
        strained = atoms.copy()
        strained.set_cell(atoms.cell @ (np.eye(3) + deformation), scale_atoms=True)
        strained.calc = calculator
        return strained.get_stress() / GPa

    stretch, shear = np.zeros((3, 3)), np.zeros((3, 3))
    stretch[0, 0], shear[1, 2], shear[2, 1] = strain, strain / 2, strain / 2
    along, across = ((stress(d) - stress(-d)) / (2 * strain) for d in (stretch, shear))
    return along[0], along[1], across[3]


@pytest.mark.parametrize(
    ("element", "cubic", "strains"),
    [
        ("Al", False, (-0.01, -0.005, 0.005, 0.01)),
        ("Al", True, (-0.002, 0.002)),
        ("Cu", False, (-0.01, -0.005, 0.005, 0.01)),
    ],
    ids=str,
)
def test_elastic_constants_are_slopes_of_the_stress(element, cubic, strains):
    (record,) = elastic([bulk(element, cubic=cubic)], AseModel(EMT()), strains=strains, fmax=1e-4)
    relaxed = AseAtomsAdaptor.get_atoms(record.structure)
    expected = cubic_constants(relaxed, EMT())
    tensor = record.fit.tensor
    assert (tensor[0, 0], tensor[0, 1], tensor[3, 3]) == pytest.approx(expected, rel=3e-3)
    if element == "Al":  # as atomate2's flow gives them at its default strains
        assert (tensor[0, 0], tensor[0, 1], tensor[3, 3]) == pytest.approx((53.3, 32.9, 36.2), abs=0.15)


def phonopy_by_hand(structure, calculator):
    """phonopy with forces of the calculator, nothing subtracted and nothing made symmetric."""
    matrix = displaced(structure, SETTINGS)[0].supercell_matrix
    cell = PhonopyAtoms(
        symbols=[s.specie.symbol for s in structure],
        cell=structure.lattice.matrix,
        scaled_positions=structure.frac_coords,
    )
    phonopy = Phonopy(cell, supercell_matrix=matrix, primitive_matrix="auto")
    phonopy.generate_displacements(distance=0.03)
    forces = []
    for supercell in phonopy.supercells_with_displacements:
        atoms = AseAtomsAdaptor.get_atoms(structure)[[0] * len(supercell)]
        atoms.set_cell(supercell.cell)
        atoms.set_scaled_positions(supercell.scaled_positions)
        atoms.calc = calculator
        forces.append(atoms.get_forces())
    phonopy.produce_force_constants(forces)
    return phonopy


@pytest.mark.parametrize(("element", "cubic"), [("Al", False), ("Cu", True)], ids=str)
def test_phonons_are_those_of_phonopy_and_ase(element, cubic, tmp_path):
    (record,) = phonons([bulk(element, cubic=cubic)], AseModel(EMT()), settings=SETTINGS, fmax=1e-4)
    qpoints = list(POINTS.values())
    frequencies = record.phonons.phonopy.run_qpoints(qpoints).frequencies
    by_hand = phonopy_by_hand(record.structure, EMT()).run_qpoints(qpoints).frequencies
    assert frequencies == pytest.approx(by_hand, abs=1e-3)  # THz

    primitive = record.phonons.phonopy.primitive
    atoms = bulk(element)
    atoms.set_cell(primitive.cell)
    theirs = Phonons(atoms, EMT(), supercell=(4, 4, 4), delta=0.03, name=str(tmp_path / "phonon"))
    theirs.run()
    theirs.read(acoustic=True)
    energies = theirs.band_structure(np.array(qpoints), verbose=False)
    assert frequencies == pytest.approx(THZ_PER_EV * energies, abs=0.01)  # THz


def test_phonons_of_a_crystal_without_emt():
    """Lennard-Jones, against phonopy driven by hand."""
    (record,) = phonons([bulk("Ar", a=4.7)], AseModel(lennard_jones()), settings=SETTINGS, fmax=1e-4)
    qpoints = list(POINTS.values())
    frequencies = record.phonons.phonopy.run_qpoints(qpoints).frequencies
    assert frequencies.min() > 0.1
    by_hand = phonopy_by_hand(record.structure, lennard_jones()).run_qpoints(qpoints).frequencies
    assert frequencies == pytest.approx(by_hand, abs=1e-3)  # THz
