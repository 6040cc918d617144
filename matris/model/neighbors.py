"""
Pairs of near atoms in many structures at once, on the device of the structures.

Each structure is divided into bins, and only atoms in bins that are few steps apart are compared. A cell that is
narrower than a bin is one bin, with steps into its periodic images. The steps are operations of torch on whole arrays,
in an order that depends on the input alone: equal structures give equal lists, bit for bit. Arrays have the size that
the structures need, however dense these are.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from matris.errors import StructureError

_MARGIN = 1 + 1e-6
"""Factor of the cutoff where bins are chosen: far above the rounding of positions, far below any bond."""
_BINS_PER_CUTOFF = 2
"""Narrower bins fit a sphere better, and there are more of them to look into."""
_BINS = 2.0
"""Bins along a direction are at most this factor times the cube root of the number of atoms: others would be empty."""


class Pairs(NamedTuple):
    """
    Pairs of atoms, each listed once, among which are all those within a cutoff.

    Attributes
    ----------
    centers, neighbors
        Atom indices in the batch, shape (P,); the centre is the atom of lower index.
    vectors
        Centre minus periodic image of the neighbour (Å), float64, shape (P, 3).
    are_near
        Which pairs are within the cutoff, inclusive, shape (P,).
    """

    centers: torch.Tensor
    neighbors: torch.Tensor
    vectors: torch.Tensor
    are_near: torch.Tensor


def reciprocal(cells: torch.Tensor) -> torch.Tensor:
    """
    Compute reciprocal lattice vectors as rows, without 2π (1/Å), shape (S, 3, 3), from lattice vectors as rows.

    `torch.linalg.inv` asks the device whether a matrix is singular, and waits for the answer. Here the result then is
    infinite or NaN.

    Examples
    --------
    >>> cells = torch.tensor([[[2.0, 0, 0], [1, 4, 0], [0, 0, 5]]])
    >>> reciprocal(cells)[0] @ cells[0].T
    tensor([[1., 0., 0.],
            [0., 1., 0.],
            [0., 0., 1.]])
    """
    a, b, c = cells.unbind(1)
    normal = torch.stack([torch.linalg.cross(b, c), torch.linalg.cross(c, a), torch.linalg.cross(a, b)], 1)
    return normal / volumes(cells)[:, None, None]


def volumes(cells: torch.Tensor) -> torch.Tensor:
    """
    Compute the volumes of cells (Å³), shape (S,), negative for left-handed ones.

    Examples
    --------
    >>> volumes(torch.diag(torch.tensor([1.0, 2.0, -3.0]))[None])
    tensor([-6.])
    """
    a, b, c = cells.unbind(1)
    return (torch.linalg.cross(a, b) * c).sum(1)


def near_pairs(
    positions: torch.Tensor, cells: torch.Tensor, pbc: torch.Tensor, n_atoms: torch.Tensor, cutoff: float
) -> Pairs:
    """
    List the pairs of atoms within a cutoff, and some that are not.

    The device waits twice for the host, which must know how many pairs there are.

    Parameters
    ----------
    positions
        Cartesian coordinates (Å), float64, shape (N, 3), in the cell or outside.
    cells
        Lattice vectors as rows (Å), float64, shape (S, 3, 3).
    pbc
        Periodicity along each lattice vector, shape (S, 3).
    n_atoms
        Atoms in each structure, shape (S,).
    cutoff
        Largest distance (Å), inclusive.

    Returns
    -------
    Pairs

    Raises
    ------
    StructureError
        If a cell has no volume, or a number is not finite.

    Examples
    --------
    >>> cells = 3.0 * torch.eye(3, dtype=torch.float64)[None]
    >>> pairs = near_pairs(cells.new_zeros(1, 3), cells, torch.ones(1, 3, dtype=torch.bool), torch.tensor([1]), 3.5)
    >>> pairs.vectors[pairs.are_near].norm(dim=1)  # half of the six neighbours
    tensor([3., 3., 3.], dtype=torch.float64)
    """
    device, count = positions.device, len(positions)
    atoms, reach = torch.arange(count, device=device), cutoff * _MARGIN
    system = torch.repeat_interleave(torch.arange(len(cells), device=device), n_atoms, output_size=count)
    to_reduced = reciprocal(cells)
    heights = 1 / torch.linalg.vector_norm(to_reduced, dim=2)
    reduced = (positions[:, None] * to_reduced[system]).sum(2)
    whole = torch.where(pbc[system], reduced.floor(), 0.0)
    reduced = reduced - whole
    low, high = _ranges(reduced, system, len(cells))
    low, width = torch.where(pbc, 0.0, low), torch.where(pbc, 1.0, high - low)
    # bins along each direction, and how many of them the cutoff spans
    most = (_BINS * n_atoms.double() ** (1 / 3)).ceil().clamp(min=1)[:, None]
    n_bins = (_BINS_PER_CUTOFF * width * heights / reach).floor().clamp(min=1).minimum(most)
    spans = torch.where(pbc | (n_bins > 1), (reach * n_bins / (width * heights)).ceil(), 0.0)
    n_steps = ((2 * spans + 1).prod(1) + 1) / 2  # of each step and its reverse, one; and none
    needed = float((n_steps * n_atoms).sum())  # waits
    if not needed < torch.inf:
        wrong = (~torch.isfinite(n_steps)).nonzero().flatten().tolist()
        raise StructureError(f"system {wrong[0]} of {len(cells)}: its cell has no volume, or a number is not finite")
    n_bins, spans, n_steps = n_bins.long(), spans.long(), n_steps.long()

    # atoms, sorted by bin; bins of a structure follow one another
    place = ((reduced - low[system]) / width.clamp(min=torch.finfo(width.dtype).tiny)[system] * n_bins[system]).long()
    place = place.clamp(min=torch.zeros_like(place), max=n_bins[system] - 1)
    ends = torch.cumsum(n_bins.prod(1), 0)
    first_bin = ends - n_bins.prod(1)
    ordered, order = torch.sort(_flat(place, n_bins[system]) + first_bin[system], stable=True)

    # every step from every atom
    steps, total = n_steps[system], int(needed)
    center = torch.repeat_interleave(atoms, steps, output_size=total)
    number = torch.arange(total, device=device) - (torch.cumsum(steps, 0) - steps)[center]
    of = system[center]
    step = _unflat(number + n_steps[of] - 1, 2 * spans[of] + 1) - spans[of]
    target = place[center] + step
    image = torch.where(pbc[of], target.div(n_bins[of], rounding_mode="floor"), 0)
    target = target - image * n_bins[of]
    is_there = ((target >= 0) & (target < n_bins[of])).all(1)
    bins = _flat(target, n_bins[of]) + first_bin[of]
    begin = torch.searchsorted(ordered, bins)
    found = torch.where(is_there, torch.searchsorted(ordered, bins, right=True) - begin, 0)

    # every atom in the bin to which a step leads
    total = int(found.sum())  # waits
    row = torch.repeat_interleave(torch.arange(len(found), device=device), found, output_size=total)
    i = center[row]
    j = order[begin[row] + torch.arange(total, device=device) - (torch.cumsum(found, 0) - found)[row]]
    images = image[row] + whole[i] - whole[j]
    a, b, c = (images[:, k, None] * cells[system[i], k] for k in range(3))
    vectors = positions[i] - positions[j] - (a + b + c)
    are_near = (torch.linalg.vector_norm(vectors, dim=1) <= cutoff) & ((number[row] > 0) | (i < j))
    is_reverse = i > j
    vectors = torch.where(is_reverse[:, None], -vectors, vectors)
    return Pairs(torch.minimum(i, j), torch.maximum(i, j), vectors, are_near)


def _ranges(x: torch.Tensor, system: torch.Tensor, n_systems: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Find the smallest and largest values of rows, (N, 3), in each system, (S, 3); 0 in one without rows."""
    index, zeros = system[:, None].expand_as(x), x.new_zeros(n_systems, 3)
    low = zeros.scatter_reduce(0, index, x, "amin", include_self=False)
    return low, zeros.scatter_reduce(0, index, x, "amax", include_self=False)


def _flat(places: torch.Tensor, sizes: torch.Tensor) -> torch.Tensor:
    """Give numbers to places, (n, 3), in grids of the given sizes, (n, 3), row by row."""
    return (places[:, 0] * sizes[:, 1] + places[:, 1]) * sizes[:, 2] + places[:, 2]


def _unflat(numbers: torch.Tensor, sizes: torch.Tensor) -> torch.Tensor:
    """Find the places, (n, 3), that have these numbers."""
    _, b, c = sizes.unbind(1)
    return torch.stack([numbers // (b * c), numbers // c % b, numbers % c], 1)
