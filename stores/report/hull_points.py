"""Phases in pictures of convex hulls, and which chemical systems are drawn."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pymatgen.entries.computed_entries import ComputedEntry

DRAWABLE = (2, 3, 4)
"""Numbers of elements whose hulls are drawn: in a plane, a triangle, a tetrahedron."""


@dataclass(frozen=True, slots=True)
class HullPoint:
    """
    One phase in a hull plot.

    Parameters
    ----------
    formula
        What it is called.
    composition
        Element symbol to amount.
    formation_energy
        eV/atom.
    above_hull
        eV/atom; None for a phase of a reference set, which is drawn as such.
    label
        Further line for the hover text.
    """

    formula: str
    composition: Mapping[str, float]
    formation_energy: float
    above_hull: float | None
    label: str = ""


def hull_point(document: Mapping[str, Any]) -> HullPoint | None:
    """Phase of a candidate document that can be drawn: one on a hull, of not too many elements."""
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
    Chemical systems worth a picture: with a compound, and not too many elements.

    If all phases together have no more elements than can be drawn, those are a system, whether or not a phase has all.

    Parameters
    ----------
    counts
        Phases by chemical system, such as ``"Fe-O"``.

    Returns
    -------
    list of tuple
        Sorted element symbols; systems with most phases in them and in their subsystems come first.
    """
    spaces = {frozenset(system.split("-")): n for system, n in counts.items()}
    systems = {space for space in (*spaces, frozenset().union(*spaces)) if len(space) in DRAWABLE}
    size = {space: sum(spaces.get(part, 0) for part in _parts(space)) for space in systems}
    return [tuple(sorted(space)) for space in sorted(systems, key=lambda s: (-size[s], -len(s), sorted(s)))]


def _parts(space: frozenset[str]) -> Iterable[frozenset[str]]:
    """Subsystems, the system itself among them."""
    return (frozenset(part) for n in range(1, len(space) + 1) for part in combinations(sorted(space), n))


def inside(points: Mapping[str, Sequence[HullPoint]], system: Sequence[str]) -> list[HullPoint]:
    """Phases of a chemical system and its subsystems, from phases by the system of their own."""
    return [point for part in _parts(frozenset(system)) for point in points.get("-".join(sorted(part)), ())]


def reference_points(entries: Iterable[ComputedEntry]) -> list[HullPoint]:
    """
    Compounds of a reference set with their formation energies.

    Parameters
    ----------
    entries
        Corrected entries.

    Returns
    -------
    list of HullPoint
        Of as many elements as can be drawn; those whose elements are not all in the set are left out.
    """
    listed = list(entries)
    pure: dict[str, float] = {}
    for entry in listed:
        if entry.is_element:
            symbol = entry.composition.chemical_system
            pure[symbol] = min(entry.energy_per_atom, pure.get(symbol, entry.energy_per_atom))
    points = []
    for entry in listed:
        symbols = entry.composition.chemical_system_set
        if entry.is_element or len(symbols) > DRAWABLE[-1] or not symbols <= pure.keys():
            continue
        fractions = entry.composition.fractional_composition.get_el_amt_dict()
        formation = entry.energy_per_atom - sum(x * pure[symbol] for symbol, x in fractions.items())
        reduced = entry.composition.reduced_composition.get_el_amt_dict()
        points.append(HullPoint(entry.reduced_formula, reduced, formation, None, str(entry.entry_id or "")))
    return points
