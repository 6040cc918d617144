"""Chemical potentials at which a crystal is in equilibrium with the phases that compete with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from pymatgen.analysis.phase_diagram import PhaseDiagram

from matris.properties.groups import UnusableCellError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pymatgen.entries.computed_entries import ComputedEntry

SAME_ENERGY = 1e-3
"""Difference of the energies of two relaxations of one crystal, eV/atom; also the tolerance of stability."""

_OXYGEN = {"oxide", "peroxide", "superoxide", "ozonide"}  # names of corrections of O


@dataclass(frozen=True)
class Limit:
    """
    A corner of the region of chemical potentials in which a crystal is stable.

    Attributes
    ----------
    phases
        Formulas of the other phases that are in equilibrium with the crystal; empty for an element.
    potentials
        Chemical potential of each element, eV/atom.
    """

    phases: tuple[str, ...]
    potentials: dict[str, float]

    @property
    def name(self) -> str:
        """The phases in one text."""
        return " + ".join(self.phases) or "the crystal itself"


@dataclass(frozen=True)
class ChemicalPotentials:
    """
    Chemical potentials of the elements of a crystal.

    Attributes
    ----------
    limits
        Corners of the region in which the crystal is stable, sorted by name. Each element is rich in some and poor in
        others. Of a crystal above the hull, the chemical potentials of the mixture that it decomposes into.
    above_hull
        Energy of the crystal above the hull of all phases, eV/atom.
    """

    limits: tuple[Limit, ...]
    above_hull: float


def chemical_potentials(crystal: ComputedEntry, competing: Sequence[ComputedEntry]) -> ChemicalPotentials:
    """
    Find the chemical potentials at which a crystal is in equilibrium with other phases, by pymatgen's phase diagram.

    Parameters
    ----------
    crystal
        Entry of the crystal.
    competing
        Entries of phases on the same energy scale; those with other elements are left out. They may contain the
        crystal.

    Returns
    -------
    ChemicalPotentials
        The corners of its region.

    Raises
    ------
    UnusableCellError
        If an element of a compound has no phase.

    Examples
    --------
    Salt forms from the elements with 4 eV, so that each chemical potential varies by 4 eV:

    >>> from pymatgen.entries.computed_entries import ComputedEntry
    >>> salt, sodium, chlorine = ComputedEntry("NaCl", -7.0), ComputedEntry("Na", -1.0), ComputedEntry("Cl2", -4.0)
    >>> for limit in chemical_potentials(salt, [sodium, chlorine]).limits:
    ...     print(limit.name, {symbol: round(value, 6) for symbol, value in limit.potentials.items()})
    Cl2 {'Na': -5.0, 'Cl': -2.0}
    Na {'Na': -1.0, 'Cl': -6.0}
    """
    elements = set(crystal.composition.elements)
    own = crystal.composition.reduced_composition
    others = [
        entry
        for entry in competing
        if set(entry.composition.elements) <= elements
        and not (
            entry.composition.reduced_composition.almost_equals(own)
            and entry.energy_per_atom > crystal.energy_per_atom - SAME_ENERGY
        )
    ]
    phases = [crystal, *others]
    lacking = {str(element) for element in elements} - {str(e.elements[0]) for e in phases if e.is_element}
    if lacking:
        raise UnusableCellError(
            f"no chemical potentials: {', '.join(sorted(lacking))} has no elemental phase among the competing phases"
        )
    diagram = PhaseDiagram(phases)
    names = {crystal.reduced_formula}
    limits = [
        Limit(
            tuple(phase for phase in facet.split("-") if phase not in names),
            {element.symbol: float(value) for element, value in potentials.items()},
        )
        for facet, potentials in diagram.get_all_chempots(crystal.composition).items()
    ]
    above = diagram.get_e_above_hull(crystal) or 0.0
    return ChemicalPotentials(tuple(sorted(limits, key=lambda limit: limit.name)), max(float(above), 0.0))


def corrections_per_atom(entry: ComputedEntry) -> dict[str, float]:
    """
    Read the correction of an atom of each element, eV, from the corrections of a crystal's energy.

    A cell with a defect has the corrections of its atoms, as in the perfect crystal.

    Raises
    ------
    UnusableCellError
        If the corrections are not a sum over atoms.

    Examples
    --------
    >>> from pymatgen.entries.computed_entries import CompositionEnergyAdjustment, ComputedEntry
    >>> correction = CompositionEnergyAdjustment(-0.5, 3, name="MP2020 anion correction (oxide)")
    >>> corrections_per_atom(ComputedEntry("Al2O3", -37.0, energy_adjustments=[correction]))
    {'O': -0.5}
    """
    amounts = entry.composition.get_el_amt_dict()
    corrections: dict[str, float] = {}
    for adjustment in entry.energy_adjustments:
        kind = adjustment.name.rpartition("(")[2].rstrip(")")
        symbol = "O" if kind in _OXYGEN else kind
        if symbol not in amounts:
            raise UnusableCellError(f"the correction {adjustment.name!r} is not one of atoms: defects have none")
        corrections[symbol] = corrections.get(symbol, 0.0) + (adjustment.value or 0.0) / amounts[symbol]
    total = sum(amounts[symbol] * value for symbol, value in corrections.items())
    if not np.isclose(total, entry.correction, atol=1e-6):
        raise UnusableCellError(f"the corrections of {entry.reduced_formula} are no sum over atoms")
    return corrections
