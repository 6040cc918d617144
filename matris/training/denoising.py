"""Pre-training by denoising of positions.

The paper (arXiv 2603.02002) describes the idea without its form: atoms are displaced by σ_t ε with a random t and a
linear schedule, the forces of the labelled frame projected on its bonds are an invariant condition, and the network
predicts the noise. This is the simplest form that preserves all symmetries and trains the same output as forces: the
prediction of σ_t ε is the gradient of the network's scalar output with respect to the positions.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from matris.model.chunked import segment_sum
from matris.training.data.frame import collate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matris.model.graph import Graph
    from matris.model.network import MatRIS
    from matris.training.data.frame import Frame


@dataclass(frozen=True)
class DenoiseSettings:
    """
    Settings of pre-training.

    Parameters
    ----------
    epochs
        Passes over the training frames; 20 in the paper.
    smallest, largest
        Ends of the noise schedule (Å): σ_t grows linearly with t.
    """

    epochs: float = 20.0
    smallest: float = 0.02
    largest: float = 0.2

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012 - for configuration files


class Denoiser(nn.Module):
    """
    Predictor of the displacements of atoms from the labelled positions.

    Parameters
    ----------
    network
        The network that is trained.
    """

    def __init__(self, network: MatRIS) -> None:
        super().__init__()
        self.network = network
        self.condition = nn.Linear(2, network.config.edge_feat_dim, bias=False)

    def forward(self, graph: Graph, forces: torch.Tensor) -> torch.Tensor:
        """
        Predict displacements.

        Parameters
        ----------
        graph
            Graph of the displaced atoms.
        forces
            Forces at the labelled positions (eV/Å), shape (N, 3).

        Returns
        -------
        Tensor
            Å, shape (N, 3); they sum to zero in each structure.
        """
        unit = graph.vectors / torch.linalg.vector_norm(graph.vectors, dim=1, keepdim=True)
        bounded = forces / (1 + torch.linalg.vector_norm(forces, dim=1, keepdim=True))
        # projections on both directions of a bond, combined symmetrically
        a, b = (bounded[graph.centers] * unit).sum(1), -(bounded[graph.neighbors] * unit).sum(1)
        condition = self.condition(torch.stack([a + b, (a - b) ** 2], dim=1))
        with torch.enable_grad():
            vectors = graph.vectors.detach().requires_grad_()
            scalar = self.network(graph, vectors, condition=condition)[0].sum()
            (gradient,) = torch.autograd.grad(scalar, vectors, create_graph=True, materialize_grads=True)
        n = graph.numbers.shape[0]
        return segment_sum(gradient, graph.centers, n) - segment_sum(gradient, graph.neighbors, n)


class DenoiseObjective:
    """
    Objective of denoising; the loss is the mean error of the noise in units of σ_t.

    Parameters
    ----------
    module
        Predictor of the noise.
    settings
        Noise schedule.
    """

    names = ("noise",)

    def __init__(self, module: Denoiser, settings: DenoiseSettings) -> None:
        self.module, self.settings = module, settings

    def compile(self, frames: Sequence[Frame]) -> None:
        """Do nothing, since pre-training is short."""

    def compiled_share(self) -> float | None:
        """Return None: there is no compiled step."""
        return None

    def backward(self, frames: Sequence[Frame], scale: float, seeds: Sequence[Sequence[int]]) -> torch.Tensor:
        """Add the gradient of `scale` times the sum of losses to the gradients; return the scaled sum."""
        loss = scale * self._losses(frames, seeds).sum()
        loss.backward()
        return loss.detach()

    def sums(self, parts: Sequence[Sequence[Frame]]) -> torch.Tensor:
        """Return the sum of losses and the number of frames, shape (2, 1); the noise of a frame is always the same."""
        device = self.module.network.reference_energies.device
        sums = torch.zeros(2, 1, dtype=torch.float64, device=device)
        for part in parts:
            losses = self._losses(part, [(zlib.crc32(f.geometry.positions.tobytes()),) for f in part])
            sums += sums.new_tensor([[float(losses.detach().sum())], [len(part)]])
        return sums

    def score(self, errors: Mapping[str, float]) -> float:
        """Return the mean loss."""
        return errors["noise"]

    def _losses(self, frames: Sequence[Frame], seeds: Sequence[Sequence[int]]) -> torch.Tensor:
        """Return the mean length of the error of ε in each structure, shape (S,)."""
        network = self.module.network
        noises, sigmas, moved = [], [], []
        for frame, seed in zip(frames, seeds, strict=True):
            rng = np.random.default_rng(seed)
            sigma = self.settings.smallest + rng.random() * (self.settings.largest - self.settings.smallest)
            noise = rng.normal(size=frame.forces.shape)
            noise -= noise.mean(0)  # a translation of the crystal cannot be predicted
            geometry = replace(frame.geometry, positions=frame.geometry.positions + sigma * noise)
            moved.append(replace(frame, geometry=geometry))
            noises.append(noise)
            sigmas.append(sigma)
        batch = collate(moved, network.config, network.reference_energies.device)
        graph = batch.graph
        sigma_of = torch.tensor(sigmas, dtype=batch.forces.dtype, device=batch.forces.device)[graph.system][:, None]
        prediction = self.module(graph, batch.forces) / sigma_of
        target = prediction.new_tensor(np.concatenate(noises))
        length = torch.sqrt(((prediction - target) ** 2).sum(1, keepdim=True) + 1e-12)
        return segment_sum(length, graph.system, graph.n_systems).flatten() / graph.n_atoms
