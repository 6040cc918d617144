"""
Search for the same crystal among many inputs, before they are relaxed.

Only what relaxes to the same result may be left out. Cubic and tetragonal KNbO3 are alike to pymatgen's matcher, and
relax to crystals 47 meV/atom apart. Inputs are therefore the same crystal only if they differ by rounding: by the
choice of the cell, origin, orientation, order of the atoms, and little noise, which leaves their symmetry alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice, product
from typing import TYPE_CHECKING

import numpy as np
import spglib
from pymatgen.core import Lattice

from matris.duplicates import fingerprint_of, formula_key, packed, unpacked, unpacked_arrays

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from pymatgen.core import Structure

MAX_DISPLACEMENT = 0.01
"""Largest displacement (Å) of an atom in the same crystal."""

MAX_STRAIN = 1e-3
"""Largest strain of the same crystal; also of its volume, which is not rescaled."""

SYMMETRY_TOLERANCE = 2e-3
"""
Tolerance (Å) within which translations and the space group of the same crystal agree.

Relaxation keeps the symmetry of its input. Atoms that are displaced by 0.005 Å from the sites of a cubic perovskite
relax to the ferroelectric crystal, atoms on these sites do not.
"""

_FINGERPRINT_TOLERANCE = 0.05  # relative difference of fingerprints; `MAX_DISPLACEMENT` and `MAX_STRAIN` cause less
_SIMILAR, _COMPARISONS = 500, 20  # largest numbers of lattices, and of structures, that one structure is compared with
_DEGREES = 0.2  # difference of cell angles that `MAX_STRAIN` can cause; strains are then computed
_N_LENGTHS = 7  # pairs of faces of a Voronoi cell, at most
_COMBINATIONS = np.array([v for v in product(range(-2, 3), repeat=3) if v > (0, 0, 0)])
_FIRST_ROWS = 8
_TINY = 1e-6


class SameCrystals:
    """
    A growing set of structures, which finds the same crystal among them.

    The time for a structure hardly depends on their number: cells of equal formula are compared by their volumes and
    distributions of neighbors, for all stored structures at once, and only the most similar ones atom by atom. A
    structure of ten atoms takes about 0.4 kB of memory, if others have its formula.

    Structures with fixed atoms (site property ``selective_dynamics``) are compared with none.

    Examples
    --------
    >>> from pymatgen.core import Lattice, Structure
    >>> salt = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.6), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    >>> crystals = SameCrystals()
    >>> print(crystals.first_like("salt", salt))
    None
    >>> crystals.first_like("primitive", salt.get_primitive_structure())
    'salt'
    >>> expanded = salt.copy().scale_lattice(salt.volume * 1.05)
    >>> print(crystals.first_like("expanded", expanded))
    None
    """

    def __init__(self) -> None:
        self._by_formula: dict[tuple[tuple[int, int, int], ...], _Formula] = {}

    def first_like(self, candidate_id: str, structure: Structure) -> str | None:
        """
        Find a stored structure that is the same crystal; store the structure if there is none.

        Parameters
        ----------
        candidate_id
            Name of the structure.
        structure
            An ordered structure whose atoms do not overlap, see `matris.structures.problem_with`.

        Returns
        -------
        str or None
            Name of the stored structure; None if there is none.
        """
        if _has_fixed_atoms(structure):
            return None
        formula = self._by_formula.setdefault(formula_key(structure), _Formula())
        crystal = _Crystal(candidate_id, packed(structure))
        alike = (other for other in formula.similar(crystal) if other.reduced().resembles(crystal.reduced()))
        for other in islice(alike, _COMPARISONS):
            if _is_same(other.reduced(), crystal.reduced()):
                return other.candidate_id
        formula.add(crystal)
        return None


def is_same_crystal(one: Structure, other: Structure) -> bool:
    """
    Whether two structures are the same crystal, up to the choice of the cell, origin, orientation and order of atoms.

    Parameters
    ----------
    one, other
        Ordered structures whose atoms do not overlap.

    Examples
    --------
    >>> from pymatgen.core import Lattice, Structure
    >>> iron = Structure(Lattice.cubic(2.87), ["Fe", "Fe"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    >>> moved = Structure(Lattice.cubic(2.87), ["Fe", "Fe"], [[0, 0, 0], [0.5, 0.5, 0.51]])
    >>> is_same_crystal(iron, iron.get_primitive_structure()), is_same_crystal(iron, moved)
    (True, False)
    """
    crystals = SameCrystals()
    crystals.first_like("one", one)
    return crystals.first_like("other", other) is not None


@dataclass(slots=True)
class _Crystal:
    """A stored structure; its fingerprint and its primitive cell are computed when they are first needed."""

    candidate_id: str
    content: bytes
    row: NDArray[np.float32] | None = None
    primitive: _Primitive | None = None

    def features(self) -> NDArray[np.float32]:
        """Logarithm of the volume per atom, and the fingerprint; neither depends on the choice of the cell."""
        if self.row is None:
            structure = unpacked(self.content)
            volume = np.log(structure.volume / len(structure))
            self.row = np.concatenate([[volume], fingerprint_of(structure)]).astype(np.float32)
        return self.row

    def reduced(self) -> _Primitive:
        """Return the primitive cell, which replaces the structure on the first call."""
        if self.primitive is None:
            self.primitive, self.content = _Primitive.of(*unpacked_arrays(self.content)), b""
        return self.primitive


@dataclass(frozen=True, slots=True)
class _Primitive:
    """
    A primitive cell.

    Attributes
    ----------
    space_group
        Number of the space group; 0 where spglib finds none, and then the cell may not be primitive.
    matrix
        Lattice vectors as rows (Å), shape (3, 3).
    frac_coords, kinds
        Fractional coordinates (n, 3) and kinds of the atoms (n,).
    lengths
        Lengths of the shortest lattice vectors (Å), in order; they do not depend on the choice of the basis.
    """

    space_group: int
    matrix: NDArray[np.float64]
    frac_coords: NDArray[np.float64]
    kinds: NDArray[np.uint8]
    lengths: NDArray[np.float64]

    @classmethod
    def of(cls, kinds: NDArray[np.uint8], matrix: NDArray[np.float64], frac_coords: NDArray[np.float64]) -> _Primitive:
        """Find the primitive cell of a structure."""
        coords, number = frac_coords @ matrix, 0
        dataset = spglib.get_symmetry_dataset((matrix, frac_coords, kinds), symprec=SYMMETRY_TOLERANCE)
        if dataset is not None:
            _, first = np.unique(dataset.mapping_to_primitive, return_index=True)
            matrix, coords, kinds, number = dataset.primitive_lattice, coords[first], kinds[first], dataset.number
        niggli = spglib.niggli_reduce(matrix)
        matrix = matrix if niggli is None else niggli
        lengths = np.sort(np.linalg.norm(_COMBINATIONS @ matrix, axis=1))[:_N_LENGTHS]
        return cls(number, matrix, coords @ np.linalg.inv(matrix), kinds, lengths)

    def resembles(self, other: _Primitive) -> bool:
        """Whether sizes, symmetries and lattices agree."""
        if len(self.kinds) != len(other.kinds) or self.space_group != other.space_group:
            return False
        return bool((np.abs(self.lengths / other.lengths - 1) <= 2 * MAX_STRAIN).all())


@dataclass
class _Formula:
    """Structures of one formula, with their volumes and fingerprints in one array, which doubles when it is full."""

    crystals: list[_Crystal] = field(default_factory=list)
    _rows: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 0), dtype=np.float32))
    _n_rows: int = 0

    def add(self, crystal: _Crystal) -> None:
        """Store a structure; its fingerprint is computed when there is another one to compare."""
        self.crystals.append(crystal)

    def similar(self, crystal: _Crystal) -> Iterator[_Crystal]:
        """Yield the stored structures of similar volume and fingerprint, most similar first."""
        if not self.crystals:
            return
        for stored in self.crystals[self._n_rows :]:
            self._append(stored.features())
            stored.row = None
        row, rows = crystal.features(), self._rows[: self._n_rows]
        near = np.flatnonzero(np.abs(rows[:, 0] - row[0]) <= 4 * MAX_STRAIN)  # a strain changes the volume threefold
        difference = np.linalg.norm(rows[near, 1:] - row[1:], axis=1) / (np.linalg.norm(row[1:]) + _TINY)
        order = np.argsort(difference, kind="stable")[:_SIMILAR]
        for index in order[difference[order] <= _FINGERPRINT_TOLERANCE]:
            yield self.crystals[near[index]]

    def _append(self, row: NDArray[np.float32]) -> None:
        if self._n_rows == len(self._rows):
            longer = np.empty((max(2 * self._n_rows, _FIRST_ROWS), len(row)), dtype=np.float32)
            if self._n_rows:
                longer[: self._n_rows] = self._rows
            self._rows = longer
        self._rows[self._n_rows] = row
        self._n_rows += 1


def _has_fixed_atoms(structure: Structure) -> bool:
    """Whether an atom is fixed, so that a relaxation of the same crystal may end elsewhere."""
    flags = structure.site_properties.get("selective_dynamics")
    return flags is not None and not all(np.all(each) for each in flags if each is not None)


def _is_same(one: _Primitive, other: _Primitive) -> bool:
    """Whether two primitive cells of equal formula belong to the same crystal."""
    rarest = min(set(one.kinds.tolist()), key=lambda kind: (int((one.kinds == kind).sum()), kind))
    start = int(np.flatnonzero(other.kinds == rarest)[0])
    for frac_coords in _in_basis_of(one, other.matrix):
        for index in np.flatnonzero(one.kinds == rarest):
            moved = other.frac_coords + (frac_coords[index] - other.frac_coords[start])
            if _atoms_agree(frac_coords, one.kinds, moved, other.kinds, other.matrix):
                return True
    return False


def _in_basis_of(cell: _Primitive, matrix: NDArray[np.float64]) -> Iterator[NDArray[np.float64]]:
    """Yield the fractional coordinates in each basis of a cell that agrees with the rows of `matrix`, shape (n, 3)."""
    inverse = np.linalg.inv(matrix)
    mappings = Lattice(cell.matrix).find_all_mappings(
        Lattice(matrix), ltol=2 * MAX_STRAIN, atol=_DEGREES, skip_rotation_matrix=True
    )
    for aligned, _, integers in mappings:
        if round(abs(np.linalg.det(integers))) != 1:
            continue
        deformed = inverse @ aligned.matrix  # deformation gradient, up to a rotation
        strain = (deformed @ deformed.T - np.eye(3)) / 2
        if np.abs(np.linalg.eigvalsh(strain)).max() <= MAX_STRAIN:
            yield cell.frac_coords @ np.linalg.inv(integers)


def _atoms_agree(
    one: NDArray[np.float64],
    kinds_of_one: NDArray[np.uint8],
    other: NDArray[np.float64],
    kinds_of_other: NDArray[np.uint8],
    matrix: NDArray[np.float64],
) -> bool:
    """
    Whether each atom of one structure has its counterpart in the other, within `MAX_DISPLACEMENT`.

    The fractional coordinates, shape (n, 3), refer to one basis (Å, rows of `matrix`) and agree in one pair of atoms.
    The common translation that the pair leaves undetermined is the mean displacement.
    """
    displacements = np.empty_like(one)
    for kind in set(kinds_of_one.tolist()):
        rows, columns = np.flatnonzero(kinds_of_one == kind), np.flatnonzero(kinds_of_other == kind)
        if len(rows) != len(columns):
            return False
        difference = one[rows, None] - other[None, columns]
        cartesian = (difference - np.round(difference)) @ matrix
        distances = np.linalg.norm(cartesian, axis=2)
        nearest = distances.argmin(axis=1)
        if distances.min(axis=1).max() > 2 * MAX_DISPLACEMENT or len(set(nearest.tolist())) < len(rows):
            return False
        displacements[rows] = cartesian[np.arange(len(rows)), nearest]
    displacements -= displacements.mean(axis=0)
    return bool(np.linalg.norm(displacements, axis=1).max() <= MAX_DISPLACEMENT)
