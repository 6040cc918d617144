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

_CELL_LIST_ATOMS = 1000  # in a structure: from here on comparing all pairs of atoms is not quicker


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

    def structure(self) -> Structure:
        """Give it as a pymatgen ``Structure``."""
        from pymatgen.core import Element, Lattice, Structure

        lattice = Lattice(self.cell, pbc=tuple(self.pbc.tolist()))
        species = [Element.from_Z(z) for z in self.numbers.tolist()]
        return Structure(lattice, species, self.positions, coords_are_cartesian=True)

    @property
    def volume(self) -> float:
        """Cell volume (Å³)."""
        return abs(float(np.linalg.det(self.cell)))


@dataclass(frozen=True)
class Batch:
    """
    Structures side by side, as tensors on one device.

    Parameters
    ----------
    numbers
        Atomic numbers, shape (N,).
    positions
        Cartesian coordinates (Å), float64, shape (N, 3).
    cells
        Lattice vectors as rows (Å), float64, shape (S, 3, 3); never singular.
    pbc
        Periodicity along each lattice vector, shape (S, 3).
    n_atoms
        Atoms in each structure, shape (S,).
    """

    numbers: torch.Tensor
    positions: torch.Tensor
    cells: torch.Tensor
    pbc: torch.Tensor
    n_atoms: torch.Tensor

    @classmethod
    def of(cls, geometries: Sequence[Geometry], device: torch.device | str = "cpu") -> Batch:
        """Put structures side by side."""
        arrays = (
            _join([g.numbers for g in geometries], np.int64),
            _join([g.positions for g in geometries], np.float64).reshape(-1, 3),
            _join([g.cell for g in geometries], np.float64).reshape(-1, 3, 3),
            _join([g.pbc for g in geometries], np.bool_).reshape(-1, 3),
            np.array([len(g.numbers) for g in geometries], dtype=np.int64),
        )
        return cls(*(torch.from_numpy(array).to(device) for array in arrays))

    @property
    def system(self) -> torch.Tensor:
        """Structure that each atom belongs to, shape (N,)."""
        return torch.repeat_interleave(torch.arange(len(self.n_atoms), device=self.n_atoms.device), self.n_atoms)


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
        return self.n_atoms.shape[0]

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
    batch: Batch, pairwise_cutoff: float, three_body_cutoff: float, *, dtype: torch.dtype = torch.float32
) -> Graph:
    """
    Build both graphs of a batch, on its device.

    An atom without neighbours and a structure without angles are legal.

    Parameters
    ----------
    batch
        The structures; cut-offs are decided in float64 from them.
    pairwise_cutoff, three_body_cutoff
        Longest bond of the atom graph and of the line graph (Å).
    dtype
        Precision of the bond vectors.

    Returns
    -------
    Graph
    """
    on_host = batch.positions.device.type == "cpu"
    i, j, vectors = (bonds_one_by_one if on_host else bonds_together)(batch, pairwise_cutoff)
    target, source, center, sign = line_graph(i, j, torch.linalg.vector_norm(vectors, dim=1), three_body_cutoff)
    return Graph(
        numbers=batch.numbers,
        system=batch.system,
        n_atoms=batch.n_atoms,
        volumes=torch.linalg.det(batch.cells).abs().to(dtype),
        centers=i,
        neighbors=j,
        vectors=vectors.to(dtype),
        angle_target=target,
        angle_source=source,
        angle_center=center,
        angle_sign=sign.to(dtype),
    )


def bonds_one_by_one(batch: Batch, cutoff: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """
    List the bonds of a batch on the host, structure by structure: the fastest there.

    Returns
    -------
    centers, neighbors
        Atoms of the batch, shape (B,).
    vectors
        Centre minus neighbour image (Å), float64, shape (B, 3).
    """
    parts: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]] = []
    counts = batch.n_atoms.tolist()
    numbers, positions = batch.numbers.numpy(), batch.positions.numpy()
    start = 0
    for count, cell, pbc in zip(counts, batch.cells.numpy(), batch.pbc.numpy(), strict=True):
        here = slice(start, start + count)
        i, j, vectors = find_bonds(Geometry(numbers[here], positions[here], cell, pbc), cutoff)
        parts.append((i + start, j + start, vectors))
        start += count
    return (
        torch.from_numpy(_join([part[0] for part in parts], np.int64)),
        torch.from_numpy(_join([part[1] for part in parts], np.int64)),
        torch.from_numpy(_join([part[2] for part in parts], np.float64).reshape(-1, 3)),
    )


def bonds_together(batch: Batch, cutoff: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """
    List the bonds of a batch on its device, all structures at once, by torch-sim's neighbour list for it.

    Returns
    -------
    centers, neighbors, vectors
        As `bonds_one_by_one` gives them, in another order.
    """
    from torch_sim.neighbors import ALCHEMIOPS_AVAILABLE, alchemiops_nl_cell_list, torchsim_nl

    large = int(batch.n_atoms.max()) > _CELL_LIST_ATOMS if len(batch.n_atoms) else False
    neighbor_list = alchemiops_nl_cell_list if large and ALCHEMIOPS_AVAILABLE else torchsim_nl
    (i, j), system, images = neighbor_list(batch.positions, batch.cells, batch.pbc, cutoff * (1 + 1e-9), batch.system)
    a, b, c = images.unbind(1)
    positive = (a > 0) | ((a == 0) & ((b > 0) | ((b == 0) & (c > 0))))
    once = (i < j) | ((i == j) & positive)  # as in `find_bonds`
    i, j, system, images = i[once], j[once], system[once], images[once]
    shifts = torch.einsum("ba,bac->bc", images.to(batch.cells.dtype), batch.cells[system])
    vectors = batch.positions[i] - batch.positions[j] - shifts
    near = torch.linalg.vector_norm(vectors, dim=1) <= cutoff
    return i[near], j[near], vectors[near]


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
