"""Candidates: input structures with an identity, a source and a provenance."""

from __future__ import annotations

import hashlib
import os
import zlib
from lzma import LZMAError
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monty.io import zopen
from pydantic import BaseModel, Field
from pymatgen.core.structure import Structure  # noqa: TC002 - pydantic needs it

from matris.errors import MatrisError
from matris.stores.structure_files import KNOWN, Parsed, name_without_compression, parse_file, parser_for
from matris.structures import content_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


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
    Read structure files one after the other.

    A file or frame that cannot be read becomes a candidate with an error; a structure that can be read but not
    computed (disorder, overlapping atoms) stays a candidate with a structure, and
    `matris.structures.problem_with` gives the reason.

    Parameters
    ----------
    paths
        Files, or folders that are searched through; CIF (also of many blocks), POSCAR, extended XYZ (many
        frames) and pymatgen JSON, also compressed. In folders, files of other types are passed over.

    Returns
    -------
    Iterator of Candidate
        In the order of `paths`, files of a folder sorted by name.

    Raises
    ------
    MatrisError
        If a path does not exist, or a folder holds no structure file.
    """
    listed = [paths] if isinstance(paths, str | Path) else list(paths)
    files = [file for path in listed for file in _files(Path(path))]
    return (candidate for file in files for candidate in _read(file))


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise MatrisError(f"{path}: no such file or folder")
    files = [
        file
        for file in sorted(path.rglob("*"))
        if file.is_file() and not file.name.startswith(".") and parser_for(name_without_compression(file))
    ]
    if not files:
        raise MatrisError(f"{path}: no structure files in this folder; known are {KNOWN}")
    return files


def _read(file: Path) -> Iterator[Candidate]:
    source = os.fsencode(file).decode(errors="replace")  # a name need not be text, but the document of it is
    try:
        with zopen(file, "rb") as stream:
            content: bytes = stream.read()
    except (OSError, EOFError, zlib.error, LZMAError) as error:
        yield Candidate.unreadable(source, f"unreadable file: {error}", b"")
        return
    for parsed in parse_file(name_without_compression(file), content.decode("utf-8-sig", errors="replace")):
        yield _candidate(parsed, source)


def _candidate(parsed: Parsed, source: str) -> Candidate:
    if parsed.structure is None:
        return Candidate.unreadable(source, parsed.error or "no structure", parsed.text.encode(), **parsed.where)
    return Candidate.from_structure(parsed.structure, source, **parsed.where)
