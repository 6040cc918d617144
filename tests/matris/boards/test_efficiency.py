"""The board of efficiency: what it measures, not how fast it is."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from matris.boards import efficiency
from matris.boards.contestants import Contestant, checkpoint
from matris.boards.efficiency import EFFICIENCY_BOARD, small_cells, supercell
from matris.boards.run import run_board
from matris.structures import problem_with, to_structure
from tests.matris.argon import Argon

if TYPE_CHECKING:
    from pathlib import Path


def test_cells_are_those_of_the_board():
    cells = small_cells(50)
    assert [len(atoms) for atoms in cells[:5]] == [8, 8, 2, 12, 4]
    assert [problem_with(to_structure(atoms)) for atoms in cells] == 50 * [None]
    assert np.array_equal(small_cells(3)[2].positions, cells[2].positions)
    assert {str(atoms.symbols[0]) for atoms in small_cells(20, ("Mg", "O"))} == {"Mg"}
    with pytest.raises(ValueError, match="knows no pair"):
        small_cells(1, ("Ar",))
    assert np.linalg.norm(supercell(1000).cell.array, axis=1).min() > 14


def test_times_of_a_small_network(tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(efficiency, "_SIZES", (16,))
    monkeypatch.setattr(efficiency, "_N_CELLS", 3)
    monkeypatch.setattr(efficiency, "_STEPS", 2)
    result = run_board(EFFICIENCY_BOARD, checkpoint(str(tiny_checkpoint), "cpu"), tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "efficiency.jsonl").read_text().splitlines()[1:]]
    values = {row["structure_id"]: row["values"] for row in rows}
    metrics = result.document["metrics"]
    assert metrics["call 16 atoms [ms]"] == values["call 16 atoms"]["ms"] > 0
    relaxed = values["relaxations"]
    assert relaxed["relaxations"] == 3
    assert 3 <= relaxed["evaluations"] <= 9
    assert metrics["relaxations/s"] == pytest.approx(3 / relaxed["seconds"])


def test_a_size_that_does_not_fit_costs_itself_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(state):
        if state.n_atoms > 2:
            raise RuntimeError("out of memory")

    monkeypatch.setattr(efficiency, "_SIZES", (2, 16))
    result = run_board(EFFICIENCY_BOARD, Contestant("argon", Argon(before=full), "mp"), tmp_path, limit=2)
    assert result.document["failures"] == {"call 16 atoms": "RuntimeError: out of memory"}
    assert result.document["metrics"]["call 16 atoms [ms]"] is None
    assert result.document["metrics"]["call 2 atoms [ms]"] > 0
