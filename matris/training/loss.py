"""The loss that MatRIS is trained with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from matris.network import evaluate
from matris.records import GPA
from matris.rows import segment_sum

if TYPE_CHECKING:
    from matris.network import MatRIS
    from matris.training.data import LabelledBatch


@dataclass(frozen=True)
class LossWeights:
    """Weights of the three errors, as the paper gives them (per eV/atom, eV/Å and GPa)."""

    energy: float = 5.0
    force: float = 5.0
    stress: float = 0.1


@dataclass(frozen=True)
class Errors:
    """
    Mean absolute errors of a batch, differentiable.

    Parameters
    ----------
    energy
        eV/atom.
    force
        Length of the force error, averaged over the atoms of a structure, then over structures (eV/Å).
    force_component
        Mean absolute error of a force component over all atoms (eV/Å), as peers report it.
    stress
        GPa.
    """

    energy: torch.Tensor
    force: torch.Tensor
    force_component: torch.Tensor
    stress: torch.Tensor

    def loss(self, weights: LossWeights) -> torch.Tensor:
        """Weighted sum."""
        return weights.energy * self.energy + weights.force * self.force + weights.stress * self.stress


def errors(network: MatRIS, batch: LabelledBatch, *, differentiable: bool) -> Errors:
    """
    Errors of a network on a batch.

    Parameters
    ----------
    network
        The network.
    batch
        Labelled structures.
    differentiable
        Whether the errors are to be differentiated by the weights.
    """
    graph = batch.graph
    energies, forces, stresses, _ = evaluate(network, graph, differentiable=differentiable)
    n_atoms = graph.n_atoms
    difference = forces - batch.forces
    # a tiny offset keeps the gradient of the length finite at zero
    length = torch.sqrt((difference**2).sum(1, keepdim=True) + 1e-12)
    per_structure = segment_sum(length, graph.system, graph.n_systems).flatten() / n_atoms
    return Errors(
        energy=((energies - batch.energies) / n_atoms).abs().mean().float(),
        force=per_structure.mean(),
        force_component=difference.abs().mean(),
        stress=GPA * (stresses - batch.stresses).abs().mean(),
    )
