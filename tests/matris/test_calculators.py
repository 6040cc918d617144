"""The potential behind ASE and torch-sim."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch_sim as ts
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.calculators.calculator import PropertyNotImplementedError
from pymatgen.io.ase import AseAtomsAdaptor
from torch_sim.models.interface import validate_model_outputs

from matris.calculator import MatRISCalculator
from matris.errors import StructureError
from matris.model.checkpoints import Card
from matris.model.potential import Potential
from matris.torchsim import MatRISTorchSimModel
from tests.matris.golden import golden_potential, structures


@pytest.fixture(scope="module")
def potential():
    """Golden weights, for any element: conformance suites bring their own crystals."""
    golden = golden_potential("released_small", torch.float64)
    elements = ("H", "C", "O", "Si", "Mg", "Fe", "Cu", "Na", "Cl", "Se", "In")
    return Potential(golden.network, Card(key="golden", predicts="efsm", elements=elements))


def test_ase_agrees_with_predict(potential):
    structure = structures()["CuInSe2_triclinic"]
    atoms = AseAtomsAdaptor.get_atoms(structure)
    atoms.calc = MatRISCalculator(potential)
    expected = potential.predict(structure)
    assert atoms.get_potential_energy() == pytest.approx(expected.energy, abs=1e-10)
    assert np.allclose(atoms.get_forces(), expected.forces, atol=1e-10)
    assert np.allclose(atoms.get_stress(voigt=False), expected.stress, atol=1e-12)
    assert np.allclose(atoms.get_magnetic_moments(), expected.magmoms)


def test_results_are_kept_until_the_geometry_changes(potential, monkeypatch):
    calls = []
    monkeypatch.setattr(
        Potential, "evaluate", lambda self, graph, run=Potential.evaluate: calls.append(1) or run(self, graph)
    )
    atoms = bulk("Cu")
    atoms.calc = MatRISCalculator(potential)
    first = atoms.get_potential_energy()
    atoms.get_forces()
    atoms.get_stress()
    assert len(calls) == 1
    atoms.set_cell(atoms.cell * 1.01, scale_atoms=True)
    assert atoms.get_potential_energy() != first
    assert len(calls) == 2


def test_molecule_and_slab(potential):
    water = molecule("H2O")  # no cell at all
    water.calc = MatRISCalculator(potential)
    boxed = molecule("H2O", vacuum=10.0, pbc=True)
    boxed.calc = MatRISCalculator(potential)
    assert water.get_potential_energy() == pytest.approx(boxed.get_potential_energy(), abs=1e-9)
    assert np.allclose(water.get_forces(), boxed.get_forces(), atol=1e-9)
    with pytest.raises(PropertyNotImplementedError, match="periodicity"):
        water.get_stress()
    slab = fcc111("Cu", (1, 1, 3), periodic=False)  # periodic in the plane, no cell vector across it
    padded = fcc111("Cu", (1, 1, 3), vacuum=10.0, periodic=True)
    for atoms in (slab, padded):
        atoms.calc = MatRISCalculator(potential)
    assert slab.pbc.tolist() == [True, True, False]
    assert slab.get_potential_energy() == pytest.approx(padded.get_potential_energy(), abs=1e-9)


@pytest.mark.parametrize(
    ("atoms", "says"),
    [
        (Atoms(), "no atoms"),
        (Atoms("Cu", [[0, 0, np.nan]], cell=[3, 3, 3], pbc=True), "NaN"),
        (Atoms("Au", cell=[3, 3, 3], pbc=True), "Au"),
        (Atoms("Cu2", [[0, 0, 0], [0, 0, 0]], cell=[5, 5, 5], pbc=True), "same place"),
        (Atoms("Cu", cell=[[3, 0, 0], [3, 0, 0], [0, 0, 3]], pbc=True), "no volume"),
    ],
)
def test_bad_input_is_named(potential, atoms, says):
    atoms.calc = MatRISCalculator(potential)
    with pytest.raises(StructureError, match=says):
        atoms.get_potential_energy()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_torch_sim_contract(dtype):
    golden = golden_potential("released_small", dtype)
    model = MatRISTorchSimModel(Potential(golden.network, Card(key="golden", predicts="efsm")))
    validate_model_outputs(model, torch.device("cpu"), dtype)


def test_torch_sim_agrees_with_predict_in_a_mixed_batch(potential):
    names = ["Cu1_fcc", "CuInSe2_triclinic", "NaCl8"]
    chosen = [structures()[name] for name in names]
    model = MatRISTorchSimModel(potential)
    output = model(ts.io.structures_to_state(chosen, torch.device("cpu"), torch.float64))
    expected = list(potential.predict(chosen))
    assert np.allclose(output["energy"].numpy(), [p.energy for p in expected], atol=1e-9)
    assert np.allclose(output["forces"].numpy(), np.concatenate([p.forces for p in expected]), atol=1e-9)
    assert np.allclose(output["stress"].numpy(), [p.stress for p in expected], atol=1e-10)
    assert np.allclose(output["magmoms"].numpy(), np.concatenate([p.magmoms for p in expected]), atol=1e-9)
