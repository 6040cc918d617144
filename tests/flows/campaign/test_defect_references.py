"""The phases that limit the chemical potentials of defects, and what the store holds afterwards."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from pymatgen.core import Lattice, Structure
from pymatgen.entries.computed_entries import ComputedEntry
from typer.testing import CliRunner

from matris.cli import app
from matris.errors import MatrisError
from matris.flows.campaign.defect_references import with_references
from matris.flows.campaign.one_job import run_one_job
from matris.makers import BatchDefectsMaker, BatchRelaxMaker
from matris.makers.decoding import decode_maker
from matris.stores import CandidateStore
from matris.stores.database.jobstore import open_job_store
from matris.stores.documents.candidate import Candidate

if TYPE_CHECKING:
    from pathlib import Path


def cell(a: float, *symbols: str) -> Structure:
    return Structure(Lattice.cubic(a), symbols, [[0, 0, 0], [0.5, 0.5, 0.5]][: len(symbols)])


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    cell(2.7, "Mg", "O").to(filename=str(tmp_path / "oxide.cif"))
    cell(3.2, "Mg").to(filename=str(tmp_path / "magnesium.cif"))
    return [tmp_path / "oxide.cif", tmp_path / "magnesium.cif"]


def phases(maker: BatchDefectsMaker) -> list[dict[str, Any]]:
    """Read the competing phases; the Maker can be sent to a worker process."""
    assert decode_maker(json.loads(json.dumps(maker.as_dict()))).competing == maker.competing
    return [json.loads(text) for text in maker.competing]


@pytest.fixture
def maker(tiny_checkpoint: Path) -> BatchDefectsMaker:
    return BatchDefectsMaker(checkpoint=str(tiny_checkpoint), device="cpu")


def test_elements_without_a_hull(maker: BatchDefectsMaker, files: list[Path], tmp_path: Path) -> None:
    found = with_references(maker, files, tmp_path / "store")
    assert found.references == "elements by the same checkpoint (Mg, O)"
    assert [Structure.from_dict(phase).composition.reduced_formula for phase in phases(found)] == ["Mg", "O2"]


def test_phases_of_the_store(maker: BatchDefectsMaker, files: list[Path], tmp_path: Path) -> None:
    """Relaxed at the same pressure, with the same settings, in the systems of the materials; elements if lacking."""
    store = open_job_store(tmp_path / "store")
    common = {"checkpoint": maker.checkpoint, "device": "cpu", "max_steps": 0}
    relaxed = [cell(3.2, "Mg"), cell(3.0, "Mg", "O"), cell(3.2, "Na")]
    for settings, structures in (({}, relaxed), ({"relax_cell": False}, [*relaxed, cell(3.3, "Mg"), cell(3.4, "O")])):
        candidates = [Candidate.from_structure(structure, "file") for structure in structures]
        run_one_job(BatchRelaxMaker(fmax=99.0, **common, **settings), candidates, tmp_path / "store", store)
    found = with_references(maker, files, tmp_path / "store")
    assert [content.get("energy") is None for content in phases(found)] == [False, False, True]
    assert {ComputedEntry.from_dict(content).reduced_formula for content in phases(found)[:2]} == {"Mg", "MgO"}
    assert "2 entries); elements by the same checkpoint (O)" in found.references
    document = CandidateStore.open(tmp_path / "store").query(formula="MgO").first()
    entry = next(each for each in map(ComputedEntry.from_dict, phases(found)[:2]) if len(each.composition) == 2)
    assert entry.energy_per_atom == pytest.approx(document["energy_per_atom"])  # with corrections
    assert with_references(
        BatchDefectsMaker(**{**vars(maker), "pressure": 5.0}), files, tmp_path / "store"
    ).references == ("elements by the same checkpoint (Mg, O)")


def test_a_file_of_entries(maker: BatchDefectsMaker, files: list[Path], tmp_path: Path) -> None:
    path = tmp_path / "entries.json"
    entries = [ComputedEntry(name, -5.0, parameters={"energy_scale": "mp"}) for name in ("Mg", "O2", "Na")]
    path.write_text(json.dumps([entry.as_dict() for entry in entries]))
    found = with_references(maker, files, tmp_path / "store", path)
    assert [content["composition"] for content in phases(found)] == [{"Mg": 1.0}, {"O": 2.0}]
    assert found.references.startswith("entries.json (mp, ")
    path.write_text("[]")
    with pytest.raises(MatrisError, match="none of the 0 entries"):
        with_references(maker, files, tmp_path / "store", path)


def test_defect_cells_are_on_no_hull(files: list[Path], tiny_checkpoint: Path, tmp_path: Path) -> None:
    """The command computes supercells with defects; the store gets the crystals alone."""
    pytest.importorskip("pymatgen.analysis.defects", reason="needs the extra defects")
    where = ["--checkpoint", str(tiny_checkpoint), "--device", "cpu", "--store", str(tmp_path / "store")]
    options = ["--kinds", "vacancy", "--min-length", "4", "--fmax", "99"]
    shown = CliRunner().invoke(app, ["defects", *map(str, files), *where, *options, "--format", "json"])
    assert shown.exit_code == 0, shown.output
    oxide, metal = json.loads(shown.stdout)
    assert [defect["name"] for defect in oxide["defects"]] == ["v_Mg", "v_O"]
    assert oxide["references"] == "elements by the same checkpoint (Mg, O)"
    assert [len(c["sites"]) for c in oxide["cells"]] == [oxide["nsites_supercell"] - 1] * 2
    assert metal["limits"][0]["phases"] == []
    store = CandidateStore.open(tmp_path / "store")
    documents = list(store.query(with_references=True))
    assert sorted(document["formula_pretty"] for document in documents) == ["Mg", "MgO"]
    assert {document["nsites"] for document in documents} == {1, 2}
    found = store.query(formula="MgO").where("defects.lowest_formation_energy is known").first()
    assert found["defects"]["n_defects"] == 2
    assert "v_Mg" in (tmp_path / "store" / "defects.html").read_text()


def test_slabs_are_on_no_hull(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """No hull contains the slabs of the command, or a slab that was given as a crystal."""
    cell(3.2, "Mg").to(filename=str(tmp_path / "magnesium.cif"))
    layer = Structure(Lattice.tetragonal(3.2, 20.0), ["Mg"], [[0, 0, 0.5]])
    layer.to(filename=str(tmp_path / "layer.cif"))
    paths = [str(tmp_path / f"{name}.cif") for name in ("magnesium", "layer")]
    where = ["--checkpoint", str(tiny_checkpoint), "--device", "cpu", "--store", str(tmp_path / "store")]
    options = ["--min-slab", "9", "--min-vacuum", "7", "--fmax", "99"]
    shown = CliRunner().invoke(app, ["surfaces", *paths, *where, *options, "--format", "json"])
    assert shown.exit_code == 0, shown.output
    metal, refused = json.loads(shown.stdout)
    assert [surface["name"] for surface in metal["surfaces"]] == ["(1 0 0)", "(1 1 0)", "(1 1 1)"]
    assert "no crystal, so that it has no surfaces" in refused["error"]
    store = CandidateStore.open(tmp_path / "store")
    store.update_hulls()
    documents = {document["nsites"]: document for document in store.query(with_references=True)}
    bulk, slab = sorted(store.query(with_references=True), key=lambda document: document["vacuum"] or 0)
    assert len(documents) == 1  # both have one atom: no slab of the command is there
    assert (bulk["hull_state"], slab["hull_state"].partition(":")[0]) == ("ok", "no crystal")
    assert bulk["surfaces"]["n_surfaces"] == 3
    assert slab["energy_above_hull"] is None
    assert slab["vacuum"] == pytest.approx(20.0, abs=0.5)


def test_unknown_kinds(files: list[Path]) -> None:
    shown = CliRunner().invoke(app, ["defects", str(files[0]), "--kinds", "vacancy,frenkel"])
    assert shown.exit_code == 2
    assert "frenkel" in shown.output
