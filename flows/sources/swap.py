"""Known crystals with other elements in place of their own."""

from __future__ import annotations

from itertools import combinations, product
from typing import TYPE_CHECKING

from pymatgen.core.periodic_table import Element
from pymatgen.core.structure import Structure

from matris.errors import MatrisError
from matris.flows.sources.oxidation import site_charges
from matris.flows.sources.parents import derived, from_each, replacements
from matris.flows.sources.sizes import atomic_volume, ionic_radius, volume_factor
from matris.stores.query.values import element

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from matris.stores.documents.candidate import Candidate

SWAP_SOURCE = "swap"
GROUP, VALENCE = "group", "valence"
"""Rules of substitution: the same group, or an ion of equal charge and similar radius."""

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
    Replace elements of known crystals, and scale the cell by the sizes of the new elements.

    Parameters
    ----------
    parents
        Candidates, read one by one.
    by
        Substitutes of each element, as ``{"Fe": ["Co", "Ni"]}``; or ``"group"`` for all elements of the same group; or
        ``"valence"`` for all elements with a common ion of the same charge and, within 15 %, the same radius
        (Goldschmidt's rule).
    at_once
        Largest number of elements of a crystal that are replaced together.
    only
        Symbols of the elements that new crystals may contain. By default, all elements.

    Yields
    ------
    Candidate
        With a source that names parent and change, and provenance ``generator`` (``"swap"``), ``parent``, ``mapping``
        (old to new element), ``rule`` and ``volume_factor``. Every crystal comes once; those of one parent come with
        increasing number of replaced elements. Different elements stay different.

    Raises
    ------
    MatrisError
        If there is no such rule or element, or `at_once` is not positive.

    Examples
    --------
    >>> from pymatgen.core import Lattice, Structure
    >>> from matris.stores.documents.candidate import Candidate
    >>> salt = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.69), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    >>> parent = Candidate.from_structure(salt, "example")
    >>> [candidate.structure.formula for candidate in swap_elements([parent], {"Na": ["K", "Li"]})]
    ['K4 Cl4', 'Li4 Cl4']
    """
    if isinstance(by, str) and by not in {GROUP, VALENCE}:
        raise MatrisError(f"no rule {by!r} to swap elements by; there are {GROUP} and {VALENCE}, or a map as Fe=Co,Ni")
    if not isinstance(by, str):
        by = {element(old): [element(symbol) for symbol in new] for old, new in by.items()}
    only = None if only is None else [element(symbol) for symbol in only]
    if at_once < 1:
        raise MatrisError(f"at_once is {at_once}, and must be at least 1")

    def make(parent: Candidate, structure: Structure) -> Iterator[Candidate]:
        charges = site_charges(structure)
        old = [site.specie.symbol for site in structure]
        carried = charges or [0] * len(old)
        choices = _choices(structure, charges, by)
        for mapping in _mappings(choices, [each.symbol for each in structure.composition], at_once):
            new = [mapping.get(symbol, symbol) for symbol in old]
            if only is not None and not set(new) <= set(only):
                continue
            factor = volume_factor(list(zip(old, carried, strict=True)), list(zip(new, carried, strict=True)))
            if factor is None:
                raise ValueError(f"the size of one of {', '.join(sorted(set(new) | set(old)))} is not known")
            swapped = Structure(structure.lattice.scale(structure.volume * factor), new, structure.frac_coords)
            rule = by if isinstance(by, str) else "map"
            change, factor = replacements(mapping), round(factor, 6)
            yield derived(parent, swapped, SWAP_SOURCE, change, mapping=mapping, rule=rule, volume_factor=factor)

    return from_each(parents, SWAP_SOURCE, make)


def _choices(
    structure: Structure, charges: Sequence[int] | None, by: Mapping[str, Sequence[str]] | str
) -> dict[str, list[str]]:
    """Find the substitutes of each element."""
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
    """Yield mappings with increasing number of replaced elements; different elements stay different."""
    for size in range(1, min(at_once, len(choices)) + 1):
        for replaced in combinations(choices, size):
            for new in product(*(choices[old] for old in replaced)):
                mapping = dict(zip(replaced, new, strict=True))
                result = [mapping.get(element, element) for element in elements]
                if len(set(result)) == len(result) and all(old != to for old, to in mapping.items()):
                    yield mapping
