"""Plausibility of input structures: distances, volumes and cell angles that no crystal has."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from ase.data import covalent_radii

from matris.structures import near_pairs

if TYPE_CHECKING:
    from pymatgen.core import Structure

# None of 5,386 uncompressed frames of the Materials Project, WBM and Alexandria violates one of these limits.
_MIN_DISTANCE = 0.5  # between two atoms, in sums of their covalent radii (Cordero et al., Dalton Trans. 2008, 2832)
_MAX_VOLUME = 800.0  # Å³ per atom
_MAX_FILLING = 3.0  # volume of the atoms, as spheres of their covalent radii, over the volume of the cell
_MIN_ANGLE = 2.0  # degrees between two edges of the cell, or between one edge and the continuation of the other


def sanity_problem(structure: Structure) -> str | None:
    """
    Find out why a structure is implausible.

    Parameters
    ----------
    structure
        Structure in which `matris.structures.problem_with` finds no problem.

    Returns
    -------
    str or None
        Reason, with the atoms or the quantity that is wrong; None for a plausible structure.

    Examples
    --------
    >>> from pymatgen.core import Lattice, Structure
    >>> sanity_problem(Structure(Lattice.cubic(3.6), ["Cu"], [[0, 0, 0]]))
    >>> sanity_problem(Structure(Lattice.cubic(20.0), ["Cu"], [[0, 0, 0]]))
    'volume too large: 8e+03 Å³ per atom'
    """
    radii = covalent_radii[[site.specie.Z for site in structure]]
    return _cell_problem(structure, radii) or _distance_problem(structure, radii)


def _cell_problem(structure: Structure, radii: np.ndarray) -> str | None:
    """Check the angles and the volume of the cell; `radii` are in Å, one per atom."""
    angles = structure.lattice.angles
    smallest = min(*angles, 180 - max(angles))
    if smallest < _MIN_ANGLE:
        return f"degenerate cell: two edges are {smallest:.2g}° from parallel"
    volume = structure.volume / len(structure)
    if volume > _MAX_VOLUME:
        return f"volume too large: {volume:.3g} Å³ per atom"
    filling = float((4 / 3 * np.pi * radii**3).mean()) / volume
    if filling > _MAX_FILLING:
        return f"volume too small: {volume:.3g} Å³ per atom, of which atoms would fill {filling:.2g} times as much"
    return None


def _distance_problem(structure: Structure, radii: np.ndarray) -> str | None:
    """Look for atoms that are too close; `radii` are in Å, one per atom."""
    first, second, distances = near_pairs(structure, _MIN_DISTANCE * 2 * float(radii.max()))
    if not len(distances):
        return None
    ratios = distances / (radii[first] + radii[second])
    worst = int(np.argmin(ratios))
    if ratios[worst] >= _MIN_DISTANCE:
        return None
    i, j = int(first[worst]), int(second[worst])
    return (
        f"atoms too close: sites {i} ({structure[i].specie.symbol}) and {j} ({structure[j].specie.symbol}) are "
        f"{distances[worst]:.2f} Å apart, {ratios[worst]:.2f} of the sum of their radii"
    )
