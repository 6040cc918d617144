"""Known crystals with random strains and displacements."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from pymatgen.core.structure import Structure

from matris.errors import MatrisError
from matris.flows.sources.parents import derived, from_each

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from matris.stores.documents.candidate import Candidate

RATTLE_SOURCE = "rattle"

_TOO_STRAINED = 1 / 3  # below it the strained axes of any cell stay independent: 1 - ε > 2 ε


def rattle(
    parents: Iterable[Candidate], *, n: int = 1, amplitude: float = 0.05, strain: float = 0.02, seed: int = 0
) -> Iterator[Candidate]:
    """
    Strain the cell and displace the atoms at random.

    The same parent, number and seed give the same crystal, whatever the other parents are.

    Parameters
    ----------
    parents
        Candidates, read one by one.
    n
        Crystals to make from each parent.
    amplitude
        Displacements are uniform in a ball of this radius (Å); their mean is subtracted. Fixed atoms are not displaced.
    strain
        Each of the six components of the symmetric strain is uniform between minus and plus this value.
    seed
        Seed of the random numbers.

    Yields
    ------
    Candidate
        With a source that names parent and number, and provenance ``generator`` (``"rattle"``), ``parent``, ``number``
        (0 to n-1), ``amplitude``, ``strain`` and ``seed``. Every crystal comes once.

    Raises
    ------
    MatrisError
        If a number is negative or not finite, the strain is 1/3 or more, or both strain and amplitude are 0.

    Examples
    --------
    >>> from pymatgen.core import Lattice, Structure
    >>> from matris.stores.documents.candidate import Candidate
    >>> iron = Structure(Lattice.cubic(2.87), ["Fe", "Fe"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    >>> parent = Candidate.from_structure(iron, "example")
    >>> [candidate.provenance["number"] for candidate in rattle([parent], n=2, strain=0.01)]
    [0, 1]
    """
    if n < 1 or seed < 0:
        raise MatrisError(f"rattle needs n of at least 1 and a seed of at least 0, got n={n} and seed={seed}")
    if not (0 <= amplitude < np.inf and 0 <= strain < _TOO_STRAINED and amplitude + strain > 0):
        raise MatrisError(
            f"rattle needs a finite amplitude (Å) and a strain below 1/3, not both 0; "
            f"got amplitude={amplitude} and strain={strain}"
        )

    def make(parent: Candidate, structure: Structure) -> Iterator[Candidate]:
        free = structure.site_properties.get("selective_dynamics")
        for number in range(n):
            random = np.random.default_rng([seed, number, int(parent.candidate_id, 16)])
            deformation = np.eye(3) + _symmetric(random.uniform(-strain, strain, 6))
            matrix = structure.lattice.matrix @ deformation
            moves = _in_ball(random, len(structure)) * amplitude
            moves -= moves.mean(axis=0)
            if free is None:
                coords = structure.frac_coords @ matrix + moves
            else:  # fixed atoms follow the strain only
                coords = (structure.frac_coords + moves @ np.linalg.inv(matrix) * free) @ matrix
            changed = Structure(matrix, structure.species, coords, coords_are_cartesian=True)
            settings = {"number": number, "amplitude": amplitude, "strain": strain, "seed": seed}
            yield derived(parent, changed, RATTLE_SOURCE, f"rattled {number + 1}", **settings)

    return from_each(parents, RATTLE_SOURCE, make)


def _symmetric(components: NDArray[np.float64]) -> NDArray[np.float64]:
    """Strain matrix from xx, yy, zz, yz, xz, xy."""
    xx, yy, zz, yz, xz, xy = components
    return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])


def _in_ball(random: np.random.Generator, n: int) -> NDArray[np.float64]:
    """Draw points in the unit ball, shape (n, 3)."""
    directions = random.normal(size=(n, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    points: NDArray[np.float64] = directions * random.uniform(size=(n, 1)) ** (1 / 3)
    return points
