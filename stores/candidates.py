"""Candidates: input structures with an identity, a source and a provenance."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field
from pymatgen.core.structure import Structure  # noqa: TC002 - pydantic needs it

from matris.errors import MatrisError
from matris.stores.sources.files import KNOWN, files_in, read_file
from matris.structures import content_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from matris.stores.sources.parsed import Parsed


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


def read_candidates(paths: str | Path | Iterable[str | Path]) -> Iterator[Candidate]:
    """
    Read structure files one after the other, and each crystal by crystal.

    A file, block, frame, line, row or archive member that cannot be read becomes a candidate with an error; a
    structure that can be read but not computed (disorder, overlapping atoms) stays a candidate with a structure, and
    `matris.structures.problem_with` gives the reason.

    Parameters
    ----------
    paths
        Files, or folders that are searched through: CIF (also of many blocks), POSCAR, extended XYZ (many frames),
        pymatgen JSON and JSON lines, all also compressed or in a zip archive; ASE databases. In folders, files of
        other types are passed over.

    Returns
    -------
    Iterator of Candidate
        In the order of `paths`, files of a folder sorted by name. The provenance tells the place in the file.

    Raises
    ------
    MatrisError
        If a path does not exist, or a folder holds no structure file.
    """
    listed = [Path(path) for path in ([paths] if isinstance(paths, str | Path) else paths)]
    for path in listed:
        if not path.is_file() and not path.is_dir():
            raise MatrisError(f"{path}: no such file or folder")
        if path.is_dir() and next(files_in(path), None) is None:
            raise MatrisError(f"{path}: no structure files in this folder; known are {KNOWN}")
    files = (file for path in listed for file in (files_in(path) if path.is_dir() else [path]))
    return (_candidate(parsed, _text(os.fsencode(file))) for file in files for parsed in read_file(file))


def _candidate(parsed: Parsed, source: str) -> Candidate:
    where = {
        key: _text(value.encode(errors="surrogatepass")) if isinstance(value, str) else value
        for key, value in parsed.where.items()
    }
    if parsed.structure is None:
        content = parsed.text.encode(errors="surrogatepass")
        return Candidate.unreadable(source, parsed.error or "no structure", content, **where)
    return Candidate.from_structure(parsed.structure, source, **where)


def _text(name: bytes) -> str:
    """Name as text; it need not be one, but the document of it is."""
    return name.decode(errors="replace")
