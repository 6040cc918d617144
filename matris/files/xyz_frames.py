"""Frames of extended XYZ, one after the other; a broken frame costs only itself."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from io import StringIO
from itertools import chain, pairwise
from typing import TYPE_CHECKING

from ase.io.extxyz import XYZError, read_xyz
from pymatgen.core.periodic_table import Element

from matris.files.text import MAX_SITES, MAX_TEXT, lines_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TextIO

    from ase import Atoms

_HEADER = 2  # lines above the atoms

_ISOTOPES = {name: float(Element(name).atomic_mass) for name in ("D", "T")}  # u

_HEAVY = re.compile(r"(?<!\S)[DTdt](?=\s)")
_PROPERTIES = re.compile(r"""properties=["']?([\w:]+)""", re.IGNORECASE)
_EXPONENT = re.compile(r"(?<![\w.])([+-]?(?:\d+\.?\d*|\.\d+))[dD](?=[+-]?\d+(?![\w.]))")


def split_frames(stream: TextIO) -> Iterator[tuple[str, str | None]]:
    """
    Split text into frames; after a broken one, reading goes on at the next frame that has a lattice or properties.

    Parameters
    ----------
    stream
        The text, read once and line by line.

    Yields
    ------
    str
        The frame, or the beginning of one that is too long.
    str or None
        What is wrong with its extent.

    Examples
    --------
    >>> import io
    >>> lines = ["1", 'Lattice="3 0 0 0 3 0 0 0 3"', "Fe 0 0 0", "5", "Properties=species:S:1:pos:R:3", "Fe 0 0 0", ""]
    >>> for frame, problem in split_frames(io.StringIO(chr(10).join(lines))):
    ...     print(problem)
    None
    the frame at line 4 is truncated: 1 of 5 atoms
    """
    frame = _Frame()
    for number, (line, following) in enumerate(pairwise(chain(lines_of(stream), [""])), 1):
        if frame.n_lines and (frame.n_lines == frame.n_expected or _starts_frame(line, following)):
            yield frame.text(), frame.problem()
            frame = _Frame()
        if frame.n_lines or line.strip():
            frame.add(line, number)
    if frame.n_lines:
        yield frame.text(), frame.problem()


def atoms_of(frame: str) -> Atoms:
    """
    Parse a frame.

    Deuterium and tritium, which ASE does not know, become hydrogen of their mass. Exponents may be Fortran's.

    Raises
    ------
    ValueError
        If it is malformed. ASE may raise other errors (KeyError, IndexError, TypeError) as well.

    Examples
    --------
    >>> atoms_of(chr(10).join(["1", 'Lattice="3 0 0 0 3 0 0 0 3"', "D 0 1.5D0 0"])).get_masses().round(3)
    array([2.014])
    """
    frame, isotopes = _without_isotopes(_EXPONENT.sub(r"\1e", frame))
    try:
        atoms = next(read_xyz(StringIO(frame), index=0))
    except XYZError as error:
        raise ValueError(str(error)) from error
    except KeyError as error:
        if error.args and str(error.args[0]) in frame.split():
            raise ValueError(f"unknown element {error}") from error
        raise
    if isotopes and not atoms.has("masses"):
        masses = atoms.get_masses()
        masses[list(isotopes)] = list(isotopes.values())
        atoms.set_masses(masses)
    return atoms


def _without_isotopes(frame: str) -> tuple[str, dict[int, float]]:
    """Write D and T as H; give the masses (u) by the positions of their atoms."""
    if _HEAVY.search(frame) is None:
        return frame, {}
    lines = frame.splitlines(keepends=True)
    column = 0
    if match := _PROPERTIES.search(lines[1]):
        before, found, _ = match[1].partition("species:S:")
        if not found:
            return frame, {}
        column = sum(int(width) for width in before.split(":")[2::3])
    isotopes: dict[int, float] = {}
    for number, line in enumerate(lines[_HEADER:]):
        words = line.split()
        if len(words) > column and (mass := _ISOTOPES.get(words[column].upper())):
            isotopes[number] = mass
            words[column] = "H"
            lines[_HEADER + number] = " ".join(words) + "\n"
    return "".join(lines), isotopes


@dataclass
class _Frame:
    """A frame that is being read; of a frame that is too long, only the beginning is kept."""

    lines: list[str] = field(default_factory=list)
    n_lines: int = 0
    length: int = 0
    first: int = 0
    n_expected: int = 0  # lines by its number of atoms; 0 if its first line is no number

    def add(self, line: str, number: int) -> None:
        if not self.n_lines:
            self.first, n_atoms = number, _count(line)
            self.n_expected = 0 if n_atoms is None else n_atoms + _HEADER
        self.n_lines, self.length = self.n_lines + 1, self.length + len(line)
        if not self.lines or (self.length <= MAX_TEXT and self.n_lines <= MAX_SITES + _HEADER):
            self.lines.append(line)

    def text(self) -> str:
        return "".join(self.lines)

    def problem(self) -> str | None:
        if not self.n_expected:
            return f"line {self.first} is {self.lines[0].rstrip()[:40]!r}, expected a number of atoms"
        if self.n_lines != self.n_expected:
            n_atoms = max(self.n_lines - _HEADER, 0)
            return f"the frame at line {self.first} is truncated: {n_atoms} of {self.n_expected - _HEADER} atoms"
        if len(self.lines) < self.n_lines:
            return f"the frame at line {self.first} has more than {MAX_TEXT} characters or {MAX_SITES} atoms"
        return None


def _count(line: str) -> int | None:
    """Read a number of atoms."""
    word = line[:40].strip()
    return int(word) if word.isdecimal() else None


def _starts_frame(line: str, following: str) -> bool:
    """Whether a line that need not be the first one of a frame is."""
    if _count(line) is None:
        return False
    following = following.lower()
    return "lattice=" in following or "properties=" in following
