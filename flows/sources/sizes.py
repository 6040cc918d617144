"""How large atoms and ions are, and what that makes of a crystal's volume when its elements change."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pymatgen.core.periodic_table import Element

if TYPE_CHECKING:
    from collections.abc import Sequence

_ANGSTROM3_PER_CM3_MOL = 1.0 / 0.602214076  # cm³/mol to Å³/atom, from Avogadro's number


def atomic_volume(symbol: str) -> float | None:
    """Volume of an element per atom (Å³), from its molar volume; None if that is not known."""
    volume = Element(symbol).data.get("Molar volume")
    return float(str(volume).split()[0]) * _ANGSTROM3_PER_CM3_MOL if volume and volume != "no data" else None


def ionic_radius(symbol: str, charge: float) -> float | None:
    """
    Shannon's radius (Å) in the nearest charge of this sign that is tabulated; None if there is none.

    Of ions with two spin states the high-spin one. Where pymatgen lists only low spin, as of Ni2+, Cr3+ and Mn4+, which
    have no other, that.
    """
    low_spin = {int(q): r for q, r in Element(symbol).data.get("Ionic radii ls", {}).items()}
    radii: dict[int, float] = low_spin | Element(symbol).ionic_radii
    charges = [q for q, r in radii.items() if r and q * charge > 0]
    return radii[min(charges, key=lambda q: (abs(q - charge), q))] if charges else None


def volume_factor(old: Sequence[tuple[str, float]], new: Sequence[tuple[str, float]]) -> float | None:
    """
    Factor of a crystal's volume when its elements are replaced.

    With charges, all lengths scale as the sum of the ionic radii, or of the atomic radii where an ion has none;
    without charges, the volume scales as the sum of the elements' atomic volumes.

    Parameters
    ----------
    old, new
        Symbols and charges (e) of the n sites before and after; all charges 0 in a crystal without ions.

    Returns
    -------
    float or None
        None if a size is not known.
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
