"""Sizes of atoms and ions, and the volume of a crystal after its elements are replaced."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pymatgen.core.periodic_table import Element

if TYPE_CHECKING:
    from collections.abc import Sequence

_ANGSTROM3_PER_CM3_MOL = 1.0 / 0.602214076  # cm³/mol to Å³/atom, from Avogadro's number


def atomic_volume(symbol: str) -> float | None:
    """Volume per atom of an element (Å³) from its molar volume; None if that is not tabulated."""
    volume = Element(symbol).data.get("Molar volume")
    return float(str(volume).split()[0]) * _ANGSTROM3_PER_CM3_MOL if volume and volume != "no data" else None


def ionic_radius(symbol: str, charge: float) -> float | None:
    """
    Shannon radius (Å) at the nearest tabulated charge of the same sign; None if there is none.

    Of ions with two spin states, the high-spin radius is used. pymatgen lists Ni2+, Cr3+ and Mn4+, which have a single
    spin state, as low spin.
    """
    low_spin = {int(q): r for q, r in Element(symbol).data.get("Ionic radii ls", {}).items()}
    radii: dict[int, float] = low_spin | Element(symbol).ionic_radii
    charges = [q for q, r in radii.items() if r and q * charge > 0]
    return radii[min(charges, key=lambda q: (abs(q - charge), q))] if charges else None


def volume_factor(old: Sequence[tuple[str, float]], new: Sequence[tuple[str, float]]) -> float | None:
    """
    Factor by which the volume of a crystal changes when its elements are replaced.

    With charges, all lengths scale as the sum of the ionic radii, or of the atomic radii where an ion has none;
    without charges, the volume scales as the sum of the elements' atomic volumes.

    Parameters
    ----------
    old, new
        Symbols and charges (e) of the n sites before and after; in a crystal without ions, all charges are 0.

    Returns
    -------
    float or None
        None if a size is not known.

    Examples
    --------
    >>> round(volume_factor([("Mg", 2), ("O", -2)], [("Ca", 2), ("O", -2)]), 3)
    1.451
    """
    if not any(charge for _, charge in new):
        after, before = (_sum([atomic_volume(symbol) for symbol, _ in sites]) for sites in (new, old))
        return after / before if after and before else None
    after, before = (_sum([ionic_radius(*site) for site in sites]) for sites in (new, old))
    if not after or not before:
        after, before = (_sum([_atomic_radius(symbol) for symbol, _ in sites]) for sites in (new, old))
    return float((after / before) ** 3) if after and before else None


def _atomic_radius(symbol: str) -> float | None:
    radius = Element(symbol).atomic_radius
    return float(radius) if radius else None


def _sum(sizes: Sequence[float | None]) -> float | None:
    present = [size for size in sizes if size is not None]
    return sum(present) if len(present) == len(sizes) else None
