"""The two graphs of MatRIS: in the atom graph bonds join atoms, in the line graph angles join bonds.

One layout serves single structures and batches. A *bond* is stored once, as the directed edge from its centre to its
neighbour; the reverse edge is implied. In lists of directed edges, the stored directions come first and their reverses
second, so that the average of both is a mean over two rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from pymatgen.optimization.neighbors import find_points_in_spheres

from matris.errors import StructureError
from matris.model.neighbors import Pairs, near_pairs, volumes
from matris.structures import cells_away, check_periodicity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ase import Atoms
    from numpy.typing import NDArray
    from pymatgen.core import Structure


@dataclass(frozen=True)
class Geometry:
    """
    One structure as arrays.

    Parameters
    ----------
    numbers
        Atomic numbers, shape (n,).
    positions
        Cartesian coordinates (Å), shape (n, 3).
    cell
        Lattice vectors as rows (Å), shape (3, 3); not singular, even if some directions are not periodic.
    pbc
        Periodicity along each lattice vector, shape (3,).

    Examples
    --------
    >>> from ase.build import bulk
    >>> geometry = Geometry.of(bulk("MgO", "rocksalt", a=4.2))
    >>> geometry.numbers.tolist(), round(geometry.volume, 3)
    ([12, 8], 18.522)
    """

    numbers: NDArray[np.int64]
    positions: NDArray[np.float64]
    cell: NDArray[np.float64]
    pbc: NDArray[np.bool_]

    @classmethod
    def of(cls, obj: Structure | Atoms) -> Geometry:
        """
        Convert a pymatgen ``Structure`` or an ASE ``Atoms`` of any periodicity.

        Atoms far outside the cell are taken back into it along its periodic directions: the energy does not change,
        and searches stay fast.

        Raises
        ------
        StructureError
            If the object is neither, a pymatgen site is disordered, or there is no lattice vector along a periodic
            direction.
        """
        if hasattr(obj, "get_atomic_numbers"):
            pbc = np.array(obj.pbc, dtype=bool)
            check_periodicity(obj.cell.array, pbc, str(obj.symbols))
            cell = np.asarray(obj.cell.complete(), dtype=float)
            return cls(obj.numbers.astype(np.int64), _near_cell(obj.positions, cell, pbc), cell, pbc)
        if not hasattr(obj, "lattice"):
            raise StructureError(f"expected a pymatgen Structure or ASE Atoms, got {type(obj).__name__}")
        if not obj.is_ordered:
            raise StructureError(f"{obj.composition.reduced_formula} has disordered sites: order it first")
        cell, pbc = np.asarray(obj.lattice.matrix, dtype=float), np.asarray(obj.lattice.pbc, dtype=bool)
        check_periodicity(cell, pbc, obj.composition.reduced_formula)
        positions = _near_cell(np.asarray(obj.cart_coords, dtype=float).reshape(-1, 3), cell, pbc)
        return cls(np.array([site.specie.Z for site in obj], dtype=np.int64), positions, cell, pbc)

    def structure(self) -> Structure:
        """Convert to a pymatgen ``Structure``."""
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
    Concatenated structures, as tensors on one device.

    Parameters
    ----------
    numbers
        Atomic numbers, shape (N,).
    positions
        Cartesian coordinates (Å), float64, shape (N, 3).
    cells
        Lattice vectors as rows (Å), float64, shape (S, 3, 3); not singular.
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
        """Concatenate structures."""
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
        """Index of the structure of each atom, shape (N,)."""
        systems = torch.arange(len(self.n_atoms), device=self.n_atoms.device)
        return torch.repeat_interleave(systems, self.n_atoms, output_size=len(self.numbers))


@dataclass(frozen=True)
class Graph:
    """
    A batch of structures as one atom graph and one line graph.

    Shapes are given for N atoms, S structures, B bonds and A angles. Angles are sorted by their target bond.

    Parameters
    ----------
    numbers
        Atomic numbers, shape (N,).
    system
        Index of the structure of each atom, shape (N,).
    n_atoms
        Atoms in each structure, shape (S,).
    volumes
        Cell volumes (Å³), shape (S,).
    centers, neighbors
        Atoms at both ends of each bond, shape (B,).
    vectors
        Centre minus periodic image of the neighbour (Å), shape (B, 3).
    angle_target, angle_source
        The two bonds of each angle, shape (A,).
    angle_center
        The atom that the two bonds share, shape (A,).
    angle_sign
        −1 if the shared atom is the stored centre of exactly one of the two bonds, else 1; shape (A,).
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
        """Number of bonds, half the number of directed edges."""
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
        Largest bond length (Å), inclusive, compared in float64.

    Returns
    -------
    centers, neighbors
        Atom indices, shape (b,).
    vectors
        Centre minus periodic image of the neighbour (Å), shape (b, 3).

    Examples
    --------
    >>> from ase.build import bulk
    >>> centers, neighbors, vectors = find_bonds(Geometry.of(bulk("Cu", a=3.6)), 2.6)
    >>> len(centers)  # half of the twelve neighbours of an atom
    6
    """
    i, j, images, distances = find_points_in_spheres(
        all_coords=np.ascontiguousarray(geometry.positions),
        center_coords=np.ascontiguousarray(geometry.positions),
        r=float(cutoff),
        pbc=np.ascontiguousarray(geometry.pbc, dtype=np.int64),
        lattice=np.ascontiguousarray(geometry.cell),
        tol=1e-8,
    )
    # of an edge and its reverse (j→i, −image), keep the one from the lower atom index, or with the positive image
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
        Cutoffs of the atom graph and of the line graph (Å).

    Returns
    -------
    tuple of int
        Numbers of bonds and of angles. The number of angles is exact unless a bond has exactly the cutoff length.
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

    Atoms without neighbours and structures without angles are allowed.

    Parameters
    ----------
    batch
        The structures. Bond lengths are compared with the cutoffs in float64.
    pairwise_cutoff, three_body_cutoff
        Cutoffs of the atom graph and of the line graph (Å).
    dtype
        Floating-point type of the bond vectors.

    Returns
    -------
    Graph

    Examples
    --------
    >>> from ase.build import bulk
    >>> batch = Batch.of([Geometry.of(bulk("Cu", a=3.6)), Geometry.of(bulk("Si"))])
    >>> graph = build_graph(batch, 2.6, 2.6)
    >>> graph.n_systems, graph.n_bonds, graph.n_angles
    (2, 10, 156)
    """
    on_host = batch.positions.device.type == "cpu"
    i, j, vectors, are_near = (bonds_one_by_one if on_host else bonds_together)(batch, pairwise_cutoff)
    lengths = torch.linalg.vector_norm(vectors, dim=1)
    short, strict = are_near & (lengths <= three_body_cutoff), are_near & (lengths < three_body_cutoff)
    edges, sources = (_count_ends(i, j, chosen, len(batch.numbers)) for chosen in (short, strict))
    counts = [are_near.sum(), short.sum(), (edges * edges).sum(), ((edges - 1) * sources).sum()]
    n_bonds, *sizes = torch.stack(counts).tolist()  # the device waits, which it does nowhere else here
    bonds = torch.nonzero_static(are_near, size=n_bonds).flatten()
    i, j, vectors = i[bonds], j[bonds], vectors[bonds]
    target, source, center, sign = line_graph(i, j, short[bonds], strict[bonds], edges, sizes)
    return Graph(
        numbers=batch.numbers,
        system=batch.system,
        n_atoms=batch.n_atoms,
        volumes=volumes(batch.cells).abs().to(dtype),
        centers=i,
        neighbors=j,
        vectors=vectors.to(dtype),
        angle_target=target,
        angle_source=source,
        angle_center=center,
        angle_sign=sign.to(dtype),
    )


def _count_ends(i: torch.Tensor, j: torch.Tensor, chosen: torch.Tensor, n_atoms: int) -> torch.Tensor:
    """Count how many of the chosen pairs end at each atom, shape (N,); a pair of an atom and its image ends twice."""
    return i.new_zeros(n_atoms).index_add(0, torch.cat([i, j]), chosen.long().repeat(2))


def bonds_one_by_one(batch: Batch, cutoff: float) -> Pairs:
    """List the bonds of a batch on the host, structure by structure, which is the fastest way there."""
    parts: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]] = []
    counts = batch.n_atoms.tolist()
    numbers, positions = batch.numbers.numpy(), batch.positions.numpy()
    start = 0
    for count, cell, pbc in zip(counts, batch.cells.numpy(), batch.pbc.numpy(), strict=True):
        atoms = slice(start, start + count)
        i, j, vectors = find_bonds(Geometry(numbers[atoms], positions[atoms], cell, pbc), cutoff)
        parts.append((i + start, j + start, vectors))
        start += count
    centers = torch.from_numpy(_join([part[0] for part in parts], np.int64))
    return Pairs(
        centers,
        torch.from_numpy(_join([part[1] for part in parts], np.int64)),
        torch.from_numpy(_join([part[2] for part in parts], np.float64).reshape(-1, 3)),
        torch.ones_like(centers, dtype=torch.bool),
    )


def bonds_together(batch: Batch, cutoff: float) -> Pairs:
    """List the bonds of a batch on its device, all structures at once, among other pairs and in another order."""
    return near_pairs(batch.positions, batch.cells, batch.pbc, batch.n_atoms, cutoff)


def line_graph(
    centers: torch.Tensor,
    neighbors: torch.Tensor,
    short: torch.Tensor,
    strict: torch.Tensor,
    edges: torch.Tensor,
    sizes: Sequence[int],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """
    List the ordered pairs of different short directed edges that start at the same atom, sorted by target bond.

    The cutoff is inclusive for the target bond and exclusive for the source bond, as in the published model.

    Parameters
    ----------
    centers, neighbors
        Atoms at the ends of each bond, shape (B,).
    short, strict
        Whether a bond may be the target, and the source, of an angle, shape (B,).
    edges
        Short directed edges of each atom, shape (N,).
    sizes
        Numbers of short bonds, of all pairs of short edges at an atom, and of angles.

    Returns
    -------
    target, source
        Bonds of each angle, shape (A,).
    center
        Shared atom, shape (A,).
    sign
        `Graph.angle_sign`, shape (A,).
    """
    n_short, n_pairs, n_angles = sizes
    device, n_edges = centers.device, 2 * n_short
    bond = torch.nonzero_static(short, size=n_short).flatten().repeat(2)
    atom = torch.cat([centers[bond[:n_short]], neighbors[bond[:n_short]]])
    # sort the edges by atom, so that the pairs form the blocks of a block-diagonal matrix
    order = torch.argsort(atom, stable=True)
    bond, atom, reverse = bond[order], atom[order], order >= n_short
    per_edge = edges[atom]
    first = torch.repeat_interleave(torch.arange(n_edges, device=device), per_edge, output_size=n_pairs)
    within = torch.arange(n_pairs, device=device) - (torch.cumsum(per_edge, 0) - per_edge)[first]
    second = (torch.cumsum(edges, 0) - edges)[atom[first]] + within
    kept = torch.nonzero_static((first != second) & strict[bond[second]], size=n_angles).flatten()
    first, second = first[kept], second[kept]
    by_target = torch.argsort(bond[first], stable=True)
    first, second = first[by_target], second[by_target]
    sign = 1 - 2 * (reverse[first] ^ reverse[second]).long()
    return bond[first], bond[second], atom[first], sign


def _near_cell(
    positions: NDArray[np.float64], cell: NDArray[np.float64], pbc: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Take atoms that lie more than a cell away back into the cell, along its periodic directions."""
    positions = np.asarray(positions, dtype=float)
    if not pbc.any():
        return positions
    cells = np.where(pbc, cells_away(positions @ np.linalg.inv(cell)), 0.0)
    return positions - cells @ cell if cells.any() else positions


def _join(parts: Sequence[NDArray], dtype: type) -> NDArray:
    """Concatenate arrays; no arrays give an empty one."""
    return np.concatenate(parts).astype(dtype) if len(parts) else np.zeros(0, dtype=dtype)
