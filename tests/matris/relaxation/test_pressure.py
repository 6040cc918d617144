"""Relaxation under pressure: forces are derivatives of the enthalpy, and ASE ends in the same cells."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase.filters import FrechetCellFilter
from ase.optimize import FIRE
from pymatgen.io.ase import AseAtomsAdaptor

from matris.relaxation.batch import state_of
from matris.relaxation.fire import Fire
from matris.relaxation.lbfgs import Lbfgs
from matris.relaxation.records import RelaxSettings
from matris.relaxation.relax import relax
from matris.units import GPA
from tests.matris.argon import Argon, AseArgon, crystal, primitive
from tests.matris.relaxation.test_fire import STARTS

CPU = torch.device("cpu")
OPTIMIZERS = ["lbfgs", "fire"]
PRESSURE = 1.5  # GPa: a volume smaller by several per cent


def by_ase(structure, pressure):
    atoms = AseAtomsAdaptor.get_atoms(structure, msonable=False)
    atoms.calc = AseArgon()
    FIRE(FrechetCellFilter(atoms, scalar_pressure=pressure / GPA), logfile=None).run(fmax=5e-4, steps=1000)
    return atoms


@pytest.mark.parametrize("kind", [Fire, Lbfgs])
@pytest.mark.parametrize("pressure", [0.0, 0.02])
def test_forces_are_derivatives_of_the_enthalpy(kind, pressure):
    """Each row of atoms and cell, at a strain of several per cent, by finite differences."""
    optimizer = kind(CPU, torch.float64, relax_cell=True, pressure=pressure)
    optimizer.add([state_of(start, CPU, torch.float64) for start in STARTS[:2]])
    optimizer.step(Argon())
    random = torch.Generator().manual_seed(4)
    cells = optimizer._cell_rows
    scales = optimizer._scales.expand(-1, 3, 1).reshape(-1, 1)
    place = optimizer._rows[0].clone()
    place[cells] += 0.04 * scales * torch.randn(len(cells), 3, generator=random, dtype=torch.float64)
    optimizer._rows[0] = place
    optimizer._evaluate(Argon())
    forces = optimizer._rows[2].clone()
    step = 1e-5
    for row in range(len(place)):
        for axis in range(3):
            enthalpies = []
            for sign in (1, -1):
                optimizer._rows[0] = place
                optimizer._rows[0, row, axis] += sign * step
                enthalpies.append(float(optimizer._evaluate(Argon())[-1].sum()))
            slope = (enthalpies[0] - enthalpies[1]) / (2 * step)
            assert float(forces[row, axis]) == pytest.approx(-slope, abs=2e-6)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_cell_is_that_of_ase(optimizer):
    start = STARTS[0]
    atoms = by_ase(start, PRESSURE)
    (free,) = relax(start, Argon(), fmax=5e-4, optimizer=optimizer)
    (record,) = relax(start, Argon(), fmax=5e-4, optimizer=optimizer, pressure=PRESSURE)
    assert record.state == "converged"
    assert record.structure.volume == pytest.approx(atoms.get_volume(), rel=1e-4)
    assert record.structure.volume < 0.97 * free.structure.volume
    assert record.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-4)  # E, not E + pV
    assert record.stress * GPA == pytest.approx(-PRESSURE * np.eye(3), abs=5e-3)
    assert record.smax == pytest.approx(np.abs(record.stress + PRESSURE / GPA * np.eye(3)).max(), abs=1e-12)
    assert record.smax < 1e-4


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_pull_expands_and_mates_share_the_pressure(optimizer):
    starts = [primitive(5.5), crystal(5.5, 0.1)]
    records = relax(starts, Argon(), fmax=1e-3, optimizer=optimizer, pressure=-0.2, max_batch_atoms=100)
    for record in records:
        assert record.state == "converged"
        assert np.trace(record.stress) / 3 * GPA == pytest.approx(0.2, abs=5e-3)


def test_a_cell_at_rest_under_no_pressure_is_not_converged_under_one():
    (free,) = relax(primitive(), Argon(), fmax=1e-4)
    (pressed,) = relax(free.structure, Argon(), fmax=1e-2, max_steps=0, pressure=5.0)
    assert (free.state, pressed.state) == ("converged", "max_steps")


def test_what_cannot_be_meant_is_refused():
    assert RelaxSettings(pressure=1).digest() == RelaxSettings(pressure=1.0).digest() != RelaxSettings().digest()
    assert RelaxSettings(pressure=-0.0).digest() == RelaxSettings().digest()
    with pytest.raises(ValueError, match="pressure must be a number"):
        RelaxSettings(pressure=float("nan"))
    with pytest.raises(ValueError, match="no effect on a fixed cell"):
        relax([], Argon(), pressure=1.0, relax_cell=False)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_pressure_without_resistance_still_collapses(optimizer):
    def after(_state, output):
        output["stress"] = torch.zeros_like(output["stress"])

    (record,) = relax(primitive(), Argon(after=after), pressure=100.0, optimizer=optimizer)
    assert record.state == "failed"
    assert "collapsed" in record.error
