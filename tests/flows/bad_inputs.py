"""Inputs that go wrong, each with what becomes of it and words of which the reason must contain one."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import os
import sqlite3
import zipfile
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ase.db
from ase.build import bulk
from pymatgen.core import Lattice, Molecule, Structure

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

UNREADABLE, REJECTED, REFUSED, FINE = "unreadable", "rejected", "refused", "fine"
"""A candidate without a structure; one whose structure is not computed; an error of the call; no harm done."""

KNOWN = frozenset({"Na", "Cl", "Fe", "O", "H", "Li", "Si", "Cs"})
"""Elements of a checkpoint."""


@dataclass(frozen=True)
class Bad:
    """One input: a file of some content, or whatever a function leaves at its path."""

    name: str
    content: bytes | Callable[[Path], object]
    outcome: str
    words: tuple[str, ...] = ()
    n_fine: int = 0  # candidates of the same input that are not harmed

    def write(self, folder: Path) -> Path:
        path = folder / self.name
        if callable(self.content):
            self.content(path)
        else:
            path.write_bytes(self.content)
        return path


GOOD = "Na1 Na 0 0 0 1\nCl1 Cl 0.5 0.5 0.5 1"
FACES = [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]


def cif(atoms: str = GOOD, a: str = "3.5", b: str = "3.5", c: str = "3.5", alpha: str = "90", head: str = "") -> bytes:
    return (
        f"data_x\n{head}_cell_length_a {a}\n_cell_length_b {b}\n_cell_length_c {c}\n_cell_angle_alpha {alpha}\n"
        "_cell_angle_beta 90\n_cell_angle_gamma 90\nloop_\n_atom_site_label\n_atom_site_type_symbol\n"
        "_atom_site_fract_x\n_atom_site_fract_y\n_atom_site_fract_z\n_atom_site_occupancy\n" + atoms + "\n"
    ).encode()


def poscar(
    names: str = "Na Cl",
    counts: str = "1 1",
    scale: str = "1.0",
    cell: str = "3.5 0 0\n0 3.5 0\n0 0 3.5",
    coords: str = "0 0 0\n0.5 0.5 0.5",
) -> bytes:
    return f"comment\n{scale}\n{cell}\n{names}\n{counts}\ndirect\n{coords}\n".encode()


def xyz(n: str = "2", cell: str = "3.5 0 0 0 3.5 0 0 0 3.5", more: str = "", atoms: str = "Na 0 0 0\nCl 1.7 1.7 1.7"):
    lattice = f'Lattice="{cell}" ' if cell else ""
    return f"{n}\n{lattice}Properties=species:S:1:pos:R:3 {more}\n{atoms}\n".encode()


def salt() -> Structure:
    return Structure(Lattice.cubic(3.5), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])


def as_json(**changes: Any) -> bytes:
    return json.dumps({**salt().as_dict(), **changes}).encode()


def with_lattice(matrix: Any) -> bytes:
    return as_json(lattice={"matrix": matrix})


def with_site(**changes: Any) -> bytes:
    first, second = salt().as_dict()["sites"]
    return as_json(sites=[{**first, **changes}, second])


def crystal(cell: Lattice, species: list[Any], coords: list[Any]) -> bytes:
    return json.dumps(Structure(cell, species, coords).as_dict()).encode()


def zipped(**files: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


def folder_with(files: dict[str, bytes]) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.mkdir()
        for name, content in files.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(content)

    return make


def folder_with_loops(path: Path) -> None:
    folder_with({"good.cif": cif()})(path)
    (path / "self").symlink_to(path)
    (path / "one.cif").symlink_to(path / "two.cif")
    (path / "two.cif").symlink_to(path / "one.cif")


def secret(path: Path) -> None:
    path.write_bytes(cif())
    path.chmod(0)


def other_database(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE crystals (formula TEXT)")


def cut_database(path: Path) -> None:
    with ase.db.connect(path, type="db") as database:
        database.write(bulk("Fe"))
    path.write_bytes(path.read_bytes()[:5000])


def bomb(path: Path) -> None:
    path.write_bytes(gzip.compress(bytes(300 << 20), 1))


EITHER = UNREADABLE + REJECTED
FLAT = ("volume", "flat", "repeats", "parallel", "singular")
NO_NUMBER = ("nan", "infinite", "number", "finite")
NO_BLOCK = ("no data block",)
POSCAR = ("poscar",)
COUNT = ("number of atoms", "count", "truncated", "lines")

BAD_CIFS = [
    Bad("empty.cif", b"", UNREADABLE, ("empty",)),
    Bad("blank.cif", b" \n\t\n\n", UNREADABLE, ("empty",)),
    Bad("prose.cif", b"Dear colleague,\nplease find attached\n", UNREADABLE, NO_BLOCK),
    Bad("binary.cif", bytes(range(256)) * 20, UNREADABLE, NO_BLOCK),
    Bad("zeros.cif", b"\0" * 4096, UNREADABLE, (*NO_BLOCK, "empty")),
    Bad("utf16.cif", cif().decode().encode("utf-16"), UNREADABLE, (*NO_BLOCK, "utf")),
    Bad("page.cif", b"<!DOCTYPE html><html><body>404 Not found</body></html>", UNREADABLE, NO_BLOCK),
    Bad("pointer.cif", b"version https://git-lfs.github.com/spec/v1\nsize 9\n", UNREADABLE, NO_BLOCK),
    Bad("header.cif", b"data_x\n", UNREADABLE, ("cell", "site")),
    Bad("cut_in_row.cif", cif()[:-12], UNREADABLE, ("truncated",)),
    Bad("cut_in_cell.cif", cif()[:60], UNREADABLE, ("cell", "truncated", "number")),
    Bad("cut_in_columns.cif", cif()[: cif().index(b"Na1")], UNREADABLE, ("loop", "no atom")),
    Bad("huge_cell.cif", cif(a="1e300"), EITHER, ("long", "number", "infinite", "volume", "cell")),
    Bad("long_cell.cif", cif(a="1e7"), REJECTED, ("long",)),
    Bad("inf_cell.cif", cif(b="inf"), EITHER, (*NO_NUMBER, "lattice")),
    Bad("nan_cell.cif", cif(c="nan"), EITHER, NO_NUMBER),
    Bad("word_cell.cif", cif(c="three"), UNREADABLE, ("three", "cell")),
    Bad("negative_cell.cif", cif(c="-3.5"), UNREADABLE, ("length c",)),
    Bad("zero_cell.cif", cif(c="0"), EITHER, (*FLAT, "length c")),
    Bad("flat_angle.cif", cif(alpha="180"), EITHER, FLAT),
    Bad("impossible_angle.cif", cif(alpha="270"), EITHER, (*FLAT, "angle")),
    Bad("sharp_angle.cif", cif(alpha="0.001"), EITHER, FLAT),
    Bad("nan_site.cif", cif("Na1 Na nan 0 0 1"), UNREADABLE, ("coordinate",)),
    Bad("inf_site.cif", cif("Na1 Na inf 0 0 1"), EITHER, (*NO_NUMBER, "site na1")),
    Bad("far_site.cif", cif("Na1 Na 1e300 0 0 1"), EITHER, ("far", "away", "coordinate", "number")),
    Bad("word_site.cif", cif("Na1 Na left 0 0 1"), UNREADABLE, ("left",)),
    Bad("short_row.cif", cif("Na1 Na 0 0 0 1\nCl1 Cl 0.5"), UNREADABLE, ("truncated", "column")),
    Bad("no_sites.cif", cif(""), UNREADABLE, ("without values", "no atom")),
    Bad("dummy.cif", cif("X1 X 0 0 0 1\nNa1 Na 0.5 0.5 0.5 1"), UNREADABLE, ("element 'x'", "element x")),
    Bad("hole.cif", cif("Vac1 Vac 0 0 0 1\nNa1 Na 0.5 0.5 0.5 1"), UNREADABLE, ("vac",)),
    Bad("unknown_element.cif", cif("U1 U 0 0 0 1\nO1 O 0.5 0.5 0.5 1"), REJECTED, ("unsupported element u",)),
    Bad("deuterium.cif", cif("D1 D 0 0 0 1\nO1 O 0.5 0.5 0.5 1"), REJECTED + FINE, ("unsupported element d",)),
    Bad("disordered.cif", cif("Na1 Na 0 0 0 0.5\nLi1 Li 0 0 0 0.5"), REJECTED, ("disordered site 0",)),
    Bad("half_empty.cif", cif("Na1 Na 0 0 0 0.5\nCl1 Cl 0.5 0.5 0.5 1"), REJECTED, ("disordered site 0",)),
    Bad("crowded.cif", cif("Na1 Na 0 0 0 1\nLi1 Li 0 0 0 0.8"), UNREADABLE, ("occupanc",)),
    Bad("negative_part.cif", cif("Na1 Na 0 0 0 -0.5"), UNREADABLE, ("occupancy",)),
    Bad("nan_part.cif", cif("Na1 Na 0 0 0 nan"), UNREADABLE, ("occupancy",)),
    Bad("overlapping.cif", cif("Na1 Na 0 0 0 1\nNa2 Na 0.05 0 0 1"), REJECTED, ("sites 0 (na) and 1 (na)",)),
    Bad("close.cif", cif("Na1 Na 0 0 0 1\nCl1 Cl 0.3 0 0 1"), REJECTED, ("too close",)),
    Bad("wrong_sum.cif", cif(head="_chemical_formula_sum 'Na3 Cl1'\n"), UNREADABLE, ("stoichiometry",)),
    Bad("wrong_group.cif", cif(head="_space_group_name_H-M_alt 'Z 4 2'\n"), UNREADABLE, ("unknown space group",)),
    Bad("two_blocks.cif", cif() + cif("Qq1 Qq 0 0 0 1").replace(b"data_x", b"data_y"), UNREADABLE, ("qq",), n_fine=1),
    Bad("latin1.cif", b"# caf\xe9\n" + cif(), FINE, n_fine=1),
    Bad("mark.cif", b"\xef\xbb\xbf" + cif(), FINE, n_fine=1),
    Bad("mac_lines.cif", cif().replace(b"\n", b"\r"), FINE, n_fine=1),
    Bad("windows_lines.cif", cif().replace(b"\n", b"\r\n"), FINE, n_fine=1),
]

BAD_POSCARS = [
    Bad("POSCAR_empty", b"", UNREADABLE, ("empty",)),
    Bad("POSCAR_one_line", b"salt\n", UNREADABLE, POSCAR),
    Bad("POSCAR_more_counted", poscar(counts="1 3"), UNREADABLE, POSCAR),
    Bad("POSCAR_fewer_names", poscar(names="Na"), UNREADABLE, POSCAR),
    Bad("POSCAR_negative_count", poscar(counts="1 -1"), UNREADABLE, POSCAR),
    Bad("POSCAR_half_count", poscar(counts="1 1.5"), UNREADABLE, POSCAR),
    Bad("POSCAR_no_atoms", poscar(counts="0 0", coords=""), UNREADABLE, POSCAR),
    Bad("POSCAR_word_count", poscar(counts="one two"), UNREADABLE, POSCAR),
    Bad("POSCAR_billion", poscar(counts="1000000000 1"), UNREADABLE, POSCAR),
    Bad("POSCAR_two_vectors", poscar(cell="3.5 0 0\n0 3.5 0"), UNREADABLE, POSCAR),
    Bad("POSCAR_no_scale", poscar(scale="0"), EITHER, FLAT),
    Bad("POSCAR_nan_scale", poscar(scale="nan"), EITHER, NO_NUMBER),
    Bad("POSCAR_nan_site", poscar(coords="nan 0 0\n0.5 0.5 0.5"), EITHER, NO_NUMBER),
    Bad("POSCAR_word_site", poscar(coords="a b c\n0.5 0.5 0.5"), UNREADABLE, POSCAR),
    Bad("POSCAR_no_names", poscar().replace(b"Na Cl\n", b""), UNREADABLE, ("name",)),
    Bad("POSCAR_wrong_name", poscar(names="Na Qq"), UNREADABLE, ("qq", "name")),
    Bad("POSCAR_parallel", poscar(cell="3.5 0 0\n0 3.5 0\n3.5 3.5 0"), EITHER, FLAT),
    Bad("POSCAR_tiny", poscar(scale="0.01"), REJECTED, ("repeats", "overlapping", "volume")),
    Bad("POSCAR_short_cell", poscar("Fe", "1", "1", "1 0 0\n0 5 0\n0 0 5", "0 0 0"), REJECTED, ("too close",)),
    Bad("POSCAR_sharp", poscar(cell="150 0 0\n150 1 0\n0 0 5"), REJECTED, ("parallel", "repeats")),
    Bad("POSCAR_left_handed", poscar(cell="0 3.5 0\n3.5 0 0\n0 0 3.5"), FINE, n_fine=1),
    Bad("POSCAR_negative_cell", poscar(cell="-3.5 0 0\n0 -3.5 0\n0 0 -3.5"), FINE, n_fine=1),
    Bad("POSCAR_volume_as_scale", poscar(scale="-43"), FINE, n_fine=1),
]

BAD_XYZS = [
    Bad("more_counted.xyz", xyz("3"), UNREADABLE, COUNT),
    Bad("fewer_counted.xyz", xyz("1"), UNREADABLE, COUNT, n_fine=1),
    Bad("no_count.xyz", xyz("many"), UNREADABLE, COUNT),
    Bad("negative_count.xyz", xyz("-2"), UNREADABLE, (*COUNT, "negative")),
    Bad("backward_count.xyz", xyz("-7"), UNREADABLE, (*COUNT, "negative")),
    Bad("huge_count.xyz", xyz("1000000000000"), UNREADABLE, COUNT),
    Bad("zero_count.xyz", xyz("0", atoms=""), UNREADABLE, (*COUNT, "no atom", "xyz")),
    Bad("molecule.xyz", xyz(cell=""), UNREADABLE, ("periodic",)),
    Bad("slab.xyz", xyz(more='pbc="T T F"'), UNREADABLE, ("periodic",)),
    Bad("eight_numbers.xyz", xyz(cell="3.5 0 0 0 3.5 0 0 0"), UNREADABLE, ("lattice", "xyz")),
    Bad("nan_lattice.xyz", xyz(cell="nan 0 0 0 3.5 0 0 0 3.5"), EITHER, NO_NUMBER),
    Bad("flat_lattice.xyz", xyz(cell="3.5 0 0 0 3.5 0 3.5 3.5 0"), EITHER, (*FLAT, "three directions")),
    Bad("nan_place.xyz", xyz(atoms="Na nan 0 0\nCl 1 1 1"), EITHER, NO_NUMBER),
    Bad("huge_place.xyz", xyz(atoms="Na 1e200 0 0\nCl 1 1 1"), EITHER, ("away", "number", "far")),
    Bad("unknown.xyz", xyz(atoms="Qq 0 0 0\nCl 1 1 1"), UNREADABLE, ("qq",)),
    Bad("ghost.xyz", xyz(atoms="X 0 0 0\nCl 1 1 1"), EITHER, ("element",)),
    Bad("short_row.xyz", xyz(atoms="Na 0 0\nCl 1 1 1"), UNREADABLE, ("xyz",)),
    Bad("one_place.xyz", xyz(atoms="Na 1 1 1\nCl 1 1 1"), REJECTED, ("overlapping",)),
    Bad("second.xyz", xyz() + xyz(atoms="Na nan 0 0\nCl 1 1 1") + xyz(), EITHER, NO_NUMBER, n_fine=2),
    Bad("infinite_energy.xyz", xyz(more="energy=inf"), FINE, n_fine=1),
]

JSON = ("json",)

BAD_JSONS = [
    Bad("cut.json", as_json()[:-9], UNREADABLE, JSON),
    Bad("lists.json", b"[" * 100_000 + b"]" * 100_000, UNREADABLE, ("json", "nest", "deep")),
    Bad("objects.json", b'{"lattice":' * 50_000 + b"1" + b"}" * 50_000, UNREADABLE, ("json", "nest", "deep")),
    Bad("nothing.json", b"null", UNREADABLE, ("no pymatgen structure",)),
    Bad("number.json", b"5", UNREADABLE, ("no pymatgen structure",)),
    Bad("long_number.json", b"9" * 10_000, UNREADABLE, ("json", "digits")),
    Bad("class.json", b'{"@module": "os", "@class": "system", "args": ["true"]}', UNREADABLE, ("no pymatgen",)),
    Bad("molecule.json", Molecule(["O"], [[0, 0, 0]]).to_json().encode(), UNREADABLE, ("lattice",)),
    Bad("no_sites.json", as_json(sites=[]), UNREADABLE, ("no atom", "1 site")),
    Bad("sites_null.json", as_json(sites=None), UNREADABLE, JSON),
    Bad("sites_number.json", as_json(sites=7), UNREADABLE, JSON),
    Bad("lattice_list.json", as_json(lattice=[1, 2, 3]), UNREADABLE, JSON),
    Bad("lattice_words.json", with_lattice([["a", "b", "c"]] * 3), UNREADABLE, JSON),
    Bad("lattice_2x2.json", with_lattice([[1, 0], [0, 1]]), UNREADABLE, ("cell", "json")),
    Bad("lattice_nan.json", with_lattice([[float("nan")] * 3] * 3), EITHER, NO_NUMBER),
    Bad("lattice_zero.json", with_lattice([[0.0] * 3] * 3), EITHER, FLAT),
    Bad("species_word.json", with_site(species="sodium"), UNREADABLE, JSON),
    Bad("species_none.json", with_site(species=[]), EITHER, ("site 0", "json")),
    Bad("species_dummy.json", with_site(species=[{"element": "Xq", "occu": 1}]), UNREADABLE, ("xq",)),
    Bad(
        "species_deuterium.json",
        with_site(species=[{"element": "D", "occu": 1}]),
        REJECTED + FINE,
        ("unsupported element d",),
    ),
    Bad("part_two.json", with_site(species=[{"element": "Na", "occu": 2}]), UNREADABLE, ("json", "occup")),
    Bad("part_minus.json", with_site(species=[{"element": "Na", "occu": -1}]), UNREADABLE, JSON),
    Bad("site_2d.json", with_site(abc=[0, 0]), UNREADABLE, ("json", "shape")),
    Bad("site_inf.json", with_site(abc=[float("inf"), 0, 0]), EITHER, NO_NUMBER),
    Bad("one_of_three.json", b"[" + as_json() + b", 5, " + as_json() + b"]", UNREADABLE, ("no pymatgen",), n_fine=2),
    Bad("lonely.json", crystal(Lattice.cubic(30), ["Na"], [[0, 0, 0]]), REJECTED, ("volume too large",)),
    Bad("vast.json", crystal(Lattice.cubic(900), ["Na", "Cl"], [[0] * 3, [0.9] * 3]), REJECTED, ("volume too large",)),
    Bad("needle.json", crystal(Lattice.orthorhombic(0.1, 50, 50), ["Na"], [[0, 0, 0]]), REJECTED, ("repeats",)),
    Bad("pressed.json", crystal(Lattice.cubic(2.6), ["Na"] * 4, FACES), REJECTED, ("volume too small", "close")),
    Bad("heap.json", crystal(Lattice.cubic(9), ["Na"] * 1000, [[0.5] * 3] * 1000), REJECTED, ("overlapping",)),
]

PACKED = gzip.compress(cif(), mtime=0)

BAD_CONTAINERS = [
    Bad("plain.cif.gz", cif(), UNREADABLE, ("gzip",)),
    Bad("cut.cif.gz", PACKED[:-20], UNREADABLE, ("unreadable file",)),
    Bad("checksum.cif.gz", PACKED[:-8] + b"\0" * 8, UNREADABLE, ("crc",)),
    Bad("empty.cif.gz", gzip.compress(b""), UNREADABLE, ("empty",)),
    Bad("no_bytes.cif.gz", b"", UNREADABLE, ("empty",)),
    Bad("packed_twice.cif.gz", gzip.compress(PACKED), UNREADABLE, NO_BLOCK),
    Bad("not_gz.json.bz2", gzip.compress(as_json()), UNREADABLE, ("unreadable file",)),
    Bad("cut.json.bz2", bz2.compress(as_json())[:-10], UNREADABLE, ("unreadable file",)),
    Bad("not_xz.cif.xz", cif(), UNREADABLE, ("unreadable file",)),
    Bad("bomb.cif.gz", bomb, UNREADABLE, ("unpacks to more than",)),
    Bad("empty_lines.cif.gz", gzip.compress(b"\n" * (2 << 20), 1), UNREADABLE, ("empty lines",)),
    Bad("empty_lines.jsonl.gz", gzip.compress(b"\n" * (2 << 20), 1), UNREADABLE, ("empty lines",)),
    Bad("spaces.json.gz", gzip.compress(b" " * (64 << 20), 1), UNREADABLE, ("empty",)),
    Bad("line.jsonl.gz", gzip.compress(b"[" * (20 << 20), 1), UNREADABLE, ("a line of more than",)),
    Bad("escaping.zip", zipped(**{"../../outside.cif": cif("Qq1 Qq 0 0 0 1"), "a.cif": cif()}), UNREADABLE, ("qq",), 1),
    Bad("nothing.zip", zipped(), UNREADABLE + REFUSED, ("no structure files",)),
    Bad("broken.zip", zipped(**{"a.cif": cif()})[:40], UNREADABLE + REFUSED, ("zip",)),
    Bad("nested.zip", zipped(**{"in.zip": zipped(**{"a.cif": cif()})}), UNREADABLE, ("no structure files",)),
    Bad("checksum.zip", zipped(**{"a.cif": cif()}).replace(b"Na1", b"Ca1"), UNREADABLE, ("crc",)),
    Bad("cut_line.jsonl", as_json() + b"\n" + as_json()[:-9] + b"\n" + as_json(), UNREADABLE, JSON, n_fine=2),
    Bad("deep_line.jsonl", as_json() + b"\n" + b"[" * 100_000 + b"\n" + as_json(), UNREADABLE, ("nested",), n_fine=2),
    Bad("other_tables.db", other_database, UNREADABLE, ("no such table",)),
    Bad("cut.db", cut_database, UNREADABLE, ("malformed", "not a database")),
    Bad("broken.db", b"SQLite format 3\0 and then nothing", UNREADABLE, ("database",)),
    Bad("notes.docx", b"words", UNREADABLE, ("unknown type",)),
    Bad("pickle.pkl", b"\x80\x04cos\nsystem\n(S'true'\ntR.", UNREADABLE, ("unknown type",)),
    Bad("folder.cif", lambda path: path.mkdir(), REFUSED, ("no structure files",)),
    Bad("texts", folder_with({"notes.txt": b"x", ".hidden.cif": cif()}), REFUSED, ("no structure files",)),
    Bad("mixed", folder_with({"a.cif": cif(), "b.cif": b"", "c.cif/d.cif": cif()}), UNREADABLE, ("empty",), n_fine=2),
    Bad("absent.cif", lambda _: None, REFUSED, ("no such file",)),
    Bad("dangling.cif", lambda path: path.symlink_to(path.with_name("gone")), REFUSED, ("no such file",)),
    Bad("loop.cif", lambda path: path.symlink_to(path), REFUSED, ("no such file", "loop")),
    Bad("loops", folder_with_loops, FINE, n_fine=1),
    Bad("pipe.cif", os.mkfifo, REFUSED, ("no such file",)),
    Bad("device.cif", lambda path: path.symlink_to("/dev/zero"), REFUSED, ("no such file",)),
    Bad("secret.cif", secret, UNREADABLE + REFUSED, ("permission",)),
    Bad("two\nlines.cif", b"", UNREADABLE, ("empty",)),
    Bad(os.fsdecode(b"name_\xff.cif"), cif(), FINE, n_fine=1),
    Bad(os.fsdecode(b"empty_\xff.cif"), b"", UNREADABLE, ("empty",)),
]

BAD_INPUTS = [*BAD_CIFS, *BAD_POSCARS, *BAD_XYZS, *BAD_JSONS, *BAD_CONTAINERS]
