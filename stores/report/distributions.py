"""Histograms as pictures: coordinates of the bars, ticks and grid lines that the template draws as SVG."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from matris.stores.report.formats import grouped, minus, plural

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matris.stores.report.histogram import Bars, Histogram

_TICKS = 5


class _Quantity(NamedTuple):
    """Title of a quantity with its unit, and the factor to that unit."""

    title: str
    factor: float = 1.0


_QUANTITIES = {
    "energy_above_hull": _Quantity("Distance to the hull (meV/atom)", 1e3),
    "formation_energy_per_atom": _Quantity("Formation energy (eV/atom)"),
    "volume_change": _Quantity("Volume change on relaxation (%)", 1e2),
    "n_steps": _Quantity("Relaxation steps"),
    "seconds": _Quantity("Time per candidate (s)"),
}


class BarRectangle(NamedTuple):
    """One bar in pixels above the base line; `label` has its range and count, `is_hit` tells if it is in the window."""

    x: float
    width: float
    height: float
    label: str
    is_hit: bool


@dataclass(frozen=True)
class HistogramPicture:
    """
    A histogram in pixels.

    Attributes
    ----------
    title, note
        Quantity with its unit; number of values.
    grid, ticks
        Heights of the horizontal lines and places of the ticks, each with its label.
    bars
        Bars from left to right, without empty ones.
    width, height, left, right, base, top
        Size of the picture; edges of the plot in it.
    """

    width: ClassVar[int] = 340
    height: ClassVar[int] = 170
    left: ClassVar[int] = 38
    right: ClassVar[int] = 332
    base: ClassVar[int] = 140
    top: ClassVar[int] = 8

    title: str
    note: str
    grid: Sequence[tuple[float, str]]
    ticks: Sequence[tuple[float, str]]
    bars: Sequence[BarRectangle]


def distributions(histograms: Mapping[str, Histogram], window: float | None) -> list[HistogramPicture]:
    """
    Lay out histograms of candidates.

    Parameters
    ----------
    histograms
        Histograms by quantity; a histogram without values is left out.
    window
        Distance above the hull (eV/atom) up to which bars count as hits.
    """
    pictures = []
    for name, quantity in _QUANTITIES.items():
        histogram = histograms[name]
        if histogram.n:
            limit = window if name == "energy_above_hull" else None
            pictures.append(_picture(quantity, histogram.bars(), histogram.n, limit))
    return pictures


def _picture(quantity: _Quantity, bars: Bars, n: int, limit: float | None) -> HistogramPicture:
    """Lay out one histogram."""
    factor, picture = quantity.factor, HistogramPicture
    start, stop = factor * bars.start, factor * (bars.start + bars.width * len(bars.counts))
    most = max(bars.counts)

    def x(value: float) -> float:
        return picture.left + (picture.right - picture.left) * (value - start) / (stop - start)

    def height(count: float) -> float:
        return (picture.base - picture.top) * count / most

    rectangles = []
    for index, count in enumerate(bars.counts):
        if count:
            low, high = (bars.start + bars.width * edge for edge in (index, index + 1))
            rectangles.append(
                BarRectangle(
                    x=x(factor * low),
                    width=max(x(factor * high) - x(factor * low) - 0.6, 0.6),
                    height=max(height(count), 0.8),
                    label=f"{factor * low:.4g} to {factor * high:.4g}: {grouped(count)}",
                    is_hit=limit is not None and high <= limit + 1e-9,
                )
            )
    counts = [count for count in _round_values(0, most, 3) if count == int(count)]
    beyond = {"lower": bars.below, "higher": bars.above}
    left_out = ", ".join(f"{grouped(count)} {side}" for side, count in beyond.items() if count)
    return HistogramPicture(
        title=quantity.title,
        note=plural(n, "candidate") + (f"; not shown: {left_out}" if left_out else ""),
        grid=[(picture.base - height(count), grouped(int(count))) for count in counts],
        ticks=[(x(value), minus(f"{value:.6g}")) for value in _round_values(start, stop, _TICKS)],
        bars=rectangles,
    )


def _round_values(low: float, high: float, about: int) -> list[float]:
    """Choose about this many round values between two limits."""
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * digit for digit in (1, 2, 5, 10) if power * digit >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(step * place, 12) for place in range(first, last + 1)]
