"""ASE's databases in SQLite, one row after the other; nothing is written to them."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING
from urllib.parse import quote

import numpy as np
from ase import Atoms

from matris.stores.sources.parsed import MAX_SITES, Parsed, attempt
from matris.structures import to_structure

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pymatgen.core.structure import Structure

_BUSY = 20.0  # seconds to wait for a writer
_NUMBER = 4  # bytes
_ROW = "SELECT numbers, positions, cell, pbc FROM systems WHERE id = ?"


def read_database(file: Path) -> Iterator[Parsed]:
    """
    Yield the crystals of all rows by their ids.

    Where the rows are is ASE's format since version 5 (2017): numbers are 32-bit integers, positions and cell 64-bit
    floats (Å), all little-endian, and ``pbc`` has a bit for each direction.
    """
    try:
        with closing(sqlite3.connect(f"file:{quote(str(file))}?mode=ro", uri=True, timeout=_BUSY)) as connection:
            identity = None
            for (identity,) in connection.execute("SELECT id FROM systems ORDER BY id"):
                yield attempt(lambda i=identity: _structure(connection, i), {"row": identity}, str(identity), "row")  # type: ignore[misc]
            if identity is None:
                yield Parsed(None, "unreadable ASE database: it has no rows")
    except sqlite3.Error as error:
        yield Parsed(None, f"unreadable ASE database: {error}")


def _structure(connection: sqlite3.Connection, identity: int) -> Structure:
    try:
        numbers, positions, cell, pbc = connection.execute(_ROW, (identity,)).fetchone()
    except sqlite3.Error as error:
        raise ValueError(f"row {identity}: {error}") from error
    if len(numbers) > _NUMBER * MAX_SITES:
        raise ValueError(f"it has more than {MAX_SITES} atoms")
    atoms = Atoms(
        np.frombuffer(numbers, "<i4"),
        np.frombuffer(positions, "<f8").reshape(-1, 3),
        cell=np.frombuffer(cell, "<f8").reshape(3, 3),
        pbc=[bool(int(pbc) & bit) for bit in (1, 2, 4)],
    )
    return to_structure(atoms)
