"""The commands `matris status`, `report`, `export`, on a campaign that was run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import ase.io
import pytest
from pymatgen.core import Lattice, Structure
from typer.testing import CliRunner

from matris.cli import app
from matris.cli.console import CampaignProgress
from matris.errors import MatrisError
from matris.flows.campaign.campaign import Campaign
from matris.flows.campaign.funnel import Funnel
from matris.flows.campaign.harvest import harvest
from matris.flows.local.runner import run
from matris.makers.batch_relax import BatchRelaxMaker
from matris.stores.documents.candidate import Candidate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from click.testing import Result


def rock_salt(a: float, cation: str) -> Structure:
    vectors = [[0, a / 2, a / 2], [a / 2, 0, a / 2], [a / 2, a / 2, 0]]
    return Structure(Lattice(vectors), [cation, "O"], [[0, 0, 0], [0.5] * 3])


@pytest.fixture(scope="module")
def store(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("campaign")
    maker = BatchRelaxMaker(checkpoint=str(tiny_checkpoint), device="cpu", max_steps=100, fmax=0.5)
    campaign = Campaign(folder, maker, Funnel(sanity=False), title="Screening [Fe–Mg–O]")
    candidates = [Candidate.from_structure(rock_salt(4.2, metal), f"<{metal}>O.cif") for metal in ("Mg", "Fe")]
    run(campaign, [*candidates, candidates[0], Candidate.unreadable("bad.cif", "the file is empty", b"")], ())
    return folder


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, list(map(str, arguments)))


def test_status(store: Path) -> None:
    done = invoke("status", "--store", store)
    assert done.exit_code == 0, done.output
    for told in (
        "Screening [Fe–Mg–O]",
        "finished",
        "4 read, 1 identical, ",
        "competing phases added",
        "1 dropped at reading",
        "the file is empty",
    ):
        assert told in done.stdout
    assert "relax" in done.stdout
    content = json.loads(invoke("status", "--store", store, "--format", "json").stdout)
    assert (content["phase"], content["read"], content["dropped"]["reading"]) == (
        "finished",
        4,
        {"the file is empty": 1},
    )
    assert content["stages"][0]["stage"] == "relax"
    assert invoke("status", "--store", store, "--format", "json", "--watch").exit_code == 2
    watched = invoke("status", "--store", store, "--watch")
    assert watched.exit_code == 0
    assert "finished" in watched.stdout


def test_report(store: Path, tmp_path: Path) -> None:
    done = invoke("report", "--store", store, "--output", tmp_path / "page")
    assert done.exit_code == 0, done.output
    page = (tmp_path / "page" / "index.html").read_text(encoding="utf-8")
    assert f"Report: {tmp_path / 'page' / 'index.html'}" in done.stdout
    assert "Screening [Fe–Mg–O]" in page
    assert "Volume change on relaxation" in page
    assert "&lt;Mg&gt;O.cif" in page
    assert 'id="discovery"' not in page
    known = tmp_path / "known.cif"
    rock_salt(4.2, "Mg").to(filename=str(known))
    again = invoke("report", "--store", store, "--output", tmp_path / "page", "--known", known)
    assert again.exit_code == 0, again.output
    assert 'id="discovery"' in (tmp_path / "page" / "index.html").read_text(encoding="utf-8")


WITHOUT_TORCH = """
import sys
from matris.cli import app
commands = [["status"], ["query", "ehull >= 0"], ["report", "--output", "page", "--known", "known.cif"],
            ["export", "all.csv"], ["export", "all.xyz"], ["optimade", "export", "all.jsonl"], ["--version"]]
for command in commands:
    app(command, standalone_mode=False)
    assert "torch" not in sys.modules, command
"""


def test_what_reads_results_loads_no_torch(store: Path, tmp_path: Path) -> None:
    rock_salt(4.2, "Mg").to(filename=str(tmp_path / "known.cif"))
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH],
        cwd=tmp_path,
        env=os.environ | {"MATRIS_STORE": str(store)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "page" / "index.html").is_file()


def test_export(store: Path, tmp_path: Path) -> None:
    path = tmp_path / "relaxed.xyz"
    done = invoke("export", "has O, Mg and state in (converged, max_steps)", path, "--store", store)
    assert done.exit_code == 0, done.output
    (atoms,) = ase.io.read(path, index=":", format="extxyz")
    assert atoms.symbols.get_chemical_formula() == "MgO"
    assert atoms.get_forces().shape == (2, 3)
    assert "1 candidate in" in done.stderr
    assert invoke("export", tmp_path / "all.csv", "--store", store).exit_code == 0
    assert (tmp_path / "all.csv").read_text().startswith("formula_pretty,")


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["status", "--campaign", "zzz"], 1, "holds no campaign zzz"),
        (["report", "--campaign", "zzz"], 1, "holds no campaign zzz"),
        (["report", "--known", "nowhere"], 1, "nowhere: no such file"),
        (["export", "ehull <", "out.csv"], 1, "ehull <"),
        (["export", "out.pdf"], 1, "cannot tell the format"),
        (["export", "stable", "has Fe", "out.csv"], 2, "one filter"),
    ],
)
def test_errors_are_clear(store: Path, arguments: list[str], code: int, told: str) -> None:
    failed = invoke(*arguments, "--store", store)
    assert failed.exit_code == code, failed.output
    assert told in failed.output


def test_a_folder_without_results(tmp_path: Path) -> None:
    for command in (["status"], ["report"], ["export", "a.csv"]):
        failed = invoke(*command, "--store", tmp_path)
        assert failed.exit_code == 1
        assert "holds no results" in failed.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["strutures"], "strutures: no such file or folder"),
        (["{good}", "strutures"], "strutures: no such file or folder"),
        (["rattle:strutures"], "strutures: no such file or folder"),
        (["prototypes:Xx-O"], "there is no element 'Xx'"),
        (["--chemsys", "Xx-O"], "there is no element 'Xx'"),
        (["{good}", "--chemsys", "Xx-O"], "there is no element 'Xx'"),
    ],
)
def test_a_misspelt_source_does_not_become_the_current_campaign(
    store: Path, tmp_path: Path, arguments: list[str], reason: str
) -> None:
    good = tmp_path / "good.json"
    rock_salt(4.2, "Ca").to(str(good))
    before = invoke("status", "--store", store).stdout
    done = invoke("screen", *(word.format(good=good) for word in arguments), "--store", store)
    assert done.exit_code == 1
    assert reason in done.output
    assert invoke("status", "--store", store).stdout == before


def test_a_source_that_fails_at_once_leaves_no_campaign(tiny_checkpoint: Path, tmp_path: Path) -> None:
    def broken() -> Iterator[Candidate]:
        raise MatrisError("no such source")
        yield

    campaign = Campaign(tmp_path, BatchRelaxMaker(checkpoint=str(tiny_checkpoint), device="cpu"), Funnel())
    with pytest.raises(MatrisError, match="no such source"):
        run(campaign, broken(), ())
    assert campaign.record() == {}


def test_references_are_not_counted_as_lost():
    progress = CampaignProgress()
    for state, is_reference in (("failed", True), ("max_steps", True), ("failed", False), ("converged", False)):
        progress.watch({"event": "candidate", "state": state, "error": None, "is_reference": is_reference})
    progress.watch({"event": "read", "known": 0, "finished": 0, "unfinished": 0, "queued": 4})
    progress.watch({"event": "stage", "stage": "relax", "n": 2})
    (task,) = progress._bar.tasks
    assert (task.completed, task.total, task.fields["lost"]) == (4, 6, "[red]1 lost[/red]")


def test_results_that_lack_are_told_and_computed_again(tiny_checkpoint: Path, tmp_path: Path) -> None:
    maker = BatchRelaxMaker(checkpoint=str(tiny_checkpoint), device="cpu", max_steps=1)

    def opened() -> Campaign:
        return Campaign(tmp_path, maker, Funnel(sanity=False, hull=False), title="Lacking")

    candidates = [Candidate.from_structure(rock_salt(4.2, metal), f"{metal}O.cif") for metal in ("Mg", "Fe")]
    campaign = opened()
    run(campaign, candidates, ())
    arrays = campaign.job_store.additional_stores["data"]
    for kept in (arrays, campaign.store.docs, campaign.store.data, campaign.store.chunks):
        kept.remove_docs({})  # as if the job had been killed before it stored its arrays
    told = "Results of 2 candidates lack: the arrays of 1 job outputs are not in the store"
    assert told not in invoke("status", "--store", tmp_path).output
    harvest(campaign)
    status = invoke("status", "--store", tmp_path)
    assert told in " ".join(status.output.split())
    for command in (["query"], ["report", "--output", tmp_path / "page"]):
        done = invoke(*command, "--store", tmp_path)
        assert done.exit_code == 0, done.output
        assert told in done.stderr
    assert told in (tmp_path / "page" / "index.html").read_text(encoding="utf-8")
    again = opened()
    run(again, candidates, ())
    assert again.store.incomplete() == {}
    assert {d["source"]: bool(d["job_uuid"]) for d in again.documents()} == {"MgO.cif": True, "FeO.cif": True}
    assert "lack" not in invoke("query", "--store", tmp_path).output
