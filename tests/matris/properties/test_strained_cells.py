"""Newton relaxation of strained cells: it ends where FIRE ends, in fewer evaluations, and leaves the rest to FIRE."""

from __future__ import annotations

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from matris.properties.elastic import elastic, strained
from matris.properties.groups import Relaxer
from matris.properties.strained_cells import relax_strained
from tests.matris.argon import FCC, NEIGHBOR, Argon, crystal
from tests.matris.properties.test_elastic import hcp

SHEAR = np.array([[0.004, 0.006, 0], [0.006, -0.004, 0], [0, 0, 0.0]])


def deviation(one, other):
    """Largest distance between the atoms of two cells of the same lattice, centers of mass apart, Å."""
    apart = one.frac_coords - other.frac_coords
    apart -= apart.round()
    return np.linalg.norm((apart - apart.mean(axis=0)) @ one.lattice.matrix, axis=1).max()


def test_it_is_where_fire_ends():
    start = hcp(NEIGHBOR)
    cells = [strained(start, SHEAR), strained(start, -SHEAR), start]
    model = Argon()
    (newton,) = relax_strained([start], [cells], Relaxer(model, 1e-5, 500))
    calls = len(model.batches)
    (fire,) = Relaxer(model, 1e-5, 500, optimizer="fire").groups([cells])
    assert [record.state for record in newton] == ["converged"] * 3
    assert all(record.n_steps == 0 for record in newton)
    assert fire[0].n_steps > 5
    assert calls < sum(record.n_steps for record in fire) / 2
    assert deviation(newton[0].structure, cells[0]) > 1e-3
    for one, other in zip(newton, fire, strict=True):
        assert one.structure.lattice == other.structure.lattice
        assert deviation(one.structure, other.structure) < 1e-4
        assert one.stress == pytest.approx(other.stress, abs=1e-6)


def test_soft_crystals_and_broken_cells_are_left_to_fire():
    """Simple cubic, held by nearest neighbors alone and pressed, gives way to shear of its layers."""
    a = 0.97 * NEIGHBOR
    soft = Structure(Lattice.orthorhombic(a, a, 2 * a), ["Ar"] * 2, [[0, 0, 0], [0.02, 0, 0.5]])
    overlapping = Structure(Lattice.cubic(5), ["Ar", "Ar"], [[0, 0, 0], [0, 0, 0.01]])
    starts = [soft, None, crystal(FCC)]
    groups = [[strained(soft, SHEAR)], [], [overlapping, strained(crystal(FCC), SHEAR)]]
    relaxer = Relaxer(Argon(), 1e-4, 300)
    records = relax_strained(starts, groups, relaxer)
    assert [len(group) for group in records] == [1, 0, 2]
    (usual,) = relaxer.groups([groups[0]])
    assert records[0][0].n_steps == usual[0].n_steps > 0
    assert records[2][0].state == "failed"
    assert records[2][1].state == "converged"
    assert relax_strained([], [], relaxer) == []


def test_elastic_constants_of_a_crystal_with_inner_freedom(monkeypatch):
    (newton,) = elastic([hcp(NEIGHBOR)], Argon(), fmax=1e-5)
    monkeypatch.setattr(
        "matris.properties.elastic.relax_strained",
        lambda _, groups, relaxer: relaxer.groups(groups),
    )
    (fire,) = elastic([hcp(NEIGHBOR)], Argon(), fmax=1e-5)
    assert newton.fit.tensor == pytest.approx(fire.fit.tensor, abs=1e-3 * fire.fit.tensor.max())
