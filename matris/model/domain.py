"""Applicability domain: the distance of atoms from the training set of a potential, in feature space."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Sequence

_VALUES = 2**22  # values of the distance tensor of a chunk: 16 MB in float32


class Domain(nn.Module):
    """
    Applicability domain of a potential: prototypes of the atoms in its training set, for each element.

    The extrapolation of an atom is the distance of its last features from the nearest prototype of its element, over
    the reach of the element. Up to 1 the atom resembles atoms of the training set; above 1 the potential extrapolates.
    The extrapolation of a structure is the maximum over its atoms. `matris.training.fit_domain.fit_domain` creates a
    domain, and checkpoint files contain it.

    Parameters
    ----------
    numbers
        Atomic numbers of the elements, ascending.
    n_prototypes
        Number of prototypes of each element.
    dim
        Width of the features.

    Examples
    --------
    >>> import torch
    >>> domain = Domain([11, 17], n_prototypes=1, dim=2)  # Na and Cl, prototypes at 0, reach 1
    >>> domain(torch.tensor([11, 17, 8]), torch.tensor([[0.0, 0.5], [3.0, 4.0], [0.0, 0.0]]))
    tensor([0.5000, 5.0000,    inf])
    """

    numbers: torch.Tensor
    prototypes: torch.Tensor
    reach: torch.Tensor

    def __init__(self, numbers: Sequence[int], n_prototypes: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("numbers", torch.tensor(numbers, dtype=torch.long))
        self.register_buffer("prototypes", torch.zeros(len(numbers), n_prototypes, dim))
        self.register_buffer("reach", torch.ones(len(numbers)))

    @torch.no_grad()
    def forward(self, numbers: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """
        Compute the extrapolation of atoms.

        Parameters
        ----------
        numbers
            Atomic numbers, shape (N,).
        features
            Last features of the atoms, shape (N, dim).

        Returns
        -------
        Tensor
            Extrapolation ≥ 0, shape (N,); infinite for elements without prototypes.
        """
        rows = torch.searchsorted(self.numbers, numbers).clamp(max=len(self.numbers) - 1)
        distances = features.new_empty(len(features))
        chunk = max(1, _VALUES // self.prototypes[0].numel())
        for start in range(0, len(features), chunk):
            atoms = slice(start, start + chunk)
            differences = features[atoms, None, :] - self.prototypes[rows[atoms]]
            distances[atoms] = torch.linalg.vector_norm(differences, dim=2).amin(1)
        has_prototypes = self.numbers[rows] == numbers
        return torch.where(has_prototypes, distances / self.reach[rows], torch.inf)

    @classmethod
    def like(cls, prototypes: torch.Tensor) -> Domain:
        """Create a domain to load weights into, whose prototypes have the shape (elements, prototypes, dim)."""
        return cls(range(len(prototypes)), *prototypes.shape[1:])
