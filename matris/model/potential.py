"""A loaded checkpoint that predicts."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, overload

import numpy as np
import torch

from matris.errors import CheckpointError, StructureError
from matris.machine import n_processes, total_memory
from matris.model import checkpoints, kernels
from matris.model.chunked import Chunks
from matris.model.dispersion import dispersed_card, functional_of
from matris.model.dispersion import dispersion as dispersed
from matris.model.graph import Batch, Geometry, Graph, build_graph, count_edges
from matris.model.memory import is_out_of_memory
from matris.model.network import Evaluation, MatRIS, evaluate
from matris.model.precision import FEWER_DIGITS, PRECISIONS, full_precision
from matris.model.recorded import RecordedCalls
from matris.progress import shown, size_of
from matris.structures import is_one, one_or_many, problem_with, to_structure

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Sequence
    from pathlib import Path

    from ase import Atoms
    from numpy.typing import NDArray
    from pymatgen.core import Structure

    from matris.model.checkpoints import Card
    from matris.model.config import ModelConfig
    from matris.model.precision import Precision

logger = logging.getLogger(__name__)

type DispersionName = Literal["d3"]

DEVICE = "MATRIS_DEVICE"
"""Environment variable that names the default device."""

_KEPT_OF_ANGLE, _KEPT_OF_BOND = 23, 62
"""Values per channel that one block keeps of an angle and of a bond for the backward pass (a test counts them)."""
_ENVELOPES_OF_ANGLE, _ENVELOPES_OF_BOND = 2, 4
"""What a smooth network keeps more: the weights of the attention before their factors, by target and by source."""
_KEPT_OF_ANGLE_KERNELS, _KEPT_OF_BOND_KERNELS = 15, 50
"""The numbers for `matris.model.kernels`, smooth or not."""
_KEPT_OF_ANGLE_TILES, _KEPT_OF_BOND_TILES = 4, 33
"""The numbers for `matris.model.triton_messages`, smooth or not."""
_ALWAYS_KEPT = 2
"""Values per channel kept even for chunks that are recomputed: the outputs of each block for an angle or a bond."""

_CPU_VALUES = 2**17  # values of one feature in a chunk: half a megabyte, so that the values of a chunk stay in cache
_KERNEL_VALUES = 2**15  # values of one feature in a chunk, for each thread; all values of a chunk stay in cache
_CPU_BYTES, _CPU_SHARE = 4e9, 1 / 8  # largest amount of kept values: bytes, and share of the machine's memory
_CPU_SHARES = 1 / 2  # the same of all processes of a runner
_CPU_BATCH = 6e7  # bytes of a batch: large enough to make fixed costs small, small enough for the caches
_CUDA_ROWS = 2**17
_CUDA_SHARE = 0.5  # largest amount of kept values: share of the device's memory


@dataclass(frozen=True, repr=False)
class Prediction:
    """
    Prediction of the potential for one structure.

    Parameters
    ----------
    energy
        Total energy (eV).
    forces
        eV/Å, shape (n, 3).
    stress
        eV/Å³, shape (3, 3), positive under tension.
    magmoms
        Absolute moments (μB), shape (n,), or None if the checkpoint does not predict them.
    extrapolation
        Largest extrapolation of the atoms: above 1 the potential extrapolates, see `matris.model.domain.Domain`. None
        if the checkpoint has no domain; published checkpoints have none.
    mean_extrapolation
        Mean extrapolation of the atoms.
    """

    energy: float
    forces: NDArray[np.float64]
    stress: NDArray[np.float64]
    magmoms: NDArray[np.float64] | None
    extrapolation: float | None = None
    mean_extrapolation: float | None = None

    @property
    def is_extrapolating(self) -> bool | None:
        """Whether the potential extrapolates for the structure; None if that is not known."""
        return None if self.extrapolation is None else self.extrapolation > 1

    def __repr__(self) -> str:
        force = float(np.linalg.norm(self.forces, axis=1).max(initial=0.0))
        remark = ", extrapolates" if self.is_extrapolating else ""
        return f"Prediction({self.energy:.4f} eV, {len(self.forces)} atoms, forces up to {force:.3g} eV/Å{remark})"


class Potential:
    """
    A checkpoint loaded on a device. `load` creates one.

    Parameters
    ----------
    network
        The network, on its device.
    card
        Description of the checkpoint.
    precision
        How a GPU multiplies the matrices of messages, `matris.model.precision.Precision`: ``"ieee"``, ``"tf32x3"`` or
        ``"bf16x3"``. By default ``"tf32x3"`` on NVIDIA's GPUs and ``"ieee"`` on others. It has no effect where torch
        or C compute the messages, which they do in float32 or float64.
    cuda_graphs
        Record calls of small structures on a GPU as CUDA graphs, and replay them (`matris.model.recorded`): for single
        cells and dynamics, where sizes come again and again. Off by default until somebody has measured it.

    Attributes
    ----------
    memory
        Bytes that a call may keep for its backward pass. The default is half of a GPU's memory, or half of a share of
        it where several processes of a campaign use the GPU. On a CPU, where consecutive calls reuse the memory, it is
        an eighth of the machine's memory and at most 4 GB, less if many processes compute a campaign. Calls that need
        more recompute some values, which takes at most a third more time. Reduce it where memory is scarce.

    Examples
    --------
    >>> import matris
    >>> potential = matris.load()
    >>> potential.card.key, "Na" in potential.elements, potential.has_magmoms
    ('matris_embedded', True, False)
    """

    def __init__(
        self, network: MatRIS, card: Card, precision: Precision | None = None, *, cuda_graphs: bool = False
    ) -> None:
        self.network = network
        self.card = card
        self.precision: Precision = precision or ("tf32x3" if torch.version.hip is None else "ieee")
        if self.device.type == "cuda":
            total = torch.cuda.get_device_properties(self.device).total_memory
            self.memory = _CUDA_SHARE * total / n_processes()
        else:
            self.memory = min(_CPU_BYTES, min(_CPU_SHARE, _CPU_SHARES / n_processes()) * total_memory())
        self._compute = RecordedCalls(self._evaluate) if cuda_graphs and self.device.type == "cuda" else self._evaluate
        if cuda_graphs and self.device.type != "cuda":
            logger.warning("cuda_graphs has no effect on %s", self.device)

    def __repr__(self) -> str:
        numbers = f"{self.card.predicts}, {len(self.elements)} elements, energy scale {self.card.energy_scale}"
        return f"Potential({self.card.key!r}: {numbers}; {self.dtype} on {self.device})"

    @property
    def config(self) -> ModelConfig:
        """Architecture of the network."""
        return self.network.config

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.network.atom_linear.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the weights."""
        return self.network.atom_linear.weight.dtype

    @property
    def arithmetic(self) -> str:
        """
        Name of what decides the digits of results, for journals and documents.

        ``float32`` or ``float64``; ``float32-bf16x3`` if a GPU multiplies with fewer digits than float32 has.
        """
        name = str(self.dtype).removeprefix("torch.")
        return f"{name}-{self.precision}" if self.precision in FEWER_DIGITS and self.tiled else name

    @property
    def tiled(self) -> bool:
        """
        Whether the kernels of `matris.model.triton_messages` compute the messages.

        The first use on a GPU compiles them and compares them with torch; they are kept in the cache directory.
        """
        if self.device.type != "cuda":
            return False
        from matris.model import triton_messages

        return triton_messages.computes(self.config, self.device, self.dtype, self.precision)

    @property
    def elements(self) -> tuple[str, ...]:
        """Symbols of the supported elements, those in the training set."""
        return self.card.elements

    @property
    def has_magmoms(self) -> bool:
        """Whether the checkpoint predicts magnetic moments."""
        return "m" in self.card.predicts and self.network.magmom_head is not None

    def graph(self, structures: Batch | Sequence[Geometry]) -> Graph:
        """Build the graphs of a batch with the cutoffs of the checkpoint, on its device."""
        with torch.inference_mode(False):  # tensors of that mode cannot be differentiated
            batch = structures if isinstance(structures, Batch) else Batch.of(structures, self.device)
            return build_graph(batch, self.config.pairwise_cutoff, self.config.three_body_cutoff, dtype=self.dtype)

    def evaluate(self, graph: Graph) -> Evaluation:
        """Compute energies, forces, stresses and magnetic moments of a batch."""
        with full_precision():
            return self._compute(graph)

    def _evaluate(self, graph: Graph) -> Evaluation:
        """Compute a batch kernel by kernel."""
        return evaluate(self.network, graph, magmoms=self.has_magmoms, chunks=self._chunks(graph))

    def extrapolation(self, graph: Graph, features: torch.Tensor) -> torch.Tensor | None:
        """
        Compute the extrapolation of each atom: its distance from the training set, see `matris.model.domain.Domain`.

        Parameters
        ----------
        graph
            The batch.
        features
            `Evaluation.features` of the batch.

        Returns
        -------
        Tensor or None
            Shape (N,), above 1 where the potential extrapolates; None if the checkpoint has no domain.
        """
        domain = self.network.domain
        return None if domain is None else domain(graph.numbers, features)

    @property
    def batch_bytes(self) -> float:
        """Bytes kept for a batch of structures: on a GPU all that fit, on a CPU enough to make fixed costs small."""
        return self.memory if self.device.type == "cuda" else _CPU_BATCH

    def bytes_kept(self, n_bonds: int, n_angles: int) -> int:
        """Compute the bytes that a call keeps of bonds and angles for the backward pass if it recomputes none."""
        if kernels.usable(self.config, self.device, self.dtype):
            return self._bytes(_KEPT_OF_BOND_KERNELS * n_bonds, _KEPT_OF_ANGLE_KERNELS * n_angles)
        if self.tiled:
            return self._bytes(_KEPT_OF_BOND_TILES * n_bonds, _KEPT_OF_ANGLE_TILES * n_angles)
        return bytes_kept(self.config, n_bonds, n_angles, self.dtype)

    def _bytes(self, of_bonds: int, of_angles: int) -> int:
        """Bytes that the given numbers of values per channel take in all blocks."""
        of_bonds, of_angles = of_bonds * self.config.edge_feat_dim, of_angles * self.config.three_body_feat_dim
        return self.dtype.itemsize * self.config.num_layers * (of_bonds + of_angles)

    def bytes_of(self, geometry: Geometry) -> int:
        """Compute the bytes kept for one structure, by which structures are grouped into batches."""
        return self.bytes_kept(*count_edges(geometry, self.config.pairwise_cutoff, self.config.three_body_cutoff))

    def _chunks(self, graph: Graph) -> Chunks | None:
        """Choose how to split bonds and angles: fast if there is enough memory, else with recomputation."""
        needed = self.bytes_kept(graph.n_bonds, graph.n_angles)
        if self.tiled:
            if needed <= self.memory:
                from matris.model.triton_messages import Tiles

                return Chunks(_CUDA_ROWS, tiles=Tiles.of(graph, self.precision))
            needed = bytes_kept(self.config, graph.n_bonds, graph.n_angles, self.dtype)  # torch can recompute
        always = self._bytes(_ALWAYS_KEPT * graph.n_bonds, _ALWAYS_KEPT * graph.n_angles)
        kept = 1.0 if needed <= self.memory else max(0.0, (self.memory - always) / (needed - always))
        if self.device.type == "cuda":
            return None if kept == 1 else Chunks(_CUDA_ROWS, kept)
        width = self.config.three_body_feat_dim
        if not kernels.usable(self.config, self.device, self.dtype):
            return Chunks(_CPU_VALUES // width, kept)
        arena = kernels.thread_arena(always + kept * (needed - always))
        return Chunks(_KERNEL_VALUES // width * torch.get_num_threads(), kept, kernels=True, workspace=arena)

    @overload
    def predict(self, structures: Structure) -> Prediction: ...  # type: ignore[overload-overlap] # it is iterable too

    @overload
    def predict(self, structures: Iterable[Structure | Atoms], *, progress: bool = False) -> Iterator[Prediction]: ...

    @overload
    def predict(self, structures: Atoms) -> Prediction: ...

    def predict(
        self, structures: Structure | Atoms | Iterable[Structure | Atoms], *, progress: bool = False
    ) -> Prediction | Iterator[Prediction]:
        """
        Predict energies, forces, stresses and magnetic moments of one structure or many, in batches.

        Parameters
        ----------
        structures
            One pymatgen ``Structure`` or periodic ASE ``Atoms``, or an iterable of them, which is read lazily.
        progress
            Whether to show a progress bar on standard error.

        Returns
        -------
        Prediction or Iterator of Prediction
            The prediction of one structure; of many, an iterator in the order of the input.

        Raises
        ------
        StructureError
            If a structure cannot be computed; of many, the message contains its position in the input. Use
            `matris.relax` with ``max_steps=0`` if one bad structure must not stop the others.

        Examples
        --------
        >>> import matris
        >>> from ase.build import bulk
        >>> potential = matris.load()
        >>> potential.predict(bulk("Cu")).stress.shape
        (3, 3)
        >>> for prediction in potential.predict([bulk("MgO", "rocksalt", a=4.2), bulk("Cu")]):
        ...     print(prediction.forces.shape, prediction.is_extrapolating)
        (2, 3) False
        (1, 3) False
        """
        if is_one(structures):
            return next(self.predict_geometries([self._geometry(structures)]))
        found = self.predict_geometries(self._checked(one_or_many(structures)))
        return shown(found, "predict", progress=progress, total=size_of(structures))

    def _geometry(self, item: Structure | Atoms) -> Geometry:
        """Convert a structure; raise StructureError if it cannot be computed."""
        structure = to_structure(item)
        if problem := problem_with(structure, self.elements):
            raise StructureError(problem)
        return Geometry.of(structure)

    def _checked(self, structures: Iterable[Structure | Atoms]) -> Iterator[Geometry]:
        """Yield geometries; the error of a structure that cannot be computed names its position."""
        for index, item in enumerate(structures):
            try:
                yield self._geometry(item)
            except StructureError as error:
                raise StructureError(f"structure {index}: {error}") from None

    def predict_geometries(self, geometries: Iterable[Geometry]) -> Generator[Prediction]:
        """
        Predict structures without checking them, in batches.

        Parameters
        ----------
        geometries
            Structures of supported elements; the iterable is read lazily.

        Yields
        ------
        Prediction
            In the order of the input.
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
        """Predict a batch; if it runs out of memory, predict its halves."""
        try:
            return self._predict_together(geometries)
        except Exception as error:
            if len(geometries) == 1 or not is_out_of_memory(error):
                raise
        torch.cuda.empty_cache()  # outside the except block: the error keeps the tensors of the failed call alive
        half = len(geometries) // 2
        return self._predict_batch(geometries[:half]) + self._predict_batch(geometries[half:])

    def _predict_together(self, geometries: list[Geometry]) -> list[Prediction]:
        """Predict a batch in one call."""
        graph = self.graph(geometries)
        energies, forces, stresses, magmoms, features, _ = self.evaluate(graph)
        extrapolation = self.extrapolation(graph, features)
        counts = [len(g.numbers) for g in geometries]
        per_force = [f.numpy() for f in forces.double().cpu().split(counts)]
        per_stress = list(stresses.double().cpu().numpy())
        per_magmom = (
            [None] * len(counts) if magmoms is None else [m.numpy() for m in magmoms.double().cpu().split(counts)]
        )
        per_atom = [None] * len(counts) if extrapolation is None else extrapolation.double().cpu().split(counts)
        return [
            Prediction(energy, force, stress, magmom, *summary_of(atoms))
            for energy, force, stress, magmom, atoms in zip(
                energies.tolist(), per_force, per_stress, per_magmom, per_atom, strict=True
            )
        ]


@dataclass(frozen=True)
class _PlacedGraph(Graph):
    """A graph that keeps the batch from which it was made: dispersion reaches farther than its bonds."""

    batch: Batch


class DispersedPotential(Potential):
    """
    A potential to which D3(BJ) dispersion is added (`matris.model.dispersion`). `load` creates one.

    Its card has another key, energy scale and digest, so that no document, journal or hull mixes both.

    Parameters
    ----------
    network, card, precision, cuda_graphs
        As for `Potential`; the card is that of the checkpoint alone.

    Examples
    --------
    >>> import matris
    >>> potential = matris.load(dispersion="d3")  # doctest: +SKIP
    >>> potential.card.key, potential.card.energy_scale  # doctest: +SKIP
    ('matris_embedded+d3bj', 'mp-d3bj')
    """

    def __init__(
        self, network: MatRIS, card: Card, precision: Precision | None = None, *, cuda_graphs: bool = False
    ) -> None:
        super().__init__(network, dispersed_card(card), precision, cuda_graphs=cuda_graphs)
        self._functional = functional_of(card)

    def graph(self, structures: Batch | Sequence[Geometry]) -> Graph:
        """Build the graphs of a batch, which keep the batch."""
        with torch.inference_mode(False):
            batch = structures if isinstance(structures, Batch) else Batch.of(structures, self.device)
        graph = super().graph(batch)
        return _PlacedGraph(**{field.name: getattr(graph, field.name) for field in fields(graph)}, batch=batch)

    def evaluate(self, graph: Graph) -> Evaluation:
        """Compute energies, forces, stresses and magnetic moments of a batch, with dispersion."""
        if not isinstance(graph, _PlacedGraph):
            raise TypeError("a potential with dispersion computes the graphs that it has built")
        result = super().evaluate(graph)
        with torch.inference_mode(False):
            added = dispersed(graph.batch, self._functional)
        return result._replace(
            energies=result.energies + added.energies,
            forces=result.forces + added.forces.to(result.forces),
            stresses=result.stresses + added.stresses.to(result.stresses),
            atom_energies=result.atom_energies + added.atom_energies.to(result.atom_energies),
        )


def bytes_kept(config: ModelConfig, n_bonds: int, n_angles: int, dtype: torch.dtype = torch.float32) -> int:
    """Compute the bytes that torch keeps of bonds and angles for the backward pass of a network."""
    of_bonds = (_KEPT_OF_BOND + config.smooth * _ENVELOPES_OF_BOND) * config.edge_feat_dim
    of_angles = (_KEPT_OF_ANGLE + config.smooth * _ENVELOPES_OF_ANGLE) * config.three_body_feat_dim
    return dtype.itemsize * config.num_layers * (of_bonds * n_bonds + of_angles * n_angles)


def summary_of(extrapolation: torch.Tensor | None) -> tuple[float | None, float | None]:
    """Compute the largest and the mean extrapolation of the atoms of a structure."""
    return (None, None) if extrapolation is None else (float(extrapolation.max()), float(extrapolation.mean()))


def chosen_device(device: torch.device | str | None = None) -> torch.device:
    """
    Choose the device to compute on.

    Parameters
    ----------
    device
        By default the device that the environment variable ``MATRIS_DEVICE`` names, as it does in jobs that asked a
        scheduler for a GPU; without it CUDA if available, else the CPU.

    Returns
    -------
    torch.device

    Raises
    ------
    CheckpointError
        If the device does not exist or is not available.

    Examples
    --------
    >>> chosen_device("cpu")
    device(type='cpu')
    """
    requested = device or os.environ.get(DEVICE)
    origin = "" if device or not requested else f" by {DEVICE}"
    try:
        result = torch.device(requested or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError as error:
        raise CheckpointError(f"no device {requested!r}: {str(error).splitlines()[0]}") from error
    if result.type == "cuda" and not torch.cuda.is_available():
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        raise CheckpointError(
            f"device {str(requested)!r} was asked for{origin}, but torch {torch.__version__} sees no CUDA device here "
            + (f"(CUDA_VISIBLE_DEVICES={visible})" if visible else "(CUDA_VISIBLE_DEVICES names none)")
        )
    if result.type == "cuda" and result.index is not None and result.index >= torch.cuda.device_count():
        raise CheckpointError(
            f"device {str(requested)!r} was asked for{origin}, but there are {torch.cuda.device_count()} CUDA devices, "
            "numbered from 0"
        )
    if result.type == "mps":
        raise CheckpointError(
            f"device {str(requested)!r} was asked for{origin}, but Apple's GPUs have no float64, in which bonds are "
            "found and energies are added: use --device cpu"
        )
    return result


def load(
    key_or_path: str | Path | None = None,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | str | None = None,
    precision: Precision | None = None,
    cuda_graphs: bool = False,
    dispersion: DispersionName | None = None,
) -> Potential:
    """
    Load a checkpoint as a potential. Calls with equal arguments return the same object.

    Parameters
    ----------
    key_or_path
        A key of the registry (``matris models`` lists them), a path to a published file or one of our own, or None for
        the embedded checkpoint.
    device
        By default the device named by ``MATRIS_DEVICE``, else CUDA if available, else the CPU.
    dtype
        ``float32`` (default) or ``float64``.
    precision
        How a GPU multiplies matrices, see `Potential`: ``"ieee"``, ``"tf32x3"`` or ``"bf16x3"``, the fastest and
        least exact.
    cuda_graphs
        Record calls on a GPU and replay them, for single cells and dynamics, see `Potential`.
    dispersion
        ``"d3"`` adds D3(BJ) dispersion for the functional of the checkpoint, see `matris.model.dispersion`. The key,
        the energy scale and the digest of the potential then say so. By default none is added.

    Returns
    -------
    Potential

    Raises
    ------
    CheckpointError
        If the checkpoint, the device, the dtype, the precision or the dispersion is not available.

    Examples
    --------
    >>> import matris
    >>> potential = matris.load(device="cpu", dtype="float64")
    >>> potential.card.key, potential.dtype
    ('matris_embedded', torch.float64)
    >>> matris.load(device="cpu", dtype="float64") is potential
    True
    """
    chosen = chosen_device(device)
    floats = getattr(torch, dtype.removeprefix("torch."), None) if isinstance(dtype, str) else dtype or torch.float32
    if floats not in (torch.float32, torch.float64):
        raise CheckpointError(f"dtype {dtype!r} is not supported: float32 or float64")
    if precision not in {None, *PRECISIONS}:
        raise CheckpointError(f"precision {precision!r} is not supported: {', '.join(PRECISIONS)}")
    if dispersion not in {None, "d3"}:
        raise CheckpointError(f"dispersion {dispersion!r} is not supported: d3")
    path = checkpoints.locate(key_or_path)
    return _resident(path, path.stat().st_mtime_ns, chosen, floats, precision, cuda_graphs, dispersion)


@lru_cache(maxsize=4)
def _resident(
    path: Path,
    modified: int,  # noqa: ARG001
    device: torch.device,
    dtype: torch.dtype,
    precision: Precision | None,
    cuda_graphs: bool,
    with_dispersion: DispersionName | None,
) -> Potential:
    """Load once for each file version (`modified` is its modification time in ns), device and way of computing."""
    network, card = checkpoints.read_file(path)
    try:
        with torch.inference_mode(False):
            network = network.to(device=device, dtype=dtype)
    except (RuntimeError, NotImplementedError) as error:
        raise CheckpointError(f"cannot move {card.key} to {device}: {str(error).splitlines()[0]}") from error
    if with_dispersion is None:
        return Potential(network, card, precision, cuda_graphs=cuda_graphs)
    return DispersedPotential(network, card, precision, cuda_graphs=cuda_graphs)
