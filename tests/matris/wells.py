"""Independent atoms, each free or in a harmonic well of its own: their dynamics is known in closed form."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from pymatgen.core import Lattice, Structure
from torch_sim.models.interface import ModelInterface

if TYPE_CHECKING:
    from torch_sim.state import SimState


class Wells(ModelInterface):
    """Spring of `stiffness` (eV/Å²) to the place where each atom was in the first call."""

    def __init__(self, stiffness: float = 0.0) -> None:
        super().__init__()
        self._device, self._dtype = torch.device("cpu"), torch.float64
        self._compute_forces = self._compute_stress = True
        self.stiffness = stiffness
        self._places: torch.Tensor | None = None

    def forward(self, state: SimState, **_kwargs: object) -> dict[str, torch.Tensor]:
        if self._places is None or len(self._places) != len(state.positions):
            self._places = state.positions.clone()
        away = state.positions - self._places
        energy = torch.zeros(state.n_systems, dtype=self.dtype)
        energy.index_add_(0, state.system_idx, self.stiffness / 2 * (away**2).sum(dim=1))
        return {"energy": energy, "forces": -self.stiffness * away, "stress": torch.zeros_like(state.cell)}


def lattice_gas(n: int = 7, spacing: float = 20.0, element: str = "Ar") -> Structure:
    """Simple cubic crystal of n³ atoms, so far apart that they do not meet."""
    places = [[i / n, j / n, k / n] for i in range(n) for j in range(n) for k in range(n)]
    return Structure(Lattice.cubic(n * spacing), [element] * n**3, places)


class Cosine(ModelInterface):
    """Potential `depth` (eV) times the cosine of each coordinate, of some period (Å)."""

    def __init__(self, depth: float, period: float) -> None:
        super().__init__()
        self._device, self._dtype = torch.device("cpu"), torch.float64
        self._compute_forces = self._compute_stress = True
        self.depth, self.wave = depth, 2 * torch.pi / period

    def forward(self, state: SimState, **_kwargs: object) -> dict[str, torch.Tensor]:
        phases = self.wave * state.positions
        energy = torch.zeros(state.n_systems, dtype=self.dtype)
        energy.index_add_(0, state.system_idx, self.depth * phases.cos().sum(dim=1))
        forces = self.depth * self.wave * phases.sin()
        return {"energy": energy, "forces": forces, "stress": torch.zeros_like(state.cell)}
