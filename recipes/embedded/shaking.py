"""Frames around a geometry: strained and rattled copies, and pairs for the curvature."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ase import Atoms

_FEW_ATOMS = 8  # smaller cells are repeated up to this size, so that forces can arise


@dataclass(frozen=True)
class Shaking:
    """
    Limits of the distortion.

    Attributes
    ----------
    growth
        Least and largest absolute change of the logarithm of the volume; its sign alternates.
    shear
        Largest shear.
    rattle
        Least and largest standard deviation of the displacements (Å), drawn log-uniformly.
    compression
        Mean of an exponential distribution that is subtracted from the logarithm of the volume; 0 for none.
    """

    growth: tuple[float, float]
    shear: float
    rattle: tuple[float, float]
    compression: float = 0.0


_HOT = Shaking(growth=(0.0, 0.08), shear=0.05, rattle=(0.05, 0.35), compression=0.3)

SHAKINGS = {
    "gentle": (Shaking(growth=(0.0, 0.02), shear=0.01, rattle=(0.01, 0.10)),),
    "hot": (Shaking(growth=(0.0, 0.04), shear=0.03, rattle=(0.02, 0.15)), _HOT, _HOT),
}
"""Frames around the calmest one of a walk follow these, in turns. The hot ones reach hundreds of GPa."""

NEAR = (Shaking(growth=(0.015, 0.03), shear=0.005, rattle=(0.01, 0.03)),)
"""Near equilibrium: lengths differ by 0.5 to 1 %."""

_MOST_COMPRESSED = -0.9  # logarithm of the volume

PAIR = (0.02, 0.05)
"""Distance (Å) between the two places of the displaced atom of a pair."""


def enlarged(atoms: Atoms) -> Atoms:
    """Copy a structure; cells of up to 4 atoms become supercells of up to 8 atoms, along the shortest vectors."""
    frame = atoms.copy()
    while 2 * len(frame) <= _FEW_ATOMS:
        repeats = [1, 1, 1]
        repeats[int(np.argmin(frame.cell.lengths()))] = 2
        frame = frame.repeat(repeats)
    return frame


def shake(atoms: Atoms, rng: np.random.Generator, count: int, shakings: Sequence[Shaking]) -> list[Atoms]:
    """
    Strain and rattle copies of a structure, `enlarged`.

    Parameters
    ----------
    atoms
        The structure.
    rng
        Random numbers.
    count
        Number of copies.
    shakings
        Limits, in turns.

    Returns
    -------
    list of Atoms
    """
    shaken = []
    for number in range(count):
        shaking = shakings[number % len(shakings)]
        frame = enlarged(atoms)
        shear = rng.uniform(-1, 1, (3, 3)) * rng.uniform(0, shaking.shear)
        strain = (shear + shear.T) / 2
        strain -= np.eye(3) * np.trace(strain) / 3
        growth = rng.uniform(*shaking.growth) * (1 if number % 2 else -1)
        if shaking.compression:
            growth = max(growth - rng.exponential(shaking.compression), _MOST_COMPRESSED)
        frame.set_cell(frame.cell[:] @ (np.eye(3) + strain) * np.exp(growth / 3), scale_atoms=True)
        sigma = np.exp(rng.uniform(*np.log(shaking.rattle)))
        frame.positions += rng.normal(0, sigma, frame.positions.shape)
        shaken.append(frame)
    return shaken


def pair(atoms: Atoms, rng: np.random.Generator) -> tuple[Atoms, Atoms]:
    """
    Displace one atom of a structure, `enlarged`, to both sides of its place.

    The difference of the forces is, to second order in the displacement, a product of the Hessian at the structure
    with the displacement (central difference). Neither frame is the structure itself, which may be labelled already.

    Parameters
    ----------
    atoms
        The structure.
    rng
        Random numbers: the atom, the direction, and the distance within `PAIR`.

    Returns
    -------
    tuple of Atoms
        All other atoms are at the same places in both.
    """
    first, second = enlarged(atoms), enlarged(atoms)
    direction = rng.normal(size=3)
    half = direction / np.linalg.norm(direction) * rng.uniform(*PAIR) / 2
    atom = rng.integers(len(first))
    first.positions[atom] -= half
    second.positions[atom] += half
    return first, second
