"""Files of any size, piece by piece: what is broken is one candidate, what follows is read, memory stays flat."""

import bz2
import gzip
import json
import pickle
import sqlite3
import tracemalloc
import zipfile

import ase.db
import numpy as np
import pytest
from ase.io import write
from pymatgen.core import Lattice, Structure
from pymatgen.entries.computed_entries import ComputedStructureEntry

from matris.files import json_stream, text, xyz_frames
from matris.flows.sources.files import read_candidates
from matris.structures import content_id


def salt(i=0):
    return Structure(Lattice.cubic(4.0 + 0.001 * i), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])


def frame(i=0, n="2", second=None):
    a = 4.0 + 0.001 * i
    second = f"Cl {a / 2} {a / 2} {a / 2}" if second is None else second
    return f'{n}\nLattice="{a} 0 0 0 {a} 0 0 0 {a}" Properties=species:S:1:pos:R:3 pbc="T T T"\nCs 0 0 0\n{second}\n'


def block(name, sites="Cs1 Cs 0 0 0\nCl1 Cl 0.5 0.5 0.5", before=""):
    cell = "".join(f"_cell_length_{x} 4\n" for x in "abc") + "".join(
        f"_cell_angle_{x} 90\n" for x in ("alpha", "beta", "gamma")
    )
    columns = "".join(f"_atom_site_{x}\n" for x in ("label", "type_symbol", "fract_x", "fract_y", "fract_z"))
    return f"data_{name}\n{before}{cell}loop_\n{columns}{sites}\n"


def read(path):
    return list(read_candidates(path))


def outcome(candidates):
    """Reduced formulas, and None for what could not be read."""
    return [c.structure.reduced_formula if c.structure else None for c in candidates]


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (frame(1, n="5"), "truncated: 2 of 5 atoms"),
        (frame(1, n="2", second="").rstrip() + "\n", "truncated: 1 of 2 atoms"),
        (frame(1, n="many"), "'many', expected a number of atoms"),
        (frame(1, n="-2"), "'-2', expected a number of atoms"),
        (frame(1, second="Cl 2 2 2\nCl 1 1 1"), None),
        (frame(1, second="Qq 2 2 2"), "Qq"),
        ("\n\n", None),
    ],
)
def test_after_a_broken_frame_the_next_are_read(tmp_path, broken, reason):
    path = tmp_path / "a.extxyz"
    path.write_text(frame() + broken + frame(2) + frame(3))
    candidates = read(path)
    sound = [c for c in candidates if c.structure]
    assert [content_id(c.structure) for c in sound[-2:]] == [content_id(salt(2)), content_id(salt(3))]
    assert content_id(sound[0].structure) == content_id(salt())
    if reason:
        (bad,) = [c for c in candidates if c.error]
        assert reason in bad.error


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (block("b", "Qq1 Qq 0 0 0"), "Qq"),
        (block("b").split("loop_")[0], "atom"),
        (block("b", before="_publ_text\n;\nthis text field is never closed\n"), "CIF"),
        (block("b")[:-4], "CIF"),
    ],
)
def test_after_a_broken_block_the_next_are_read(tmp_path, broken, reason):
    path = tmp_path / "a.cif"
    path.write_text(block("a") + broken + "\n" + block("c") + block("d"))
    candidates = read(path)
    assert outcome(candidates) == ["CsCl", None, "CsCl", "CsCl"]
    assert [c.provenance["block"] for c in candidates] == ["a", "b", "c", "d"]
    assert reason in candidates[1].error


def test_a_line_of_json_lines_costs_only_itself(tmp_path):
    lines = [salt(i).to_json() for i in range(3)]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join([lines[0], lines[1][:-20], "[" * 100_000, "7", "", lines[2]]) + "\n")
    candidates = read(path)
    assert outcome(candidates) == ["CsCl", None, None, None, "CsCl"]
    assert [c.provenance["line"] for c in candidates] == [1, 2, 3, 4, 6]
    assert "nested too deeply" in candidates[2].error


SHAPES = {
    "list": lambda items: (items, [{"index": i} for i in range(3)]),
    "names": lambda items: (dict(zip("abc", items, strict=True)), [{"name": n} for n in "abc"]),
    "record": lambda items: (
        {"ids": [1, 2, 3], "structures": items},
        [{"name": "structures", "index": i} for i in range(3)],
    ),
    "split": lambda items: (
        {"columns": ["structure", "e"], "index": [0, 1, 2], "data": [[item, 0.5] for item in items]},
        [{"name": "data", "index": i} for i in range(3)],
    ),
    "columns": lambda items: (
        {"e": {"a": 0.1, "b": 0.2, "c": None}, "structure": dict(zip("abc", items, strict=True))},
        [{"name": f"structure/{n}"} for n in "abc"],
    ),
    "records": lambda items: ([{"id": 1, "structure": item} for item in items], [{"index": i} for i in range(3)]),
}


@pytest.mark.parametrize("piece", [64, 2**18], ids=["streamed", "at once"])
@pytest.mark.parametrize("shape", SHAPES)
def test_documents_of_every_shape_are_read(tmp_path, monkeypatch, shape, piece):
    monkeypatch.setattr(json_stream, "PIECE", piece)
    content, places = SHAPES[shape]([salt(i).as_dict() for i in range(3)])
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content, indent=1 if piece == 64 else None))
    candidates = read(path)
    assert [c.error for c in candidates] == [None] * 3
    assert [c.candidate_id for c in candidates] == [content_id(salt(i)) for i in range(3)]
    assert [c.provenance for c in candidates] == places


def test_a_json_document_gives_what_stands_before_its_break(tmp_path):
    items = json.dumps([salt(i).as_dict() for i in range(3)])
    path = tmp_path / "a.json"
    path.write_text(items[:-100])
    *sound, broken = read(path)
    assert [c.candidate_id for c in sound] == [content_id(salt(0)), content_id(salt(1))]
    assert "the rest is not read" in broken.error


def test_large_objects_and_entries_are_read(tmp_path):
    large = salt() * (10, 10, 10)
    path = tmp_path / "a.json"
    path.write_text(json.dumps(ComputedStructureEntry(large, -1.0).as_dict(), indent=2))
    assert path.stat().st_size > 2 * json_stream.PIECE
    (candidate,) = read(path)
    assert candidate.candidate_id == content_id(large)


@pytest.mark.parametrize("name", ["a.db", "a.json"])
def test_rows_of_an_ase_database_stand_alone(tmp_path, name):
    path = tmp_path / name
    with ase.db.connect(path) as database:
        for i in range(3):
            database.write(salt(i).to_ase_atoms(), label=f"x{i}")
    if name == "a.db":
        with sqlite3.connect(path) as connection:
            connection.execute("UPDATE systems SET positions = x'0011' WHERE id = 2")
    else:
        content = json.loads(path.read_text())
        content["2"]["positions"]["__ndarray__"][2] = [0.0]
        path.write_text(json.dumps(content))
    before = path.read_bytes()
    candidates = read(path)
    assert outcome(candidates) == ["CsCl", None, "CsCl"]
    assert [c.candidate_id for c in candidates[::2]] == [content_id(salt(0)), content_id(salt(2))]
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_what_is_no_ase_database_says_so(tmp_path):
    for name, content in (("empty.db", b""), ("text.db", b"hello"), ("other.db", None)):
        path = tmp_path / name
        if content is None:
            with sqlite3.connect(path) as connection:
                connection.execute("CREATE TABLE t (a)")
        else:
            path.write_bytes(content)
        (candidate,) = read(path)
        assert "unreadable ASE database" in candidate.error


def test_members_of_an_archive_stand_alone_and_nothing_is_unpacked(tmp_path):
    path = tmp_path / "generated_crystals_cif.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("gen_0.cif", block("a"))
        archive.writestr("gen_1.cif", b"")
        archive.writestr("__MACOSX/._gen_0.cif", b"x")
        archive.writestr("notes.txt", "hello")
        archive.writestr("../../gen_2.extxyz", frame(1) + frame(2))
        archive.writestr("gen_3.cif.gz", gzip.compress(block("a").encode())[:-12])
        archive.writestr("gen_4.cif", block("a"))
    data = bytearray(path.read_bytes())
    at = data.index(b"gen_4.cif") + len("gen_4.cif")
    data[at + 10] ^= 0xFF
    path.write_bytes(data)
    candidates = read(path)
    assert [c.provenance["member"] for c in candidates] == [
        *("gen_0.cif", "gen_1.cif", "../../gen_2.extxyz", "../../gen_2.extxyz", "gen_3.cif.gz", "gen_4.cif")
    ]
    assert outcome(candidates) == ["CsCl", None, "CsCl", "CsCl", None, None]
    assert "empty" in candidates[1].error
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_folder_of_mattergen_is_read_once(tmp_path):
    write(tmp_path / "generated_crystals.extxyz", [salt(i).to_ase_atoms() for i in range(2)], format="extxyz")
    for name in ("generated_crystals_cif.zip", "generated_trajectories.zip"):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("gen_0.extxyz", frame(5) + frame(6))
    assert [c.candidate_id for c in read(tmp_path)] == [content_id(salt(0)), content_id(salt(1))]
    (tmp_path / "generated_crystals.extxyz").unlink()
    assert len(read(tmp_path)) == 2
    assert len(read(tmp_path / "generated_trajectories.zip")) == 2


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress])
def test_what_unpacks_to_too_much_ends_with_a_reason(tmp_path, monkeypatch, pack):
    monkeypatch.setattr(text, "_ALWAYS_ALLOWED", 2**16)
    monkeypatch.setattr(text, "_MOST_EXPANSION", 10)
    ending = {gzip.compress: "gz", bz2.compress: "bz2"}[pack]
    path = tmp_path / f"a.extxyz.{ending}"
    path.write_bytes(pack((frame() + "\n" * 10**6).encode()))
    *_, last = read(path)
    assert "unpacks to more than" in last.error
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.extxyz", "\n" * 10**6)
        archive.writestr("b.extxyz", frame())
    first, second = read(tmp_path / "a.zip")
    assert "unpacks to more than" in first.error
    assert second.error is None


def test_absurd_items_cost_only_themselves(tmp_path, monkeypatch):
    for module in (text, json_stream, xyz_frames):
        monkeypatch.setattr(module, "MAX_TEXT", 5000)
    from matris.flows.sources import cif, poscar

    for module in (cif, poscar):
        monkeypatch.setattr(module, "MAX_TEXT", 5000)
    long = "x" * 20_000
    (tmp_path / "a.cif").write_text(block("a") + block("b", before=f"# {long}\n") + block("c"))
    (tmp_path / "b.extxyz").write_text(frame() + frame(1).replace("pbc", f"a={long} pbc") + frame(2))
    (tmp_path / "c.jsonl").write_text("\n".join([salt().to_json(), f'"{long}"', salt(1).to_json()]))
    (tmp_path / "d.vasp").write_text(salt().to(fmt="poscar") + "0 0 0\n" * 5000)
    candidates = read(tmp_path)
    assert outcome(candidates) == ["CsCl", None, "CsCl"] * 3 + [None]
    assert all("more than" in c.error for c in candidates if c.error)
    monkeypatch.setattr(xyz_frames, "MAX_SITES", 1)
    assert "more than" in read(tmp_path / "b.extxyz")[0].error


def test_pickles_are_not_read(tmp_path):
    for name in ("a.pkl", "a.pickle", "a.traj"):
        (tmp_path / name).write_bytes(pickle.dumps({"lattice": 1}))
        (candidate,) = read(tmp_path / name)
        assert "unknown type" in candidate.error


def test_text_that_is_none_becomes_text(tmp_path):
    (tmp_path / "a.json").write_text('{"\\ud800": {"lattice": 1, "sites": []}}')
    (candidate,) = read(tmp_path / "a.json")
    assert candidate.error
    assert candidate.model_dump_json()


def many(path, n):
    """A file of n crystals."""
    item = json.dumps(salt().as_dict())
    with path.open("w") as stream:
        for i in range(n):
            if path.suffix == ".extxyz":
                stream.write(frame(i))
            elif path.suffix == ".cif":
                stream.write(block(i))
            elif path.suffix == ".jsonl":
                stream.write(item + "\n")
            else:
                stream.write(("[" if i == 0 else ",") + item + ("]" if i == n - 1 else ""))
    return path


def peak_of(candidates, n_first):
    """Most memory taken by all but the first candidates (bytes), and how many are sound."""
    for _ in range(n_first):
        next(candidates)
    tracemalloc.start()
    try:
        return sum(c.error is None for c in candidates), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", ["extxyz", "cif", "json", "jsonl"])
def test_memory_does_not_grow_with_a_file(tmp_path, kind):
    n_sound, peak = peak_of(read_candidates(many(tmp_path / f"a.{kind}", 400)), 20)
    assert n_sound == 380
    assert peak < 2.5e6


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["extxyz", "json"])
def test_twenty_thousand_crystals_of_one_file(tmp_path, kind):
    n_sound, peak = peak_of(read_candidates(many(tmp_path / f"a.{kind}", 20_000)), 1)
    assert n_sound == 19_999
    assert peak < 4e6


def test_a_folder_is_read_lazily(tmp_path):
    for i in range(50):
        (tmp_path / f"{i:02}.cif").write_text(block("a"))
    candidates = read_candidates(tmp_path)
    next(candidates)
    for file in tmp_path.iterdir():
        file.write_text("gone")
    assert sum(c.error is None for c in candidates) == 0


def test_numbers_survive_each_format(tmp_path):
    crystal = Structure(
        Lattice.from_parameters(3.1, 4.2, 5.3, 80, 95, 107), ["Fe", "O"], [[0.1, 0.2, 0.3], [0.6, 0.7, 0.85]]
    )
    crystal.to(str(tmp_path / "a.json"))
    write(tmp_path / "b.extxyz", crystal.to_ase_atoms(), format="extxyz")
    with ase.db.connect(tmp_path / "c.db") as database:
        database.write(crystal.to_ase_atoms())
    for candidate in read(tmp_path):
        assert np.allclose(candidate.structure.lattice.matrix, crystal.lattice.matrix, atol=1e-6)
        assert np.allclose(candidate.structure.frac_coords, crystal.frac_coords, atol=1e-6)
