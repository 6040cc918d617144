"""Plausible compositions: elements a checkpoint knows, and charges that can balance."""

from __future__ import annotations

import warnings
from functools import cache
from typing import TYPE_CHECKING

from pymatgen.core import Composition

from matris.errors import MatrisError

if TYPE_CHECKING:
    from collections.abc import Collection


def chemistry_problem(
    composition: Composition, known: Collection[str] | None = None, *, charge_balance: bool = True
) -> str | None:
    """
    Say in one line why a composition is not worth computing.

    Parameters
    ----------
    composition
        With or without oxidation states, which have no influence.
    known
        Symbols that the checkpoint knows. By default all.
    charge_balance
        Whether charges have to balance, by SMACT's rule: some choice of the oxidation states found in the ICSD is
        neutral and gives the negative ones to the more electronegative elements. Elements, alloys and intermetallics
        pass, mixed valence is allowed, and so is what SMACT leaves open because there are too many choices.
        D. W. Davies et al., J. Open Source Softw. 4, 1361 (2019).

    Returns
    -------
    str or None
        The reason, naming the culprit; None if there is none.

    Raises
    ------
    MatrisError
        If charges have to balance and SMACT is not installed.
    """
    symbols = composition.chemical_system_set
    if known is not None and (unknown := sorted(symbols - set(known))):
        return f"unsupported element {', '.join(unknown)}: the checkpoint does not know it"
    if not charge_balance:
        return None
    formula, _ = composition.element_composition.get_integer_formula_and_factor()
    if _balances(formula):
        return None
    return f"no charge balance: {formula} has no neutral choice of common oxidation states"


@cache
def _balances(formula: str) -> bool:
    """Whether a reduced formula can be neutral, or SMACT cannot tell."""
    try:
        from smact.screening import smact_validity
    except ImportError as error:
        raise MatrisError("charge balance needs SMACT: pip install 'matris-flows[chemistry]'") from error
    with warnings.catch_warnings(record=True) as left_open:
        warnings.simplefilter("always")
        return smact_validity(Composition(formula), mixed_valence=True) or any(
            "too many combinations" in str(warning.message) for warning in left_open
        )
