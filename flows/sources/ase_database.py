"""Crystals of ASE databases in SQLite, opened read-only."""

from __future__ import annotations

import sqlite3
import warnings
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from matris.files.ase_db import MOTION, read_rows, set_motion
from matris.files.text import MAX_SITES
from matris.flows.sources.parsed import Parsed, SourceWarning, attempt, from_atoms

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ase import Atoms
    from pymatgen.core.structure import Structure


def read_database(file: Path) -> Iterator[Parsed]:
    """Yield the crystals of all rows in the order of their ids."""
    identity = None
    try:
        for identity, atoms, columns in read_rows(file, MOTION, max_atoms=MAX_SITES):
            read = partial(_structure, atoms, columns)
            yield attempt(read, {"row": identity}, str(identity), "row")
        if identity is None:
            yield Parsed(None, "unreadable ASE database: it has no rows")
    except sqlite3.Error as error:
        yield Parsed(None, f"unreadable ASE database: {error}")


def _structure(atoms: Atoms | ValueError, columns: dict[str, Any]) -> Structure:
    if isinstance(atoms, ValueError):
        raise atoms
    masses, momenta = (None if columns[name] is None else np.frombuffer(columns[name], "<f8") for name in MOTION[:2])
    return moving_structure(atoms, masses, momenta, columns["constraints"])


def moving_structure(atoms: Atoms, masses: Any, momenta: Any, constraints: Any) -> Structure:
    """Convert atoms with the masses, momenta and constraints of a row; see `matris.files.ase_db.set_motion`."""
    if left_out := set_motion(atoms, masses, momenta, constraints):
        warnings.warn(f"constraints are not used: {', '.join(left_out)}", SourceWarning, stacklevel=2)
    return from_atoms(atoms)
