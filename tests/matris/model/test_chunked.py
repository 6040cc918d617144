"""Going through bonds and angles in chunks changes the memory, not the numbers."""

from __future__ import annotations

import pytest
import torch
from pymatgen.core import Lattice, Structure

from matris.model import kernels
from matris.model.chunked import Chunks, IndexedTable, Segments, map_rows
from matris.model.config import ModelConfig
from matris.model.graph import Batch, Geometry, build_graph
from matris.model.network import MatRIS, evaluate
from matris.model.potential import (
    _ENVELOPES_OF_ANGLE,
    _ENVELOPES_OF_BOND,
    _KEPT_OF_ANGLE,
    _KEPT_OF_ANGLE_KERNELS,
    _KEPT_OF_BOND,
    _KEPT_OF_BOND_KERNELS,
    load,
)
from tests.matris.golden import golden_potential, structures

ISOLATED = Structure(Lattice.cubic(20), ["Na"], [[0, 0, 0]])
KERNELS = Chunks(1024, kernels=True)
CASES = {
    "mixed": [structures()[n] for n in ("Si8", "Cu1_fcc", "CuInSe2_triclinic", "no_angles")] + [ISOLATED],
    "no angles": [structures()["no_angles"]],
    "no bonds": [ISOLATED],
}


@pytest.mark.parametrize("chunks", [Chunks(7, 0), Chunks(64), Chunks(10**6, 0)], ids=str)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", ["released_uneven", "sh_rms", "gauss_mlp_bias"])
def test_chunks_change_nothing(name, case, chunks):
    potential = golden_potential(name, torch.float64)
    graph = potential.graph([Geometry.of(s) for s in CASES[case]])
    whole = evaluate(potential.network, graph, magmoms=potential.has_magmoms)
    pieces = evaluate(potential.network, graph, magmoms=potential.has_magmoms, chunks=chunks)
    for one, other in zip(whole, pieces, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            assert torch.allclose(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kept", [0, 0.5, 1])
def test_gradients_of_rows_and_of_tables(kept):
    generator = torch.Generator().manual_seed(1)
    rows = torch.randn(11, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    table = torch.randn(4, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    fixed = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    index = torch.randint(4, (2, 11), generator=generator)

    def function(x, gathered, constant):
        both = x.repeat(2, 1) * gathered + constant
        return x.sin(), both**2, both.exp()

    def call(rows, table):
        tables = [IndexedTable(table, index), IndexedTable(fixed, index)]
        segments = [Segments(index, 4), Segments(index.flip(0), 4)]
        return map_rows(function, [rows], tables, segments, Chunks(4, kept))

    assert torch.autograd.gradcheck(call, (rows, table))
    assert torch.autograd.gradcheck(lambda r: call(r, table.detach())[1], (rows,))  # results that no one reads


def kept_bytes(config, cutoff, chunks):
    """Bonds, angles, and what is kept of them for the backward pass, without weights."""
    network = MatRIS(ModelConfig(**config, three_body_cutoff=cutoff), magmoms=False).requires_grad_(False)
    graph = build_graph(Batch.of([Geometry.of(structures()["NaCl8"])]), network.config.pairwise_cutoff, cutoff)
    weights = {p.untyped_storage().data_ptr() for p in network.parameters()}
    kept = {}

    def note(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor  # held, so that no address is used twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        evaluate(network, graph, chunks=chunks)
    size = sum(t.untyped_storage().nbytes() for address, t in kept.items() if address not in weights)
    return graph.n_bonds, graph.n_angles, size


def test_memory_is_known_before_graphs_are_built(tiny_checkpoint):
    potential = load(str(tiny_checkpoint), device="cpu")
    geometries = [Geometry.of(structure) for structure in structures().values()]
    graph = potential.graph(geometries)
    predicted = sum(potential.bytes_of(geometry) for geometry in geometries)
    assert predicted == potential.bytes_kept(graph.n_bonds, graph.n_angles) > 0


@pytest.mark.parametrize(
    ("chunks", "smooth", "of_angle", "of_bond"),
    [
        (None, False, _KEPT_OF_ANGLE, _KEPT_OF_BOND),
        (KERNELS, False, _KEPT_OF_ANGLE_KERNELS, _KEPT_OF_BOND_KERNELS),
        (None, True, _KEPT_OF_ANGLE + _ENVELOPES_OF_ANGLE, _KEPT_OF_BOND + _ENVELOPES_OF_BOND),
        (KERNELS, True, _KEPT_OF_ANGLE_KERNELS, _KEPT_OF_BOND_KERNELS),
    ],
    ids=["torch", "compiled", "torch, smooth", "compiled, smooth"],
)
def test_what_is_kept_of_bonds_and_angles(chunks, smooth, of_angle, of_bond):
    if chunks and not kernels.library():
        pytest.skip("no C compiler")
    config = {"num_layers": 3, "norm_type": "layer", "three_body_expansion": "fourier", "pairwise_cutoff": 6.0}
    config |= {"smooth": True, "three_body_expansion": "chebyshev"} if smooth else {}
    bonds, few, small = kept_bytes(config, 3.0, chunks)
    _, many, large = kept_bytes(config, 4.5, chunks)
    per_angle = (large - small) / (many - few) / (4 * 3 * 128)
    per_bond = (small / (4 * 3 * 128) - per_angle * few) / bonds
    assert per_angle == pytest.approx(of_angle, rel=0.1)
    assert per_bond == pytest.approx(of_bond, rel=0.15)
