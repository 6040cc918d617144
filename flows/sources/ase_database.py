"""Crystals of ASE databases in SQLite, opened read-only."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

from matris.files.ase_db import read_rows
from matris.files.text import MAX_SITES
from matris.flows.sources.parsed import Parsed, attempt
from matris.structures import to_structure

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ase import Atoms
    from pymatgen.core.structure import Structure


def read_database(file: Path) -> Iterator[Parsed]:
    """Yield the crystals of all rows in the order of their ids."""
    identity = None
    try:
        for identity, atoms, _ in read_rows(file, max_atoms=MAX_SITES):
            yield attempt(lambda a=atoms: _structure(a), {"row": identity}, str(identity), "row")  # type: ignore[misc]
        if identity is None:
            yield Parsed(None, "unreadable ASE database: it has no rows")
    except sqlite3.Error as error:
        yield Parsed(None, f"unreadable ASE database: {error}")


def _structure(atoms: Atoms | ValueError) -> Structure:
    if isinstance(atoms, ValueError):
        raise atoms
    return to_structure(atoms)
