"""Neighbor shells that cross a cutoff of the potential while a crystal is strained or its atoms are displaced."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from pymatgen.core import Structure

from matris.model.potential import Potential
from matris.torchsim import MatRISTorchSimModel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from phonopy import Phonopy
    from torch_sim.models.interface import ModelInterface

_MARGIN = 0.5  # Å beyond a cutoff, in which shells are looked for: more than a strain of 6 % moves one at 6 Å


@dataclass(frozen=True)
class Crossing:
    """
    A cutoff that atoms cross.

    Attributes
    ----------
    cutoff
        Cutoff of the potential, Å.
    distance
        Distance in the relaxed cell, of the crossing shell that is nearest to the cutoff, Å.
    n_pairs
        Number of pairs of atoms of a cell that cross the cutoff in any of its strained or displaced cells.
    """

    cutoff: float
    distance: float
    n_pairs: int

    def __str__(self) -> str:
        """Warning."""
        return (
            f"a neighbor shell at {self.distance:.3f} Å crosses the cutoff of {self.cutoff:g} Å "
            f"({self.n_pairs} pairs): energies and forces jump there"
        )


def cutoffs_of(potential: Potential | ModelInterface) -> tuple[float, ...]:
    """
    Cutoffs at which energies of a potential may jump.

    Parameters
    ----------
    potential
        A loaded potential or any torch-sim model.

    Returns
    -------
    tuple of float
        Cutoffs of pairs and of bonds of angles, Å; none if the network is smooth, or no MatRIS.

    Examples
    --------
    >>> import matris
    >>> cutoffs_of(matris.load())  # the embedded checkpoint is smooth
    ()
    """
    if isinstance(potential, MatRISTorchSimModel):
        potential = potential.potential
    if not isinstance(potential, Potential) or potential.config.smooth:
        return ()
    return potential.config.pairwise_cutoff, potential.config.three_body_cutoff


def crossings_of_cells(
    reference: Structure, cells: Sequence[Structure], cutoffs: Sequence[float]
) -> tuple[Crossing, ...]:
    """
    Find the cutoffs that pairs of atoms cross between a cell and cells derived from it.

    Parameters
    ----------
    reference
        The relaxed cell.
    cells
        Strained or scaled cells, atoms in the order of `reference`.
    cutoffs
        Cutoffs, Å.

    Returns
    -------
    tuple of Crossing
        At most one for each cutoff.

    Examples
    --------
    >>> from pymatgen.core import Lattice, Structure
    >>> silicon = Structure.from_spacegroup("Fd-3m", Lattice.cubic(5.43), ["Si"], [[0, 0, 0]])
    >>> pressed = silicon.copy()
    >>> _ = pressed.apply_strain(-0.01)
    >>> print(*crossings_of_cells(silicon, [pressed], [4.5, 3.0]))
    a neighbor shell at 4.502 Å crosses the cutoff of 4.5 Å (48 pairs): energies and forces jump there
    """
    if not cutoffs or not cells:
        return ()
    first, second, images, distances = reference.get_neighbor_list(max(cutoffs) + _MARGIN)
    frac = reference.frac_coords
    changed = []
    for cell in cells:
        moves = cell.frac_coords - frac
        places = frac + moves - moves.round()
        bonds = (places[second] + images - places[first]) @ cell.lattice.matrix
        changed.append(np.linalg.norm(bonds, axis=1))
    return _crossings(distances, np.array(changed), cutoffs)


def crossings_of_displacements(phonopy: Phonopy, cutoffs: Sequence[float]) -> tuple[Crossing, ...]:
    """
    Find the cutoffs that pairs of atoms cross in displaced supercells.

    Parameters
    ----------
    phonopy
        Phonopy's object with displacements.
    cutoffs
        Cutoffs, Å.

    Returns
    -------
    tuple of Crossing
        At most one for each cutoff; its pairs are those of the displaced atoms.
    """
    if not cutoffs:
        return ()
    unit, supercell = phonopy.unitcell, phonopy.supercell
    structure = Structure(unit.cell, unit.symbols, unit.scaled_positions)
    first, second, images, distances = structure.get_neighbor_list(max(cutoffs) + _MARGIN)
    bonds = (unit.scaled_positions[second] + images - unit.scaled_positions[first]) @ unit.cell
    changed = []
    for atom, *step in phonopy.displacements:
        moved = supercell.u2u_map[int(supercell.s2u_map[int(atom)])]
        changed.append(np.where(first == moved, np.linalg.norm(bonds - np.array(step), axis=1), distances))
    return _crossings(distances, np.array(changed), cutoffs, directed=True)


def _crossings(
    distances: NDArray[np.float64], changed: NDArray[np.float64], cutoffs: Sequence[float], *, directed: bool = False
) -> tuple[Crossing, ...]:
    """Cutoffs crossed between distances (n,) and changed distances (cells, n) of the same pairs."""
    found = []
    for cutoff in cutoffs:
        crossed = ((distances < cutoff) != (changed < cutoff)).any(axis=0)
        if crossed.any():
            nearest = distances[crossed][np.abs(distances[crossed] - cutoff).argmin()]
            pairs = int(crossed.sum()) if directed else int(np.ceil(crossed.sum() / 2))
            found.append(Crossing(cutoff, float(nearest), pairs))
    return tuple(found)
