"""Crystals of POSCAR and CONTCAR files of VASP 5 and later."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from pymatgen.core.structure import Structure

from matris.files.text import MAX_SITES, MAX_TEXT
from matris.flows.sources.defects import check_poscar
from matris.flows.sources.parsed import Parsed, attempt

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TextIO


def read_poscar(stream: TextIO) -> Iterator[Parsed]:
    """Yield the crystal of a file."""
    text = stream.read(MAX_TEXT + 1)
    if len(text) > MAX_TEXT or text.count("\n") > 2 * MAX_SITES:  # velocities may follow the coordinates
        yield Parsed(None, f"unreadable POSCAR: it is too long, of more than {MAX_SITES} sites", {}, text[:1000])
    elif text.strip():
        yield attempt(lambda: _structure(text), {}, text, "POSCAR")


def _structure(text: str) -> Structure:
    check_poscar(text)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        structure: Structure = Structure.from_str(text, fmt="poscar")
    if any("false names" in str(w.message) for w in caught):
        raise ValueError("it does not name its elements (VASP 4 format); add a line of symbols above the counts")
    return structure
