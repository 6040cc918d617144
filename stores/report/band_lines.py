"""Lines and labels of phonon bands from the segments of a path."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from markupsafe import Markup, escape

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from pymatgen.phonon.bandstructure import PhononBandStructureSymmLine

    type Floats = NDArray[np.float64]

_JUMP = 1e-3  # THz; a line breaks where the frequencies of two segments differ by more at their common point
_GREEK = dict(
    zip(
        ("Gamma", "Delta", "Lambda", "Sigma", "Phi", "Psi", "Omega", "Pi", "Theta", "Xi"),
        "ΓΔΛΣΦΨΩΠΘΞ",
        strict=True,
    )
)


def joined(segments: Sequence[Floats], breaks: Sequence[bool]) -> Floats:
    """Join the segments of a path into one array, with NaN between segments at breaks."""
    gap = np.full((1, *segments[0].shape[1:]), np.nan)
    parts = [segments[0]]
    for segment, broken in zip(segments[1:], breaks, strict=True):
        parts += [gap, segment] if broken else [segment]
    return np.concatenate(parts)


def breaks_of(frequencies: Sequence[Floats], connections: Sequence[bool]) -> list[bool]:
    """
    Find the segments, except the last, after which a line breaks.

    A line breaks where the path jumps to another point, and where frequencies depend on the direction of approach to a
    point because of the non-analytic correction.
    """
    ends = zip(frequencies, frequencies[1:], connections, strict=False)
    return [not connected or not np.allclose(left[-1], right[0], atol=_JUMP) for left, right, connected in ends]


def split_at_zero(x: Floats, y: Floats) -> tuple[tuple[Floats, Floats], tuple[Floats, Floats] | None]:
    """
    Split a line into its parts above and below zero; both parts include the points where the line crosses zero.

    Returns
    -------
    above, below
        x and y of the parts, with NaN at the ends of pieces; `below` is None if the line is nowhere negative.
    """
    if not (y < 0).any():
        return (x, y), None
    crossing = np.flatnonzero(y[:-1] * y[1:] < 0)
    share = y[crossing] / (y[crossing] - y[crossing + 1])
    x = np.insert(x, crossing + 1, x[crossing] + share * (x[crossing + 1] - x[crossing]))
    y = np.insert(y, crossing + 1, 0.0)
    negative = y < 0
    beside = np.append(negative[1:], False) | np.append(False, negative[:-1])
    below = negative | (beside & (y == 0))
    kept = below | np.append(False, below[:-1])
    return (x, np.where(negative, np.nan, y)), (x[kept], np.where(below, y, np.nan)[kept])


class Segment(NamedTuple):
    """
    A segment of a path through the Brillouin zone.

    Attributes
    ----------
    start, end
        Names of its ends.
    distances
        Distances along the path, shape (q,).
    frequencies
        Shape (q, bands), THz.
    """

    start: str
    end: str
    distances: Floats
    frequencies: Floats


def segments_of(bands: PhononBandStructureSymmLine) -> list[Segment]:
    """Split pymatgen's band structure into the segments of its path."""
    distances, frequencies = np.asarray(bands.distance, dtype=float), np.asarray(bands.bands, dtype=float).T
    segments = []
    for branch in bands.branches:
        first, last = branch["start_index"], branch["end_index"]
        start, end = (str(bands.qpoints[index].label) for index in (first, last))
        part = slice(first, last + 1)
        segments.append(Segment(start, end, distances[part], frequencies[part]))
    return segments


def connections_of(segments: Sequence[Segment]) -> list[bool]:
    """For each segment, except the last, whether the next one starts at its end."""
    return [left.end == right.start for left, right in pairwise(segments)]


def ticks_of(segments: Sequence[Segment]) -> list[tuple[float, str]]:
    """Positions and labels of the points on a path; two labels where the path jumps."""
    ticks = [(float(segments[0].distances[0]), point_label(segments[0].start))]
    for segment, connected in zip(segments, [True, *connections_of(segments)], strict=True):
        if not connected:
            place, label = ticks[-1]
            ticks[-1] = place, f"{label}|{point_label(segment.start)}"
        ticks.append((float(segment.distances[-1]), point_label(segment.end)))
    return ticks


def point_label(label: str) -> str:
    r"""
    Write the name of a high-symmetry point for plotly, from LaTeX or from seekpath's names.

    Parameters
    ----------
    label
        Such as ``$\Gamma$``, ``$\mathrm{C_0}$``, ``GAMMA``, ``SIGMA_0``.

    Returns
    -------
    str
        Such as ``Γ`` or ``C<sub>0</sub>``.

    Examples
    --------
    >>> point_label("GAMMA"), point_label("SIGMA_0")
    ('Γ', 'Σ<sub>0</sub>')
    """
    plain = re.sub(r"\\mathrm|\\text|[${}\\]", "", label)
    name, _, index = plain.partition("_")
    name = _GREEK.get(name.capitalize(), name) if len(name) > 1 else name
    return str(Markup("{}<sub>{}</sub>").format(name, index) if index else escape(name))
