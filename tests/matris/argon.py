"""Lennard-Jones argon: a torch-sim model whose answers are known, and that can be made to misbehave."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import numpy as np
import torch
from ase.calculators.calculator import Calculator, all_changes
from ase.stress import full_3x3_to_voigt_6_stress
from pymatgen.core import Lattice, Structure
from pymatgen.optimization.neighbors import find_points_in_spheres
from torch_sim.models.interface import ModelInterface

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch_sim.state import SimState

SIGMA, EPSILON = 3.405, 0.104  # Å, eV; ten times as strong as argon, so that FIRE gets there in fewer steps
CUTOFF = 4.6  # Å, between first and second neighbors
NEIGHBOR = 2 ** (1 / 6) * SIGMA  # the cutoff keeps nearest neighbors alone, so that they sit in the pair's minimum
FCC = 2**0.5 * NEIGHBOR  # lattice constant, Å


class Argon(ModelInterface):
    """Lennard-Jones between nearest neighbors; `before` and `after` see every call."""

    def __init__(
        self,
        before: Callable[[SimState], None] | None = None,
        after: Callable[[SimState, dict[str, torch.Tensor]], None] | None = None,
    ) -> None:
        super().__init__()
        self._device, self._dtype = torch.device("cpu"), torch.float64
        self._compute_forces = self._compute_stress = True
        self._before, self._after = before, after
        self.batches: list[int] = []  # atoms of each call

    def forward(self, state: SimState, **_kwargs: object) -> dict[str, torch.Tensor]:
        self.batches.append(state.n_atoms)
        if self._before:
            self._before(state)
        answers = [
            lennard_jones(state.positions[state.system_idx == i].numpy(), state.cell[i].numpy().T.copy())
            for i in range(state.n_systems)
        ]
        energies, forces, stresses = zip(*answers, strict=True)
        output = {
            "energy": torch.tensor(energies, dtype=self.dtype),
            "forces": torch.from_numpy(np.concatenate(forces)).to(self.dtype),
            "stress": torch.from_numpy(np.stack(stresses)).to(self.dtype),
        }
        if self._after:
            self._after(state, output)
        return output


class AseArgon(Calculator):
    """The same for ASE."""

    implemented_properties = ("energy", "forces", "stress")

    def calculate(self, atoms=None, properties=None, system_changes=all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        energy, forces, stress = lennard_jones(self.atoms.positions, self.atoms.cell.array)
        self.results = {"energy": energy, "forces": forces, "stress": full_3x3_to_voigt_6_stress(stress)}


def lennard_jones(positions: np.ndarray, lattice: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Energy (eV), forces (eV/Å) and stress (eV/Å³) of a periodic crystal; lattice vectors in rows."""
    positions = np.ascontiguousarray(positions, dtype=float)
    lattice = np.ascontiguousarray(lattice, dtype=float)
    centers, others, images, distances = find_points_in_spheres(
        positions, positions, CUTOFF, np.ones(3, dtype=np.int64), lattice, 1e-8
    )
    real = distances > 1e-8
    centers, others, images = centers[real], others[real], images[real]
    bonds = positions[others] + images @ lattice - positions[centers]
    r2 = (bonds**2).sum(axis=1)
    s6 = (SIGMA**2 / r2) ** 3
    pulls = (24 * EPSILON * (s6 - 2 * s6**2) / r2)[:, None] * bonds  # force on the center
    forces = np.zeros_like(positions)
    np.add.at(forces, centers, pulls)
    stress = np.einsum("ni,nj->ij", bonds, pulls) / (2 * abs(np.linalg.det(lattice)))
    return float(2 * EPSILON * (s6**2 - s6).sum()), forces, stress


def crystal(a: float = 5.6, shift: float = 0.0, element: str = "Ar") -> Structure:
    """Cubic fcc cell of four atoms, the first moved by `shift` (Å)."""
    sites = [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]
    structure = Structure(Lattice.cubic(a), [element] * 4, sites)
    structure.translate_sites([0], [shift, 0.5 * shift, 0], frac_coords=False)
    return structure


def primitive(a: float = 5.6) -> Structure:
    """Fcc cell of one atom."""
    return Structure(Lattice([[0, a / 2, a / 2], [a / 2, 0, a / 2], [a / 2, a / 2, 0]]), ["Ar"], [[0, 0, 0]])


def dies_at(call: int) -> Callable[[SimState], None]:
    """Kill this process, as a scheduler would, in the given model call."""
    calls = 0

    def before(_state: SimState) -> None:
        nonlocal calls
        calls += 1
        if calls == call:
            os.kill(os.getpid(), signal.SIGKILL)

    return before
