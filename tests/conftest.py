"""What tests of several rooms share."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make an untrained network of a few thousand weights: its numbers mean nothing, but they are always the same."""
    import torch

    from matris.model.checkpoints import Card, save
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
        network = MatRIS(config, magmoms=True)
    card = Card(
        key="tiny",
        energy_scale="mp",
        predicts="efsm",
        elements=("Li", "O", "Na", "Mg", "Si", "Cl", "Fe"),
        description="An untrained demonstrator for tests.",
    )
    path = tmp_path_factory.mktemp("checkpoint") / "tiny.safetensors"
    save(path, network, card)
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


@contextmanager
def mongo_process(folder: Path, port: int) -> Iterator[str]:
    """Run a server of MongoDB's protocol, and give its address."""
    program = shutil.which(
        "secantusd-rs", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    )
    if program is None:
        pytest.skip("no server of MongoDB's protocol: MONGO_TEST_URI names none, secantusdb is not installed")
    address = ["--host", "127.0.0.1", "--port", str(port), "--storage-path", str(folder / "data"), "--standalone"]
    with (folder / "log").open("ab") as log:
        server = subprocess.Popen(
            [program, *address, "--log-file-max", "64MB", "--cache-size", "256M"], stdout=log, stderr=log
        )
        try:
            for _ in range(100):
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                assert server.poll() is None, (folder / "log").read_text(errors="replace")
                time.sleep(0.1)
            yield f"mongodb://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(10)
