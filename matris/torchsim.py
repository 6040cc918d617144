"""The potential as a torch-sim model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from ase.geometry import complete_cell
from torch_sim.models.interface import ModelInterface

from matris.graph import Geometry
from matris.potential import Potential, load

if TYPE_CHECKING:
    from torch_sim.state import SimState


class MatRISTorchSimModel(ModelInterface):
    """
    MatRIS for torch-sim's optimisers and integrators.

    Beside energy, forces and stress the output has ``magmoms`` (μB), shape (n_atoms,), where the checkpoint
    predicts them.

    Parameters
    ----------
    potential
        A loaded potential, or a key or path to load.
    """

    def __init__(self, potential: Potential | str | None = None) -> None:
        super().__init__()
        self.potential = potential if isinstance(potential, Potential) else load(potential)
        self._device = self.potential.device
        self._dtype = self.potential.dtype
        self._compute_forces = True
        self._compute_stress = True
        self._memory_scales_with = "n_atoms_x_density"

    def forward(self, state: SimState, **_: Any) -> dict[str, torch.Tensor]:
        """
        Compute a state of one or many systems.

        Returns
        -------
        dict
            ``energy`` (eV, n_systems), ``forces`` (eV/Å, n_atoms × 3), ``stress`` (eV/Å³, n_systems × 3 × 3).
        """
        graph = self.potential.graph(geometries(state))
        energies, forces, stresses, magmoms = self.potential.evaluate(graph)
        output = {"energy": energies.to(self.dtype), "forces": forces, "stress": stresses}
        if magmoms is not None:
            output["magmoms"] = magmoms
        return output


def geometries(state: SimState) -> list[Geometry]:
    """Split a torch-sim state into its systems, in float64."""
    counts = torch.bincount(state.system_idx, minlength=len(state.cell)).cpu().numpy()
    ends = np.cumsum(counts)
    numbers = state.atomic_numbers.cpu().numpy().astype(np.int64)
    positions = state.positions.detach().double().cpu().numpy()
    cells = state.cell.detach().double().mT.cpu().numpy()
    pbc = np.broadcast_to(np.asarray(torch.as_tensor(state.pbc).cpu()), (3,))
    return [
        Geometry(numbers[end - n : end], positions[end - n : end], complete_cell(cell), pbc)
        for n, end, cell in zip(counts, ends, cells, strict=True)
    ]
