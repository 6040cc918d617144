"""Larger networks that start as smaller ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase.build import bulk

from matris.errors import MatrisError
from matris.model.config import ModelConfig
from matris.model.graph import Geometry
from matris.model.network import MatRIS
from matris.training.data.element_energies import refit_reference_energies
from matris.training.data.frame import Frame, collate
from matris.training.finetuning import introduce
from matris.training.loss import LossWeights, errors
from recipes.embedded.widen import widen

SMALL = ModelConfig(
    num_layers=1,
    node_feat_dim=16,
    edge_feat_dim=8,
    three_body_feat_dim=8,
    mlp_hidden_dims=(16,),
    three_body_expansion="fourier",
    norm_type="layer",
    pairwise_cutoff=4.0,
    three_body_cutoff=3.0,
    use_smoothed_for_delta_edge=True,
)
LARGE = replace(SMALL, num_layers=2, node_feat_dim=48, edge_feat_dim=16, three_body_feat_dim=8, mlp_hidden_dims=(32,))


def frames():
    rng = np.random.default_rng(0)
    made = []
    for atoms in (bulk("NaCl", "rocksalt", a=5.5, cubic=True), bulk("Si")):
        atoms.rattle(0.1, rng=rng)
        made.append(Frame(Geometry.of(atoms), -3.0 * len(atoms), np.zeros((len(atoms), 3)), np.zeros((3, 3)), "x"))
    return made


@pytest.fixture
def networks():
    torch.manual_seed(0)
    small = MatRIS(SMALL, magmoms=False)
    for parameter in small.parameters():  # no weight is left at a value that hides a wrong copy
        parameter.data += 0.1 * torch.randn_like(parameter)
    return small.double(), widen(small, LARGE, magmoms=True).double()


def outputs(network):
    batch = collate(frames(), network.config)
    vectors = batch.graph.vectors.double().requires_grad_()
    graph = replace(batch.graph, vectors=vectors)
    energies = network(graph, vectors)[0]
    return energies, torch.autograd.grad(energies.sum(), vectors)[0]


def test_same_function(networks):
    (energies, gradient), (wide_energies, wide_gradient) = (outputs(network) for network in networks)
    assert energies.std() > 1e-3
    assert gradient.abs().max() > 1e-3
    torch.testing.assert_close(wide_energies, energies, rtol=0, atol=1e-6)
    torch.testing.assert_close(wide_gradient, gradient, rtol=0, atol=1e-6)


def test_copies_and_new_blocks_learn(networks):
    _, large = networks
    large.float().requires_grad_(True)
    errors(large, collate(frames(), LARGE), differentiable=True).loss(LossWeights()).mean().backward()
    # every second copy of a channel gets another gradient than the first
    gradient = large.blocks[0].atom_attention.edge_mlp.weight_in.grad.chunk(2, 0)[0]
    assert (gradient[:16] - gradient[16:32]).abs().max() > 1e-6
    assert large.blocks[1].atom_attention.node_mlp.norm.weight.grad.abs().max() > 0
    assert large.blocks[1].atom_refinement.node_ffn.second.weight.grad.abs().max() > 0


def test_a_width_that_is_no_multiple_is_refused():
    with pytest.raises(MatrisError, match="multiple"):
        widen(MatRIS(SMALL, magmoms=False), replace(SMALL, node_feat_dim=24), magmoms=False)


def test_new_elements_start_as_alike_ones():
    network = MatRIS(SMALL, magmoms=False)
    introduce(network, ["K", "La", "O"], ["Rb", "Nd"])
    rows = network.atom_embedding.weight
    assert torch.equal(rows[36], rows[18])
    assert torch.equal(rows[59], rows[56])


def test_refitted_energies_explain_the_rest(networks):
    network = networks[0].float()
    many = frames() * 8
    refit_reference_energies(network, many)
    rest = errors(network, collate(frames(), SMALL), differentiable=False)
    assert float(rest.energy.mean()) < 0.05
