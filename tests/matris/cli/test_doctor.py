"""The command `matris doctor`: what it finds, what it says to do, and that it needs no network and leaves nothing."""

from __future__ import annotations

import csv
import io
import json
import shutil
import socket
from collections import namedtuple
from typing import TYPE_CHECKING, Any

import pytest
from pymongo import MongoClient
from typer.testing import CliRunner

from matris.cli import app
from matris.flows.doctor import databases, examination, machine
from matris.stores.database.jobstore import open_job_store

if TYPE_CHECKING:
    from pathlib import Path

CHECKS = ["python", "packages", "torch", "device", "compiler", "cache", "disk", "disk", "disk", "jobflow", "store"]


@pytest.fixture(autouse=True)
def _clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("MATRIS_STORE", "MATRIS_DEVICE", "JOBFLOW_JOB_STORE", "JOBFLOW_CONFIG_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(databases, "find_spec", lambda _: None)  # a project of this machine is not the tests'


def run(*arguments: object, code: int = 0) -> dict[str, dict[str, Any]]:
    done = CliRunner().invoke(app, ["doctor", "--format", "json", *map(str, arguments)])
    assert done.exit_code == code, done.output
    findings = json.loads(done.stdout)
    assert code == any(finding["state"] == "wrong" for finding in findings)
    for finding in findings:
        assert finding["state"] == "ok" or finding["remedy"] or ":" in finding["message"], finding
        assert "\n" not in finding["message"]
    return {finding["check"]: finding for finding in findings}


def test_a_machine_without_faults(tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise AssertionError("a connection")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    done = CliRunner().invoke(app, ["doctor", "--checkpoint", str(tiny_checkpoint), "--device", "cpu"])
    assert done.exit_code == 0, done.output
    names = [line.split()[1] for line in done.stdout.splitlines() if "→" not in line]
    assert names == [*CHECKS, "project", "checkpoint", "computing"]
    assert "tiny: 7 elements, efsm, energy scale mp" in done.stdout
    assert "pip install 'matris-flows[remote]'" in done.stdout
    assert list(tmp_path.iterdir()) == []
    open_job_store(tmp_path / "results").close()
    found = run("--checkpoint", tiny_checkpoint, "--store", tmp_path / "results")
    assert found["store"]["message"].endswith("matris.sqlite holds the outputs of 0 jobs")
    assert found["jobflow"]["message"] == "results go to the store of --store"
    as_csv = CliRunner().invoke(app, ["doctor", "--checkpoint", str(tiny_checkpoint), "--format", "csv"])
    rows = list(csv.reader(io.StringIO(as_csv.stdout)))
    assert rows[0] == ["check", "state", "message", "remedy"]
    assert [row[0] for row in rows[1:]] == names


def test_what_is_wrong(tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = namedtuple("usage", "total used free")(1, 1, 10**8)  # noqa: PYI024 - as shutil's
    monkeypatch.setattr(shutil, "disk_usage", lambda _: few)
    monkeypatch.setenv("MATRIS_DEVICE", "cuda:7")
    monkeypatch.setenv("MATRIS_CACHE", "/dev/null/cache")
    monkeypatch.setenv("CC", "no-such-compiler")
    monkeypatch.setenv("JOBFLOW_CONFIG_FILE", str(tmp_path / "none.yaml"))
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(tiny_checkpoint.read_bytes()[:1000])
    found = run("--checkpoint", damaged, "--project", "hull", code=1)
    wrong = {name for name, finding in found.items() if finding["state"] == "wrong"}
    assert wrong == {"device", "disk", "jobflow", "project", "checkpoint"}
    assert "MATRIS_DEVICE" in found["device"]["message"]
    assert found["compiler"]["state"] == found["cache"]["state"] == "note"
    assert "apt-get install gcc" in found["compiler"]["remedy"]
    assert "MATRIS_CACHE" in found["cache"]["remedy"]
    assert "0.1 GB free" in found["disk"]["message"]
    assert "none.yaml, which does not exist" in found["jobflow"]["message"]
    assert "damaged.safetensors" in found["checkpoint"]["message"]


def test_a_checkpoint_that_is_not_at_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MATRIS_CACHE", str(tmp_path / "cache"))
    found = run("--checkpoint", "matris_10m_oam")
    assert found["checkpoint"]["state"] == "note"
    assert str(tmp_path / "cache" / "MatRIS_10M_OAM.pth.tar") in found["checkpoint"]["remedy"]
    misspelt = run("--checkpoint", "matris_10m_oma", code=1)["checkpoint"]["message"]
    assert "did you mean matris_10m_omat or matris_10m_oam?" in misspelt


def test_databases(tmp_path: Path, tiny_checkpoint: Path, mongo_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    answering = f"{mongo_server}/doctor"
    assert (
        "answers and can be written" in run("--store", answering, "--checkpoint", tiny_checkpoint)["store"]["message"]
    )
    with MongoClient(answering) as client:
        database = client.get_default_database()
        assert all(not database[name].count_documents({}) for name in database.list_collection_names())
    monkeypatch.setattr(databases, "_TIMEOUT", 50)
    (dead,) = [f for f in databases.check_store("mongodb://me:Zx9p@127.0.0.1:9/d") if f.check == "store"]
    assert (dead.state, "Zx9p" in str(dead)) == ("wrong", False)
    assert "127.0.0.1:9/d" in dead.message
    config = tmp_path / "jobflow.yaml"
    monkeypatch.setenv("JOBFLOW_CONFIG_FILE", str(config))
    config.write_text("JOB_STORE: {docs_store: {type: MemoryStore}, additional_stores: {data: {type: MemoryStore}}}")
    assert "results are lost" in list(databases.check_store(None))[-1].message
    config.write_text("JOB_STORE: {docs_store: {type: MongoStore, password: Zx9p, database: d}}")
    (refused,) = databases.check_store(None)
    assert (refused.check, refused.state, "Zx9p" in refused.message) == ("jobflow", "wrong", False)


def test_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    class Ours:
        version = "1"
        requires = ("numpy>=99", "no-such-package", "pytest", 'mp-api>=1; extra == "mp"')

    monkeypatch.setattr(machine, "distribution", lambda _: Ours)
    monkeypatch.setattr(
        machine, "version", lambda name, real=machine.version: "0.5" if name == "matris" else real(name)
    )
    _, unmet, clash = machine.check_packages()
    assert unmet.state == clash.state == "wrong"
    assert unmet.remedy.endswith("-m pip install 'numpy>=99' 'no-such-package'")
    assert "pip uninstall matris;" in clash.remedy


def test_a_check_that_breaks_is_a_line(monkeypatch: pytest.MonkeyPatch, tiny_checkpoint: Path) -> None:
    def broken() -> None:
        raise KeyError("mongodb://me:Zx9p@host/d")

    monkeypatch.setattr(examination, "check_packages", broken)
    first, *others = examination.examine(checkpoint=str(tiny_checkpoint))
    assert (first.check, first.state, "Zx9p" in first.message) == ("packages", "wrong", False)
    assert others[-1].check == "computing"
