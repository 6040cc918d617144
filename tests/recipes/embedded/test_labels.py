"""Shards, and the parts that formulas play."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from ase.build import bulk

from matris.errors import MatrisError
from recipes.embedded.labels import Labels, divide, formulas_of_wbm, part_of, write_shard
from recipes.embedded.materials import ELEMENTS

from .lennard_jones import LennardJonesTeacher


def labelled(atoms, **changes):
    label = LennardJonesTeacher().label(atoms).__dict__
    return atoms, {**label, "material": "m", "made": "walk0", **changes}


def test_the_part_follows_from_the_reduced_formula():
    for same in (("NaCl", "Cl4Na4"), ("Ga2As2", "AsGa"), ("O2", "O"), ("Li2O", "OLi2", "Li4O2")):
        assert len({part_of(formula) for formula in same}) == 1
    ternaries = [f"{a}{n}{b}O3" for a in ELEMENTS for b in ELEMENTS if a < b and "O" not in (a, b) for n in (1, 2)]
    counts = Counter(part_of(formula) for formula in ternaries)
    assert counts["reserved"] / counts.total() == pytest.approx(0.2, abs=0.01)
    assert counts["validation"] / counts.total() == pytest.approx(0.04, abs=0.01)
    assert {part_of(symbol) for symbol in ELEMENTS} == {"training"}
    binaries = Counter(part_of(f"{a}{n}{b}") for a in ELEMENTS for b in ELEMENTS if a < b for n in (1, 2))
    assert binaries["reserved"] == 0
    assert binaries["validation"] / binaries.total() == pytest.approx(0.05, abs=0.01)


def test_reserved_formulas_are_those_of_the_hash_and_of_wbm(data):
    wbm = formulas_of_wbm(data)
    assert wbm == {"BN"}
    assert part_of("B2N2") != "reserved"
    assert part_of("B2N2", wbm) == "reserved"


def test_a_shard_gives_back_its_frames(tmp_path):
    atoms = bulk("NaCl", "rocksalt", a=3.6, cubic=True)
    atoms.rattle(0.1, seed=1)
    write_shard(tmp_path / "new" / "a.npz", [labelled(atoms), labelled(bulk("Cu"), made="pair0", material="n")])
    labels = Labels([tmp_path / "new" / "a.npz"])
    frame, label = labels[0], LennardJonesTeacher().label(atoms)
    assert len(labels) == 2
    assert labels.made().tolist() == ["walk0", "pair0"]
    assert labels.formulas() == ["ClNa", "Cu"]
    assert labels[1].material == "n"
    np.testing.assert_allclose(frame.forces, label.forces, atol=1e-6)
    np.testing.assert_allclose(frame.stress, label.stress, atol=1e-7)
    np.testing.assert_allclose(frame.atom_energies, label.atom_energies, atol=1e-6)
    assert frame.energy == pytest.approx(label.energy, abs=1e-12)


@pytest.mark.parametrize(
    "changes",
    [
        {"energy": np.nan},
        {"forces": np.zeros((3, 3))},
        {"forces": np.full((1, 3), np.inf)},
        {"stress": np.zeros(6)},
        {"atom_energies": np.array([7.0])},
    ],
)
def test_a_broken_frame_is_not_written(tmp_path, changes):
    with pytest.raises(MatrisError, match="frame 1, made walk0 of m"):
        write_shard(tmp_path / "a.npz", [labelled(bulk("Cu")), labelled(bulk("Cu"), **changes)])
    assert list(tmp_path.iterdir()) == []


def test_no_shards_are_told():
    with pytest.raises(MatrisError, match="no labels"):
        Labels([])


def test_division_keeps_formulas_apart(tmp_path):
    formulas = ["NaCl", "MgO", "KCl", "LiF", "CaO", "SrO", "NaF", "KBr", "RbCl", "BaO", "NiO", "TiN", "BN", "ZrC"]
    crystals = [bulk(f, "rocksalt", a=3.6) for f in formulas] * 2
    write_shard(tmp_path / "a.npz", [labelled(atoms) for atoms in crystals])
    labels = Labels([tmp_path / "a.npz"])
    names = labels.formulas()
    training, validation = divide(labels, {"BN"}, 50.0)
    assert training
    assert validation
    assert not {names[i] for i in training} & {names[i] for i in validation}
    for chosen, part in ((training, "training"), (validation, "validation")):
        assert {part_of(names[i], {"BN"}) for i in chosen} <= {part}
    assert len(training) + len(validation) == sum(part_of(name, {"BN"}) != "reserved" for name in names)
