"""Padded graphs give the numbers of the graphs, and recorded calls those of calls. A CPU stands in for the GPU."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from ase.build import bulk, molecule

import matris
from matris.model.config import ModelConfig
from matris.model.graph import Batch, Geometry, build_graph
from matris.model.network import MatRIS, evaluate
from matris.model.recorded import BUCKETS, Buckets, RecordedCalls, padded, results_of

PUBLISHED = ModelConfig(
    num_layers=2, node_feat_dim=16, edge_feat_dim=8, three_body_feat_dim=8, mlp_hidden_dims=(8,),
    three_body_expansion="fourier", norm_type="layer", pairwise_cutoff=4.0, three_body_cutoff=3.2,
    use_smoothed_for_delta_edge=True,
)  # fmt: skip
KINDS = {"published": PUBLISHED, "smooth": replace(PUBLISHED, three_body_expansion="sh", smooth=True)}


def network_of(kind, dtype=torch.float64):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MatRIS(KINDS[kind], magmoms=True).requires_grad_(False).eval().to(dtype)


def graph_of(*atoms, dtype=torch.float64):
    batch = Batch.of([Geometry.of(x) for x in atoms])
    return build_graph(batch, PUBLISHED.pairwise_cutoff, PUBLISHED.three_body_cutoff, dtype=dtype)


def rattled(seed=0, size=2, scale=0.05):
    atoms = bulk("NaCl", "rocksalt", a=5.6) * (size, 1, 1)
    atoms.rattle(scale, seed=seed)
    return atoms


def cases():
    alone, pair = molecule("H2O")[:1], molecule("CO")
    return {"crystal": [rattled()], "batch": [rattled(), pair, alone, bulk("Cu")], "no angles": [pair], "atom": [alone]}


def values(results):
    return {name: value for name, value in results._asdict().items() if value is not None}


@pytest.mark.parametrize("case", cases())
@pytest.mark.parametrize("kind", KINDS)
def test_dummies_change_no_result(kind, case):
    network, graph = network_of(kind), graph_of(*cases()[case])
    whole = padded(graph)
    right, ours = (values(evaluate(network, x, magmoms=True)) for x in (graph, whole))
    assert all(value.isfinite().all() for value in ours.values())
    cut = values(results_of(evaluate(network, whole, magmoms=True), graph))
    assert cut.keys() == right.keys()
    for name, value in right.items():
        assert cut[name].shape == value.shape
        assert torch.allclose(cut[name], value, rtol=0, atol=1e-11), name


@pytest.mark.parametrize("case", cases())
def test_sizes_are_multiples_and_dummies_are_spread(case):
    graph = graph_of(*cases()[case])
    whole = padded(graph)
    n, b, a = len(graph.numbers), graph.n_bonds, graph.n_angles
    assert whole.n_bonds % 512 == whole.n_angles % 8192 == 0
    assert whole.n_bonds - b >= 256
    assert torch.equal(whole.angle_target, whole.angle_target.sort().values)
    assert whole.angle_target[a:].min() >= whole.n_bonds - 256
    assert whole.angle_center[a:].min() >= n
    assert torch.equal(whole.centers[:b], graph.centers)
    assert torch.equal(whole.system[n:], torch.full((16,), graph.n_systems))
    for index, most in ((whole.angle_target[a:], 32), (whole.angle_source[a:], 32), (whole.angle_center[a:], 512)):
        assert torch.bincount(index).max() <= most  # one program adds the rows of a segment


def test_a_trajectory_needs_few_sizes():
    sizes = {BUCKETS.sizes(graph_of(rattled(seed, 4))) for seed in range(8)}
    assert len(sizes) == 1
    graph = graph_of(rattled())
    assert Buckets(bonds=8, angles=16, spare_bonds=4, spare_atoms=2).sizes(graph)[0] == len(graph.numbers) + 2


class Tape:
    """Stands in for a CUDA graph: replays by computing again, from the arrays that the call read."""

    def __init__(self, *, broken=None):
        self.recorded = self.replayed = 0
        self.broken = broken

    def record(self, call):
        if isinstance(self.broken, Exception):
            raise self.broken
        self.recorded += 1
        results = call()

        def replay():
            self.replayed += 1
            for old, new in zip(results, call(), strict=True):
                if old is not None:
                    old.copy_(new)
            if self.broken:
                results.forces.add_(self.broken)

        return replay, results


def recorded(tape, calls=None):
    network = network_of("published")

    def compute(graph):
        if calls is not None:
            calls.append(len(graph.numbers))
        return evaluate(network, graph, magmoms=True)

    return RecordedCalls(compute, tape.record), lambda graph: evaluate(network, graph, magmoms=True)


def test_replays_give_the_numbers_of_calls():
    tape, calls = Tape(), []
    ours, right = recorded(tape, calls)
    kept = []
    for step in range(6):
        graph = graph_of(rattled(step))
        kept.append((ours(graph), right(graph)))
    assert tape.recorded == 1
    assert tape.replayed == 5  # one to compare, and those after the second call
    for one, other in kept:  # results stay what they were when other calls follow
        for name, value in values(other).items():
            assert torch.allclose(getattr(one, name), value, rtol=0, atol=1e-11), name


def test_each_size_has_its_recording_and_old_ones_go(monkeypatch):
    monkeypatch.setattr("matris.model.recorded._RECORDINGS", 2)
    tape = Tape()
    ours, right = recorded(tape)
    for size in (1, 2, 3):
        for seed in range(3):
            graph = graph_of(rattled(seed, size))
            assert torch.allclose(ours(graph).forces, right(graph).forces, rtol=0, atol=1e-11)
    assert tape.recorded == 3
    ours(graph_of(rattled(0, 3)))
    assert tape.recorded == 3
    ours(graph_of(rattled(0, 1)))  # forgotten
    assert tape.recorded == 4


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore"), "operation not permitted"),
        (0.01, r"replayed results differ: forces by 1.0e-0\d of the largest"),
        (np.nan, "replayed results differ: forces by nan"),
    ],
)
def test_a_call_that_cannot_be_recorded_is_computed_and_the_log_says_so(broken, reason, caplog):
    tape = Tape(broken=broken)
    ours, right = recorded(tape)
    for step in range(5):
        graph = graph_of(rattled(step))
        assert torch.allclose(ours(graph).forces, right(graph).forces, rtol=0, atol=1e-11)
    assert tape.replayed <= 1
    (record,) = caplog.records
    assert "calls are not recorded on cpu" in record.message
    assert caplog.text.count("\n") == 1
    assert re.search(reason, record.message)


def test_large_graphs_are_not_recorded(monkeypatch):
    monkeypatch.setattr("matris.model.recorded._LARGEST", 10)
    tape = Tape()
    ours, _ = recorded(tape)
    for _ in range(4):
        ours(graph_of(rattled()))
    assert tape.recorded == 0


def test_recordings_outlive_inference_mode():
    ours, right = recorded(Tape())
    for step in range(4):
        graph = graph_of(rattled(step))
        with torch.inference_mode(step % 2 == 0):
            results = ours(graph)
        assert torch.allclose(results.forces, right(graph_of(rattled(step))).forces, rtol=0, atol=1e-11)


def test_on_a_cpu_the_option_says_that_it_does_nothing(caplog):
    potential = matris.load(device="cpu", cuda_graphs=True)
    assert "cuda_graphs has no effect on cpu" in caplog.text
    assert potential is not matris.load(device="cpu")
    ours, right = (p.predict(bulk("Cu")) for p in (potential, matris.load(device="cpu")))
    assert ours.energy == right.energy
