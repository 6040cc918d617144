"""Known crystals with other ions, by the substitution probabilities of Hautier et al."""

from __future__ import annotations

from functools import cache, lru_cache
from typing import TYPE_CHECKING

from pymatgen.analysis.structure_prediction.substitution_probability import SubstitutionProbability
from pymatgen.core.periodic_table import Species
from pymatgen.core.structure import Structure

from matris.errors import MatrisError
from matris.flows.sources.oxidation import site_charges
from matris.flows.sources.parents import derived, from_each, replacements
from matris.flows.sources.sizes import volume_factor
from matris.stores.query.values import element

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from matris.stores.documents.candidate import Candidate

SUBSTITUTION_SOURCE = "substitution"

_SPECIES_LISTS = 256  # cached lists of substitutions


def substitute_ions(
    parents: Iterable[Candidate], *, threshold: float = 1e-3, only: Collection[str] | None = None
) -> Iterator[Candidate]:
    """
    Replace the ions of known crystals by ions that are likely substitutes according to data mining.

    Parameters
    ----------
    parents
        Candidates, read one by one. `matris.flows.sources.oxidation.site_charges` guesses their oxidation states.
    threshold
        Least conditional probability of the new ions given the old ones: the product over the kinds of ions.
    only
        Symbols of the elements that new crystals may contain. By default, all elements.

    Yields
    ------
    Candidate
        Charge-balanced crystals with a source that names parent and change, and provenance ``generator``
        (``"substitution"``), ``parent``, ``ions`` (old to new ion), ``probability``, ``threshold`` and
        ``volume_factor``. Every crystal comes once; those of one parent come with decreasing probability. The cell is
        scaled by the ionic radii.

    Raises
    ------
    MatrisError
        If the threshold is not between 0 and 1, or an element does not exist.

    References
    ----------
    Hautier et al., Inorg. Chem. 50, 656 (2011); the probabilities are pymatgen's.

    Examples
    --------
    >>> from pymatgen.core import Lattice, Structure
    >>> from matris.stores.documents.candidate import Candidate
    >>> salt = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.69), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    >>> parent = Candidate.from_structure(salt.get_primitive_structure(), "example")
    >>> [candidate.structure.formula for candidate in substitute_ions([parent], only=["K", "Na", "Br", "Cl"])]
    ['K1 Cl1', 'Na1 Br1', 'K1 Br1']
    """
    if not 0 < threshold < 1:
        raise MatrisError(f"the threshold is {threshold}, and must be between 0 and 1")
    only = None if only is None else [element(symbol) for symbol in only]

    def make(parent: Candidate, structure: Structure) -> Iterator[Candidate]:
        charges = site_charges(structure)
        if charges is None:
            raise ValueError("no oxidation states balance")
        old = [Species(site.specie.symbol, q) for site, q in zip(structure, charges, strict=True)]
        kinds = sorted(set(old), key=str)
        if strange := [str(ion) for ion in kinds if ion not in _model().species]:
            raise ValueError(f"pymatgen has no probabilities of {', '.join(strange)}")
        for probability, ions in _substitutions(tuple(kinds), threshold):
            mapping = dict(zip(kinds, ions, strict=True))
            new = [mapping[ion] for ion in old]
            symbols = [ion.symbol for ion in new]
            if not _is_sound(mapping) or abs(sum(q for _, q in _sizes(new))) > 0:
                continue
            if only is not None and not set(symbols) <= set(only):
                continue
            factor = volume_factor(_sizes(old), _sizes(new))
            if factor is None:
                continue  # an ion without any radius
            changed = Structure(structure.lattice.scale(structure.volume * factor), symbols, structure.frac_coords)
            changed_ions = {str(a): str(b) for a, b in mapping.items() if a != b}
            yield derived(
                parent,
                changed,
                SUBSTITUTION_SOURCE,
                replacements(changed_ions),
                ions=changed_ions,
                probability=float(f"{probability:.6g}"),
                threshold=threshold,
                volume_factor=round(factor, 6),
            )

    return from_each(parents, SUBSTITUTION_SOURCE, make)


def _sizes(ions: Sequence[Species]) -> list[tuple[str, float]]:
    return [(ion.symbol, float(ion.oxi_state or 0)) for ion in ions]


def _is_sound(mapping: dict[Species, Species]) -> bool:
    """Whether an element changes, and different elements stay different."""
    pairs = {(old.symbol, new.symbol) for old, new in mapping.items()}
    return any(old != new for old, new in pairs) and len({new for _, new in pairs}) == len(pairs)


@cache
def _model() -> SubstitutionProbability:
    return SubstitutionProbability()


@cache
def _in_place_of(old: Species) -> list[tuple[float, Species]]:
    """All ions with their probability of replacing an ion, in decreasing order."""
    model = _model()
    return sorted(
        ((model.cond_prob(new, old), new) for new in model.species), key=lambda pair: (-pair[0], str(pair[1]))
    )


@lru_cache(_SPECIES_LISTS)
def _substitutions(kinds: tuple[Species, ...], threshold: float) -> list[tuple[float, tuple[Species, ...]]]:
    """List combinations of new ions with a probability above the threshold, in decreasing order."""
    combinations: list[tuple[float, tuple[Species, ...]]] = [(1.0, ())]
    best = [_in_place_of(kind)[0][0] for kind in kinds]
    for i, kind in enumerate(kinds):
        rest = 1.0
        for p in best[i + 1 :]:
            rest *= p
        extended: list[tuple[float, tuple[Species, ...]]] = []
        for probability, ions in combinations:
            for p, ion in _in_place_of(kind):
                if probability * p * rest < threshold:
                    break
                extended.append((probability * p, (*ions, ion)))
        combinations = extended
    return sorted(combinations, key=lambda item: (-item[0], str(item[1])))
