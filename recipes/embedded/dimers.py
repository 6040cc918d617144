"""Forces of PBE dimers, for the repulsive wall of each pair of equal atoms."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, covalent_radii

from matris.model.graph import Geometry
from matris.training.data.frame import Frame

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

REACH = 0.95  # in sums of covalent radii: beyond it, spin states and the missing +U of the curves matter
MAX_FORCE = 60.0  # eV/Å


def dimers(path: Path, elements: Collection[str]) -> list[Frame]:
    """
    Read frames of repelling dimers, with forces only.

    The energies of the curves are on another scale than those of crystals: their pseudopotentials differ.

    Parameters
    ----------
    path
        File of curves of homonuclear dimers, ``{"PBE": {"H-H": {"distances": …, "forces": …}}}``.
    elements
        Symbols of the elements.

    Returns
    -------
    list of Frame
        Distances below `REACH` sums of covalent radii, forces up to `MAX_FORCE`.
    """
    frames = []
    for name, curve in json.loads(gzip.decompress(path.read_bytes()))["PBE"].items():
        symbol = name.split("-")[0]
        if symbol not in elements:
            continue
        forces = np.asarray(curve["forces"], dtype=float).reshape(-1, 2, 3)
        reach = 2 * REACH * covalent_radii[atomic_numbers[symbol]]
        for distance, force in zip(curve["distances"], forces, strict=True):
            if distance < reach and np.abs(force).max() <= MAX_FORCE:
                atoms = Atoms([symbol, symbol], [[0, 0, 0], [distance, 0, 0]])
                frames.append(Frame(Geometry.of(atoms), np.nan, force, None, f"dimer {name}"))
    return frames
