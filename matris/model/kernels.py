"""The messages of attention and refinement on a CPU, with frozen weights, in C.

What lies between the matrix products takes as long as they do when every operation of it goes through memory on its
own. Here a chunk of edges stays in a core's cache from its first product to its last (compiled.c, built by the
machine's compiler when it is first needed), and the backward pass is written out. The numbers are those of
`matris.model.network` to rounding; without a compiler, in float64, for other kinds of norm and on other devices, that
is what runs.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import math
import os
import platform
import shutil
import subprocess
import tempfile
import threading
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self, cast

import torch
from torch.autograd.function import once_differentiable

from matris.files.cache import cache_directory

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matris.model.config import ModelConfig
    from matris.model.layers import FeedForward, GatedMLP
    from matris.model.rows import Chunks, Gather, Workspace

logger = logging.getLogger(__name__)

SOURCE = Path(__file__).with_name("kernels.c")
FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC")
_CACHE_LINE = 16  # values
LOG2_E = math.log2(math.e)
"""Logits are kept to the base of two: powers of two are quicker than of e, on AMD's processors by three."""


@cache
def library() -> ctypes.CDLL | None:
    """
    Build the C functions, or find them built: None where there is no compiler.

    The file stands in the cache of checkpoints under a name that says what it was built from, on which processor.
    """
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        logger.info("no C compiler: messages are computed by torch, at about two thirds of the speed")
        return None
    what = b"\0".join([SOURCE.read_bytes(), " ".join(FLAGS).encode(), _processor().encode()])
    name = f"compiled-{hashlib.sha256(what).hexdigest()[:16]}.so"
    try:
        try:
            return _load(compiler, cache_directory() / name)
        except OSError as error:  # it cannot be written, or nothing may be run from it
            logger.info("%s: %s", cache_directory(), error)
            with tempfile.TemporaryDirectory() as folder:
                return _load(compiler, Path(folder) / name)
    except (OSError, subprocess.CalledProcessError) as error:
        reason = getattr(error, "stderr", None) or error
        logger.warning("%s cannot build %s, torch does its work: %s", compiler, SOURCE.name, reason)
        return None


def _load(compiler: str, path: Path) -> ctypes.CDLL:
    """Load, after building if need be; processes that do so at once do not disturb each other."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(f".{os.getpid()}")
        try:
            for more in (["-fopenmp"], ["-fopenmp-simd"], []):  # not every compiler has threads
                command = [compiler, *FLAGS, *more, "-o", str(unfinished), str(SOURCE), "-lm"]
                done = subprocess.run(command, capture_output=True, text=True, check=not more)  # noqa: S603 - our own
                if done.returncode == 0:
                    break
            unfinished.rename(path)
        finally:
            unfinished.unlink(missing_ok=True)
    return ctypes.CDLL(str(path))


def _processor() -> str:
    """Tell the processor apart from those that cannot run what is built for it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().split("\n\n")[0].splitlines() if path.exists() else []
    return "\n".join(line for line in lines if line.startswith(("vendor", "flags", "Features"))) or platform.processor()


def usable(config: ModelConfig, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the functions here serve a network; builds them if so."""
    widths = (config.node_feat_dim, config.edge_feat_dim, config.three_body_feat_dim)
    fitting = config.norm_type == "layer" and config.graph_conv_mlp == "gatemlp"
    if not fitting or any(width % _CACHE_LINE for width in widths):
        return False
    if device.type != "cpu" or dtype != torch.float32 or os.name != "posix":
        return False
    c = library()
    return c is not None and bool(c.has_products()) and max(widths) <= c.widest()


def _call(name: str, *arguments: ctypes.Structure | torch.Tensor | None) -> None:
    """Call a C function with the addresses of what it gets."""
    pointers = (ctypes.byref(x) if isinstance(x, ctypes.Structure) else ctypes.c_void_p(_at(x)) for x in arguments)
    if getattr(library(), name)(*pointers):
        raise MemoryError(f"not enough memory for the chunks of compiled {name.replace('_', ' ')}: use fewer threads")


def _at(x: torch.Tensor | None) -> int | None:
    """Address of a tensor."""
    return None if x is None else x.data_ptr()


class _MLP(ctypes.Structure):
    """A gated MLP on edges, `mlp_t` in C."""

    _fields_ = (
        *((name, ctypes.c_ssize_t) for name in ("threads", "rows", "copies", "edge", "hidden", "n_tables", "chunk")),
        *((name, ctypes.c_ssize_t) for name in ("kept", "stored")),
        ("x", ctypes.c_void_p),
        *((name, ctypes.c_void_p * 3) for name in ("tables", "indices")),
        ("weight_in", ctypes.c_void_p),
        ("weight_in_row", ctypes.c_ssize_t),
        *((name, ctypes.c_void_p) for name in ("bias_in", "weight_out", "bias_out", "norm_weight", "norm_bias")),
        ("store", ctypes.c_void_p),
    )

    @classmethod
    def of(
        cls,
        mlp: GatedMLP,
        edge: torch.Tensor,
        tables: Sequence[torch.Tensor],
        indices: Sequence[torch.Tensor],
        chunk: int,
        store: torch.Tensor,
    ) -> Self:
        """
        Describe it to C; what it points to must outlive it.

        Parameters
        ----------
        mlp
            The gated MLP.
        edge
            Features of all edges, shape (m, edge).
        tables, indices
            What the directed copies of each edge read of their nodes, projected, and which entries, (copies, m).
        chunk
            Rows in a chunk.
        store
            Where the values of the first rows are, or will be, shape (kept, values of a row).
        """
        copies, m = indices[0].shape
        chunk = min(chunk, max(m, 1))
        sizes = (torch.get_num_threads(), m, copies, edge.shape[1], mlp.hidden, len(tables), chunk, *store.shape)
        three = ctypes.c_void_p * 3
        read = (_at(edge), three(*map(_at, tables)), three(*map(_at, indices)))
        rest = (mlp.bias_in, mlp.weight_out, mlp.bias_out, mlp.norm.weight, mlp.norm.bias, store)
        return cls(*sizes, *read, _at(mlp.weight_in), mlp.weight_in.stride(0), *map(_at, rest))


class EdgeUpdate(NamedTuple):
    """
    How a refinement updates the edges.

    Attributes
    ----------
    ffn
        Feed-forward network that maps messages to changes of the edges.
    residual
        Factor of the old features in each channel, shape (edge,).
    smooth
        Whether the network reads enveloped messages.
    """

    ffn: FeedForward
    residual: torch.Tensor
    smooth: bool


class _Update(ctypes.Structure):
    """`EdgeUpdate` in C: `update_t`."""

    _fields_ = (
        ("smooth", ctypes.c_ssize_t),
        *((name, ctypes.c_void_p) for name in ("first", "first_bias", "second", "second_bias", "residual")),
    )

    @classmethod
    def of(cls, update: EdgeUpdate | None) -> Self:
        """Describe an update to C; null pointers stand for none."""
        if update is None:
            return cls()
        first, second = update.ffn.first, update.ffn.second
        tensors = (first.weight, first.bias, second.weight, second.bias, update.residual)
        return cls(update.smooth, *map(_at, tensors))


class Room:
    """Memory for one call after the other to keep values in: the system takes longer to give it than we to fill it."""

    def __init__(self) -> None:
        self._whole = torch.empty(0)
        self._used = 0

    def clear(self, n: int) -> None:
        """Make room for n float32 values; what was taken before is lost."""
        self._used = 0
        if n > len(self._whole):
            n = max(n, len(self._whole) * 5 // 4)
            self._whole = torch.empty(0)  # forget it first
            self._whole = torch.empty(n)
            _call("in_large_pages", self._whole[:1], self._whole[-1:])

    def take(self, *shape: int) -> torch.Tensor:
        """Take a tensor of it, or a new one if it does not fit; not filled."""
        start, n = self._used, math.prod(shape)
        if start + n > len(self._whole):
            return torch.empty(shape)
        self._used += -(-n // _CACHE_LINE) * _CACHE_LINE
        strides = [math.prod(shape[i + 1 :]) for i in range(len(shape))]
        return torch.empty(0).set_(self._whole.untyped_storage(), start, shape, strides)


class _Rooms(threading.local):
    """The room of each thread."""

    def __init__(self) -> None:
        self.room = Room()


_rooms = _Rooms()


def cleared_room(n_bytes: float) -> Room:
    """Give this thread's room, with so much space, to a call that is the only one to use it until it ends."""
    _rooms.room.clear(int(n_bytes / torch.float32.itemsize))
    return _rooms.room


def _store(ctx: Any, mlp: GatedMLP, edge: torch.Tensor, copies: int, chunks: Chunks, more: int) -> torch.Tensor:
    """Find room for the values of the rows that are kept: those of an MLP and so many more."""
    kept = chunks.kept_rows(len(edge)) if any(ctx.needs_input_grad) else 0
    values: int = cast("ctypes.CDLL", library()).stored(
        *map(ctypes.c_ssize_t, (copies, edge.shape[1], mlp.hidden, more))
    )
    return _room(chunks).take(kept, values)


def _room(chunks: Chunks) -> Workspace:
    """Where a call keeps its values."""
    return chunks.room or Room()


class _Attention(torch.autograd.Function):
    """`attention`; weights come in a tuple, which autograd does not look into."""

    @staticmethod
    def forward(
        ctx: Any,
        weights: tuple[GatedMLP, torch.Tensor, torch.Tensor],
        chunks: Chunks,
        indices: tuple[torch.Tensor, ...],
        *tensors: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        (edge, *tables), n = tensors, len(tensors[1])
        edge_mlp, logits, residual = weights
        store = _store(ctx, edge_mlp, edge, len(indices[0]), chunks, 2 * edge.shape[1])
        mlp = _MLP.of(edge_mlp, edge, tables, indices, chunks.rows, store)
        ctx.weights, ctx.chunks, ctx.indices, ctx.logits = weights, chunks, indices, LOG2_E * logits
        peaks = [edge.new_full((n, edge.shape[1]), -torch.inf) for _ in indices]
        sums = [edge.new_zeros(n, edge.shape[1]) for _ in range(4)]
        new_edge = _room(chunks).take(*edge.shape)
        _call("attention", mlp, ctx.logits, residual, *peaks, *sums, new_edge)
        ctx.save_for_backward(*tensors, *peaks, store)
        return (new_edge, *sums)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        edge, *tables, to_target, to_source, store = ctx.saved_tensors
        edge_mlp, logits, residual = ctx.weights
        mlp = _MLP.of(edge_mlp, edge, tables, ctx.indices, ctx.chunks.rows, store)
        g_new, *g_sums = (g.contiguous() for g in gradients)
        g_edge, g_tables = torch.empty_like(edge), [torch.zeros_like(x) for x in tables]
        _call("attention_backward", mlp, ctx.logits, logits, residual, to_target, to_source, *g_sums, g_new, *g_tables,
              g_edge)  # fmt: skip
        return (None, None, None, g_edge, *g_tables)


class _Refinement(torch.autograd.Function):
    """`refinement`; weights come in tuples or modules, which autograd does not look into."""

    @staticmethod
    def forward(
        ctx: Any,
        message_mlp: GatedMLP,
        update: EdgeUpdate | None,
        chunks: Chunks,
        indices: tuple[torch.Tensor, ...],
        entry: torch.Tensor,
        *tensors: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        edge, envelope, *tables = tensors
        copies, width = len(entry), edge.shape[1]
        store = _store(ctx, message_mlp, edge, copies, chunks, copies * width if update else 0)
        mlp = _MLP.of(message_mlp, edge, tables, indices, chunks.rows, store)
        ctx.message_mlp, ctx.update, ctx.chunks, ctx.indices, ctx.entry = message_mlp, update, chunks, indices, entry
        pooled, new_edge = edge.new_zeros(len(tables[0]), width), _room(chunks).take(*edge.shape)
        _call("refinement", mlp, _Update.of(update), envelope, entry, new_edge, pooled)
        ctx.save_for_backward(*tensors, store)
        return (new_edge, pooled) if update else (pooled,)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        edge, envelope, *tables, store = ctx.saved_tensors
        mlp = _MLP.of(ctx.message_mlp, edge, tables, ctx.indices, ctx.chunks.rows, store)
        *_, g_new, g_pooled = (None, *(g.contiguous() for g in gradients))
        g_edge, (g_envelope, *g_tables) = torch.empty_like(edge), (torch.zeros_like(x) for x in (envelope, *tables))
        _call("refinement_backward", mlp, _Update.of(ctx.update), envelope, ctx.entry, g_new, g_pooled, *g_tables,
              *(None for _ in range(3 - len(tables))), g_envelope, g_edge)  # fmt: skip
        return (None, None, None, None, None, g_edge, g_envelope, *g_tables)


def attention(
    mlp: GatedMLP,
    logits: torch.Tensor,
    residual: torch.Tensor,
    edge: torch.Tensor,
    at_target: Gather,
    at_source: Gather,
    chunks: Chunks,
) -> tuple[torch.Tensor, ...]:
    """
    Messages of an attention. The weights (`mlp`, `logits`, `residual`) get no gradient.

    Parameters
    ----------
    mlp
        Maps an edge and its nodes to a message.
    logits
        Weights of the logits by target and by source, shape (2 · edge, edge).
    residual
        Factor of the old features in each channel, shape (edge,).
    edge
        Features, shape (m, edge).
    at_target, at_source
        The nodes' contributions to the hidden layer.
    chunks
        How to go through the edges.

    Returns
    -------
    tuple of Tensor
        New edges, (m, edge); messages summed by target with their weights and the sum of the weights, (n, edge) each;
        the same by source.
    """
    index, tables = _apart([at_target, at_source])
    return _Attention.apply((mlp, logits, residual), chunks, index, edge.contiguous(), *tables)


def refinement(
    mlp: GatedMLP,
    update: EdgeUpdate | None,
    edge: torch.Tensor,
    envelope: torch.Tensor,
    entry: torch.Tensor,
    gathers: Sequence[Gather],
    chunks: Chunks,
) -> tuple[torch.Tensor, ...]:
    """
    Messages of a refinement. The weights (`mlp`, `update`) get no gradient.

    Parameters
    ----------
    mlp
        Maps an edge and its nodes to a message.
    update
        How the edges are updated; None if new edges are not wanted.
    edge
        Features, shape (m, edge).
    envelope, entry
        Envelopes, and which one each directed copy has, shape (copies, m).
    gathers
        The nodes' contributions to the hidden layer, those of targets first.
    chunks
        How to go through the edges.

    Returns
    -------
    tuple of Tensor
        New edges if wanted, (m, edge); enveloped messages summed by target, (n, edge).
    """
    index, tables = _apart(gathers)
    tensors = (edge.contiguous(), envelope.contiguous(), *tables)
    return _Refinement.apply(mlp, update, chunks, index, entry.contiguous(), *tensors)


def _apart(gathers: Sequence[Gather]) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
    """Take indices and tables apart, contiguous, as C wants them."""
    return tuple(g.index.contiguous() for g in gathers), tuple(g.table.contiguous() for g in gathers)
