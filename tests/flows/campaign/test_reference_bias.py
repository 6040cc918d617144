"""Errors by element: recovered from offsets that were put into the entries."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from pymatgen.core import Lattice, Structure
from pymatgen.entries.computed_entries import ComputedStructureEntry
from typer.testing import CliRunner

import matris
from matris.cli import app
from matris.errors import MatrisError
from matris.flows.campaign.reference_bias import reference_bias
from matris.makers.batch_relax import BatchStaticMaker

if TYPE_CHECKING:
    from pathlib import Path

OFFSETS = {"Mg": 0.10, "O": -0.02}
"""What the checkpoint is too high by, eV for each atom."""


def cell(a: float, *symbols: str) -> Structure:
    return Structure(Lattice.cubic(a), symbols, [[i / len(symbols)] * 3 for i in range(len(symbols))])


def test_offsets_of_elements_come_back(tiny_checkpoint: Path, tmp_path: Path) -> None:
    potential = matris.load(tiny_checkpoint, device="cpu")
    phases = [cell(3.0, "Mg"), cell(3.5, "O"), cell(3.6, "Mg", "O"), cell(4.0, "Mg", "Mg", "O")]
    entries = [
        ComputedStructureEntry(
            phase,
            potential.predict(phase).energy - sum(OFFSETS[site.specie.symbol] for site in phase),
            parameters={"energy_scale": "mp"},
            entry_id=f"phase-{number}",
        )
        for number, phase in enumerate(phases)
    ]
    path = tmp_path / "references.json"
    path.write_text(json.dumps([entry.as_dict() for entry in entries]))
    maker = BatchStaticMaker(checkpoint=str(tiny_checkpoint), device="cpu", journal_dir=str(tmp_path))
    found = reference_bias(path, maker, tmp_path / "store")
    assert found.n == 4
    assert {each.element: each.offset for each in found.elements} == pytest.approx(OFFSETS, abs=1e-5)
    assert [each.element for each in found.elements] == ["Mg", "O"]
    assert found.elements[0].mean == pytest.approx((0.10 + 0.04 + 0.06) / 3, abs=1e-5)
    assert found.mae == pytest.approx((0.10 + 0.02 + 0.04 + 0.06) / 4, abs=1e-5)
    assert found.remaining == pytest.approx(0, abs=1e-5)
    assert "compounds of Mg +100 meV/atom" in found.sentences()[2]
    arguments = ["bias", str(path), "--checkpoint", str(tiny_checkpoint), "--device", "cpu"]
    shown = CliRunner().invoke(app, [*arguments, "--store", str(tmp_path / "store"), "--format", "csv"])
    assert shown.exit_code == 0, shown.output
    assert "Mg,3," in shown.output
    assert list((tmp_path / "store" / "journal").glob("*.jsonl"))  # and none in the current folder
    assert "phase-0" in (tmp_path / "store" / "bias.html").read_text()
    path.write_text(json.dumps([entry.as_dict() | {"structure": None} for entry in entries]))
    with pytest.raises(MatrisError, match="without structures"):
        reference_bias(path, maker, tmp_path / "store")
