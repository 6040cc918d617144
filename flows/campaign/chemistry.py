"""Charge balance of compositions."""

from __future__ import annotations

import warnings
from functools import cache

from pymatgen.core import Composition

from matris.extras import require


def charge_problem(composition: Composition) -> str | None:
    """
    Find out whether the charges in a composition cannot balance, by SMACT's rule.

    A composition passes if one choice of the oxidation states observed in the ICSD is neutral and gives the negative
    charges to the more electronegative elements. Elements, alloys and intermetallics pass; mixed valence is allowed.
    Compositions with too many choices for SMACT pass too. D. W. Davies et al., J. Open Source Softw. 4, 1361 (2019).

    Parameters
    ----------
    composition
        Composition; oxidation states in it are ignored.

    Returns
    -------
    str or None
        Reason for rejecting the composition; None if it passes.

    Raises
    ------
    MatrisError
        If SMACT is not installed.
    """
    formula, _ = composition.element_composition.get_integer_formula_and_factor()
    if _balances(formula):
        return None
    return f"no charge balance: {formula} has no neutral choice of common oxidation states"


@cache
def _balances(formula: str) -> bool:
    """Whether a reduced formula can be neutral, or has too many choices for SMACT."""
    require("smact.screening", "charge balance needs SMACT", "chemistry")
    from smact.screening import smact_validity

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        return smact_validity(Composition(formula), mixed_valence=True) or any(
            "too many combinations" in str(warning.message) for warning in caught
        )
