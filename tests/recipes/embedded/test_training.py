"""The network that is trained, and what it is trained on."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from ase.build import bulk

import matris
from matris.model import checkpoints
from matris.model.network import MatRIS, evaluate
from matris.training.data.frame import collate
from matris.training.loss import errors
from matris.training.trainer import STATE, TrainSettings
from recipes.embedded import start as starting
from recipes.embedded import train as training
from recipes.embedded.dimers import MAX_FORCE, dimers
from recipes.embedded.labels import Labels, write_shard
from recipes.embedded.start import CONFIG, sample_of_elements, start
from recipes.embedded.widen import widen
from tests.conftest import SMALL_PUBLISHED

from .lennard_jones import LennardJonesTeacher


def rattled(symbols, seed, a=5.2):
    atoms = bulk(symbols, "rocksalt", a=a, cubic=True)
    atoms.rattle(0.08, seed=seed)
    return atoms


@pytest.fixture
def shard(tmp_path):
    path = tmp_path / "labels" / "a.npz"
    frames = []
    for number in range(40):
        atoms = rattled(("MgO", "CaO", "KF", "NaF")[number % 4], number)
        label = LennardJonesTeacher().label(atoms).__dict__
        frames.append((atoms, {**label, "material": f"m{number}", "made": "shaken"}))
    write_shard(path, frames)
    return path


def test_dimers_teach_forces_at_short_distances_only(tmp_path):
    path = tmp_path / "dimers.json.gz"
    force = [[[-f, 0, 0], [f, 0, 0]] for f in (2 * MAX_FORCE, 40.0, 5.0, 0.1)]
    curve = {"distances": [0.5, 1.0, 1.6, 4.0], "forces": force, "energies": [9.0, 5.0, 1.0, 0.0]}
    path.write_bytes(gzip.compress(json.dumps({"PBE": {"Mg-Mg": curve, "Cm-Cm": curve}, "r2SCAN": {}}).encode()))
    frames = dimers(path, {"Mg", "O"})
    assert [frame.geometry.positions[1, 0] for frame in frames] == [1.0, 1.6]
    assert [frame.forces[1, 0] for frame in frames] == [40.0, 5.0]
    network = MatRIS(CONFIG, magmoms=False)
    found = errors(network, collate(frames, CONFIG), differentiable=True)
    assert found.n_energies.tolist() == found.n_stresses.tolist() == [0, 0]
    assert found.force.detach().numpy() == pytest.approx([40.0, 5.0], rel=0.5)


def test_the_network_starts_near_the_earlier_one(shard, tmp_path):
    torch.manual_seed(0)
    labels = Labels([shard])
    small, card = checkpoints.read_file(SMALL_PUBLISHED)
    widths = ("node_feat_dim", "edge_feat_dim", "three_body_feat_dim", "mlp_hidden_dims")
    config = replace(small.config, **{name: getattr(CONFIG, name) for name in widths})
    path = tmp_path / "earlier.safetensors"
    checkpoints.save(path, widen(small, config, magmoms=False), card)
    network = start(path, ("Mg", "Ca", "O", "F", "K", "Na", "Xe"), labels)
    assert network.config == CONFIG
    assert network.config.smooth
    old = matris.load(path, device="cpu")
    crystals = [rattled("MgO", 50, a=4.3), rattled("NaCl", 51, a=5.6), rattled("CaO", 52, a=4.8)]
    graph = collate([replace(labels[0], geometry=matris.model.graph.Geometry.of(c)) for c in crystals], CONFIG).graph
    forces = evaluate(network, graph).forces.numpy()
    earlier = np.concatenate([p.forces for p in old.predict(crystals)])
    assert np.abs(forces - earlier).mean() < 0.3 * np.abs(earlier).mean()
    for symbol, z in (("Mg", 12), ("O", 8)):  # the energies of atoms are right in the median
        batch = collate([labels[i] for i in range(len(labels))], CONFIG)
        wrong = (evaluate(network, batch.graph).atom_energies - batch.atom_energies)[batch.graph.numbers == z]
        assert abs(np.median(wrong.numpy())) < 1e-3, symbol


def test_samples_hold_each_element(shard):
    labels = Labels([shard])
    names = labels.formulas()
    chosen = sample_of_elements(labels, names, 3, 0)
    assert len(chosen) < len(labels)
    for symbol in ("Mg", "Ca", "K", "Na", "O", "F"):
        assert sum(symbol in names[i] for i in chosen) >= 3
    assert chosen == sample_of_elements(labels, names, 3, 0)


def test_stages_of_training(shard, data, tmp_path, monkeypatch):
    small = replace(CONFIG, num_layers=1, node_feat_dim=16, edge_feat_dim=16, three_body_feat_dim=16)
    monkeypatch.setattr(training, "CONFIG", small)
    monkeypatch.setattr(starting, "CONFIG", small)
    monkeypatch.setattr(training, "start", lambda *_: MatRIS(small, magmoms=False))
    monkeypatch.setattr(training, "divide", lambda labels, *_: (list(range(30)), list(range(30, len(labels)))))
    (data / "diatomics_dft.json.gz").write_bytes(gzip.compress(json.dumps({"PBE": {}}).encode()))
    settings = TrainSettings(steps=2, batch_size=4, warmup=1, weights=training.WEIGHTS, validate_every=2)
    first, second = tmp_path / "first", tmp_path / "second"
    training.train_embedded([shard], data, first, checkpoints.locate(), settings, 0.0, 1)
    assert checkpoints.load_plain(first / STATE)["step"] == 2
    assert "atom_energy" in (first / "log.csv").read_text()
    training.train_embedded([shard], data, second, first, settings, 0.5, 2)
    one, other = (checkpoints.load_plain(folder / STATE)["average"] for folder in (first, second))
    assert one.keys() == other.keys()
    assert any(not torch.equal(one[name], other[name]) for name in one)
