"""Frames of a trajectory, and its radial distribution functions."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import TYPE_CHECKING, Any

import numpy as np
from pymatgen.optimization.neighbors import find_points_in_spheres

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

MAX_FRAMES = 200
"""Largest number of frames that are read; of more, evenly spaced ones are."""

REACH = 8.0
"""Largest distance of a radial distribution function, Å."""

_BIN = 0.05  # Å


@dataclass(frozen=True, eq=False)
class Snapshot:
    """
    Positions of one frame.

    Attributes
    ----------
    time
        Time, fs.
    positions
        Cartesian positions, shape (n, 3), Å; not wrapped into the cell.
    lattice
        Lattice vectors in rows, shape (3, 3), Å.
    """

    time: float
    positions: NDArray[np.float64]
    lattice: NDArray[np.float64]


def kept_frames(n_frames: int) -> range:
    """
    Select the frames from which correlations are computed: those of the second half of a run, at most `MAX_FRAMES`.

    Parameters
    ----------
    n_frames
        Number of frames of the run.

    Examples
    --------
    >>> kept_frames(7), len(kept_frames(10_001))
    (range(3, 7), 193)
    """
    half = n_frames // 2
    return range(half, n_frames, -(-(n_frames - half) // MAX_FRAMES))


def radial_distribution(symbols: Sequence[str], frames: Sequence[Snapshot]) -> dict[str, Any]:
    """
    Compute the radial distribution function of each pair of elements, averaged over frames.

    g(r) is the density of the atoms of one element at the distance r from an atom of the other, relative to their mean
    density: it tends to 1 where there is no order. Periodic images count as atoms, so that cells of any size have all
    distances; in a cell narrower than 2r they repeat what is nearer. D. Frenkel and B. Smit, Understanding Molecular
    Simulation (Academic Press 2002), section 4.4.

    Parameters
    ----------
    symbols
        Element of each atom.
    frames
        At least one frame.

    Returns
    -------
    dict
        ``distances`` (Å; middles of the bins) and, by names such as ``"Mg-O"``, the ``pairs``.

    Examples
    --------
    The six neighbours of an atom in a simple cubic crystal, a bin of 0.05 Å at 3 Å:

    >>> crystal = Snapshot(0.0, np.zeros((1, 3)), 3.02 * np.eye(3))
    >>> found = radial_distribution(["Po"], [crystal])
    >>> g = dict(zip(found["distances"], found["pairs"]["Po-Po"]))
    >>> density = 1 / 3.02**3
    >>> round(g[3.025] * density * 4 * np.pi / 3 * (3.05**3 - 3.0**3), 3)  # number of neighbours
    6.0
    """
    kinds, index = np.unique(np.asarray(symbols), return_inverse=True)
    n_bins = round(REACH / _BIN)
    edges = _BIN * np.arange(n_bins + 1)
    counts = np.zeros((len(kinds), len(kinds), n_bins))
    for frame in frames:
        lattice = np.ascontiguousarray(frame.lattice, dtype=float)
        places = np.ascontiguousarray(frame.positions, dtype=float)
        here, there, _, distances = find_points_in_spheres(
            all_coords=places, center_coords=places, r=REACH, pbc=np.ones(3, dtype=np.int64), lattice=lattice, tol=1e-8
        )
        other = distances > 1e-8  # noqa: PLR2004 - not the atom itself
        bins = np.minimum((distances[other] / _BIN).astype(int), n_bins - 1)
        volume = abs(np.linalg.det(lattice))
        np.add.at(counts, (index[here[other]], index[there[other]], bins), volume / len(frames))
    shells = 4 / 3 * np.pi * np.diff(edges**3)
    numbers = np.bincount(index)
    pairs = {
        f"{kinds[i]}-{kinds[j]}": (counts[i, j] / (numbers[i] * numbers[j] * shells)).round(5).tolist()
        for i, j in combinations_with_replacement(range(len(kinds)), 2)
    }
    return {"distances": (edges[:-1] + _BIN / 2).round(5).tolist(), "pairs": pairs}
