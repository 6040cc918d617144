"""The potential as a torch-sim model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from ase.geometry import complete_cell
from torch_sim.models.interface import ModelInterface

from matris.model.graph import Batch
from matris.model.potential import Potential, load

if TYPE_CHECKING:
    from torch_sim.state import SimState


class MatRISTorchSimModel(ModelInterface):
    """
    MatRIS for the optimizers and integrators of torch-sim.

    Besides energy, forces and stress, the output contains ``magmoms`` (μB), shape (n_atoms,), if the checkpoint
    predicts them, and ``extrapolation``, shape (n_atoms,), if it has a domain (`matris.model.domain.Domain`).

    Parameters
    ----------
    potential
        A loaded potential, a key or path for `matris.load`, or None for the embedded checkpoint.

    Examples
    --------
    >>> import torch_sim as ts
    >>> from ase.build import bulk
    >>> from matris import MatRISTorchSimModel
    >>> model = MatRISTorchSimModel()
    >>> state = ts.io.atoms_to_state([bulk("Cu"), bulk("MgO", "rocksalt", a=4.2)], model.device, model.dtype)
    >>> output = model(state)
    >>> output["energy"].shape, output["forces"].shape, output["stress"].shape
    (torch.Size([2]), torch.Size([3, 3]), torch.Size([2, 3, 3]))
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
        Compute all systems of a state.

        Returns
        -------
        dict
            ``energy`` (eV), shape (n_systems,); ``forces`` (eV/Å), (n_atoms, 3); ``stress`` (eV/Å³),
            (n_systems, 3, 3); and the optional outputs named above.
        """
        graph = self.potential.graph(batch_of(state))
        energies, forces, stresses, magmoms, features = self.potential.evaluate(graph)
        output = {"energy": energies.to(self.dtype), "forces": forces, "stress": stresses}
        if magmoms is not None:
            output["magmoms"] = magmoms
        if (extrapolation := self.potential.extrapolation(graph, features)) is not None:
            output["extrapolation"] = extrapolation
        return output


def batch_of(state: SimState) -> Batch:
    """Convert a torch-sim state to a batch, in float64."""
    pbc = torch.as_tensor(state.pbc, device=state.device)
    cells = state.cell.detach().double().mT
    if not bool(pbc.all()):  # lattice vectors of directions without periodicity may be zero
        cells = torch.from_numpy(np.array([complete_cell(cell) for cell in cells.cpu().numpy()])).to(cells)
    return Batch(
        state.atomic_numbers.long(),
        state.positions.detach().double(),
        cells.contiguous(),
        pbc.expand(len(cells), 3),
        torch.bincount(state.system_idx, minlength=len(cells)),
    )
