"""The command `matris query`: the examples of docs/queries.md, formats, pages, structures, and what it refuses."""

from __future__ import annotations

import csv
import io
import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pymatgen.core import Structure
from typer.testing import CliRunner

from matris.cli import app
from matris.stores.candidate_store import CandidateStore
from matris.stores.database.jobstore import open_job_store
from tests.stores.query.question_documents import document, documents, fill

if TYPE_CHECKING:
    from click.testing import Result

PAGE = Path(__file__).parents[3] / "docs" / "queries.md"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("questions")
    jobs = open_job_store(folder)
    candidates = CandidateStore.beside(jobs)
    fill(candidates)
    computed = [d for d in documents() if d["state"] == "converged"]
    candidates.docs.update([d | {"is_extrapolating": d["candidate_id"] == "odd"} for d in computed])
    more = [document(f"n{i:03}", "Li2O", energy_above_hull=1.0, state="max_steps") for i in range(60)]
    candidates.docs.update([d | {"last_updated": d["last_updated"].replace(year=2020)} for d in more])
    jobs.close()
    return folder


def query(store: Path, *arguments: object) -> Result:
    return CliRunner().invoke(app, ["query", *map(str, arguments), "--store", str(store)])


EXAMPLES = [
    shlex.split(line)[2:] for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("matris query '")
]


@pytest.mark.parametrize("arguments", EXAMPLES, ids=lambda a: a[0])
def test_examples_of_the_page(
    store: Path, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = query(store, *arguments)
    assert found.exit_code == 0, found.output
    told = {
        "chemsys = Fe-O and ehull": ["Fe2O3", "FeO"],
        "chemsys = Fe-O and stable": ["Fe2O3", "Fe3O4"],
        "stable and extrapolating = false": ["Fe2O3", "Fe3O4", "Li2O"],
        "ehull <= 50 meV": ["Fe2O3", "LiFeO2", "Li2O"],
        "state = converged": ["201", "151", "81"],
        "state in (failed": ["overlapping", "memory", "empty"],
        "reason contains": ["1"],
        "updated": ["Fe2O3", "CoO"],
        "checkpoint in": ["hematite", "matris_10m_oam", "matris_10m_omat"],
    }
    (words,) = (words for start, words in told.items() if arguments[0].startswith(start))
    assert all(word in found.stdout for word in words), found.stdout
    if "--structures" in arguments:
        assert len(list((tmp_path / "cif").glob("*.cif"))) == 5
        assert "5 structures in cif" in found.stderr


def test_there_are_examples_of_all_questions() -> None:
    assert len(EXAMPLES) == 9


def test_formats_agree(store: Path) -> None:
    ask = ("has Fe, O and checkpoint = matris_10m_oam", "--sort", "-elastic.bulk_modulus,formula")
    whole = json.loads(query(store, *ask, "--format", "json").stdout)
    lines = [json.loads(line) for line in query(store, *ask, "--format", "jsonl").stdout.splitlines()]
    assert lines == whole
    text = query(store, *ask, "--format", "csv", "--columns", "document_id, elastic.bulk_modulus").stdout
    rows = list(csv.reader(io.StringIO(text)))
    assert rows[0] == ["document_id", "elastic.bulk_modulus [GPa]"]
    assert [row[0] for row in rows[1:]] == [d["document_id"] for d in whole]
    assert whole[0]["candidate_id"] == "hematite"
    assert "hematite.cif" in query(store, *ask).stdout
    assert json.loads(query(store, "has Xe", "--format", "json").stdout) == []
    assert query(store, "has Xe", "--format", "jsonl").stdout == ""
    assert int(query(store, *ask, "--count").stdout) == len(whole)


def test_a_table_is_a_page(store: Path) -> None:
    total = len(documents()) + 60
    first = query(store)
    assert f"50 of {total} found, page 1" in first.stderr
    second = query(store, "--page", 2)
    assert f"{total - 50} of {total} found, page 2" in second.stderr
    ids = [
        line["document_id"]
        for page in (1, 2, 3)
        for line in map(
            json.loads, query(store, "--page", page, "--limit", 30, "--format", "jsonl").stdout.splitlines()
        )
    ]
    assert len(ids) == len(set(ids)) == total
    assert len(query(store, "--format", "jsonl").stdout.splitlines()) == total
    assert "1 found" in query(store, "--formula", "FeO", "--below", 0.035).stderr


def test_structures_are_files(store: Path, tmp_path: Path) -> None:
    done = query(store, "candidate_id = ferrite", "--limit", 1, "--structures", tmp_path / "new" / "cif")
    assert done.exit_code == 0, done.output
    (path,) = (tmp_path / "new" / "cif").iterdir()
    assert path.name.startswith("LiFeO2-ferrite")
    assert Structure.from_file(path).composition.chemical_system == "Fe-Li-O"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["stable and bulk_modulus > 100 GPa"], PAGE.read_text(encoding="utf-8").partition("```\nError:")[2][:200]),
        (["ehull < 5 GPa"], "^^^"),
        (["stable", "--columns", "beauty"], "beauty"),
        (["--sort", "elements"], "cannot sort by elements"),
        (["--state", "convergd"], "convergd"),
        (["--elements", "Fe,Qq"], "Qq"),
        (["", "--count"], "expected a field"),
        (["--best-per", "beauty"], "beauty"),
    ],
)
def test_errors_are_clear(store: Path, arguments: list[str], told: str) -> None:
    failed = query(store, *arguments)
    assert failed.exit_code == 1
    assert told.partition("```")[0].strip() in failed.stderr
    assert failed.stderr.startswith("Error: ")


def test_several_checkpoints_are_told_apart(store: Path, tmp_path: Path) -> None:
    ask = "candidate_id = hematite"
    both = query(store, ask)
    assert "Results of 2 checkpoints or settings" in both.stderr
    assert "add to the filter: checkpoint = matris_10m_oam" in both.stderr
    assert {line.split()[-3] for line in both.stdout.splitlines()[2:]} == {"matris_10m_oam", "matris_10m_omat"}
    one = query(store, f"{ask} and checkpoint = matris_10m_oam")
    assert "Results of" not in one.stderr
    assert "matris_10m" not in one.stdout
    written = CliRunner().invoke(app, ["export", ask, str(tmp_path / "a.xyz"), "--store", str(store)])
    assert "Results of 2 checkpoints or settings" in written.stderr


def test_several_settings_are_told_apart(tmp_path: Path) -> None:
    candidates = CandidateStore.open(tmp_path)
    for digest in ("d1", "d2"):
        made = document(f"a{digest}", "Li2O", energy_above_hull=0.0)
        candidates.docs.update([made | {"settings": made["settings"] | {"digest": digest}}])
    found = query(tmp_path)
    assert "add to the filter: settings.digest = 'd1'" in found.stderr
    assert query(tmp_path, "settings.digest = 'd1'").stdout.count("Li2O") == 1
