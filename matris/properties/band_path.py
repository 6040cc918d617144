"""Labelled paths through the Brillouin zone, for the primitive cell as it stands."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from phonopy.phonon.band_structure import get_band_qpoints_and_path_connections
from seekpath import SupercellWarning, get_path
from seekpath.hpkot import EdgeCaseWarning

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from phonopy.structure.atoms import PhonopyAtoms

_POINTS = 51  # on each segment
_SKEW = 0.05  # largest distance of the cell's vectors from lattice vectors of the standard cell, in its own vectors
_GREEK = {"GAMMA": r"\Gamma", "DELTA": r"\Delta", "LAMBDA": r"\Lambda", "SIGMA": r"\Sigma"}


@dataclass(frozen=True, eq=False)
class BandPath:
    """
    A path along lines of high symmetry.

    Attributes
    ----------
    qpoints
        Wave vectors of each segment, shape (51, 3), in reciprocal vectors of the cell.
    labels
        Names of the ends of the segments, as TeX; a point where two segments join has one name.
    connections
        For each segment, whether the next segment starts at its end.
    points
        Coordinates of the named points, shape (3,), in reciprocal vectors of the cell.
    segments
        Names of start and end of each segment, keys of `points`.
    lattice
        Extended Bravais symbol of the crystal, such as ``"mC2"``.
    """

    qpoints: list[NDArray[np.float64]]
    labels: list[str]
    connections: list[bool]
    points: dict[str, NDArray[np.float64]]
    segments: list[tuple[str, str]]
    lattice: str


def band_path(cell: PhonopyAtoms, symprec: float) -> BandPath:
    r"""
    Path of Y. Hinuma et al., Comp. Mat. Sci. 128, 140 (2017), by seekpath.

    seekpath gives coordinates in the reciprocal vectors of its own standard primitive cell. Phonopy's primitive cell is
    another one in most C- and A-centred and triclinic lattices, and has the orientation of the input. The coordinates
    are therefore transformed by the integer matrix that connects the two cells.

    Parameters
    ----------
    cell
        A primitive cell of any shape, orientation and handedness.
    symprec
        Tolerance for symmetry, Å: that of the displacements, so that path and force constants have one symmetry.

    Returns
    -------
    BandPath

    Raises
    ------
    ValueError
        If no lattice of the standard cell fits the cell.

    Examples
    --------
    >>> from phonopy.structure.atoms import PhonopyAtoms
    >>> silicon = PhonopyAtoms(
    ...     symbols=["Si", "Si"],
    ...     cell=[[0, 2.7, 2.7], [2.7, 0, 2.7], [2.7, 2.7, 0]],
    ...     scaled_positions=[[0, 0, 0], [0.25, 0.25, 0.25]],
    ... )
    >>> path = band_path(silicon, 1e-3)
    >>> path.lattice, path.points["X"].tolist(), path.labels[:3]
    ('cF2', [0.5, 0.0, 0.5], ['$\\Gamma$', '$\\mathrm{X}$', '$\\mathrm{U}$'])
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EdgeCaseWarning)  # a ≈ b: both paths are legal
        warnings.simplefilter("ignore", SupercellWarning)
        standard = get_path(cell.totuple(), symprec=symprec)
    # rows: vectors of the cell in those of seekpath's primitive cell, turned back to the orientation of the cell
    vectors = np.asarray(standard["primitive_lattice"]) @ np.asarray(standard["rotation_matrix"])
    exact = np.asarray(cell.cell) @ np.linalg.inv(vectors)
    matrix = exact.round()
    if np.abs(exact - matrix).max() > _SKEW or not matrix.any():
        raise ValueError(f"the standard cell of seekpath does not fit the primitive cell: {exact.tolist()}")
    points = {name: matrix @ np.asarray(q, dtype=float) for name, q in standard["point_coords"].items()}
    segments = [(str(start), str(end)) for start, end in standard["path"]]
    chains = [[segments[0][0]]]
    for start, end in segments:
        if start != chains[-1][-1]:
            chains.append([start])
        chains[-1].append(end)
    qpoints, connections = get_band_qpoints_and_path_connections(
        [[points[name] for name in chain] for chain in chains], npoints=_POINTS
    )
    return BandPath(
        qpoints=[np.asarray(q) for q in qpoints],
        labels=[_label(name) for chain in chains for name in chain],
        connections=list(connections),
        points=points,
        segments=segments,
        lattice=standard["bravais_lattice_extended"],
    )


def _label(name: str) -> str:
    r"""TeX of the name of a point: ``GAMMA`` and ``X_1`` become ``$\Gamma$`` and ``$\mathrm{X_1}$``."""
    for word, letter in _GREEK.items():
        if word in name:
            return f"${name.replace(word, letter)}$"
    return rf"$\mathrm{{{name}}}$"
