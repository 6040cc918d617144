"""
Energy corrections, bound to the energy scale of a checkpoint.

pymatgen's entries and schemes take seconds to import; they are imported where they are used, so that a query is quick.
"""

from __future__ import annotations

import warnings
from functools import cache
from typing import TYPE_CHECKING, Any

from pymatgen.core.composition import Composition

from matris.errors import MatrisError

if TYPE_CHECKING:
    from pymatgen.core.structure import Structure
    from pymatgen.entries.compatibility import MaterialsProject2020Compatibility
    from pymatgen.entries.computed_entries import ComputedEntry, ComputedStructureEntry

MP2020 = "MaterialsProject2020Compatibility"
NO_CORRECTION = "none"

_SCHEMES = {"mp": MP2020, "matpes-pbe": NO_CORRECTION, "matpes-r2scan": NO_CORRECTION}


class CorrectionError(MatrisError):
    """An energy that no known scheme may correct."""


def correction_scheme(energy_scale: str, composition: Composition) -> str:
    """
    Name the scheme that makes energies of a scale comparable.

    Parameters
    ----------
    energy_scale
        Of the checkpoint.
    composition
        What is to be corrected. On a scale without a known scheme, the energies of what no scheme would correct
        (elements and intermetallics, without anions) are taken as they are.

    Returns
    -------
    str
        ``"MaterialsProject2020Compatibility"`` or ``"none"``.

    Raises
    ------
    CorrectionError
        If the scale needs corrections that are not known here.
    """
    if energy_scale in _SCHEMES:
        return _SCHEMES[energy_scale]
    anions = sorted({"O", "S", *_mp2020().comp_correction} & composition.chemical_system_set)
    if anions:
        raise CorrectionError(
            f"corrections of the energy scale {energy_scale!r} are not supported yet, and "
            f"{composition.reduced_formula} may need one for {', '.join(anions)}; "
            f"use a checkpoint on the scale {', '.join(sorted(_SCHEMES))}"
        )
    return NO_CORRECTION


def corrected_entry(
    structure: Structure, energy: float, energy_scale: str, entry_id: str | None = None
) -> ComputedStructureEntry:
    """
    Correct the energy of one crystal.

    On the scale ``mp`` by MaterialsProject2020Compatibility (Wang et al., Sci. Rep. 11, 15496, 2021), as if VASP had
    computed it with the settings of MPRelaxSet, whose Hubbard U come from its table. MatPES energies take none.

    Parameters
    ----------
    structure
        Relaxed crystal; it decides between oxide, peroxide and superoxide.
    energy
        Total, uncorrected (eV).
    energy_scale
        Of the checkpoint.
    entry_id
        Name of the entry.

    Returns
    -------
    ComputedStructureEntry
        With the adjustments; its `energy` is corrected, its `uncorrected_energy` is `energy`.

    Raises
    ------
    CorrectionError
        If the scale has no known scheme, or the scheme refuses the entry.
    """
    from pymatgen.entries.computed_entries import ComputedStructureEntry

    scheme = correction_scheme(energy_scale, structure.composition)
    entry = ComputedStructureEntry(structure, energy, entry_id=entry_id)
    if scheme == MP2020:
        entry.parameters = mp_parameters(structure.composition)
        apply_mp2020(entry)
    return entry


def mp_parameters(composition: Composition) -> dict[str, Any]:
    """
    Run type and Hubbard U (eV) of a Materials Project calculation.

    As MPRelaxSet does: U on some transition metals in oxides and fluorides, by the most electronegative element.
    """
    elements = [element for element in composition.remove_charges().elements if composition[element] > 0]
    table = _hubbard_table().get(max(elements, key=lambda element: element.X).symbol, {})
    hubbards = {element.symbol: table[element.symbol] for element in elements if table.get(element.symbol)}
    return {"run_type": "GGA+U" if hubbards else "GGA", "is_hubbard": bool(hubbards), "hubbards": hubbards}


def apply_mp2020(entry: ComputedEntry) -> None:
    """
    Replace the adjustments of an entry by those of MaterialsProject2020Compatibility.

    Raises
    ------
    CorrectionError
        If the scheme refuses the entry, as for a wrong Hubbard U.
    """
    from pymatgen.entries.compatibility import CompatibilityError

    if "oxidation_states" not in entry.data:
        entry.data["oxidation_states"] = _oxidation_states(entry.composition.formula)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # it says that oxidation states of an alloy cannot be guessed
        try:
            entry.energy_adjustments = _mp2020().get_adjustments(entry)
        except CompatibilityError as error:
            raise CorrectionError(f"MP2020 refuses {entry.reduced_formula}: {error}") from error


@cache
def _mp2020() -> MaterialsProject2020Compatibility:
    """Make the scheme."""
    from pymatgen.entries.compatibility import MaterialsProject2020Compatibility

    return MaterialsProject2020Compatibility(check_potcar=False)


@cache
def _hubbard_table() -> dict[str, dict[str, float]]:
    """Hubbard U (eV) by anion and metal."""
    from pymatgen.io.vasp.sets import MPRelaxSet

    table: dict[str, dict[str, float]] = MPRelaxSet.CONFIG["INCAR"]["LDAUU"]
    return table


@cache
def _oxidation_states(formula: str) -> dict[str, float]:
    """Guess the oxidation states as the scheme would, once for a formula: it is its slowest step."""
    try:
        guesses = Composition(formula).oxi_state_guesses(max_sites=-20)
    except ValueError:  # too many atoms for a guess
        return {}
    return dict(guesses[0]) if guesses else {}
