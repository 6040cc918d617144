"""Structure files and folders of them, one crystal after the other."""

from __future__ import annotations

import os
import re
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TextIO

from matris.errors import MatrisError
from matris.files.text import DAMAGED, open_text, patterns, without_packing
from matris.flows.sources.ase_database import read_database
from matris.flows.sources.cif import read_cif
from matris.flows.sources.json_text import read_json, read_json_lines
from matris.flows.sources.parsed import Parsed
from matris.flows.sources.poscar import read_poscar
from matris.flows.sources.xyz import read_xyz
from matris.stores.documents.candidate import Candidate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

type Reader = Callable[[TextIO], Iterator[Parsed]]

_READERS: dict[str, Reader] = {
    ".cif": read_cif,
    ".mcif": read_cif,
    ".xyz": read_xyz,
    ".extxyz": read_xyz,
    ".json": read_json,
    ".jsonl": read_json_lines,
    ".ndjson": read_json_lines,
}
KNOWN = f"POSCAR*, CONTCAR*, *.vasp, {patterns(_READERS)}; *.zip of these, and ASE's *.db"

_UNREADABLE = (*DAMAGED, zipfile.BadZipFile, RuntimeError, NotImplementedError)
"""Errors of reading: damaged or too large, locked by a password (RuntimeError), packed in an unknown way."""

_REPEATED = {"generated_trajectories.zip": "", "generated_crystals_cif.zip": "generated_crystals.extxyz"}
"""Files of MatterGen without crystals of their own: denoising trajectories, and a copy as CIF of the named file."""


def read_candidates(paths: str | Path | Iterable[str | Path]) -> Iterator[Candidate]:
    """
    Read structure files one after the other, and each crystal by crystal.

    A file, block, frame, line, row or archive member that cannot be read becomes a candidate with an error; a
    structure that can be read but not computed (disorder, overlapping atoms) is a candidate with a structure;
    `matris.structures.problem_with` gives the reason. What a structure does not have as its file has it, such as
    velocities, is in the list ``warnings`` of the provenance.

    Parameters
    ----------
    paths
        Files, or folders that are searched recursively: CIF (also of many blocks), POSCAR, extended XYZ (many frames),
        pymatgen JSON and JSON lines, all also compressed or in a zip archive; ASE databases. Other files in a folder
        are ignored.

    Returns
    -------
    Iterator of Candidate
        In the order of `paths`; files of a folder are sorted by name. The provenance has the location in the file.

    Raises
    ------
    MatrisError
        If a path does not exist, or a folder holds no structure file.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from pymatgen.core import Lattice, Structure
    >>> salt = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.69), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = salt.to(f"{folder}/salt.cif")
    ...     _ = Path(folder, "broken.cif").write_text("no crystal")
    ...     for candidate in read_candidates(folder):
    ...         print(candidate.structure.formula if candidate.structure else candidate.error)
    unreadable CIF: it holds no data block
    Na4 Cl4
    """
    listed = [Path(path) for path in ([paths] if isinstance(paths, str | Path) else paths)]
    for path in listed:
        if not path.is_file() and not path.is_dir():
            raise MatrisError(f"{path}: no such file or folder")
        if path.is_dir() and next(files_in(path), None) is None:
            raise MatrisError(f"{path}: no structure files in this folder; known are {KNOWN}")
    files = (file for path in listed for file in (files_in(path) if path.is_dir() else [path]))
    return (_candidate(parsed, _text(os.fsencode(file))) for file in files for parsed in read_file(file))


def files_in(folder: Path) -> Iterator[Path]:
    """
    Yield the structure files of a folder and its subfolders.

    Files come in the order of their names; only the names of one folder at a time are in memory. Hidden files, files of
    other types, links to folders and special files are left out. A folder that cannot be listed is yielded itself.
    """
    try:
        with os.scandir(folder) as entries:
            names = sorted((e.name, e.is_dir(follow_symlinks=False)) for e in entries if not e.name.startswith("."))
    except OSError:
        yield folder
        return
    for name, is_folder in names:
        if is_folder:
            yield from files_in(folder / name)
        elif is_structure_file(name) and (folder / name).is_file():
            beside = _REPEATED.get(name)
            if beside is None or (beside and not (folder / beside).is_file()):
                yield folder / name


def is_structure_file(name: str) -> bool:
    """Whether the name is that of a structure file."""
    return name.lower().endswith((".zip", ".db")) or _reader(name) is not None


def read_stream(name: str, stream: BinaryIO, size: int) -> Iterator[Parsed]:
    """
    Yield the crystals of a stream of one file.

    Parameters
    ----------
    name
        Name of the file, which determines the format.
    stream
        Its bytes.
    size
        Number of bytes.

    Raises
    ------
    OSError, EOFError, zlib.error, lzma.LZMAError
        If the file cannot be unpacked, or becomes too large. Malformed text is the error of one crystal instead.
    """
    reader = _reader(name)
    if reader is None:
        yield Parsed(None, f"unknown type of structure file; known are {KNOWN}")
        return
    n = 0
    with open_text(name, stream, size) as text:
        for parsed in reader(text):
            n += 1
            yield parsed
    if not n:
        yield Parsed(None, "the file is empty")


def read_file(file: Path) -> Iterator[Parsed]:
    """Yield the crystals of a file; never raises an error for its content."""
    lower = file.name.lower()
    try:
        with file.open("rb") as stream:
            if lower.endswith(".zip"):
                yield from _read_archive(stream)
            elif lower.endswith(".db"):
                yield from read_database(file)
            else:
                yield from read_stream(file.name, stream, file.stat().st_size)
    except _UNREADABLE as error:
        yield Parsed(None, _reason(error))


def _read_archive(stream: BinaryIO) -> Iterator[Parsed]:
    """Yield the crystals of an archive's members in their order; nothing is unpacked to disk."""
    n = 0
    with zipfile.ZipFile(stream) as archive:
        for info in archive.infolist():
            name = info.filename.rsplit("/", 1)[-1]
            if _reader(name) is None or name.startswith("."):
                continue
            n += 1
            location = {"member": info.filename}
            try:
                with archive.open(info) as member:
                    for parsed in read_stream(name, member, info.compress_size):  # type: ignore[arg-type]
                        yield replace(parsed, location=location | parsed.location)
            except _UNREADABLE as error:
                yield Parsed(None, _reason(error), location)
    if not n:
        yield Parsed(None, f"no structure files in this archive; known are {KNOWN}")


def _reader(name: str) -> Reader | None:
    """Choose the reader of a text file by its name, without the ending of compression."""
    lower = without_packing(name).lower()
    if lower.endswith((".vasp", ".poscar", ".contcar")) or re.match(r"(poscar|contcar)([-_.]|$)", lower):
        return read_poscar
    return next((reader for suffix, reader in _READERS.items() if lower.endswith(suffix)), None)


def _reason(error: BaseException) -> str:
    return f"unreadable file: {' '.join(str(error).split())[:300] or type(error).__name__}"


def _candidate(parsed: Parsed, source: str) -> Candidate:
    location = {
        key: _text(value.encode(errors="surrogatepass")) if isinstance(value, str) else value
        for key, value in parsed.location.items()
    }
    if parsed.structure is None:
        content = parsed.text.encode(errors="surrogatepass")
        return Candidate.unreadable(source, parsed.error or "no structure", content, **location)
    if parsed.warnings:
        location["warnings"] = list(parsed.warnings)
    return Candidate.from_structure(parsed.structure, source, **location)


def _text(name: bytes) -> str:
    """Decode a file name that may not be valid UTF-8, since documents must be."""
    return name.decode(errors="replace")
