"""Labelled frames of all sources: the same numbers whatever the format, and a reason for what is not taken."""

from __future__ import annotations

import bz2
import gzip
import json
from pathlib import Path

import ase.db
import numpy as np
import pytest
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from ase.units import GPa
from monty.serialization import dumpfn
from pymatgen.entries.computed_entries import ComputedStructureEntry
from pymatgen.io.ase import AseAtomsAdaptor

from matris.errors import MatrisError
from matris.files import json_stream, text, xyz_frames
from matris.training.data import json_documents
from matris.training.data.labelled import Labelled, LabelOptions, Rejected
from matris.training.data.reading import files_of, read_frames, read_labelled
from tests.matris.training.labelled_frames import as_matpes, as_mptrj, crystals


def read(path, **how):
    return list(read_labelled(Path(path), LabelOptions(**how)))


@pytest.fixture(scope="module")
def frames():
    return list(crystals(8))


def same(taken, frames, *, moments=True):
    assert [type(item) for item in taken] == [Labelled] * len(frames), taken
    for item, atoms in zip(taken, frames, strict=True):
        frame, results = item.frame, atoms.calc.results
        assert frame.energy == pytest.approx(results["energy"], abs=1e-6)
        assert np.allclose(frame.forces, results["forces"], atol=1e-6)
        assert np.allclose(frame.stress, atoms.get_stress(voigt=False), atol=1e-6)
        assert np.array_equal(frame.geometry.numbers, atoms.numbers)
        assert np.allclose(frame.geometry.positions, atoms.positions, atol=1e-6)
        assert (frame.magmoms is not None) == moments
        if moments:
            assert np.allclose(frame.magmoms, results["magmoms"], atol=1e-6)


def test_xyz(frames, tmp_path):
    write(tmp_path / "a.extxyz.gz", frames, format="extxyz")
    taken = read(tmp_path / "a.extxyz.gz")
    same(taken, frames)
    assert taken[0].location == "a.extxyz.gz:0"
    assert taken[1].frame.material == "Ne-crystal"
    assert taken[0].scale is None


def test_xyz_with_other_names_and_units(frames, tmp_path):
    atoms = frames[0].copy()
    atoms.info |= {"REF_energy": 1.5, "REF_stress": np.eye(3), "stress_unit": "GPa", "energy_scale": "mine"}
    atoms.info["split"] = "val"
    atoms.arrays["REF_forces"] = np.full((4, 3), 0.25)
    other = atoms.copy()
    other.info["energy_unit"] = "Hartree"
    unknown = atoms.copy()
    unknown.info["stress_unit"] = "psi"
    write(tmp_path / "a.xyz", [atoms, other, unknown], format="extxyz")
    good, bad, strange = read(tmp_path / "a.xyz")
    assert good.frame.energy == 1.5
    assert np.allclose(good.frame.forces, 0.25)
    assert np.allclose(good.frame.stress, GPa * np.eye(3))
    assert (good.scale, good.split, good.frame.validation) == ("mine", "validation", True)
    assert "Hartree" in bad.reason
    assert strange.reason == "stress of unknown unit psi"


def test_ase_database(frames, tmp_path):
    with ase.db.connect(tmp_path / "a.db") as database:
        for atoms in frames:
            database.write(atoms, material=atoms.info["material"], split="val", energy_scale="mp")
        database.write(frames[0].copy())
    *taken, bare = read(tmp_path / "a.db")
    same(taken, frames)
    assert (taken[0].scale, taken[0].frame.material, taken[0].split) == ("mp", "Ar-crystal", "validation")
    assert bare == Rejected("a.db:9", "no energy")
    (tmp_path / "b.db").write_bytes(b"no database" * 100)
    assert read(tmp_path / "b.db")[0].reason == "unreadable"


@pytest.mark.parametrize("piece", [64, 2**18], ids=["streamed", "at once"])
def test_mptrj(frames, tmp_path, monkeypatch, piece):
    monkeypatch.setattr(json_stream, "PIECE", piece)
    (tmp_path / "a.json.gz").write_bytes(gzip.compress(as_mptrj(frames).encode()))
    by_material = sorted(frames, key=lambda atoms: [f.info["material"] for f in frames].index(atoms.info["material"]))
    taken = read(tmp_path / "a.json.gz")
    same(taken, by_material)
    assert taken[0].location == "a.json.gz:mp-Ar-crystal/task-0-0"
    assert (taken[0].scale, taken[0].frame.material) == ("mp", "mp-Ar-crystal")


def test_documents_larger_than_allowed_are_taken_apart(frames, tmp_path, monkeypatch):
    for module in (json_documents, json_stream):
        monkeypatch.setattr(module, "MAX_TEXT", 8000)  # a frame fits, a material does not
    monkeypatch.setattr(json_stream, "PIECE", 64)
    (tmp_path / "a.json").write_text(as_mptrj(frames[:1] * 9))
    assert len(as_mptrj(frames[:1])) < 8000
    same(read(tmp_path / "a.json"), frames[:1] * 9)


def test_corrected_energies_are_not_learnt(frames, tmp_path):
    content = json.loads(as_mptrj(frames[:1]))
    del content["mp-Ar-crystal"]["task-0-0"]["uncorrected_total_energy"]
    (tmp_path / "a.json").write_text(json.dumps(content))
    (taken,) = read(tmp_path / "a.json")
    assert taken.reason == "no energy"
    assert "corrected" in taken.detail


def test_matpes(frames, tmp_path):
    (tmp_path / "a.json").write_text(as_matpes(frames, "r2SCAN"))
    taken = read(tmp_path / "a.json")
    same(taken, frames, moments=False)
    assert (taken[0].scale, taken[0].frame.material) == ("matpes-r2scan", "mp-Ar-crystal")
    lines = "\n".join(json.dumps(document) for document in json.loads(as_matpes(frames)))
    (tmp_path / "b.jsonl").write_text(lines + '\n{"structure": broken\n' + lines)
    taken = read(tmp_path / "b.jsonl")
    same(taken[:8], frames, moments=False)
    assert taken[8].reason == "unreadable"
    same(taken[9:], frames, moments=False)


def test_computed_entries_have_labels_in_their_data(frames, tmp_path):
    def entry(atoms):
        data = {"forces": atoms.get_forces().tolist(), "stress": (atoms.get_stress(voigt=False) / GPa).tolist()}
        structure, energy = AseAtomsAdaptor.get_structure(atoms), atoms.get_potential_energy()
        return ComputedStructureEntry(structure, energy, correction=-1.0, data=data | {"stress_unit": "GPa"})

    dumpfn([entry(atoms) for atoms in frames], tmp_path / "entries.json")
    same(read(tmp_path / "entries.json"), frames, moments=False)  # raw energies, not the corrected ones


def test_a_stress_needs_a_unit(frames, tmp_path):
    atoms = frames[0]
    document = json.loads(as_matpes([atoms]))[0]
    del document["matpes_id"]
    document["stress"] = (-10 / GPa * atoms.get_stress(voigt=False)).tolist()
    (tmp_path / "a.json").write_text(json.dumps(document))
    assert read(tmp_path / "a.json")[0].reason == "stress without unit"
    same(read(tmp_path / "a.json", stress_unit="kbar", flip_stress=True), [atoms], moments=False)


def labelled(atoms, **changes):
    copy = atoms.copy()
    copy.calc = SinglePointCalculator(copy, **{**atoms.calc.results, **changes})
    return copy


def test_every_fault_has_a_reason(frames, tmp_path):
    good = frames[0]
    flat, strange = labelled(good), labelled(good)
    flat.set_cell([5.0, 5.0, 1e-6])
    strange.set_atomic_numbers([18, 18, 18, 96])
    cases = {
        "energy with NaN": labelled(good, energy=np.nan),
        "forces with NaN": labelled(good, forces=np.full((4, 3), np.inf)),
        "stress with NaN": labelled(good, stress=np.full(6, np.nan)),
        "force above 10 eV/Å": labelled(good, forces=np.eye(4, 3) * 11.0),
        "stress of no crystal; is its unit right?": labelled(good, stress=np.full(6, 40.0)),
        "cell without volume": flat,
        "unknown element": strange,
    }
    write(tmp_path / "a.xyz", list(cases.values()), format="extxyz")
    taken = read(tmp_path / "a.xyz", max_force=10.0)
    assert [item.reason for item in taken] == list(cases)
    assert "Cm" in taken[-1].detail


def test_skewed_and_misshapen_labels(frames, tmp_path):
    document = json.loads(as_matpes(frames[:1]))[0]
    skewed = document | {"stress": [[0, 9, 0], [0, 0, 0], [0, 0, 0]]}
    short = document | {"stress": [1, 2, 3]}
    few = document | {"forces": document["forces"][:2]}
    none = document | {"forces": None}
    (tmp_path / "a.json").write_text(json.dumps([skewed, short, few, none]))
    reasons = [item.reason for item in read(tmp_path / "a.json")]
    assert reasons == ["stress is not symmetric", "stress of wrong shape (3,)", "forces of wrong shape", "no forces"]


def test_a_file_that_ends_too_early(frames, tmp_path):
    write(tmp_path / "a.xyz", frames, format="extxyz")
    text = (tmp_path / "a.xyz").read_text()
    (tmp_path / "a.xyz").write_text(text[:-200])
    *taken, last = read(tmp_path / "a.xyz")
    same(taken, frames[:-1])
    assert last.reason in {"truncated", "unreadable"}
    packed = gzip.compress(text.encode())
    (tmp_path / "b.xyz.gz").write_bytes(packed[: len(packed) // 2])
    assert read(tmp_path / "b.xyz.gz")[-1].reason in {"truncated", "unreadable"}
    (tmp_path / "c.json").write_text(as_mptrj(frames)[:-5000])
    assert read(tmp_path / "c.json")[-1].reason == "unreadable"


def test_a_broken_frame_costs_only_itself(frames, tmp_path):
    write(tmp_path / "one.xyz", frames[:1], format="extxyz")
    sound = (tmp_path / "one.xyz").read_text()
    lines = sound.splitlines(keepends=True)
    broken = ["".join(lines[:-1]), "many\n" + "".join(lines[1:]), "".join([*lines[:-1], "Ar 0 0 zero\n"])]
    (tmp_path / "a.xyz").write_text(sound + "".join(text + sound for text in broken))
    taken = read(tmp_path / "a.xyz")
    same(taken[::2], [frames[0]] * 4)
    assert [item.location for item in taken] == [f"a.xyz:{i}" for i in range(7)]
    assert {item.reason for item in taken[1::2]} == {"unreadable"}
    assert ["truncated: 3 of 4" in taken[1].detail, "'many'" in taken[3].detail] == [True, True]


@pytest.mark.parametrize("kind", ["xyz", "jsonl"])
def test_texts_that_are_too_long_cost_only_themselves(frames, tmp_path, monkeypatch, kind):
    if kind == "xyz":
        write(tmp_path / "one", frames[:1], format="extxyz")
        sound = (tmp_path / "one").read_text()
        long = sound.replace("pbc=", f"comment={'x' * 20_000} pbc=")
    else:
        sound = json.dumps(json.loads(as_matpes(frames[:1]))[0]) + "\n"
        long = sound.replace("{", '{"comment": "' + "x" * 20_000 + '", ', 1)
    (tmp_path / f"a.{kind}").write_text(sound + long + sound)
    for module in (text, json_stream, xyz_frames):
        monkeypatch.setattr(module, "MAX_TEXT", 8000)
    first, second, third = read(tmp_path / f"a.{kind}")
    same([first, third], [frames[0]] * 2, moments=kind == "xyz")
    assert "more than 8000 characters" in second.detail


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress])
def test_what_unpacks_to_too_much_ends_with_a_reason(frames, tmp_path, monkeypatch, pack):
    monkeypatch.setattr(text, "_ALWAYS_ALLOWED", 2**16)
    monkeypatch.setattr(text, "_MOST_EXPANSION", 10)
    write(tmp_path / "one", frames[:1], format="extxyz")
    path = tmp_path / f"a.xyz.{ {gzip.compress: 'gz', bz2.compress: 'bz2'}[pack] }"
    path.write_bytes(pack((tmp_path / "one").read_bytes() + b"\n" * 10**6))
    first, last = read(path)
    same([first], frames[:1])
    assert last.reason == "unreadable"
    assert "unpacks to more than" in last.detail


def test_odd_inputs_have_a_reason(frames, tmp_path):
    (tmp_path / "a.xyz").write_text("-3\nnothing\n")
    (tmp_path / "b.xyz").write_text("")
    document = json.loads(as_matpes(frames[:1]))[0]
    half = json.loads(json.dumps(document))
    half["structure"]["sites"][0]["species"] = [{"element": "Ar", "occu": 0.5}, {"element": "Ne", "occu": 0.5}]
    empty = json.loads(json.dumps(document))
    empty["structure"]["sites"] = []
    heavy = json.loads(json.dumps(document))
    heavy["structure"]["sites"][1]["species"][0]["element"] = "Og"
    (tmp_path / "c.json").write_text(json.dumps([half, empty, heavy, {"structure": 3}, {"structure": {}}]))
    assert [item.reason for item in read(tmp_path / "a.xyz")] == ["unreadable"]
    assert read(tmp_path / "b.xyz") == []
    taken = read(tmp_path / "c.json")
    assert [item.reason for item in taken] == ["unreadable", "no atoms", "unknown element", "unreadable"]
    assert "disordered" in taken[0].detail


def test_folders_and_unknown_files(frames, tmp_path):
    write(tmp_path / "b.xyz", frames, format="extxyz")
    write(tmp_path / "a.extxyz.gz", frames[:1], format="extxyz")
    (tmp_path / "notes.txt").write_text("nothing")
    assert [path.name for path in files_of(tmp_path)] == ["a.extxyz.gz", "b.xyz"]
    with pytest.raises(MatrisError, match=r"notes\.txt.*known are"):
        read(tmp_path / "notes.txt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(MatrisError, match="no labelled frames in this folder"):
        files_of(tmp_path / "empty")


def test_what_trains_refuses_bad_frames(frames, tmp_path):
    write(tmp_path / "a.xyz", [frames[0], frames[1].copy()], format="extxyz")
    with pytest.raises(MatrisError, match=r"a\.xyz:1: no energy"):
        list(read_frames([tmp_path / "a.xyz"]))
