"""A campaign checked by a second potential, and by entries that came back."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from pymatgen.core import Lattice, Structure
from pymatgen.entries.computed_entries import ComputedEntry
from typer.testing import CliRunner

from matris import AseModel, MatRISCalculator
from matris.cli import app
from matris.errors import MatrisError
from matris.flows.campaign.campaign import Campaign
from matris.flows.campaign.funnel import Funnel
from matris.flows.campaign.results import CampaignResults
from matris.flows.campaign.validation import validate_by_entries, validate_by_maker, validate_by_model
from matris.flows.local.runner import run
from matris.makers.batch_relax import BatchRelaxMaker, BatchStaticMaker
from matris.model import checkpoints
from matris.stores.documents.candidate import Candidate
from matris.stores.documents.validation import Compared, validation

if TYPE_CHECKING:
    from pathlib import Path


def crystal(a: float, anion: str = "O") -> Structure:
    vectors = [[0, a / 2, a / 2], [a / 2, 0, a / 2], [a / 2, a / 2, 0]]
    return Structure(Lattice(vectors), ["Mg", anion], [[0, 0, 0], [0.5] * 3])


@pytest.fixture
def results(tiny_checkpoint: Path, tmp_path: Path) -> CampaignResults:
    """Three cells of MgO as they are, and the elements; each counts as converged."""
    maker = BatchStaticMaker(checkpoint=str(tiny_checkpoint), device="cpu")
    candidates = [Candidate.from_structure(crystal(a), f"{a}.cif") for a in (4.2, 4.6, 5.0)]
    campaign = Campaign(tmp_path / "store", maker, Funnel(complete_hull=False, duplicates=False))
    run(campaign, candidates, devices=())
    return CampaignResults.find(tmp_path / "store")


def test_ranks_and_calibration_by_hand() -> None:
    """Of six pairs, five are in the same order: τ = (5 - 1) / 6; P(stable) = Φ(-(x + mean) / s)."""
    pairs = [(0.0, 0.01), (0.02, 0.0), (0.10, 0.12), (0.30, 0.25)]
    found = validation(
        "a", "b", [Compared(document_id=str(i), first=x, second=y) for i, (x, y) in enumerate(pairs)], {}
    )
    assert found.tau == pytest.approx(4 / 6)
    assert found.p_value == pytest.approx(1 / 3)  # of the 24 orders of four, 8 have |τ| of at least 4/6
    assert found.mae == pytest.approx(0.025)
    assert found.bias == pytest.approx(-0.01)
    spread = (sum((d + 0.01) ** 2 for d in (0.01, -0.02, 0.02, -0.05)) / 3) ** 0.5
    assert found.spread == pytest.approx(spread)
    assert (found.n_stable, found.n_still_stable, found.no_longer_stable) == (1, 0, ["0"])
    assert found.probability(0.01) == pytest.approx(0.5)
    assert [(each.range(), each.n, each.n_stable) for each in found.calibration] == [
        ("up to 0", 1, 0),
        ("0 to 25", 1, 1),
        ("50 to 100", 1, 0),
        ("above 200", 1, 0),
    ]
    empty = validation("a", "b", [], {"not computed": 2})
    assert empty.sentences() == ["No candidate has a distance to the hull by both.", "2 left out: not computed"]


def test_a_second_potential_of_the_same_energies_agrees(results, tiny_checkpoint, tmp_path) -> None:
    network, card = checkpoints.read_file(tiny_checkpoint)
    other = tmp_path / "other.safetensors"
    checkpoints.save(other, network, checkpoints.Card("other", "mp", card.predicts, card.elements))
    maker = BatchStaticMaker(checkpoint=str(other), device="cpu", journal_dir=str(tmp_path))
    found = validate_by_maker(results, maker)
    assert found.n == 3
    assert found.tau == pytest.approx(1.0)
    assert found.mae == pytest.approx(0, abs=1e-6)
    assert found.n_still_stable == found.n_stable
    assert (found.first, found.second) == (card.key, "other")
    stored = results.store.query(checkpoint="other").where("source = 4.2.cif").first()
    assert stored["provenance"]["validates"] in {each.document_id for each in found.candidates}
    assert validate_by_maker(results, maker, top=1).n == 1
    with pytest.raises(MatrisError, match="validate with another one"):
        validate_by_maker(results, BatchRelaxMaker(checkpoint=str(tiny_checkpoint), device="cpu"))


def test_an_ase_calculator_as_second_potential(results, tiny_checkpoint, tmp_path, monkeypatch) -> None:
    """A calculator with the energies of the campaign agrees; on an unknown energy scale nothing is compared."""
    own = MatRISCalculator(str(tiny_checkpoint), device="cpu")
    found = validate_by_model(results, AseModel(own), "own", "mp", relax=False)
    assert (found.n, found.mae) == (3, pytest.approx(0, abs=1e-6))
    before = len(list(results.documents()))
    monkeypatch.chdir(tmp_path)
    call = f"matris:MatRISCalculator('{tiny_checkpoint}', device='cpu')"
    report = CliRunner().invoke(app, ["validate", "--store", str(tmp_path / "store"), "--with", call])
    assert report.exit_code == 0, report.output
    assert "Kendall's τ 1.00" in report.output
    assert len(list(results.documents())) == before  # nothing is stored
    strange = validate_by_model(results, AseModel(own), "own", "my-scale", relax=False)
    assert strange.n == 0
    assert sum(strange.left_out.values()) == 3


def test_entries_that_came_back(results, tmp_path) -> None:
    """The first of three cells becomes 0.2 eV/atom higher than the second: τ by hand."""
    ranking = sorted(results.documents(), key=lambda d: (d["formula_pretty"] != "MgO", d["energy_above_hull"]))[:3]
    energies = [-5.8, -6.0, -5.0]  # eV/atom
    entries = [
        ComputedEntry("MgO", 2 * energy, parameters={"energy_scale": "mp"}, entry_id=document["document_id"])
        for document, energy in zip(ranking, energies, strict=True)
    ]
    entries += [
        ComputedEntry(symbol, -1.5, parameters={"energy_scale": "mp"}, entry_id=symbol) for symbol in ("Mg", "O")
    ]
    for entry in entries:
        entry.data["oxide_type"] = "oxide" if "Mg1 O1" in entry.formula else "None"
    (tmp_path / "dft.json").write_text(json.dumps([entry.as_dict() for entry in entries]))
    found = validate_by_entries(results, tmp_path / "dft.json")
    assert [each.second for each in found.candidates] == pytest.approx([0.2, 0.0, 1.0], abs=1e-6)
    assert found.tau == pytest.approx(1 / 3)
    report = CliRunner().invoke(
        app, ["validate", "--store", str(tmp_path / "store"), "--with", str(tmp_path / "dft.json")]
    )
    assert report.exit_code == 0, report.output
    assert "Kendall's τ 0.33" in report.output
    assert "MgO" in (tmp_path / "store" / "validation.html").read_text().replace("<sub>", "")
    (tmp_path / "strange.json").write_text(json.dumps([entry.as_dict() for entry in entries[3:]]))
    with pytest.raises(MatrisError, match="belongs to a candidate of the campaign"):
        validate_by_entries(results, tmp_path / "strange.json")
