"""What an input structure is: its identity, and what makes it impossible to compute."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import numpy as np
from pymatgen.core import Structure
from pymatgen.io.ase import AseAtomsAdaptor
from scipy.spatial import cKDTree

from matris.errors import StructureError

if TYPE_CHECKING:
    from collections.abc import Collection

    from ase import Atoms
    from numpy.typing import NDArray

MIN_DISTANCE = 0.5
"""Shortest distance between two atoms (Å) that is taken for a structure and not for a mistake."""

_FAR = 1e6
"""Cells away from the origin beyond which the digits of a coordinate say nothing about its place in the cell."""

_LONGEST = 1e3
"""Longest edge of a cell (Å) that is taken for a structure and not for a mistake."""

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
    frac = np.asarray(structure.frac_coords, dtype=float)
    if (strange := np.flatnonzero(~np.isfinite(frac).all(axis=1))).size:
        return f"site {strange[0]} ({structure[int(strange[0])].specie.symbol}) has a NaN or infinite coordinate"
    if (far := np.flatnonzero((np.abs(frac) > _FAR).any(axis=1))).size:
        return f"site {far[0]} ({structure[int(far[0])].specie.symbol}) lies {_FAR:g} cells away: its digits are lost"
    lengths = np.linalg.norm(matrix, axis=1)
    if lengths.max() > _LONGEST:
        return f"the cell is {lengths.max():.3g} Å long, beyond {_LONGEST:g} Å"
    volume = abs(float(np.linalg.det(matrix)))
    if volume < 1e-3 * len(structure):
        return f"the cell has no volume ({volume:.3g} Å³)"
    symbols = {site.specie.symbol for site in structure}
    if elements is not None and (unknown := sorted(symbols - set(elements))):
        return f"unsupported element {', '.join(unknown)}: the checkpoint does not know it"
    return _overlap(structure, min_distance)


def near_pairs(structure: Structure, cutoff: float) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]:
    """
    Pairs of atoms up to some distance apart, periodic images and an atom's own images included.

    Time and memory go with the number of atoms and pairs, however large or flat the cell is.

    Parameters
    ----------
    structure
        One whose atoms do not overlap, see `problem_with`.
    cutoff
        Å.

    Returns
    -------
    tuple of ndarray
        Indices of the first and of the second atom, and their distance (Å); each of shape (pairs,), and each pair
        in both directions.
    """
    here, everywhere, owners = _periodic(structure, cutoff)
    found = cKDTree(here).sparse_distance_matrix(cKDTree(everywhere), cutoff, output_type="ndarray")
    others = found[found["i"] != found["j"]]  # the first points of `everywhere` are those of `here`
    return others["i"], owners[others["j"]], others["v"]


def _periodic(structure: Structure, margin: float) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.intp]]:
    """Points of a cell (Å), these and their images up to a margin around the cell, and the atom each of them shows."""
    matrix, frac = np.asarray(structure.lattice.matrix), structure.frac_coords
    heights = _heights(matrix)
    if heights.min() < margin / 4:  # many images along a flat cell, fewer along its shortest vectors
        matrix = np.asarray(structure.lattice.get_lll_reduced_lattice().matrix)
        frac, heights = structure.cart_coords @ np.linalg.inv(matrix), _heights(matrix)
    frac = np.mod(frac, 1.0)
    here = frac @ matrix
    padding = margin / heights
    owners, shifted = np.arange(len(frac)), np.zeros((len(frac), 3))
    for axis in range(3):
        steps = np.arange(-np.ceil(padding[axis]), np.ceil(padding[axis]) + 1)
        places = frac[owners, axis] + steps[:, None]
        step, point = np.nonzero((places > -padding[axis]) & (places < 1 + padding[axis]))
        owners, shifted = owners[point], shifted[point]
        shifted[:, axis] = steps[step]
    images = np.flatnonzero(shifted.any(axis=1))
    everywhere = np.vstack([here, here[owners[images]] + shifted[images] @ matrix])
    return here, everywhere, np.concatenate([np.arange(len(frac)), owners[images]])


def _heights(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distances between opposite faces of a cell (Å)."""
    columns = np.linalg.inv(matrix)
    heights: NDArray[np.float64] = 1 / np.sqrt((columns * columns).sum(axis=0))
    return heights


def _overlap(structure: Structure, min_distance: float) -> str | None:
    """Closest pair of atoms, if it is closer than `min_distance` (Å)."""
    if _heights(np.asarray(structure.lattice.matrix)).min() < min_distance:
        shortest = min(structure.lattice.get_lll_reduced_lattice().abc)
        if shortest < min_distance:
            return f"overlapping atoms: the cell repeats itself after {shortest:.2g} Å"
    here, everywhere, owners = _periodic(structure, min_distance)
    if len(everywhere) == 1:
        return None
    distances, points = cKDTree(everywhere).query(here, k=2, distance_upper_bound=min_distance)
    i = int(np.argmin(distances[:, 1]))
    if not np.isfinite(distances[i, 1]):
        return None
    j = int(owners[next(point for point in points[i] if point != i)])
    return (
        f"overlapping atoms: sites {i} ({structure[i].specie.symbol}) and {j} ({structure[j].specie.symbol}) "
        f"are {distances[i, 1]:.2f} Å apart"
    )
