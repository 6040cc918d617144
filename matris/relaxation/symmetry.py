"""The symmetry of a structure, and forces and deformations that keep it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import spglib
from pymatgen.core import Lattice, Structure

from matris.constraints import freedom_of
from matris.errors import StructureError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from matris.relaxation.records import CellMask

_ROUNDS = 20  # of moving the atoms onto their symmetric places
_SAME_METRIC = 1e-6  # relative: metric tensors that are equal
_EXACT = 1e-12  # fractional coordinates: places that do not move any more


class Symmetry(NamedTuple):
    """
    Space group operations of a structure.

    Attributes
    ----------
    rotations
        Cartesian rotations R, shape (g, 3, 3), acting on column vectors.
    images
        For each operation the atom in whose place it puts each atom, shape (g, n).
    """

    rotations: NDArray[np.float64]
    images: NDArray[np.int_]


def symmetrised(
    structure: Structure, symprec: float, *, keep_lattice: bool = False
) -> tuple[Structure, Symmetry | None]:
    """
    Find the symmetry of a structure within a tolerance, and move lattice and atoms so that it is exact.

    The lattice is deformed without a rotation to the mean of its metric tensors under all operations, and each atom
    moves to the mean of the places to which the operations take its equivalents (R. W. Grosse-Kunstleve, P. D. Adams,
    Acta Cryst. A58, 60 (2002)). Fixed atoms are equivalent only to fixed atoms.

    Parameters
    ----------
    structure
        The structure.
    symprec
        Tolerance of spglib, Å.
    keep_lattice
        Leave the lattice as it is, and take only the operations that it has without a deformation.

    Returns
    -------
    structure : Structure
        With the same sites in the same order.
    symmetry : Symmetry or None
        None where the identity is the only operation.

    Raises
    ------
    StructureError
        If spglib finds no symmetry, or an atom is fixed along some directions only.

    Examples
    --------
    >>> from pymatgen.core import Lattice, Structure
    >>> salt = Structure(Lattice.orthorhombic(4.002, 4, 4), ["Cs", "Cl"], [[0, 0, 0], [0.501, 0.5, 0.5]])
    >>> cubic, symmetry = symmetrised(salt, 0.02)
    >>> len(symmetry.rotations), cubic.lattice.is_orthogonal, len({round(x, 9) for x in cubic.lattice.abc})
    (48, True, 1)
    """
    free = freedom_of(structure)
    if free is not None and (free.any(axis=1) != free.all(axis=1)).any():
        raise StructureError("fix_symmetry: an atom is fixed along some directions only; fix it along all or none")
    is_fixed = np.zeros(len(structure), dtype=int) if free is None else (~free[:, 0]).astype(int)
    kinds = 2 * np.array([site.specie.Z for site in structure]) + is_fixed
    matrix, places = np.array(structure.lattice.matrix), np.array(structure.frac_coords)
    found = spglib.get_symmetry((matrix, places, kinds), symprec=symprec)
    if found is None:
        raise StructureError(f"fix_symmetry: spglib finds no symmetry within {symprec} Å; choose another symprec")
    turns, shifts = found["rotations"].astype(float), found["translations"]
    metrics = turns.transpose(0, 2, 1) @ (matrix @ matrix.T) @ turns
    if keep_lattice:
        differences = np.abs(metrics - matrix @ matrix.T).max(axis=(1, 2)) / np.abs(matrix @ matrix.T).max()
        turns, shifts, metrics = (array[differences < _SAME_METRIC] for array in (turns, shifts, metrics))
    if len(turns) == 1:
        return structure, None
    images = np.array(
        [_images(places @ turn.T + shift, places, kinds, matrix) for turn, shift in zip(turns, shifts, strict=True)]
    )
    if any(len(set(image)) < len(image) for image in images):
        raise StructureError(
            f"fix_symmetry: atoms are equivalent to several within {symprec} Å; choose a smaller symprec"
        )
    if not keep_lattice:
        inverse = np.linalg.inv(matrix)
        values, vectors = np.linalg.eigh(inverse @ metrics.mean(axis=0) @ inverse.T)
        matrix = matrix @ (vectors * np.sqrt(values)) @ vectors.T
    for _ in range(_ROUNDS):
        moved = np.zeros_like(places)
        for turn, shift, image in zip(turns, shifts, images, strict=True):
            shift += _near(places[image] - places @ turn.T - shift).mean(axis=0)  # noqa: PLW2901 - fitted in place
            away = _near(places @ turn.T + shift - places[image])
            moved[image] += away / len(turns)
        places = places + moved
        if np.abs(moved).max() < _EXACT:
            break
    basis = matrix.T
    rotations = basis @ turns @ np.linalg.inv(basis)
    exact = Structure(
        Lattice(matrix), structure.species, places, labels=structure.labels, site_properties=structure.site_properties
    )
    return exact, Symmetry(rotations, images)


def _near(differences: NDArray[np.float64]) -> NDArray[np.float64]:
    """Differences of fractional coordinates to the nearest image."""
    return differences - np.round(differences)


def _images(
    moved: NDArray[np.float64], places: NDArray[np.float64], kinds: NDArray[np.int_], matrix: NDArray[np.float64]
) -> NDArray[np.int_]:
    """Atom of the same kind that is nearest to each moved atom."""
    distances = np.linalg.norm(_near(moved[:, None] - places) @ matrix, axis=2)
    distances[kinds[:, None] != kinds] = np.inf
    return distances.argmin(axis=1)


def cell_projector(matrix: NDArray[np.float64], mask: CellMask | None) -> NDArray[np.float64]:
    """
    Compute the projector onto the logarithms L of the deformations that a mask allows.

    Parameters
    ----------
    matrix
        Lattice vectors as rows (Å), shape (3, 3).
    mask
        See `matris.relax`; None allows all.

    Returns
    -------
    ndarray
        Orthogonal projector on matrices, flattened row by row, shape (9, 9).

    Examples
    --------
    >>> import numpy as np
    >>> strain = np.diag([0.01, 0.02, 0.06]).reshape(-1)
    >>> (cell_projector(np.eye(3), "volume") @ strain).reshape(3, 3).diagonal().round(6).tolist()
    [0.03, 0.03, 0.03]
    """
    trace = np.eye(3).reshape(1, 9) / np.sqrt(3)
    if mask is None:
        return np.eye(9)
    if mask == "volume":
        return trace.T @ trace
    if mask == "shape":
        return np.eye(9) - trace.T @ trace
    if isinstance(mask, str):
        letters = "abc" if mask == "lengths" else mask
        stretched = [np.outer(matrix[i], np.linalg.inv(matrix)[:, i]).reshape(9) for i in map("abc".index, letters)]
        return np.linalg.pinv(stretched) @ stretched
    xx, yy, zz, yz, xz, xy = mask
    return np.diag(np.array([xx, xy, xz, xy, yy, yz, xz, yz, zz], dtype=float))


def invariant(rotations: NDArray[np.float64]) -> NDArray[np.float64]:
    """Projector onto the matrices that do not change under any of the rotations, flattened row by row, (9, 9)."""
    return np.mean([np.kron(rotation, rotation) for rotation in rotations], axis=0)


def common(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """Orthogonal projector onto what two orthogonal projectors both keep, (9, 9)."""
    values, vectors = np.linalg.eigh((one + other) / 2)
    kept = vectors[:, values > 1 - 1e-6]
    return kept @ kept.T
