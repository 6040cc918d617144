"""Histograms of a stream of values, in bounded memory."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from itertools import accumulate

_MOST = 4000
"""Largest number of bins; if there are more, neighbouring bins are merged."""

_TAIL = 0.005
"""Share of the values that a picture may leave out at either end."""


@dataclass(frozen=True)
class Bars:
    """
    Bars of a histogram.

    Attributes
    ----------
    start, width
        Lower edge of the first bar; width of a bar.
    counts
        Number of values in each bar.
    below, above
        Number of values below the first and above the last bar.
    """

    start: float
    width: float
    counts: tuple[int, ...]
    below: int
    above: int


class Histogram:
    """
    Number of values by bin.

    Parameters
    ----------
    width
        Width of the bins. It doubles when there are too many bins.
    """

    def __init__(self, width: float) -> None:
        self.width = width
        self.n = 0
        self._counts: Counter[int] = Counter()

    def add(self, value: float | None) -> None:
        """Count a value; None, NaN and infinite values are ignored."""
        if value is None or not math.isfinite(value):
            return
        self.n += 1
        self._counts[math.floor(value / self.width + 1e-9)] += 1
        while len(self._counts) > _MOST:
            self.width *= 2
            merged: Counter[int] = Counter()
            for index, count in self._counts.items():
                merged[index // 2] += count
            self._counts = merged

    def bars(self, most: int = 50) -> Bars:
        """
        Merge bins into visible bars.

        Parameters
        ----------
        most
            Largest number of bars.

        Returns
        -------
        Bars
            Bars of the whole range. Sparse tails are left out if they are longer than the rest. There are no bars if
            there are no values.
        """
        if not self.n:
            return Bars(0.0, self.width, (), 0, 0)
        indices = sorted(self._counts)
        cumulative = list(accumulate(self._counts[index] for index in indices))
        first, last = indices[0], indices[-1]
        low = next(i for i, n in zip(indices, cumulative, strict=True) if n > _TAIL * self.n)
        high = next(i for i, n in zip(indices, cumulative, strict=True) if n >= (1 - _TAIL) * self.n)
        if 2 * (high - low + 1) < last - first + 1:
            first, last = low, high
        factor = math.ceil((last - first + 1) / most)
        first = first // factor * factor
        counts = [0] * ((last - first) // factor + 1)
        below = above = 0
        for index in indices:
            if index < first:
                below += self._counts[index]
            elif index > last:
                above += self._counts[index]
            else:
                counts[(index - first) // factor] += self._counts[index]
        return Bars(first * self.width, factor * self.width, tuple(counts), below, above)
