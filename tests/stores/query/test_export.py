"""Exported files, read back by other programs."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING

import ase.io
import numpy as np
import pytest
from maggma.stores import MemoryStore
from pymatgen.core import Structure

from matris.errors import MatrisError
from matris.stores.candidate_store import CandidateStore
from matris.stores.query.export import FORMATS, export, format_of
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
    assert names == ["Fe2O3-hematite-_oam.cif", "Fe2O3-hematite-omat.cif"]
    for name in names:
        assert Structure.from_file(tmp_path / "cif" / name).composition.chemical_system == "Fe-O"


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
    names = ("a.csv", "a.JSONL", "a.xyz", "a.extxyz", "folder")
    assert [format_of(tmp_path / name) for name in names] == ["csv", "jsonl", "extxyz", "extxyz", "cif"]
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
