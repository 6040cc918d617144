from __future__ import annotations

import csv
import html
import io
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from monty.serialization import loadfn
from pymatgen.core import Lattice, Structure
from typer.testing import CliRunner

from matris.cli import app
from matris.stores.candidate_store import CandidateStore
from tests.conftest import SMALL_PUBLISHED

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result

VOLATILE = {"last_updated", "seconds", "job_uuid", "computed_at", "hulls"}
"""Fields of a document that tell when and by which job it was computed, not what came out."""


def rock_salt(a: float, cation: str, anion: str) -> Structure:
    vectors = [[0, a / 2, a / 2], [a / 2, 0, a / 2], [a / 2, a / 2, 0]]
    return Structure(Lattice(vectors), [cation, anion], [[0, 0, 0], [0.5] * 3])


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    crystals = {
        "MgO": rock_salt(4.2, "Mg", "O"),
        "copy-of-MgO": rock_salt(4.2, "Mg", "O"),
        "FeO": rock_salt(4.3, "Fe", "O"),
        "NaO": rock_salt(4.8, "Na", "O").make_supercell([2, 1, 1], in_place=False).perturb(0.1, seed=0),
        "Li2O": rock_salt(4.4, "Li", "O").make_supercell([1, 2, 1], in_place=False).perturb(0.1, seed=0),
        "one-atom": Structure(Lattice.cubic(3), ["Fe"], [[0, 0, 0]]),
        "disordered": Structure(Lattice.cubic(4), [{"Na": 0.5, "Mg": 0.5}], [[0, 0, 0]]),
        "overlapping": Structure(Lattice.cubic(4), ["Na", "Na"], [[0, 0, 0], [0, 0, 0.01]]),
        "unknown": rock_salt(5.0, "Rn", "O"),
    }
    for name, structure in crystals.items():
        structure.to(filename=str(folder / f"{name}.cif"))
    (folder / "empty.cif").write_text("")
    (folder / "nan.cif").write_text((folder / "one-atom.cif").read_text().replace("0.00000000", "nan"))
    return folder


def test_properties_of_files(inputs: Path, tmp_path: Path) -> None:
    """With the checkpoint that ships: one document a structure, the broken one with its reason; the store has them."""
    store = tmp_path / "store"
    files = (inputs / "MgO.cif", inputs / "nan.cif", inputs / "unknown.cif")
    done = invoke("eos", *files, "--device", "cpu", "--store", store, "--format", "json")
    assert done.exit_code == 0, done.output
    whole, broken, unknown = json.loads(done.stdout)
    assert whole["formula_pretty"] == "MgO"
    assert whole["state"] == "converged"
    assert 50 < whole["fits"][0]["b0"] < 400
    assert broken["state"] == unknown["state"] == "failed"
    assert "nan" in broken["error"]
    assert "Rn" in unknown["error"]
    assert f"Report: {store / 'eos.html'}" in done.stderr
    page = (store / "eos.html").read_text(encoding="utf-8")
    assert "MgO.cif, nan.cif, unknown.cif" in page
    assert page.count('class="figure"') == 1
    assert html.escape(unknown["error"]) in page
    elsewhere = tmp_path / "pages" / "page.html"
    again = invoke(
        *("eos", *files, "--device", "cpu", "--store", store, "--format", "csv", "--report", elsewhere),
    )
    assert "plotly.js v" in elsewhere.read_text(encoding="utf-8")
    rows = list(csv.reader(io.StringIO(again.stdout)))
    assert rows[0][:3] == ["formula", "state", "V0 [Å³/cell]"]
    assert float(rows[1][2]) == pytest.approx(whole["fits"][0]["v0"])
    assert [row[rows[0].index("error")] for row in rows[1:]] == ["", broken["error"], unknown["error"]]
    found = invoke("query", "--columns", "formula,eos.b0,energy_per_atom,reason", "--store", store)
    (line,) = (line for line in found.stdout.splitlines() if "MgO" in line)
    assert line.split()[1] == f"{whole['fits'][0]['b0']:.1f}"
    assert "3 found" in found.stderr
    assert json.loads(invoke("query", "state = rejected", "--count", "--store", store).stdout) == 2
    nothing = invoke("elastic", inputs / "nan.cif", "--device", "cpu", "--store", store)
    assert nothing.exit_code == 1
    assert "nothing could be computed" in nothing.output


def test_phonons_and_thermal_expansion(inputs: Path, tmp_path: Path) -> None:
    common = ("--device", "cpu", "--store", tmp_path / "store", "--min-length", "3", "--format", "json")
    done = invoke("phonon", inputs / "MgO.cif", "--follow", "--output", tmp_path / "out", *common)
    assert done.exit_code == 0, done.output
    phonons = done.stdout
    (document,) = json.loads(phonons)
    assert document["settings"]["follow"]
    assert document["settings"]["min_length"] == 3
    assert document["phonon_bandstructure"]["@class"] == "PhononBandStructureSymmLine"
    assert {path.name for path in (tmp_path / "out" / "MgO").iterdir()} >= {"phonopy.yaml", "band.yaml"}
    done = invoke("qha", inputs / "MgO.cif", "--t-max", "100", *common)
    assert done.exit_code == 0, done.output
    (document,) = json.loads(done.stdout)
    assert document["temperatures"][-1] == 100
    assert document["thermal_expansion"][-1] > 0
    assert (tmp_path / "store" / "qha.html").is_file()
    (candidate,) = CandidateStore.open(tmp_path / "store").query()  # of both properties
    assert candidate["phonon"]["min_frequency"] == json.loads(phonons)[0]["min_frequency"]
    assert candidate["qha"]["state"] == document["state"]
    again = invoke("export", tmp_path / "again", "--format", "phonopy", "--store", tmp_path / "store")
    assert again.exit_code == 0, again.output
    written = [(folder / "MgO" / "phonopy.yaml").read_text() for folder in (tmp_path / "out", tmp_path / "again")]
    assert written[0] == written[1]


@pytest.fixture(scope="module")
def command(inputs: Path, tiny_checkpoint: Path) -> list[str]:
    options = ["--checkpoint", str(tiny_checkpoint), "--device", "cpu", "--max-steps", "60", "--competitors", "no"]
    return ["screen", str(inputs), *options]


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def screened(command: list[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    store = tmp_path_factory.mktemp("screened") / "store"
    return store, invoke(*command, "--store", store, "--fmax", 0.02)


def found(store: Path) -> dict[str, dict[str, Any]]:
    documents = json.loads(invoke("query", "--store", store, "--format", "json", "--with-references").stdout)
    return {
        document["document_id"]: {key: value for key, value in document.items() if key not in VOLATILE}
        for document in documents
    }


def test_screen(screened: tuple[Path, Result]) -> None:
    store, result = screened
    assert result.exit_code == 0, result.output
    assert "11 read, 1 identical" in result.stdout
    assert "5 rejected" in result.stdout
    for told in ("disordered site", "overlapping atoms", "unsupported element Rn", "the file is empty", "nan.cif"):
        assert told in result.stdout
    assert "MgO" in result.stdout
    page = (store / "report" / "index.html").read_text(encoding="utf-8")
    assert "demonstrator" in page
    assert "An untrained" in page
    assert f"Report: {store / 'report' / 'index.html'}" in result.stdout


def test_screen_again_computes_nothing(
    screened: tuple[Path, Result], command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_computing(*_: object) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr("matris.model.potential.Potential.evaluate", no_computing)
    store, first = screened
    before = found(store)
    again = invoke(*command, "--store", store, "--fmax", 0.02)
    assert again.exit_code == 0, again.output
    assert again.stdout == first.stdout
    assert found(store) == before


def test_screen_with_energies_in_double_precision(inputs: Path, tmp_path: Path) -> None:
    files = (inputs / "MgO.cif", inputs / "disordered.cif")
    done = invoke("screen", *files, "--static", "--competitors", "no", "--device", "cpu", "--store", tmp_path)
    assert done.exit_code == 0, done.output
    (found,) = CandidateStore.open(tmp_path).query(formula="MgO")
    assert found["dtype"] == "float64"
    assert found["n_steps"] == 0 < found["first_steps"]
    assert found["energy_above_hull"] == 0


def test_query_formats(screened: tuple[Path, Result]) -> None:
    store, _ = screened
    as_json = invoke("query", "--store", store, "--formula", "OMg", "--format", "json")
    documents = json.loads(as_json.stdout)
    assert [document["formula_pretty"] for document in documents] == ["MgO"]
    assert documents[0]["checkpoint"]["key"] == "tiny"
    as_csv = invoke("query", "--store", store, "--elements", "Fe, O", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(as_csv.stdout)))
    assert [row["formula_pretty"] for row in rows] == ["FeO"]
    assert rows[0]["document_id"]
    table = invoke("query", "--store", store, "--state", "rejected")
    assert "5 found" in table.stderr
    assert "unknown.cif" in table.stdout
    assert json.loads(invoke("query", "--store", store, "--chemsys", "Xe", "--format", "json").stdout) == []


def test_query_sorts_and_limits(screened: tuple[Path, Result]) -> None:
    store, _ = screened
    text = invoke("query", "--store", store, "--sort=-energy_per_atom", "--limit", 3, "--format", "json").stdout
    energies = [document["energy_per_atom"] for document in json.loads(text)]
    assert len(energies) == 3
    assert energies == sorted(energies, reverse=True)
    stable = json.loads(invoke("query", "--store", store, "--below", 0, "--format", "json").stdout)
    assert stable
    assert all(document["energy_above_hull"] <= 0 for document in stable)


def test_relax(inputs: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    result = invoke(
        *("relax", inputs / "MgO.cif", inputs / "empty.cif", "--checkpoint", tiny_checkpoint, "--device", "cpu"),
        *("--store", tmp_path / "store", "--output", tmp_path / "out", "--fmax", 0.05),
    )
    assert result.exit_code == 0, result.output
    assert "MgO.cif" in result.stdout
    assert "the file is empty" in result.stdout
    assert "2 read, 1 converged, 1 rejected" in result.stdout
    assert Structure.from_file(tmp_path / "out" / "MgO.cif").composition.reduced_formula == "MgO"
    assert len(found(tmp_path / "store")) == 2
    same = ("relax", inputs / "MgO.cif", inputs / "empty.cif", "--checkpoint", tiny_checkpoint, "--device", "cpu")
    same += ("--store", tmp_path / "store", "--output", tmp_path / "out", "--fmax", 0.05)
    as_json = invoke(*same, "--format", "json")
    oxide, empty = json.loads(as_json.stdout)
    assert (oxide["formula_pretty"], oxide["state"], empty["error"]) == ("MgO", "converged", "the file is empty")
    assert "2 read, 1 converged, 1 rejected" in as_json.stderr
    rows = list(csv.DictReader(io.StringIO(invoke(*same, "--format", "csv").stdout)))
    assert [(row["formula_pretty"], row["state"]) for row in rows] == [("MgO", "converged"), ("", "rejected")]
    late = invoke(
        *(
            "relax",
            inputs / "MgO.cif",
            "--checkpoint",
            tiny_checkpoint,
            "--device",
            "cpu",
            "--max-steps",
            0,
            "--fmax",
            1e-9,
        ),
        *("--store", tmp_path / "late", "--output", tmp_path / "out", "--as", "poscar"),
    )
    assert late.exit_code == 3, late.output
    assert "Not converged: " in late.stderr
    assert Structure.from_file(tmp_path / "out" / "MgO-unconverged.vasp").composition.reduced_formula == "MgO"
    (document,) = json.loads(invoke("query", "--store", tmp_path / "late", "--format", "json").stdout)
    assert document["error"].startswith("not converged after 0 steps, largest force")
    again = invoke(
        *("relax", inputs / "MgO.cif", "--checkpoint", tiny_checkpoint, "--device", "cpu", "--fmax", 0.05),
        *("--store", tmp_path / "store", "--output", tmp_path / "out", "--as", "entries"),
    )
    assert again.exit_code == 0, again.output
    (entry,) = loadfn(tmp_path / "out" / "entries.json")
    assert entry.composition.reduced_formula == "MgO"
    assert entry.parameters["checkpoint"] == "tiny"


def test_references_are_shown_when_asked_for(screened: tuple[Path, Result], tmp_path: Path) -> None:
    store, _ = screened
    without = invoke("query", "state = converged", "--store", store)
    assert "elemental reference" not in without.stdout
    assert "references match too (--with-references)" in without.stderr
    with_them = invoke("query", "state = converged", "--store", store, "--with-references")
    assert "elemental reference" in with_them.stdout
    assert "match too" not in with_them.stderr
    counts = []
    for more in ((), ("--with-references",)):
        assert invoke("export", tmp_path / "all.jsonl", "--store", store, *more).exit_code == 0
        sources = [json.loads(line)["source"] for line in (tmp_path / "all.jsonl").read_text().splitlines()]
        counts.append((len(sources), sources.count("elemental reference")))
    (n, none), (n_all, n_references) = counts
    assert none == 0
    assert n_all - n == n_references > 0


def test_nothing_computed_is_an_error(inputs: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    result = invoke("screen", inputs / "empty.cif", "--checkpoint", tiny_checkpoint, "--store", tmp_path / "store")
    assert result.exit_code == 1
    assert "the file is empty" in result.stdout
    assert "nothing could be computed" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["screen"], 2, "--chemsys"),
        (["screen", "no-such-folder"], 1, "no-such-folder"),
        (["screen", "--chemsys", "Qq-O"], 1, "Qq"),
        (["screen", "--chemsys", "Mg", "--checkpoint", "no-such-key"], 1, "no-such-key"),
        (["screen", "--chemsys", "Mg", "--references", "no-such-file"], 2, "no-such-file"),
        (["screen", "--chemsys", "rn-o"], 1, "does not know Rn. No checkpoint at hand knows O, Rn"),
        (["screen", "prototypes:Rn-O"], 1, "does not know Rn"),
        (["relax", "POSCAR", "--then", "elastik"], 2, "no such property: elastik; did you mean elastic?"),
        (["relax", "POSCAR", "--checkpoint", "MatRIS_10M_OAM"], 1, "did you mean matris_10m_oam"),
        (["query", "--state", "convergd", "--store", "results"], 1, "did you mean converged?"),
        (["query", "--chemsys", "CO", "--store", "results"], 1, "'CO' may be Co, or C and O"),
        (["clutser"], 2, "Did you mean 'cluster'?"),
        (["cluster", "chekc"], 2, "Did you mean 'check'?"),
        (["relax", "POSCAR", "--max-step", "3"], 2, "--max-steps"),
        (["query", "--sort", "beauty"], 1, "beauty"),
        (["query", "--store", "no-such-store"], 1, "no results"),
        (["query", "--limit", "0"], 2, "limit"),
        (["relax"], 2, "FILE"),
        (["frobnicate"], 2, "frobnicate"),
    ],
)
def test_errors_are_clear(
    arguments: list[str], code: int, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rock_salt(4.2, "Mg", "O").to(filename="POSCAR", fmt="poscar")
    CandidateStore.open("results")
    monkeypatch.setenv("COLUMNS", "200")
    result = invoke(*arguments)
    assert result.exit_code == code, result.output
    assert told in result.stderr
    assert "Traceback" not in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)


def test_interrupt(command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("matris.flows.local.runner.advance", interrupted)
    result = invoke(*command, "--store", tmp_path / "store")
    assert result.exit_code == 130
    assert "the same command" in result.stderr


def test_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_checkpoint: Path) -> None:
    monkeypatch.setenv("MATRIS_CACHE", str(tmp_path / "c"))
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "MatRIS_10M_OMAT.pth.tar").write_bytes(b"anything")
    monkeypatch.setattr("matris.model.checkpoints.files", lambda _: _Package(tiny_checkpoint))
    result = invoke("models")
    assert result.exit_code == 0, result.output
    for key, scale in (
        ("matris_10m_oam", "mp"),
        ("matris_10m_omat", "omat24"),
        ("matris_4m_matpes_pbev2", "matpes-pbe"),
    ):
        assert any(key in line and scale in line for line in result.stdout.splitlines())
    rows = [line.split() for line in result.stdout.splitlines() if ".pth.tar" in line]
    at_hand = {row[0]: row[[".pth.tar" in word for word in row].index(True) + 1] for row in rows}
    assert at_hand.pop("matris_10m_omat") == "yes"
    assert len(at_hand) == 6
    assert set(at_hand.values()) == {"no"}
    assert str(tmp_path / "c") in result.stdout
    assert "tiny" in result.stdout
    assert result.stdout.startswith(
        "For results: --checkpoint matris_10m_oam; its file is downloaded at the first use."
    )
    listed = json.loads(invoke("models", "--format", "json").stdout)
    assert [each["key"] for each in listed if each["at_hand"]] == ["tiny", "matris_10m_omat"]


class _Package:
    """Stands for the resources of the package: whatever is asked for, it is one file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __truediv__(self, _: str) -> Path | _Package:
        return self if _ == "data" else self.path


def records_in(journals: Path) -> int:
    """Count the records in the journals of a campaign; a finished chunk has none any more."""
    n = 0
    for path in journals.glob("*/*.jsonl"):
        with suppress(FileNotFoundError):
            n += max(0, path.read_text().count("\n") - 1)
    return n


def test_killed_campaign_goes_on(inputs: Path, tmp_path: Path) -> None:
    """Two workers, of a runner that is killed, and one without a fault give the same, to rounding."""
    checkpoint = ["--checkpoint", str(SMALL_PUBLISHED)]
    line = ["screen", str(inputs), *checkpoint, "--competitors", "no", "--fmax", "1e-4", "--report"]
    killed, undisturbed = tmp_path / "killed", tmp_path / "undisturbed"
    victim = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "matris.cli",
            *line,
            str(killed / "report"),
            "--device",
            "cpu,cpu",
            "--store",
            str(killed),
        ]
    )
    deadline = time.monotonic() + 300
    while records_in(killed / "journal") < 2 and victim.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(victim.pid, signal.SIGKILL)
    assert victim.wait() == -signal.SIGKILL, "it finished before it could be killed"
    resumed = invoke(*line, killed / "report", "--device", "cpu", "--store", killed)
    assert resumed.exit_code == 0, resumed.output
    assert "11 read" in resumed.stdout
    whole = invoke(*line, undisturbed / "report", "--device", "cpu", "--store", undisturbed)
    assert whole.exit_code == 0, whole.output
    first, second = found(killed), found(undisturbed)
    assert len(first) == 10 + 5
    assert first.keys() == second.keys()
    assert {document["state"] for document in first.values()} == {"converged", "rejected"}
    for name, document in first.items():
        other = second[name]
        for field in ("state", "error", "source", "formula_pretty", "is_stable"):
            assert document.get(field) == other.get(field)
        for field in ("energy_per_atom", "formation_energy_per_atom", "energy_above_hull"):
            assert (document.get(field) is None) == (other.get(field) is None)
            assert document.get(field) is None or document[field] == pytest.approx(other[field], abs=1e-5)
