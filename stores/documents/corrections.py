"""
Energy corrections, determined by the energy scale of a checkpoint.

pymatgen's entries and correction schemes take seconds to import. They are imported where they are used, so that queries
start quickly.
"""

from __future__ import annotations

import warnings
from functools import cache
from math import isfinite, nan
from typing import TYPE_CHECKING, Any

from pymatgen.core.composition import Composition

from matris.errors import MatrisError
from matris.stores.documents.charge_balance import Balance, balance
from matris.units import DISPERSION

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pymatgen.core.structure import Structure
    from pymatgen.entries.compatibility import MaterialsProject2020Compatibility
    from pymatgen.entries.computed_entries import CompositionEnergyAdjustment, ComputedEntry, ComputedStructureEntry

MP2020 = "MaterialsProject2020Compatibility"
OMAT24 = "OMat24Compatibility"
NO_CORRECTION = "none"
CORRECTED = "mp2020-corrected"
"""Energy scale of potentials that were trained on energies with MP2020's corrections, such as CHGNet 0.3."""

_SCHEMES = {
    "mp": MP2020,
    "omat24": OMAT24,
    "matpes-pbe": NO_CORRECTION,
    "matpes-r2scan": NO_CORRECTION,
    CORRECTED: NO_CORRECTION,
}

# Parameters of OMat24's scheme (eV per atom of the element), fitted like MP2020's to the same experiments, but on
# calculations with OMat24's settings. Barroso-Luque et al., arXiv:2410.12771; taken from fairchem-data-omat 0.2.0 (MIT
# licence).
_OMAT24_MIXING = {
    "V": -1.813, "Cr": -2.037, "Mn": -1.701, "Fe": -2.428, "Co": -2.151, "Ni": -2.58, "W": -4.445, "Mo": -2.972,
}  # fmt: skip
_OMAT24_ANIONS = {
    "oxide": -0.657, "peroxide": -0.433, "superoxide": -0.152, "ozonide": 0.0, "S": -0.487, "F": -0.436, "Cl": -0.6,
    "Br": -0.317, "I": -0.194, "N": -0.303, "Se": -0.474, "Si": 0.028, "Sb": -0.194, "Te": -0.418, "H": -0.173,
}  # fmt: skip


_ANIONS_BY_STATE = ("Br", "Cl", "F", "H", "I", "N", "Sb", "Se", "Si", "Te")
"""Elements that MP2020 corrects only where their oxidation state makes them anions; O and S are always corrected."""

DECIDED = "decided"
"""State of a correction that depends on no guess, or on a guess with one answer."""

UNDECIDED = "undecided"
"""State of a correction that would be another one, if the oxidation states were known."""


class CorrectionError(MatrisError):
    """No known scheme can correct an energy."""


def correction_scheme(energy_scale: str, composition: Composition) -> str:
    """
    Name the correction scheme of an energy scale.

    Parameters
    ----------
    energy_scale
        Energy scale of the checkpoint. With dispersion, the scheme is that of the scale without.
    composition
        Composition to correct. On a scale without a known scheme, compositions without anions (elements and
        intermetallics) need no correction, because no known scheme would correct them.

    Returns
    -------
    str
        ``"MaterialsProject2020Compatibility"``, ``"OMat24Compatibility"`` or ``"none"``.

    Raises
    ------
    CorrectionError
        If the scale has no known scheme and the composition may need a correction.

    Examples
    --------
    >>> correction_scheme("mp", Composition("Fe2O3"))
    'MaterialsProject2020Compatibility'
    >>> correction_scheme("matpes-pbe", Composition("Fe2O3"))
    'none'
    >>> correction_scheme("my-scale", Composition("Fe2O3"))
    Traceback (most recent call last):
    matris.stores.documents.corrections.CorrectionError: no corrections are known for the energy scale 'my-scale', ...
    """
    if (scale := energy_scale.removesuffix(DISPERSION)) in _SCHEMES:
        return _SCHEMES[scale]
    anions = sorted({"O", *_OMAT24_ANIONS} & composition.chemical_system_set)
    if anions:
        raise CorrectionError(
            f"no corrections are known for the energy scale {energy_scale!r}, and "
            f"{composition.reduced_formula} may need one for {', '.join(anions)}; "
            f"use a checkpoint on one of the scales {', '.join(sorted(_SCHEMES))}"
        )
    return NO_CORRECTION


def corrected_entry(
    structure: Structure, energy: float, energy_scale: str, entry_id: str | None = None
) -> ComputedStructureEntry:
    """
    Correct the energy of one crystal.

    Energies on the scale ``mp`` are corrected by MaterialsProject2020Compatibility (Wang et al., Sci. Rep. 11, 15496,
    2021), as if VASP had computed them with the settings and the Hubbard U of MPRelaxSet. Energies on the scale
    ``omat24`` are corrected by the same rules with the parameters of OMat24, which uses the same Hubbard U. MatPES
    energies need no correction.

    Parameters
    ----------
    structure
        Relaxed crystal; its bonds distinguish oxides, peroxides and superoxides. If its species have oxidation states,
        their means are used; otherwise the most probable states of the composition, see `apply_scheme`.
    energy
        Total energy, uncorrected (eV).
    energy_scale
        Energy scale of the checkpoint.
    entry_id
        Id of the entry.

    Returns
    -------
    ComputedStructureEntry
        Entry with energy adjustments: `energy` is corrected, `uncorrected_energy` is the energy given.
        ``data["oxidation_states"]`` and ``data["correction_state"]`` tell what the scheme used, see `apply_scheme`.

    Raises
    ------
    CorrectionError
        If the scale has no known scheme, or the scheme refuses the entry.

    Examples
    --------
    >>> from pymatgen.core import Lattice, Structure
    >>> salt = Structure(Lattice.cubic(4.12), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    >>> entry = corrected_entry(salt, -6.5, "mp")
    >>> round(entry.correction, 3), round(entry.energy_per_atom, 3)  # -0.614 eV per Cl; eV/atom
    (-0.614, -3.557)
    """
    from pymatgen.entries.computed_entries import ComputedStructureEntry

    scheme = correction_scheme(energy_scale, structure.composition)
    known = _states_of_sites(structure)
    if any(hasattr(element, "oxi_state") for element in structure.composition):  # MP2020 does not find O in O2-
        structure = structure.copy()
        structure.remove_oxidation_states()
    entry = ComputedStructureEntry(structure, energy, entry_id=entry_id)
    if known:
        entry.data["oxidation_states"] = known
    if scheme != NO_CORRECTION:
        entry.parameters = mp_parameters(structure.composition)
    apply_scheme(entry, scheme)
    return entry


def mp_parameters(composition: Composition) -> dict[str, Any]:
    """
    Look up the run type and the Hubbard U (eV) of a Materials Project calculation.

    As in MPRelaxSet, some transition metals have a U in oxides and fluorides; the most electronegative element decides.

    Examples
    --------
    >>> mp_parameters(Composition("Fe2O3"))
    {'run_type': 'GGA+U', 'is_hubbard': True, 'hubbards': {'Fe': 5.3}}
    """
    elements = [element for element in composition.remove_charges().elements if composition[element] > 0]
    table = _hubbard_table().get(max(elements, key=lambda element: element.X).symbol, {})
    hubbards = {element.symbol: table[element.symbol] for element in elements if table.get(element.symbol)}
    return {"run_type": "GGA+U" if hubbards else "GGA", "is_hubbard": bool(hubbards), "hubbards": hubbards}


def apply_scheme(entry: ComputedEntry, scheme: str) -> None:
    """
    Replace the energy adjustments of an entry by those of a scheme.

    MP2020 corrects an element other than O and S if its oxidation state is at most -1, or if it is the most
    electronegative element and not known to be between -1 and 0. The states are those in
    ``entry.data["oxidation_states"]``, if there are any; otherwise the most probable ones of the composition, for
    formulas of any length, see `matris.stores.documents.charge_balance`. pymatgen by itself guesses none for more than
    20 sites, and then corrects only the most electronegative element.

    Parameters
    ----------
    entry
        Entry; unless the scheme is ``"none"``, its parameters must include ``run_type`` and ``hubbards``. The scheme
        writes ``oxidation_states`` (mean state of each element; empty if none balance) and ``correction_state`` into
        its `data`. The latter is ``"undecided"`` if no states balance and an element other than the most
        electronegative one may be an anion, or if the best guesses disagree on what is an anion; else ``"decided"``.
    scheme
        Return value of `correction_scheme`.

    Raises
    ------
    CorrectionError
        If the scheme refuses the entry, for example for a wrong Hubbard U, or its oxidation states are no numbers.

    Examples
    --------
    >>> from pymatgen.entries.computed_entries import ComputedEntry
    >>> sialon = Composition("YSi9AlON15")
    >>> entry = ComputedEntry(sialon, -200.0, parameters=mp_parameters(sialon), data={"oxide_type": "oxide"})
    >>> apply_scheme(entry, MP2020)
    >>> {adjustment.name: round(adjustment.value, 3) for adjustment in entry.energy_adjustments}  # eV
    {'MP2020 anion correction (oxide)': -0.687, 'MP2020 anion correction (N)': -5.415}
    >>> entry.data["correction_state"], entry.data["oxidation_states"]["Si"]
    ('decided', 4.0)
    """
    entry.energy_adjustments = []
    entry.data["correction_state"] = DECIDED
    if scheme == NO_CORRECTION:
        return
    from pymatgen.entries.compatibility import CompatibilityError

    states = _known_states(entry)
    if not states:
        found = _balance(entry.composition.formula)
        states = entry.data["oxidation_states"] = dict(found.states)
        if found.ambiguous or (not states and _depends_on_states(entry.composition)):
            entry.data["correction_state"] = UNDECIDED
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the scheme warns of alloys without oxidation states
        try:
            adjustments = _mp2020().get_adjustments(entry)
        except CompatibilityError as error:
            raise CorrectionError(f"{scheme} refuses {entry.reduced_formula}: {_short(error)}") from error
        except KeyError as error:  # of its table
            raise CorrectionError(f"{scheme} has no correction of the type {error}") from error
    entry.energy_adjustments = (
        adjustments if scheme == MP2020 else [_omat24_adjustment(adjustment) for adjustment in adjustments]
    )


def _omat24_adjustment(adjustment: CompositionEnergyAdjustment) -> CompositionEnergyAdjustment:
    """Convert an MP2020 adjustment to OMat24's: the rules are the same, only the parameters differ."""
    from pymatgen.entries.computed_entries import CompositionEnergyAdjustment

    kind = adjustment.name.rpartition("(")[2].rstrip(")")
    table = _OMAT24_MIXING if "mixing" in adjustment.name else _OMAT24_ANIONS
    name = adjustment.name.replace("MP2020", "OMat24")
    return CompositionEnergyAdjustment(table[kind], adjustment.n_atoms, name=name)


@cache
def _mp2020() -> MaterialsProject2020Compatibility:
    """MP2020 scheme; it is slow to construct."""
    from pymatgen.entries.compatibility import MaterialsProject2020Compatibility

    return MaterialsProject2020Compatibility(check_potcar=False)


@cache
def _hubbard_table() -> dict[str, dict[str, float]]:
    """Table of Hubbard U (eV): anion, then metal."""
    from pymatgen.io.vasp.sets import MPRelaxSet

    table: dict[str, dict[str, float]] = MPRelaxSet.CONFIG["INCAR"]["LDAUU"]
    return table


@cache
def _balance(formula: str) -> Balance:
    """Most probable oxidation states, found once per formula."""
    return balance(Composition(formula), _ANIONS_BY_STATE)


def _depends_on_states(composition: Composition) -> bool:
    """Whether an element that may be an anion is not the most electronegative one, which is always corrected."""
    symbols = composition.chemical_system_set
    return len(symbols) > 1 and not {symbol for symbol in symbols if symbol in _ANIONS_BY_STATE} <= {
        max(composition.element_composition.elements, key=lambda element: element.X).symbol
    }


def _known_states(entry: ComputedEntry) -> dict[str, float]:
    """Oxidation states that an entry brings; none if they are all zero, which is how some sources write unknown."""
    given = entry.data.get("oxidation_states") or {}
    try:
        states = {str(symbol): float(state) for symbol, state in given.items()}
    except (TypeError, ValueError, AttributeError):
        states = {"": nan}
    if not all(map(isfinite, states.values())):
        raise CorrectionError(f"the oxidation states of {entry.reduced_formula} are no numbers: {str(given)[:100]}")
    return states if any(states.values()) else {}


def _short(error: Exception) -> str:
    """Return a message of pymatgen without the whole entry, which some end with."""
    return str(error).partition(" for {")[0]


def _states_of_sites(structure: Structure) -> Mapping[str, float] | None:
    """Mean oxidation state of each element, where all species have one."""
    totals: dict[str, float] = {}
    for species, amount in structure.composition.items():
        state = getattr(species, "oxi_state", None)
        if state is None:
            return None
        totals[species.symbol] = totals.get(species.symbol, 0.0) + state * amount
    amounts = structure.composition.get_el_amt_dict()
    return {symbol: total / amounts[symbol] for symbol, total in totals.items()}
