"""Labelled structures for training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from ase import Atoms
from ase.data import chemical_symbols

from matris.model.graph import Batch, Geometry, Graph, build_graph

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from matris.model.config import ModelConfig


@dataclass(frozen=True)
class Frame:
    """
    One labelled structure.

    Parameters
    ----------
    geometry
        Cell and atoms.
    energy
        Total energy (eV); NaN without a label.
    forces
        eV/Å, shape (n, 3).
    stress
        eV/Å³, shape (3, 3), positive under tension; None without a label.
    material
        Name of the material; frames of one material are never split between training and validation.
    validation
        Whether the frame is set aside for validation.
    magmoms
        Magnetic moments (μB), shape (n,), signed or absolute; None without labels.
    atom_energies
        Contributions of the atoms to the energy, as a teacher potential gives them (eV), shape (n,); None without
        labels.
    """

    geometry: Geometry
    energy: float
    forces: NDArray[np.float64]
    stress: NDArray[np.float64] | None
    material: str
    validation: bool = False
    magmoms: NDArray[np.float64] | None = None
    atom_energies: NDArray[np.float64] | None = None

    @property
    def formula(self) -> str:
        """Chemical formula of the cell, in Hill order."""
        return Atoms(numbers=self.geometry.numbers).get_chemical_formula()

    @property
    def symbols(self) -> set[str]:
        """Symbols of the elements."""
        return {chemical_symbols[z] for z in np.unique(self.geometry.numbers)}


@dataclass(frozen=True)
class LabelledBatch:
    """
    A batch of S structures with N atoms. Missing labels are NaN; losses leave them out.

    Parameters
    ----------
    graph
        Graph of the structures.
    energies
        Total energies (eV), float64, shape (S,).
    forces
        eV/Å, shape (N, 3).
    stresses
        eV/Å³, shape (S, 3, 3); all components of a structure are known, or none.
    magmoms
        Absolute magnetic moments (μB), shape (N,); networks predict absolute values.
    atom_energies
        eV, shape (N,).
    """

    graph: Graph
    energies: torch.Tensor
    forces: torch.Tensor
    stresses: torch.Tensor
    magmoms: torch.Tensor
    atom_energies: torch.Tensor


def collate(frames: Sequence[Frame], config: ModelConfig, device: torch.device | str = "cpu") -> LabelledBatch:
    """Join frames into one batch in float32; missing labels become NaN."""
    together = Batch.of([f.geometry for f in frames], device)
    graph = build_graph(together, config.pairwise_cutoff, config.three_body_cutoff)
    forces = np.ascontiguousarray(np.concatenate([f.forces for f in frames]))  # a compiled step asks for this order
    stresses = [np.full((3, 3), np.nan) if f.stress is None else f.stress for f in frames]
    magmoms = [np.full(len(f.forces), np.nan) if f.magmoms is None else f.magmoms for f in frames]
    atom_energies = [np.full(len(f.forces), np.nan) if f.atom_energies is None else f.atom_energies for f in frames]
    return LabelledBatch(
        graph,
        torch.tensor([f.energy for f in frames], dtype=torch.float64, device=device),
        torch.tensor(forces, dtype=torch.float32, device=device),
        torch.tensor(np.array(stresses), dtype=torch.float32, device=device),
        torch.tensor(np.abs(np.concatenate(magmoms)), dtype=torch.float32, device=device),
        torch.tensor(np.concatenate(atom_energies), dtype=torch.float32, device=device),
    )
