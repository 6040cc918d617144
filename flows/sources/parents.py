"""Candidates made from other candidates: each names its parent; a failure is a candidate with the reason."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from matris.stores.documents.candidate import Candidate
from matris.structures import problem_with

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from pymatgen.core.structure import Structure


def derived(parent: Candidate, structure: Structure, method: str, change: str, **parameters: Any) -> Candidate:
    """
    Make a candidate of a crystal that was made from another one.

    Fixed atoms stay fixed, and atoms that are still of the same element keep their mass.

    Parameters
    ----------
    parent
        Candidate that the crystal was made from.
    structure
        The new crystal, with the sites in the order of its parent's.
    method
        Name of the generator, ``generator`` in the provenance.
    change
        What distinguishes the crystal from its parent, in a few words; the source names the parent and it.
    **parameters
        Everything needed to make the crystal from its parent again.
    """
    return Candidate.from_structure(
        _with_atoms_of(parent, structure),
        f"{origin(parent)}, {change}",
        generator=method,
        parent=_origin(parent),
        **parameters,
    )


def origin(parent: Candidate) -> str:
    """Name a candidate: its source, or its formula and prototype."""
    prototype = parent.provenance.get("prototype")
    if prototype is None or parent.structure is None:
        return parent.source
    return f"{parent.structure.composition.reduced_formula} of {prototype} type"


def replacements(mapping: Mapping[str, str]) -> str:
    """
    List what replaces what.

    Examples
    --------
    >>> replacements({"Fe": "Co", "Li": "Na"})
    'Fe → Co, Li → Na'
    """
    return ", ".join(f"{old} → {new}" for old, new in mapping.items())


def _with_atoms_of(parent: Candidate, structure: Structure) -> Structure:
    old = parent.structure
    if old is None or len(old) != len(structure) or not old.site_properties:
        return structure
    free, masses = (old.site_properties.get(name) for name in ("selective_dynamics", "masses"))
    if free is not None:
        structure.add_site_property("selective_dynamics", free)
    if masses is not None:
        kept = [
            mass if site.species == was.species else float(site.specie.atomic_mass)
            for mass, site, was in zip(masses, structure, old, strict=True)
        ]
        structure.add_site_property("masses", kept)
    return structure


def from_each(
    parents: Iterable[Candidate], method: str, make: Callable[[Candidate, Structure], Iterator[Candidate]]
) -> Iterator[Candidate]:
    """
    Make candidates from each parent; every crystal comes once.

    Parameters
    ----------
    parents
        Candidates, read one by one. A parent without a structure is passed on unchanged.
    method
        Name of the generator.
    make
        Yields candidates from a parent and its ordered, computable structure. It raises ValueError with the reason if
        it cannot use the structure; the reason becomes the error of a candidate without a structure.
    """
    return distinct(child for parent in parents for child in _children(parent, method, make))


def _children(
    parent: Candidate, method: str, make: Callable[[Candidate, Structure], Iterator[Candidate]]
) -> Iterator[Candidate]:
    if parent.structure is None:
        yield parent
        return
    try:
        if problem := problem_with(parent.structure):
            raise ValueError(problem)  # noqa: TRY301 - one way out
        yield from make(parent, parent.structure)
    except ValueError as error:
        reason = f"no {method} of {parent.structure.composition.reduced_formula} from {parent.source}: {error}"
        source = f"{origin(parent)}, {method}"
        yield Candidate.unreadable(
            source, " ".join(reason.split()), parent.candidate_id.encode(), generator=method, parent=_origin(parent)
        )


def distinct(candidates: Iterable[Candidate]) -> Iterator[Candidate]:
    """Drop candidates whose content came before; about 70 bytes of memory per candidate."""
    seen: set[int] = set()
    for candidate in candidates:
        key = int(
            candidate.candidate_id[:15], 16
        )  # 60 bits: among 10^6, two are equal by chance once in 10^6 campaigns
        if key not in seen:
            seen.add(key)
            yield candidate


def _origin(parent: Candidate) -> dict[str, Any]:
    return {"candidate_id": parent.candidate_id, "source": parent.source, **parent.provenance}
