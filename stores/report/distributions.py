"""Section of the distributions: histograms as pictures without a library."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from matris.stores.report.parts import number, plural

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from matris.stores.report.histogram import Bars, Histogram

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 340, 170, 38, 30, 8
_TICKS = 5


@dataclass(frozen=True)
class _Quantity:
    """How a quantity is shown: its title, and the factor to the unit in it."""

    title: str
    factor: float = 1.0


_QUANTITIES = {
    "energy_above_hull": _Quantity("Distance to the hull (meV/atom)", 1e3),
    "formation_energy_per_atom": _Quantity("Formation energy (eV/atom)"),
    "volume_change": _Quantity("Change of volume on relaxing (%)", 1e2),
    "n_steps": _Quantity("Steps"),
    "seconds": _Quantity("Seconds per candidate"),
}


def distributions(histograms: Mapping[str, Histogram], window: float | None) -> str:
    """
    Draw histograms of candidates.

    Parameters
    ----------
    histograms
        By name of the quantity; those without values are left out.
    window
        Distance above the hull (eV/atom) up to which bars are drawn as hits.
    """
    pictures = []
    for name, quantity in _QUANTITIES.items():
        histogram = histograms[name]
        if histogram.n:
            reach = window if name == "energy_above_hull" else None
            pictures.append(_picture(quantity, histogram.bars(), histogram.n, reach))
    if not pictures:
        return ""
    return (
        f'<section id="distributions"><h2>Distributions</h2><div class="pictures">{"".join(pictures)}</div></section>'
    )


def _picture(quantity: _Quantity, bars: Bars, n: int, reach: float | None) -> str:
    """One histogram."""
    factor = quantity.factor
    start, stop = factor * bars.start, factor * (bars.start + bars.width * len(bars.counts))
    most = max(bars.counts)

    def x(value: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - 8) * (value - start) / (stop - start)

    def y(count: float) -> float:
        return _HEIGHT - _BOTTOM - (_HEIGHT - _BOTTOM - _TOP) * count / most

    marks = [*_grid(most, y), *_axis(start, stop, x), *_rectangles(bars, factor, x, y, reach)]
    left_out = [f"{number(bars.below)} lower"] * bool(bars.below) + [f"{number(bars.above)} higher"] * bool(bars.above)
    note = f"{plural(n, 'candidate')}" + (f"; not shown: {', '.join(left_out)}" if left_out else "")
    title = escape(quantity.title)
    return (
        f'<figure><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="Histogram: {title}">{"".join(marks)}'
        f'</svg><figcaption>{title}<span class="note">{note}</span></figcaption></figure>'
    )


def _rectangles(
    bars: Bars, factor: float, x: Callable[[float], float], y: Callable[[float], float], reach: float | None
) -> Iterator[str]:
    for place, count in enumerate(bars.counts):
        if not count:
            continue
        low, high = (bars.start + bars.width * edge for edge in (place, place + 1))
        hit = reach is not None and high <= reach + 1e-9
        width = max(x(factor * high) - x(factor * low) - 0.6, 0.6)
        height = max(y(0) - y(count), 0.8)
        yield (
            f'<rect class="{"hit" if hit else "bar"}" x="{x(factor * low):.1f}" y="{y(0) - height:.1f}" '
            f'width="{width:.1f}" height="{height:.1f}"><title>{factor * low:.4g} to {factor * high:.4g}: '
            f"{number(count)}</title></rect>"
        )


def _grid(most: int, y: Callable[[float], float]) -> Iterator[str]:
    """Horizontal lines at round counts."""
    for count in _round_values(0, most, 3):
        if count == int(count):
            yield f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - 8}" y1="{y(count):.1f}" y2="{y(count):.1f}"/>'
            yield f'<text x="{_LEFT - 5}" y="{y(count) + 4:.1f}" text-anchor="end">{number(int(count))}</text>'


def _axis(start: float, stop: float, x: Callable[[float], float]) -> Iterator[str]:
    """Round values along the axis."""
    base = _HEIGHT - _BOTTOM
    for value in _round_values(start, stop, _TICKS):
        shown = f"{value:.6g}".replace("-", "−")
        yield f'<line class="tick" x1="{x(value):.1f}" x2="{x(value):.1f}" y1="{base}" y2="{base + 4}"/>'
        yield f'<text x="{x(value):.1f}" y="{base + 17}" text-anchor="middle">{shown}</text>'


def _round_values(low: float, high: float, about: int) -> list[float]:
    """Round values between two, about so many."""
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * digit for digit in (1, 2, 5, 10) if power * digit >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(step * place, 12) for place in range(first, last + 1)]
