"""Exported files, read back by other programs."""

from __future__ import annotations

import csv
import io
import json
import math
from typing import TYPE_CHECKING

import ase.io
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from maggma.stores import MemoryStore
from monty.serialization import loadfn
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure
from pymatgen.entries.compatibility import MaterialsProject2020Compatibility
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

from matris.errors import MatrisError
from matris.files.structure_files import structure_text, write_structures
from matris.stores.candidate_store import CandidateStore
from matris.stores.documents.corrections import corrected_entry
from matris.stores.documents.documents import hull_fields
from matris.stores.hull.references import load_references
from matris.stores.query.export import FORMATS, export, format_of
from matris.stores.query.tables import write_csv, write_jsonl
from tests.stores.query.question_documents import crystal, documents, fill

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def store() -> CandidateStore:
    stores = [
        MemoryStore(name, key=key)
        for name, key in zip("abcd", ("document_id", "document_id", "property_id", "chunk_id"), strict=True)
    ]
    for each in stores:
        each.connect()
    candidates = CandidateStore(*stores)
    fill(candidates)
    ferrite = next(d for d in documents() if d["candidate_id"] == "ferrite")
    candidates.docs.update([{**ferrite, "energy": -20.5, "formation_energy_per_atom": -1.9}])
    n = len(crystal("LiFeO2"))
    arrays = {
        "document_id": ferrite["document_id"],
        "structure": crystal("LiFeO2").as_dict(),
        "forces": [[0.1 * i, 0.0, -0.2] for i in range(n)],
        "stress": [[1.0, 6.0, 5.0], [6.0, 2.0, 4.0], [5.0, 4.0, 3.0]],
        "magmoms": [0.5] * n,
    }
    candidates.data.update([arrays])
    return candidates


def test_extxyz(store: CandidateStore, tmp_path: Path) -> None:
    path = tmp_path / "new" / "all.xyz"
    asked = store.query(checkpoint="matris_10m_oam").sort("energy_above_hull")
    assert export(asked, path) == 7
    frames = ase.io.read(path, index=":", format="extxyz")
    assert len(frames) == 7
    (ferrite,) = (atoms for atoms in frames if atoms.info["candidate_id"] == "ferrite")
    assert ferrite.get_potential_energy() == -20.5
    assert ferrite.get_forces() == pytest.approx(np.array([[0.1 * i, 0.0, -0.2] for i in range(len(ferrite))]))
    assert ferrite.get_stress() == pytest.approx([1, 2, 3, 4, 5, 6])
    assert ferrite.get_magnetic_moments() == pytest.approx([0.5] * len(ferrite))
    assert ferrite.info["energy_above_hull"] == 0.045
    assert ferrite.info["formation_energy_per_atom"] == -1.9
    assert all(atoms.pbc.all() and atoms.cell.volume == pytest.approx(64) for atoms in frames)
    assert "formation_energy_per_atom" not in frames[0].info  # this candidate has none
    assert sorted(atoms.info["energy_above_hull"] for atoms in frames) == [
        atoms.info["energy_above_hull"] for atoms in frames
    ]


def test_cif(store: CandidateStore, tmp_path: Path) -> None:
    assert export(store.query(formula="Fe2O3", below=0.1), tmp_path / "cif") == 2
    names = sorted(path.name for path in (tmp_path / "cif").iterdir())
    assert names == ["Fe2O3-hematite-_oam-matris_10m_oam-d.cif", "Fe2O3-hematite-omat-matris_10m_omat-d.cif"]
    for name in names:
        assert Structure.from_file(tmp_path / "cif" / name).composition.chemical_system == "Fe-O"


def test_poscar_and_cif_with_symmetry(store: CandidateStore, tmp_path: Path) -> None:
    asked = store.query(formula="Fe2O3", below=0.1, checkpoint="matris_10m_oam")
    assert export(asked, tmp_path / "poscar", "poscar") == 1
    assert export(asked, tmp_path / "sym", "symmetrized-cif") == 1
    (poscar,), (cif,) = ((tmp_path / name).iterdir() for name in ("poscar", "sym"))
    assert (poscar.suffix, cif.suffix) == (".vasp", ".cif")
    ((_, structure),) = asked.structures()
    read = Structure.from_file(poscar)
    assert read.lattice.matrix == pytest.approx(structure.lattice.matrix)
    assert [site.specie.symbol for site in read] == [site.specie.symbol for site in structure]
    assert read.frac_coords == pytest.approx(structure.frac_coords)
    assert StructureMatcher(primitive_cell=True).fit(Structure.from_file(cif), structure)
    number = SpacegroupAnalyzer(structure, symprec=0.1).get_space_group_number()
    assert f"_symmetry_Int_Tables_number   {number}\n" in cif.read_text()


def test_symmetry_of_a_cif(tmp_path: Path) -> None:
    """Rocksalt in a primitive cell, slightly distorted, becomes the cubic cell with all operations."""
    salt = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    distorted = salt.get_primitive_structure().perturb(0.01, seed=1)
    (tmp_path / "a.cif").write_text(structure_text(distorted, "symmetrized-cif"))
    read = Structure.from_file(tmp_path / "a.cif")
    assert (len(read), read.get_space_group_info()) == (8, ("Fm-3m", 225))
    assert read.volume == pytest.approx(salt.volume)
    assert "'P 1'" in structure_text(distorted)


def test_unconverged_structures_are_named_so(store: CandidateStore, tmp_path: Path) -> None:
    ((document, structure),) = store.query(formula="LiFeO2").limit(1).structures()
    late = [(document | {"state": "max_steps"}, structure), (document | {"document_id": "x"}, structure)]
    assert write_structures(late, tmp_path, "poscar") == 2
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [f"LiFeO2-{document['document_id']}-unconverged.vasp", "LiFeO2-x.vasp"]


def test_entries(store: CandidateStore, tmp_path: Path) -> None:
    """Entries have the corrected energies of the documents, and the same after they are read as references."""
    ((document, structure),) = store.query(formula="Fe2O3", below=0.1, checkpoint="matris_10m_oam").structures()
    entry = corrected_entry(structure, -30.0, "mp")
    fields = {
        "energy": -30.0,
        "uncorrected_energy_per_atom": -30.0 / len(structure),
        "checkpoint": document["checkpoint"] | {"energy_scale": "mp"},
        "composition": structure.composition.get_el_amt_dict(),
        **{name: value for name, value in hull_fields(structure, -30.0, "mp").items() if name != "chemsys"},
    }
    store.docs.update([document | fields], key="document_id")
    (found,) = store.query(formula="Fe2O3", below=0.1, checkpoint="matris_10m_oam").entries()
    assert found.energy == pytest.approx(entry.energy)
    assert found.correction == pytest.approx(entry.correction)
    assert found.correction < -1
    assert found.uncorrected_energy == -30
    assert found.structure == structure
    assert found.data["candidate_id"] == "hematite"
    file = tmp_path / "entries.json"
    asked = store.query(formula="Fe2O3", below=0.1, checkpoint="matris_10m_oam")
    assert export(asked, file) == 1
    (read,) = loadfn(file)
    assert read.energy == pytest.approx(entry.energy)
    (reference,) = load_references(file, "mp").entries
    assert reference.energy == pytest.approx(entry.energy)
    with pytest.raises(MatrisError, match="energy scale"):
        load_references(file, "omat24")
    (processed,) = MaterialsProject2020Compatibility(check_potcar=False).process_entries([read])
    assert processed.energy == pytest.approx(entry.energy)
    assert list(store.query(formula="CoO").entries()) == []  # failed ones
    store.docs.update([document], key="document_id")


def test_tables(store: CandidateStore, tmp_path: Path) -> None:
    asked = store.query(state="failed").sort("document_id")
    assert export(asked, tmp_path / "a.csv") == 1
    assert export(asked, tmp_path / "a.txt", "jsonl") == 1
    (row,) = csv.DictReader((tmp_path / "a.csv").open())
    (line,) = map(json.loads, (tmp_path / "a.txt").read_text().splitlines())
    assert row["error"] == line["error"] == "out of memory: 3 GB wanted"


@pytest.mark.parametrize("form", FORMATS)
def test_an_empty_query_is_no_error(store: CandidateStore, tmp_path: Path, form: str) -> None:
    assert export(store.query(elements=["Xe"]), tmp_path / "out", form) == 0
    assert (tmp_path / "out").exists()


def test_the_name_of_a_file_gives_the_format(tmp_path: Path) -> None:
    names = ("a.csv", "a.JSONL", "a.xyz", "a.extxyz", "a.json", "folder")
    assert [format_of(tmp_path / name) for name in names] == ["csv", "jsonl", "extxyz", "extxyz", "entries", "cif"]
    (tmp_path / "v1.2").mkdir()
    assert format_of(tmp_path / "v1.2") == "cif"
    with pytest.raises(MatrisError, match="cannot tell the format"):
        format_of(tmp_path / "a.pdf")


def test_errors(store: CandidateStore, tmp_path: Path) -> None:
    asked = store.query()
    with pytest.raises(MatrisError, match="unknown format 'pdf'"):
        export(asked, tmp_path / "a.csv", "pdf")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(MatrisError, match="is a file"):
        export(asked, tmp_path / "file", "cif")
    assert (tmp_path / "file").read_text() == "mine"


def test_an_interrupted_export_leaves_the_old_file(
    store: CandidateStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "all.xyz"
    path.write_text("before")
    n = iter(range(10))

    def full(*_: object) -> None:
        if next(n) == 3:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("ase.io.extxyz.write_xyz", full)
    with pytest.raises(OSError, match="No space"):
        export(store.query(), path)
    assert path.read_text() == "before"
    assert [each.name for each in tmp_path.iterdir()] == ["all.xyz"]


TEXTS = st.one_of(
    st.text(),
    st.sampled_from(
        ["1234567890123456e789", "NaN", "InF", "T", "F", "true", "1 2 3", "T F", "_JSON [1]", "-1", "", " "]
    ),
    st.from_regex(r"[0-9a-f]{6}|[0-9]{1,6}e[0-9]{1,4}|0x[0-9a-f]{2}|[=+@'\\-].{0,3}", fullmatch=True),
).filter(lambda text: not any("\ud800" <= char <= "\udfff" for char in text))  # UTF-8 and BSON have none of them

ODD = [
    "a\nb",
    "a\r\nb",
    "quote \" and ' and \\",
    "Größe, Å",
    "key=value",
    "{1 2}",
    "a\u2028b",
    "'",
    "\\n",
    "\x00",
    "\t=1",
]


def with_names(store, **fields):
    """Change one document that has a structure, and return a query of it."""
    (document,) = store.query(checkpoint="matris_10m_oam").where("candidate_id = ferrite")
    store.docs.update([{**document, **fields}])
    return store.query(checkpoint="matris_10m_oam").where("document_id = " + json.dumps(document["document_id"]))


@settings(max_examples=150, deadline=None)
@given(source=TEXTS, formula=TEXTS)
@example(source="1234567890123456e789", formula="T")
@example(source="InF", formula="NaN")
@example(source="\n", formula="a b\\")
def test_any_text_in_extended_xyz(store, tmp_path_factory, source, formula):
    path = tmp_path_factory.getbasetemp() / "texts.xyz"
    assert export(with_names(store, source=source, formula_pretty=formula), path) == 1
    (atoms,) = ase.io.read(path, index=":", format="extxyz")
    assert (type(atoms.info["source"]), atoms.info["source"]) == (str, source)
    assert (type(atoms.info["formula_pretty"]), atoms.info["formula_pretty"]) == (str, formula)
    assert (atoms.info["checkpoint"], atoms.info["settings"]) == ("matris_10m_oam", "d")
    assert len(path.read_text(encoding="utf-8").splitlines()) == len(atoms) + 2


@pytest.mark.parametrize("text", ODD)
def test_odd_names(store, tmp_path, text):
    for form in ("extxyz", "csv", "jsonl"):
        export(with_names(store, source=text, formula_pretty="LiFeO2"), tmp_path / form, form)
    assert ase.io.read(tmp_path / "extxyz", format="extxyz").info["source"] == text
    with (tmp_path / "csv").open(encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    assert unguarded(row["source"]) == text
    (line,) = (tmp_path / "jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["source"] == text


def unguarded(cell):
    """Read a cell as docs/queries.md says."""
    return cell.removeprefix("'")


@example(["\r", ""])  # Python 3.12 quotes a carriage return only if it ends lines
@given(st.lists(st.one_of(TEXTS, st.none(), st.booleans(), st.integers(), st.floats()), min_size=1, max_size=4))
def test_any_value_in_tables(values):
    document = {f"c{number}": value for number, value in enumerate(values)}
    table, lines = io.StringIO(), io.StringIO()
    write_csv([document], table, list(document))
    write_jsonl([document], lines)
    _, cells = csv.reader(io.StringIO(table.getvalue(), newline=""))
    (line,) = lines.getvalue().splitlines()
    for cell, read, value in zip(cells, json.loads(line).values(), values, strict=True):
        if isinstance(value, str):
            assert (unguarded(cell), read) == (value, value)
            assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))
        elif value is None or (isinstance(value, float) and not math.isfinite(value)):
            assert (cell, read) == ("", None)
        else:
            assert (type(value)(cell) if not isinstance(value, bool) else cell == "True") == read == value


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_are_missing(store, tmp_path, number):
    query = with_names(store, source="a", energy=number, energy_above_hull=number, formation_energy_per_atom=number)
    for form in ("extxyz", "csv", "jsonl"):
        assert export(query, tmp_path / form, form) == 1
    atoms = ase.io.read(tmp_path / "extxyz", format="extxyz")
    assert not {"energy_above_hull", "formation_energy_per_atom"} & set(atoms.info)
    assert "energy" not in atoms.calc.results
    assert "forces" in atoms.calc.results
    with (tmp_path / "csv").open(encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    names = ("energy_above_hull [eV/atom]", "formation_energy_per_atom [eV/atom]")
    assert [row[name] for name in names] == ["", ""]
    assert json.loads((tmp_path / "jsonl").read_text())["energy_above_hull"] is None


def test_several_checkpoints_are_told_apart(store, tmp_path):
    query = store.query().where("candidate_id = hematite")
    assert query.origins() == [("matris_10m_oam", "d"), ("matris_10m_omat", "d")]
    assert query.where("checkpoint = matris_10m_omat").origins() == [("matris_10m_omat", "d")]
    export(query, tmp_path / "a.xyz")
    labels = [(a.info["checkpoint"], a.info["settings"]) for a in ase.io.read(tmp_path / "a.xyz", index=":")]
    assert sorted(labels) == query.origins()
    export(query, tmp_path / "a.csv")
    with (tmp_path / "a.csv").open() as file:
        rows = [(row["checkpoint.key"], row["settings.digest"]) for row in csv.DictReader(file)]
    assert sorted(rows) == query.origins()
    export(query.where("checkpoint = matris_10m_oam"), tmp_path / "one")
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["Fe2O3-hematite-_oam.cif"]
