"""Crystals in the form that the script ``crystal.js`` draws."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from ase.data import atomic_numbers, covalent_radii
from ase.data.colors import jmol_colors
from moyopy import Cell, MoyoDataset
from pymatgen.core import Element

from matris.files.structure_files import SYMPREC

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pymatgen.core import Structure

MAX_SITES = 300
"""Largest number of atoms in a cell that is drawn."""

_WHOLE = 1e-3  # by which numbers of cells may differ from whole numbers
_SAME = 1e-3  # relative difference of equal lengths and angles


def crystal(structure: Structure) -> dict[str, Any] | None:
    """
    Convert a crystal for drawing.

    Parameters
    ----------
    structure
        The crystal.

    Returns
    -------
    dict or None
        ``lattice`` (3, 3; Å) and ``sites`` (symbol and fractional coordinates) of the cell as it is, and of its
        conventional cell if that is another one, as ``conventional``; None for a disordered or too large crystal.

    Examples
    --------
    >>> from pymatgen.core import Lattice, Structure
    >>> primitive = Lattice([[0, 2.1, 2.1], [2.1, 0, 2.1], [2.1, 2.1, 0]])
    >>> magnesia = Structure(primitive, ["Mg", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    >>> drawn = crystal(magnesia)
    >>> drawn["conventional"]["lattice"], len(drawn["conventional"]["sites"])
    ([[4.2, 0.0, 0.0], [0.0, 4.2, 0.0], [0.0, 0.0, 4.2]], 8)
    """
    if not structure.is_ordered or len(structure) > MAX_SITES:
        return None
    conventional = conventional_cell(structure)
    drawn = _cell(structure)
    return drawn if conventional is None else drawn | {"conventional": _cell(conventional)}


def conventional_cell(structure: Structure) -> Structure | None:
    """
    Build the conventional cell of a crystal from its own atoms; nothing is idealised.

    Parameters
    ----------
    structure
        An ordered crystal.

    Returns
    -------
    Structure or None
        None if the cell is conventional already, or larger, or has no symmetry that moyo finds; and if the conventional
        cell has more than `MAX_SITES` atoms.
    """
    kinds = [specie.Z for specie in structure.species]
    try:
        found = MoyoDataset(
            Cell(structure.lattice.matrix.tolist(), structure.frac_coords.tolist(), kinds), symprec=SYMPREC
        )
    except ValueError:  # as of a collapsed cell
        return None
    cells = np.asarray(found.std_linear)  # columns: the conventional vectors by those of the cell
    whole = np.rint(cells).astype(int)
    n_sites = len(structure) * abs(round(float(np.linalg.det(whole))))
    if np.abs(cells - whole).max() > _WHOLE or not 0 < n_sites <= MAX_SITES:
        return None
    cell = structure.make_supercell(whole.T.tolist(), in_place=False)
    return None if np.allclose(cell.lattice.parameters, structure.lattice.parameters, rtol=_SAME) else cell


def _cell(structure: Structure) -> dict[str, Any]:
    """Write a cell."""
    return {
        "lattice": [[round(float(x), 4) for x in vector] for vector in structure.lattice.matrix],
        "sites": [
            [site.specie.symbol, *(round(float(x) % 1.0, 5) % 1.0 for x in site.frac_coords)] for site in structure
        ],
    }


def looks(symbols: Iterable[str]) -> dict[str, dict[str, Any]]:
    """
    Look up colours and radii of elements.

    Parameters
    ----------
    symbols
        Element symbols.

    Returns
    -------
    dict
        By symbol: Jmol's ``colour``, the covalent ``radius`` (Å; B. Cordero et al., Dalton Trans. 2832 (2008)), and
        whether it is a ``metal``.
    """
    styles = {}
    for symbol in sorted(set(symbols)):
        z = atomic_numbers.get(symbol, 0)
        rgb = jmol_colors[z] if z < len(jmol_colors) else (0.6, 0.6, 0.6)
        colour = "#" + "".join(f"{round(255 * float(x)):02x}" for x in rgb)
        metal = Element.is_valid_symbol(symbol) and Element(symbol).is_metal
        styles[symbol] = {"colour": colour, "radius": round(float(covalent_radii[z]), 2), "metal": metal}
    return styles
