"""How far a structure is from what a potential was trained on, told by the features of its atoms."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Sequence

_VALUES = 2**22  # of a distance matrix in a piece: 16 MB


class Domain(nn.Module):
    """
    The domain of a potential: prototypes of the atoms it was trained on, element by element.

    An atom's extrapolation is the distance of its last features from the nearest prototype of its element, in units of
    the element's reach: up to 1 the atom is like those of the training, above the potential extrapolates. A structure
    has that of its oddest atom. `matris.training.fit_domain.fit_domain` makes a domain, and checkpoint files hold it.

    Parameters
    ----------
    numbers
        Atomic numbers of its elements, ascending.
    n_prototypes
        Of each element.
    dim
        Width of the features.
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
        Extrapolation of atoms.

        Parameters
        ----------
        numbers
            Atomic numbers, shape (N,).
        features
            Last features of the atoms, shape (N, dim).

        Returns
        -------
        Tensor
            Shape (N,), not negative; infinite for elements without prototypes.
        """
        rows = torch.searchsorted(self.numbers, numbers).clamp(max=len(self.numbers) - 1)
        distances = features.new_empty(len(features))
        piece = max(1, _VALUES // self.prototypes[0].numel())
        for start in range(0, len(features), piece):
            part = slice(start, start + piece)
            apart = features[part, None, :] - self.prototypes[rows[part]]
            distances[part] = torch.linalg.vector_norm(apart, dim=2).amin(1)
        known = self.numbers[rows] == numbers
        return torch.where(known, distances / self.reach[rows], torch.inf)

    @classmethod
    def like(cls, prototypes: torch.Tensor) -> Domain:
        """Make an empty one of the sizes of another's prototypes, (elements, prototypes, dim), to be loaded into."""
        return cls(range(len(prototypes)), *prototypes.shape[1:])
