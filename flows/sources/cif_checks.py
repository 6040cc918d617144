"""Defects of CIFs that parsers ignore, so that they return another crystal."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

import numpy as np
from pymatgen.core.operations import SymmOp
from pymatgen.core.periodic_table import Element

if TYPE_CHECKING:
    from collections.abc import Mapping

_FAR = 1e6  # cells; a larger coordinate has no digits left for the position within a cell
_CELL = dict.fromkeys(("_cell_length_a", "_cell_length_b", "_cell_length_c"), math.inf) | dict.fromkeys(
    ("_cell_angle_alpha", "_cell_angle_beta", "_cell_angle_gamma"), 180.0
)  # the largest value of each


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
        number = _number(value)
        if value not in {"?", "."} and not (0 < number <= largest and math.isfinite(number)):
            why = "" if number else ": the cell has no volume"
            why = why if math.isfinite(number) else ", which is no finite number"
            raise ValueError(f"the {key[1:].replace('_', ' ')} is {value}{why}")
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
            if value not in {"?", "."} and math.isnan(_number(value)):
                raise ValueError(f"site {label}: the coordinate is not a number: {value!r}")


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
