"""The potential as a torch-sim model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from ase.geometry import complete_cell
from torch_sim.models.interface import ModelInterface

from matris.model.graph import Batch
from matris.model.neighbors import reciprocal, volumes
from matris.model.potential import Potential, load
from matris.structures import check_periodicity

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch_sim.state import SimState

_SMALLEST = 1e-6
"""Volume (Å³) of a cell without one."""


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
            (n_systems, 3, 3), NaN for systems that are not periodic in three directions; and the optional outputs
            named above.

        Raises
        ------
        StructureError
            If there is no lattice vector along a periodic direction.
        """
        batch = batch_of(state)
        graph = self.potential.graph(batch)
        energies, forces, stresses, magmoms, features, _energies = self.potential.evaluate(graph)
        stresses = torch.where(batch.pbc.all(1)[:, None, None], stresses, torch.nan)
        output = {"energy": energies.to(self.dtype), "forces": forces, "stress": stresses}
        if magmoms is not None:
            output["magmoms"] = magmoms
        if (extrapolation := self.potential.extrapolation(graph, features)) is not None:
            output["extrapolation"] = extrapolation
        return output


def batch_of(state: SimState) -> Batch:
    """
    Convert a torch-sim state to a batch, in float64; atoms far outside their cell are taken back into it.

    Raises
    ------
    StructureError
        If there is no lattice vector along a periodic direction.
    """
    cells = state.cell.detach().double().mT
    pbc = torch.as_tensor(state.pbc, device=state.device).expand(len(cells), 3)
    if not bool(pbc.all() & (volumes(cells).abs() > _SMALLEST).all()):
        cells = torch.from_numpy(_completed(cells.cpu().numpy(), pbc.cpu().numpy())).to(cells)
    batch = (
        state.atomic_numbers.long(),
        _near_cell(state.positions.detach().double(), cells, pbc, state.system_idx),
        cells.contiguous(),
        pbc,
        state.system_idx.new_zeros(len(cells)).index_add(0, state.system_idx, torch.ones_like(state.system_idx)),
    )
    with torch.inference_mode(False):  # tensors of that mode cannot be differentiated
        return Batch(*(tensor.clone() if tensor.is_inference() else tensor for tensor in batch))


def _completed(cells: NDArray[np.float64], pbc: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Check the lattice vectors of periodic directions, and fill in absent ones of other directions."""
    for number, (cell, periodic) in enumerate(zip(cells, pbc, strict=True)):
        check_periodicity(cell, periodic, f"system {number}")
    return np.array([complete_cell(cell) for cell in cells])


def _near_cell(positions: torch.Tensor, cells: torch.Tensor, pbc: torch.Tensor, system: torch.Tensor) -> torch.Tensor:
    """Take atoms that lie more than a cell away back into the cell, as `matris.model.graph.Geometry.of` does."""
    away = torch.floor((positions[:, None] * reciprocal(cells)[system]).sum(2))
    away = torch.where(pbc[system] & (away.abs() > 1), away, torch.zeros_like(away))
    return positions - (away[:, :, None] * cells[system]).sum(1)
