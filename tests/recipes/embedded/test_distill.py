from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from ase.build import bulk

from matris.errors import MatrisError
from matris.flows.sources.prototypes import elemental_references, generate_candidates
from matris.structures import content_id
from recipes.embedded.distill import MAX_FORCE, _Walk, fault, label_piece, read_structures, shake, write_structures
from recipes.embedded.materials import ELEMENTS, Material, distance_ratio, generate
from recipes.embedded.teacher import Label


@pytest.fixture(scope="module")
def materials():
    return list(generate(7, 12))


class Springs:
    """A teacher whose energy is that of a solid with a known volume, bulk modulus and no forces."""

    def __init__(self, volume_per_atom, modulus):
        self.volume, self.modulus, self.seen = volume_per_atom, modulus, 0

    def __call__(self, frames):
        self.seen += len(frames)
        for atoms in frames:
            n = len(atoms)
            change = np.log(atoms.get_volume() / n / self.volume)
            stress = self.modulus * change * np.eye(3)
            yield Label(0.5 * self.modulus * change**2 * self.volume * n - n, np.zeros((n, 3)), stress)


def test_the_seed_decides_and_more_materials_keep_the_first_ones(materials):
    again = list(generate(7, 3))
    assert [m.to_dict() for m in again] == [m.to_dict() for m in materials[:3]]
    assert again[0].to_dict() != next(iter(generate(8, 1))).to_dict()


def test_materials_are_distinct_dense_enough_and_of_the_known_elements(materials):
    assert len({(m.source, m.structure.composition.reduced_formula) for m in materials}) == len(materials)
    assert min(distance_ratio(m.structure) for m in materials) >= 0.62
    assert {e.symbol for m in materials for e in m.structure.composition} <= set(ELEMENTS)
    assert [m.validation for m in materials] == [i % 10 == 0 for i in range(len(materials))]


def test_materials_are_candidates_of_the_generators(materials):
    for material in materials[:3]:
        elements = sorted({element.symbol for element in material.structure.composition})
        made = elemental_references(elements) if len(elements) == 1 else generate_candidates(elements)
        assert content_id(material.structure) in {candidate.candidate_id for candidate in made}


def test_structures_survive_the_file(materials, tmp_path):
    path = tmp_path / "structures.jsonl.gz"
    write_structures(path, materials[:3])
    assert [m.to_dict() for m in read_structures(path)] == [m.to_dict() for m in materials[:3]]
    with pytest.raises(MatrisError, match="structures"):
        read_structures(tmp_path / "absent.gz")


def test_the_walk_finds_the_volume_and_keeps_every_frame(materials):
    chosen = [m for m in materials if len(m.structure) <= 8][:4]
    guess = chosen[0].structure.volume / len(chosen[0].structure)
    teacher = Springs(1.15 * guess, 0.8)
    frames, dropped = label_piece(teacher, chosen[:1], 0)
    assert teacher.seen == len(frames) + sum(dropped.values())
    walked = [f for f in frames if f.info["made"].startswith("walk")]
    assert min(abs(f.get_volume() / len(f) / (1.15 * guess) - 1) for f in walked) < 0.01
    assert {f.info["material"] for f in frames} == {chosen[0].material}
    assert frames[0].get_stress().shape == (6,)


def test_shaking_stays_within_its_limits_and_gives_small_cells_neighbours():
    atoms = bulk("Cu")
    shaken = shake(atoms, np.random.default_rng(1), 20)
    again = shake(atoms, np.random.default_rng(1), 20)
    assert all(np.array_equal(a.positions, b.positions) for a, b in zip(shaken, again, strict=True))
    assert {len(f) for f in shaken} == {8}
    ratios = [f.get_volume() / 8 / atoms.get_volume() for f in shaken]
    assert 0.93 < min(ratios) < 0.99
    assert 1.01 < max(ratios) < 1.07


@pytest.mark.parametrize(
    ("energy", "force", "stress", "reason"),
    [
        (-8.0, 1.0, 0.1, None),
        (np.nan, 1.0, 0.1, "not finite"),
        (-8.0, MAX_FORCE + 1, 0.1, "force"),
        (-8.0, 1.0, -3.1, "stress"),
        (14.0, 1.0, 0.1, "energy"),
        (-40.0, 1.0, 0.1, "energy"),
    ],
)
def test_faults(energy, force, stress, reason):
    atoms = bulk("NaCl", "rocksalt", a=5.6)
    label = Label(energy, np.array([[force, 0, 0], [0, 0, 0]]), stress * np.eye(3))
    assert fault(atoms, label, -4.0) == reason


def test_atoms_too_close_are_a_fault():
    atoms = bulk("Cu", a=1.8)
    assert fault(atoms, Label(-4.0, np.zeros((1, 3)), np.zeros((3, 3))), -4.0) == "distance"


def test_teachers_that_disagree_are_a_fault():
    atoms, stress = bulk("NaCl", "rocksalt", a=5.6), np.zeros((3, 3))
    near, far = (Label(-8.0, np.array([[f, 0, 0], [0, 0, 0]]), stress) for f in (1.0, 3.0))
    assert fault(atoms, replace(near, members=(near, near)), -4.0) is None
    assert fault(atoms, replace(near, members=(near, far)), -4.0) == "disagreement"
    squeezed = replace(near, stress=0.1 * np.eye(3))
    assert fault(atoms, replace(near, members=(near, squeezed)), -4.0) == "disagreement"


class Pair(Springs):
    """Two teachers: the second's energies are on another scale, and rise as steeply again."""

    def __call__(self, frames):
        for first in super().__call__(frames):
            n = len(first.forces)
            second = replace(first, energy=2 * first.energy + 7 * n)
            yield replace(first, energy=(first.energy + second.energy) / 2, members=(first, second))


def test_the_first_teacher_gives_the_scale_and_both_the_rise(materials):
    chosen = [m for m in materials if len(m.structure) <= 8][:1]
    volume = 1.15 * chosen[0].structure.volume / len(chosen[0].structure)
    alone, _ = label_piece(Springs(volume, 0.8), chosen, 0)
    both, _ = label_piece(Pair(volume, 0.8), chosen, 0)
    first, mean = (np.array([f.get_potential_energy() / len(f) for f in frames]) for frames in (alone, both))
    calmest = np.argmin(first)
    assert np.ptp(first) > 1e-3
    np.testing.assert_allclose(mean - mean[calmest], 1.5 * (first - first[calmest]), atol=1e-9)
    assert mean[calmest] == pytest.approx(first[calmest])


def test_a_walk_stops_at_an_answer_that_is_not_finite(materials):
    material: Material = materials[0]
    walk = _Walk(material, bulk("Cu"))
    walk.take(Label(np.nan, np.zeros((1, 3)), np.full((3, 3), np.nan)))
    assert walk.done
