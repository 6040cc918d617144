"""Rows of ASE databases in SQLite, opened read-only."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
from ase import Atoms
from ase.constraints import FixAtoms, FixCartesian, FixScaled

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_BUSY = 20.0  # seconds to wait for a writer
_ATOMS = ("numbers", "positions", "cell", "pbc")
_NUMBER = 4  # bytes

MOTION = ("masses", "momenta", "constraints")
"""Columns with masses, momenta and constraints, for `set_motion`."""

_CONSTRAINTS = {kind.__name__: kind for kind in (FixAtoms, FixCartesian, FixScaled)}


def read_rows(
    file: Path, columns: Sequence[str] = (), max_atoms: int | None = None
) -> Iterator[tuple[int, Atoms | ValueError, dict[str, Any]]]:
    """
    Yield all rows in the order of their ids.

    The format is ASE's since version 5 (2017): atomic numbers are 32-bit integers, positions and cell are 64-bit floats
    (Å), all little-endian, and ``pbc`` has a bit for each direction.

    Parameters
    ----------
    file
        The database.
    columns
        Other columns to read.
    max_atoms
        Largest number of atoms in a row; a larger row is an error of its own.

    Yields
    ------
    tuple
        Id; the atoms, or the error of the row; the columns by name, as they are stored.

    Raises
    ------
    sqlite3.Error
        If the file is no such database.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import ase.db
    >>> from ase.build import bulk
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "metals.db"
    ...     with ase.db.connect(path) as database:
    ...         _ = database.write(bulk("Cu"))
    ...     for identity, atoms, columns in read_rows(path, ["unique_id"]):
    ...         print(identity, atoms.get_chemical_formula(), list(columns))
    1 Cu ['unique_id']
    """
    query = f"SELECT {', '.join([*_ATOMS, *columns])} FROM systems WHERE id = ?"  # noqa: S608 - columns are ours
    with closing(sqlite3.connect(f"file:{quote(str(file))}?mode=ro", uri=True, timeout=_BUSY)) as connection:
        for (identity,) in connection.execute("SELECT id FROM systems ORDER BY id"):
            try:
                row = connection.execute(query, (identity,)).fetchone()
            except sqlite3.Error as error:
                yield identity, ValueError(f"row {identity}: {error}"), {}
                continue
            try:
                atoms: Atoms | ValueError = _atoms(*row[: len(_ATOMS)], max_atoms=max_atoms)
            except (ValueError, TypeError) as error:
                atoms = ValueError(str(error))
            yield identity, atoms, dict(zip(columns, row[len(_ATOMS) :], strict=True))


def set_motion(atoms: Atoms, masses: Any, momenta: Any, constraints: Any) -> list[str]:
    """
    Give atoms the masses, momenta and fixed atoms of a row.

    Parameters
    ----------
    atoms
        The atoms, which are changed.
    masses, momenta
        Arrays in ASE's units, or None.
    constraints
        Constraints as dictionaries, or as the JSON text of a list of them, or None.

    Returns
    -------
    list of str
        Names of constraints that are left out, because they do more than to fix atoms.

    Raises
    ------
    ValueError, TypeError, KeyError
        If they do not fit the atoms.
    """
    if masses is not None:
        atoms.set_masses(np.asarray(masses, dtype=float))
    if momenta is not None:
        atoms.set_array("momenta", np.asarray(momenta, dtype=float).reshape(-1, 3), float, (3,))
    given = json.loads(constraints) if isinstance(constraints, str) else constraints
    kept, left_out = [], []
    for constraint in given or ():
        if kind := _CONSTRAINTS.get(constraint["name"]):
            kept.append(kind(**constraint["kwargs"]))
        else:
            left_out.append(str(constraint["name"]))
    atoms.set_constraint(kept)
    return left_out


def _atoms(numbers: bytes, positions: bytes, cell: bytes, pbc: int, *, max_atoms: int | None) -> Atoms:
    if max_atoms is not None and len(numbers) > _NUMBER * max_atoms:
        raise ValueError(f"it has more than {max_atoms} atoms")
    return Atoms(
        np.frombuffer(numbers, "<i4"),
        np.frombuffer(positions, "<f8").reshape(-1, 3),
        cell=np.frombuffer(cell, "<f8").reshape(3, 3),
        pbc=[bool(int(pbc) & bit) for bit in (1, 2, 4)],
    )
