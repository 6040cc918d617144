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
from matris.structures import cells_away, check_periodicity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ase import Atoms
    from numpy.typing import NDArray
    from pymatgen.core import Structure

_CELL_LIST_ATOMS = 1000  # atoms in a structure, above which a cell list is faster than comparing all pairs


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
        return torch.repeat_interleave(torch.arange(len(self.n_atoms), device=self.n_atoms.device), self.n_atoms)


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
    List the bonds of a batch on the host, structure by structure, which is the fastest way there.

    Returns
    -------
    centers, neighbors
        Atom indices in the batch, shape (B,).
    vectors
        Centre minus periodic image of the neighbour (Å), float64, shape (B, 3).
    """
    parts: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]] = []
    counts = batch.n_atoms.tolist()
    numbers, positions = batch.numbers.numpy(), batch.positions.numpy()
    start = 0
    for count, cell, pbc in zip(counts, batch.cells.numpy(), batch.pbc.numpy(), strict=True):
        atoms = slice(start, start + count)
        i, j, vectors = find_bonds(Geometry(numbers[atoms], positions[atoms], cell, pbc), cutoff)
        parts.append((i + start, j + start, vectors))
        start += count
    return (
        torch.from_numpy(_join([part[0] for part in parts], np.int64)),
        torch.from_numpy(_join([part[1] for part in parts], np.int64)),
        torch.from_numpy(_join([part[2] for part in parts], np.float64).reshape(-1, 3)),
    )


def bonds_together(batch: Batch, cutoff: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """
    List the bonds of a batch on its device, all structures at once, by Warp or, without it, by torch.

    Returns
    -------
    centers, neighbors, vectors
        The same bonds as `bonds_one_by_one`, in another order.
    """
    i, j, images = (_pairs_by_warp if _warp_computes(batch.positions.device) else _pairs_by_torch)(batch, cutoff)
    system = batch.system[i]
    a, b, c = images.unbind(1)
    positive = (a > 0) | ((a == 0) & ((b > 0) | ((b == 0) & (c > 0))))
    once = (i < j) | ((i == j) & positive)  # as in `find_bonds`
    i, j, system, images = i[once], j[once], system[once], images[once].to(batch.cells.dtype)
    shifts = (images[:, :, None] * batch.cells[system]).sum(1)
    vectors = batch.positions[i] - batch.positions[j] - shifts
    near = torch.linalg.vector_norm(vectors, dim=1) <= cutoff
    return i[near], j[near], vectors[near]


def _warp_computes(device: torch.device) -> bool:
    """Whether Warp can compute on a device: it needs NVIDIA's driver, and calls AMD's devices CUDA, as torch does."""
    from torch_sim.neighbors import ALCHEMIOPS_AVAILABLE

    if not ALCHEMIOPS_AVAILABLE or torch.version.hip is not None:
        return False
    import warp

    return device.type == "cpu" or (device.type == "cuda" and warp.is_cuda_available())


def _pairs_by_warp(batch: Batch, cutoff: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """
    List pairs of atoms in both directions, and their periodic images, by nvalchemiops, in cells of any density.

    Its lists have room for 0.2 atoms/Å³ unless told otherwise (torch-sim cannot tell it); hydrides and compressed
    crystals are denser. It counts the neighbours before it gives up, so that a second call has room for them.
    """
    from nvalchemiops.neighbors.neighbor_utils import NeighborOverflowError
    from nvalchemiops.torch.neighbors import batch_cell_list, batch_naive_neighbor_list

    large = int(batch.n_atoms.max()) > _CELL_LIST_ATOMS if len(batch.n_atoms) else False
    neighbor_list = batch_cell_list if large else batch_naive_neighbor_list
    room: int | None = None
    while True:
        try:
            pairs, _, *images = neighbor_list(
                batch.positions,
                cutoff * (1 + 1e-9),
                cell=batch.cells,
                pbc=batch.pbc.contiguous(),
                batch_idx=batch.system.to(torch.int32),
                max_neighbors=room,
                return_neighbor_list=True,
            )
        except NeighborOverflowError as error:
            if error.num_neighbors <= error.max_neighbors or error.num_neighbors == room:
                raise
            room = error.num_neighbors
            continue
        i, j = pairs.long()
        return i, j, images[0] if images else i.new_zeros(len(i), 3)  # none without periodicity


def _pairs_by_torch(batch: Batch, cutoff: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """List pairs of atoms in both directions, and their periodic images, by torch-sim's own functions."""
    from torch_sim.neighbors import torch_nl_linked_cell, torch_nl_n2

    large = int(batch.n_atoms.max()) > _CELL_LIST_ATOMS if len(batch.n_atoms) else False
    neighbor_list = torch_nl_linked_cell if large else torch_nl_n2
    (i, j), _, images = neighbor_list(batch.positions, batch.cells, batch.pbc, cutoff * (1 + 1e-9), batch.system)
    return i, j, images


def line_graph(
    centers: torch.Tensor, neighbors: torch.Tensor, lengths: torch.Tensor, cutoff: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """
    List the ordered pairs of different short directed edges that start at the same atom, sorted by target bond.

    The cutoff is inclusive for the target bond and exclusive for the source bond, as in the published model.

    Parameters
    ----------
    centers, neighbors
        Atoms at the ends of each bond, shape (B,).
    lengths
        Bond lengths (Å), float64, shape (B,).
    cutoff
        Largest bond length in an angle (Å).

    Returns
    -------
    target, source
        Bonds of each angle, shape (A,).
    center
        Shared atom, shape (A,).
    sign
        `Graph.angle_sign`, shape (A,).
    """
    short = torch.nonzero(lengths <= cutoff).flatten()
    bond = torch.cat([short, short])
    atom = torch.cat([centers[short], neighbors[short]])
    reverse = torch.zeros_like(bond)
    reverse[len(short) :] = 1
    strict = lengths[bond] < cutoff
    # sort the edges by atom, so that the pairs form the blocks of a block-diagonal matrix
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
