"""Defects of structure files that parsers ignore, so that they return another crystal."""

from __future__ import annotations

import math
import re
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import numpy as np
from pymatgen.core.operations import SymmOp
from pymatgen.core.periodic_table import Element

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_FAR = 1e6  # cells; a larger coordinate has no digits left for the position within a cell
_CELL = dict.fromkeys(("_cell_length_a", "_cell_length_b", "_cell_length_c"), math.inf) | dict.fromkeys(
    ("_cell_angle_alpha", "_cell_angle_beta", "_cell_angle_gamma"), 180.0
)  # the largest value of each
_TITLE_SCALE_AND_CELL = 5  # lines of a POSCAR


def check_cif(data: Mapping[str, Any]) -> None:
    """
    Check elements, occupancies, cell, coordinates and symmetry operations of a CIF.

    Parameters
    ----------
    data
        One data block: names to texts, or to lists of texts.

    Raises
    ------
    ValueError
        If a value is wrong; the message names it.
    """
    for key, largest in _CELL.items():
        value = data.get(key, "?")
        if _number(value) < 0 or _number(value) > largest:
            raise ValueError(f"the {key[1:].replace('_', ' ')} is {value}")
    for key in ("_symmetry_equiv_pos_as_xyz", "_space_group_symop_operation_xyz"):
        operations = data.get(key, ())
        for text in [operations] if isinstance(operations, str) else operations:
            if text not in {"?", "."} and not _is_symmetry(text):
                raise ValueError(f"{text!r} is no symmetry operation")
    _check_sites(data)


def _check_sites(data: Mapping[str, Any]) -> None:
    for symbol in data.get("_atom_site_type_symbol", ()):
        letters = re.match(r"[A-Za-z]*", symbol)
        if letters and not Element.is_valid_symbol(letters[0].title()):
            raise ValueError(f"unknown element {symbol!r} in _atom_site_type_symbol")
    labels = data.get("_atom_site_label", ())
    for label, value in zip(labels, data.get("_atom_site_occupancy", ()), strict=False):
        if value not in {"?", "."} and not 0 <= _number(value) < math.inf:
            raise ValueError(f"site {label} has the occupancy {value}")
    for axis in "xyz":
        for label, value in zip(labels, data.get(f"_atom_site_fract_{axis}", ()), strict=False):
            if abs(_number(value)) > _FAR:
                raise ValueError(f"site {label} lies {value} cells away")


def check_poscar(text: str) -> None:
    """
    Check that the numbers of atoms agree with the symbols above them and the coordinates below.

    Raises
    ------
    ValueError
        If a value is wrong; the message names it.
    """
    lines = [line.split("#")[0].split() for line in text.splitlines()]
    start = next((i for i in range(_TITLE_SCALE_AND_CELL, len(lines)) if lines[i] and _is_integer(lines[i][0])), None)
    if start is None:
        raise ValueError("it does not say how many atoms there are; is the file truncated?")
    stop = next((i for i in range(start, len(lines)) if not all(map(_is_integer, lines[i]))), len(lines))
    counts = [int(word) for line in lines[start:stop] for word in line]
    symbols = [word for line in lines[_TITLE_SCALE_AND_CELL:start] for word in line]
    if not counts or min(counts) < 0:
        raise ValueError(f"{' '.join(lines[start])!r} are no numbers of atoms")
    if symbols and len(symbols) != len(counts):
        raise ValueError(f"it has {len(symbols)} symbols of elements and {len(counts)} numbers of atoms")
    words = lines[stop : stop + 2]  # "Selective dynamics" may stand above "Direct"
    n_words = 2 if words and words[0][0][0] in "sS" else 1
    rows = lines[stop + n_words :]
    n_rows = sum(1 for _ in takewhile(_is_row, rows))
    if n_rows != sum(counts):
        then = f"; then comes {' '.join(rows[n_rows])[:40]!r}" if rows[n_rows : n_rows + 1] not in ([], [[]]) else ""
        raise ValueError(f"it counts {sum(counts)} atoms, and lists {n_rows}{then}")


def _number(text: str) -> float:
    """Read a number of a CIF without its uncertainty; NaN if the text is no number."""
    try:
        return float(text.split("(", maxsplit=1)[0])
    except ValueError:
        return math.nan


def _is_symmetry(text: str) -> bool:
    """Whether an operation such as ``-x,y+1/2,z`` maps a lattice onto itself."""
    if text.count(",") != 2:  # noqa: PLR2004
        return False
    return math.isclose(abs(np.linalg.det(SymmOp.from_xyz_str(text).rotation_matrix)), 1.0)


def _is_integer(word: str) -> bool:
    return word.lstrip("+-").isdecimal()


def _is_row(words: Sequence[str]) -> bool:
    """Whether a line of a POSCAR begins with three coordinates."""
    try:
        return len([float(word) for word in words[:3]]) == len("xyz")
    except ValueError:
        return False
