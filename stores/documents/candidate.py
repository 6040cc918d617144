"""Candidates: input structures with an identity, a source and a provenance."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field
from pymatgen.core.structure import Structure  # noqa: TC002 - pydantic needs it

from matris.structures import content_id

ELEMENTAL_REFERENCE_SOURCE = "elemental reference"
"""`Candidate.source` of a reference crystal of an element."""

KNOWN_PHASE_SOURCE = "references"
"""`Candidate.source` of a known phase."""

REFERENCE_SOURCES = frozenset({ELEMENTAL_REFERENCE_SOURCE, KNOWN_PHASE_SOURCE})
"""Sources of structures that compete on hulls but are not results of the campaign."""


class Candidate(BaseModel):
    """One input of a campaign; without a structure, `error` says why."""

    candidate_id: str = Field(description="Hash of the content: the same input is the same candidate anywhere.")
    structure: Structure | None = None
    source: str = Field(description="File, or the name of a generator.")
    provenance: dict[str, Any] = Field(default_factory=dict)
    error: str | None = Field(default=None, description="Why there is no structure.")

    @classmethod
    def from_structure(cls, structure: Structure, source: str, **provenance: Any) -> Candidate:
        """Name a structure by its content."""
        return cls(candidate_id=content_id(structure), structure=structure, source=source, provenance=provenance)

    @classmethod
    def unreadable(cls, source: str, error: str, content: bytes, **provenance: Any) -> Candidate:
        """
        Stand for an input that gave no structure.

        Parameters
        ----------
        source
            File; its last part enters the identity.
        error
            One line.
        content
            What could not be read; it enters the identity.
        **provenance
            Place in the file; it enters the identity too.
        """
        name = f"{Path(source).name} {sorted(provenance.items())}"
        digest = hashlib.sha256(content + b"\0" + name.encode()).hexdigest()[:20]
        return cls(candidate_id=digest, source=source, provenance=provenance, error=error)
