"""Silicon of Stillinger and Weber, Phys. Rev. B 31, 5262 (1985): bonds and angles, as a torch-sim model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from pymatgen.core import Lattice, Structure
from pymatgen.optimization.neighbors import find_points_in_spheres
from torch_sim.models.interface import ModelInterface

if TYPE_CHECKING:
    from torch_sim.state import SimState

SIGMA, EPSILON = 2.0951, 2.1683  # Å, eV
LATTICE_CONSTANT = 5.43095  # Å
COHESION = -2 * EPSILON  # eV/atom
_A, _B, _LAMBDA, _GAMMA, _CUTOFF = 7.049556277, 0.6022245584, 21.0, 1.2, 1.8


class Silicon(ModelInterface):
    """Energies, forces and stresses by automatic differentiation; `batches` counts the systems of each call."""

    def __init__(self) -> None:
        super().__init__()
        self._device, self._dtype = torch.device("cpu"), torch.float64
        self._compute_forces = self._compute_stress = True
        self.batches: list[int] = []

    def forward(self, state: SimState, **_kwargs: object) -> dict[str, torch.Tensor]:
        self.batches.append(state.n_systems)
        answers = [
            stillinger_weber(state.positions[state.system_idx == i], state.cell[i].T) for i in range(state.n_systems)
        ]
        energies, forces, stresses = zip(*answers, strict=True)
        return {"energy": torch.stack(energies), "forces": torch.cat(forces), "stress": torch.stack(stresses)}


def stillinger_weber(positions: torch.Tensor, lattice: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Energy (eV), forces (eV/Å) and stress (eV/Å³) of a periodic crystal; lattice vectors in rows."""
    places, rows = (np.ascontiguousarray(each.numpy(), dtype=float) for each in (positions, lattice))
    first, second, images, distances = find_points_in_spheres(
        places, places, _CUTOFF * SIGMA - 1e-9, np.ones(3, dtype=np.int64), rows, 1e-8
    )
    real = distances > 1e-8
    first, second, shifts = first[real], second[real], torch.from_numpy(images[real])
    one, other = (torch.from_numpy(each) for each in np.nonzero(np.triu(first[:, None] == first[None, :], k=1)))
    strain = torch.zeros(3, 3, dtype=torch.float64, requires_grad=True)
    moving = positions.clone().requires_grad_(True)
    deformation = torch.eye(3, dtype=torch.float64) + (strain + strain.T) / 2
    bonds = (moving[second] + shifts @ lattice - moving[first]) @ deformation
    r = bonds.norm(dim=1) / SIGMA
    pairs = _A * (_B * r**-4 - 1) * torch.exp(1 / (r - _CUTOFF)) / 2
    cosines = (bonds[one] * bonds[other]).sum(dim=1) / (r[one] * r[other] * SIGMA**2)
    decay = torch.exp(_GAMMA / (r[one] - _CUTOFF) + _GAMMA / (r[other] - _CUTOFF))
    energy = EPSILON * (pairs.sum() + _LAMBDA * ((cosines + 1 / 3) ** 2 * decay).sum())
    slopes, stress = torch.autograd.grad(energy, [moving, strain])
    return energy.detach(), -slopes, stress / torch.linalg.det(lattice).abs()


def diamond(a: float = LATTICE_CONSTANT) -> Structure:
    """Primitive cell."""
    half = a / 2
    return Structure(Lattice([[0, half, half], [half, 0, half], [half, half, 0]]), ["Si", "Si"], [[0] * 3, [0.25] * 3])
