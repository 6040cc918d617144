"""Functions of the rows of edges, all at once or a chunk at a time.

Angles outnumber atoms by a thousand, and what a gated MLP keeps of each for the backward pass is what fills a device.
In chunks, only the inputs and outputs of a function are kept, and its inner values live as long as a chunk.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    RowFunction = Callable[..., tuple[torch.Tensor, ...]]


class Workspace(Protocol):
    """Memory that tensors are taken of."""

    def take(self, *shape: int) -> torch.Tensor:
        """Take a float32 tensor; its values are not set."""


@dataclass(frozen=True)
class Chunks:
    """
    How to go through rows.

    Parameters
    ----------
    rows
        Rows in a chunk.
    kept
        Share of the rows, from 0 to 1, whose inner values are kept for the backward pass. Those of the others are
        computed again: a third more time for a fraction of the memory.
    compiled
        Whether to use the functions of `matris.model.kernels`.
    room
        Where these keep values; by default in new memory.
    """

    rows: int
    kept: float = 1.0
    compiled: bool = False
    room: Workspace | None = None

    def kept_rows(self, m: int) -> int:
        """Of m rows, so many in the first chunks are kept."""
        return m if self.kept >= 1 else int(self.kept * m) // self.rows * self.rows


@dataclass(frozen=True)
class Gather:
    """A table, shape (n, d), of which every row reads the entries of an index, shape (copies, m)."""

    table: torch.Tensor
    index: torch.Tensor


@dataclass(frozen=True)
class Sum:
    """Where summands go: an index, shape (copies, m), into n segments."""

    index: torch.Tensor
    n: int


def parts(m: int, chunks: Chunks | None) -> list[slice]:
    """Cut m rows into chunks; no rows are one empty chunk, which tells the shapes of the results."""
    if chunks is None:
        return [slice(None)]
    return [slice(start, min(start + chunks.rows, m)) for start in range(0, max(m, 1), chunks.rows)]


def segment_sum(x: torch.Tensor, index: torch.Tensor, n: int) -> torch.Tensor:
    """Add up rows of x, shape (m, d), by segment: shape (n, d)."""
    return x.new_zeros(n, x.shape[1]).index_add(0, index, x)


def by_rows(
    function: RowFunction,
    rows: Sequence[torch.Tensor],
    gathers: Sequence[Gather],
    sums: Sequence[Sum],
    chunks: Chunks | None,
) -> tuple[torch.Tensor, ...]:
    """
    Apply a function to rows, and add some of its results up by segment.

    Parameters
    ----------
    function
        Gets the rows, (c, …) each, then what they gather, (copies · c, d) each, the first copies of all rows first.
        Returns results by row, (c, …) each, then summands, (copies · c, d) each, one for each of `sums`. It may read
        weights, which get no gradient when `chunks` is given.
    rows
        Tensors of m rows.
    gathers
        What each row reads elsewhere.
    sums
        Where the summands go.
    chunks
        How to go through the rows; None does so in one piece, and can be differentiated twice.

    Returns
    -------
    tuple of Tensor
        The results by row, (m, …) each, then the sums, (n, d) each.
    """
    if chunks is not None:
        layout = _Layout(function, len(rows), [g.index for g in gathers], sums, chunks)
        return tuple(_ByRows.apply(layout, *rows, *(g.table for g in gathers)))
    gathered = [g.table.index_select(0, g.index.reshape(-1)) for g in gathers]
    results = function(*rows, *gathered)
    by_row = len(results) - len(sums)
    added = [segment_sum(x, s.index.reshape(-1), s.n) for x, s in zip(results[by_row:], sums, strict=True)]
    return (*results[:by_row], *added)


@dataclass(frozen=True)
class _Layout:
    """What `by_rows` was asked to do, but for the tensors that are differentiated."""

    function: RowFunction
    n_rows: int
    gathered: Sequence[torch.Tensor]
    sums: Sequence[Sum]
    chunks: Chunks


class _ByRows(torch.autograd.Function):
    """`by_rows` in chunks."""

    @staticmethod
    def forward(ctx: Any, layout: _Layout, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.layout, ctx.kept = layout, []
        differentiated = any(ctx.needs_input_grad)
        rows = tensors[: layout.n_rows]
        kept = layout.chunks.kept_rows(len(rows[0])) if differentiated else 0
        by_row: list[torch.Tensor] = []
        added: list[torch.Tensor] = []
        for part in parts(len(rows[0]), layout.chunks):
            inputs = _inputs(layout, part, tensors)
            if part.start < kept:
                results = _with_graph(layout.function, inputs, ctx.needs_input_grad[1:])
                ctx.kept.append((inputs, results))
            else:
                results = layout.function(*inputs)
            n_by_row = len(results) - len(layout.sums)
            if not added and not by_row:
                by_row = [x.new_empty(len(rows[0]), *x.shape[1:]) for x in results[:n_by_row]]
                added = [x.new_zeros(s.n, *x.shape[1:]) for x, s in zip(results[n_by_row:], layout.sums, strict=True)]
            for whole, piece in zip(by_row, results, strict=False):
                whole[part] = piece.detach()
            for total, piece, s in zip(added, results[n_by_row:], layout.sums, strict=True):
                total.index_add_(0, s.index[:, part].reshape(-1), piece.detach())
        if differentiated:
            ctx.save_for_backward(*tensors)
        return (*by_row, *added)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        layout, tensors, needed = ctx.layout, ctx.saved_tensors, ctx.needs_input_grad[1:]
        wanted = [i for i, need in enumerate(needed) if need]
        totals = {i: torch.zeros_like(tensors[i]) for i in wanted}
        n_by_row = len(gradients) - len(layout.sums)
        for number, part in enumerate(parts(len(tensors[0]), layout.chunks)):
            if number < len(ctx.kept) and ctx.kept[number]:
                inputs, results = ctx.kept[number]
                ctx.kept[number] = None  # a second pass backward computes again
            else:
                inputs = _inputs(layout, part, tensors)
                results = _with_graph(layout.function, inputs, needed)
            arriving = [g if g is None else g[part] for g in gradients[:n_by_row]]
            for gradient, s in zip(gradients[n_by_row:], layout.sums, strict=True):
                arriving.append(
                    gradient if gradient is None else gradient.index_select(0, s.index[:, part].reshape(-1))
                )
            used = [(r, g) for r, g in zip(results, arriving, strict=True) if g is not None and r.requires_grad]
            if not used:
                continue
            leaving = torch.autograd.grad(
                [r for r, _ in used], [inputs[i] for i in wanted], [g for _, g in used], allow_unused=True
            )
            for i, gradient in zip(wanted, leaving, strict=True):
                if gradient is None:
                    continue
                if i < layout.n_rows:
                    totals[i][part] = gradient
                else:
                    index = layout.gathered[i - layout.n_rows][:, part].reshape(-1)
                    totals[i].index_add_(0, index, gradient)
        return (None, *(totals.get(i) for i in range(len(tensors))))


def _inputs(layout: _Layout, part: slice, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    rows, tables = tensors[: layout.n_rows], tensors[layout.n_rows :]
    gathered = [
        table.index_select(0, index[:, part].reshape(-1)) for table, index in zip(tables, layout.gathered, strict=True)
    ]
    return [*(row[part] for row in rows), *gathered]


def _with_graph(function: RowFunction, inputs: list[torch.Tensor], needed: Sequence[bool]) -> tuple[torch.Tensor, ...]:
    """Call the function so that its results can be differentiated by the inputs, which become leaves."""
    inputs[:] = [x.detach().requires_grad_(need) for x, need in zip(inputs, needed, strict=True)]
    with torch.enable_grad():
        return function(*inputs)
