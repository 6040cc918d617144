"""The training loss of MatRIS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from matris.model.chunked import segment_sum
from matris.model.network import evaluate
from matris.units import GPA

if TYPE_CHECKING:
    from matris.model.graph import Graph
    from matris.model.network import MatRIS
    from matris.training.data.frame import LabelledBatch


@dataclass(frozen=True)
class LossWeights:
    """
    Weights of the errors (per eV/atom, eV/Å, GPa, μB and eV); the defaults are the paper's.

    The energies of atoms are a target only for labels of a teacher potential that gives them.
    """

    energy: float = 5.0
    force: float = 5.0
    stress: float = 0.1
    magmom: float = 0.1
    atom_energy: float = 0.0


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
    atom_energy
        Averaged over the atoms with a label (eV).
    n_atoms, n_energies, n_stresses, n_magmoms, n_atom_energies
        Number of atoms, of labels of the energy and of the stress (0 or 1), and of atoms with a magnetic moment and
        with an energy.
    """

    energy: torch.Tensor
    force: torch.Tensor
    force_component: torch.Tensor
    stress: torch.Tensor
    magmom: torch.Tensor
    atom_energy: torch.Tensor
    n_atoms: torch.Tensor
    n_energies: torch.Tensor
    n_stresses: torch.Tensor
    n_magmoms: torch.Tensor
    n_atom_energies: torch.Tensor

    def loss(self, weights: LossWeights) -> torch.Tensor:
        """Return the weighted sum of each structure, shape (S,); the loss of a batch is their mean."""
        weighted = weights.energy * self.energy + weights.force * self.force
        weighted = weighted + weights.stress * self.stress + weights.magmom * self.magmom
        return weighted + weights.atom_energy * self.atom_energy

    def sums(self) -> torch.Tensor:
        """
        Return sums over the batch, and the numbers to divide them by, shape (2, 6), in the order of `ERRORS`.

        Means of force components are over atoms, of moments and energies of atoms over labelled atoms, of all others
        over structures.
        """
        ones = torch.ones_like(self.n_atoms)
        parts = (
            (self.energy, self.n_energies),
            (self.force, ones),
            (self.force_component, self.n_atoms),
            (self.stress, self.n_stresses),
            (self.magmom, self.n_magmoms),
            (self.atom_energy, self.n_atom_energies),
        )
        return torch.stack([torch.stack([(e.double() * n).sum(), n.double().sum()]) for e, n in parts], dim=1)


ERRORS = ("energy", "force", "force_component", "stress", "magmom", "atom_energy")
"""Names of the reported errors."""


def errors(network: MatRIS, batch: LabelledBatch, *, differentiable: bool) -> Errors:
    """
    Compute the errors of a network on a batch.

    Parameters
    ----------
    network
        The network.
    batch
        Labelled structures; all but forces may be NaN.
    differentiable
        Whether to keep the graph for gradients with respect to the weights.
    """
    graph = batch.graph
    magnetic = network.magmom_head is not None
    result = evaluate(network, graph, magmoms=magnetic, differentiable=differentiable)
    n_atoms = graph.n_atoms
    difference = result.forces - batch.forces
    # a tiny offset keeps the gradient of the length finite at zero
    length = torch.sqrt((difference**2).sum(1, keepdim=True) + 1e-12)
    lengths = torch.cat([length, difference.abs().mean(1, keepdim=True)], 1)
    force, component = (segment_sum(lengths, graph.system, graph.n_systems) / n_atoms[:, None]).unbind(1)
    with_energy = ~batch.energies.isnan()
    energy = (result.energies - torch.where(with_energy, batch.energies, 0.0)).abs() * with_energy / n_atoms
    with_stress = batch.stresses.isfinite().flatten(1).all(1)
    stress = (result.stresses - torch.where(with_stress[:, None, None], batch.stresses, 0.0)).abs().flatten(1).mean(1)
    moments = torch.zeros_like(batch.magmoms) if result.magmoms is None else result.magmoms
    labelled = batch.magmoms.isfinite() if magnetic else torch.zeros_like(batch.magmoms, dtype=torch.bool)
    magmom, n_magmoms = _of_labelled_atoms(moments, batch.magmoms, labelled, graph)
    atom_energy, n_atom_energies = _of_labelled_atoms(
        result.atom_energies, batch.atom_energies, batch.atom_energies.isfinite(), graph
    )
    return Errors(
        energy=energy.float(),
        force=force,
        force_component=component,
        stress=GPA * stress * with_stress,
        magmom=magmom,
        atom_energy=atom_energy,
        n_atoms=n_atoms,
        n_energies=with_energy.to(n_atoms.dtype),
        n_stresses=with_stress.to(n_atoms.dtype),
        n_magmoms=n_magmoms,
        n_atom_energies=n_atom_energies,
    )


def _of_labelled_atoms(
    values: torch.Tensor, labels: torch.Tensor, labelled: torch.Tensor, graph: Graph
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mean absolute error over the labelled atoms of each structure, and their number, shapes (S,)."""
    wrong = (values - torch.where(labelled, labels, 0.0)).abs() * labelled
    wrong, counts = segment_sum(torch.stack([wrong, labelled.to(wrong.dtype)], 1), graph.system, graph.n_systems).T
    return wrong / counts.clamp(min=1), counts.to(graph.n_atoms.dtype)
