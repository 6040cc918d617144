"""`matris serve` in a process of its own, read over a real connection."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from matris.cli import app as command_line
from matris.errors import StoreError
from tests.stores.serving.small_store import HOSTILE, add_campaign, fill

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

httpx = pytest.importorskip("httpx")
pytest.importorskip("fastapi", reason="no web server: pip install 'matris-flows[serve]'")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("serve") / "results"
    fill(place)
    add_campaign(place, done=3)
    return place


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[tuple[str, str]]:
    """Give the address of a server, and what it said before it."""
    command = [sys.executable, "-W", "ignore", "-m", "matris.cli", "serve", "--store", str(folder), "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "COLUMNS": "200"})
    said = ""
    while not (address := re.search(r"http://[\d.]+:\d+", said)):
        line = process.stderr.readline()
        assert line, said
        said += line
    yield address[0], said
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0
    assert "Traceback" not in process.stderr.read()


def test_results_and_progress_as_they_come(server: tuple[str, str], folder: Path) -> None:
    address, said = server
    assert address.startswith("http://127.0.0.1:")
    assert "no authentication" not in said
    with httpx.Client(base_url=address, timeout=60) as client:
        page = client.get("/").text
        assert "Results in results" in page
        assert "5 found" in page
        progress = client.get("/progress").text
        assert "3 / 10" in progress
        assert HOSTILE not in progress  # escaped
        assert "&lt;script&gt;alert(1)" in progress
        add_campaign(folder, done=8)
        assert "8 / 10" in client.get("/progress").text
        assert client.get("/optimade/v1/structures").status_code == (200 if "OPTIMADE at /optimade" in said else 404)
        assert client.get("/", headers={"Host": "evil.example"}).status_code == 400
        folder.rename(folder.with_name("moved"))
        assert client.get("/").status_code == 503
        folder.with_name("moved").rename(folder)
        assert client.get("/").status_code == 200


def test_wrong_calls_are_answered_at_once(folder: Path, tmp_path: Path) -> None:
    def said(*words: object) -> tuple[int, str]:
        done = CliRunner().invoke(command_line, ["serve", *map(str, words)])
        return done.exit_code, " ".join(done.output.split())

    code, output = said("--store", tmp_path / "nothing")
    assert (code, "holds no results" in output) == (1, True)
    assert not (tmp_path / "nothing").exists()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, output = said("--store", folder, "--port", taken.getsockname()[1])
    assert (code, "cannot listen on 127.0.0.1" in output) == (1, True)


def test_other_computers_are_warned_of(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fastapi.testclient import TestClient

    served = []
    monkeypatch.setattr("matris.stores.serving.listening.run", lambda app, _: served.append(app))
    words = ["serve", "--store", str(folder), "--host", "0.0.0.0", "--port", "0", "--no-optimade"]  # noqa: S104
    done = CliRunner().invoke(command_line, words)
    assert done.exit_code == 0, done.output
    output = " ".join(done.output.split())
    assert "Anyone who reaches 0.0.0.0 on the network can read all results" in output
    assert "no authentication" in output
    assert "ssh -L" in output
    client = TestClient(served[0], base_url="http://cluster.example")
    assert client.get("/progress").status_code == 200


def test_without_optimade_the_reason_is_given(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OPTIMADE's server keeps a collection in the store, which may be read-only."""
    pytest.importorskip("optimade")
    from fastapi.testclient import TestClient

    def refuse(_: object) -> None:
        raise StoreError("results: read-only, so nothing can be stored")

    served = []
    monkeypatch.setattr("matris.stores.optimade.server.open_published", refuse)
    monkeypatch.setattr("matris.stores.serving.listening.run", lambda app, _: served.append(app))
    done = CliRunner().invoke(command_line, ["serve", "--store", str(folder), "--port", "0"])
    assert done.exit_code == 0, done.output
    assert "Without OPTIMADE: results: read-only" in " ".join(done.output.split())
    client = TestClient(served[0], base_url="http://127.0.0.1")
    assert "5 found" in client.get("/").text
    assert client.get("/optimade/v1/structures").status_code == 404
