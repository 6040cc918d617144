"""Paths towards equilibrium, and frames around it."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk

from recipes.embedded.shaking import NEAR, PAIR, SHAKINGS, pair, shake
from recipes.embedded.teacher import Label
from recipes.embedded.walks import RELAX_KEPT, Relaxation, Walk, follow

from .lennard_jones import LennardJonesTeacher


class Springs:
    """A teacher whose energy is that of a solid with a known volume and bulk modulus, without forces."""

    def __init__(self, volume_per_atom, modulus):
        self.volume, self.modulus = volume_per_atom, modulus

    def __call__(self, frames):
        for atoms in frames:
            n = len(atoms)
            change = np.log(atoms.get_volume() / n / self.volume)
            energies = np.full(n, 0.5 * self.modulus * change**2 * self.volume - 1)
            yield Label(energies.sum(), np.zeros((n, 3)), self.modulus * change * np.eye(3), energies)


def test_the_walk_finds_the_volume_and_keeps_every_frame():
    walk = Walk("m", bulk("Cu"))
    follow(Springs(1.15 * walk.atoms.get_volume(), 0.8), [walk])
    made = [name for name, _, _ in walk.frames]
    assert made == [f"walk{i}" for i in range(len(made))]
    assert len(made) > 1
    assert walk.best()[0].get_volume() == pytest.approx(1.15 * bulk("Cu").get_volume(), rel=0.01)


def test_a_walk_ends_at_an_answer_that_is_not_finite():
    for path in (Walk("m", bulk("Cu")), Relaxation("m", bulk("Cu"))):
        follow(LennardJonesTeacher(broken=lambda _: True), [path])
        assert path.done
        assert path.best() is None


def test_a_relaxation_ends_without_force_and_stress():
    atoms = bulk("Cu", a=4.0, cubic=True)
    atoms.rattle(0.1, seed=1)
    atoms.set_cell(atoms.cell @ np.array([[1.03, 0.02, 0], [0, 0.98, 0], [0, 0, 1.01]]), scale_atoms=True)
    path = Relaxation("m", atoms.copy())
    teacher = LennardJonesTeacher()
    follow(teacher, [path])
    relaxed, label = path.best()
    assert np.linalg.norm(label.forces, axis=1).max() < 0.03
    assert np.abs(label.stress).max() < 0.002
    assert label.energy < teacher.label(atoms).energy - 0.01
    steps = [int(name[3:]) for name, _, _ in path.frames]
    assert set(steps[:-1]) <= set(RELAX_KEPT)
    assert steps[-1] == len(teacher.seen) - 1
    assert relaxed.get_volume() != pytest.approx(atoms.get_volume(), rel=1e-3)


@pytest.mark.parametrize(("shakings", "least", "most"), [(SHAKINGS["gentle"], 0.0, 0.02), (NEAR, 0.015, 0.03)])
def test_shaking_stays_within_its_limits_and_gives_small_cells_neighbours(shakings, least, most):
    atoms = bulk("Cu")
    shaken = shake(atoms, np.random.default_rng(1), 20, shakings)
    again = shake(atoms, np.random.default_rng(1), 20, shakings)
    assert all(np.array_equal(a.positions, b.positions) for a, b in zip(shaken, again, strict=True))
    assert {len(f) for f in shaken} == {8}
    growth = np.log([f.get_volume() / 8 / atoms.get_volume() for f in shaken])
    assert np.abs(growth).max() < most + 1e-3
    assert np.abs(growth).min() > least - 1e-3
    assert min(growth) < 0 < max(growth)


def test_hot_frames_are_compressed():
    atoms = bulk("Cu", cubic=True)
    shaken = shake(atoms, np.random.default_rng(2), 30, SHAKINGS["hot"])
    volumes = [f.get_volume() / len(f) / atoms.get_volume() * len(atoms) for f in shaken]
    assert min(volumes) < 0.6
    assert max(volumes) < 1.1


def test_a_pair_differs_in_one_atom_and_straddles_the_structure():
    atoms = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    for seed in range(5):
        first, second = pair(atoms, np.random.default_rng(seed))
        moved = np.linalg.norm(second.positions - first.positions, axis=1)
        assert np.count_nonzero(moved) == 1
        assert PAIR[0] <= moved.max() <= PAIR[1]
        np.testing.assert_allclose((first.positions + second.positions) / 2, atoms.positions, atol=1e-12)
        assert not np.array_equal(first.positions, atoms.positions)
