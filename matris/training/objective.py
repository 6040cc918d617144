"""Training objectives: losses of frames with their gradients, and errors to report."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Protocol

import torch

from matris.training.data.frame import collate
from matris.training.loss import ERRORS, errors

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import nn

    from matris.model.network import MatRIS
    from matris.training.compiled_step import CompiledStep
    from matris.training.data.frame import Frame, LabelledBatch
    from matris.training.loss import LossWeights


class Objective(Protocol):
    """
    Interface for `matris.training.trainer.train`.

    Attributes
    ----------
    module
        Module with the weights.
    names
        Names of the reported errors.
    """

    @property
    def module(self) -> nn.Module:
        """Module with the weights."""
        ...

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the errors that are reported."""
        ...

    def compile(self, frames: Sequence[Frame]) -> None:
        """Compile the step, with frames as an example."""

    def compiled_share(self) -> float | None:
        """Return the share of batches since the last call that the compiled step computed; None if there is none."""
        ...

    def backward(self, frames: Sequence[Frame], scale: float, seeds: Sequence[Sequence[int]]) -> torch.Tensor:
        """
        Add the gradient of `scale` times the sum of losses to the gradients; return the scaled sum.

        Each frame has its own seed, made of its position in the training.
        """
        ...

    def sums(self, parts: Sequence[Sequence[Frame]]) -> torch.Tensor:
        """Return sums of errors, and the numbers to divide them by, shape (2, len(names))."""
        ...

    def score(self, errors: Mapping[str, float]) -> float:
        """Return the mean loss of frames with these mean errors."""
        ...


class LabelObjective:
    """
    Objective of the labels: energies, forces, stresses, magnetic moments, and energies of atoms.

    Parameters
    ----------
    module
        The network.
    weights
        Weights of the loss.
    """

    names = ERRORS

    def __init__(self, module: MatRIS, weights: LossWeights) -> None:
        self.module, self.weights = module, weights
        self._compiled: CompiledStep | None = None
        self._batches = self._by_torch = 0

    def compile(self, frames: Sequence[Frame]) -> None:
        """Compile loss and gradient as one function."""
        from matris.training.compiled_step import CompiledStep

        self._compiled = CompiledStep(self.module, self.weights, self._collate(frames))

    def compiled_share(self) -> float | None:
        """Return the share of batches since the last call that the compiled step computed; None if there is none."""
        batches, by_torch = self._batches, self._by_torch
        self._batches = self._by_torch = 0
        return None if self._compiled is None or not batches else 1 - by_torch / batches

    def backward(self, frames: Sequence[Frame], scale: float, seeds: Sequence[Sequence[int]]) -> torch.Tensor:  # noqa: ARG002
        """Add the gradient of `scale` times the sum of losses to the gradients; return the scaled sum."""
        batch = self._collate(frames)
        self._batches += 1
        if self._compiled is not None and self._compiled.takes(batch):
            return scale * self._compiled.backward(batch, scale).sum()
        self._by_torch += 1
        loss = scale * errors(self.module, batch, differentiable=True).loss(self.weights).sum()
        loss.backward()
        return loss.detach()

    def sums(self, parts: Sequence[Sequence[Frame]]) -> torch.Tensor:
        """Return sums of errors, and the numbers to divide them by, shape (2, 6)."""
        device = self.module.reference_energies.device
        sums = torch.zeros(2, len(self.names), dtype=torch.float64, device=device)
        for part in parts:
            sums += errors(self.module, self._collate(part), differentiable=False).sums()
        return sums

    def score(self, errors: Mapping[str, float]) -> float:
        """Return the weighted sum of the errors."""
        return sum(weight * errors.get(name, 0.0) for name, weight in asdict(self.weights).items())

    def _collate(self, frames: Sequence[Frame]) -> LabelledBatch:
        return collate(frames, self.module.config, self.module.reference_energies.device)
