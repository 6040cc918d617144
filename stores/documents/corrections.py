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
    from pymatgen.entries.computed_entries import CompositionEnergyAdjustment, ComputedEntry, ComputedStructureEntry

MP2020 = "MaterialsProject2020Compatibility"
OMAT24 = "OMat24Compatibility"
NO_CORRECTION = "none"

_SCHEMES = {"mp": MP2020, "omat24": OMAT24, "matpes-pbe": NO_CORRECTION, "matpes-r2scan": NO_CORRECTION}

# Numbers of OMat24's scheme (eV per atom of the element), fitted as MP2020's to the same experiments, on calculations
# with OMat24's settings. Barroso-Luque et al., arXiv:2410.12771; from fairchem-data-omat 0.2.0 (MIT licence).
_OMAT24_MIXING = {
    "V": -1.813, "Cr": -2.037, "Mn": -1.701, "Fe": -2.428, "Co": -2.151, "Ni": -2.58, "W": -4.445, "Mo": -2.972,
}  # fmt: skip
_OMAT24_ANIONS = {
    "oxide": -0.657, "peroxide": -0.433, "superoxide": -0.152, "ozonide": 0.0, "S": -0.487, "F": -0.436, "Cl": -0.6,
    "Br": -0.317, "I": -0.194, "N": -0.303, "Se": -0.474, "Si": 0.028, "Sb": -0.194, "Te": -0.418, "H": -0.173,
}  # fmt: skip


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
        ``"MaterialsProject2020Compatibility"``, ``"OMat24Compatibility"`` or ``"none"``.

    Raises
    ------
    CorrectionError
        If the scale needs corrections that are not known here.
    """
    if energy_scale in _SCHEMES:
        return _SCHEMES[energy_scale]
    anions = sorted({"O", *_OMAT24_ANIONS} & composition.chemical_system_set)
    if anions:
        raise CorrectionError(
            f"no corrections are known for the energy scale {energy_scale!r}, and "
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
    computed it with the settings of MPRelaxSet, whose Hubbard U come from its table. On the scale ``omat24`` by the
    same rules with OMat24's own numbers; its Hubbard U are the same. MatPES energies take none.

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
    if scheme != NO_CORRECTION:
        entry.parameters = mp_parameters(structure.composition)
        apply_scheme(entry, scheme)
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


def apply_scheme(entry: ComputedEntry, scheme: str) -> None:
    """
    Replace the adjustments of an entry by those of a scheme.

    Parameters
    ----------
    entry
        With ``run_type`` and ``hubbards`` among its parameters, unless the scheme is ``"none"``.
    scheme
        As `correction_scheme` names it.

    Raises
    ------
    CorrectionError
        If the scheme refuses the entry, as for a wrong Hubbard U.
    """
    entry.energy_adjustments = []
    if scheme == NO_CORRECTION:
        return
    from pymatgen.entries.compatibility import CompatibilityError

    if "oxidation_states" not in entry.data:
        entry.data["oxidation_states"] = _oxidation_states(entry.composition.formula)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # it says that oxidation states of an alloy cannot be guessed
        try:
            adjustments = _mp2020().get_adjustments(entry)
        except CompatibilityError as error:
            raise CorrectionError(f"{scheme} refuses {entry.reduced_formula}: {error}") from error
    entry.energy_adjustments = adjustments if scheme == MP2020 else [_of_omat24(found) for found in adjustments]


def _of_omat24(adjustment: CompositionEnergyAdjustment) -> CompositionEnergyAdjustment:
    """Put OMat24's number in the place of MP2020's: the rules, when to correct what, are the same."""
    from pymatgen.entries.computed_entries import CompositionEnergyAdjustment

    kind = adjustment.name.rpartition("(")[2].rstrip(")")
    table = _OMAT24_MIXING if "mixing" in adjustment.name else _OMAT24_ANIONS
    name = adjustment.name.replace("MP2020", "OMat24")
    return CompositionEnergyAdjustment(table[kind], adjustment.n_atoms, name=name)


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
