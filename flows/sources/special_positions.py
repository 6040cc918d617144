"""Sites of a CIF whose rounded coordinates miss the special position that they are on."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from matris.structures import MIN_DISTANCE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_COARSEST = 0.007
"""Largest change of a coordinate: two thirds, cut to 0.66."""

_EXACT = 1e-9  # largest difference of fractional coordinates that is none
_SAME = 1e-6  # the same, after a projection


def on_special_position(
    place: NDArray[np.float64],
    digits: Sequence[int],
    rotations: NDArray[np.float64],
    translations: NDArray[np.float64],
    cell: NDArray[np.float64],
) -> tuple[NDArray[np.float64], int]:
    """
    Move a site onto the special position that its coordinates mean.

    Operations that bring the site within 0.5 Å of itself cannot make another atom of it. If there is a place, within
    one unit of the last digit of each coordinate, that all of them leave where it is, then the site is there.

    Parameters
    ----------
    place
        Fractional coordinates as in the file, shape (3,).
    digits
        Number of decimals of each coordinate in the file; without decimals a coordinate is exact.
    rotations, translations
        All operations of the space group, shapes (n, 3, 3) and (n, 3).
    cell
        Lattice vectors as rows (Å), shape (3, 3).

    Returns
    -------
    ndarray
        Fractional coordinates, shape (3,); unchanged if there is no such place.
    int
        Multiplicity: number of different sites that the operations make of this one.

    Examples
    --------
    >>> import numpy as np
    >>> threefold = np.array([np.eye(3), [[0, -1, 0], [1, -1, 0], [0, 0, 1]], [[-1, 1, 0], [-1, 0, 0], [0, 0, 1]]])
    >>> hexagonal = np.array([[3.2, 0, 0], [-1.6, 2.7713, 0], [0, 0, 5.2]])
    >>> on_special_position(np.array([0.333, 0.667, 0.25]), (3, 3, 2), threefold, np.zeros((3, 3)), hexagonal)
    (array([0.33333333, 0.66666667, 0.25      ]), 1)
    >>> on_special_position(np.array([0.30, 0.667, 0.25]), (2, 3, 2), threefold, np.zeros((3, 3)), hexagonal)[1]
    3
    """
    steps = rotations @ place + translations - place
    steps -= np.rint(steps)
    near = np.linalg.norm(steps @ cell, axis=1) < MIN_DISTANCE
    if np.abs(steps[near]).max() < _EXACT:
        return place, round(len(rotations) / np.count_nonzero(near))
    moved = place + steps[near].mean(axis=0)
    left = rotations[near] @ moved + translations[near] - moved
    unit = np.array([0.99 * 10.0**-n if n else _SAME for n in digits])  # one unit exactly is another place
    is_fixed = np.abs(left - np.rint(left)).max() < _SAME
    if is_fixed and (np.abs(moved - place) <= np.minimum(unit, _COARSEST)).all():
        return moved, round(len(rotations) / np.count_nonzero(near))
    same = np.abs(steps).max(axis=1) < _SAME
    return place, round(len(rotations) / np.count_nonzero(same))


def decimals(text: str) -> int:
    """
    Count the decimals of a number of a CIF, without its uncertainty.

    Examples
    --------
    >>> decimals("0.6667(2)"), decimals("1"), decimals("2.5e-2")
    (4, 0, 3)
    """
    match = re.match(r"[+-]?\d*\.?(\d*)(?:[eE]([+-]?\d{1,3}))?", text)
    return 0 if match is None else max(0, len(match[1]) - int(match[2] or 0))
