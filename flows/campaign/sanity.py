"""Plausible structures: what can be computed, but is no crystal, is not worth computing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from ase.data import covalent_radii

from matris.structures import near_pairs, problem_with

if TYPE_CHECKING:
    from pymatgen.core import Structure


@dataclass(frozen=True)
class SanityLimits:
    """
    What is taken for a crystal.

    The defaults reject none of 5,386 frames of the Materials Project, WBM and Alexandria that are not compressed.

    Attributes
    ----------
    closest
        Shortest distance of two atoms, in sums of their covalent radii (Cordero et al., Dalton Trans. 2008, 2832).
    roomiest
        Largest volume per atom (Å³).
    fullest
        Largest volume of the atoms as spheres of their covalent radii, over the volume of the cell.
    sharpest
        Smallest angle between two edges of the cell, or between one and the continuation of the other (degrees).
    max_sites
        Most atoms in a cell. By default any number.
    loneliest
        Largest distance (Å) from an atom to the next one. By default any distance.
    """

    closest: float = 0.5
    roomiest: float = 800.0
    fullest: float = 3.0
    sharpest: float = 2.0
    max_sites: int | None = None
    loneliest: float | None = None


def sanity_problem(structure: Structure, limits: SanityLimits = SanityLimits()) -> str | None:
    """
    Say in one line why a structure is not worth computing.

    Parameters
    ----------
    structure
        Any pymatgen structure; what `matris.structures.problem_with` finds is found first.
    limits
        What is taken for a crystal.

    Returns
    -------
    str or None
        The reason, naming the culprit; None if there is none.
    """
    if limits.max_sites is not None and len(structure) > limits.max_sites:
        return f"{len(structure)} atoms, of which at most {limits.max_sites} are asked for"
    if reason := problem_with(structure):
        return reason
    radii = covalent_radii[[site.specie.Z for site in structure]]
    return _shape(structure, radii, limits) or _distances(structure, radii, limits)


def _shape(structure: Structure, radii: np.ndarray, limits: SanityLimits) -> str | None:
    """Angles and volume of the cell."""
    angles = structure.lattice.angles
    sharpest = min(*angles, 180 - max(angles))
    if sharpest < limits.sharpest:
        return f"degenerate cell: two edges are {sharpest:.2g}° from parallel"
    volume = structure.volume / len(structure)
    if volume > limits.roomiest:
        return f"volume too large: {volume:.3g} Å³ per atom"
    filling = float((4 / 3 * np.pi * radii**3).mean()) / volume
    if filling > limits.fullest:
        return f"volume too small: {volume:.3g} Å³ per atom, of which atoms would fill {filling:.2g} times as much"
    return None


def _distances(structure: Structure, radii: np.ndarray, limits: SanityLimits) -> str | None:
    """Atoms too close, and atoms alone."""
    first, second, distances = near_pairs(structure, limits.closest * 2 * float(radii.max()))
    if len(distances):
        ratios = distances / (radii[first] + radii[second])
        worst = int(np.argmin(ratios))
        if ratios[worst] < limits.closest:
            i, j = int(first[worst]), int(second[worst])
            return (
                f"atoms too close: sites {i} ({structure[i].specie.symbol}) and {j} ({structure[j].specie.symbol}) are "
                f"{distances[worst]:.2f} Å apart, {ratios[worst]:.2f} of the sum of their radii"
            )
    if limits.loneliest is not None:
        lonely = np.setdiff1d(np.arange(len(structure)), near_pairs(structure, limits.loneliest)[0])
        if lonely.size:
            i = int(lonely[0])
            return f"isolated atom: site {i} ({structure[i].specie.symbol}) has no other within {limits.loneliest:g} Å"
    return None
