"""An evenly spaced sample of a stream of values, in bounded memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Thinned:
    """
    Every n-th of the rows that are added; n doubles when there are too many.

    Parameters
    ----------
    limit
        Least number of rows that are kept if as many were added; fewer than twice as many are kept.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: list[NDArray[Any]] = []
        self._n_kept, self._stride, self._skipped = 0, 1, 0

    def add(self, rows: NDArray[Any]) -> None:
        """Add rows, shape (n, …)."""
        chosen = rows[-self._skipped % self._stride :: self._stride]
        self._skipped = (self._skipped + len(rows)) % self._stride
        self._kept.append(chosen)
        self._n_kept += len(chosen)
        while self._n_kept >= 2 * self._limit:
            self._kept = [np.concatenate(self._kept)[::2]]
            self._n_kept, self._stride, self._skipped = len(self._kept[0]), 2 * self._stride, 0

    def rows(self) -> NDArray[Any]:
        """Return the rows that were kept; at least one must have been added."""
        return np.concatenate(self._kept)
