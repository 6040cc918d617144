"""Extended XYZ, one frame after the other."""

from __future__ import annotations

from dataclasses import dataclass, field
from io import StringIO
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any

import ase.io
from ase.io.extxyz import XYZError

from matris.files.text import MAX_SITES, MAX_TEXT, lines_of
from matris.flows.sources.parsed import Parsed, attempt
from matris.structures import to_structure

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import TextIO

    from pymatgen.core.structure import Structure

_HEADER = 2  # lines above the atoms


def read_xyz(stream: TextIO) -> Iterator[Parsed]:
    """Yield the crystals of all frames; after a broken one, reading goes on at the next that has a lattice."""
    for number, (text, reason) in enumerate(_frames(lines_of(stream))):
        where = {"frame": number}
        if reason:
            yield Parsed(None, f"unreadable XYZ: {reason}", where, text)
        else:
            yield attempt(lambda text=text: _structure(text), where, text, "XYZ")  # type: ignore[misc]


def _frames(lines: Iterable[str]) -> Iterator[tuple[str, str | None]]:
    """Yield the text of each frame, and what is wrong with its extent."""
    frame = _Frame()
    for number, (line, following) in enumerate(pairwise(chain(lines, [""])), 1):
        if frame.n_lines and (frame.is_complete() or _starts_frame(line, following)):
            yield frame.text(), frame.problem()
            frame = _Frame()
        if frame.n_lines or line.strip():
            frame.add(line, number)
    if frame.n_lines:
        yield frame.text(), frame.problem()


@dataclass
class _Frame:
    """A frame on its way in; of one that is too long, only the beginning is kept."""

    lines: list[str] = field(default_factory=list)
    n_lines: int = 0
    length: int = 0
    first: int = 0
    n_atoms: int = 0  # as it says; -1 if it does not

    def add(self, line: str, number: int) -> None:
        if not self.n_lines:
            self.first, self.n_atoms = number, _count(line)
        self.n_lines, self.length = self.n_lines + 1, self.length + len(line)
        if not self.lines or (self.length <= MAX_TEXT and self.n_lines <= MAX_SITES + _HEADER):
            self.lines.append(line)

    def text(self) -> str:
        return "".join(self.lines)

    def is_complete(self) -> bool:
        return self.n_lines == self.n_atoms + _HEADER and self.n_atoms >= 0

    def problem(self) -> str | None:
        if self.n_atoms < 0:
            return f"line {self.first} is {self.lines[0].rstrip()[:40]!r}, expected a number of atoms"
        if not self.is_complete():
            n_found = max(self.n_lines - _HEADER, 0)
            return f"the frame at line {self.first} is truncated: {n_found} of {self.n_atoms} atoms"
        if len(self.lines) < self.n_lines:
            return f"the frame at line {self.first} has more than {MAX_TEXT} characters or {MAX_SITES} atoms"
        return None


def _count(line: str) -> int:
    """Read a number of atoms; -1 if it is none."""
    try:
        return max(int(line), -1)
    except ValueError:
        return -1


def _starts_frame(line: str, following: str) -> bool:
    """Whether a line that need not be the first of a frame is."""
    return _count(line) >= 0 and ("lattice=" in following.lower() or "properties=" in following.lower())


def _structure(text: str) -> Structure:
    try:
        atoms: Any = ase.io.read(StringIO(text), index=0, format="extxyz")
    except XYZError as error:
        raise ValueError(str(error)) from error
    return to_structure(atoms)
