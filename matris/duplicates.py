"""
Search for duplicates among many relaxed structures: cheap comparisons first, pymatgen's matcher for the rest.

The comparison is loose. It takes crystals as equal that differ in how well they are relaxed, and with them polymorphs
such as cubic and tetragonal KNbO3. `matris.same_crystal` compares structures that are not relaxed yet.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import gcd
from typing import TYPE_CHECKING

import numpy as np
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Element, Lattice, Structure

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

ENERGY_TOLERANCE = 0.02
"""Largest energy difference (eV/atom) of duplicates, which differ in how well they are relaxed."""

FINGERPRINT_TOLERANCE = 0.2
"""
Largest relative difference between the fingerprints of two structures that the matcher compares.

Displacements of 0.2 Å and strains of 2 % cause differences below 0.1. Among literature crystals, the difference is
smaller than this tolerance for 97 % of the pairs that the matcher finds equal; the other pairs are polymorphs, such as
those of SiO2 and AlN.
"""

_COMPARISONS = 20  # largest number of comparisons by the matcher for one structure, which bounds its time

_GRID = np.linspace(0.5, 2.2, 18)  # distances of the fingerprint, in units of (V/n)^(1/3)
_WIDTH = 0.12  # width of the Gaussians of the fingerprint, in the same unit


class Duplicates:
    """
    A growing set of structures, which finds duplicates of a new one.

    Two structures are duplicates if pymatgen's `StructureMatcher` finds them equal: up to rotation, translation, order
    of the atoms, choice of the cell, scale, and small strains and displacements. The matcher only compares structures
    of equal reduced formula and equal number of atoms in the primitive cell, with similar energies if both are known,
    and with similar distributions of neighbors. A structure with a unique formula is neither reduced nor compared.
    Isotopes are different elements here: their vibrations differ.

    A structure of ten atoms takes about 0.7 kB of memory, in single precision.

    Examples
    --------
    >>> from pymatgen.core import Lattice, Structure
    >>> salt = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.6), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    >>> duplicates = Duplicates()
    >>> print(duplicates.first_like("salt", salt))
    None
    >>> duplicates.first_like("primitive", salt.get_primitive_structure())
    'salt'
    """

    def __init__(self) -> None:
        self._matcher = StructureMatcher()
        self._seen: dict[tuple[tuple[int, int, int], ...], list[_Kept]] = {}

    def first_like(self, candidate_id: str, structure: Structure, energy: float | None = None) -> str | None:
        """
        Find a stored duplicate of a structure; store the structure if there is none.

        Equality is not transitive. In a series of structures, each of which equals only the next, the order determines
        which structures are stored. The same order always gives the same result.

        Parameters
        ----------
        candidate_id
            Name of the structure.
        structure
            An ordered structure whose atoms do not overlap, see `matris.structures.problem_with`.
        energy
            Energy (eV/atom). If it is unknown, energies are not compared.

        Returns
        -------
        str or None
            Name of the most similar duplicate; None if there is none.
        """
        kept = _Kept(candidate_id, energy, packed(structure))
        others = self._seen.setdefault(formula_key(structure), [])
        duplicate = self._like(kept, others)
        if duplicate is None:
            others.append(kept)
        return duplicate

    def remember(self, candidate_id: str, structure: Structure, energy: float | None = None) -> None:
        """Store a structure, even if it is a duplicate."""
        self._seen.setdefault(formula_key(structure), []).append(_Kept(candidate_id, energy, packed(structure)))

    def like(self, structure: Structure, energy: float | None = None) -> str | None:
        """Find the most similar stored duplicate of a structure, without storing it; None if there is none."""
        return self._like(_Kept("", energy, packed(structure)), self._seen.get(formula_key(structure), []))

    def _like(self, kept: _Kept, others: Iterable[_Kept]) -> str | None:
        """Name of the most similar duplicate among others; None if there is none."""
        structure = None
        for other in _similar(kept, others):
            structure = structure or unpacked(kept.content)
            if self._matcher.fit(unpacked(other.content), structure, skip_structure_reduction=True):
                return other.candidate_id
        return None


def group_equal(items: Iterable[tuple[str, Structure, float]]) -> dict[str, str]:
    """
    Group duplicates, and name the structure of lowest energy in each group as its representative.

    Parameters
    ----------
    items
        Name, structure and energy (eV/atom); the order has no influence.

    Returns
    -------
    dict
        Name of the representative for each name. Among equal energies the first name in alphabetical order represents
        the group.

    Examples
    --------
    >>> from pymatgen.core import Lattice, Structure
    >>> salt = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.6), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    >>> cubic = Structure(Lattice.cubic(3.5), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    >>> group_equal([("a", salt, -3.0), ("b", salt.get_primitive_structure(), -3.01), ("c", cubic, -2.9)])
    {'b': 'b', 'a': 'b', 'c': 'c'}
    """
    duplicates = Duplicates()
    return {
        name: duplicates.first_like(name, structure, energy) or name
        for name, structure, energy in sorted(items, key=lambda item: (item[2], item[0]))
    }


@dataclass(slots=True)
class _Kept:
    """A stored structure, which is reduced when it is first compared."""

    candidate_id: str
    energy: float | None
    content: bytes
    fingerprint: NDArray[np.float32] | None = None

    def reduce(self) -> NDArray[np.float32]:
        """Replace the structure by its primitive cell on the first call, and return the fingerprint."""
        if self.fingerprint is None:
            structure = _reduced(unpacked(self.content))
            self.content, self.fingerprint = packed(structure), fingerprint_of(structure)
        return self.fingerprint


def _similar(kept: _Kept, others: Iterable[_Kept]) -> Iterator[_Kept]:
    """Yield the possible duplicates, most similar first."""
    candidates = [
        other
        for other in others
        if kept.energy is None or other.energy is None or abs(kept.energy - other.energy) <= ENERGY_TOLERANCE
    ]
    if not candidates:
        return
    fingerprint = kept.reduce()
    fingerprints = np.array([other.reduce() for other in candidates])
    scale = np.sqrt(((fingerprints * fingerprints).sum(axis=1) + fingerprint @ fingerprint) / 2)
    difference = np.linalg.norm(fingerprints - fingerprint, axis=1) / scale
    same_size = np.array([len(other.content) == len(kept.content) for other in candidates])
    similar = np.flatnonzero(same_size & (difference <= FINGERPRINT_TOLERANCE))
    for index in similar[np.argsort(difference[similar], kind="stable")][:_COMPARISONS]:
        yield candidates[index]


def formula_key(structure: Structure) -> tuple[tuple[int, int, int], ...]:
    """
    Reduced formula: atomic number, excess mass of an isotope (0.1 u) and count of each kind of atom.

    Examples
    --------
    >>> from pymatgen.core import Lattice, Structure
    >>> formula_key(Structure(Lattice.cubic(4), ["Li", "D"], [[0, 0, 0], [0.5, 0.5, 0.5]]))
    ((1, 10, 1), (3, 0, 1))
    """
    counts = Counter(_kinds(structure))
    largest = gcd(*counts.values())
    return tuple((*kind, counts[kind] // largest) for kind in sorted(counts))


def packed(structure: Structure) -> bytes:
    """Pack kinds of atoms, lattice (Å) and fractional coordinates in single precision: 36 + 13 n bytes."""
    kinds = _kinds(structure)
    unused = (number for number in range(118, 0, -1) if all(number != kind[0] for kind in kinds))
    labels = {kind: kind[0] if not kind[1] else next(unused) for kind in sorted(set(kinds))}
    numbers = np.array([labels[kind] for kind in kinds], dtype=np.uint8)
    numeric = np.vstack([structure.lattice.matrix, np.mod(structure.frac_coords, 1.0)]).astype(np.float32)
    return numbers.tobytes() + numeric.tobytes()


def unpacked_arrays(content: bytes) -> tuple[NDArray[np.uint8], NDArray[np.float64], NDArray[np.float64]]:
    """Restore kinds of atoms (n,), lattice vectors (3, 3; Å) and fractional coordinates (n, 3) of a structure."""
    n = (len(content) - 36) // 13
    numeric = np.frombuffer(content, dtype=np.float32, offset=n).reshape(n + 3, 3).astype(float)
    return np.frombuffer(content, dtype=np.uint8, count=n), numeric[:3], numeric[3:]


def unpacked(content: bytes) -> Structure:
    """Restore a packed structure; an isotope becomes some other element, the same for all structures of its formula."""
    numbers, matrix, frac_coords = unpacked_arrays(content)
    return Structure(Lattice(matrix), [Element.from_Z(number) for number in numbers.tolist()], frac_coords)


def _kinds(structure: Structure) -> list[tuple[int, int]]:
    """Atomic number and excess mass (0.1 u, 0 for the natural element) of each atom."""
    kinds = []
    for site in structure:
        number, mass = site.specie.Z, site.properties.get("masses")
        natural = float(Element.from_Z(number).atomic_mass)
        if mass is None:
            mass = site.specie.atomic_mass  # that of D or T, if it is one
        kinds.append((number, round(10 * (float(mass) - natural))))
    return kinds


def _reduced(structure: Structure) -> Structure:
    """Primitive cell in Niggli form, as the matcher needs it; the input cell if the reduction fails."""
    try:
        return structure.get_reduced_structure(reduction_algo="niggli").get_primitive_structure()
    except (ValueError, RuntimeError):
        return structure


def fingerprint_of(structure: Structure) -> NDArray[np.float32]:
    """
    Distributions of the distances to neighbors of the same and of other elements, in units of (V/n)^(1/3).

    They do not depend on the choice of the cell, orientation and scale, and are continuous in strain and displacement.

    Returns
    -------
    ndarray
        Shape (36,).
    """
    unit = (structure.volume / len(structure)) ** (1 / 3)
    first, second, _, distances = structure.get_neighbor_list((_GRID[-1] + 2 * _WIDTH) * unit)
    numbers = np.array([site.specie.Z for site in structure])
    same = numbers[first] == numbers[second]
    near = np.exp(-(((distances / unit)[:, None] - _GRID) ** 2) / (2 * _WIDTH**2)) / (len(structure) * _GRID**2)
    return np.concatenate([near[same].sum(axis=0), near[~same].sum(axis=0)]).astype(np.float32)
