"""Equal structures among many: cheap comparisons first, pymatgen's matcher for the few that are left."""

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
"""Equal structures have energies (eV/atom) this close, up to how far they are relaxed."""

FINGERPRINT_TOLERANCE = 0.2
"""
Relative difference of the fingerprints of structures that are still compared.

Displacements of 0.2 Å and strains of 2 % make differences below 0.1. Of the pairs that the matcher takes for equal
among literature crystals 97 % are closer than this; the others are polymorphs, such as those of SiO2 and AlN.
"""

_COMPARISONS = 20  # the matcher's, for one structure: however many of a formula there are, its time is bounded

_GRID = np.linspace(0.5, 2.2, 18)  # distances at which neighbors are counted, in edges of a cube of one atom's volume
_WIDTH = 0.12  # of the Gaussians they are counted with, in the same unit


class Duplicates:
    """
    Structures seen so far.

    Equal is what pymatgen's `StructureMatcher` takes for equal: up to rotation, translation, order of the atoms,
    choice of the cell, scale, and small strains and displacements. It is asked only of structures with one reduced
    formula, one number of atoms in the primitive cell, like energies where both are known, and like distributions of
    neighbors. A structure without another of its formula is neither reduced nor compared.

    Kept in memory are some 0.7 kB for a structure of ten atoms, in single precision.
    """

    def __init__(self) -> None:
        self._matcher = StructureMatcher()
        self._seen: dict[tuple[tuple[int, int], ...], list[_Kept]] = {}

    def first_like(self, candidate_id: str, structure: Structure, energy: float | None = None) -> str | None:
        """
        Name an earlier structure that equals this one, or remember this one.

        Equality is not transitive: of a series in which each is just like the next, it depends on the order which are
        remembered. The same series in the same order gives the same answers.

        Parameters
        ----------
        candidate_id
            Name of the structure.
        structure
            An ordered one in which atoms do not overlap, see `matris.structures.problem_with`.
        energy
            eV/atom. Where it is not known, structures of any energy can be equal.

        Returns
        -------
        str or None
            Name of the most similar among the equal ones; None if there is none.
        """
        kept = _Kept(candidate_id, energy, _packed(structure))
        others = self._seen.setdefault(_formula(structure), [])
        found = self._like(kept, others)
        if found is None:
            others.append(kept)
        return found

    def remember(self, candidate_id: str, structure: Structure, energy: float | None = None) -> None:
        """Keep a structure, whether there is an equal one or not."""
        self._seen.setdefault(_formula(structure), []).append(_Kept(candidate_id, energy, _packed(structure)))

    def like(self, structure: Structure, energy: float | None = None) -> str | None:
        """Name the most similar among the kept structures that equal this one; None if there is none."""
        return self._like(_Kept("", energy, _packed(structure)), self._seen.get(_formula(structure), []))

    def _like(self, kept: _Kept, others: Iterable[_Kept]) -> str | None:
        """Most similar of those that are equal."""
        structure = None
        for other in _alike(kept, others):
            structure = structure or _unpacked(kept.content)
            if self._matcher.fit(_unpacked(other.content), structure, skip_structure_reduction=True):
                return other.candidate_id
        return None


def group_equal(items: Iterable[tuple[str, Structure, float]]) -> dict[str, str]:
    """
    Name the representative of each structure: of those that are equal the one lowest in energy.

    Parameters
    ----------
    items
        Name, structure and energy (eV/atom), in any order: it has no influence.

    Returns
    -------
    dict
        Name to name of the representative, which represents itself; of like energies the first name is taken.
    """
    found = Duplicates()
    return {
        name: found.first_like(name, structure, energy) or name
        for name, structure, energy in sorted(items, key=lambda item: (item[2], item[0]))
    }


@dataclass(slots=True)
class _Kept:
    """What is remembered of a structure; it is reduced when it is first compared."""

    candidate_id: str
    energy: float | None
    content: bytes
    fingerprint: NDArray[np.float32] | None = None

    def reduce(self) -> NDArray[np.float32]:
        """Go over to the primitive cell, once, and give the fingerprint."""
        if self.fingerprint is None:
            structure = _reduced(_unpacked(self.content))
            self.content, self.fingerprint = _packed(structure), _fingerprint(structure)
        return self.fingerprint


def _alike(kept: _Kept, others: Iterable[_Kept]) -> Iterator[_Kept]:
    """Others that may be equal, by likeness."""
    near = [
        other
        for other in others
        if kept.energy is None or other.energy is None or abs(kept.energy - other.energy) <= ENERGY_TOLERANCE
    ]
    if not near:
        return
    mine = kept.reduce()
    theirs = np.array([other.reduce() for other in near])
    scale = np.sqrt(((theirs * theirs).sum(axis=1) + mine @ mine) / 2)
    difference = np.linalg.norm(theirs - mine, axis=1) / scale
    same_size = np.array([len(other.content) == len(kept.content) for other in near])
    alike = np.flatnonzero(same_size & (difference <= FINGERPRINT_TOLERANCE))
    for index in alike[np.argsort(difference[alike], kind="stable")][:_COMPARISONS]:
        yield near[index]


def _formula(structure: Structure) -> tuple[tuple[int, int], ...]:
    """Reduced formula: atomic numbers, and how often each occurs."""
    counts = Counter(site.specie.Z for site in structure)
    largest = gcd(*counts.values())
    return tuple((number, counts[number] // largest) for number in sorted(counts))


def _packed(structure: Structure) -> bytes:
    """Atomic numbers, then lattice (Å) and fractional coordinates in single precision: 36 + 13 n bytes."""
    numbers = np.array([site.specie.Z for site in structure], dtype=np.uint8)
    numeric = np.vstack([structure.lattice.matrix, np.mod(structure.frac_coords, 1.0)]).astype(np.float32)
    return numbers.tobytes() + numeric.tobytes()


def _unpacked(content: bytes) -> Structure:
    """Structure that was packed."""
    n = (len(content) - 36) // 13
    numeric = np.frombuffer(content, dtype=np.float32, offset=n).reshape(n + 3, 3).astype(float)
    return Structure(Lattice(numeric[:3]), [Element.from_Z(number) for number in content[:n]], numeric[3:])


def _reduced(structure: Structure) -> Structure:
    """Niggli cell of the primitive cell, as the matcher wants it; the cell as it is where there is no telling."""
    try:
        return structure.get_reduced_structure(reduction_algo="niggli").get_primitive_structure()
    except (ValueError, RuntimeError):
        return structure


def _fingerprint(structure: Structure) -> NDArray[np.float32]:
    """
    Distribution of neighbors of the same element, and of others, by distance in units of (V/n)^(1/3); shape (36,).

    Whatever the choice of the cell, the orientation and the scale, it is the same; it is continuous in strains and
    displacements.
    """
    unit = (structure.volume / len(structure)) ** (1 / 3)
    first, second, _, distances = structure.get_neighbor_list((_GRID[-1] + 2 * _WIDTH) * unit)
    numbers = np.array([site.specie.Z for site in structure])
    same = numbers[first] == numbers[second]
    near = np.exp(-(((distances / unit)[:, None] - _GRID) ** 2) / (2 * _WIDTH**2)) / (len(structure) * _GRID**2)
    return np.concatenate([near[same].sum(axis=0), near[~same].sum(axis=0)]).astype(np.float32)
