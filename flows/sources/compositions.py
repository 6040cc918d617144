"""Compositions of a chemical system whose charges balance, by SMACT."""

from __future__ import annotations

import warnings
from itertools import combinations
from typing import TYPE_CHECKING

from pymatgen.core import Composition

from matris.errors import MatrisError
from matris.extras import require
from matris.stores.query.values import element, elements_of

if TYPE_CHECKING:
    from collections.abc import Iterable


def charge_balanced(chemsys: str | Iterable[str], *, max_amount: int = 3) -> list[str]:
    """
    List the reduced formulas of a chemical system and its subsystems whose charges balance.

    A formula is listed if one choice of the oxidation states observed in the ICSD is neutral and gives the negative
    charges to the more electronegative elements, each element with one state. D. W. Davies et al., J. Open Source
    Softw. 4, 1361 (2019).

    Parameters
    ----------
    chemsys
        Elements, as ``"Li-Fe-O"`` or a list of symbols.
    max_amount
        Largest number of atoms of one element in the reduced formula.

    Returns
    -------
    list of str
        Those of few elements first, then by number of atoms, then in alphabetical order.

    Raises
    ------
    MatrisError
        If SMACT is not installed, an element does not exist, or no formula balances.

    Examples
    --------
    >>> charge_balanced("Mg-O", max_amount=2)
    ['MgO', 'MgO2']
    """
    if max_amount < 1:
        raise MatrisError(f"compositions: max_amount is {max_amount}, and must be at least 1")
    require("smact.screening", "charge balance needs SMACT", "chemistry")
    from smact import Element
    from smact.screening import smact_filter

    symbols = sorted(set(elements_of(chemsys) if isinstance(chemsys, str) else map(element, chemsys)))
    found: dict[str, tuple[int, float, str]] = {}
    for size in range(2, len(symbols) + 1):
        for chosen in combinations(symbols, size):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                allowed = smact_filter([Element(symbol) for symbol in chosen], max_amount, species_unique=False)
            for names, amounts in allowed:
                composition = Composition(dict(zip(names, amounts, strict=True)))
                formula = composition.reduced_formula
                found[formula] = (size, composition.reduced_composition.num_atoms, formula)
    if not found:
        raise MatrisError(
            f"compositions: no formula of {'-'.join(symbols)} with up to {max_amount} atoms of an element balances its "
            "charges; name formulas of alloys yourself, as random:Al3Mg2"
        )
    return sorted(found, key=found.__getitem__)
