"""Volumes of atoms in crystals, for the first guess of a cell."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from ase.collections import dcdft
from ase.data import atomic_numbers

from matris.flows.sources.sizes import atomic_volume
from recipes.embedded.materials import ELEMENTS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

_PRIOR = 0.02  # weight of an element's own crystal, in crystals of which it fills a part of 0.02 per Å³
_LEAST = 4.0  # Å³


def own_volume(symbol: str) -> float:
    """
    Return the volume per atom of an element's own crystal (Å³).

    It is that of PBE in ASE's ``dcdft`` or that from the molar volume, whichever is smaller: PBE lacks the dispersion
    that holds the crystals of noble gases together.
    """
    known = [float(dcdft.data[symbol]["wien2k_volume"])] if symbol in dcdft.names else []
    if volume := atomic_volume(symbol):
        known.append(volume)
    return min(known)


def atomic_volumes(crystals: Iterable[tuple[NDArray[np.int64], float]]) -> dict[str, float]:
    """
    Fit the volume of each element in crystals.

    Parameters
    ----------
    crystals
        Atomic numbers and volume (Å³) of cells near zero pressure.

    Returns
    -------
    dict
        Å³ by symbol, of all `ELEMENTS`: the sums over cells agree with their volumes with the least squared relative
        error. Elements in few crystals stay near `own_volume`.

    Examples
    --------
    >>> import numpy as np
    >>> volumes = atomic_volumes([(np.array([3, 8]), 19.0)] * 50 + [(np.array([3, 3, 8]), 28.0)] * 50)
    >>> round(volumes["Li"], 1), round(volumes["O"], 1), round(volumes["He"], 1)
    (9.0, 10.0, 17.8)
    """
    column = {atomic_numbers[symbol]: i for i, symbol in enumerate(ELEMENTS)}
    rows, values = [], []
    for numbers, volume in crystals:
        row = np.zeros(len(ELEMENTS))
        np.add.at(row, [column[int(z)] for z in numbers], 1 / volume)
        rows.append(row)
        values.append(1.0)
    own = np.array([own_volume(symbol) for symbol in ELEMENTS])
    matrix = np.vstack([*rows, _PRIOR * np.eye(len(ELEMENTS))])
    fitted = np.linalg.lstsq(matrix, np.concatenate([values, _PRIOR * own]), rcond=None)[0]
    return dict(zip(ELEMENTS, np.maximum(fitted, _LEAST).tolist(), strict=True))
