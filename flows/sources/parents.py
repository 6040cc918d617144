"""Candidates made from candidates: each names its parent, and what cannot be made says why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from matris.stores.documents.candidate import Candidate
from matris.structures import problem_with

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from pymatgen.core.structure import Structure


def derived(parent: Candidate, structure: Structure, method: str, **parameters: Any) -> Candidate:
    """
    Name a crystal that was made from another.

    Parameters
    ----------
    parent
        What it was made from.
    structure
        What was made.
    method
        Name of the generator; becomes the source.
    **parameters
        All that is needed to make it again from its parent.
    """
    return Candidate.from_structure(structure, method, parent=_origin(parent), **parameters)


def from_each(
    parents: Iterable[Candidate], method: str, make: Callable[[Candidate, Structure], Iterator[Candidate]]
) -> Iterator[Candidate]:
    """
    Make candidates from each parent, every content once.

    Parameters
    ----------
    parents
        Read one by one. One without a structure is handed on as it is.
    method
        Name of the generator.
    make
        Yields candidates from a parent and its ordered, computable structure; raises ValueError, with the reason, if
        nothing can be made of it. That becomes a candidate without a structure.
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
        yield Candidate.unreadable(
            method, " ".join(reason.split()), parent.candidate_id.encode(), parent=_origin(parent)
        )


def distinct(candidates: Iterable[Candidate]) -> Iterator[Candidate]:
    """Drop candidates whose content came before; some 70 bytes are kept of each."""
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
