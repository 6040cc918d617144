"""Histograms of values that come one by one, without keeping them."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from itertools import accumulate

_MOST = 4000
"""Bins that are kept; when there are more, neighbors are joined."""

_TAIL = 0.005
"""Share of the values at either end that a picture may leave out."""


@dataclass(frozen=True)
class Bars:
    """
    What a picture shows.

    Attributes
    ----------
    start, width
        Lower edge of the first bar, and width of all.
    counts
        Values in each.
    below, above
        Values left out at either end.
    """

    start: float
    width: float
    counts: tuple[int, ...]
    below: int
    above: int


class Histogram:
    """
    Counts by bins.

    Parameters
    ----------
    width
        Of the bins; doubled when there are too many of them.
    """

    def __init__(self, width: float) -> None:
        self.width = width
        self.n = 0
        self._counts: Counter[int] = Counter()

    def add(self, value: float | None) -> None:
        """Count a value; None and what is not finite are passed over."""
        if value is None or not math.isfinite(value):
            return
        self.n += 1
        self._counts[math.floor(value / self.width + 1e-9)] += 1
        while len(self._counts) > _MOST:
            self.width *= 2
            joined: Counter[int] = Counter()
            for index, count in self._counts.items():
                joined[index // 2] += count
            self._counts = joined

    def bars(self, most: int = 50) -> Bars:
        """
        Join bins to bars that can be seen.

        Parameters
        ----------
        most
            Bars.

        Returns
        -------
        Bars
            From end to end, but for thin tails if those are longer than all the rest. None if there are no values.
        """
        if not self.n:
            return Bars(0.0, self.width, (), 0, 0)
        indices = sorted(self._counts)
        upto = list(accumulate(self._counts[index] for index in indices))
        first, last = indices[0], indices[-1]
        near_first = next(i for i, n in zip(indices, upto, strict=True) if n > _TAIL * self.n)
        near_last = next(i for i, n in zip(indices, upto, strict=True) if n >= (1 - _TAIL) * self.n)
        if 2 * (near_last - near_first + 1) < last - first + 1:
            first, last = near_first, near_last
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
