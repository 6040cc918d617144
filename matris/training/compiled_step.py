"""Loss and gradient of a batch as one compiled function.

Forces are gradients, so training needs second derivatives, for which autograd runs thousands of small operations that
are bound by memory bandwidth. Here the forward and backward passes are traced once into a list of operations, which
torch's inductor fuses and compiles: on CPUs with the C++ compiler of the machine, on GPUs with Triton. That takes
minutes for a small network, in proportion to its blocks; torch caches the result.
"""

from __future__ import annotations

import logging
from dataclasses import fields
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch._inductor import standalone_compile
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext

from matris.errors import MatrisError
from matris.model.graph import Graph
from matris.training.data.frame import LabelledBatch
from matris.training.loss import errors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matris.model.network import MatRIS
    from matris.training.loss import LossWeights

logger = logging.getLogger(__name__)

_TOLERANCE = 5e-3
"""Largest difference from torch on the example, as a share of the largest loss and the largest gradient."""
_KINDS = {"cpu": "C++ for this processor", "cuda": "kernels in Triton; torch's libraries multiply matrices"}
_GRAPH = [f.name for f in fields(Graph)]
_LABELS = [f.name for f in fields(LabelledBatch) if f.name != "graph"]


class CompiledStep:
    """
    Losses of a batch, and the gradient of their sum with respect to the weights of a network.

    When it is made it is compared with torch on the example, and the log says what computes the step. Nobody has run it
    on a GPU yet. There, sums are made by atomic operations, so that equal steps differ in their last digits.

    Parameters
    ----------
    network
        The network; its weights may change between calls.
    weights
        Weights of the loss.
    example
        A typical batch with at least two structures, and with angles.

    Raises
    ------
    MatrisError
        If the step does not compile, or differs from torch.
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
        device = self._state[0].device
        inputs: list[Any] = [*self._state, *_flat(example)]
        try:
            with torch.no_grad():
                self._step = standalone_compile(recorded, inputs)
                results = self._step(*inputs)
        except Exception as error:  # whatever a compiler or a driver raises
            reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
            raise MatrisError(
                f"the training step does not compile for {device}: train with compiled_step: false ({reason[:300]})"
            ) from error
        difference = _difference(results, step(*inputs))
        if not difference <= _TOLERANCE:
            raise MatrisError(
                f"the compiled training step differs from torch on {device} by {difference:.1e} of the largest value: "
                "train with compiled_step: false"
            )
        logger.info(
            "compiled training step on %s: inductor made %d operations into %s; it differs from torch by %.1e of the "
            "largest value. Batches of one structure, or without angles, are computed by torch: see the column "
            "compiled of the log",
            device, len(recorded.graph.nodes), _KINDS.get(device.type, "kernels"), difference,
        )  # fmt: skip

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


def _difference(ours: Sequence[torch.Tensor], torchs: Sequence[torch.Tensor]) -> float:
    """Largest difference of losses, and of gradients, as a share of the largest loss and the largest gradient."""
    (losses, *gradients), (right, *rights) = ours, torchs
    of_losses = float((losses - right).abs().max() / right.abs().max())
    largest = max(float(x.abs().max()) for x in rights)
    return max(of_losses, *(float((x - y).abs().max()) / largest for x, y in zip(gradients, rights, strict=True)))


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
