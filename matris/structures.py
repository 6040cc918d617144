"""What an input structure is: its identity, and what makes it impossible to compute."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import numpy as np
from pymatgen.core import Structure
from pymatgen.io.ase import AseAtomsAdaptor

from matris.errors import StructureError

if TYPE_CHECKING:
    from collections.abc import Collection

    from ase import Atoms

MIN_DISTANCE = 0.5
"""Shortest distance between two atoms (Å) that is taken for a structure and not for a mistake."""

_DECIMALS = 5
"""Digits kept of fractional coordinates and lattice vectors (Å) in an identity: far above numerical noise."""


def to_structure(obj: Structure | Atoms) -> Structure:
    """
    Read a fully periodic crystal from pymatgen or ASE.

    Parameters
    ----------
    obj
        A pymatgen ``Structure`` or an ASE ``Atoms`` that is periodic in three directions.

    Returns
    -------
    Structure

    Raises
    ------
    StructureError
        If the object is neither, or not periodic in three directions.
    """
    if isinstance(obj, Structure):
        return obj
    if not hasattr(obj, "get_atomic_numbers"):
        raise StructureError(f"expected a pymatgen Structure or ASE Atoms, got {type(obj).__name__}")
    if not np.all(obj.pbc):
        raise StructureError(f"{obj.symbols} is not periodic in three directions; use MatRISCalculator for it")
    structure: Structure = AseAtomsAdaptor.get_structure(obj)
    return structure


def content_id(structure: Structure) -> str:
    """
    Identity of a structure: a hash of species, lattice and coordinates, rounded.

    The same input is the same candidate on any machine. Sites are compared in the given order, and
    fractional coordinates modulo one; symmetry-equivalent descriptions have different identities.

    Returns
    -------
    str
        20 hexadecimal digits.
    """
    frac = np.round(np.mod(np.asarray(structure.frac_coords, dtype=float), 1.0), _DECIMALS) % 1.0
    content = {
        "species": [str(site.species) for site in structure],
        "lattice": (np.round(structure.lattice.matrix, _DECIMALS) + 0.0).tolist(),  # + 0.0: no negative zeros
        "frac_coords": (frac + 0.0).tolist(),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:20]


def problem_with(
    structure: Structure, elements: Collection[str] | None = None, min_distance: float = MIN_DISTANCE
) -> str | None:
    """
    Say in one line why a structure cannot be computed.

    Parameters
    ----------
    structure
        Any pymatgen structure.
    elements
        Symbols that the potential knows. By default all.
    min_distance
        Shortest allowed distance between two atoms (Å), periodic images included.

    Returns
    -------
    str or None
        The reason, naming the culprit; None if there is none.
    """
    if len(structure) == 0:
        return "empty structure: it has no atoms"
    for index, site in enumerate(structure):
        if not site.is_ordered:
            return (
                f"disordered site {index} ({site.species_string}): order it first, e.g. by pymatgen's transformations"
            )
    matrix = np.asarray(structure.lattice.matrix, dtype=float)
    if not np.isfinite(matrix).all():
        return "the lattice has a NaN or infinite component"
    finite = np.isfinite(np.asarray(structure.frac_coords, dtype=float)).all(axis=1)
    if not finite.all():
        index = int(np.flatnonzero(~finite)[0])
        return f"site {index} ({structure[index].specie.symbol}) has a NaN or infinite coordinate"
    volume = abs(float(np.linalg.det(matrix)))
    if volume < 1e-3 * len(structure):
        return f"the cell has no volume ({volume:.3g} Å³)"
    symbols = {site.specie.symbol for site in structure}
    if elements is not None and (unknown := sorted(symbols - set(elements))):
        return f"unsupported element {', '.join(unknown)}: the checkpoint does not know it"
    return _overlap(structure, min_distance)


def _overlap(structure: Structure, min_distance: float) -> str | None:
    """First pair of atoms closer than `min_distance` (Å)."""
    centers, neighbors, _, distances = structure.get_neighbor_list(min_distance)
    if len(distances) == 0:
        return None
    worst = int(np.argmin(distances))
    i, j = int(centers[worst]), int(neighbors[worst])
    return (
        f"overlapping atoms: sites {i} ({structure[i].specie.symbol}) and {j} ({structure[j].specie.symbol}) "
        f"are {distances[worst]:.2f} Å apart"
    )
