"""The frame of boards: resuming, failures, files, comparison."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import pytest

from matris.boards.board import Board, mean
from matris.boards.contestants import Contestant, peer
from matris.boards.run import run_board
from matris.errors import BoardError
from matris.relaxation.journal import JournalError
from matris.relaxation.relax import engine_of
from tests.matris.argon import Argon

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from matris.boards.board import Job, Metrics, Values


class Counting:
    """A board of numbers whose results are their squares; it counts what it computes."""

    def __init__(self, chunk: int = 100, **changes: Any) -> None:
        self.computed: list[str] = []
        self.stop_at: str | None = None
        self.board = Board(
            name="squares",
            about="squares",
            data=None,
            read=lambda _: {str(n): n for n in range(6)},
            compute=self._compute,
            score=self._score,
            chunk=chunk,
            published={"argon": {"mean": 55 / 6}, "other": {"mean": 1.0, "n": 3.0}},
            tolerance={"mean": 0.01},
            **changes,
        )

    def _compute(self, job: Job, items: Mapping[str, Any]) -> Iterator[tuple[str, Values]]:
        job.folder.mkdir(parents=True, exist_ok=True)
        for key, number in items.items():
            if key == self.stop_at:
                raise KeyboardInterrupt
            self.computed.append(key)
            yield key, {"error": "it is odd"} if number == 3 else {"square": number**2}

    def _score(self, items: Mapping[str, Any], results: Mapping[str, Values]) -> Metrics:
        return {"mean": mean(values.get("square", 9) for values in results.values()), "n": len(items)}


@pytest.fixture
def argon() -> Contestant:
    return Contestant("argon", Argon(), "mp")


def test_a_killed_run_continues(argon: Contestant, tmp_path: Path):
    counting = Counting(chunk=2)
    counting.stop_at = "4"
    with pytest.raises(KeyboardInterrupt):
        run_board(counting.board, argon, tmp_path)
    assert counting.computed == ["0", "1", "2", "3"]
    counting.stop_at = None
    result = run_board(counting.board, argon, tmp_path)
    assert counting.computed == ["0", "1", "2", "3", "4", "5"]
    assert result.document["metrics"] == {"mean": 55 / 6, "n": 6}
    assert result.document["failures"] == {"3": "it is odd"}
    assert not (tmp_path / "squares-cells").exists()


def test_a_board_leaves_the_cells_of_another_one_alone(argon: Contestant, tmp_path: Path):
    (tmp_path / "kappa-cells").mkdir()
    run_board(Counting().board, argon, tmp_path)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["kappa-cells"]


def test_files_say_what_was_computed(argon: Contestant, tmp_path: Path):
    part = run_board(Counting().board, argon, tmp_path, limit=3)
    assert not part.document["is_whole"]
    assert part.comparisons == []
    assert "| argon (part) | 1.667 | 3 |" in (tmp_path / "squares.md").read_text()
    whole = run_board(Counting().board, argon, tmp_path)
    written = json.loads((tmp_path / "squares.json").read_text())
    assert written == whole.document
    assert written["contestant"] == {
        "name": "argon",
        "sha256": engine_of(argon.model).sha256,
        "energy_scale": "mp",
        "dtype": "float64",
    }
    assert written["versions"]["torch"]
    assert written["published"]["other"] == {"mean": 1.0, "n": 3.0}


def test_comparison_with_published_values(argon: Contestant, tmp_path: Path):
    own = run_board(Counting().board, argon, tmp_path)
    assert [c.agrees for c in own.comparisons] == [True]
    other = run_board(Counting().board, argon, tmp_path, compare="other")
    assert [(c.metric, c.agrees) for c in other.comparisons] == [("mean", False), ("n", None)]
    assert [c.metric for c in other.differences] == ["mean"]
    with pytest.raises(BoardError, match="no published squares result of third: there are argon, other"):
        run_board(Counting().board, argon, tmp_path, compare="third")


def test_a_journal_refuses_other_settings(argon: Contestant, tmp_path: Path):
    run_board(Counting().board, argon, tmp_path)
    with pytest.raises(JournalError, match="settings"):
        run_board(Counting(settings={"fmax": 0.1}).board, argon, tmp_path)
    with pytest.raises(JournalError, match="contestant"):
        run_board(Counting().board, Contestant("another", argon.model, "mp"), tmp_path)


def test_nothing_is_recorded_where_everything_fails(argon: Contestant, tmp_path: Path):
    counting = Counting(chunk=1)
    with pytest.raises(BoardError, match=r"none of 1 items could be computed.*The first, 3: it is odd"):
        run_board(counting.board, argon, tmp_path)
    assert len((tmp_path / "squares.jsonl").read_text().splitlines()) == 4  # the header, and 0 to 2


def test_missing_data_are_named(argon: Contestant, tmp_path: Path):
    board = Board(**{**vars(Counting().board), "data": "numbers.json"})
    with pytest.raises(BoardError, match=r"squares needs --data: numbers\.json$"):
        run_board(board, argon, tmp_path)
    with pytest.raises(BoardError, match=r"there is no .*absent"):
        run_board(board, argon, tmp_path, data=tmp_path / "absent")


def test_a_peer_in_another_interpreter_gives_the_same_numbers():
    from ase.build import bulk
    from ase.calculators.emt import EMT

    copper = bulk("Cu", a=3.7).repeat((1, 1, 2))
    copper.rattle(0.1, seed=0)
    calculators = [EMT(), peer("ase.calculators.emt:EMT(asap_cutoff=False)", sys.executable).model.calculator]
    energies, forces, stresses = [], [], []
    for calculator in calculators:
        copper.calc = calculator
        energies.append(copper.get_potential_energy())
        forces.append(copper.get_forces().tolist())
        stresses.append(copper.get_stress().tolist())
    assert energies[0] == energies[1]
    assert forces[0] == forces[1]
    assert stresses[0] == pytest.approx(stresses[1], rel=1e-12)


def test_a_peer_that_dies_is_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from ase.build import bulk

    (tmp_path / "mortal.py").write_text(
        "import os\nfrom ase.calculators.emt import EMT\n"
        "class Mortal(EMT):\n"
        "    def calculate(self, atoms, *a):\n"
        "        os._exit(3) if 'Al' in atoms.symbols else super().calculate(atoms, *a)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    calculator = peer("mortal:Mortal", sys.executable).model.calculator
    for symbol, dies in (("Cu", False), ("Al", True), ("Cu", False)):
        atoms = bulk(symbol)
        atoms.calc = calculator
        if dies:
            with pytest.raises(BoardError, match=r"died \(exit status 3\)"):
                atoms.get_potential_energy()
        else:
            assert atoms.get_potential_energy() == pytest.approx(-0.0057, abs=1e-3)


@pytest.mark.parametrize("text", ["", "emt", "ase:", "os:system(open('x'))", "a b:EMT", "os:path.join()"])
def test_what_is_no_peer(text: str):
    with pytest.raises(BoardError, match="is no peer"):
        peer(text)
