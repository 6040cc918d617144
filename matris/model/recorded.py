"""
Calls on a GPU that are recorded once as CUDA graphs and then replayed, for single cells and dynamics.

A call of a small structure takes as long as its thousand kernels take to launch. A CUDA graph launches all of them at
once, but only for arrays of the same size at the same addresses. Bonds and angles are therefore padded to multiples of
a number, and one recording serves a whole trajectory. The dummies belong to a structure of their own, so that they
change no result. They are spread over many dummy bonds and atoms, because a sum over all of them at one atom would take
longer than the rest of the call.

Nobody has run this on a GPU yet. Padding and bookkeeping are tested on a CPU.
"""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict
from dataclasses import fields
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from matris.model.graph import Graph
from matris.model.network import Evaluation

if TYPE_CHECKING:
    from collections.abc import Callable

    type Recorder = Callable[[Callable[[], Evaluation]], tuple[Callable[[], None], Evaluation]]
    """Records a call; returns what replays it, and the tensors that then hold the results."""

logger = logging.getLogger(__name__)

_LARGEST = 2**18  # angles of a call, above which its kernels take longer than their launches
_RECORDINGS = 8  # recordings that are kept; each has its own arrays for the results
_KEYS = 4096  # sizes that are remembered
_TOLERANCE = 1e-3  # largest difference between the first replay and the call itself, as a share of the largest value,
_LEAST = 0.1  # or of this one (eV, Å), where all are small


class Buckets(NamedTuple):
    """
    How a graph is padded.

    Attributes
    ----------
    bonds, angles
        Padded numbers of bonds and angles are multiples of these.
    spare_bonds, spare_atoms
        Dummy bonds, at least, and dummy atoms; dummy angles are spread over them.
    """

    bonds: int = 512
    angles: int = 8192
    spare_bonds: int = 256
    spare_atoms: int = 16

    def sizes(self, graph: Graph) -> tuple[int, int, int, int]:
        """Count atoms, structures, bonds and angles of the padded graph."""
        bonds = -(-(graph.n_bonds + self.spare_bonds) // self.bonds) * self.bonds
        angles = -(-max(graph.n_angles, 1) // self.angles) * self.angles
        return len(graph.numbers) + self.spare_atoms, graph.n_systems + 1, bonds, angles


BUCKETS = Buckets()


def dummies(like: Graph, buckets: Buckets = BUCKETS) -> Graph:
    """
    Make a padded graph of dummies alone, whose first rows `fill` replaces by those of a graph.

    Parameters
    ----------
    like
        A graph, which decides sizes, types and device.
    buckets
        How it is padded.
    """
    n_atoms, n_systems, n_bonds, n_angles = buckets.sizes(like)
    device, first = like.numbers.device, n_atoms - buckets.spare_atoms
    bond, angle = torch.arange(n_bonds, device=device), torch.arange(n_angles, device=device)
    spare = ((angle - n_angles + buckets.angles) * buckets.spare_bonds // buckets.angles).clamp(min=0)
    last = n_bonds - buckets.spare_bonds
    return Graph(
        numbers=like.numbers.new_ones(n_atoms),
        system=like.system.new_full((n_atoms,), n_systems - 1),
        n_atoms=like.n_atoms.new_full((n_systems,), buckets.spare_atoms),
        volumes=like.volumes.new_ones(n_systems),
        centers=first + bond % buckets.spare_atoms,
        neighbors=first + (bond + 1) % buckets.spare_atoms,
        vectors=torch.eye(3, device=device, dtype=like.vectors.dtype)[bond % 3],  # neighbours at right angles
        angle_target=last + spare,
        angle_source=last + (spare + 1) % buckets.spare_bonds,
        angle_center=first + spare % buckets.spare_atoms,
        angle_sign=like.angle_sign.new_ones(n_angles),
    )


def fill(buffers: Graph, blank: Graph, graph: Graph) -> None:
    """Write a graph into the first rows of a padded one, in place, and dummies behind it."""
    for field in fields(Graph):
        buffer, rows = getattr(buffers, field.name), getattr(graph, field.name)
        buffer.copy_(getattr(blank, field.name))
        buffer[: len(rows)].copy_(rows)


def padded(graph: Graph, buckets: Buckets = BUCKETS) -> Graph:
    """
    Pad a graph with dummies.

    Examples
    --------
    >>> import matris
    >>> from ase.build import bulk
    >>> from matris.model.graph import Geometry
    >>> graph = matris.load().graph([Geometry.of(bulk("MgO", "rocksalt", a=4.2))])
    >>> whole = padded(graph)
    >>> (graph.n_bonds, graph.n_angles), (whole.n_bonds, whole.n_angles, whole.n_systems)
    ((56, 1300), (512, 8192, 2))
    """
    whole = dummies(graph, buckets)
    fill(whole, dummies(graph, buckets), graph)
    return whole


def results_of(results: Evaluation, graph: Graph) -> Evaluation:
    """Copy the results of a graph from those of its padded one."""
    n, s = len(graph.numbers), graph.n_systems
    rows, values = {"energies": s, "stresses": s}, results._asdict().items()
    cut: list[Any] = [None if x is None else x[: rows.get(name, n)].clone() for name, x in values]
    return Evaluation(*cut)


class RecordedCalls:
    """
    Evaluations of small graphs, recorded when a size comes a second time, and replayed from then on.

    The first replay of each recording is compared with the call itself. If it differs, or a call cannot be recorded,
    the log says so, and all further calls are computed as they would be without recordings.

    Parameters
    ----------
    evaluate
        Computes a graph.
    record
        Records a call; by default as a CUDA graph.
    buckets
        How graphs are padded.
    """

    def __init__(
        self,
        evaluate: Callable[[Graph], Evaluation],
        record: Recorder | None = None,
        buckets: Buckets = BUCKETS,
    ) -> None:
        self._evaluate, self._buckets = evaluate, buckets
        self._record = record or _CudaGraphs().record
        self._seen: Counter[tuple[int, ...]] = Counter()
        self._kept: OrderedDict[tuple[int, ...], _Recording] = OrderedDict()
        self._is_off = False

    @torch.inference_mode(False)  # tensors of that mode cannot be differentiated, and the arrays are kept
    def __call__(self, graph: Graph) -> Evaluation:
        """Evaluate a graph."""
        if self._is_off or graph.n_angles > _LARGEST:
            return self._evaluate(graph)
        key = self._buckets.sizes(graph)
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key].replayed(graph)
        results = self._evaluate(graph)
        self._seen[key] += 1
        if self._seen[key] > 1:
            self._start(key, graph, results)
        if len(self._seen) > _KEYS:
            self._seen.clear()
        return results

    def _start(self, key: tuple[int, ...], graph: Graph, results: Evaluation) -> None:
        """Record the calls of a size, and compare the first replay with the results."""
        try:
            with torch.cuda.device_of(graph.numbers):
                recording = _Recording(graph, self._evaluate, self._record, self._buckets)
            reason = _difference(recording.replayed(graph), results)
        except Exception as error:  # noqa: BLE001 - whatever a driver raises, the call itself can be computed
            reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
        if reason:
            logger.warning("calls are not recorded on %s, and take longer: %s", graph.numbers.device, reason)
            self._is_off = True
            self._kept.clear()
            return
        self._kept[key] = recording
        while len(self._kept) > _RECORDINGS:
            self._kept.popitem(last=False)


class _Recording:
    """A recorded call, with the arrays that it reads."""

    def __init__(
        self, graph: Graph, evaluate: Callable[[Graph], Evaluation], record: Recorder, buckets: Buckets
    ) -> None:
        self._blank, self._buffers = dummies(graph, buckets), padded(graph, buckets)
        self._replay, self._results = record(lambda: evaluate(self._buffers))

    def replayed(self, graph: Graph) -> Evaluation:
        """Evaluate a graph of the recorded size."""
        fill(self._buffers, self._blank, graph)
        self._replay()
        return results_of(self._results, graph)


class _CudaGraphs:
    """Records calls as CUDA graphs, which share their memory: they never run at the same time."""

    def __init__(self) -> None:
        self._pool: Any = None

    def record(self, call: Callable[[], Evaluation]) -> tuple[Callable[[], None], Evaluation]:
        """Record a call, after another one on a stream of its own, in which libraries prepare what they need."""
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            call()
        torch.cuda.current_stream().wait_stream(stream)
        recording = torch.cuda.CUDAGraph()
        with torch.cuda.graph(recording, pool=self._pool):
            results = call()
        return recording.replay, results


def _difference(ours: Evaluation, right: Evaluation) -> str:
    """Say which results of a replay differ from those of the call; empty if none does."""
    wrong = []
    for name in ("atom_energies", "forces", "stresses"):
        one, other = getattr(ours, name), getattr(right, name)
        error = float((one - other).abs().max() / other.abs().max().clamp(min=_LEAST))
        if not error <= _TOLERANCE:
            wrong.append(f"{name} by {error:.1e}")
    return f"replayed results differ: {', '.join(wrong)} of the largest" if wrong else ""
