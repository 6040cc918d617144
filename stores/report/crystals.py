"""Crystals in the form that the script ``crystal.js`` draws."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ase.data import atomic_numbers, covalent_radii
from ase.data.colors import jmol_colors

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pymatgen.core import Structure

MAX_SITES = 300
"""Largest number of atoms in a cell that is drawn."""


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
        ``lattice`` (3, 3; Å) and ``sites`` (symbol and fractional coordinates); None for a disordered or too large
        crystal.
    """
    if not structure.is_ordered or len(structure) > MAX_SITES:
        return None
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
        By symbol: Jmol's ``colour``, and the covalent ``radius`` (Å; B. Cordero et al., Dalton Trans. 2832 (2008)).
    """
    styles = {}
    for symbol in sorted(set(symbols)):
        z = atomic_numbers.get(symbol, 0)
        rgb = jmol_colors[z] if z < len(jmol_colors) else (0.6, 0.6, 0.6)
        colour = "#" + "".join(f"{round(255 * float(x)):02x}" for x in rgb)
        styles[symbol] = {"colour": colour, "radius": round(float(covalent_radii[z]), 2)}
    return styles
