"""Pre-training that removes noise from positions.

The paper (arXiv 2603.02002) tells the idea, not its form: atoms are moved by σ_t ε, of a random t and a linear
schedule; the forces of the labelled frame, projected on its bonds, are an invariant condition; the noise is to be
predicted. Ours is the simplest form that keeps all symmetries and trains what forces come from: the prediction of
σ_t ε is the gradient of the network's own scalar by the positions, as forces are.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from matris.model.rows import segment_sum
from matris.training.data.frame import collate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matris.model.graph import Graph
    from matris.model.network import MatRIS
    from matris.training.data.frame import Frame


@dataclass(frozen=True)
class DenoiseSettings:
    """
    How to pre-train.

    Parameters
    ----------
    epochs
        Passes over the training frames; the paper's 20.
    smallest, largest
        Ends of the noise schedule (Å): σ_t grows linearly with t.
    """

    epochs: float = 20.0
    smallest: float = 0.02
    largest: float = 0.2

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012 - for configuration files


class Denoiser(nn.Module):
    """
    Predicts how far atoms are from where their forces were known.

    Parameters
    ----------
    network
        What is trained.
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
            Of the displaced atoms.
        forces
            Of the atoms before (eV/Å), shape (N, 3).

        Returns
        -------
        Tensor
            Å, shape (N, 3); they sum to zero in each structure.
        """
        unit = graph.vectors / torch.linalg.vector_norm(graph.vectors, dim=1, keepdim=True)
        bounded = forces / (1 + torch.linalg.vector_norm(forces, dim=1, keepdim=True))
        # towards each end of a bond; what follows is the same for both ends
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
    The noise: its mean error, in units of σ_t, is the loss.

    Parameters
    ----------
    module
        What predicts it.
    settings
        How much noise.
    """

    names = ("noise",)

    def __init__(self, module: Denoiser, settings: DenoiseSettings) -> None:
        self.module, self.settings = module, settings

    def compile(self, frames: Sequence[Frame]) -> None:
        """Leave it as it is: pre-training is short."""

    def backward(self, frames: Sequence[Frame], scale: float, seeds: Sequence[Sequence[int]]) -> torch.Tensor:
        """Add the gradient of the frames' losses, summed and times `scale`, to the weights'; give that scaled sum."""
        loss = scale * self._losses(frames, seeds).sum()
        loss.backward()
        return loss.detach()

    def sums(self, parts: Sequence[Sequence[Frame]]) -> torch.Tensor:
        """Losses summed over frames, and the number of these, shape (2, 1); a frame's noise is always the same."""
        device = self.module.network.reference_energies.device
        sums = torch.zeros(2, 1, dtype=torch.float64, device=device)
        for part in parts:
            losses = self._losses(part, [(zlib.crc32(f.geometry.positions.tobytes()),) for f in part])
            sums += sums.new_tensor([[float(losses.detach().sum())], [len(part)]])
        return sums

    def score(self, errors: Mapping[str, float]) -> float:
        """Give the mean loss."""
        return errors["noise"]

    def _losses(self, frames: Sequence[Frame], seeds: Sequence[Sequence[int]]) -> torch.Tensor:
        """Mean length of the error of ε over the atoms of each structure, shape (S,)."""
        network = self.module.network
        noises, sigmas, moved = [], [], []
        for frame, seed in zip(frames, seeds, strict=True):
            rng = np.random.default_rng(seed)
            sigma = self.settings.smallest + rng.random() * (self.settings.largest - self.settings.smallest)
            noise = rng.normal(size=frame.forces.shape)
            noise -= noise.mean(0)  # nobody can tell where a crystal was
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
