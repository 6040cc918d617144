"""Labelling with a fake teacher: what is kept, and that it can be stopped and shared."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from ase.build import bulk
from ase.formula import Formula

import matris
from matris.errors import MatrisError
from matris.structures import to_structure
from recipes.embedded.label import (
    MAX_FORCE,
    SHAKEN,
    by_extrapolation,
    calmest,
    fault,
    label_piece,
    main,
    near_piece,
)  # fmt: skip
from recipes.embedded.labels import Labels, part_of
from recipes.embedded.materials import Material, write_structures
from recipes.embedded.shaking import SHAKINGS
from recipes.embedded.teacher import Label
from tests.conftest import SMALL_PUBLISHED

from .lennard_jones import LennardJonesTeacher

GENTLE = SHAKINGS["gentle"]
NAMES = ("Al", "AlPbCu2", "Ag", "Ir", "AgAlIr2", "Pb", "Ca", "Rh", "Sr")  # of which the compounds are reserved


def crystal(formula="Cu"):
    atoms = bulk("Cu", "fcc", a=3.8, cubic=True)
    symbols = list(Formula(formula))
    atoms.set_chemical_symbols(symbols if len(symbols) == 4 else symbols * 4)
    return atoms


@pytest.fixture
def structures(tmp_path):
    path = tmp_path / "structures.jsonl.gz"
    write_structures(path, (Material(f"m{i}", name, to_structure(crystal(name))) for i, name in enumerate(NAMES)))
    return path


def label(structures, data, output, *more, teacher=None):
    main(
        ["--structures", f"{structures}", "--data", f"{data}", "--output", f"{output}", "--piece", "2", *more],
        teacher or LennardJonesTeacher(),
    )


def arrays(folder):
    return {path.name: dict(np.load(path)) for path in sorted(folder.glob("*.npz"))}


def same(one, other):
    return one.keys() == other.keys() and all(
        np.array_equal(one[name][key], other[name][key]) for name in one for key in one[name]
    )


def test_every_evaluation_is_kept_once():
    teacher = LennardJonesTeacher()
    kept, refused = label_piece(teacher, [("a", crystal()), ("b", bulk("Au", a=3.9))], 0, GENTLE)
    assert len(kept) == len(teacher.seen)
    assert not refused
    for material in "ab":
        made = [label["made"] for _, label in kept if label["material"] == material]
        walked = sum(name.startswith("walk") for name in made)
        assert made == [*(f"walk{i}" for i in range(walked)), *["shaken"] * SHAKEN, "pair0", "pair1"]
    everything = [np.concatenate([atoms.cell.array, atoms.positions]) for atoms, _ in kept]
    for i, one in enumerate(everything):
        assert not any(one.shape == other.shape and np.allclose(one, other, atol=1e-6) for other in everything[:i])


def test_the_seed_and_the_material_decide():
    both, _ = label_piece(LennardJonesTeacher(), [("a", crystal()), ("b", crystal())], 0, GENTLE)
    again, _ = label_piece(LennardJonesTeacher(), [("b", crystal())], 0, GENTLE)
    other, _ = label_piece(LennardJonesTeacher(), [("b", crystal())], 1, GENTLE)
    of_b = [atoms for atoms, label in both if label["material"] == "b"]
    of_a = [atoms for atoms, label in both if label["material"] == "a"]
    assert all(np.array_equal(x.positions, y.positions) for x, (y, _) in zip(of_b, again, strict=True))
    assert not np.array_equal(of_b[-1].positions, other[-1][0].positions)
    assert not np.array_equal(of_b[-1].positions, of_a[-1].positions)


def test_a_relaxation_starts_from_the_calmest_frame_and_does_not_repeat_it(structures, data, tmp_path):
    label(structures, data, tmp_path / "walked", teacher=LennardJonesTeacher())
    paths = sorted((tmp_path / "walked").glob("*.npz"))
    starts = calmest(Labels(paths))
    assert len(starts) == sum(part_of(name) != "reserved" for name in NAMES)
    kept, refused = near_piece(LennardJonesTeacher(), starts, 0)
    assert not refused
    for name, start in starts:
        mine = [(atoms, found["made"]) for atoms, found in kept if found["material"] == name]
        made = [what for _, what in mine]
        assert made[-6:] == ["near"] * 4 + ["pair0", "pair1"]
        assert made[-7].startswith("rlx")
        first, second = (atoms for atoms, what in mine if what.startswith("pair"))
        assert np.count_nonzero(np.linalg.norm(first.positions - second.positions, axis=1)) == 1
        cells = [atoms.cell.array for atoms, _ in mine]
        assert not any(np.allclose(cell, start.cell.array, atol=1e-7) for cell in cells)


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
    answer = Label(energy, np.array([[force, 0, 0], [0, 0, 0]]), stress * np.eye(3), np.full(2, energy / 2))
    assert fault(atoms, answer, -4.0) == reason


def test_atoms_too_close_are_a_fault():
    answer = Label(-4.0, np.zeros((1, 3)), np.zeros((3, 3)), np.array([-4.0]))
    assert fault(bulk("Cu", a=1.8), answer, -4.0) == "distance"


def test_half_a_pair_is_refused():
    whole = LennardJonesTeacher()
    label_piece(whole, [("a", crystal())], 0, GENTLE)
    last = whole.seen[-1].positions
    half = LennardJonesTeacher(broken=lambda atoms: np.array_equal(atoms.positions, last))
    kept, refused = label_piece(half, [("a", crystal())], 0, GENTLE)
    assert dict(refused) == {"not finite": 1, "other half of a pair": 1}
    assert not any(found["made"].startswith("pair") for _, found in kept)


def test_a_material_that_the_teacher_cannot_label_costs_only_itself():
    teacher = LennardJonesTeacher(broken=lambda atoms: "Pt" in atoms.symbols)
    kept, refused = label_piece(teacher, [("a", crystal()), ("b", crystal("Pt"))], 0, GENTLE)
    assert {found["material"] for _, found in kept} == {"a"}
    assert dict(refused) == {"not finite": 1}


def test_reserved_formulas_are_not_labelled(structures, data, tmp_path):
    label(structures, data, tmp_path / "a")
    labels = Labels(sorted((tmp_path / "a").glob("*.npz")))
    assert set(labels.formulas()) == {name for name in NAMES if part_of(name) != "reserved"} != set(NAMES)


def test_it_goes_on_where_it_stopped(structures, data, tmp_path):
    label(structures, data, tmp_path / "a")
    whole = arrays(tmp_path / "a")
    assert len(whole) == 4
    label(structures, data, tmp_path / "b", "--minutes", "0")
    assert arrays(tmp_path / "b") == {}

    class KilledError(Exception):
        pass

    def killed(atoms):
        if "Pb" in atoms.symbols:
            raise KilledError

    with pytest.raises(KilledError):
        label(structures, data, tmp_path / "b", teacher=LennardJonesTeacher(broken=killed))
    begun = arrays(tmp_path / "b")
    assert 0 < len(begun) < len(whole)
    teacher = LennardJonesTeacher()
    label(structures, data, tmp_path / "b", teacher=teacher)
    finished = arrays(tmp_path / "b")
    assert same({name[1:]: of for name, of in finished.items()}, {name[1:]: of for name, of in whole.items()})
    symbols = {symbol for atoms in teacher.seen for symbol in atoms.symbols}
    assert "Al" not in symbols  # was labelled before
    assert not [path for path in (tmp_path / "b").iterdir() if path.name.startswith(".")]


PROGRAM = """
import sys
from recipes.embedded.label import main
from tests.recipes.embedded.lennard_jones import LennardJonesTeacher
teacher = LennardJonesTeacher()
main(sys.argv[1:], teacher)
print(len(teacher.seen))
"""


def test_two_processes_share_the_shards(structures, data, tmp_path):
    teacher = LennardJonesTeacher()
    label(structures, data, tmp_path / "alone" / "a", teacher=teacher)
    output = tmp_path / "shared" / "a"
    command = [sys.executable, "-c", PROGRAM, "--structures", f"{structures}", "--data", f"{data}"]
    command += ["--output", f"{output}", "--piece", "2"]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    ended = [process.communicate() for process in running]
    assert [process.returncode for process in running] == [0, 0], ended
    assert sum(int(out) for out, _ in ended) == len(teacher.seen)  # nothing was labelled twice
    assert same(arrays(output), arrays(tmp_path / "alone" / "a"))


def test_the_shard_of_a_killed_process_is_made_by_another(structures, data, tmp_path):
    program = PROGRAM.replace("LennardJonesTeacher()", "lambda frames: [print('asked', flush=True), time.sleep(60)]")
    command = [sys.executable, "-c", f"import time\n{program}", "--structures", f"{structures}", "--data", f"{data}"]
    output = tmp_path / "a"
    with subprocess.Popen([*command, "--output", f"{output}", "--piece", "2"], stdout=subprocess.PIPE) as stuck:
        assert stuck.stdout.readline() == b"asked\n"
        main_settings = ["--structures", f"{structures}", "--data", f"{data}", "--output", f"{output}", "--piece", "2"]
        function = LennardJonesTeacher().__call__
        main(main_settings, function)
        assert len(arrays(output)) == 3
        stuck.kill()
        stuck.wait()
    main(main_settings, function)
    assert len(arrays(output)) == 4


def test_another_setting_is_refused(structures, data, tmp_path):
    label(structures, data, tmp_path / "a", "--minutes", "0")
    with pytest.raises(MatrisError, match=r"begun with seed 0 \(now 1\): go on"):
        label(structures, data, tmp_path / "a", "--seed", "1")


def test_near_frames_come_from_shards(structures, data, tmp_path):
    label(structures, data, tmp_path / "a")
    command = ["--near", f"{tmp_path / 'a'}", "--data", f"{data}", "--output", f"{tmp_path / 'n'}"]
    main(command, LennardJonesTeacher())
    labels = Labels(sorted((tmp_path / "n").glob("*.npz")))
    made = {name.rstrip("0123456789") for name in labels.made().tolist()}
    assert made == {"rlx", "near", "pair"}
    assert set(labels.formulas()) == {name for name in NAMES if part_of(name) != "reserved"}
    again = LennardJonesTeacher()
    main(command, again)
    assert not again.seen


def test_shards_without_a_frame_are_written_and_read(structures, data, tmp_path):
    label(structures, data, tmp_path / "a", teacher=LennardJonesTeacher(broken=lambda _: True))
    assert len(Labels(sorted((tmp_path / "a").glob("*.npz")))) == 0
    main(["--near", f"{tmp_path / 'a'}", "--data", f"{data}", "--output", f"{tmp_path / 'n'}"], LennardJonesTeacher())
    assert len(arrays(tmp_path / "n")) == 4


def test_the_student_orders_by_its_extrapolation(structures, data, tmp_path):
    student = matris.load(SMALL_PUBLISHED, device="cpu")
    materials = [
        Material("calm", "x", to_structure(bulk("Cu"))),
        Material("dense", "x", to_structure(bulk("Cu", a=2.9))),
        Material("unknown", "x", to_structure(bulk("Xe", "fcc", a=6.2))),
    ]
    assert [m.material for m in by_extrapolation(student, materials)] == ["unknown", "dense", "calm"]
    nothing = SimpleNamespace(network=SimpleNamespace(domain=None), card=SimpleNamespace(key="published"))
    with pytest.raises(MatrisError, match="published has no training domain"):
        by_extrapolation(nothing, materials)
    label(structures, data, tmp_path / "a", "--student", f"{SMALL_PUBLISHED}", "--minutes", "0")
    with pytest.raises(MatrisError, match="student"):
        label(structures, data, tmp_path / "a")
