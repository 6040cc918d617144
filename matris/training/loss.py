"""The training loss of MatRIS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from matris.model.chunked import segment_sum
from matris.model.network import evaluate
from matris.units import GPA

if TYPE_CHECKING:
    from matris.model.network import MatRIS
    from matris.training.data.frame import LabelledBatch


@dataclass(frozen=True)
class LossWeights:
    """Weights of the four errors (per eV/atom, eV/Å, GPa and μB); the defaults are the paper's."""

    energy: float = 5.0
    force: float = 5.0
    stress: float = 0.1
    magmom: float = 0.1


@dataclass(frozen=True)
class Errors:
    """
    Mean absolute errors of each structure of a batch, shape (S,), differentiable; zero without a label.

    Parameters
    ----------
    energy
        eV/atom.
    force
        Length of the force error vector, averaged over atoms (eV/Å).
    force_component
        Mean absolute error of a force component (eV/Å), the number that is usually published.
    stress
        GPa.
    magmom
        Averaged over the atoms with a label (μB).
    n_atoms, n_stresses, n_magmoms
        Number of atoms, of stress labels (0 or 1), and of atoms with a magnetic moment.
    """

    energy: torch.Tensor
    force: torch.Tensor
    force_component: torch.Tensor
    stress: torch.Tensor
    magmom: torch.Tensor
    n_atoms: torch.Tensor
    n_stresses: torch.Tensor
    n_magmoms: torch.Tensor

    def loss(self, weights: LossWeights) -> torch.Tensor:
        """Return the weighted sum of each structure, shape (S,); the loss of a batch is their mean."""
        weighted = weights.energy * self.energy + weights.force * self.force
        return weighted + weights.stress * self.stress + weights.magmom * self.magmom

    def sums(self) -> torch.Tensor:
        """
        Return sums over the batch, and the numbers to divide them by, shape (2, 5), in the order of `ERRORS`.

        Means of force components are over atoms, of moments over labelled atoms, of all others over structures.
        """
        ones = torch.ones_like(self.n_atoms)
        parts = (
            (self.energy, ones),
            (self.force, ones),
            (self.force_component, self.n_atoms),
            (self.stress, self.n_stresses),
            (self.magmom, self.n_magmoms),
        )
        return torch.stack([torch.stack([(e.double() * n).sum(), n.double().sum()]) for e, n in parts], dim=1)


ERRORS = ("energy", "force", "force_component", "stress", "magmom")
"""Names of the reported errors."""


def errors(network: MatRIS, batch: LabelledBatch, *, differentiable: bool) -> Errors:
    """
    Compute the errors of a network on a batch.

    Parameters
    ----------
    network
        The network.
    batch
        Labelled structures; stresses and magnetic moments may be NaN.
    differentiable
        Whether to keep the graph for gradients with respect to the weights.
    """
    graph = batch.graph
    magnetic = network.magmom_head is not None
    energies, forces, stresses, moments, _ = evaluate(network, graph, magmoms=magnetic, differentiable=differentiable)
    n_atoms = graph.n_atoms
    difference = forces - batch.forces
    # a tiny offset keeps the gradient of the length finite at zero
    length = torch.sqrt((difference**2).sum(1, keepdim=True) + 1e-12)
    lengths = torch.cat([length, difference.abs().mean(1, keepdim=True)], 1)
    force, component = (segment_sum(lengths, graph.system, graph.n_systems) / n_atoms[:, None]).unbind(1)
    with_stress = batch.stresses.isfinite().flatten(1).all(1)
    stress = (stresses - torch.where(with_stress[:, None, None], batch.stresses, 0.0)).abs().flatten(1).mean(1)
    magmom, n_magmoms = torch.zeros_like(force), torch.zeros_like(n_atoms)
    if moments is not None:
        has_moment = batch.magmoms.isfinite()
        wrong = (moments - torch.where(has_moment, batch.magmoms, 0.0)).abs() * has_moment
        wrong, counts = segment_sum(
            torch.stack([wrong, has_moment.to(wrong.dtype)], 1), graph.system, graph.n_systems
        ).T
        magmom, n_magmoms = wrong / counts.clamp(min=1), counts.to(n_atoms.dtype)
    return Errors(
        energy=((energies - batch.energies) / n_atoms).abs().float(),
        force=force,
        force_component=component,
        stress=GPA * stress * with_stress,
        magmom=magmom,
        n_atoms=n_atoms,
        n_stresses=with_stress.to(n_atoms.dtype),
        n_magmoms=n_magmoms,
    )
