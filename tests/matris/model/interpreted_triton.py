"""
The kernels for GPUs, in Triton's interpreter, give the numbers of torch.

tests/matris/model/test_triton.py runs this file by

    TRITON_INTERPRET=1 python -m pytest tests/matris/model/interpreted_triton.py

Triton chooses its interpreter when it is imported, and another test of the process may have imported it.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from pymatgen.core import Lattice, Structure

from matris.model import kernels, potential, triton_messages
from matris.model.chunked import Chunks, IndexedTable, segment_sum
from matris.model.config import ModelConfig
from matris.model.graph import Batch, Geometry, build_graph
from matris.model.kernels import EdgeUpdate
from matris.model.layers import LAYER_NORM_EPS
from matris.model.network import Attention, MatRIS, Refinement, evaluate
from matris.model.potential import _KEPT_OF_ANGLE_TILES, _KEPT_OF_BOND_TILES, Potential
from matris.model.recorded import Buckets, padded, results_of
from matris.model.triton_messages import Layout, Segments, Tiles
from tests.matris.model.test_smooth import CARD

PUBLISHED = ModelConfig(
    num_layers=2, node_feat_dim=64, edge_feat_dim=32, three_body_feat_dim=32, mlp_hidden_dims=(16,),
    three_body_expansion="fourier", norm_type="layer", pairwise_cutoff=3.2, three_body_cutoff=2.5,
    use_smoothed_for_delta_edge=True,
)  # fmt: skip
KINDS = {
    "published": PUBLISHED,
    "smooth": replace(PUBLISHED, three_body_expansion="chebyshev", smooth=True),
    "biased": replace(PUBLISHED, use_smoothed_for_delta_edge=False, use_bias=True, node_feat_dim=32),
}
BOX = Lattice.cubic(16)
ROCK_SALT = Structure.from_spacegroup("Fm-3m", Lattice.cubic(4.2), ["Mg", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]])
CRYSTAL = Structure(ROCK_SALT.get_primitive_structure().lattice, ["Mg", "O"], [[0, 0, 0], [0.47, 0.53, 0.49]])
WATER = Structure(BOX, ["O", "H", "H"], [[0, 0, 0], [0.97, 0.1, 0], [-0.2, 0.9, 0.2]], coords_are_cartesian=True)
PAIR = Structure(BOX, ["Na", "Cl"], [[0, 0, 0], [0.3, 0.2, 2.9]], coords_are_cartesian=True)
ATOM = Structure(BOX, ["Na"], [[0, 0, 0]])
CASES = {"mixed": [ATOM, CRYSTAL, PAIR, WATER], "no angles": [PAIR], "one atom": [ATOM]}


def network_of(config, dtype=torch.float32):
    """A network with drawn weights, biases and norms, whose attention matters."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = MatRIS(config, magmoms=False)
        with torch.no_grad():
            for name, weight in network.named_parameters():
                if any(part in name for part in ("norm", "residual", "bias")):
                    weight.add_(0.2 * torch.randn_like(weight))
            for block in network.blocks:
                for attention in (block.line_attention, block.atom_attention):
                    attention.logits.mul_(3)
    return network.requires_grad_(False).eval().to(dtype)


def graph_of(network, *crystals):
    batch = Batch.of([Geometry.of(crystal) for crystal in crystals])
    dtype = network.reference_energies.dtype
    return build_graph(batch, network.config.pairwise_cutoff, network.config.three_body_cutoff, dtype=dtype)


def tiled(network, graph, precision="ieee"):
    return evaluate(network, graph, chunks=Chunks(10**6, tiles=Tiles.of(graph, precision)))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", KINDS)
def test_numbers_are_those_of_torch(kind, case):
    exact, network = network_of(KINDS[kind], torch.float64), network_of(KINDS[kind])
    graph = graph_of(network, *CASES[case])
    expected, plain = evaluate(exact, graph_of(exact, *CASES[case])), evaluate(network, graph)
    if case == "mixed":
        assert graph.n_angles > 32  # more than a tile
        assert expected.forces.abs().max() > 0.1
    for right, torchs, ours, floor in zip(expected[:3], plain, tiled(network, graph), (2e-6, 2e-6, 1e-7), strict=False):
        assert ours.dtype == torchs.dtype
        assert (ours.double() - right).abs().max() <= 2 * (torchs.double() - right).abs().max() + floor


def test_dummies_of_a_padded_graph_change_no_result():
    network = network_of(replace(KINDS["smooth"], num_layers=1))
    graph = graph_of(network, PAIR, WATER)
    whole = padded(graph, Buckets(bonds=16, angles=64, spare_bonds=8, spare_atoms=4))
    assert whole.n_bonds > graph.n_bonds
    assert whole.n_angles > graph.n_angles
    for right, ours in zip(tiled(network, graph), results_of(tiled(network, whole), graph), strict=True):
        if right is not None:
            assert torch.allclose(ours, right, rtol=1e-6, atol=2e-6)


def test_the_hessian_is_symmetric():
    """Forces are the gradient of one function: v·H·w = w·H·v, with H·w by finite differences of forces."""
    network, step = network_of(replace(KINDS["smooth"], num_layers=1)), 0.01
    directions = np.random.default_rng(0).normal(size=(3, 3, 3))  # of three atoms, three times
    places = [WATER.cart_coords + sign * step * d for d in directions for sign in (1, -1)]
    moved = [Structure(BOX, WATER.species, x, coords_are_cartesian=True) for x in places]
    forces = tiled(network, graph_of(network, *moved)).forces.double().view(3, 2, 9).numpy()
    products = directions.reshape(3, 9) @ (forces[:, 1] - forces[:, 0]).T / (2 * step)
    scale = np.abs(products).max()
    assert scale > 0.1
    assert np.abs(products - products.T).max() < 2e-3 * scale
    assert np.linalg.norm(products - np.diag(np.diag(products))) > 0.05 * scale  # so that the test can fail


def layer_and_inputs(make, copies, dtype, scale=1.0):
    """A layer; features of 41 edges; tables of nine nodes, of which the last has no edges; and their ends."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        layer = make(copies).requires_grad_(False)
        edge, ends, u = torch.randn(41, 32), torch.randint(8, (2, 41)), torch.rand(41)
        tables = [torch.randn(9, 2 * 64) for _ in range(3)]
        envelope = torch.randn(41 if copies == 2 else 9, 32)
        for weight in layer.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    if isinstance(layer, Attention):
        layer.logits.mul_(scale)
    u[::5] = 0
    ends = torch.cat([ends, ends.flip(1)], 1) if copies == 2 else ends
    target, source = (x.view(copies, -1) for x in ends)
    center = (target + source) // 2 if copies == 1 else None
    own = torch.arange(41).repeat(2)
    lists = [x.flatten().int() for x in (target, source)]
    layout = Layout(
        *lists, None if center is None else center.flatten().int(), lists[1] if copies == 1 else own.int(),
        *(Segments.of(x, 9) for x in lists), None if center is None else Segments.of(center.flatten(), 9), copies,
    )  # fmt: skip
    tensors = [x.to(dtype).requires_grad_() for x in (edge, u, envelope, *tables)]
    return layer.to(dtype), tensors, (target, source, center), layout


def gradients(results, tensors):
    """Results, and the gradients of a function of all of them."""
    total = sum((x.cos() * (1 + i)).sum() for i, x in enumerate(results))
    slopes = torch.autograd.grad(total, tensors)
    return [x.detach().double() for x in (*results, *slopes)]


def attention(copies, dtype, tiles, smooth=True, scale=3.0):
    layer, tensors, ends, layout = layer_and_inputs(
        lambda copies: Attention(64, 32, KINDS["smooth"], copies), copies, dtype, scale
    )
    edge, u, _, *tables = tensors
    at = [IndexedTable(table, end) for table, end in zip(tables, ends[:2], strict=False)]
    envelope = u if smooth else None
    if tiles:
        shared = Tiles(layout, layout, None, None, "ieee")
        results = shared.attention(layer.edge_mlp, layer.logits, layer.edge_residual, edge, *at, envelope)
    else:
        new, *sums = layer.messages(edge, *at, envelope, None)
        results = (new, *(x / y.clamp(min=torch.finfo(dtype).tiny) for x, y in (sums[:2], sums[2:])))
    return gradients(results, [edge, *tables[:2], *([u] if smooth else [])])


def refinement(copies, dtype, tiles, update=True, config=KINDS["biased"]):
    center = 64 if copies == 1 else 0
    layer, tensors, ends, layout = layer_and_inputs(
        lambda copies: Refinement(64, 32, config, copies, center), copies, dtype
    )
    edge, _, envelope, *tables = tensors
    at = [IndexedTable(table, end) for table, end in zip(tables, ends, strict=True) if end is not None]
    if tiles:
        change = EdgeUpdate(layer.edge_ffn, layer.edge_residual, layer.smooth_edges) if update else None
        shared = Tiles(layout, layout, None, None, "ieee")
        results = shared.refinement(layer.message_mlp, change, edge, envelope, at)
    else:
        entry = ends[1] if copies == 1 else layout.entry.long().view(2, -1)
        results = layer.messages(edge, envelope, entry, at, None, update_edges=update)
    return gradients(results, [edge, envelope, *(x.table for x in at)])


def close(ours, right, tolerance=2e-5):
    """Whether values agree, relative to the largest of each tensor."""
    pairs = list(zip(ours, right, strict=True))
    return all((a - b).abs().max() <= tolerance * b.abs().max() + 1e-7 for a, b in pairs)


@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize("copies", [1, 2])
def test_attention_and_its_gradients(copies, smooth):
    right = attention(copies, torch.float64, False, smooth)
    ours = attention(copies, torch.float32, True, smooth)
    if smooth:  # at u = 0, u has no slope
        ours[-1][::5] = right[-1][::5] = 0
    assert close(ours, right)
    assert all(x[8].abs().max() == 0 for x in ours[1:3])  # a node without edges


@pytest.mark.parametrize("config", [KINDS["published"], KINDS["biased"]], ids=["enveloped edges", "biases"])
@pytest.mark.parametrize("update", [False, True])
@pytest.mark.parametrize("copies", [1, 2])
def test_refinement_and_its_gradients(copies, update, config):
    right = refinement(copies, torch.float64, False, update, config)
    assert close(refinement(copies, torch.float32, True, update, config), right)


def test_the_comparison_can_fail():
    right = attention(1, torch.float64, False)
    assert not close([x * (1 + 1e-4) for x in right], right)


@pytest.mark.parametrize("smooth", [False, True])
def test_logits_far_apart_stay_finite(smooth):
    assert all(torch.isfinite(x).all() for x in attention(2, torch.float32, True, smooth, scale=1e4))


def test_an_edge_of_no_weight_has_no_influence_though_its_logit_is_large():
    layer, (edge, u, _, *tables), ends, layout = layer_and_inputs(
        lambda copies: Attention(64, 32, KINDS["smooth"], copies), 1, torch.float32
    )
    at = [IndexedTable(table, end) for table, end in zip(tables, ends[:2], strict=False)]
    weights, shared = (layer.edge_mlp, layer.logits, layer.edge_residual), Tiles(layout, layout, None, None, "ieee")
    large = edge.detach().clone()
    large[u == 0] *= 120 / (large[u == 0] @ layer.logits.T).max()  # e^120 overflows
    other = large.clone()
    other[u == 0] = 0
    for x, y in zip(shared.attention(*weights, large, *at, u)[1:], shared.attention(*weights, other, *at, u)[1:],
                    strict=True):  # fmt: skip
        assert torch.equal(x, y)


def test_what_is_not_a_number_stays_so():
    network = network_of(PUBLISHED)
    with torch.no_grad():
        network.blocks[0].atom_attention.edge_mlp.weight_in[0, 0] = math.nan
    graph = graph_of(network, PAIR, ATOM)
    result = tiled(network, graph)
    assert torch.isnan(result.energies[0])
    assert torch.isfinite(result.energies[1])


def test_a_second_way_back_gives_the_same():
    network = network_of(KINDS["smooth"])
    graph = graph_of(network, WATER)
    vectors = graph.vectors.clone().requires_grad_()
    energies, *_ = network(graph, vectors, chunks=Chunks(100, tiles=Tiles.of(graph, "ieee")))
    (first,) = torch.autograd.grad(energies.sum(), vectors, retain_graph=True)
    (second,) = torch.autograd.grad(energies.sum(), vectors)
    assert torch.equal(first, second)


@pytest.mark.parametrize("width", [1, 3, 9, 32])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sums_by_segment(width, dtype):
    generator = torch.Generator().manual_seed(0)
    index = torch.tensor([4, 0, 0, 5, 0, 4, *[1] * 3000])  # 2, 3 and 6 are empty
    x = torch.randn(len(index), width, generator=generator, dtype=dtype)
    factor, entry = torch.randn(4, width, generator=generator, dtype=dtype), index.flip(0) % 4
    segments = Segments.of(index, 7)
    tolerance = 1e-3 if dtype == torch.float32 else 1e-11
    assert torch.allclose(segments.sums(x), segment_sum(x, index, 7), atol=tolerance)
    right = segment_sum(x * factor[entry], index, 7)
    assert torch.allclose(segments.sums(x, factor, entry.int()), right, atol=tolerance)
    assert Segments.of(index[:0], 0).sums(x[:0]).shape == (0, width)


def test_graphs_that_int32_cannot_number_are_refused():
    class Huge:
        numbers, n_bonds, n_angles = torch.ones(3), 5, 2**31

    with pytest.raises(ValueError, match="2147483648 angles"):
        Tiles.of(Huge, "ieee")


def test_the_kernels_know_the_constants_of_the_layers():
    from matris.model import triton_kernels

    assert triton_kernels.NORM_EPS.value == LAYER_NORM_EPS
    assert triton_kernels.LN_2.value * kernels.LOG2_E == pytest.approx(1, rel=1e-15)


@pytest.mark.parametrize("smooth", [False, True])
def test_what_is_kept_of_bonds_and_angles(smooth, monkeypatch):
    monkeypatch.setattr(triton_messages, "_run", lambda *_, **__: None)  # what is kept does not depend on values
    config = replace(KINDS["smooth" if smooth else "published"], num_layers=10, pairwise_cutoff=5.0)
    widths = {"node_feat_dim": 128, "edge_feat_dim": 128, "three_body_feat_dim": 128}
    sizes = []
    for cutoff in (2.2, 4.5):
        network = network_of(replace(config, **widths, three_body_cutoff=cutoff))
        graph = graph_of(network, ROCK_SALT)
        skipped = {p.untyped_storage().data_ptr() for p in network.parameters()}
        kept = {}

        def note(tensor, kept=kept):
            kept[tensor.untyped_storage().data_ptr()] = tensor
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            tiled(network, graph)
        size = sum(t.untyped_storage().nbytes() for address, t in kept.items() if address not in skipped)
        sizes.append((graph.n_angles, size / (4 * 10 * 128)))
    (few, small), (many, large) = sizes
    of_angle = (large - small) / (many - few)
    assert of_angle == pytest.approx(_KEPT_OF_ANGLE_TILES, rel=0.1)
    assert (small - of_angle * few) / graph.n_bonds == pytest.approx(_KEPT_OF_BOND_TILES, rel=0.15)


@pytest.fixture
def unknown():
    triton_messages.computes.cache_clear()
    yield
    triton_messages.computes.cache_clear()


CPU = torch.device("cpu")


@pytest.mark.usefixtures("unknown")
def test_kernels_that_agree_with_torch_are_chosen(caplog):
    assert triton_messages.computes(KINDS["smooth"], CPU, torch.float32, "ieee")
    assert not caplog.text
    graph = triton_messages.check_graph(KINDS["smooth"], CPU)
    bonds = torch.bincount(torch.cat([graph.centers, graph.neighbors]), minlength=len(graph.numbers))
    angles = torch.bincount(graph.angle_target, minlength=graph.n_bonds)
    assert bonds.min() == angles.min() == 0
    assert angles.max() > 1


@pytest.mark.usefixtures("unknown")
@pytest.mark.parametrize(
    ("changes", "dtype", "says"),
    [
        ({}, torch.float64, "in torch.float64"),
        ({"norm_type": "rms"}, torch.float32, "need layer norms"),
        ({"graph_conv_mlp": "mlp"}, torch.float32, "gates"),
        ({"edge_feat_dim": 48}, torch.float32, "widths"),
    ],
)
def test_what_has_no_kernels_is_left_to_torch(changes, dtype, says, caplog):
    assert not triton_messages.computes(replace(PUBLISHED, **changes), CPU, dtype, "ieee")
    assert says in caplog.text


@pytest.mark.usefixtures("unknown")
def test_kernels_that_differ_are_not_chosen(caplog, monkeypatch):
    monkeypatch.setattr(triton_messages, "LOG2_E", kernels.LOG2_E * 1.01)
    assert not triton_messages.computes(PUBLISHED, CPU, torch.float32, "tf32x3")
    assert "torch computes the messages on cpu" in caplog.text
    assert "forces by" in caplog.text


@pytest.mark.usefixtures("unknown")
def test_without_triton_torch_does_the_work(caplog, monkeypatch):
    monkeypatch.setattr(triton_messages, "find_spec", lambda _: None)
    assert not triton_messages.computes(PUBLISHED, CPU, torch.float32, "ieee")
    assert "triton is not installed" in caplog.text


@pytest.mark.usefixtures("unknown")
def test_a_compiler_that_fails_is_told_of_and_a_full_device_raises(caplog, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError(message)

    monkeypatch.setattr(triton_messages, "_run", fail)
    message = "Failed to find C compiler.\nPlease specify one"
    assert not triton_messages.computes(PUBLISHED, CPU, torch.float32, "ieee")
    assert "RuntimeError: Failed to find C compiler." in caplog.text
    message = "CUDA out of memory. Tried to allocate 2 GiB"
    with pytest.raises(RuntimeError, match="out of memory"):
        triton_messages.computes(PUBLISHED, CPU, torch.float32, "bf16x3")


def test_a_potential_uses_them_while_memory_lasts(monkeypatch):
    model = Potential(network_of(PUBLISHED), CARD)
    geometries = [Geometry.of(WATER)]
    expected = model.evaluate(model.graph(geometries))
    monkeypatch.setattr(Potential, "tiled", True)
    monkeypatch.setattr(potential.kernels, "usable", lambda *_: False)
    graph = model.graph(geometries)
    with torch.inference_mode():
        chunks, result = model._chunks(graph), model.evaluate(graph)
    assert chunks.tiles.precision == model.precision == "tf32x3"
    assert torch.allclose(result.forces, expected.forces, atol=1e-5)
    assert model.bytes_kept(graph.n_bonds, graph.n_angles) < potential.bytes_kept(
        PUBLISHED, graph.n_bonds, graph.n_angles
    )
    model.memory = 1
    chunks = model._chunks(graph)
    assert chunks.tiles is None
    assert chunks.kept == 0
    assert torch.allclose(model.evaluate(graph).forces, expected.forces, atol=1e-5)
