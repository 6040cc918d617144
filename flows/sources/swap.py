"""Known crystals with other elements in place of their own."""

from __future__ import annotations

from itertools import combinations, product
from typing import TYPE_CHECKING

from pymatgen.core.periodic_table import Element
from pymatgen.core.structure import Structure

from matris.errors import MatrisError
from matris.flows.sources.oxidation import site_charges
from matris.flows.sources.parents import derived, from_each
from matris.flows.sources.sizes import atomic_volume, ionic_radius, volume_factor

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from matris.stores.documents.candidate import Candidate

SWAP_SOURCE = "swap"
GROUP, VALENCE = "group", "valence"
"""Rules by which elements are found: the same group, or an ion of equal charge and similar radius."""

_SIMILAR = 0.15  # of the larger radius: Goldschmidt's rule for ions that replace each other
_KNOWN = tuple(Element.from_Z(z).symbol for z in range(1, 95) if atomic_volume(Element.from_Z(z).symbol))


def swap_elements(
    parents: Iterable[Candidate],
    by: Mapping[str, Sequence[str]] | str,
    *,
    at_once: int = 1,
    only: Collection[str] | None = None,
) -> Iterator[Candidate]:
    """
    Replace elements of known crystals, and scale the cell by the sizes of the new ones.

    Parameters
    ----------
    parents
        Read one by one.
    by
        What may take the place of each element, as ``{"Fe": ["Co", "Ni"]}``; or ``"group"`` for all elements of its
        group; or ``"valence"`` for all with a common ion of its charge in this crystal and, within 15 %, its radius
        (Goldschmidt's rule).
    at_once
        Most elements of a crystal that are replaced together.
    only
        Symbols; crystals of other elements are left out. By default none is.

    Yields
    ------
    Candidate
        With the source ``"swap"`` and provenance ``parent``, ``mapping`` (old to new element), ``rule`` and
        ``volume_factor``. Every content once; of a crystal, fewest replaced elements first. Elements that are
        different stay different.

    Raises
    ------
    MatrisError
        If there is no such rule or element, or `at_once` is not positive.
    """
    if isinstance(by, str) and by not in {GROUP, VALENCE}:
        raise MatrisError(f"no rule {by!r} to swap elements by; there are {GROUP} and {VALENCE}, or a map as Fe=Co,Ni")
    symbols = [] if isinstance(by, str) else [symbol for old, new in by.items() for symbol in (old, *new)]
    if unknown := [symbol for symbol in (*symbols, *(only or ())) if not Element.is_valid_symbol(symbol)]:
        raise MatrisError(f"{', '.join(map(repr, unknown))} is no element")
    if at_once < 1:
        raise MatrisError(f"at_once is {at_once}, and must be at least 1")

    def make(parent: Candidate, structure: Structure) -> Iterator[Candidate]:
        charges = site_charges(structure)
        old = [site.specie.symbol for site in structure]
        carried = charges or [0] * len(old)
        choices = _choices(structure, charges, by)
        for mapping in _mappings(choices, [element.symbol for element in structure.composition], at_once):
            new = [mapping.get(symbol, symbol) for symbol in old]
            if only is not None and not set(new) <= set(only):
                continue
            factor = volume_factor(list(zip(old, carried, strict=True)), list(zip(new, carried, strict=True)))
            if factor is None:
                raise ValueError(f"the size of one of {', '.join(sorted(set(new) | set(old)))} is not known")
            swapped = Structure(structure.lattice.scale(structure.volume * factor), new, structure.frac_coords)
            rule = by if isinstance(by, str) else "map"
            yield derived(parent, swapped, SWAP_SOURCE, mapping=mapping, rule=rule, volume_factor=round(factor, 6))

    return from_each(parents, SWAP_SOURCE, make)


def _choices(
    structure: Structure, charges: Sequence[int] | None, by: Mapping[str, Sequence[str]] | str
) -> dict[str, list[str]]:
    """Find what may take the place of each element."""
    elements = sorted(element.symbol for element in structure.composition)
    if not isinstance(by, str):
        return {old: list(by[old]) for old in elements if old in by}
    if by == GROUP:
        return {old: [s for s in _KNOWN if s != old and Element(s).group == Element(old).group] for old in elements}
    if charges is None:
        raise ValueError("no oxidation states balance")
    states: dict[str, set[int]] = {}
    for site, charge in zip(structure, charges, strict=True):
        states.setdefault(site.specie.symbol, set()).add(charge)
    return {old: [s for s in _KNOWN if s != old and all(_alike(old, s, q) for q in states[old])] for old in elements}


def _alike(old: str, new: str, charge: int) -> bool:
    """Whether two elements have ions of this charge and of similar radius."""
    radii = ionic_radius(old, charge), ionic_radius(new, charge)
    if charge not in (Element(new).common_oxidation_states or ()) or not radii[0] or not radii[1]:
        return False
    return abs(radii[0] - radii[1]) <= _SIMILAR * max(radii)  # type: ignore[type-var, operator]


def _mappings(choices: Mapping[str, Sequence[str]], elements: Sequence[str], at_once: int) -> Iterator[dict[str, str]]:
    """Replace some elements, fewest first, so that those that differ still do."""
    for size in range(1, min(at_once, len(choices)) + 1):
        for replaced in combinations(choices, size):
            for new in product(*(choices[old] for old in replaced)):
                mapping = dict(zip(replaced, new, strict=True))
                result = [mapping.get(element, element) for element in elements]
                if len(set(result)) == len(result) and all(old != to for old, to in mapping.items()):
                    yield mapping
