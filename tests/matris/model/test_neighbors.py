"""The neighbour lists and graphs of GPUs, which also run without one, against the host's."""

from __future__ import annotations

from dataclasses import fields
from functools import cache

import numpy as np
import pytest
import torch
from ase.build import bulk
from pymatgen.core import Lattice, Structure

import matris
from matris.errors import StructureError
from matris.model import graph as graph_module
from matris.model.graph import Batch, Geometry, bonds_one_by_one, bonds_together, build_graph
from tests.matris.golden import structures
from tests.matris.waits import Waits


@cache
def dense():
    """Hydrides under pressure, and MgO at 42 % of its volume: up to 400 neighbours within 6 Å."""
    hydride = Structure.from_spacegroup(
        "Fm-3m", Lattice.cubic(5.1), ["La", "H", "H"], [[0, 0, 0], [0.25] * 3, [0.12] * 3]
    )
    sulfide = Structure.from_spacegroup("Im-3m", Lattice.cubic(3.089), ["S", "H"], [[0, 0, 0], [0, 0.5, 0.5]])
    magnesia = Structure.from_spacegroup(
        "Fm-3m", Lattice.cubic(4.2 * 0.42 ** (1 / 3)), ["Mg", "O"], [[0, 0, 0], [0.5] * 3]
    )
    return [hydride, sulfide, magnesia.get_primitive_structure(), magnesia]


def molecules():
    return [Structure(Lattice.cubic(9, pbc=(False,) * 3), ["C", "O"], [[0, 0, 0], [0.1, 0.1, -0.1]])]


@cache
def large():
    """Cells of many bins, one of them beside a small cell, and a cluster."""
    copper = Structure.from_spacegroup("Fm-3m", Lattice.cubic(3.6), ["Cu"], [[0, 0, 0]]) * (4, 4, 5)
    cluster = Structure(Lattice.cubic(50, pbc=(False,) * 3), ["Cu"] * 200, copper.cart_coords[:200] / 50)
    return [copper.perturb(0.1), *dense()[2:], cluster]


def slabs():
    slab = Structure(
        Lattice.orthorhombic(3.1, 4, 30, pbc=(True, True, False)), ["C", "O"], [[0.1, 0, 0.5], [1.6, -2.5, 0.55]]
    )
    return [slab, Structure(Lattice.cubic(30), ["Na"], [[0, 0, 0]])]


def listed(pairs):
    """Bonds as sorted rows: both atoms, and the vector from one side."""
    i, j, vectors = (x[pairs.are_near].numpy() for x in pairs[:3])
    rows = zip(i.tolist(), j.tolist(), (vectors.round(5) + 0.0).tolist(), strict=True)
    return np.array(sorted(min((a, b, *v), (b, a, *[-x for x in v])) for a, b, v in rows)).reshape(-1, 5)


def random_batch(seed):
    """Skewed, tiny, left-handed, unwrapped and partly periodic cells; the largest have several bins."""
    rng, geometries = np.random.default_rng(seed), []
    for _ in range(rng.integers(1, 7)):
        n, cell = int(rng.choice([1, 2, 3, 5, 8, 60])), rng.normal(size=(3, 3))
        while abs(np.linalg.det(cell)) < 0.15:
            cell = rng.normal(size=(3, 3))
        cell *= (n * rng.uniform(6, 60) / abs(np.linalg.det(cell))) ** (1 / 3)
        pbc = rng.random(3) < rng.choice([0.6, 1.0])
        geometries.append(Geometry(np.full(n, 14), rng.uniform(-2, 3, (n, 3)) @ cell, cell, pbc))
    return Batch.of(geometries)


@pytest.mark.parametrize("crystals", [lambda: structures().values(), dense, molecules, large, slabs])
def test_bonds_found_together_are_those_found_one_by_one(crystals):
    batch = Batch.of([Geometry.of(s) for s in crystals()])
    together, one_by_one = listed(bonds_together(batch, 5.0)), listed(bonds_one_by_one(batch, 5.0))
    assert len(one_by_one) > 0
    assert together == pytest.approx(one_by_one, abs=2e-5)


def test_odd_cells_have_the_bonds_of_the_host():
    found = 0
    for seed in range(40):
        batch, cutoff = random_batch(seed), 2 + 4 * (seed % 7) / 6
        together, one_by_one = listed(bonds_together(batch, cutoff)), listed(bonds_one_by_one(batch, cutoff))
        assert together == pytest.approx(one_by_one, abs=2e-5)
        found += len(one_by_one)
    assert found > 5000


def test_few_other_pairs_are_looked_at():
    """Time and memory of the list grow with the atoms, not with their square."""
    for repeats, most in ((1, 510), (2, 260), (3, 120), (5, 100)):
        crystal = bulk("Si", cubic=True) * ((repeats,) * 3)
        pairs = bonds_together(Batch.of([Geometry.of(crystal)]), 6.0)
        assert pairs.are_near.sum() > 20 * len(crystal)
        assert len(pairs.centers) < most * len(crystal)


def test_lists_are_equal_bit_for_bit_whatever_else_is_in_the_batch():
    crystals = [*large()[:2], *dense()]
    geometries = [Geometry.of(s) for s in crystals]
    first, again = (bonds_together(Batch.of(geometries), 5.0) for _ in range(2))
    assert all(torch.equal(x, y) for x, y in zip(first, again, strict=True))
    start = len(crystals[0])
    for geometry in geometries[1:]:
        alone = bonds_together(Batch.of([geometry]), 5.0)
        stop = start + len(geometry.numbers)
        own = first.are_near & (first.centers >= start) & (first.centers < stop)
        assert torch.equal(first.centers[own] - start, alone.centers[alone.are_near])
        assert torch.equal(first.vectors[own], alone.vectors[alone.are_near])
        start = stop


@pytest.mark.parametrize("wrong", ["cell", "position"])
def test_a_cell_without_volume_is_named(wrong):
    good, bad = Geometry.of(dense()[1]), Geometry.of(dense()[2])
    cell = bad.cell.copy()
    if wrong == "cell":
        cell[2] = cell[1]
    else:
        cell[0, 0] = np.nan
    with pytest.raises(StructureError, match="system 1 of 2: its cell has no volume"):
        bonds_together(Batch.of([good, Geometry(bad.numbers, bad.positions, cell, bad.pbc)]), 6.0)


def test_nothing_has_no_bonds():
    assert len(bonds_together(Batch.of([]), 6.0).centers) == 0


def test_a_graph_makes_the_device_wait_three_times(monkeypatch):
    """The numbers of steps between bins, of pairs, and of bonds and angles; the host computes nothing else."""
    monkeypatch.setattr(graph_module, "bonds_one_by_one", bonds_together)
    for crystals in (dense(), [*large(), *slabs()], molecules()):
        batch = Batch.of([Geometry.of(s) for s in crystals])
        with Waits() as waits:
            graph = build_graph(batch, 5.0, 3.0)
        assert waits.total == 3, (waits.asked, waits.fetched)
        assert not waits.sent
        assert graph.n_bonds > 0


def test_waits_are_counted():
    x = torch.arange(6.0)
    with Waits() as waits:
        x[x > 2], x.sum().item(), torch.unique(x), torch.repeat_interleave(x.long()), torch.linalg.inv(torch.eye(3))
        x[x > 4] = 0
        x.cpu(), x.to(torch.device("cpu"))
        torch.repeat_interleave(x, 2, output_size=12), torch.nonzero_static(x, size=5)
    assert sum(waits.asked.values()) == 6, waits.asked
    assert (sum(waits.fetched.values()), sum(waits.sent.values())) == (1, 1)


def test_graphs_are_those_of_the_host(monkeypatch):
    batch = Batch.of([Geometry.of(s) for s in [*dense(), *slabs(), *molecules()]])
    ours = build_graph(batch, 5.0, 3.0)
    monkeypatch.setattr(graph_module, "bonds_one_by_one", bonds_together)
    other = build_graph(batch, 5.0, 3.0)
    assert (other.n_bonds, other.n_angles) == (ours.n_bonds, ours.n_angles)
    assert {f.name: getattr(ours, f.name).dtype for f in fields(ours)} == {
        f.name: getattr(other, f.name).dtype for f in fields(other)
    }
    assert torch.equal(torch.sort(ours.angle_center).values, torch.sort(other.angle_center).values)
    cosines = []
    for graph in (ours, other):
        a, b = (graph.vectors[index] for index in (graph.angle_target, graph.angle_source))
        cosines.append(torch.sort(graph.angle_sign * torch.nn.functional.cosine_similarity(a, b)).values)
    assert torch.allclose(*cosines, atol=1e-5)


def test_dense_crystals_relax_on_a_gpu_as_on_a_cpu(monkeypatch):
    """A GPU's list, on the host. The one of Warp had room for 0.2 atoms/Å³ and once failed above."""
    crystals, runs = dense()[2:3], []
    for pairs in (bonds_one_by_one, bonds_together):
        monkeypatch.setattr(graph_module, "bonds_one_by_one", pairs)
        found = matris.relax(crystals, fmax=1e-6, max_steps=3)
        runs.append(sorted(found, key=lambda record: record.index))
    for host, device in zip(*runs, strict=True):
        assert (host.state, device.state) == ("max_steps", "max_steps")
        assert device.energy == pytest.approx(host.energy, abs=1e-4)
        assert device.forces == pytest.approx(host.forces, abs=1e-4)
