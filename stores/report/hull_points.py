"""Phases in pictures of convex hulls, and the choice of chemical systems to draw."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pymatgen.entries.computed_entries import ComputedEntry

DRAWABLE = (2, 3, 4)
"""Numbers of elements of hulls that can be drawn: in a plane, a triangle, a tetrahedron."""


SCALE = ((0.0, "#2a9d8f"), (0.35, "#e9c46a"), (1.0, "#c8553d"))
"""Colours of phases above the hull, by the share of `SCALE_END`."""

SCALE_END = 200.0
"""Distance above the hull at the end of the colours, meV/atom."""


@dataclass(frozen=True, slots=True)
class HullPoint:
    """
    One phase in a picture of a hull.

    Parameters
    ----------
    formula
        Formula in the labels.
    composition
        Element symbol to amount.
    formation_energy
        Formation energy, eV/atom.
    above_hull
        Distance to the hull, eV/atom; None for a phase of a reference set.
    label
        Text after the formula in the hover text.
    """

    formula: str
    composition: Mapping[str, float]
    formation_energy: float
    above_hull: float | None
    label: str = ""


def hull_point(document: Mapping[str, Any]) -> HullPoint | None:
    """Phase of a candidate document; None without a hull, or with too many elements for a picture."""
    formation = document.get("formation_energy_per_atom")
    if document.get("hull_state") != "ok" or formation is None or document["nelements"] > DRAWABLE[-1]:
        return None
    return HullPoint(
        formula=document["formula_pretty"],
        composition=document["composition_reduced"],
        formation_energy=formation,
        above_hull=document["energy_above_hull"],
        label=(document.get("symmetry") or {}).get("symbol") or "",
    )


def drawable_systems(counts: Mapping[str, int]) -> list[tuple[str, ...]]:
    """
    Select the chemical systems to draw: two to four elements, with phases.

    The system of all elements is drawn too if it has at most four elements, even if no phase contains all of them.

    Parameters
    ----------
    counts
        Number of phases by chemical system, such as ``"Fe-O"``.

    Returns
    -------
    list of tuple
        Sorted element symbols. Systems with most phases, including those of subsystems, come first.

    Examples
    --------
    >>> drawable_systems({"Fe": 1, "Fe-O": 4, "Li-O": 2})
    [('Fe', 'Li', 'O'), ('Fe', 'O'), ('Li', 'O')]
    """
    spaces = {frozenset(system.split("-")): n for system, n in counts.items()}
    systems = {space for space in (*spaces, frozenset().union(*spaces)) if len(space) in DRAWABLE}
    size = {space: sum(spaces.get(part, 0) for part in _parts(space)) for space in systems}
    return [tuple(sorted(space)) for space in sorted(systems, key=lambda s: (-size[s], -len(s), sorted(s)))]


def _parts(space: frozenset[str]) -> Iterable[frozenset[str]]:
    """Subsystems, including the system itself."""
    return (frozenset(part) for n in range(1, len(space) + 1) for part in combinations(sorted(space), n))


def inside(points: Mapping[str, Sequence[HullPoint]], system: Sequence[str]) -> list[HullPoint]:
    """Phases of a chemical system and its subsystems; `points` has the phases by chemical system."""
    return [point for part in _parts(frozenset(system)) for point in points.get("-".join(sorted(part)), ())]


def reference_points(entries: Iterable[ComputedEntry]) -> list[HullPoint]:
    """
    Compute formation energies of the compounds in a reference set.

    Parameters
    ----------
    entries
        Corrected entries.

    Returns
    -------
    list of HullPoint
        Compounds of at most four elements. Compounds of elements that are missing in the set are left out.

    Examples
    --------
    >>> from pymatgen.entries.computed_entries import ComputedEntry
    >>> entries = [ComputedEntry("Mg", -1.5), ComputedEntry("O2", -10.0), ComputedEntry("MgO", -12.5)]
    >>> [(point.formula, round(point.formation_energy, 3)) for point in reference_points(entries)]
    [('MgO', -3.0)]
    """
    entries = list(entries)
    pure: dict[str, float] = {}
    for entry in entries:
        if entry.is_element:
            symbol = entry.composition.chemical_system
            pure[symbol] = min(entry.energy_per_atom, pure.get(symbol, entry.energy_per_atom))
    points = []
    for entry in entries:
        symbols = entry.composition.chemical_system_set
        if entry.is_element or len(symbols) > DRAWABLE[-1] or not symbols <= pure.keys():
            continue
        fractions = entry.composition.fractional_composition.get_el_amt_dict()
        formation = entry.energy_per_atom - sum(x * pure[symbol] for symbol, x in fractions.items())
        reduced = entry.composition.reduced_composition.get_el_amt_dict()
        points.append(HullPoint(entry.reduced_formula, reduced, formation, None, str(entry.entry_id or "")))
    return points
