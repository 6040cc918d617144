"""Any ASE calculator as a torch-sim model, so that relaxations, phonons, elastic tensors and so on run with it."""

from __future__ import annotations

import hashlib
import uuid
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from ase import Atoms
from torch_sim.models.interface import ModelInterface

if TYPE_CHECKING:
    from ase.calculators.calculator import Calculator
    from torch_sim.state import SimState

_STATE = {"atoms", "results", "get_spin_polarized"}
"""Attributes of ASE's calculators that say what was computed last, not how."""


class AseModel(ModelInterface):
    """
    An ASE calculator wherever a torch-sim model is taken; it computes one system after the other, on the CPU.

    ``compute_stress`` says whether the calculator has stress. Without it cells cannot relax, and elastic tensors are
    not to be had.

    Parameters
    ----------
    calculator
        Any calculator of energy and forces. Its parameters must not change afterwards.
    identity
        Name of the calculator with all that decides its numbers: what journals know it by, so that a killed run goes
        on. By default it is read off the calculator: class, parameters and weights. Where something cannot be read
        (compiled objects, a calculator that has been used), the model is taken for unlike any other, and no journal
        is shared.

    Raises
    ------
    ValueError
        If the calculator has no forces.
    """

    def __init__(self, calculator: Calculator, identity: str | None = None) -> None:
        super().__init__()
        has = set(calculator.implemented_properties)
        if not {"energy", "forces"} <= has:
            raise ValueError(f"{type(calculator).__name__} has {', '.join(sorted(has))}: energy and forces are needed")
        self.calculator = calculator
        self.identity = identity or identity_of(calculator)
        self._device, self._dtype = torch.device("cpu"), torch.float64
        self._compute_forces, self._compute_stress = True, "stress" in has
        self._memory_scales_with = "n_atoms"

    def forward(self, state: SimState, **_: Any) -> dict[str, torch.Tensor]:
        """
        Compute the systems of a state, one after the other.

        Returns
        -------
        dict
            ``energy`` (eV, n_systems), ``forces`` (eV/Å, n_atoms × 3) and, if the calculator has it, ``stress``
            (eV/Å³, n_systems × 3 × 3; NaN for systems that are not periodic in three directions).
        """
        answers = [self._answer(atoms) for atoms in atoms_of(state)]
        energies, forces, stresses = zip(*answers, strict=True)
        output = {
            "energy": torch.tensor(energies, dtype=torch.float64),
            "forces": torch.from_numpy(np.concatenate(forces)),
        }
        if self.compute_stress:
            output["stress"] = torch.from_numpy(np.stack(stresses))
        return {name: values.to(state.positions) for name, values in output.items()}

    def _answer(self, atoms: Atoms) -> tuple[float, np.ndarray, np.ndarray]:
        """Energy (eV), forces (eV/Å) and stress (eV/Å³, NaN where there is none) of one system."""
        atoms.calc = self.calculator
        stress = np.full((3, 3), np.nan)
        if self.compute_stress and atoms.pbc.all():
            stress = np.array(atoms.get_stress(voigt=False), dtype=float)
        return float(atoms.get_potential_energy()), np.array(atoms.get_forces(), dtype=float), stress


def atoms_of(state: SimState) -> list[Atoms]:
    """Systems of a torch-sim state as ASE's ``Atoms``."""
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
    Name a calculator by all that decides its numbers, as far as it can be read.

    Returns
    -------
    str
        Its class and a hash of its attributes, the same in any process; a random one if an attribute cannot be read.
    """
    name = _qualified(type(calculator))
    attributes = {key: value for key, value in vars(calculator).items() if key not in _STATE}
    try:
        return f"{name} {hashlib.sha256(_described(attributes).encode()).hexdigest()}"
    except _UnreadableError:
        return f"{name} {uuid.uuid4().hex}"


class _UnreadableError(TypeError):
    """An object that does not say what it is made of."""


def _described(value: object) -> str:
    """
    Text that differs where values differ, and does not depend on the process.

    Raises
    ------
    _UnreadableError
        For an object of unknown make.
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
    return f"{kind.__module__}.{kind.__qualname__}"
