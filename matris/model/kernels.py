"""C functions for the messages of attention and refinement on a CPU, with frozen weights.

In torch, each operation between two matrix products reads and writes main memory, and together these operations take
as long as the products. In C (kernels.c, compiled on first use by the machine's compiler), a chunk of edges stays in a
core's cache from its first product to its last. The backward pass is written by hand. Results equal those of
`matris.model.network` to rounding. The torch code in that module runs where there is no compiler, in float64, for
other norms, and on other devices.
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
from matris.files.whole_file import whole_file

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matris.model.chunked import Chunks, IndexedTable, Workspace
    from matris.model.config import ModelConfig
    from matris.model.layers import FeedForward, GatedMLP

logger = logging.getLogger(__name__)

SOURCE = Path(__file__).with_name("kernels.c")
FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC")
_CACHE_LINE = 16  # values
LOG2_E = math.log2(math.e)
"""Logits are kept to base two: exp2 is faster than exp, three times faster on AMD processors."""
_LEAST_EXPONENT = -64.0
"""Smallest logarithm of an envelope; see `exponent`."""


@cache
def library() -> ctypes.CDLL | None:
    """
    Load the C functions, compiling them if needed; None if that is not possible.

    The shared library lies in the cache directory. Its name is a hash of source, compiler flags and processor.
    """
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        logger.info("no C compiler: torch computes the messages, which takes 1.4 to 2.5 times as long")
        return None
    origin = b"\0".join([SOURCE.read_bytes(), " ".join(FLAGS).encode(), _processor().encode()])
    name = f"compiled-{hashlib.sha256(origin).hexdigest()[:16]}.so"
    try:
        try:
            return _load(compiler, cache_directory() / name)
        except OSError as error:  # not writable, or mounted noexec
            logger.info("%s: %s", cache_directory(), error)
            with tempfile.TemporaryDirectory() as folder:
                return _load(compiler, Path(folder) / name)
    except (OSError, subprocess.CalledProcessError) as error:
        reason = getattr(error, "stderr", None) or error
        logger.warning("%s cannot build %s, so torch computes the messages: %s", compiler, SOURCE.name, reason)
        return None


def _load(compiler: str, path: Path) -> ctypes.CDLL:
    """Load the shared library, compiling it if it does not exist. Safe for concurrent processes."""
    if not path.exists():
        with whole_file(path) as draft:
            for more in (["-fopenmp"], ["-fopenmp-simd"], []):  # not every compiler supports OpenMP threads
                command = [compiler, *FLAGS, *more, "-o", str(draft), str(SOURCE), "-lm"]
                result = subprocess.run(command, capture_output=True, text=True, check=not more)  # noqa: S603 - our own
                if result.returncode == 0:
                    break
    return ctypes.CDLL(str(path))


def _processor() -> str:
    """Describe the processor, so that machines with other instruction sets do not share a library."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().split("\n\n")[0].splitlines() if path.exists() else []
    return "\n".join(line for line in lines if line.startswith(("vendor", "flags", "Features"))) or platform.processor()


def usable(config: ModelConfig, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the C functions can compute a network; compiles them if so."""
    widths = (config.node_feat_dim, config.edge_feat_dim, config.three_body_feat_dim)
    fitting = config.norm_type == "layer" and config.graph_conv_mlp == "gatemlp"
    if not fitting or any(width % _CACHE_LINE for width in widths):
        return False
    if device.type != "cpu" or dtype != torch.float32 or os.name != "posix":
        return False
    c = library()
    return c is not None and bool(c.has_products()) and max(widths) <= c.widest()


def _call(name: str, *arguments: ctypes.Structure | torch.Tensor | None) -> None:
    """Call a C function with the addresses of its arguments."""
    pointers = (ctypes.byref(x) if isinstance(x, ctypes.Structure) else ctypes.c_void_p(_at(x)) for x in arguments)
    if getattr(library(), name)(*pointers):
        raise MemoryError(f"not enough memory for the chunks of kernel {name}: use fewer threads")


def _at(x: torch.Tensor | None) -> int | None:
    """Address of a tensor."""
    return None if x is None else x.data_ptr()


@torch.no_grad()
def exponent(envelope: torch.Tensor) -> torch.Tensor:
    """
    Compute log2 u, but at least −64: what an envelope u adds to a logit x where the largest weight u·2ˣ is sought.

    A softmax divides the weights of a segment by the largest of them, or by 1 if that is larger. If u were ignored,
    an edge without weight, u = 0, and with a large logit would divide all other weights to zero. If log2 u were not
    limited, the quotient 2ˣ, which is the gradient of u, could overflow.
    """
    return envelope.log2().clamp(min=_LEAST_EXPONENT)


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
        Describe a gated MLP to C. The tensors must outlive the description.

        Parameters
        ----------
        mlp
            The gated MLP.
        edge
            Features of all edges, shape (m, edge).
        tables, indices
            Projected node features, (n, 2 · hidden), and the entries that the directed copies read, (copies, m).
        chunk
            Rows in a chunk.
        store
            Kept values of the first rows, written in the forward pass, shape (kept, values of a row).
        """
        copies, m = indices[0].shape
        chunk = min(chunk, max(m, 1))
        sizes = (torch.get_num_threads(), m, copies, edge.shape[1], mlp.hidden, len(tables), chunk, *store.shape)
        three = ctypes.c_void_p * 3
        inputs = (_at(edge), three(*map(_at, tables)), three(*map(_at, indices)))
        weights = (mlp.bias_in, mlp.weight_out, mlp.bias_out, mlp.norm.weight, mlp.norm.bias, store)
        return cls(*sizes, *inputs, _at(mlp.weight_in), mlp.weight_in.stride(0), *map(_at, weights))


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


def _floats(*shape: int) -> torch.Tensor:
    """Allocate what C takes for an array of floats, whatever torch's default type and device are."""
    return torch.empty(shape, dtype=torch.float32, device="cpu")


class Arena:
    """Memory that consecutive calls reuse: the system takes longer to provide new pages than a call to fill them."""

    def __init__(self) -> None:
        self._memory = _floats(0)
        self._used = 0

    def reset(self, n: int) -> None:
        """Provide memory for n float32 values; tensors taken earlier become invalid."""
        self._used = 0
        if n > len(self._memory):
            n = max(n, len(self._memory) * 5 // 4)
            self._memory = _floats(0)  # free the old memory first
            self._memory = _floats(n)
            _call("in_large_pages", self._memory[:1], self._memory[-1:])

    def take(self, *shape: int) -> torch.Tensor:
        """Allocate an uninitialised tensor in the arena, or outside it if the arena is full."""
        start, n = self._used, math.prod(shape)
        if start + n > len(self._memory):
            return _floats(*shape)
        self._used += -(-n // _CACHE_LINE) * _CACHE_LINE
        strides = [math.prod(shape[i + 1 :]) for i in range(len(shape))]
        return _floats(0).set_(self._memory.untyped_storage(), start, shape, strides)


class _Threads(threading.local):
    """The arena of each thread."""

    def __init__(self) -> None:
        self.arena = Arena()


_threads = _Threads()


def thread_arena(n_bytes: float) -> Arena:
    """Reset the arena of this thread to a size. Only one call may use it at a time."""
    _threads.arena.reset(int(n_bytes / torch.float32.itemsize))
    return _threads.arena


def _kept_values(ctx: Any, mlp: GatedMLP, edge: torch.Tensor, copies: int, chunks: Chunks, more: int) -> torch.Tensor:
    """Allocate the values of the kept rows, (kept, values of a row): those of an MLP and `more` others."""
    kept = chunks.kept_rows(len(edge)) if any(ctx.needs_input_grad) else 0
    values: int = cast("ctypes.CDLL", library()).stored(
        *map(ctypes.c_ssize_t, (copies, edge.shape[1], mlp.hidden, more))
    )
    return _workspace(chunks).take(kept, values)


def _workspace(chunks: Chunks) -> Workspace:
    """Memory for the values that a call keeps."""
    return chunks.workspace or Arena()


class _Attention(torch.autograd.Function):
    """`attention`. Autograd does not inspect the tuple of weights."""

    @staticmethod
    def forward(
        ctx: Any,
        weights: tuple[GatedMLP, torch.Tensor, torch.Tensor],
        chunks: Chunks,
        indices: tuple[torch.Tensor, ...],
        envelope: torch.Tensor | None,
        *tensors: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        (edge, *tables), n = tensors, len(tensors[1])
        edge_mlp, logits, residual = weights
        store = _kept_values(ctx, edge_mlp, edge, len(indices[0]), chunks, 2 * edge.shape[1])
        mlp = _MLP.of(edge_mlp, edge, tables, indices, chunks.rows, store)
        ctx.weights, ctx.chunks, ctx.indices, ctx.logits = weights, chunks, indices, LOG2_E * logits
        least = -torch.inf if envelope is None else 0.0
        peaks = [edge.new_full((n, edge.shape[1]), least) for _ in indices]
        sums = [edge.new_zeros(n, edge.shape[1]) for _ in range(4)]
        new_edge = _workspace(chunks).take(*edge.shape)
        exponents = None if envelope is None else exponent(envelope)
        _call("attention", mlp, ctx.logits, residual, envelope, exponents, *peaks, *sums, new_edge)
        if envelope is not None:  # the 1 of the denominator, shifted like the weights
            sums[1] += torch.exp2(-peaks[0])
            sums[3] += torch.exp2(-peaks[1])
        ctx.save_for_backward(envelope, *tensors, *peaks, store)
        return (new_edge, *sums)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        envelope, edge, *tables, to_target, to_source, store = ctx.saved_tensors
        edge_mlp, logits, residual = ctx.weights
        mlp = _MLP.of(edge_mlp, edge, tables, ctx.indices, ctx.chunks.rows, store)
        g_new, *g_sums = (g.contiguous() for g in gradients)
        g_edge, g_tables = torch.empty_like(edge), [torch.zeros_like(x) for x in tables]
        g_envelope = None if envelope is None else torch.empty_like(envelope)
        _call("attention_backward", mlp, ctx.logits, logits, residual, envelope, to_target, to_source, *g_sums, g_new,
              *g_tables, g_edge, g_envelope)  # fmt: skip
        return (None, None, None, g_envelope, g_edge, *g_tables)


class _Refinement(torch.autograd.Function):
    """`refinement`. Autograd does not inspect the MLP and the update."""

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
        store = _kept_values(ctx, message_mlp, edge, copies, chunks, copies * width if update else 0)
        mlp = _MLP.of(message_mlp, edge, tables, indices, chunks.rows, store)
        ctx.message_mlp, ctx.update, ctx.chunks, ctx.indices, ctx.entry = message_mlp, update, chunks, indices, entry
        pooled, new_edge = edge.new_zeros(len(tables[0]), width), _workspace(chunks).take(*edge.shape)
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
    at_target: IndexedTable,
    at_source: IndexedTable,
    chunks: Chunks,
    envelope: torch.Tensor | None = None,
) -> tuple[torch.Tensor, ...]:
    """
    Compute the messages of an attention. The weights (`mlp`, `logits`, `residual`) get no gradient.

    Parameters
    ----------
    mlp
        Maps features of an edge and its nodes to a message.
    logits
        Weights of the logits by target and by source, shape (2 · edge, edge).
    residual
        Factor of the old features in each channel, shape (edge,).
    edge
        Features, shape (m, edge).
    at_target, at_source
        Contributions of the nodes to the hidden layer.
    chunks
        How to split the edges.
    envelope
        Factor of the weights of each edge, shape (m,), or None.

    Returns
    -------
    tuple of Tensor
        New edges, (m, edge); weighted messages summed by target, (n, edge), and what divides them, (n, edge): the sum
        of the weights, and with envelopes also the weight of the 1; then the same by source.
    """
    indices, tables = _contiguous([at_target, at_source])
    envelope = None if envelope is None else envelope.contiguous()
    return _Attention.apply((mlp, logits, residual), chunks, indices, envelope, edge.contiguous(), *tables)


def refinement(
    mlp: GatedMLP,
    update: EdgeUpdate | None,
    edge: torch.Tensor,
    envelope: torch.Tensor,
    entry: torch.Tensor,
    tables: Sequence[IndexedTable],
    chunks: Chunks,
) -> tuple[torch.Tensor, ...]:
    """
    Compute the messages of a refinement. The weights (`mlp`, `update`) get no gradient.

    Parameters
    ----------
    mlp
        Maps features of an edge and its nodes to a message.
    update
        How the edges are updated; None if they are not.
    edge
        Features, shape (m, edge).
    envelope, entry
        Envelopes, (e, edge), and the envelope of each directed copy, (copies, m).
    tables
        Contributions of the nodes to the hidden layer: by target, by source and, on the line graph, by centre.
    chunks
        How to split the edges.

    Returns
    -------
    tuple of Tensor
        New edges, (m, edge), if there is an update; enveloped messages summed by target, (n, edge).
    """
    indices, contributions = _contiguous(tables)
    tensors = (edge.contiguous(), envelope.contiguous(), *contributions)
    return _Refinement.apply(mlp, update, chunks, indices, entry.contiguous(), *tensors)


def _contiguous(tables: Sequence[IndexedTable]) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
    """Make indices and tables contiguous, as the C functions require."""
    return tuple(t.index.contiguous() for t in tables), tuple(t.table.contiguous() for t in tables)
