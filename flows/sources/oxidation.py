"""Oxidation states of the sites of a crystal, as whole numbers."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from pymatgen.analysis.bond_valence import BVAnalyzer

if TYPE_CHECKING:
    from pymatgen.core.structure import Structure


def site_charges(structure: Structure) -> list[int] | None:
    """
    Guess the oxidation states.

    Bond valences distinguish several valences of one element. Where they fail, the formula decides.

    Parameters
    ----------
    structure
        An ordered crystal of n sites.

    Returns
    -------
    list of int or None
        Charges of the n sites (e), whose sum is zero; None if no charges balance, as in an alloy.

    References
    ----------
    O'Keeffe and Brese, J. Am. Chem. Soc. 113, 3226 (1991), as implemented in pymatgen.

    Examples
    --------
    >>> from pymatgen.core import Lattice, Structure
    >>> salt = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.69), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    >>> site_charges(salt)
    [1, 1, 1, 1, -1, -1, -1, -1]
    """
    if len(structure.composition) == 1:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            charges = [float(q) for q in BVAnalyzer().get_valences(structure)]
        except (ValueError, IndexError, KeyError):  # its errors if it finds no valences
            charges = _by_formula(structure)
    if not charges or abs(sum(charges)) > 0 or not any(charges) or any(q != round(q) for q in charges):
        return None
    return [round(q) for q in charges]


def _by_formula(structure: Structure) -> list[float]:
    guesses: Any = structure.composition.oxi_state_guesses(max_sites=-1)
    return [guesses[0].get(site.specie.symbol, 0.0) for site in structure] if guesses else []
