"""Crystals of POSCAR and CONTCAR files of VASP 5 and later."""

from __future__ import annotations

import math
import re
import warnings
from typing import TYPE_CHECKING

import numpy as np
from pymatgen.core.periodic_table import Element
from pymatgen.core.structure import Structure

from matris.files.text import MAX_SITES, MAX_TEXT
from matris.flows.sources.parsed import Parsed, SourceWarning, attempt

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import TextIO

    from numpy.typing import NDArray

_HEAD = 5  # lines above the symbols: title, scale and cell
_AXES = 3
_FLAG = re.compile(r"\.?([TF])", re.IGNORECASE)


def read_poscar(stream: TextIO) -> Iterator[Parsed]:
    """Yield the crystal of a file."""
    text = stream.read(MAX_TEXT + 1)
    if len(text) > MAX_TEXT or text.count("\n") > 3 * MAX_SITES:  # velocities and more may follow the coordinates
        yield Parsed(None, f"unreadable POSCAR: it is too long, of more than {MAX_SITES} sites", {}, text[:1000])
    elif text.strip():
        yield attempt(lambda: _structure(text), {}, text, "POSCAR")


def _structure(text: str) -> Structure:
    """
    Read a POSCAR as VASP does.

    pymatgen's reader knows neither three scale factors, nor the exponents of Fortran, nor an empty line in the place
    of "Direct". Source of the format: the page POSCAR of the VASP wiki.

    Raises
    ------
    ValueError
        If a value is wrong; the message names it.
    """
    lines = [line.split("!")[0].split("#")[0].split() for line in text.splitlines()]
    lines[0] = lines[0] or ["title"]
    scale, cell = _cell(lines)
    symbols, counts, at = _species(lines)
    has_flags = bool(lines[at : at + 1] and lines[at] and lines[at][0][0] in "sS")
    at += has_flags
    mode = lines[at] if at < len(lines) else []
    rows = lines[at + 1 :]
    n_rows = next((i for i, row in enumerate(rows) if not _is_row(row)), len(rows))
    if n_rows != sum(counts):
        then = f"; then comes {' '.join(rows[n_rows])[:40]!r}" if rows[n_rows : n_rows + 1] not in ([], [[]]) else ""
        raise ValueError(f"it counts {sum(counts)} atoms, and lists {n_rows}{then}")
    if n_rows > MAX_SITES:
        raise ValueError(f"it has more than {MAX_SITES} sites")
    places = np.array([[_number(word) for word in row[:_AXES]] for row in rows[:n_rows]]).reshape(-1, _AXES)
    is_cartesian = bool(mode) and mode[0][0] in "cCkK"
    structure = Structure(
        cell,
        [symbol for symbol, count in zip(symbols, counts, strict=True) for _ in range(count)],
        places * scale if is_cartesian else places,
        coords_are_cartesian=is_cartesian,
    )
    if has_flags:
        structure.add_site_property(
            "selective_dynamics", [_flags(index, row) for index, row in enumerate(rows[:n_rows])]
        )
    _warn_of_motion(rows[n_rows:])
    return structure


def _cell(lines: Sequence[Sequence[str]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Read the factors of Cartesian coordinates, shape (3,), and the scaled lattice vectors (Å), shape (3, 3)."""
    if len(lines) < _HEAD or any(len(line) < _AXES for line in lines[2:_HEAD]):
        raise ValueError("a lattice vector is missing or has fewer than three numbers; is the file truncated?")
    cell = np.array([[_number(word) for word in line[:_AXES]] for line in lines[2:_HEAD]])
    factors = []
    for word in lines[1][:_AXES]:
        try:
            factors.append(_number(word))
        except ValueError:
            break  # a remark
    if len(factors) not in {1, _AXES} or not all(map(math.isfinite, factors)):
        raise ValueError(f"the scale is {' '.join(lines[1])!r}, expected one number or three")
    if len(factors) == _AXES and min(factors) <= 0:
        raise ValueError(f"the three scale factors are {' '.join(lines[1][:_AXES])}, and must be positive")
    if factors[0] < 0:  # the volume of the cell
        volume = abs(float(np.linalg.det(cell)))
        if not volume > 0:
            raise ValueError("the cell has no volume")
        factors = [float(np.cbrt(-factors[0] / volume))]
    scale = np.array(factors if len(factors) == _AXES else factors * _AXES)
    return scale, cell * scale  # three factors scale the Cartesian components


def _species(lines: Sequence[Sequence[str]]) -> tuple[list[str], list[int], int]:
    """Read the symbols and the numbers of atoms, and where the lines go on."""
    start = next((i for i in range(_HEAD, len(lines)) if lines[i] and _is_integer(lines[i][0])), None)
    if start is None:
        raise ValueError("it does not say how many atoms there are; is the file truncated?")
    words = [word for line in lines[_HEAD:start] for word in line]
    stop = start + 1
    while stop < len(lines) and len(words) > stop - start and lines[stop] and all(map(_is_integer, lines[stop])):
        if sum(len(line) for line in lines[start:stop]) >= len(words):
            break  # all symbols have their numbers
        stop += 1
    counted = [word for line in lines[start:stop] for word in line]
    if not all(map(_is_integer, counted)) or min(map(int, counted)) < 0:
        raise ValueError(f"{' '.join(lines[start])!r} are no numbers of atoms")
    counts = [int(word) for word in counted]
    if not words:
        raise ValueError("it does not name its elements (VASP 4 format); add a line of symbols above the counts")
    symbols = [re.split(r"[_/.]", word)[0].title() for word in words]  # Mg_pv, Mg/hash of the potential
    for word, symbol in zip(words, symbols, strict=True):
        if not Element.is_valid_symbol(symbol):
            raise ValueError(f"unknown name of an element {word!r}")
    if len(symbols) != len(counts):
        raise ValueError(f"it has {len(symbols)} symbols of elements and {len(counts)} numbers of atoms")
    if sum(counts) == 0:
        raise ValueError("it lists no atom sites")
    return symbols, counts, stop


def _flags(index: int, row: Sequence[str]) -> list[bool]:
    found = [_FLAG.match(word) for word in row[_AXES : 2 * _AXES]]
    if len(found) != _AXES or not all(found):
        raise ValueError(f"site {index} has selective dynamics {' '.join(row[_AXES:])!r}, expected three of T and F")
    return [match[1] in "tT" for match in found if match]


def _warn_of_motion(rows: Sequence[Sequence[str]]) -> None:
    """Warn of velocities other than zero."""
    for row in rows:
        if row and _is_row(row) and any(_number(word) for word in row[:_AXES]):
            warnings.warn("what follows the coordinates, such as velocities, is not used", SourceWarning, stacklevel=2)
            return


def _number(word: str) -> float:
    """Read a number, whose exponent Fortran may write as D."""
    return float(re.sub(r"[dD](?=[+-]?\d+$)", "e", word) if word[:1] in "+-.0123456789" else word)


def _is_integer(word: str) -> bool:
    return re.fullmatch(r"[+-]?[0-9]+", word) is not None


def _is_row(words: Sequence[str]) -> bool:
    """Whether a line begins with three numbers."""
    try:
        return len([_number(word) for word in words[:_AXES]]) == _AXES
    except ValueError:
        return False
