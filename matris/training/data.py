"""Labelled structures for training."""

from __future__ import annotations

import logging
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from ase import Atoms
from ase.data import chemical_symbols
from ase.formula import Formula
from ase.io import iread

from matris.config import MAX_ATOMIC_NUMBER
from matris.errors import MatrisError
from matris.graph import Batch, Geometry, Graph, build_graph

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from matris.config import ModelConfig

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Frame:
    """
    One labelled structure.

    Parameters
    ----------
    geometry
        Its atoms.
    energy
        Total energy (eV).
    forces
        eV/Å, shape (n, 3).
    stress
        eV/Å³, shape (3, 3), positive under tension; None if it is not known.
    material
        Frames of one material are never split between training and validation.
    validation
        Whether it is set aside.
    magmoms
        Magnetic moments (μB), shape (n,), with or without their signs; None if they are not known.
    """

    geometry: Geometry
    energy: float
    forces: NDArray[np.float64]
    stress: NDArray[np.float64] | None
    material: str
    validation: bool = False
    magmoms: NDArray[np.float64] | None = None

    @property
    def formula(self) -> str:
        """Chemical formula of the cell, in Hill order."""
        return Atoms(numbers=self.geometry.numbers).get_chemical_formula()

    @property
    def symbols(self) -> set[str]:
        """Elements in it."""
        return {chemical_symbols[z] for z in np.unique(self.geometry.numbers)}


@dataclass(frozen=True)
class LabelledBatch:
    """
    A batch of frames, of S structures and N atoms. What is not known is NaN, and to be left out of a loss.

    Parameters
    ----------
    graph
        Its graph.
    energies
        Total energies (eV), float64, shape (S,).
    forces
        eV/Å, shape (N, 3).
    stresses
        eV/Å³, shape (S, 3, 3); those of a structure are known or not.
    magmoms
        Absolute magnetic moments (μB), as networks predict them, shape (N,).
    """

    graph: Graph
    energies: torch.Tensor
    forces: torch.Tensor
    stresses: torch.Tensor
    magmoms: torch.Tensor


def read_frames(paths: Iterable[Path], elements: Collection[str] | None = None) -> Iterator[Frame]:
    """
    Read labelled frames from extended XYZ files with energy, forces and, if known, stress and magnetic moments.

    Units are ASE's: eV, eV/Å, eV/Å³, μB.

    The keys ``material`` and ``split`` ("val" sets a frame aside) are used where present.

    Parameters
    ----------
    paths
        Files, ``.xyz`` or ``.extxyz``, possibly ``.gz``.
    elements
        Only frames made of these. By default all.

    Raises
    ------
    MatrisError
        For a file that cannot be read, or a frame without finite labels; names file and frame.
    """
    for path in paths:
        try:
            for number, atoms in enumerate(iread(path, format="extxyz")):
                frame = _frame(atoms, f"{path.name}:{number}")
                if elements is None or frame.symbols <= set(elements):
                    yield frame
        except (OSError, EOFError, ValueError, KeyError) as error:
            raise MatrisError(f"cannot read training frames from {path}: {error}") from error


def _frame(atoms: object, name: str) -> Frame:
    """Turn ASE atoms with stored results into a frame."""
    info, calc = atoms.info, atoms.calc  # type: ignore[attr-defined]
    if calc is None or not {"energy", "forces"} <= set(calc.results):
        raise MatrisError(f"{name} lacks energy or forces")
    energy, forces = calc.results["energy"], calc.results["forces"]
    stress = atoms.get_stress(voigt=False) if "stress" in calc.results else None  # type: ignore[attr-defined]
    magmoms = calc.results.get("magmoms")
    if not all(np.isfinite(label).all() for label in (energy, forces, stress, magmoms) if label is not None):
        raise MatrisError(f"{name} has a NaN label")
    return Frame(
        geometry=Geometry.of(atoms),  # type: ignore[arg-type]
        energy=float(energy),
        forces=np.asarray(forces, dtype=float),
        stress=None if stress is None else np.asarray(stress, dtype=float),
        material=str(info.get("material", name)),
        validation=info.get("split") in ("val", "validation"),
        magmoms=None if magmoms is None else np.asarray(magmoms, dtype=float),
    )


def collate(frames: Sequence[Frame], config: ModelConfig, device: torch.device | str = "cpu") -> LabelledBatch:
    """Join frames into one batch, float32; labels that are not known become NaN."""
    together = Batch.of([f.geometry for f in frames], device)
    graph = build_graph(together, config.pairwise_cutoff, config.three_body_cutoff)
    stresses = [np.full((3, 3), np.nan) if f.stress is None else f.stress for f in frames]
    magmoms = [np.full(len(f.forces), np.nan) if f.magmoms is None else f.magmoms for f in frames]
    return LabelledBatch(
        graph,
        torch.tensor([f.energy for f in frames], dtype=torch.float64, device=device),
        torch.tensor(np.concatenate([f.forces for f in frames]), dtype=torch.float32, device=device),
        torch.tensor(np.array(stresses), dtype=torch.float32, device=device),
        torch.tensor(np.abs(np.concatenate(magmoms)), dtype=torch.float32, device=device),
    )


def held_out(formula: str) -> bool:
    """Whether frames of a formula, in cells of any size, are for measuring only: one in five, by a hash."""
    reduced, _ = Formula(formula).reduce()
    return zlib.crc32(reduced.format("hill").encode()) % 5 == 4  # noqa: PLR2004


def regress_reference_energies(frames: Sequence[Frame]) -> NDArray[np.float64]:
    """
    Energies per element that explain the total energies best: ridge regression on composition.

    Parameters
    ----------
    frames
        The training set.

    Returns
    -------
    ndarray
        eV/atom, shape (94,); zero for elements that do not occur.
    """
    counts = np.array(
        [np.bincount(f.geometry.numbers, minlength=MAX_ATOMIC_NUMBER + 1)[1:] for f in frames], dtype=float
    )
    n_atoms = counts.sum(axis=1, keepdims=True)
    x, y = counts / n_atoms, np.array([f.energy for f in frames]) / n_atoms[:, 0]
    seen = counts.any(axis=0)
    x = x[:, seen]
    energies = np.zeros(MAX_ATOMIC_NUMBER)
    energies[seen] = np.linalg.solve(x.T @ x + 1e-3 * np.eye(x.shape[1]), x.T @ y)
    return energies
