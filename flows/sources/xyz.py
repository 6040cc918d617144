"""Crystals of extended XYZ."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matris.files.xyz_frames import atoms_of, split_frames
from matris.flows.sources.parsed import Parsed, attempt, from_atoms

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TextIO


def read_xyz(stream: TextIO) -> Iterator[Parsed]:
    """Yield the crystals of all frames; a broken frame costs only itself."""
    for number, (text, problem) in enumerate(split_frames(stream)):
        location = {"frame": number}
        if problem:
            yield Parsed(None, f"unreadable XYZ: {problem}", location, text)
        else:
            yield attempt(lambda text=text: from_atoms(atoms_of(text)), location, text, "XYZ")  # type: ignore[misc]
