"""A loaded checkpoint that predicts."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, cast

import torch

from matris.errors import CheckpointError, StructureError
from matris.model import checkpoints, kernels
from matris.model.chunked import Chunks
from matris.model.graph import Batch, Geometry, Graph, build_graph, count_edges
from matris.model.network import Evaluation, MatRIS, evaluate
from matris.structures import problem_with, to_structure

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    import numpy as np
    from ase import Atoms
    from numpy.typing import NDArray
    from pymatgen.core import Structure

    from matris.model.checkpoints import Card
    from matris.model.config import ModelConfig

DEVICE = "MATRIS_DEVICE"
"""Environment variable that names the device where nobody else does."""

_KEPT_OF_ANGLE, _KEPT_OF_BOND = 23, 62
"""Values per channel that one block keeps of an angle and of a bond for the backward pass (counted in a test)."""
_KEPT_OF_ANGLE_KERNELS, _KEPT_OF_BOND_KERNELS = 15, 50
"""The same where `matris.model.kernels` serves."""
_ALWAYS_KEPT = 2
"""Those of them that are kept even of what is computed twice: what each block makes of an angle or a bond."""

_CPU_VALUES = 2**17  # of a feature in a chunk: half a megabyte, so that a chunk's values stay in cache
_KERNEL_VALUES = 2**15  # of a feature in a chunk, for each thread: with all that belongs to it, it stays in cache
_CPU_BYTES, _CPU_SHARE = 4e9, 1 / 8  # at most, and of the machine's memory, that may be kept
_CPU_BATCH = 6e7  # bytes: a call's fixed costs are small beside so much work, and caches lose by more
_CUDA_ROWS = 2**17
_CUDA_SHARE = 0.5  # of the device's memory that may be kept


@dataclass(frozen=True)
class Prediction:
    """
    What the potential says of one structure.

    Parameters
    ----------
    energy
        Total energy (eV).
    forces
        eV/Å, shape (n, 3).
    stress
        eV/Å³, shape (3, 3), positive under tension.
    magmoms
        Absolute moments (μB), shape (n,), or None if the checkpoint was not trained for them.
    extrapolation
        How far the atoms are from those the checkpoint was trained on, see `matris.model.domain.Domain`: the largest of
        them; above 1 it extrapolates. None if the checkpoint does not know, as the published ones.
    mean_extrapolation
        Mean over the atoms.
    """

    energy: float
    forces: NDArray[np.float64]
    stress: NDArray[np.float64]
    magmoms: NDArray[np.float64] | None
    extrapolation: float | None = None
    mean_extrapolation: float | None = None

    @property
    def is_extrapolating(self) -> bool | None:
        """Whether the structure is unlike what the checkpoint was trained on; None if that is not known."""
        return None if self.extrapolation is None else self.extrapolation > 1


class Potential:
    """
    A checkpoint on a device. Make one with `load`.

    Parameters
    ----------
    network
        The network, on its device.
    card
        What the checkpoint is.

    Attributes
    ----------
    memory
        Bytes that a call may keep for its way back: by default half of a GPU; on a CPU, where calls hand them on to
        each other, an eighth of the machine's, and 4 GB at most. What needs more is in part computed twice, which
        takes a third more time at most. Set it to less where memory is scarce.
    """

    def __init__(self, network: MatRIS, card: Card) -> None:
        self.network = network
        self.card = card
        if self.device.type == "cuda":
            self.memory = _CUDA_SHARE * torch.cuda.get_device_properties(self.device).total_memory
        else:
            self.memory = min(_CPU_BYTES, _CPU_SHARE * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))

    @property
    def config(self) -> ModelConfig:
        """Architecture of the network."""
        return self.network.config

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.network.atom_linear.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Precision it computes in."""
        return self.network.atom_linear.weight.dtype

    @property
    def elements(self) -> tuple[str, ...]:
        """Symbols of the elements it was trained on."""
        return self.card.elements

    @property
    def has_magmoms(self) -> bool:
        """Whether it predicts magnetic moments."""
        return "m" in self.card.predicts and self.network.magmom_head is not None

    def graph(self, structures: Batch | Sequence[Geometry]) -> Graph:
        """Build the graphs of a batch with this checkpoint's cut-offs, on its device."""
        batch = structures if isinstance(structures, Batch) else Batch.of(structures, self.device)
        return build_graph(batch, self.config.pairwise_cutoff, self.config.three_body_cutoff, dtype=self.dtype)

    def evaluate(self, graph: Graph) -> Evaluation:
        """Energies, forces, stresses and magnetic moments of a batch."""
        return evaluate(self.network, graph, magmoms=self.has_magmoms, chunks=self._chunks(graph))

    def extrapolation(self, graph: Graph, features: torch.Tensor) -> torch.Tensor | None:
        """
        Say how far atoms are from those the checkpoint was trained on; above 1 it extrapolates.

        Parameters
        ----------
        graph
            The batch.
        features
            Of its evaluation.

        Returns
        -------
        Tensor or None
            Shape (N,); None if the checkpoint does not know.
        """
        domain = self.network.domain
        return None if domain is None else domain(graph.numbers, features)

    @property
    def batch_bytes(self) -> float:
        """Bytes of the structures to compute together: on a GPU what fits, otherwise what makes fixed costs small."""
        return self.memory if self.device.type == "cuda" else _CPU_BATCH

    def bytes_kept(self, n_bonds: int, n_angles: int) -> int:
        """Bytes that the backward pass needs of so many bonds and angles, unless it computes them again."""
        if kernels.usable(self.config, self.device, self.dtype):
            return self._bytes(_KEPT_OF_BOND_KERNELS * n_bonds, _KEPT_OF_ANGLE_KERNELS * n_angles)
        return bytes_kept(self.config, n_bonds, n_angles, self.dtype)

    def _bytes(self, of_bonds: int, of_angles: int) -> int:
        """Bytes that so many values per channel take in all blocks."""
        of_bonds, of_angles = of_bonds * self.config.edge_feat_dim, of_angles * self.config.three_body_feat_dim
        return self.dtype.itemsize * self.config.num_layers * (of_bonds + of_angles)

    def bytes_of(self, geometry: Geometry) -> int:
        """Bytes kept for one structure: sums of these tell beforehand what makes a batch."""
        return self.bytes_kept(*count_edges(geometry, self.config.pairwise_cutoff, self.config.three_body_cutoff))

    def _chunks(self, graph: Graph) -> Chunks | None:
        """Choose how to go through a batch's bonds and angles: fast where there is memory, else small."""
        needed = self.bytes_kept(graph.n_bonds, graph.n_angles)
        always = self._bytes(_ALWAYS_KEPT * graph.n_bonds, _ALWAYS_KEPT * graph.n_angles)
        kept = 1.0 if needed <= self.memory else max(0.0, (self.memory - always) / (needed - always))
        if self.device.type == "cuda":
            return None if kept == 1 else Chunks(_CUDA_ROWS, kept)
        width = self.config.three_body_feat_dim
        if not kernels.usable(self.config, self.device, self.dtype):
            return Chunks(_CPU_VALUES // width, kept)
        arena = kernels.thread_arena(always + kept * (needed - always))
        return Chunks(_KERNEL_VALUES // width * torch.get_num_threads(), kept, kernels=True, workspace=arena)

    def predict(self, structures: Structure | Atoms | Iterable[Structure | Atoms]) -> Iterator[Prediction]:
        """
        Predict one structure or many, in the order given, batched within memory.

        Parameters
        ----------
        structures
            pymatgen ``Structure`` or periodic ASE ``Atoms``, one or an iterable, which is read as it is needed.

        Yields
        ------
        Prediction

        Raises
        ------
        StructureError
            For a structure that cannot be computed, with its position in the input. Use `matris.relax` with
            ``max_steps=0`` where one bad structure must not stop the others.
        """
        if hasattr(structures, "lattice") or hasattr(structures, "get_atomic_numbers"):
            structures = cast("list[Structure | Atoms]", [structures])
        return self.predict_geometries(self._checked(structures))

    def _checked(self, structures: Iterable[Structure | Atoms]) -> Iterator[Geometry]:
        for index, item in enumerate(structures):
            try:
                structure = to_structure(item)
                problem = problem_with(structure, self.elements)
            except StructureError as error:
                problem = str(error)
            if problem:
                raise StructureError(f"structure {index}: {problem}")
            yield Geometry.of(structure)

    def predict_geometries(self, geometries: Iterable[Geometry]) -> Iterator[Prediction]:
        """
        Predict structures that are known to be computable, in the order given, batched within memory.

        Parameters
        ----------
        geometries
            Of elements that the checkpoint knows; read as they are needed.

        Yields
        ------
        Prediction
        """
        batch: list[Geometry] = []
        size, limit = 0, self.batch_bytes
        for geometry in geometries:
            added = self.bytes_of(geometry)
            if batch and size + added > limit:
                yield from self._predict_batch(batch)
                batch, size = [], 0
            batch.append(geometry)
            size += added
        if batch:
            yield from self._predict_batch(batch)

    def _predict_batch(self, geometries: list[Geometry]) -> list[Prediction]:
        """Predict together what fits together."""
        try:
            graph = self.graph(geometries)
            energies, forces, stresses, magmoms, features = self.evaluate(graph)
            extrapolation = self.extrapolation(graph, features)
        except torch.OutOfMemoryError:
            if len(geometries) == 1:
                raise
            torch.cuda.empty_cache()
            half = len(geometries) // 2
            return self._predict_batch(geometries[:half]) + self._predict_batch(geometries[half:])
        counts = [len(g.numbers) for g in geometries]
        per_force = [f.numpy() for f in forces.double().cpu().split(counts)]
        per_stress = list(stresses.double().cpu().numpy())
        per_magmom = (
            [None] * len(counts) if magmoms is None else [m.numpy() for m in magmoms.double().cpu().split(counts)]
        )
        per_atom = [None] * len(counts) if extrapolation is None else extrapolation.double().cpu().split(counts)
        return [
            Prediction(energy, force, stress, magmom, *summary_of(far))
            for energy, force, stress, magmom, far in zip(
                energies.tolist(), per_force, per_stress, per_magmom, per_atom, strict=True
            )
        ]


def bytes_kept(config: ModelConfig, n_bonds: int, n_angles: int, dtype: torch.dtype = torch.float32) -> int:
    """Bytes that torch keeps of so many bonds and angles for the backward pass of a network."""
    of_bonds, of_angles = _KEPT_OF_BOND * config.edge_feat_dim, _KEPT_OF_ANGLE * config.three_body_feat_dim
    return dtype.itemsize * config.num_layers * (of_bonds * n_bonds + of_angles * n_angles)


def summary_of(extrapolation: torch.Tensor | None) -> tuple[float | None, float | None]:
    """Give the largest and the mean extrapolation of a structure's atoms."""
    return (None, None) if extrapolation is None else (float(extrapolation.max()), float(extrapolation.mean()))


def chosen_device(device: torch.device | str | None = None) -> torch.device:
    """
    Choose where to compute.

    Parameters
    ----------
    device
        By default what the environment variable ``MATRIS_DEVICE`` names, as in jobs that asked a scheduler for a GPU;
        without it CUDA where there is one, else the CPU.

    Raises
    ------
    CheckpointError
        If the device is not to be had.
    """
    asked = device or os.environ.get(DEVICE)
    whose = "" if device or not asked else f" by {DEVICE}"
    try:
        where = torch.device(asked or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError as error:
        raise CheckpointError(f"no device {asked!r}: {str(error).splitlines()[0]}") from error
    if where.type == "cuda" and not torch.cuda.is_available():
        given = os.environ.get("CUDA_VISIBLE_DEVICES")
        raise CheckpointError(
            f"device {str(asked)!r} was asked for{whose}, but torch {torch.__version__} sees no CUDA device here "
            + (f"(CUDA_VISIBLE_DEVICES={given})" if given else "(CUDA_VISIBLE_DEVICES names none)")
        )
    return where


def load(
    key_or_path: str | Path | None = None,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | str | None = None,
) -> Potential:
    """
    Load a checkpoint as a potential; asked for again, it is the same resident one.

    Parameters
    ----------
    key_or_path
        A key of the registry (``matris models`` lists them), a path to a published or our own file, or nothing:
        the embedded checkpoint.
    device
        As for `chosen_device`.
    dtype
        ``float32`` (default) or ``float64``.

    Returns
    -------
    Potential

    Raises
    ------
    CheckpointError
        If the checkpoint, the device or the dtype is not to be had.
    """
    where = chosen_device(device)
    precision = getattr(torch, dtype.removeprefix("torch."), None) if isinstance(dtype, str) else dtype or torch.float32
    if precision not in (torch.float32, torch.float64):
        raise CheckpointError(f"dtype {dtype!r} is not supported: float32 or float64")
    path = checkpoints.locate(key_or_path)
    return _resident(path, path.stat().st_mtime_ns, where, precision)


@lru_cache(maxsize=4)
def _resident(path: Path, stamp: int, device: torch.device, dtype: torch.dtype) -> Potential:  # noqa: ARG001
    """Load once for a file as it is (`stamp` is its modification time), a device and a precision."""
    network, card = checkpoints.read_file(path)
    try:
        network = network.to(device=device, dtype=dtype)
    except (RuntimeError, NotImplementedError) as error:
        raise CheckpointError(f"cannot move {card.key} to {device}: {str(error).splitlines()[0]}") from error
    return Potential(network, card)
