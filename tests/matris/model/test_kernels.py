"""The compiled messages give what torch's do, and their absence costs nothing but time."""

from __future__ import annotations

import math
import platform

import pytest
import torch
from pymatgen.core import Lattice, Structure

from matris.model import kernels
from matris.model.chunked import Chunks, IndexedTable
from matris.model.graph import Geometry
from matris.model.network import evaluate
from tests.matris.golden import golden_potential, structures

ISOLATED = Structure(Lattice.cubic(20), ["Na"], [[0, 0, 0]])
CASES = {
    "mixed": [structures()[n] for n in ("Si8", "Cu1_fcc", "CuInSe2_triclinic", "no_angles")] + [ISOLATED],
    "no angles": [structures()["no_angles"]],
    "no bonds": [ISOLATED],
}
NAMES = ["released_small", "released_uneven"]


@pytest.fixture(autouse=True)
def _compiler():
    if kernels.library() is None:
        pytest.skip("no C compiler")


@pytest.fixture
def forget():
    """What is remembered of the library is forgotten before and after."""
    kernels.library.cache_clear()
    yield
    kernels.library.cache_clear()


def graph_of(potential, case="mixed"):
    return potential.graph([Geometry.of(s) for s in CASES[case]])


def weights_of(attention):
    return attention.edge_mlp, attention.logits, attention.edge_residual


@pytest.mark.parametrize(
    "chunks",
    [Chunks(7, 0, kernels=True), Chunks(64, kernels=True), Chunks(50, 0.6, True), Chunks(10**6, kernels=True)],
    ids=str,
)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", NAMES)
def test_numbers_are_those_of_torch(name, case, chunks):
    exact, potential = golden_potential(name, torch.float64), golden_potential(name, torch.float32)
    expected = evaluate(exact.network, graph_of(exact, case))
    plain = evaluate(potential.network, graph_of(potential, case), chunks=Chunks(64))
    results = evaluate(potential.network, graph_of(potential, case), chunks=chunks)
    for right, torchs, ours, floor in zip(expected[:3], plain, results, (2e-5, 1e-5, 1e-6), strict=False):
        error = (ours.double() - right).abs().max()
        assert error <= 2 * (torchs.double() - right).abs().max() + floor


@pytest.mark.skipif(platform.machine() != "x86_64", reason="flags of another processor")
@pytest.mark.parametrize("flag", ["-mno-avx512f", "-march=x86-64"])
@pytest.mark.usefixtures("forget")
def test_processors_with_shorter_vectors(flag, monkeypatch, tmp_path):
    potential = golden_potential("released_uneven", torch.float32)
    graph = graph_of(potential)
    expected = evaluate(potential.network, graph, chunks=Chunks(64))
    monkeypatch.setenv("MATRIS_CACHE", str(tmp_path))
    monkeypatch.setattr(kernels, "FLAGS", (*kernels.FLAGS, flag))
    kernels.library.cache_clear()
    results = evaluate(potential.network, graph, chunks=Chunks(64, kernels=True))
    assert list(tmp_path.iterdir())
    for right, ours, tolerance in zip(expected[:3], results, (2e-5, 5e-5, 1e-6), strict=False):
        assert torch.allclose(ours, right, rtol=1e-5, atol=tolerance)


def test_calls_share_memory_and_results_do_not():
    potential = golden_potential("released_small", torch.float32)
    first, second = (potential.graph([Geometry.of(s)]) for s in CASES["mixed"][:2])
    alone = [x.clone() for x in potential.evaluate(first)[:3]]
    address = kernels._threads.arena._memory.data_ptr()
    kept = potential.evaluate(first)[:3]
    potential.evaluate(second)
    assert kernels._threads.arena._memory.data_ptr() == address
    assert all(torch.equal(a, b) for a, b in zip(alone, kept, strict=True))


def test_a_full_arena_gives_new_memory():
    arena = kernels.Arena()
    arena.reset(32)
    inside, outside = arena.take(1, 17), arena.take(3)
    assert inside.data_ptr() == arena._memory.data_ptr()
    assert inside.shape == (1, 17)
    assert outside.shape == (3,)
    assert outside.data_ptr() not in range(inside.data_ptr(), inside.data_ptr() + 4 * 32)


@pytest.mark.parametrize("share", [0, 0.1, 0.5])
def test_less_memory_gives_the_same(share):
    potential = golden_potential("released_small", torch.float32)
    graph = graph_of(potential)
    expected = potential.evaluate(graph)
    potential.memory = share * potential.bytes_kept(graph.n_bonds, graph.n_angles)
    for right, ours in zip(expected[:3], potential.evaluate(graph), strict=False):
        assert torch.equal(ours, right)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_chosen_for_float32_only(name):
    assert kernels.usable(golden_potential(name, torch.float32).config, torch.device("cpu"), torch.float32)
    assert not kernels.usable(golden_potential(name, torch.float64).config, torch.device("cpu"), torch.float64)


@pytest.mark.parametrize("name", ["sh_rms", "gauss_mlp_bias"])
def test_other_architectures_keep_torch(name):
    potential = golden_potential(name, torch.float32)
    assert not kernels.usable(potential.config, potential.device, potential.dtype)


def test_threads_do_not_change_a_bit():
    potential = golden_potential("released_small", torch.float32)
    graph, layer = graph_of(potential), potential.network.blocks[0].line_attention
    generator = torch.Generator().manual_seed(0)
    edge = torch.randn(graph.n_angles, len(layer.edge_residual), generator=generator, requires_grad=True)
    table = torch.randn(graph.n_bonds, 2 * layer.edge_mlp.hidden, generator=generator)
    tables = [IndexedTable(table, index[None]) for index in (graph.angle_target, graph.angle_source)]
    results, threads = [], torch.get_num_threads()
    try:
        for n in (1, 2, 3):
            torch.set_num_threads(n)
            messages = kernels.attention(*weights_of(layer), edge, *tables, Chunks(100, kernels=True))
            (gradient,) = torch.autograd.grad(sum(x.sum() for x in messages), edge)
            results.append([gradient, *(x.detach() for x in messages)])
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_logits_far_apart_do_not_overflow():
    potential = golden_potential("released_small", torch.float32)
    graph = graph_of(potential)
    with torch.no_grad():
        for block in potential.network.blocks:
            block.line_attention.logits.mul_(1e4)
    energies, forces, *_ = evaluate(potential.network, graph, chunks=Chunks(64, kernels=True))
    expected, *_ = evaluate(potential.network, graph, chunks=Chunks(64))
    assert torch.isfinite(energies).all()
    assert torch.isfinite(forces).all()
    assert torch.allclose(energies, expected, atol=1e-3)


def test_what_is_not_a_number_stays_so():
    potential = golden_potential("released_small", torch.float32)
    graph = graph_of(potential)
    with torch.no_grad():
        potential.network.blocks[0].atom_attention.edge_mlp.weight_in[0, 0] = math.nan
    energies, *_ = evaluate(potential.network, graph, chunks=Chunks(64, kernels=True))
    assert torch.isnan(energies[0])


@pytest.mark.usefixtures("forget")
def test_without_a_compiler_torch_does_the_work(monkeypatch, tmp_path):
    monkeypatch.setenv("MATRIS_CACHE", str(tmp_path))
    monkeypatch.setenv("CC", "no-such-compiler")
    potential = golden_potential("released_small", torch.float32)
    assert not kernels.usable(potential.config, potential.device, potential.dtype)
    assert torch.isfinite(potential.evaluate(graph_of(potential))[0]).all()


@pytest.mark.usefixtures("forget")
def test_a_compiler_that_fails_is_told_of(monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("MATRIS_CACHE", str(tmp_path))
    monkeypatch.setenv("CC", "false")
    assert kernels.library() is None
    assert "false cannot build kernels.c" in caplog.text
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("forget")
def test_a_cache_that_cannot_be_written_is_done_without(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("MATRIS_CACHE", str(tmp_path / "file"))
    assert kernels.library() is not None


@pytest.mark.usefixtures("forget")
def test_it_is_built_once(monkeypatch, tmp_path):
    monkeypatch.setenv("MATRIS_CACHE", str(tmp_path))
    assert kernels.library() is not None
    (built,) = tmp_path.iterdir()
    before = built.stat().st_mtime_ns
    kernels.library.cache_clear()
    assert kernels.library() is not None
    assert built.stat().st_mtime_ns == before


def test_rows_that_do_not_lie_together_are_read_right():
    potential = golden_potential("released_small", torch.float32)
    graph, layer = graph_of(potential), potential.network.blocks[0].line_attention
    generator = torch.Generator().manual_seed(0)
    wide = torch.randn(graph.n_angles, 2 * len(layer.edge_residual), generator=generator)
    table = torch.randn(2 * layer.edge_mlp.hidden, graph.n_bonds, generator=generator).T
    index = torch.stack([graph.angle_target, graph.angle_source], 1)
    edge = wide[:, ::2]
    scattered = [IndexedTable(table, index[None, :, i]) for i in (0, 1)]
    together = [IndexedTable(table.contiguous(), g.index.contiguous()) for g in scattered]
    chunks = Chunks(100, kernels=True)
    for one, other in zip(
        kernels.attention(*weights_of(layer), edge, *scattered, chunks),
        kernels.attention(*weights_of(layer), edge.contiguous(), *together, chunks),
        strict=True,
    ):
        assert torch.equal(one, other)


def test_a_second_way_back_gives_the_same():
    potential = golden_potential("released_small", torch.float32)
    graph = graph_of(potential)
    vectors = graph.vectors.clone().requires_grad_()
    energies, *_ = potential.network(graph, vectors, chunks=Chunks(100, 0.5, kernels=True))
    (first,) = torch.autograd.grad(energies.sum(), vectors, retain_graph=True)
    (second,) = torch.autograd.grad(energies.sum(), vectors)
    assert torch.equal(first, second)


def test_weights_that_change_in_any_way_count():
    """Weights are packed for the products in each call: nothing of an earlier call remains."""
    potential = golden_potential("released_small", torch.float32)
    graph = graph_of(potential, "no angles")
    before = potential.evaluate(graph)[0]
    layer = potential.network.blocks[0].atom_attention
    other = golden_potential("released_small", torch.float32).network.state_dict()
    changes = [
        lambda: layer.edge_mlp.weight_out.data.mul_(0.5),
        lambda: layer.logits.detach().numpy().__imul__(3),
        lambda: potential.network.half().float(),
        lambda: potential.network.load_state_dict(other, assign=True),
    ]
    for change in changes:
        change()
        after = potential.evaluate(graph)[0]
        assert torch.allclose(after, evaluate(potential.network, graph, chunks=Chunks(64))[0], atol=1e-5)
        assert not torch.equal(after, before)
        before = after
