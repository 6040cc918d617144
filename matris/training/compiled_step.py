"""Loss and gradient of a batch as one compiled function.

Forces are gradients, so training needs second derivatives, for which autograd runs thousands of small operations that
are bound by memory bandwidth. Here the forward and backward passes are traced once into a list of operations, which
torch's inductor fuses and compiles, on CPUs with the C++ compiler of the machine. Compilation takes minutes for a small
network, in proportion to its blocks; torch caches the result.
"""

from __future__ import annotations

from dataclasses import fields
from itertools import chain
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch._inductor import standalone_compile
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext

from matris.model.graph import Graph
from matris.training.data.frame import LabelledBatch
from matris.training.loss import errors

if TYPE_CHECKING:
    from matris.model.network import MatRIS
    from matris.training.loss import LossWeights

_GRAPH = [f.name for f in fields(Graph)]
_LABELS = [f.name for f in fields(LabelledBatch) if f.name != "graph"]


class CompiledStep:
    """
    Losses of a batch, and the gradient of their sum with respect to the weights of a network.

    Parameters
    ----------
    network
        The network; its weights may change between calls.
    weights
        Weights of the loss.
    example
        A typical batch with at least two structures, and with angles.
    """

    def __init__(self, network: MatRIS, weights: LossWeights, example: LabelledBatch) -> None:
        loss = _Loss(network, weights)
        names = [name for name, _ in loss.named_parameters()]
        rest = [name for name, _ in loss.named_buffers()]

        def step(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
            parameters = [t.detach().requires_grad_() for t in tensors[: len(names)]]
            buffers, batch = tensors[len(names) :][: len(rest)], tensors[len(names) + len(rest) :]
            state = dict(zip([*names, *rest], [*parameters, *buffers], strict=True))
            losses = functional_call(loss, state, batch)
            gradients = torch.autograd.grad(losses.sum(), parameters, materialize_grads=True, allow_unused=True)
            return losses.detach(), *gradients

        self._parameters = list(network.parameters())
        self._state = [p.detach() for p in chain(network.parameters(), network.buffers())]
        mode = FakeTensorMode(shape_env=ShapeEnv())
        fakes = [_fake(mode, t, dynamic=False) for t in self._state]
        fakes += [_fake(mode, t, dynamic=True) for t in _flat(example)]
        recorded = make_fx(step, tracing_mode="symbolic")(*fakes)
        recorded.graph.eliminate_dead_code()
        recorded.recompile()
        with torch.no_grad():
            self._step = standalone_compile(recorded, [*self._state, *_flat(example)])

    @staticmethod
    def takes(batch: LabelledBatch) -> bool:
        """Whether the compiled function supports a batch; sizes of zero and one would need their own compilation."""
        return min(t.shape[0] for t in _flat(batch)) > 1

    @torch.no_grad()
    def backward(self, batch: LabelledBatch, scale: float) -> torch.Tensor:
        """Add `scale` times the gradient of the sum of losses to the gradients; return the losses, shape (S,)."""
        losses, *gradients = self._step(*self._state, *_flat(batch))
        pairs = [(p.grad, g) for p, g in zip(self._parameters, gradients, strict=True) if p.grad is not None]
        torch._foreach_add_([g for g, _ in pairs], [g for _, g in pairs], alpha=scale)
        return losses


class _Loss(nn.Module):
    """Losses of structures as a function of the flat tensors of a batch."""

    def __init__(self, network: MatRIS, weights: LossWeights) -> None:
        super().__init__()
        self.network, self.weights = network, weights

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        graph = Graph(**dict(zip(_GRAPH, tensors, strict=False)))
        batch = LabelledBatch(graph, **dict(zip(_LABELS, tensors[len(_GRAPH) :], strict=True)))
        return errors(self.network, batch, differentiable=True).loss(self.weights)


def _flat(batch: LabelledBatch) -> list[torch.Tensor]:
    return [*(getattr(batch.graph, name) for name in _GRAPH), *(getattr(batch, name) for name in _LABELS)]


def _fake(mode: FakeTensorMode, tensor: torch.Tensor, *, dynamic: bool) -> torch.Tensor:
    """Make a fake tensor for tracing; a dynamic one has any number of rows."""
    sizes = [DimDynamic.STATIC] * tensor.ndim
    if dynamic:
        sizes[0] = DimDynamic.DUCK
    return mode.from_tensor(tensor, symbolic_context=StatelessSymbolicContext(dynamic_sizes=sizes))
