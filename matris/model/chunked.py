"""Functions applied to the rows of edge tensors, all at once or chunk by chunk.

A structure has about a thousand times more angles than atoms. The values that a gated MLP keeps of each angle for the
backward pass dominate the memory of a device. In chunks, only the inputs and outputs of a function are kept; its
intermediate values are freed at the end of each chunk.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    RowFunction = Callable[..., tuple[torch.Tensor, ...]]


class Workspace(Protocol):
    """Memory from which a call allocates the tensors that it keeps."""

    def take(self, *shape: int) -> torch.Tensor:
        """Allocate an uninitialised float32 tensor."""


class GraphKernels(Protocol):
    """Kernels that compute the messages of a whole graph: `matris.model.triton_messages.Tiles`."""

    @property
    def attention(self) -> Callable[..., tuple[torch.Tensor, ...]]:
        """Messages of an attention."""

    @property
    def refinement(self) -> Callable[..., tuple[torch.Tensor, ...]]:
        """Messages of a refinement."""

    def ends(self, table: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Read the rows of a table of bonds at both ends of each angle."""

    def by_atom(self, x: torch.Tensor) -> torch.Tensor:
        """Add values of directed bonds by the atom at which they start."""

    def atoms_by_system(self, x: torch.Tensor) -> torch.Tensor:
        """Add values of atoms by structure."""

    def bonds_by_system(self, x: torch.Tensor) -> torch.Tensor:
        """Add values of bonds by structure."""


@dataclass(frozen=True)
class Chunks:
    """
    How to split rows into chunks.

    Parameters
    ----------
    rows
        Rows in a chunk.
    kept
        Fraction of the rows, from 0 to 1, whose intermediate values are kept for the backward pass. Those of the other
        rows are recomputed, which takes a third more time and a fraction of the memory.
    kernels
        Whether to use the C functions of `matris.model.kernels`.
    workspace
        Memory in which the C functions keep values; by default newly allocated memory.
    tiles
        Kernels that compute all messages of a graph on a GPU, in place of chunks.
    """

    rows: int
    kept: float = 1.0
    kernels: bool = False
    workspace: Workspace | None = None
    tiles: GraphKernels | None = None

    def kept_rows(self, m: int) -> int:
        """Count the rows, out of m, whose values are kept: those of the first chunks."""
        return m if self.kept >= 1 else int(self.kept * m) // self.rows * self.rows


@dataclass(frozen=True)
class IndexedTable:
    """A table, shape (n, d), and the entries that each row reads, as an index of shape (copies, m)."""

    table: torch.Tensor
    index: torch.Tensor


@dataclass(frozen=True)
class Segments:
    """The segment to which each summand belongs, shape (copies, m), and the number n of segments."""

    index: torch.Tensor
    n: int


def chunk_slices(m: int, chunks: Chunks | None) -> list[slice]:
    """Split m rows into chunks. Zero rows give one empty chunk, which defines the shapes of the results."""
    if chunks is None:
        return [slice(None)]
    return [slice(start, min(start + chunks.rows, m)) for start in range(0, max(m, 1), chunks.rows)]


def segment_sum(x: torch.Tensor, index: torch.Tensor, n: int) -> torch.Tensor:
    """Sum the rows of x, shape (m, d), by segment, shape (n, d)."""
    return x.new_zeros(n, x.shape[1]).index_add(0, index, x)


def map_rows(
    function: RowFunction,
    rows: Sequence[torch.Tensor],
    tables: Sequence[IndexedTable],
    segments: Sequence[Segments],
    chunks: Chunks | None,
) -> tuple[torch.Tensor, ...]:
    """
    Apply a function to rows, and sum some of its results by segment.

    Parameters
    ----------
    function
        Called with c rows, (c, …) each, then the table entries that these rows read, (copies · c, d) each, ordered by
        copy, then by row. Returns one result per row, (c, …) each, then summands, (copies · c, d) each, one tensor for
        each of `segments`. It may read weights, which get no gradient when `chunks` is given.
    rows
        Tensors of m rows.
    tables
        Tables that the rows read.
    segments
        Segments by which the summands are added.
    chunks
        How to split the rows. None processes all rows at once, and the results can be differentiated twice.

    Returns
    -------
    tuple of Tensor
        The results by row, (m, …) each, then the sums, (n, d) each.
    """
    if chunks is not None:
        layout = _Layout(function, len(rows), [t.index for t in tables], segments, chunks)
        return tuple(_MapRows.apply(layout, *rows, *(t.table for t in tables)))
    entries = [t.table.index_select(0, t.index.reshape(-1)) for t in tables]
    results = function(*rows, *entries)
    n_by_row = len(results) - len(segments)
    sums = [segment_sum(x, s.index.reshape(-1), s.n) for x, s in zip(results[n_by_row:], segments, strict=True)]
    return (*results[:n_by_row], *sums)


@dataclass(frozen=True)
class _Layout:
    """Arguments of `map_rows` except the differentiable tensors: `n_rows` row tensors, then the tables."""

    function: RowFunction
    n_rows: int
    indices: Sequence[torch.Tensor]
    segments: Sequence[Segments]
    chunks: Chunks


class _MapRows(torch.autograd.Function):
    """`map_rows` in chunks."""

    @staticmethod
    def forward(ctx: Any, layout: _Layout, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.layout, ctx.kept = layout, []
        needs_gradient = any(ctx.needs_input_grad)
        rows = tensors[: layout.n_rows]
        kept = layout.chunks.kept_rows(len(rows[0])) if needs_gradient else 0
        by_row: list[torch.Tensor] = []
        sums: list[torch.Tensor] = []
        for part in chunk_slices(len(rows[0]), layout.chunks):
            inputs = _inputs(layout, part, tensors)
            if part.start < kept:
                results = _with_graph(layout.function, inputs, ctx.needs_input_grad[1:])
                ctx.kept.append((inputs, results))
            else:
                results = layout.function(*inputs)
            n_by_row = len(results) - len(layout.segments)
            summands = results[n_by_row:]
            if not sums and not by_row:
                by_row = [x.new_empty(len(rows[0]), *x.shape[1:]) for x in results[:n_by_row]]
                sums = [x.new_zeros(s.n, *x.shape[1:]) for x, s in zip(summands, layout.segments, strict=True)]
            for whole, piece in zip(by_row, results, strict=False):
                whole[part] = piece.detach()
            for total, piece, s in zip(sums, summands, layout.segments, strict=True):
                total.index_add_(0, s.index[:, part].reshape(-1), piece.detach())
        if needs_gradient:
            ctx.save_for_backward(*tensors)
        return (*by_row, *sums)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        layout, tensors, needed = ctx.layout, ctx.saved_tensors, ctx.needs_input_grad[1:]
        differentiated = [i for i, need in enumerate(needed) if need]
        totals = {i: torch.zeros_like(tensors[i]) for i in differentiated}
        n_by_row = len(gradients) - len(layout.segments)
        for number, part in enumerate(chunk_slices(len(tensors[0]), layout.chunks)):
            if number < len(ctx.kept) and ctx.kept[number]:
                inputs, results = ctx.kept[number]
                ctx.kept[number] = None  # a second backward pass recomputes
            else:
                inputs = _inputs(layout, part, tensors)
                results = _with_graph(layout.function, inputs, needed)
            output_gradients = [g if g is None else g[part] for g in gradients[:n_by_row]]
            for gradient, s in zip(gradients[n_by_row:], layout.segments, strict=True):
                output_gradients.append(
                    gradient if gradient is None else gradient.index_select(0, s.index[:, part].reshape(-1))
                )
            used = [(r, g) for r, g in zip(results, output_gradients, strict=True) if g is not None and r.requires_grad]
            if not used:
                continue
            input_gradients = torch.autograd.grad(
                [r for r, _ in used], [inputs[i] for i in differentiated], [g for _, g in used], allow_unused=True
            )
            for i, gradient in zip(differentiated, input_gradients, strict=True):
                if gradient is None:
                    continue
                if i < layout.n_rows:
                    totals[i][part] = gradient
                else:
                    index = layout.indices[i - layout.n_rows][:, part].reshape(-1)
                    totals[i].index_add_(0, index, gradient)
        return (None, *(totals.get(i) for i in range(len(tensors))))


def _inputs(layout: _Layout, part: slice, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Rows of a chunk, and the table entries that they read."""
    rows, tables = tensors[: layout.n_rows], tensors[layout.n_rows :]
    entries = [
        table.index_select(0, index[:, part].reshape(-1)) for table, index in zip(tables, layout.indices, strict=True)
    ]
    return [*(row[part] for row in rows), *entries]


def _with_graph(function: RowFunction, inputs: list[torch.Tensor], needed: Sequence[bool]) -> tuple[torch.Tensor, ...]:
    """Call the function with gradients enabled; the inputs become leaves of the graph, in place."""
    inputs[:] = [x.detach().requires_grad_(need) for x, need in zip(inputs, needed, strict=True)]
    with torch.enable_grad():
        return function(*inputs)
