"""Layers that attention and refinement are made of: norms, gated MLPs and feed-forward networks."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

LAYER_NORM_EPS = 1e-5


class Norm(nn.Module):
    """Layer norm or root-mean-square norm over the last axis, with weights of shape (branches, d)."""

    def __init__(self, dim: int, kind: str, branches: int = 1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(branches, dim))
        self.bias = nn.Parameter(torch.zeros(branches, dim)) if kind == "layer" else None

    def forward(self, x: torch.Tensor, branch: int = 0) -> torch.Tensor:
        """Normalise with the weights of one branch; the shape is kept."""
        weight = self.weight[branch]
        if self.bias is None:
            return functional.rms_norm(x, (x.shape[-1],), weight)
        return functional.layer_norm(x, (x.shape[-1],), weight, self.bias[branch], LAYER_NORM_EPS)


class GatedMLP(nn.Module):
    """
    SiLU(norm(MLP_core(x))) · sigmoid(norm(MLP_gate(x))), or norm(MLP(x)) without a gate.

    x is a concatenation of blocks. The caller projects each block (`project`), adds the projections, and maps the sum
    to the result (`finish`).

    Parameters
    ----------
    inputs
        Widths of the blocks of x.
    hidden, out
        Width of the hidden layer and of the result.
    norm
        Kind of norm: ``"layer"`` or ``"rms"``.
    gated
        Whether there is a gate.
    """

    def __init__(self, inputs: tuple[int, ...], hidden: int, out: int, norm: str, *, gated: bool) -> None:
        super().__init__()
        branches = 2 if gated else 1
        self.inputs, self.hidden, self.gated = inputs, hidden, gated
        self.weight_in = nn.Parameter(torch.empty(branches * hidden, sum(inputs)))
        self.bias_in = nn.Parameter(torch.zeros(branches * hidden))
        self.weight_out = nn.Parameter(torch.empty(branches, out, hidden))
        self.bias_out = nn.Parameter(torch.zeros(branches, out))
        self.norm = Norm(out, norm, branches)
        nn.init.normal_(self.weight_in, std=sum(inputs) ** -0.5)
        nn.init.normal_(self.weight_out, std=hidden**-0.5)

    def project(self, block: int, x: torch.Tensor) -> torch.Tensor:
        """Project one block of inputs to the hidden layer, shape (rows, branches · hidden)."""
        start = sum(self.inputs[:block])
        weight = self.weight_in[:, start : start + self.inputs[block]]
        return functional.linear(x, weight, self.bias_in if block == 0 else None)

    def finish(self, hidden: torch.Tensor) -> torch.Tensor:
        """Map the sum of the projections to the result, shape (rows, out)."""
        hidden = functional.silu(hidden)
        if not self.gated:
            return self.norm(functional.linear(hidden, self.weight_out[0], self.bias_out[0]))
        core, gate = (
            functional.linear(x, weight, bias)
            for x, weight, bias in zip(hidden.chunk(2, 1), self.weight_out, self.bias_out, strict=True)
        )
        return functional.silu(self.norm(core, 0)) * torch.sigmoid(self.norm(gate, 1))


class FeedForward(nn.Module):
    """Linear–SiLU–Linear. The second layer is linear, and is applied after the mean over directed copies."""

    def __init__(self, inputs: int, hidden: int, out: int, *, bias: bool) -> None:
        super().__init__()
        self.first = nn.Linear(inputs, hidden, bias=bias)
        self.second = nn.Linear(hidden, out, bias=bias)

    def forward(self, x: torch.Tensor, copies: int = 1) -> torch.Tensor:
        """Map (copies · m, inputs) to the mean over copies, (m, out)."""
        out: torch.Tensor = self.second(mean_of_copies(functional.silu(self.first(x)), copies))
        return out


def to_copies(x: torch.Tensor, copies: int) -> torch.Tensor:
    """Repeat rows for each directed copy: (m, d) to (copies · m, d)."""
    return x if copies == 1 else x.repeat(copies, 1)


def mean_of_copies(x: torch.Tensor, copies: int) -> torch.Tensor:
    """Average directed copies: (copies · m, d) to (m, d)."""
    return x if copies == 1 else x.view(copies, x.shape[0] // copies, x.shape[1]).mean(0)
