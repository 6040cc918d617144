"""Known crystals with other ions in place of their own, as likely as known crystals show it."""

from __future__ import annotations

from functools import cache, lru_cache
from typing import TYPE_CHECKING

from pymatgen.analysis.structure_prediction.substitution_probability import SubstitutionProbability
from pymatgen.core.periodic_table import Element, Species
from pymatgen.core.structure import Structure

from matris.errors import MatrisError
from matris.flows.sources.oxidation import site_charges
from matris.flows.sources.parents import derived, from_each
from matris.flows.sources.sizes import volume_factor

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from matris.stores.documents.candidate import Candidate

SUBSTITUTION_SOURCE = "substitution"

_SPECIES_LISTS = 256  # whose substitutions are remembered


def substitute_ions(
    parents: Iterable[Candidate], *, threshold: float = 1e-3, only: Collection[str] | None = None
) -> Iterator[Candidate]:
    """
    Replace the ions of known crystals by those that data mining finds likely there.

    Parameters
    ----------
    parents
        Read one by one. Their oxidation states are guessed, see `matris.flows.sources.oxidation.site_charges`.
    threshold
        Least probability of the new ions, given the old ones: the product over the kinds of ions.
    only
        Symbols; crystals of other elements are left out. By default none is.

    Yields
    ------
    Candidate
        Balanced ones, with the source ``"substitution"`` and provenance ``parent``, ``ions`` (old to new ion),
        ``probability``, ``threshold`` and ``volume_factor``. Every content once; of a crystal, the likeliest first.
        The cell is scaled by the ionic radii.

    Raises
    ------
    MatrisError
        If the threshold is not between 0 and 1, or an element does not exist.

    References
    ----------
    Hautier et al., Inorg. Chem. 50, 656 (2011); the probabilities are pymatgen's.
    """
    if not 0 < threshold < 1:
        raise MatrisError(f"the threshold is {threshold}, and must be between 0 and 1")
    if unknown := [symbol for symbol in only or () if not Element.is_valid_symbol(symbol)]:
        raise MatrisError(f"{', '.join(map(repr, unknown))} is no element")

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
            yield derived(
                parent,
                changed,
                SUBSTITUTION_SOURCE,
                ions={str(a): str(b) for a, b in mapping.items() if a != b},
                probability=float(f"{probability:.6g}"),
                threshold=threshold,
                volume_factor=round(factor, 6),
            )

    return from_each(parents, SUBSTITUTION_SOURCE, make)


def _sizes(ions: Sequence[Species]) -> list[tuple[str, float]]:
    return [(ion.symbol, float(ion.oxi_state or 0)) for ion in ions]


def _is_sound(mapping: dict[Species, Species]) -> bool:
    """Whether an element changes, and elements that are different stay different."""
    pairs = {(old.symbol, new.symbol) for old, new in mapping.items()}
    return any(old != new for old, new in pairs) and len({new for _, new in pairs}) == len(pairs)


@cache
def _model() -> SubstitutionProbability:
    return SubstitutionProbability()


@cache
def _in_place_of(old: Species) -> list[tuple[float, Species]]:
    """All ions with the probability to take the place of one, the likeliest first."""
    model = _model()
    return sorted(
        ((model.cond_prob(new, old), new) for new in model.species), key=lambda pair: (-pair[0], str(pair[1]))
    )


@lru_cache(_SPECIES_LISTS)
def _substitutions(kinds: tuple[Species, ...], threshold: float) -> list[tuple[float, tuple[Species, ...]]]:
    """Ions in place of others with their probability above the threshold, the likeliest first."""
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
