"""What tests of several rooms share."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matris.model.network import MatRIS


settings.register_profile("everyday", deadline=None)  # a shared machine may stand still for a second
settings.register_profile("ci", deadline=None, derandomize=True)  # the same examples in every run
settings.load_profile("ci" if os.environ.get("CI") else "everyday")

SMALL_PUBLISHED = Path(__file__).parent / "data" / "small_published.safetensors"
"""A small trained network of the published architecture, of 38 elements: quick, not accurate, and its energy jumps."""


def untrained(*, magmoms: bool) -> MatRIS:
    """Make an untrained network of a few thousand weights: its numbers mean nothing, but they are always the same."""
    import torch

    from matris.model.config import ModelConfig
    from matris.model.network import MatRIS

    config = ModelConfig(
        num_layers=1,
        node_feat_dim=16,
        edge_feat_dim=16,
        three_body_feat_dim=16,
        mlp_hidden_dims=(16,),
        max_l=2,
        max_n=2,
        pairwise_cutoff=4.5,
        three_body_cutoff=3.0,
        reference_energy=None,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MatRIS(config, magmoms=magmoms)


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a checkpoint of an untrained network."""
    from matris.model.checkpoints import Card, save

    card = Card(
        key="tiny",
        energy_scale="mp",
        predicts="efsm",
        elements=("Li", "O", "Na", "Mg", "Si", "Cl", "Fe"),
        description="An untrained demonstrator for tests.",
    )
    path = tmp_path_factory.mktemp("checkpoint") / "tiny.safetensors"
    save(path, untrained(magmoms=True), card)
    return path


@pytest.fixture(scope="session")
def mongo_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Give the address of a server of MongoDB's protocol: `MONGO_TEST_URI`, or one started for the tests."""
    if given := os.environ.get("MONGO_TEST_URI"):
        yield given.rstrip("/")
        return
    with mongo_process(tmp_path_factory.mktemp("mongo"), free_port()) as address:
        yield address


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


PASSWORD = "Zx9p@ss:w/rd%#?&=é $1"  # noqa: S105 - of a server for tests
"""Password of the user ``me`` of `private_server`, with all characters that addresses must quote."""


@pytest.fixture(scope="session")
def private_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start a server that asks for a password; give its address for the user ``me``, without a database."""
    from pymongo import MongoClient

    server = MongoServer(tmp_path_factory.mktemp("private"))
    with MongoClient(server.uri) as client:
        client.admin.command("createUser", "me", pwd=PASSWORD, roles=["root"])
    server.process.terminate()
    server.process.wait(10)
    server.command.append("--auth")
    server.start()
    yield server.uri.replace("//", f"//me:{quote(PASSWORD, safe='')}@")
    server.kill()


class MongoServer:
    """A server of MongoDB's protocol in a process of its own, which a test may kill and start again."""

    def __init__(self, folder: Path, port: int | None = None, *options: str) -> None:
        program = shutil.which(
            "secantusd-rs", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        )
        if program is None:
            pytest.skip("no server of MongoDB's protocol: secantusdb is not installed")
        self.port = port or free_port()
        self.uri = f"mongodb://127.0.0.1:{self.port}"
        place = ["--host", "127.0.0.1", "--port", str(self.port), "--storage-path", str(folder / "data")]
        self.command = [program, *place, "--standalone", *options, "--log-file-max", "64MB", "--cache-size", "256M"]
        self.log = folder / "log"
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log)
        for _ in range(300):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            assert self.process.poll() is None, self.log.read_text(errors="replace")
            time.sleep(0.1)
        raise AssertionError(f"no server within 30 s: {self.log.read_text(errors='replace')}")

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@contextmanager
def mongo_process(folder: Path, port: int) -> Iterator[str]:
    """Run a server of MongoDB's protocol, and give its address."""
    server = MongoServer(folder, port)
    try:
        yield server.uri
    finally:
        server.process.terminate()
        server.process.wait(10)


@pytest.fixture
def killable_server(tmp_path: Path) -> Iterator[MongoServer]:
    """Start a server that writes to disk at each commit; never the one that `MONGO_TEST_URI` names."""
    server = MongoServer(tmp_path, None, "--sync-on-commit")
    yield server
    server.kill()
