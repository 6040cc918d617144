"""From crystals to the two graphs of MatRIS: atoms joined by bonds, bonds joined by angles.

One packed layout serves a single structure and a batch. A *bond* is stored once, as the directed edge from
its centre to its neighbour; the reverse edge is implied. Where directed edges are listed, the first half are
the stored directions and the second half their reverses, so that averaging both copies is a mean over two rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from pymatgen.optimization.neighbors import find_points_in_spheres

from matris.errors import StructureError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ase import Atoms
    from numpy.typing import NDArray
    from pymatgen.core import Structure


@dataclass(frozen=True)
class Geometry:
    """
    Atoms of one structure as arrays.

    Parameters
    ----------
    numbers
        Atomic numbers, shape (n,).
    positions
        Cartesian coordinates (Å), shape (n, 3).
    cell
        Lattice vectors as rows (Å), shape (3, 3); never singular, also along directions without periodicity.
    pbc
        Periodicity along each lattice vector, shape (3,).
    """

    numbers: NDArray[np.int64]
    positions: NDArray[np.float64]
    cell: NDArray[np.float64]
    pbc: NDArray[np.bool_]

    @classmethod
    def of(cls, obj: Structure | Atoms) -> Geometry:
        """
        Read a pymatgen ``Structure`` or an ASE ``Atoms`` (of any periodicity).

        Raises
        ------
        StructureError
            If it is neither, or a pymatgen site is disordered.
        """
        if hasattr(obj, "get_atomic_numbers"):
            cell = np.asarray(obj.cell.complete(), dtype=float)
            return cls(obj.numbers.astype(np.int64), np.asarray(obj.positions, dtype=float), cell, np.asarray(obj.pbc))
        if not hasattr(obj, "lattice"):
            raise StructureError(f"expected a pymatgen Structure or ASE Atoms, got {type(obj).__name__}")
        if not obj.is_ordered:
            raise StructureError(f"{obj.composition.reduced_formula} has disordered sites: order it first")
        return cls(
            np.array([site.specie.Z for site in obj], dtype=np.int64),
            np.asarray(obj.cart_coords, dtype=float).reshape(-1, 3),
            np.asarray(obj.lattice.matrix, dtype=float),
            np.asarray(obj.lattice.pbc, dtype=bool),
        )

    @property
    def volume(self) -> float:
        """Cell volume (Å³)."""
        return abs(float(np.linalg.det(self.cell)))


@dataclass(frozen=True)
class Graph:
    """
    A batch of structures as one atom graph and one line graph.

    With N atoms, S structures, B bonds and A angles. Angles are sorted by their target bond.

    Parameters
    ----------
    numbers
        Atomic numbers, shape (N,).
    system
        Structure that each atom belongs to, shape (N,).
    n_atoms
        Atoms in each structure, shape (S,).
    volumes
        Cell volumes (Å³), shape (S,).
    centers, neighbors
        Atoms at both ends of each bond, shape (B,).
    vectors
        Centre minus neighbour, with the neighbour's periodic image (Å), shape (B, 3).
    angle_target, angle_source
        The two bonds of each angle, shape (A,).
    angle_center
        The atom they share, shape (A,).
    angle_sign
        −1 where exactly one of the two bonds is stored away from its centre, else 1; shape (A,).
    """

    numbers: torch.Tensor
    system: torch.Tensor
    n_atoms: torch.Tensor
    volumes: torch.Tensor
    centers: torch.Tensor
    neighbors: torch.Tensor
    vectors: torch.Tensor
    angle_target: torch.Tensor
    angle_source: torch.Tensor
    angle_center: torch.Tensor
    angle_sign: torch.Tensor

    @property
    def n_systems(self) -> int:
        """Number of structures."""
        return len(self.n_atoms)

    @property
    def n_bonds(self) -> int:
        """Number of bonds; the atom graph has twice as many directed edges."""
        return len(self.centers)

    @property
    def n_angles(self) -> int:
        """Number of ordered bond pairs."""
        return len(self.angle_target)


def find_bonds(geometry: Geometry, cutoff: float) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """
    List each bond of a structure once.

    Parameters
    ----------
    geometry
        The structure.
    cutoff
        Longest bond (Å), inclusive, decided in float64.

    Returns
    -------
    centers, neighbors
        Atom indices, shape (b,).
    vectors
        Centre minus neighbour image (Å), shape (b, 3).
    """
    i, j, images, distances = find_points_in_spheres(
        all_coords=np.ascontiguousarray(geometry.positions),
        center_coords=np.ascontiguousarray(geometry.positions),
        r=float(cutoff),
        pbc=np.ascontiguousarray(geometry.pbc, dtype=np.int64),
        lattice=np.ascontiguousarray(geometry.cell),
        tol=1e-8,
    )
    # Of an edge and its reverse (j→i, −image) keep the one from the lower atom, or with the positive image.
    a, b, c = images.T
    positive = (a > 0) | ((a == 0) & ((b > 0) | ((b == 0) & (c > 0))))
    keep = (i < j) | ((i == j) & positive)
    keep &= distances <= cutoff
    i, j, images = i[keep].astype(np.int64), j[keep].astype(np.int64), images[keep]
    vectors = geometry.positions[i] - geometry.positions[j] - images @ geometry.cell
    return i, j, vectors


def count_edges(geometry: Geometry, pairwise_cutoff: float, three_body_cutoff: float) -> tuple[int, int]:
    """
    Count the bonds and angles that the graphs of a structure have, without building them.

    Parameters
    ----------
    geometry
        The structure.
    pairwise_cutoff, three_body_cutoff
        Longest bond of the atom graph and of the line graph (Å).

    Returns
    -------
    tuple of int
        Bonds, and angles (up to bonds at exactly the three-body cut-off).
    """
    centers, neighbors, vectors = find_bonds(geometry, pairwise_cutoff)
    short = np.linalg.norm(vectors, axis=1) <= three_body_cutoff
    edges = np.bincount(np.concatenate([centers[short], neighbors[short]]))
    return len(centers), int((edges * (edges - 1)).sum())


def build_graph(
    geometries: Sequence[Geometry],
    pairwise_cutoff: float,
    three_body_cutoff: float,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Graph:
    """
    Build both graphs of a batch.

    An atom without neighbours and a structure without angles are legal.

    Parameters
    ----------
    geometries
        The structures; cut-offs are decided in float64 from them.
    pairwise_cutoff, three_body_cutoff
        Longest bond of the atom graph and of the line graph (Å).
    device, dtype
        Where the tensors live, and the precision of the bond vectors.

    Returns
    -------
    Graph
    """
    counts = np.array([len(g.numbers) for g in geometries], dtype=np.int64)
    offsets = np.concatenate([[0], np.cumsum(counts)[:-1]]) if len(counts) else counts
    bonds = [find_bonds(g, pairwise_cutoff) for g in geometries]
    centers = _join([b[0] + o for b, o in zip(bonds, offsets, strict=True)], np.int64)
    neighbors = _join([b[1] + o for b, o in zip(bonds, offsets, strict=True)], np.int64)
    vectors = _join([b[2] for b in bonds], np.float64).reshape(-1, 3)
    lengths = torch.from_numpy(np.linalg.norm(vectors, axis=1)).to(device)
    i, j = torch.from_numpy(centers).to(device), torch.from_numpy(neighbors).to(device)
    target, source, center, sign = line_graph(i, j, lengths, three_body_cutoff)
    n_atoms = torch.from_numpy(counts).to(device)
    return Graph(
        numbers=torch.from_numpy(_join([g.numbers for g in geometries], np.int64)).to(device),
        system=torch.repeat_interleave(torch.arange(len(counts), device=device), n_atoms),
        n_atoms=n_atoms,
        volumes=torch.tensor([g.volume for g in geometries], dtype=dtype, device=device),
        centers=i,
        neighbors=j,
        vectors=torch.from_numpy(vectors).to(device, dtype),
        angle_target=target,
        angle_source=source,
        angle_center=center,
        angle_sign=sign.to(dtype),
    )


def line_graph(
    centers: torch.Tensor, neighbors: torch.Tensor, lengths: torch.Tensor, cutoff: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """
    List the ordered pairs of distinct short edges that leave the same atom, sorted by target bond.

    The cut-off is inclusive for the target bond and exclusive for the source bond, as in the published model.

    Parameters
    ----------
    centers, neighbors
        Ends of each bond, shape (B,).
    lengths
        Bond lengths (Å), float64, shape (B,).
    cutoff
        Longest bond of an angle (Å).

    Returns
    -------
    target, source
        Bonds of each angle, shape (A,).
    center
        Shared atom, shape (A,).
    sign
        Relative orientation of the two stored bond vectors seen from the shared atom, ±1, shape (A,).
    """
    short = torch.nonzero(lengths <= cutoff).flatten()
    bond = torch.cat([short, short])
    atom = torch.cat([centers[short], neighbors[short]])
    reverse = torch.zeros_like(bond)
    reverse[len(short) :] = 1
    strict = lengths[bond] < cutoff
    # group the edges by their atom: pairs are then blocks of a block-diagonal matrix
    order = torch.argsort(atom, stable=True)
    bond, atom, reverse, strict = bond[order], atom[order], reverse[order], strict[order]
    _, group, counts = torch.unique_consecutive(atom, return_inverse=True, return_counts=True)
    starts = torch.cumsum(counts, 0) - counts
    per_edge = counts[group]
    first = torch.repeat_interleave(torch.arange(len(bond), device=bond.device), per_edge)
    within = torch.arange(len(first), device=bond.device) - torch.repeat_interleave(
        torch.cumsum(per_edge, 0) - per_edge, per_edge
    )
    second = starts[group[first]] + within
    keep = (first != second) & strict[second]
    first, second = first[keep], second[keep]
    by_target = torch.argsort(bond[first], stable=True)
    first, second = first[by_target], second[by_target]
    sign = 1 - 2 * (reverse[first] ^ reverse[second])
    return bond[first], bond[second], atom[first], sign


def _join(parts: Sequence[NDArray], dtype: type) -> NDArray:
    """Concatenate, also nothing."""
    return np.concatenate(parts).astype(dtype) if len(parts) else np.zeros(0, dtype=dtype)
