"""Slabs, wires and molecules in a box of vacuum, whose volume and elastic constants mean nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pymatgen.core import Structure

WIDEST_GAP = 6.0
"""Distance of two neighboring planes of atoms (Å) above which there is vacuum between them.

Layers of layered crystals lie 3 to 5 Å apart; the plane distances of a crystal of xenon are 3.5 Å."""


def vacuum(structure: Structure) -> float | None:
    """
    Find the widest slab without atoms parallel to a face of the reduced cell.

    Parameters
    ----------
    structure
        A structure.

    Returns
    -------
    float or None
        Distance of the planes of atoms on both sides, Å; None if it is not above `WIDEST_GAP`.

    Examples
    --------
    >>> from pymatgen.core import Lattice, Structure
    >>> graphene = Structure(Lattice.hexagonal(2.46, 15), ["C", "C"], [[1 / 3, 2 / 3, 0.5], [2 / 3, 1 / 3, 0.5]])
    >>> vacuum(graphene)
    15.0
    >>> vacuum(Structure(Lattice.hexagonal(2.46, 6.7), ["C", "C"], [[0, 0, 0], [0, 0, 0.5]])) is None
    True
    """
    lattice = structure.lattice.get_lll_reduced_lattice()
    frac = np.mod(structure.cart_coords @ np.linalg.inv(lattice.matrix), 1.0)
    heights = 1 / np.linalg.norm(np.linalg.inv(lattice.matrix), axis=0)
    planes = np.sort(frac, axis=0)
    gaps = np.diff(planes, axis=0, append=planes[:1] + 1).max(axis=0) * heights
    widest = float(gaps.max())
    return round(widest, 6) if widest > WIDEST_GAP else None


def vacuum_warning(structure: Structure) -> str | None:
    """Warning for quantities that refer to the volume; None if there is no vacuum."""
    gap = vacuum(structure)
    if gap is None:
        return None
    return (
        f"the cell has a gap of {gap:.1f} Å without atoms (slab, wire or molecule in vacuum): volume, moduli and "
        "mechanical stability refer to the box, not to a crystal"
    )
