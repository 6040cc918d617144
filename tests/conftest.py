"""What tests of several rooms share."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.mongo_server import server, server_program

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make an untrained network of a few thousand weights: its numbers mean nothing, but they are always the same."""
    import torch

    from matris.checkpoints import Card, save
    from matris.config import ModelConfig
    from matris.network import MatRIS

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
    program = server_program()
    if program is None:
        pytest.skip("no server of MongoDB's protocol: MONGO_TEST_URI names none, secantusdb is not installed")
    with server(program, tmp_path_factory.mktemp("mongo")) as uri:
        yield uri
