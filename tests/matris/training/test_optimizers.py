"""Optimizers: which weights each holds, and Muon's step against its definition."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from matris.model.network import MatRIS
from matris.training.optimizers import make_optimizers
from recipes.embedded.start import CONFIG

RATE = 1e-2


@pytest.fixture
def named():
    torch.manual_seed(0)
    network = MatRIS(replace(CONFIG, num_layers=1), magmoms=False)
    for p in network.parameters():
        p.grad = torch.randn_like(p)
    return [(name, p, 0.5 if name.startswith("blocks") else 1.0) for name, p in network.named_parameters()]


def pointers(optimizers):
    return sorted(p.data_ptr() for o in optimizers for group in o.param_groups for p in group["params"])


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_each_weight_belongs_to_one_optimizer(named, kind):
    optimizers = make_optimizers(kind, named, RATE, 0.0)
    assert len(optimizers) == {"adamw": 1, "muon": 2}[kind]
    assert pointers(optimizers) == sorted(p.data_ptr() for _, p, _ in named)
    assert {group["factor"] for o in optimizers for group in o.param_groups} == {0.5, 1.0}
    before = [p.detach().clone() for _, p, _ in named]
    for optimizer in optimizers:
        optimizer.step()
    for (name, p, _), old in zip(named, before, strict=True):
        assert not torch.equal(p, old), name


def test_muon_makes_the_update_of_a_matrix_orthogonal(named):
    """All singular values of U Vᵀ are one; five iterations bring all but the least to about 0.7 to 1.13 (K. Jordan)."""
    (muon, rest) = make_optimizers("muon", named, RATE, 0.0)
    kept = set(pointers([rest]))
    before = {name: p.detach().clone() for name, p, _ in named}
    muon.step()
    changed = 0
    for name, p, _ in named:
        update = p.detach() - before[name]
        if p.data_ptr() in kept:
            assert not update.any(), name
            continue
        update = update.flatten(0, -2)
        changed += p.numel()
        values = torch.linalg.svdvals(update) / (RATE * 0.2 * max(update.shape) ** 0.5)
        assert values.quantile(0.05) > 0.6, name
        assert values.max() < 1.25, name
        u, _, v = torch.linalg.svd(p.grad.flatten(0, -2), full_matrices=False)
        assert torch.nn.functional.cosine_similarity(update.flatten(), -(u @ v).flatten(), 0) > 0.95, name
    assert changed > 0.9 * sum(p.numel() for _, p, _ in named)


def test_muon_without_a_matrix(named):
    biases = [(name, p, factor) for name, p, factor in named if "bias" in name]
    assert [type(o).__name__ for o in make_optimizers("muon", biases, RATE, 0.0)] == ["AdamW"]
