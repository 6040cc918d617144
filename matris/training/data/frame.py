"""Labelled structures for training."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from ase import Atoms
from ase.data import chemical_symbols
from ase.formula import Formula

from matris.errors import MatrisError
from matris.model.graph import Batch, Geometry, Graph, build_graph
from matris.training.data.element_energies import fractions, least_squares

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from matris.model.config import ModelConfig


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
    Read labelled frames, all of which must be sound.

    Parameters
    ----------
    paths
        Files or sets that `matris.training.data.reading.read_labelled` reads, such as extended XYZ with energy, forces
        and, if known, stress and magnetic moments (eV, eV/Å, eV/Å³, μB). Where they name a ``material`` or a ``split``
        ("val" sets a frame aside), it is used.
    elements
        Only frames made of these. By default all.

    Raises
    ------
    MatrisError
        For a file that cannot be read, or a frame that cannot be learnt from; names file and frame.
    """
    from matris.training.data.labelled import Reading, Rejected
    from matris.training.data.reading import read_labelled

    for path in paths:
        for taken in read_labelled(path, Reading(max_force=math.inf)):
            if isinstance(taken, Rejected):
                raise MatrisError(f"cannot read training frames from {path}: {taken}")
            if elements is None or taken.frame.symbols <= set(elements):
                yield taken.frame


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
    numbers = [frame.geometry.numbers.astype(np.uint8) for frame in frames]
    energies = np.array([frame.energy / len(frame.geometry.numbers) for frame in frames])
    offsets = np.concatenate([[0], np.cumsum([len(z) for z in numbers])])
    return least_squares(fractions(np.concatenate(numbers), offsets), energies)
