"""The discovery board on a set in the layout of Matbench Discovery's files; each metric is computed by hand."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zipfile
from typing import TYPE_CHECKING

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from pymatgen.core import Lattice, Structure
from pymatgen.entries.computed_entries import ComputedStructureEntry
from typer.testing import CliRunner

import matris
from matris.boards.contestants import Contestant
from matris.boards.discovery import DISCOVERY_BOARD, against_dft, corrected_energy
from matris.boards.run import run_board
from matris.boards.stability import discovery_metrics, relaxation_metrics
from matris.boards.wbm import Wbm
from matris.cli import app
from matris.errors import BoardError
from matris.stores.documents.corrections import mp_parameters
from matris.structures import to_structure

if TYPE_CHECKING:
    from pathlib import Path

# formation energies by EMT are those of DFT plus `error`; e_hull is DFT's distance from the hull
ROWS = {  # material: (symbol, error, e_hull, is_unique)
    "wbm-1-1": ("Cu", 0.0, -0.010, True),  # stable, found
    "wbm-1-2": ("Ag", 0.005, 0.0, True),  # stable (0 counts), missed: +0.005
    "wbm-1-3": ("Au", -0.030, 0.020, True),  # unstable, taken for stable: -0.010
    "wbm-1-4": ("Pt", 0.010, 0.100, True),  # unstable, found: +0.110
    "wbm-1-5": ("Pd", 0.0, 0.0004, False),  # rounded to 0.000: stable, found
    "wbm-1-6": ("Fe", 0.0, -0.050, True),  # stable, missing: EMT does not know it
}


@pytest.fixture(scope="module")
def minima() -> dict[str, tuple[Structure, float]]:
    """Structures and energies of fcc metals at EMT's minimum."""
    metals = [bulk(symbol) for symbol, *_ in ROWS.values() if symbol != "Fe"]
    records = sorted(matris.relax(metals, matris.AseModel(EMT()), fmax=1e-4), key=lambda record: record.index)
    return {str(r.structure[0].specie): (r.structure, r.energy) for r in records}


@pytest.fixture
def wbm(tmp_path: Path, minima: dict[str, tuple[Structure, float]]) -> Path:
    folder = tmp_path / "wbm"
    folder.mkdir()
    summary, entries = io.StringIO(), []
    names = ["material_id", "formula", "n_sites", "e_form_per_atom_mp2020_corrected"]
    writer = csv.writer(summary)
    writer.writerow([*names, "e_above_hull_mp2020_corrected_ppd_mp", "unique_prototype"])
    with zipfile.ZipFile(folder / "2024-08-04-wbm-initial-atoms.extxyz.zip", "w") as archive:
        for key, (symbol, error, e_hull, is_unique) in ROWS.items():
            structure, energy = minima.get(symbol, (Structure(Lattice.cubic(2.8), ["Fe"], [[0, 0, 0]]), -1.0))
            writer.writerow([key, symbol, 1, energy - error, e_hull, is_unique])
            entry = ComputedStructureEntry(
                structure, -9.9, parameters=mp_parameters(structure.composition), entry_id=key, correction=-1.0
            )
            entries.append({"material_id": key, "computed_structure_entry": entry.as_dict()})
            atoms = structure.to_ase_atoms()
            atoms.set_cell(1.02 * atoms.cell.array, scale_atoms=True)
            atoms = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=True, info={"material_id": key})
            text = io.StringIO()
            atoms.write(text, format="extxyz")
            archive.writestr(f"{key}.extxyz", text.getvalue())
    (folder / "2023-12-13-wbm-summary.csv.gz").write_bytes(gzip.compress(summary.getvalue().encode()))
    lines = "".join(json.dumps(entry) + "\n" for entry in entries)
    name = "2022-10-19-wbm-computed-structure-entries.jsonl.gz"
    (folder / name).write_bytes(gzip.compress(lines.encode()))
    elements = {s: {"energy": 0.0, "composition": {s: 2.0}} for s, *_ in ROWS.values()}
    (folder / "2023-02-07-mp-elemental-reference-entries.json.gz").write_bytes(
        gzip.compress(json.dumps(elements).encode())
    )
    return folder


def emt() -> Contestant:
    return Contestant("emt", matris.AseModel(EMT(), "emt"), "mp")


def test_every_metric_by_hand(wbm: Path, tmp_path: Path):
    result = run_board(DISCOVERY_BOARD, emt(), tmp_path / "out", data=wbm)
    metrics = result.document["metrics"]
    expected = {
        # TP: 1, 5; FN: 2, 6; FP: 3; TN: 4
        "full TP": 2, "full FN": 2, "full FP": 1, "full TN": 1, "full missing": 1,
        "full Precision": 2 / 3, "full Recall": 1 / 2, "full F1": 2 * (2 / 3) * (1 / 2) / (2 / 3 + 1 / 2),
        "full DAF": (2 / 3) / (4 / 6), "full Accuracy": 3 / 6, "full FPR": 1 / 2, "full TNR": 1 / 2, "full FNR": 1 / 2,
        "full MAE": (0 + 0.005 + 0.030 + 0.010 + 0) / 5,
        "full RMSE": ((0.005**2 + 0.030**2 + 0.010**2) / 5) ** 0.5,
        # TP: 1; FN: 2, 6; FP: 3; TN: 4; three of five are stable
        "unique TP": 1, "unique FN": 2, "unique FP": 1, "unique TN": 1, "unique missing": 1,
        "unique Precision": 1 / 2, "unique Recall": 1 / 3, "unique F1": 2 * (1 / 2) * (1 / 3) / (1 / 2 + 1 / 3),
        "unique DAF": (1 / 2) / (3 / 5), "unique MAE": (0.005 + 0.030 + 0.010) / 4,
        "RMSD": 0.0, "symmetry match 1e-2": 1.0, "symmetry match 1e-5": 1.0,
        "symmetry decrease 1e-5": 0.0, "symmetry increase 1e-5": 0.0, "operations MAE 1e-2": 0.0,
    }  # fmt: skip
    true = np.array([-0.010, 0, 0.020, 0.100, 0])
    expected["full R2"] = 1 - (0.005**2 + 0.030**2 + 0.010**2) / np.sum((true - true.mean()) ** 2)
    for name, value in expected.items():
        assert metrics[name] == pytest.approx(value, abs=1e-4), name
    assert set(result.document["failures"]) == {"wbm-1-6"}


def test_the_most_stable_are_those_of_the_lowest_prediction():
    e_form = np.array([-1.0, -0.9, -0.8, -0.7, np.nan])
    true = np.array([0.02, -0.01, 0.03, 0.04, -0.2])
    errors = np.array([-0.05, 0.0, 0.0, -0.01, 0.0])  # predictions: -0.03, -0.01, 0.03, 0.03
    metrics = discovery_metrics(e_form, e_form - errors, true, np.ones(5, dtype=bool), most_stable=3)
    assert (metrics["10k TP"], metrics["10k FP"], metrics["10k TN"], metrics["10k FN"]) == (1, 1, 1, 0)
    assert metrics["10k DAF"] == pytest.approx((1 / 2) / (2 / 5))
    assert metrics["10k MAE"] == pytest.approx(0.05 / 3)
    assert metrics["10k missing"] == 0


def test_a_prediction_far_from_dft_counts_as_missing():
    metrics = discovery_metrics(np.array([-6.0, 0.0]), np.array([-0.9, 0.0]), np.array([0.1, 0.2]), np.ones(2, bool))
    assert metrics["full missing"] == 1
    assert metrics["full MAE"] == 0
    assert metrics["full Precision"] is None  # nothing is predicted stable
    assert metrics["full F1"] is None


def test_distance_and_symmetry_against_dft():
    dft = Structure(Lattice.cubic(4.0), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    moved = dft.copy()
    moved.translate_sites([1], [0.1 / 4, 0, 0])  # 0.1 Å: each atom is 0.05 Å from the best fit
    same, shifted = against_dft(dft, dft), against_dft(moved, dft)
    assert same["rmsd"] == pytest.approx(0, abs=1e-6)
    assert shifted["rmsd"] == pytest.approx(0.05 / (64 / 2) ** (1 / 3), rel=1e-3)
    assert same["symmetry"]["1e-2"] == [221, 48, 221, 48]
    assert shifted["symmetry"]["1e-5"] == [99, 8, 221, 48]
    assert against_dft(Structure(Lattice.cubic(4.0), ["Cs"], [[0, 0, 0]]), dft)["rmsd"] is None
    metrics = relaxation_metrics([(v["rmsd"], v["symmetry"]) for v in (same, shifted)] + [(None, {})])
    assert metrics["RMSD"] == pytest.approx((0 + shifted["rmsd"] + 1) / 3)
    assert metrics["symmetry match 1e-2"] == 0.5
    assert metrics["symmetry decrease 1e-2"] == 0.5
    assert metrics["operations MAE 1e-5"] == 20


def test_corrections_are_those_of_mp2020(wbm: Path):
    item = next(iter(Wbm(wbm).items().values()))
    oxide = Structure.from_spacegroup("Fm-3m", Lattice.cubic(4.2), ["Mg", "O"], [[0, 0, 0], [0.5] * 3])
    entry = ComputedStructureEntry(oxide, -1.0, parameters=mp_parameters(oxide.composition))
    object.__setattr__(item, "entry", lambda: entry)
    assert corrected_energy(item, oxide, -40.0, "mp") == pytest.approx(-40 - 4 * 0.687)  # eV per O
    assert corrected_energy(item, oxide, -40.0, "mp2020-corrected") == -40
    assert Contestant("x", None, "omat24").energy_scale == "omat24"


def test_a_hull_of_another_scale_is_refused(wbm: Path, tmp_path: Path):
    other = Contestant("emt", matris.AseModel(EMT(), "emt"), "omat24")
    with pytest.raises(BoardError, match="energy scale omat24; the Materials Project's hull needs mp"):
        run_board(DISCOVERY_BOARD, other, tmp_path / "out", data=wbm)


def unzipped(path: Path) -> list[str]:
    return gzip.decompress(path.read_bytes()).decode().splitlines()


def test_files_of_a_submission(wbm: Path, tmp_path: Path, minima: dict[str, tuple[Structure, float]]):
    run_board(DISCOVERY_BOARD, emt(), tmp_path / "out", data=wbm)
    table = list(csv.DictReader(unzipped(tmp_path / "out" / "discovery.csv.gz")))
    assert [row["material_id"] for row in table] == list(ROWS)
    assert float(table[0]["e_form_per_atom"]) == pytest.approx(minima["Cu"][1], abs=2e-4)
    assert table[-1]["e_form_per_atom"] == ""
    relaxed = [json.loads(line) for line in unzipped(tmp_path / "out" / "geo-opt.jsonl.gz")]
    assert [set(row) for row in relaxed] == 5 * [{"material_id", "structure", "energy", "converged", "n_steps"}]
    assert Structure.from_dict(relaxed[0]["structure"]).volume == pytest.approx(minima["Cu"][0].volume, rel=5e-3)
    events = [json.loads(line) for line in (tmp_path / "out" / "shard-000-of-001.jsonl").read_text().splitlines()]
    assert [event["type"] for event in events] == ["header", *6 * ["record"], "run_metadata"]
    header = events[0]
    assert header["assigned_material_ids"] == list(ROWS)
    assert (header["dataset_size"], header["n_shards"], header["schema_version"]) == (6, 1, 1)
    assert header["settings"]["max_force"] == 0.05
    assert events[6]["error"] is not None
    assert events[6]["structure"] is None


def test_parts_make_a_whole(wbm: Path, tmp_path: Path):
    for part in range(2):
        run_board(DISCOVERY_BOARD, emt(), tmp_path / str(part), data=wbm, shard=(part, 2))
        header = json.loads((tmp_path / str(part) / f"shard-{part:03d}-of-002.jsonl").read_text().splitlines()[0])
        assert len(header["assigned_material_ids"]) == 3
    dead = Contestant("emt", matris.AseModel(EMT(), "emt"), "mp")
    dead.model.forward = None  # computes nothing any more
    merged = run_board(DISCOVERY_BOARD, dead, tmp_path / "all", data=wbm, merge=[tmp_path / "0", tmp_path / "1"])
    assert merged.document["is_whole"]
    assert merged.document["metrics"]["full TP"] == 2
    with pytest.raises(BoardError, match="holds no results of discovery"):
        run_board(DISCOVERY_BOARD, dead, tmp_path / "all", data=wbm, merge=[wbm])


def test_files_of_another_set(wbm: Path, tmp_path: Path):
    (entries,) = wbm.glob("*entries.jsonl.gz")
    lines = gzip.decompress(entries.read_bytes()).decode().splitlines(keepends=True)
    entries.write_bytes(gzip.compress("".join(lines[1:]).encode()))
    with pytest.raises(BoardError, match="has no wbm-1-1, which the summary lists"):
        run_board(DISCOVERY_BOARD, emt(), tmp_path / "out", data=wbm)
    entries.unlink()
    with pytest.raises(BoardError, match=r"holds 0 files .*entries.*: one is needed"):
        run_board(DISCOVERY_BOARD, emt(), tmp_path / "out", data=wbm)
    done = CliRunner().invoke(app, ["board", "discovery", "--data", str(wbm), "--shard", "3/2"])
    assert done.exit_code == 2
    assert "write I/N" in done.output


def test_structures_survive_the_archive(wbm: Path, minima: dict[str, tuple[Structure, float]]):
    initial = Wbm(wbm).items()["wbm-1-1"].initial()
    assert to_structure(initial).volume == pytest.approx(1.02**3 * minima["Cu"][0].volume)
