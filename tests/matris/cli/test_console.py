"""Tables that stay whole, and the progress bar of a run that goes on from an earlier one."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from matris.cli import console
from matris.cli.console import CampaignProgress, Column, numbers, print_documents, print_fields, print_table

if TYPE_CHECKING:
    from collections.abc import Callable

WIDE, NARROW = 200, 60


@pytest.fixture
def at_width(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., list[str]]:
    """Print something on a terminal of a width, and give its lines."""

    def show(width: int, print_it: Callable[[], None]) -> list[str]:
        monkeypatch.setattr(console, "stdout", lambda: Console(highlight=False, width=width))
        print_it()
        return capsys.readouterr().out.splitlines()

    return show


def document(formula: str, energy: float, source: str) -> dict[str, object]:
    return {
        "formula_pretty": formula,
        "energy_above_hull": 0.0123,
        "formation_energy_per_atom": -2.5,
        "energy_per_atom": energy,
        "nsites": 192,
        "state": "converged",
        "source": source,
        "symmetry": {"symbol": "I4_1/acd"},
        "checkpoint": {"key": "matris_10m_oam"},
        "settings": {"digest": "a177e587f953"},
    }


@pytest.mark.parametrize("width", [WIDE, NARROW, 20])
def test_formulas_and_numbers_never_shrink(at_width: Callable[..., list[str]], width: int) -> None:
    path = "/scratch/me/structures/from/the/database/Li7La3Zr2O12-tetragonal.cif"
    rows = [document("Li56La24Zr16O96", -1234.5678, path), document("MgO", -6.2, "MgO.cif")]
    lines = at_width(width, lambda: print_documents(rows, numbered=True, origins=True))
    first = next(line for line in lines if "Li56" in line)
    for whole in ("Li56La24Zr16O96", "I4_1/acd", "12.3", "-2.500", "-1234.5678", "192", "converged", "a177e587f953"):
        assert re.search(rf"(^| ){re.escape(whole)}( |$)", first)
    assert (path in first) == (width == WIDE)
    assert ("…" in first) == (width != WIDE)
    starts = {line.index("/scratch") if "/scratch" in line else line.index("MgO.cif") for line in lines[2:]}
    assert len(starts) == 1


def test_remarks_fold_and_lose_nothing(at_width: Callable[..., list[str]]) -> None:
    remark = "a sentence of several words that does not fit into the line"
    columns = [Column("formula", ["MgO"]), numbers("K\nGPa", [123.456], 1), Column("why", [remark], shrinks="fold")]
    lines = at_width(40, lambda: print_table(columns))
    assert lines[2].startswith("MgO      123.5  a sentence")
    assert " ".join(" ".join(line[16:] for line in lines[2:]).split()) == remark
    assert all(len(line.rstrip()) <= 40 for line in lines)


def test_numbers_of_a_column_have_equal_decimals(at_width: Callable[..., list[str]]) -> None:
    names = ["formula_pretty", "elastic.bulk_modulus", "phonon.heat_capacity", "fmax", "extrapolation", "nsites"]
    rows = [["MgO", 122.9841, 37.5, 6e-7, 0.8167, 2], ["NaCl", 25.0, 9.123, None, 12.5, 16]]
    lines = at_width(WIDE, lambda: print_fields(names, rows))
    assert [line.split() for line in lines if "MgO" in line or "NaCl" in line] == [
        ["MgO", "123.0", "37.50", "0.0000", "0.8167", "2"],
        ["NaCl", "25.0", "9.12", "–", "12.5000", "16"],
    ]
    heads = " ".join(" ".join(lines[:3]).split())
    for unit in ("GPa", "J/K per mole of atoms", "eV/Å"):
        assert unit in heads
    ends = [line.index("123.0") + 5 if "123.0" in line else line.index("25.0") + 4 for line in lines[3:]]
    assert len(set(ends)) == 1


def test_an_empty_table_has_headings(at_width: Callable[..., list[str]]) -> None:
    assert "eV/atom" in " ".join(at_width(WIDE, lambda: print_fields(["energy_above_hull"], [])))
    assert "formula" in " ".join(at_width(WIDE, lambda: print_documents([])))


def test_a_bar_starts_where_the_run_is() -> None:
    """Six of ten were finished by an earlier run; two more of its chunk, and two new ones, are computed now."""
    progress = CampaignProgress()
    counts = {"event": "read", "known": 8, "finished": 6, "unfinished": 2, "queued": 2}
    progress.watch(counts | {"finished": 2, "queued": 0})
    progress.watch(counts)
    (task,) = progress._bar.tasks
    assert (task.completed, task.total) == (6, 10)
    assert not task._progress, "what was finished before is no sample of the rate"
    assert progress.known == 6
    for _ in range(4):
        progress.watch({"event": "candidate", "state": "converged", "is_reference": False})
    progress.watch(counts)
    assert (task.completed, task.total) == (10, 10)
