"""Candidates: input structures with an id, a source and a provenance."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, BeforeValidator, Field
from pymatgen.core.structure import Structure  # noqa: TC002 - pydantic needs it

from matris.errors import StoreError
from matris.files.stored_objects import UnknownClassError, decode_structure
from matris.structures import content_id, problem_with

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

ELEMENTAL_REFERENCE_SOURCE = "elemental reference"
"""`Candidate.source` of the reference crystal of an element."""

KNOWN_PHASE_SOURCE = "references"
"""`Candidate.source` of a known phase."""

COMPETING_PROTOTYPE_SOURCE = "competing prototype"
"""`Candidate.source` of a compound made from a prototype to complete the hull of other candidates."""

REFERENCE_SOURCES = frozenset({ELEMENTAL_REFERENCE_SOURCE, KNOWN_PHASE_SOURCE, COMPETING_PROTOTYPE_SOURCE})
"""Sources of structures that compete on hulls but are not candidates of the campaign."""


def _decoded(value: Any) -> Any:
    """Decode the dictionary form of a structure; pydantic would import any class that it names."""
    try:
        return decode_structure(value) if isinstance(value, dict) else value
    except UnknownClassError as error:  # no value that pydantic may report as one of several problems
        raise StoreError(str(error)) from None


class Candidate(BaseModel):
    """
    One input of a campaign.

    An input that cannot be read has no structure; `error` then says why.

    Examples
    --------
    >>> from pymatgen.core import Lattice, Structure
    >>> iron = Structure(Lattice.cubic(2.87), ["Fe", "Fe"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    >>> candidate = Candidate.from_structure(iron, "notebook", author="me")
    >>> candidate.candidate_id, candidate.source, candidate.provenance
    ('...', 'notebook', {'author': 'me'})
    >>> candidate.candidate_id == Candidate.from_structure(iron, "another source").candidate_id
    True
    """

    candidate_id: str = Field(description="Hash of the content; equal inputs have equal ids on all machines.")
    structure: Annotated[Structure | None, BeforeValidator(_decoded)] = Field(
        default=None, description="Input structure; None if it cannot be read."
    )
    source: str = Field(description="File that the input came from, or the name of a generator.")
    provenance: dict[str, Any] = Field(default_factory=dict, description="Place in the source, parent structures, ….")
    error: str | None = Field(default=None, description="Why there is no structure.")

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """Show the formula instead of the structure."""
        yield None, self.candidate_id
        yield "source", self.source
        if self.structure is not None:
            yield "formula", self.structure.composition.reduced_formula
        if self.error is not None:
            yield "error", self.error

    @classmethod
    def from_structure(cls, structure: Structure, source: str, **provenance: Any) -> Candidate:
        """
        Make a candidate whose id is the hash of a structure.

        Parameters
        ----------
        structure
            Input structure.
        source
            File or generator that the structure came from.
        **provenance
            Further information on the origin; it does not affect the id.
        """
        return cls(candidate_id=content_id(structure), structure=structure, source=source, provenance=provenance)

    @classmethod
    def unreadable(cls, source: str, error: str, content: bytes, **provenance: Any) -> Candidate:
        """
        Make a candidate for an input that cannot be read as a structure.

        The id is a hash of the content, the file name and the place in the file.

        Parameters
        ----------
        source
            File; only its name without folders enters the id.
        error
            Reason, in one line.
        content
            Unreadable text.
        **provenance
            Place in the file.
        """
        name = f"{Path(source).name} {sorted(provenance.items())}"
        digest = hashlib.sha256(content + b"\0" + name.encode()).hexdigest()[:20]
        return cls(candidate_id=digest, source=source, provenance=provenance, error=error)

    def problem(self, elements: Collection[str] | None = None) -> str | None:
        """
        State why the candidate cannot be computed.

        Parameters
        ----------
        elements
            Elements that the potential knows. Default: all.

        Returns
        -------
        str or None
            Its error, or what `matris.structures.problem_with` finds; None if there is no problem.

        Examples
        --------
        >>> Candidate.unreadable("empty.cif", "the file is empty", b"").problem()
        'the file is empty'
        """
        if self.structure is None:
            return self.error or "no structure"
        return self.error or problem_with(self.structure, elements)
