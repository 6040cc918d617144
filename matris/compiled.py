"""The messages of attention and refinement on a CPU, with frozen weights: matrix products by torch, all else in C.

What lies between the matrix products takes as long as they do when every operation of it goes through memory on its
own. Here each stretch of it is one pass (compiled.c, built by the machine's compiler when it is first needed), and the
backward pass is written out. The numbers are those of `matris.network` to rounding; without a compiler, in float64,
for other kinds of norm and on other devices, that is what runs.
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
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.autograd.function import once_differentiable

from matris.cache import cache_directory
from matris.rows import parts

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from matris.config import ModelConfig
    from matris.network import Attention, GatedMLP, Refinement
    from matris.rows import Chunks, Gather

logger = logging.getLogger(__name__)

SOURCE = Path(__file__).with_name("compiled.c")
FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC")
_PANEL = 32  # columns: our products take multiples of it
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
    fitting = config.norm_type == "layer" and config.graph_conv_mlp == "gatemlp"
    widest = max(config.node_feat_dim, config.edge_feat_dim, config.three_body_feat_dim)
    if not fitting or device.type != "cpu" or dtype != torch.float32 or os.name != "posix":
        return False
    c = library()
    return c is not None and widest <= c.widest()


def _linear(layer: torch.nn.Linear, x: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
    """Apply a linear layer, or add its results to `out`."""
    y = _product(x, layer.weight.T, out, add=out is not None)
    return y if layer.bias is None else y.add_(layer.bias)


@cache
def _own_products() -> bool:
    """Whether our matrix products are quicker than torch's, whose library is none of AMD's processors' friends."""
    c = library()
    return c is not None and bool(c.has_product()) and "AuthenticAMD" in _processor()


def _product(
    x: torch.Tensor, weight: torch.Tensor, out: torch.Tensor | None = None, *, add: bool = False
) -> torch.Tensor:
    """Give x · weight, or add it to `out`; only rows of x and of `out` must be contiguous."""
    y = x.new_empty(len(x), weight.shape[1]) if out is None else out
    if not _own_products() or y.shape[1] % _PANEL:
        return y.addmm_(x, weight) if add else torch.mm(x, weight, out=y)
    size = (*y.shape, x.shape[1])
    if _call("product", *size, x, x.stride(0), weight, *weight.stride(), y, y.stride(0), int(add)):
        raise MemoryError("not enough memory for a product of matrices")
    return y


def _call(name: str, *arguments: torch.Tensor | int | None) -> int:
    """Call a C function; the rows of tensors must be contiguous. What it returns means something for `product` only."""
    converted: list[ctypes.c_void_p | ctypes.c_long] = []
    for x in arguments:
        if isinstance(x, int):
            converted.append(ctypes.c_long(x))
        else:
            converted.append(ctypes.c_void_p(None if x is None else x.data_ptr()))
    returned: int = getattr(library(), name)(ctypes.c_long(torch.get_num_threads()), *converted)
    return returned


class _Messages:
    """
    A gated MLP on a chunk of edges, and what it keeps for the backward pass.

    Parameters
    ----------
    mlp
        The gated MLP.
    edge
        Features of all edges, shape (m, edge).
    tables, index
        What the directed copies of each edge read of their nodes, projected, and which entries.
    part
        Which edges.
    """

    def __init__(
        self,
        mlp: GatedMLP,
        edge: torch.Tensor,
        tables: Sequence[torch.Tensor],
        index: Sequence[torch.Tensor],
        part: slice,
    ) -> None:
        self.mlp, self.indices = mlp, [i[:, part] for i in index]
        copies, stride = index[0].shape
        self.shape = (part.stop - part.start, copies, stride)
        rows, width = copies * self.shape[0], 2 * mlp.hidden
        self.before, hidden = edge.new_empty(rows, width), edge.new_empty(rows, width)
        projected = _product(edge[part], self._weight_in().T)
        _call("add_and_silu", *self.shape, width, projected, mlp.bias_in, len(tables), *self._entries(tables),
              self.before, hidden)  # fmt: skip
        self.core, self.gate = (_product(x, w.T) for x, w in zip(hidden.chunk(2, 1), mlp.weight_out, strict=True))
        self.message = torch.empty_like(self.core)
        _call("gate", *self.message.shape, self.core, self.gate, *self._affine(), self.message)

    def backward(self, gradient: torch.Tensor, tables: Sequence[torch.Tensor], g_edge: torch.Tensor) -> None:
        """Add, to the gradients by tables and by the edges of the chunk, what comes of that by the messages."""
        core, gate = torch.empty_like(self.core), torch.empty_like(self.gate)
        _call("gate_backward", *core.shape, self.core, self.gate, *self._affine(), gradient, core, gate)
        hidden = torch.empty_like(self.before)
        for g, weight, whole in zip((core, gate), self.mlp.weight_out, hidden.chunk(2, 1), strict=True):
            _product(g, weight, whole)
        projected = hidden.new_empty(self.shape[0], hidden.shape[1])
        _call("add_and_silu_backward", *self.shape, hidden.shape[1], self.before, hidden, len(tables),
              *self._entries(tables), projected)  # fmt: skip
        _product(projected, self._weight_in(), g_edge, add=True)

    def _weight_in(self) -> torch.Tensor:
        """Weights of the first layer that edges meet."""
        return self.mlp.weight_in[:, : self.mlp.inputs[0]]

    def _entries(self, tables: Sequence[torch.Tensor]) -> list[torch.Tensor | None]:
        """Tables and indices as arguments of a function that takes up to three."""
        pairs: list[torch.Tensor | None] = [x for pair in zip(tables, self.indices, strict=True) for x in pair]
        return pairs + [None] * (6 - len(pairs))

    def _affine(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        return self.mlp.bias_out, self.mlp.norm.weight, self.mlp.norm.bias


def _last_first[T](chunks: list[T]) -> Iterator[T]:
    """Go backward through chunks, forgetting each as it is used."""
    if not chunks:
        raise RuntimeError("compiled messages go backward once")
    while chunks:
        yield chunks.pop()


class _Attention(torch.autograd.Function):
    """`attention`."""

    @staticmethod
    def forward(
        ctx: Any, layer: Attention, chunks: Chunks, index: tuple[torch.Tensor, ...], *tensors: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        edge, n = tensors[0], len(tensors[1])
        ctx.layer, ctx.index, ctx.weight = layer, index, (LOG2_E * layer.logits).T
        keep = any(ctx.needs_input_grad) and not chunks.recompute
        peaks = [edge.new_full((n, edge.shape[1]), -torch.inf) for _ in index]
        sums = [edge.new_zeros(n, edge.shape[1]) for _ in range(4)]
        new_edge = torch.empty_like(edge)
        stored: list[torch.Tensor | None] = []
        for part in (where := parts(len(edge), chunks)):
            logits = _product(edge[part], ctx.weight)
            _call("largest", len(logits), *index[0].shape, edge.shape[1], logits, *(i[:, part] for i in index), *peaks)
            stored.append(logits if keep else None)
        ctx.chunks = []
        for part, known in zip(where, stored, strict=True):
            messages, logits = _Attention.chunk(ctx, part, tensors, known)
            _call("attend", *messages.shape, edge.shape[1], logits, messages.message, *messages.indices, *peaks, *sums,
                  edge[part], layer.edge_residual, new_edge[part])  # fmt: skip
            ctx.chunks.append((part, (messages, logits) if keep else None))
        ctx.save_for_backward(*tensors, *peaks)
        return (new_edge, *sums)

    @staticmethod
    def chunk(
        ctx: Any, part: slice, tensors: Sequence[torch.Tensor], logits: torch.Tensor | None = None
    ) -> tuple[_Messages, torch.Tensor]:
        """Compute messages of a chunk, and its logits to the base of two."""
        edge, *tables = tensors
        messages = _Messages(ctx.layer.edge_mlp, edge, tables, ctx.index, part)
        return messages, _product(edge[part], ctx.weight) if logits is None else logits

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        layer, tensors, peaks = ctx.layer, ctx.saved_tensors[:3], ctx.saved_tensors[3:]
        g_new, *g_sums = (g.contiguous() for g in gradients)
        g_edge, g_tables = torch.empty_like(tensors[0]), [torch.zeros_like(x) for x in tensors[1:]]
        for part, kept in _last_first(ctx.chunks):
            messages, logits = kept or _Attention.chunk(ctx, part, tensors)
            g_message, g_logits = torch.empty_like(messages.message), torch.empty_like(logits)
            _call("attend_backward", *messages.shape, g_new.shape[1], logits, messages.message, *messages.indices,
                  *peaks, *g_sums, g_new[part], g_message, g_logits)  # fmt: skip
            torch.mul(g_new[part], layer.edge_residual, out=g_edge[part])
            _product(g_logits, layer.logits, g_edge[part], add=True)
            messages.backward(g_message, g_tables, g_edge[part])
        return (None, None, None, g_edge, *g_tables)


class _Refinement(torch.autograd.Function):
    """`refinement`."""

    @staticmethod
    def forward(
        ctx: Any,
        layer: Refinement,
        chunks: Chunks,
        index: tuple[torch.Tensor, ...],
        entry: torch.Tensor,
        update_edges: bool,
        *tensors: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        edge, envelope, n = tensors[0], tensors[1], len(tensors[2])
        ctx.layer, ctx.index, ctx.entry, ctx.update_edges = layer, index, entry, update_edges
        keep = any(ctx.needs_input_grad) and not chunks.recompute
        pooled, new_edge = edge.new_zeros(n, edge.shape[1]), torch.empty_like(edge)
        ctx.chunks = []
        for part in parts(len(edge), chunks):
            messages = _Messages(layer.message_mlp, edge, tensors[2:], index, part)
            smooth = torch.empty_like(messages.message)
            _call("pool", *messages.shape, smooth.shape[1], messages.message, envelope, entry[:, part],
                  messages.indices[0], smooth, pooled)  # fmt: skip
            inner = None
            if update_edges:
                inner = _linear(layer.edge_ffn.first, smooth if layer.smooth_edges else messages.message)
                mean = edge.new_empty(messages.shape[0], inner.shape[1])
                _call("mean_silu", *messages.shape[:2], inner.shape[1], inner, mean)
                torch.mul(edge[part], layer.edge_residual, out=new_edge[part])
                _linear(layer.edge_ffn.second, mean, new_edge[part])
            ctx.chunks.append((part, (messages, inner) if keep else None))
        ctx.save_for_backward(*tensors)
        return (new_edge, pooled) if update_edges else (pooled,)

    @staticmethod
    def again(ctx: Any, part: slice, tensors: Sequence[torch.Tensor]) -> tuple[_Messages, torch.Tensor | None]:
        """Compute what was not kept of a chunk."""
        layer, (edge, envelope, *tables) = ctx.layer, tensors
        messages = _Messages(layer.message_mlp, edge, tables, ctx.index, part)
        if not ctx.update_edges:
            return messages, None
        read = messages.message
        if layer.smooth_edges:
            read = read * envelope.index_select(0, ctx.entry[:, part].reshape(-1))
        return messages, _linear(layer.edge_ffn.first, read)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        layer, tensors = ctx.layer, ctx.saved_tensors
        *g_new, g_pooled = (g.contiguous() for g in gradients)
        g_edge, (g_envelope, *g_tables) = torch.empty_like(tensors[0]), (torch.zeros_like(x) for x in tensors[1:])
        for part, kept in _last_first(ctx.chunks):
            messages, inner = kept or _Refinement.again(ctx, part, tensors)
            arriving = None
            if inner is not None:
                g_inner, g_mean = torch.empty_like(inner), _product(g_new[0][part], layer.edge_ffn.second.weight)
                _call("mean_silu_backward", *messages.shape[:2], inner.shape[1], inner, g_mean, g_inner)
                arriving = _product(g_inner, layer.edge_ffn.first.weight)
            g_message = torch.empty_like(messages.message)
            _call("pool_backward", *messages.shape, g_message.shape[1], messages.message, tensors[1],
                  ctx.entry[:, part], messages.indices[0], g_pooled, arriving, int(layer.smooth_edges),
                  g_message, g_envelope)  # fmt: skip
            if g_new:
                torch.mul(g_new[0][part], layer.edge_residual, out=g_edge[part])
            else:
                g_edge[part].zero_()
            messages.backward(g_message, g_tables, g_edge[part])
        return (None, None, None, None, None, g_edge, g_envelope, *g_tables)


def attention(
    layer: Attention, edge: torch.Tensor, at_target: Gather, at_source: Gather, chunks: Chunks
) -> tuple[torch.Tensor, ...]:
    """
    Messages of an attention.

    Parameters
    ----------
    layer
        The layer, weights frozen.
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
    return _Attention.apply(layer, chunks, index, edge.contiguous(), *tables)


def refinement(
    layer: Refinement,
    edge: torch.Tensor,
    envelope: torch.Tensor,
    entry: torch.Tensor,
    gathers: Sequence[Gather],
    chunks: Chunks,
    *,
    update_edges: bool,
) -> tuple[torch.Tensor, ...]:
    """
    Messages of a refinement.

    Parameters
    ----------
    layer
        The layer, weights frozen.
    edge
        Features, shape (m, edge).
    envelope, entry
        Envelopes, and which one each directed copy has, shape (copies, m).
    gathers
        The nodes' contributions to the hidden layer, those of targets first.
    chunks
        How to go through the edges.
    update_edges
        Whether new edges are wanted.

    Returns
    -------
    tuple of Tensor
        New edges if wanted, (m, edge); enveloped messages summed by target, (n, edge).
    """
    index, tables = _apart(gathers)
    tensors = (edge.contiguous(), envelope.contiguous(), *tables)
    return _Refinement.apply(layer, chunks, index, entry.contiguous(), update_edges, *tensors)


def _apart(gathers: Sequence[Gather]) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
    """Take indices and tables apart, contiguous, as C wants them."""
    return tuple(g.index.contiguous() for g in gathers), tuple(g.table.contiguous() for g in gathers)
