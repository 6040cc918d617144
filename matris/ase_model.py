"""Any ASE calculator as a torch-sim model, for relaxations, phonons, elastic tensors and other properties."""

from __future__ import annotations

import hashlib
import uuid
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from ase import Atoms
from torch_sim.models.interface import ModelInterface

from matris.structures import check_periodicity

if TYPE_CHECKING:
    from ase.calculators.calculator import Calculator
    from torch_sim.state import SimState

_STATE = {"atoms", "results", "get_spin_polarized"}
"""Attributes of ASE calculators that contain the last calculation, not parameters."""


class AseModel(ModelInterface):
    """
    An ASE calculator as a torch-sim model, which computes the systems one after the other on the CPU.

    ``compute_stress`` is True if the calculator implements stress. Without stress, cells cannot relax and elastic
    tensors cannot be computed.

    Parameters
    ----------
    calculator
        Any calculator that implements energy and forces. Its parameters must not change afterwards.
    identity
        Text that identifies the calculator and everything that determines its results. Journals use it to recognise
        the model when a killed run continues. By default it is derived from class, parameters and weights. If they
        cannot be read completely (compiled objects, a calculator that has been used), the identity is random, and no
        journal is shared.

    Raises
    ------
    ValueError
        If the calculator does not implement energy and forces.

    Examples
    --------
    >>> import matris
    >>> from ase.build import bulk
    >>> from ase.calculators.emt import EMT
    >>> record = next(matris.relax(bulk("Cu", a=3.7), matris.AseModel(EMT()), fmax=0.01))
    >>> record.state, round(float(record.structure.lattice.a * 2**0.5), 2)
    ('converged', 3.59)
    """

    def __init__(self, calculator: Calculator, identity: str | None = None) -> None:
        super().__init__()
        properties = set(calculator.implemented_properties)
        if not {"energy", "forces"} <= properties:
            raise ValueError(
                f"{type(calculator).__name__} implements {', '.join(sorted(properties))}: energy and forces are needed"
            )
        self.calculator = calculator
        self.identity = identity or identity_of(calculator)
        self._device, self._dtype = torch.device("cpu"), torch.float64
        self._compute_forces, self._compute_stress = True, "stress" in properties
        self._memory_scales_with = "n_atoms"

    def forward(self, state: SimState, **_: Any) -> dict[str, torch.Tensor]:
        """
        Compute the systems of a state, one after the other.

        Returns
        -------
        dict
            ``energy`` (eV), shape (n_systems,); ``forces`` (eV/Å), (n_atoms, 3); and, if the calculator implements it,
            ``stress`` (eV/Å³), (n_systems, 3, 3), NaN for systems that are not periodic in three directions.
        """
        results = [self._compute(atoms) for atoms in atoms_of(state)]
        energies, forces, stresses = zip(*results, strict=True)
        output = {
            "energy": torch.tensor(energies, dtype=torch.float64),
            "forces": torch.from_numpy(np.concatenate(forces)),
        }
        if self.compute_stress:
            output["stress"] = torch.from_numpy(np.stack(stresses))
        return {name: values.to(state.positions) for name, values in output.items()}

    def _compute(self, atoms: Atoms) -> tuple[float, np.ndarray, np.ndarray]:
        """Compute energy (eV), forces (eV/Å) and stress (eV/Å³, NaN if not available) of one system."""
        check_periodicity(atoms.cell.array, atoms.pbc, str(atoms.symbols))
        atoms.calc = self.calculator
        stress = np.full((3, 3), np.nan)
        if self.compute_stress and atoms.pbc.all():
            stress = np.array(atoms.get_stress(voigt=False), dtype=float)
        return float(atoms.get_potential_energy()), np.array(atoms.get_forces(), dtype=float), stress


def atoms_of(state: SimState) -> list[Atoms]:
    """Convert the systems of a torch-sim state to ASE ``Atoms``."""
    systems = state.system_idx.cpu().numpy()
    numbers, positions = state.atomic_numbers.cpu().numpy(), state.positions.detach().cpu().double().numpy()
    cells = state.cell.detach().cpu().double().numpy().transpose(0, 2, 1)
    pbc = torch.as_tensor(state.pbc).cpu().numpy()
    return [
        Atoms(numbers=numbers[systems == i], positions=positions[systems == i], cell=cell, pbc=pbc)
        for i, cell in enumerate(cells)
    ]


def identity_of(calculator: Calculator) -> str:
    """
    Identify a calculator by everything that determines its results.

    Returns
    -------
    str
        The class and a hash of the attributes, equal in all processes; a random text if an attribute cannot be read.

    Examples
    --------
    >>> from ase.calculators.emt import EMT
    >>> from ase.calculators.lj import LennardJones
    >>> identity_of(EMT()) == identity_of(EMT())
    True
    >>> identity_of(LennardJones(sigma=3.0)) == identity_of(LennardJones(sigma=3.1))
    False
    """
    name = _qualified(type(calculator))
    attributes = {key: value for key, value in vars(calculator).items() if key not in _STATE}
    try:
        return f"{name} {hashlib.sha256(_described(attributes).encode()).hexdigest()}"
    except _UnreadableError:
        return f"{name} {uuid.uuid4().hex}"


class _UnreadableError(TypeError):
    """An object whose content cannot be read."""


def _described(value: object) -> str:
    """
    Describe a value by a text that is equal for equal values in all processes, and different for different ones.

    Raises
    ------
    _UnreadableError
        If the value has an unsupported type.
    """
    if value is None or isinstance(value, bool | int | float | complex | str | bytes | np.generic | PurePath):
        return f"{type(value).__name__} {value!r}"
    if isinstance(value, torch.nn.Module):
        return f"{_qualified(type(value))} {_described(value.state_dict())}"
    if isinstance(value, torch.Tensor):
        raw = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        return f"{value.dtype} {tuple(value.shape)} {hashlib.sha256(raw).hexdigest()}"
    if isinstance(value, torch.dtype | torch.device):
        return str(value)
    if isinstance(value, np.ndarray) and value.dtype != object:
        return f"{value.dtype} {value.shape} {hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()}"
    if isinstance(value, dict):
        return "{" + ", ".join(sorted(f"{_described(k)}: {_described(v)}" for k, v in value.items())) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_described(item) for item in value) + "]"
    if isinstance(value, set | frozenset):
        return "{" + ", ".join(sorted(_described(item) for item in value)) + "}"
    if isinstance(value, type):
        return _qualified(value)
    raise _UnreadableError(_qualified(type(value)))


def _qualified(kind: type) -> str:
    """Name of a class with its module."""
    return f"{kind.__module__}.{kind.__qualname__}"
