"""L-BFGS against the textbook, on crystals with known minima, and when things go wrong."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from pymatgen.core import Lattice, Structure

from matris.relaxation import batch, lbfgs
from matris.relaxation.batch import state_of
from matris.relaxation.fire import Fire
from matris.relaxation.lbfgs import MEMORY, PATIENCE, Lbfgs, directions
from matris.relaxation.relax import relax
from tests.conftest import SMALL_PUBLISHED
from tests.matris.argon import EPSILON, FCC, NEIGHBOR, Argon, crystal, primitive
from tests.matris.relaxation.test_fire import STARTS

CPU = torch.device("cpu")
STEPS = 25


def of_ours(structures, model=None, *, relax_cell=True, steps=STEPS, dtype=torch.float64):
    """Positions and cells of each structure before each step, all at once."""
    optimizer, model = Lbfgs(CPU, dtype, relax_cell=relax_cell), model or Argon()
    optimizer.add([state_of(structure, CPU, dtype) for structure in structures])
    ends = np.cumsum([len(structure) for structure in structures])[:-1]
    ways = [[] for _ in structures]
    for _ in range(steps + 1):
        optimizer.step(model)
        record(optimizer, ways, ends)
    return ways


def record(optimizer, ways, ends):
    positions = np.split(optimizer.state.positions.numpy().copy(), ends)
    for way, place, cell in zip(ways, positions, optimizer.state.cell.numpy().copy(), strict=True):
        way.append((place, cell))


def bfgs(s, y, forces, inverse):
    """The step of the BFGS update of an inverse Hessian by all pairs, oldest first, as full matrices."""
    hessian, one = inverse * np.eye(len(forces)), np.eye(len(forces))
    for step, change in zip(s, y, strict=True):
        rho = 1 / (step @ change)
        left = one - rho * np.outer(step, change)
        hessian = left @ hessian @ left.T + rho * np.outer(step, step)
    return hessian @ forces


@pytest.mark.parametrize("n_pairs", [0, 1, 5, 7])
def test_the_step_is_that_of_full_matrices(n_pairs):
    """Systems with histories of different lengths that start anywhere in the ring."""
    random, memory, size = np.random.default_rng(3), 7, 12
    root = random.normal(size=(size, size))
    hessian = root @ root.T + np.eye(size)
    gram, slots, expected, vectors = [], [], [], []
    for slot, pairs in ((n_pairs % memory, n_pairs), (3, memory), (0, 2)):
        s, forces = random.normal(size=(memory, size)), random.normal(size=size)
        held = np.vstack([s, s @ hessian, forces])
        newest_first = [(slot - 1 - age) % memory for age in range(pairs)]
        oldest_first = newest_first[::-1]
        expected.append(bfgs(s[oldest_first], held[memory:-1][oldest_first], forces, 0.05))
        gram.append(held @ held.T)
        slots.append((slot, pairs))
        vectors.append(held)
    slot, pairs = np.array(slots).T
    coefficients, uphill = directions(np.array(gram), slot, pairs, 0.05)
    assert not uphill.any()
    for row, held, step in zip(coefficients, vectors, expected, strict=True):
        assert row @ held == pytest.approx(step, rel=1e-9, abs=1e-12)


def test_a_step_uphill_becomes_a_step_along_the_forces():
    """Inner products that no vectors have, as from rounding."""
    held = np.array([[1.0, 0.0], [1.0, 0.0], [0.3, 1.0]])
    gram = held @ held.T
    gram[0, 1] = gram[1, 0] = -1.0  # negative curvature
    coefficients, uphill = directions(gram[None], np.array([0]), np.array([1]), 0.05)
    assert uphill.tolist() == [True]
    assert coefficients.tolist() == [[0, 0, 0.05]]


@pytest.mark.parametrize("relax_cell", [True, False])
def test_who_comes_and_goes_changes_nothing(relax_cell):
    """One enters beside others and stays when they leave: no bit of its path changes where no cell deforms."""
    (alone,) = of_ours(STARTS[:1], relax_cell=relax_cell)
    optimizer, model = Lbfgs(CPU, torch.float64, relax_cell=relax_cell), Argon()
    states = [state_of(start, CPU, torch.float64) for start in STARTS]
    optimizer.add([states[1]])
    for _ in range(3):
        optimizer.step(model)
    optimizer.add([states[0], states[2]])
    way = []
    for step in range(STEPS + 1):
        if step == 9:
            optimizer.remove(np.array([True, False, False]))
        if step == 14:
            optimizer.remove(np.array([False, True]))
        if step == 17:
            optimizer.add([states[2]])
        optimizer.step(model)
        first = optimizer.state.system_idx == (1 if step < 9 else 0)
        cell = optimizer.state.cell[1 if step < 9 else 0]
        way.append((optimizer.state.positions[first].numpy().copy(), cell.numpy().copy()))
    assert np.abs(alone[0][0] - alone[-1][0]).max() > 0.05
    for (place, cell), (positions, lattice) in zip(way, alone, strict=True):
        assert place == pytest.approx(positions, abs=1e-9 if relax_cell else 0, rel=0)
        assert cell == pytest.approx(lattice, abs=1e-9 if relax_cell else 0, rel=0)


def test_coefficients_depend_on_no_other_system():
    random, size = np.random.default_rng(8), 2 * MEMORY + 1
    vectors = random.normal(size=(5, size, 50))
    vectors[:, MEMORY:-1] = vectors[:, :MEMORY] * random.uniform(1, 40, 50)
    gram = vectors @ vectors.transpose(0, 2, 1)
    slot, pairs = np.array([0, 3, 7, 0, 15]), np.array([0, 2, MEMORY, 5, MEMORY])
    together, uphill = directions(gram, slot, pairs, 0.05)
    assert not uphill.any()
    for i in range(len(gram)):
        alone, _ = directions(gram[i : i + 1], slot[i : i + 1], pairs[i : i + 1], 0.05)
        assert np.array_equal(alone[0], together[i])


def test_needs_fewer_evaluations_than_fire():
    starts = [*STARTS, crystal(5.6, 0.1), primitive(5.5)]
    counts = {}
    for optimizer in ("lbfgs", "fire"):
        records = list(relax(starts, Argon(), fmax=0.005, optimizer=optimizer))
        assert {record.state for record in records} == {"converged"}
        for record in records:
            assert record.energy / len(record.structure) == pytest.approx(-6 * EPSILON, abs=1e-3)
        counts[optimizer] = sum(record.n_steps + 1 for record in records)
    assert counts["lbfgs"] < counts["fire"] / 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_minimum_is_that_of_fire(dtype):
    class Other(Argon):
        def __init__(self):
            super().__init__()
            self._dtype = dtype

        def forward(self, state, **_):
            return super().forward(state.to(dtype=torch.float64))

    ends = {}
    for optimizer in ("lbfgs", "fire"):
        records = sorted(relax(STARTS, Other(), fmax=1e-3, optimizer=optimizer), key=lambda r: r.index)
        assert {record.state for record in records} == {"converged"}
        ends[optimizer] = records
    for one, other in zip(ends["lbfgs"], ends["fire"], strict=True):
        assert one.energy / len(one.structure) == pytest.approx(other.energy / len(other.structure), abs=1e-5)
        assert one.structure.lattice.abc == pytest.approx(other.structure.lattice.abc, rel=1e-3)
        assert one.structure.lattice.angles == pytest.approx(other.structure.lattice.angles, rel=1e-3)


def test_the_smallest_systems():
    """One atom in a cell or alone in a vacuum, two atoms, none that may move."""
    far = Structure(Lattice.cubic(12), ["Ar"], [[0.2, 0.2, 0.2]])
    pair = Structure(Lattice.cubic(12), ["Ar"] * 2, [[0, 0, 0], [0.26, 0.1, 0.1]])
    fixed = crystal(5.4, shift=0.3)
    fixed.add_site_property("selective_dynamics", [[False] * 3] * 4)
    one, alone, two = sorted(relax([primitive(5.6), far, pair], Argon(), fmax=1e-4), key=lambda r: r.index)
    assert (one.state, alone.state, two.state) == ("converged",) * 3
    assert one.structure.lattice.abc == pytest.approx([NEIGHBOR] * 3, abs=1e-4)
    assert (alone.n_steps, alone.energy) == (0, 0.0)
    assert two.structure.get_distance(0, 1) == pytest.approx(NEIGHBOR, abs=1e-3)
    (held,) = relax(fixed, Argon(), relax_cell=False)
    assert (held.state, held.n_steps, held.fmax) == ("converged", 0, 0.0)
    (pulled,) = relax(fixed, Argon(), fmax=1e-3)
    assert pulled.state == "converged"
    assert pulled.structure.frac_coords == pytest.approx(fixed.frac_coords, abs=1e-12)
    assert pulled.structure.volume != pytest.approx(fixed.volume, rel=1e-3)


class Valley(Argon):
    """Two atoms in a fixed, wide cell, whose distance along x has any energy."""

    def __init__(self, energy):
        super().__init__()
        self.energy, self.places = energy, []

    def forward(self, state, **_):
        self.batches.append(state.n_atoms)
        x = (state.positions[1::2, 0] - state.positions[::2, 0]).requires_grad_()
        with torch.enable_grad():
            energy = self.energy(x)
            (slope,) = torch.autograd.grad(energy.sum(), x)
        self.places.append(x.detach().tolist())
        forces = torch.zeros_like(state.positions)
        forces[::2, 0], forces[1::2, 0] = slope, -slope
        return {"energy": energy.detach(), "forces": forces, "stress": torch.zeros_like(state.cell)}


def pair(x):
    return Structure(Lattice.cubic(30), ["Ar"] * 2, [[0, 0, 0], [x / 30, 0, 0]])


def test_a_rise_of_the_energy_halves_the_next_step_and_forgets():
    """A wall at 4 Å, which the history of a gentle slope does not foresee."""
    model = Valley(lambda x: -0.4 * x + 500 * torch.relu(x - 4.0) ** 2)
    optimizer = Lbfgs(CPU, torch.float64, relax_cell=False)
    optimizer.add([state_of(pair(3.81), CPU, torch.float64)])
    risen = None
    for step in range(12):
        before = optimizer._reach.copy(), optimizer._n_pairs.copy()
        energy = optimizer._enthalpy.copy()
        optimizer.step(model)
        if step and optimizer._enthalpy[0] > energy[0] + 4e-4:
            risen = step
            assert optimizer._reach[0] == before[0][0] / 2
            assert optimizer._n_pairs[0] <= 1
            break
    assert risen
    steps = []
    for _ in range(2):
        optimizer.step(model)
        steps.append(abs(model.places[-1][0] - model.places[-2][0]))
    assert 0 < steps[0] <= 2 * 0.1 + 1e-9  # both atoms move by at most half of 0.2 Å
    (end,) = relax(pair(3.81), model, fmax=0.01, relax_cell=False, max_steps=100)
    assert end.state == "converged"
    assert end.structure.get_distance(0, 1) == pytest.approx(4 + 0.4 / 1000, abs=1e-4)


def test_no_row_moves_farther_than_the_bound():
    model = Valley(lambda x: 50 * (x - 4) ** 2)
    optimizer = Lbfgs(CPU, torch.float64, relax_cell=False)
    optimizer.add([state_of(pair(3.0), CPU, torch.float64)])
    for _ in range(3):
        optimizer.step(model)
    first, second, third = (places[0] for places in model.places)
    assert first == 3.0
    assert second == pytest.approx(3.4, abs=1e-12)  # 0.2 Å each
    assert third == pytest.approx(3.8, abs=1e-12)


@pytest.mark.parametrize("relax_cell", [True, False])
def test_fire_takes_over_where_forces_do_not_fall(relax_cell):
    """Forces that change with each call, and are right again after the fallback: FIRE finds the minimum from there."""
    start = STARTS[0]

    def after(_state, output):
        if len(model.batches) <= PATIENCE + 2:
            output["forces"] = output["forces"] * 0 + 0.3 * torch.tensor([1.0, -1.0, 1.0, -1.0])[:, None]
            output["energy"] = output["energy"] * 0

    model = Argon(after=after)
    optimizer = Lbfgs(CPU, torch.float64, relax_cell=relax_cell)
    optimizer.add([state_of(start, CPU, torch.float64)])
    while not optimizer._has_fallen_back[0]:
        optimizer.step(model)
        assert len(model.batches) < 200
    assert len(model.batches) >= PATIENCE
    for _ in range(150):
        optimizer.step(model)
    progress = optimizer.step(model)
    assert progress.fmax[0] < 0.01
    assert not relax_cell or progress.cell_force[0] < 0.01


def test_a_fallback_goes_on_from_where_it_was_as_fire_would():
    """FIRE goes the same way from the same geometry at rest, and the cell does not jump."""
    starts = STARTS[:2]
    optimizer, model = Lbfgs(CPU, torch.float64, relax_cell=True), Argon()
    optimizer.add([state_of(start, CPU, torch.float64) for start in starts])
    for _ in range(3):
        optimizer.step(model)
    optimizer._waited[0] = PATIENCE
    others = Lbfgs(CPU, torch.float64, relax_cell=True)
    others.add([state_of(start, CPU, torch.float64) for start in starts])
    for _ in range(3):
        others.step(model)
    n, cell = len(starts[0]), optimizer.state.cell[0].numpy().copy()
    fire = Fire(CPU, torch.float64, relax_cell=True)
    fire.add([state_of(starts[0], CPU, torch.float64)])
    fire._rows[0] = optimizer._rows[0, : n + 3]
    fire._rows[0, n:] *= n**0.5  # rows n·L in place of √n·L
    fire.step(model)
    assert fire.state.cell[0].numpy() == pytest.approx(cell, abs=1e-12)
    for _ in range(10):
        optimizer.step(model)
        others.step(model)
        fire.step(model)
    assert optimizer._has_fallen_back.tolist() == [True, False]
    assert np.array_equal(optimizer.state.cell[1].numpy(), others.state.cell[1].numpy())
    assert optimizer.state.cell[0].numpy() == pytest.approx(fire.state.cell[0].numpy(), abs=1e-9)
    assert optimizer.state.positions[:n].numpy() == pytest.approx(fire.state.positions.numpy(), abs=1e-9)


def test_numbers_that_are_none_change_no_bit_of_others():
    def after(state, output):
        sick = torch.zeros(state.n_systems, dtype=torch.int64)
        sick = sick.index_add_(0, state.system_idx, (state.atomic_numbers == 36).long()) > 0
        output["forces"] = output["forces"].clone()
        output["forces"][sick[state.system_idx]] = torch.nan

    optimizer = Lbfgs(CPU, torch.float64, relax_cell=True)
    sick = crystal(5.5, 0.1, "Kr")
    optimizer.add([state_of(start, CPU, torch.float64) for start in (STARTS[0], sick, STARTS[1])])
    (first, second) = of_ours(STARTS[:2], steps=8)
    for step in range(9):
        progress = optimizer.step(Argon(after=after))
        assert np.isfinite(progress.squared_force[[0, 2]]).all()
        assert not np.isfinite(progress.squared_force[1])
        assert np.array_equal(optimizer.state.positions[:4].numpy(), first[step][0])
        assert np.array_equal(optimizer.state.cell[2].numpy(), second[step][1])


def test_a_long_history_forgets_the_oldest():
    optimizer, start = Lbfgs(CPU, torch.float64, relax_cell=True), crystal(5.5) * (2, 2, 1)
    start.translate_sites([5], [0.3, 0.2, 0.1], frac_coords=False)
    optimizer.add([state_of(start, CPU, torch.float64)])
    counts, slots = [], []
    for _ in range(2 * MEMORY):
        optimizer.step(Argon())
        counts.append(int(optimizer._n_pairs[0]))
        slots.append(int(optimizer._slot[0]))
    assert max(counts) == MEMORY
    assert any(late < early for early, late in pairwise(slots))  # round the ring


def test_left_handed_cells_and_fixed_lattices():
    right = STARTS[1]
    left = Structure(Lattice(right.lattice.matrix[[1, 0, 2]]), right.species, right.frac_coords)
    for record in relax([right, left], Argon(), fmax=1e-3):
        assert record.state == "converged"
        assert record.structure.lattice.abc == pytest.approx([NEIGHBOR] * 3, abs=1e-3)
    (held,) = relax(crystal(FCC, 0.2), Argon(), fmax=1e-4, relax_cell=False)
    assert np.array_equal(held.structure.lattice.matrix, crystal(FCC).lattice.matrix)
    assert held.energy == pytest.approx(-24 * EPSILON, abs=1e-6)


def test_crystals_of_a_trained_potential_end_where_fire_ends():
    """Strained and rattled, in single precision, fixed and free cells beside each other."""
    random = np.random.default_rng(1)
    starts = []
    for name, a, elements, sites in (
        ("Fm-3m", 5.6, ["Na", "Cl"], [[0, 0, 0], [0.5] * 3]),
        ("Fm-3m", 4.2, ["Mg", "O"], [[0, 0, 0], [0.5] * 3]),
        ("Fd-3m", 5.5, ["Si"], [[0, 0, 0]]),
        ("Pm-3m", 3.95, ["Sr", "Ti", "O"], [[0, 0, 0], [0.5] * 3, [0.5, 0.5, 0]]),
    ):
        cell = Structure.from_spacegroup(name, Lattice.cubic(a), elements, sites)
        matrix = cell.lattice.matrix @ (np.eye(3) + 0.02 * random.normal(size=(3, 3)))
        starts.append(Structure(matrix, cell.species, cell.frac_coords + 0.01 * random.normal(size=(len(cell), 3))))
    ends = {
        optimizer: sorted(
            relax(starts, SMALL_PUBLISHED, fmax=0.003, max_steps=800, optimizer=optimizer), key=lambda r: r.index
        )
        for optimizer in ("lbfgs", "fire")
    }
    for one, other in zip(ends["lbfgs"], ends["fire"], strict=True):
        assert one.state == other.state == "converged"
        assert one.energy / len(one.structure) == pytest.approx(other.energy / len(other.structure), abs=1e-3)
        assert one.structure.volume == pytest.approx(other.structure.volume, rel=3e-3)
        assert one.structure.lattice.abc == pytest.approx(other.structure.lattice.abc, rel=1e-3)
    counts = [sum(record.n_steps + 1 for record in ends[optimizer]) for optimizer in ("lbfgs", "fire")]
    assert counts[0] < counts[1] / 2


def test_a_cell_that_explodes_starts_again_with_fire(monkeypatch):
    """The other structure of the batch does not change. If the cell explodes under FIRE too, the record says so."""
    monkeypatch.setattr(lbfgs, "_HESSIAN", 1e-3)
    monkeypatch.setattr(lbfgs, "_MAX_STEP", 5.0)  # the first step of a compressed crystal is far too long
    given_up, give_up = [], Lbfgs.give_up
    monkeypatch.setattr(Lbfgs, "give_up", lambda self, systems: given_up.append(systems) or give_up(self, systems))
    compressed, at_rest = primitive(0.9 * FCC), primitive(FCC)
    own, mate = sorted(relax([compressed, at_rest], Argon(), fmax=1e-3), key=lambda record: record.index)
    (by_fire,) = relax([compressed], Argon(), fmax=1e-3, optimizer="fire")
    assert (own.state, mate.state) == ("converged", "converged")
    assert mate.n_steps == 0
    assert any(np.any(systems) for systems in given_up)
    assert own.energy == pytest.approx(by_fire.energy, abs=1e-5)
    monkeypatch.setattr(batch, "_VOLUME_FACTOR", 1.05)  # now the minimum itself is too large
    (failed,) = relax([compressed], Argon(), fmax=1e-3)
    assert failed.state == "failed"
    assert "the cell exploded" in failed.error
