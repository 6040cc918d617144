"""How the work of a run is cut for several processes."""

from __future__ import annotations

from dataclasses import dataclass, replace

_OF_A_PROPERTY = 10  # relaxations that take as long as a property of one candidate, in order of magnitude


@dataclass(frozen=True)
class Sharing:
    """
    How chunks are cut so that each of several processes of a run gets some, whatever the number of candidates.

    The first chunks are small, and later ones grow with the number of candidates read. The queue hands out the largest
    first, so that the small ones fill the gaps at the end.

    Parameters
    ----------
    n_processes
        Number of processes.
    smallest
        Number of candidates in the first chunks.

    Examples
    --------
    >>> sharing = Sharing(n_processes=2, smallest=4)
    >>> [sharing.limit(500, n) for n in (0, 16, 100, 10000)]
    [4, 4, 25, 500]
    """

    n_processes: int = 1
    smallest: int = 1

    def limit(self, size: int, n_before: int) -> int:
        """
        Return the maximum number of candidates in the next chunk.

        Parameters
        ----------
        size
            Maximum number in any chunk.
        n_before
            Number of candidates in all chunks before.
        """
        if self.n_processes == 1:
            return size
        return min(size, max(self.smallest, n_before // (2 * self.n_processes)))

    def of_properties(self) -> Sharing:
        """Cut property jobs, in which each candidate takes longer."""
        return replace(self, smallest=max(1, self.smallest // _OF_A_PROPERTY))


ALONE = Sharing()
"""One process: chunks are as large as they may be."""
