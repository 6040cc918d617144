"""
Energy corrections, determined by the energy scale of a checkpoint.

pymatgen's entries and correction schemes take seconds to import. They are imported where they are used, so that queries
start quickly.
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


class CorrectionError(MatrisError):
    """No known scheme can correct an energy."""


def correction_scheme(energy_scale: str, composition: Composition) -> str:
    """
    Name the correction scheme of an energy scale.

    Parameters
    ----------
    energy_scale
        Energy scale of the checkpoint.
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
    if energy_scale in _SCHEMES:
        return _SCHEMES[energy_scale]
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
        Relaxed crystal; its bonds distinguish oxides, peroxides and superoxides.
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
    entry = ComputedStructureEntry(structure, energy, entry_id=entry_id)
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

    Parameters
    ----------
    entry
        Entry; unless the scheme is ``"none"``, its parameters must include ``run_type`` and ``hubbards``.
    scheme
        Return value of `correction_scheme`.

    Raises
    ------
    CorrectionError
        If the scheme refuses the entry, for example for a wrong Hubbard U.
    """
    entry.energy_adjustments = []
    if scheme == NO_CORRECTION:
        return
    from pymatgen.entries.compatibility import CompatibilityError

    if "oxidation_states" not in entry.data:
        entry.data["oxidation_states"] = _oxidation_states(entry.composition.formula)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the scheme warns of alloys without oxidation states
        try:
            adjustments = _mp2020().get_adjustments(entry)
        except CompatibilityError as error:
            raise CorrectionError(f"{scheme} refuses {entry.reduced_formula}: {error}") from error
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
def _oxidation_states(formula: str) -> dict[str, float]:
    """Guess the oxidation states as the scheme does, once per formula, because it is the scheme's slowest step."""
    try:
        guesses = Composition(formula).oxi_state_guesses(max_sites=-20)
    except ValueError:  # too many atoms for a guess
        return {}
    return dict(guesses[0]) if guesses else {}
