"""FIRE against ASE's, step by step, and the cell's force against SciPy's derivatives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase.filters import FrechetCellFilter
from ase.optimize import FIRE
from pymatgen.io.ase import AseAtomsAdaptor
from scipy.linalg import expm, expm_frechet
from torch.utils._python_dispatch import TorchDispatchMode

from matris.relaxation.batch import state_of
from matris.relaxation.deformation import exponential, log_gradient
from matris.relaxation.fire import Fire
from tests.matris.argon import Argon, AseArgon, crystal, primitive

CPU = torch.device("cpu")
STEPS = 80


def sheared(structure, strain):
    """A structure whose lattice vectors are deformed, with the atoms."""
    lattice = structure.lattice.matrix @ (np.eye(3) + np.array(strain))
    return type(structure)(lattice, structure.species, structure.frac_coords)


STARTS = [
    sheared(crystal(5.4, shift=0.3), [[0.06, 0.05, 0], [-0.03, -0.05, 0.04], [0, 0, 0.02]]),
    sheared(primitive(5.6), [[0, 0.04, 0], [0, 0.03, 0], [0.05, 0, -0.06]]),
    crystal(5.45, shift=-0.1) * (2, 1, 1),
]


def of_ase(structure, *, relax_cell):
    """Positions and lattice vectors of ASE's FIRE before each step."""
    atoms = AseAtomsAdaptor.get_atoms(structure, msonable=False)
    atoms.calc = AseArgon()
    way = []
    optimizer = FIRE(FrechetCellFilter(atoms) if relax_cell else atoms, logfile=None)
    optimizer.attach(lambda: way.append((atoms.positions.copy(), atoms.cell.array.copy())))
    optimizer.run(fmax=0.0, steps=STEPS)
    return way


def of_ours(structures, *, relax_cell):
    """The same of ours, all at once."""
    fire, model = Fire(CPU, torch.float64, relax_cell=relax_cell), Argon()
    fire.add([state_of(structure, CPU, torch.float64) for structure in structures])
    ends = np.cumsum([len(structure) for structure in structures])[:-1]
    ways = [[] for _ in structures]
    for _ in range(STEPS + 1):
        fire.step(model)
        positions = np.split(fire.state.positions.numpy().copy(), ends)
        for way, place, cell in zip(ways, positions, fire.state.cell.numpy().copy(), strict=True):
            way.append((place, cell.T))
    return ways


@pytest.mark.parametrize("relax_cell", [True, False])
def test_every_step_is_that_of_ase(relax_cell):
    for start, ours in zip(STARTS, of_ours(STARTS, relax_cell=relax_cell), strict=True):
        theirs = of_ase(start, relax_cell=relax_cell)
        assert len(theirs) == len(ours) == STEPS + 1
        assert len(start) == 1 or np.abs(theirs[-1][0] - theirs[0][0]).max() > 0.05
        for (positions, cell), (place, lattice) in zip(theirs, ours, strict=True):
            assert place == pytest.approx(positions, abs=1e-8)
            assert lattice == pytest.approx(cell, abs=1e-8)


def test_who_comes_and_goes_changes_nothing():
    """One starts late, another leaves early."""
    alone = of_ours(STARTS[:1], relax_cell=True)[0]
    fire, model = Fire(CPU, torch.float64, relax_cell=True), Argon()
    states = [state_of(start, CPU, torch.float64) for start in STARTS]
    fire.add([states[1]])
    for _ in range(3):
        fire.step(model)
    fire.add([states[0], states[2]])
    for _ in range(4):
        fire.step(model)
    fire.remove(np.array([True, False, True]))
    for _ in range(STEPS - 3):
        fire.step(model)
    cell = fire.state.cell[0].numpy().T
    assert fire.state.positions.numpy() == pytest.approx(alone[-1][0], abs=1e-9)
    assert cell == pytest.approx(alone[-1][1], abs=1e-9)
    fire.remove(np.array([True]))
    fire.add([states[0]])
    for _ in range(STEPS + 1):
        fire.step(model)
    assert fire.state.positions.numpy() == pytest.approx(alone[-1][0], abs=1e-9)


@pytest.mark.parametrize("size", [0.0, 0.1, 0.5])
def test_force_on_the_cell_is_the_adjoint_derivative(size):
    """Component ij of the filter's force is the derivative of exp at L along ij, times the virial over Fᵀ."""
    random = np.random.default_rng(1)
    logs, virials = size * random.uniform(-1, 1, (4, 3, 3)), random.normal(size=(4, 3, 3))
    assert exponential(torch.from_numpy(logs)).numpy() == pytest.approx(
        np.array([expm(log) for log in logs]), rel=1e-12
    )
    ours = log_gradient(torch.from_numpy(logs), torch.from_numpy(virials)).numpy()
    for log, virial, force in zip(logs, virials, ours, strict=True):
        gradient = virial @ np.linalg.inv(expm(log).T)
        directions = np.eye(9).reshape(9, 3, 3)
        expected = [np.sum(expm_frechet(log, along, compute_expm=False) * gradient) for along in directions]
        assert force.reshape(-1) == pytest.approx(expected, abs=1e-9)


def test_a_step_is_few_operations():
    class Count(TorchDispatchMode):
        n = 0

        def __torch_dispatch__(self, function, types, arguments=(), options=None):
            self.n += 1
            return function(*arguments, **(options or {}))

    fire = Fire(CPU, torch.float64, relax_cell=True)
    fire.add([state_of(start, CPU, torch.float64) for start in STARTS])
    fire.step(Argon())
    answer = Argon()(fire.state)
    with Count() as count:
        fire.step(lambda _: answer)
    assert count.n < 130  # 32 of them are the terms of two series


@pytest.mark.parametrize("relax_cell", [True, False])
def test_no_product_of_a_step_has_reduced_precision(relax_cell):
    """TF32, set for the whole process, would leave the places of atoms three digits on a GPU."""

    class Products(TorchDispatchMode):
        precisions: tuple[str, ...] = ()

        def __torch_dispatch__(self, function, types, arguments=(), options=None):
            if any(name in str(function) for name in ("mm", "matmul", "einsum", "addmv", "dot")):
                self.precisions += (torch.backends.cuda.matmul.fp32_precision,)
            return function(*arguments, **(options or {}))

    fire = Fire(CPU, torch.float64, relax_cell=relax_cell)
    fire.add([state_of(start, CPU, torch.float64) for start in STARTS])
    fire.step(Argon())
    answer = Argon()(fire.state)
    torch.set_float32_matmul_precision("high")
    try:
        with Products() as products:
            fire.step(lambda _: answer)
    finally:
        torch.set_float32_matmul_precision("highest")
    assert set(products.precisions) <= {"ieee"}
    assert bool(products.precisions) is relax_cell  # the series of exponentials is the watched one
