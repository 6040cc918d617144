"""Whether forces are linear in the displacements: one displacement of each material computed at a second length."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from phonopy.physical_units import get_physical_units
from pymatgen.core import Structure

from matris.structures import near_pairs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from phonopy import Phonopy

SHORTER = 1 / 3
"""Second length, relative to the first."""

DISAGREEMENT = 0.025
"""Relative difference of the two force constants above which phonons are not reliable.

At 0.03 and 0.01 Å a small trained network (tests/data/small_published) has 0.002 in Cu and Si, 0.03 in SrTiO3, 0.05 in
NaCl and 0.11 in MgO. Forces of published MatRIS networks have a kink where a bond angle is 180°: the basis of angles is
a series in θ, and cos θ there is even in the displacement, but θ is not."""

_NEAR = 4.0  # Å, within which the nearest neighbor of an atom is looked for
_TIE = 0.02  # relative difference of two distances that count as equal
_OPPOSITE = 1e-3  # of its length: largest difference of a displacement from the negative of another one


@dataclass(frozen=True)
class Linearity:
    """
    Force constant of one atom for its own displacement, from two lengths of the displacement.

    Attributes
    ----------
    element
        Symbol of the displaced atom.
    displacements
        The two lengths, Å.
    force_constants
        Restoring force by displacement at each length, eV/Å², even powers of the displacement left out.
    frequencies
        Frequencies of this atom in a lattice of fixed atoms with these force constants, THz; negative: imaginary.
    """

    element: str
    displacements: tuple[float, float]
    force_constants: tuple[float, float]
    frequencies: tuple[float, float]

    @property
    def disagreement(self) -> float:
        """Difference of the two force constants, relative to the larger one."""
        first, second = self.force_constants
        return abs(first - second) / max(abs(first), abs(second), 1e-12)

    @property
    def warning(self) -> str | None:
        """A warning with both values; None if they agree."""
        if self.disagreement <= DISAGREEMENT:
            return None
        values = " and ".join(
            f"{frequency:.2f} THz at {length:.3g} Å"
            for frequency, length in zip(self.frequencies, self.displacements, strict=True)
        )
        return (
            f"forces are not linear in the displacements: {self.element} in a lattice of fixed atoms has {values}; "
            "frequencies depend on the length of the displacements"
        )


def second_length(phonopy: Phonopy) -> tuple[int, Structure]:
    """
    Shorten one displacement: of the atom with the shortest bond, where a straight bond angle matters most.

    Parameters
    ----------
    phonopy
        Phonopy's object with displacements.

    Returns
    -------
    int
        Index of the displacement.
    Structure
        The supercell with the atom displaced by `SHORTER` of its length.
    """
    supercell = phonopy.supercell
    structure = Structure(supercell.cell, supercell.symbols, supercell.scaled_positions)
    first, _, distances = near_pairs(structure, _NEAR)
    nearest = np.full(len(structure), np.inf)
    np.minimum.at(nearest, first, distances)
    atoms = [int(displacement[0]) for displacement in phonopy.displacements]
    shortest = min(nearest[atom] for atom in atoms) * (1 + _TIE)
    chosen = min(
        (index for index, atom in enumerate(atoms) if nearest[atom] <= shortest),
        key=lambda index: supercell.masses[atoms[index]],
    )
    structure.translate_sites(
        [atoms[chosen]], SHORTER * np.asarray(phonopy.displacements[chosen][1:]), frac_coords=False, to_unit_cell=False
    )
    return chosen, structure


def linearity(
    phonopy: Phonopy, chosen: int, forces: Sequence[NDArray[np.float64]], second: NDArray[np.float64]
) -> Linearity:
    """
    Compare the force constant from a displacement with that from a shorter one.

    Parameters
    ----------
    phonopy
        Phonopy's object with displacements.
    chosen
        Index of the displacement.
    forces
        Forces of the perfect supercell, then of the displaced supercells, eV/Å, shape (n, 3) each.
    second
        Forces at the second length.

    Returns
    -------
    Linearity
    """
    steps = np.array([displacement[1:] for displacement in phonopy.displacements], dtype=float)
    atoms = [int(displacement[0]) for displacement in phonopy.displacements]
    atom, step = atoms[chosen], steps[chosen]
    length = float(np.linalg.norm(step))

    def pull(answer: NDArray[np.float64]) -> float:
        return float((answer[atom] - forces[0][atom]) @ step / length)

    along = pull(forces[1 + chosen])
    partner = next(
        (
            index
            for index, other in enumerate(atoms)
            if other == atom and np.linalg.norm(steps[index] + step) < _OPPOSITE * length
        ),
        None,
    )
    # without a partner, a symmetry operation turns the displacement round, and the force is odd
    even = 0.0 if partner is None else (along + pull(forces[1 + partner])) / 2
    values = (even - along) / length, (SHORTER**2 * even - pull(second)) / (SHORTER * length)
    mass, factor = float(phonopy.supercell.masses[atom]), get_physical_units().DefaultToTHz
    frequencies = tuple(float(np.sign(k) * np.sqrt(abs(k) / mass) * factor) for k in values)
    return Linearity(
        element=phonopy.supercell.symbols[atom],
        displacements=(length, SHORTER * length),
        force_constants=values,
        frequencies=(frequencies[0], frequencies[1]),
    )
