"""
The messages of attention and refinement on a GPU, with frozen weights, by the kernels of `matris.model.triton_kernels`.

In torch, the messages of a network of ten blocks are thousands of small kernels, and each operation between two matrix
products passes over memory. Here a few kernels compute them, keep four values per channel of an angle and block
instead of 23, and add without atomic operations. Results equal those of `matris.model.network` to rounding.

Nothing here is imported on a CPU. `computes` decides once per process, device and architecture, after a comparison with
torch on a fixed graph.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, fields, replace
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch.autograd.function import once_differentiable

from matris.files.cache import cache_directory, temporary_directory
from matris.home import made
from matris.model.kernels import LOG2_E
from matris.model.memory import is_out_of_memory
from matris.model.precision import full_precision

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matris.model.chunked import IndexedTable
    from matris.model.config import ModelConfig
    from matris.model.graph import Graph
    from matris.model.kernels import EdgeUpdate
    from matris.model.layers import GatedMLP
    from matris.model.precision import Precision

logger = logging.getLogger(__name__)

WIDTHS = (32, 64, 128)
"""Widths of features for which the kernels were compiled and examined."""

_SEGMENT_ROWS = 16  # rows of a segment that a program reads at a time, at least
_SEGMENT_VALUES = 2**11  # values that it reads at a time where rows are short
_TOLERANCE: dict[Precision, float] = {"ieee": 1e-4, "tf32x3": 1e-4, "bf16x3": 5e-4}
"""
Largest difference from torch in the comparison at first use, as a share of the largest value: several times that of
rounding in the right precision, and less than that of TF32.
"""


class Tile(NamedTuple):
    """How a kernel is compiled: edges in a tile, channels at a time, threads of a program, stages of loads."""

    edges: int
    channels: int
    threads: int
    stages: int

    def options(self, *, amd: bool) -> dict[str, int]:
        """Name what Triton's compiler takes; a warp has 64 threads on AMD's GPUs, and 32 on NVIDIA's."""
        return {"num_warps": self.threads // (64 if amd else 32), "num_stages": self.stages}


TILES: dict[str, Tile] = {
    "attention_forward": Tile(32, 32, 256, 2),
    "means_backward": Tile(32, 32, 256, 2),
    "message_backward": Tile(32, 32, 256, 2),
    "refinement_forward": Tile(32, 32, 256, 2),
    "pool_backward": Tile(32, 32, 256, 1),
}
"""For each kernel over edges. A test compiles them and examines registers, spills and shared memory."""


@cache
def _kernels() -> Any:
    """Import the kernels. Triton keeps compiled ones in the cache directory, unless TRITON_CACHE_DIR is set."""
    folder = cache_directory() / "triton"
    os.environ.setdefault("TRITON_CACHE_DIR", str(folder if made(folder) else temporary_directory() / "triton"))
    from matris.model import triton_kernels

    return triton_kernels


def _run(name: str, programs: int, *arguments: Any, **constants: Any) -> None:
    """Run a kernel on the device of its first argument; Triton itself takes torch's current device."""
    if programs:
        with torch.cuda.device_of(arguments[0]):
            getattr(_kernels(), name)[(programs,)](*arguments, **constants)


def _tiled(name: str, m: int, *arguments: Any, precision: Precision, **constants: Any) -> None:
    """Run a kernel over m edges, tile by tile."""
    tile = TILES[name]
    constants |= {"M": tile.edges, "HC": tile.channels, "PRECISION": precision}
    _run(name, -(-m // tile.edges), *arguments, m, **constants, **tile.options(amd=torch.version.hip is not None))


class Segments(NamedTuple):
    """
    The rows of each segment, in their order.

    Attributes
    ----------
    starts
        Where the rows of each segment start in `rows`, and the end, int32, shape (n + 1,).
    rows
        Rows sorted by segment, int32, shape (m,).
    """

    starts: torch.Tensor
    rows: torch.Tensor

    @classmethod
    def of(cls, index: torch.Tensor, n: int) -> Segments:
        """
        Sort rows by segment: `index`, shape (m,), contains the segment of each row, from 0 to n − 1.

        Examples
        --------
        >>> segments = Segments.of(torch.tensor([2, 0, 2]), 3)
        >>> segments.starts.tolist(), segments.rows.tolist()
        ([0, 1, 1, 3], [1, 0, 2])
        """
        ordered, rows = torch.sort(index, stable=True)
        starts = torch.searchsorted(ordered, torch.arange(n + 1, device=index.device))
        return cls(starts.to(torch.int32), rows.to(torch.int32))

    def sums(
        self, x: torch.Tensor, factor: torch.Tensor | None = None, entry: torch.Tensor | None = None
    ) -> torch.Tensor:
        """
        Add the rows of x, shape (m, d), by segment, shape (n, d).

        Parameters
        ----------
        x
            Summands.
        factor, entry
            What multiplies them: rows of `factor`, (k, d), and the one that each summand takes, int32, (m,).
        """
        n, d = len(self.starts) - 1, x.shape[1]
        total, scaled, width = x.new_empty(n, d), factor is not None, 1 << max(d - 1, 1).bit_length()
        _run(
            "segment_sums", n, x, factor if scaled else x, entry if scaled else self.rows, self.starts, self.rows,
            total, D=d, WIDTH=width, SCALED=scaled, K=max(_SEGMENT_ROWS, _SEGMENT_VALUES // width),
        )  # fmt: skip
        return total


@dataclass(frozen=True)
class Layout:
    """
    The directed edges of one graph, in int32.

    Parameters
    ----------
    target, source
        Nodes of each directed edge, shape (copies · m,).
    center
        On the line graph the atom of each angle, shape (m,).
    entry
        The bond whose envelope a directed edge reads in the refinement, shape (copies · m,).
    by_target, by_source, by_center
        Directed edges of each node, and angles of each atom.
    copies
        Directed edges of an edge.
    """

    target: torch.Tensor
    source: torch.Tensor
    center: torch.Tensor | None
    entry: torch.Tensor
    by_target: Segments
    by_source: Segments
    by_center: Segments | None
    copies: int

    @property
    def m(self) -> int:
        """Number of edges."""
        return len(self.target) // self.copies

    @property
    def pointers(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Targets, sources and centres; without centres the sources stand in their place, and are not read."""
        return self.target, self.source, self.source if self.center is None else self.center


@dataclass(frozen=True)
class Tiles:
    """
    How a graph is computed tile by tile, made once for all blocks.

    Parameters
    ----------
    line, atom
        Its two graphs.
    bonds_of, atoms_of
        Bonds and atoms of each structure.
    precision
        Of matrix products.
    """

    line: Layout
    atom: Layout
    bonds_of: Segments
    atoms_of: Segments
    precision: Precision

    @classmethod
    def of(cls, graph: Graph, precision: Precision) -> Tiles:
        """
        Sort the rows of a graph by segment.

        Raises
        ------
        ValueError
            If the graph has 2³¹ directed edges or more.
        """
        n_atoms, n_bonds = len(graph.numbers), graph.n_bonds
        if max(graph.n_angles, 2 * n_bonds) >= 2**31:
            raise ValueError(f"{graph.n_angles} angles and {n_bonds} bonds: kernels number at most 2³¹ directed edges")
        target, source, center = graph.angle_target, graph.angle_source, graph.angle_center
        narrow = source.to(torch.int32)
        line = Layout(
            target.to(torch.int32), narrow, center.to(torch.int32), narrow, Segments.of(target, n_bonds),
            Segments.of(source, n_bonds), Segments.of(center, n_atoms), 1,
        )  # fmt: skip
        to, of = torch.cat([graph.centers, graph.neighbors]), torch.cat([graph.neighbors, graph.centers])
        own = torch.arange(n_bonds, device=to.device, dtype=torch.int32).repeat(2)
        atom = Layout(
            to.to(torch.int32), of.to(torch.int32), None, own, Segments.of(to, n_atoms), Segments.of(of, n_atoms),
            None, 2,
        )  # fmt: skip
        bonds_of = Segments.of(graph.system[graph.centers], graph.n_systems)
        return cls(line, atom, bonds_of, Segments.of(graph.system, graph.n_systems), precision)

    def layout(self, copies: int) -> Layout:
        """Choose the atom graph, which has two directed copies of each edge, or the line graph, which has one."""
        return self.line if copies == 1 else self.atom

    def attention(
        self,
        mlp: GatedMLP,
        logits: torch.Tensor,
        residual: torch.Tensor,
        edge: torch.Tensor,
        at_target: IndexedTable,
        at_source: IndexedTable,
        envelope: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, ...]:
        """
        Compute the messages of an attention. The weights (`mlp`, `logits`, `residual`) get no gradient.

        The arguments are those of `matris.model.kernels.attention`.

        Returns
        -------
        tuple of Tensor
            New edges, (m, edge), and the means of messages by target and by source, (n, edge).
        """
        tensors = (envelope, edge.contiguous(), at_target.table.contiguous(), at_source.table.contiguous())
        layout = self.layout(len(at_target.index))
        return _Attention.apply((mlp, logits, residual), layout, self.precision, *tensors)

    def refinement(
        self,
        mlp: GatedMLP,
        update: EdgeUpdate | None,
        edge: torch.Tensor,
        envelope: torch.Tensor,
        tables: Sequence[IndexedTable],
    ) -> tuple[torch.Tensor, ...]:
        """
        Compute the messages of a refinement. The weights (`mlp`, `update`) get no gradient.

        The arguments are those of `matris.model.kernels.refinement`.

        Returns
        -------
        tuple of Tensor
            New edges, (m, edge), if there is an update; enveloped messages summed by target, (n, edge).
        """
        tensors = (edge.contiguous(), envelope.contiguous(), *(x.table.contiguous() for x in tables))
        layout = self.layout(len(tables[0].index))
        return _Refinement.apply(mlp, update, layout, self.precision, *tensors)

    def ends(self, table: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Read the rows of a table of bonds, (B, d), at the target and at the source of each angle, (A, d) each."""
        at_target: torch.Tensor = _Rows.apply(table, self.line.target, self.line.by_target)
        at_source: torch.Tensor = _Rows.apply(table, self.line.source, self.line.by_source)
        return at_target, at_source

    def by_atom(self, x: torch.Tensor) -> torch.Tensor:
        """Add values of directed bonds, shape (2 · B, d), by the atom at which they start, (N, d)."""
        return self.atom.by_target.sums(x.contiguous())

    def atoms_by_system(self, x: torch.Tensor) -> torch.Tensor:
        """Add values of atoms, shape (N, d), by structure, (S, d)."""
        return self.atoms_of.sums(x.contiguous())

    def bonds_by_system(self, x: torch.Tensor) -> torch.Tensor:
        """Add values of bonds, shape (B, d), by structure, (S, d)."""
        return self.bonds_of.sums(x.contiguous())


class _Rows(torch.autograd.Function):
    """Rows of a table; the way back adds them by segment."""

    @staticmethod
    def forward(ctx: Any, table: torch.Tensor, index: torch.Tensor, segments: Segments) -> torch.Tensor:
        ctx.segments = segments
        return table.index_select(0, index)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return ctx.segments.sums(gradient.contiguous()), None, None


def _weights(mlp: GatedMLP) -> tuple[Any, ...]:
    """Weights of a gated MLP, as the kernels take them."""
    norm = mlp.norm
    return mlp.weight_in, mlp.weight_in.stride(0), mlp.bias_in, mlp.weight_out, mlp.bias_out, norm.weight, norm.bias


class _Attention(torch.autograd.Function):
    """`Tiles.attention`. Autograd does not inspect the tuple of weights."""

    @staticmethod
    def forward(
        ctx: Any,
        weights: tuple[GatedMLP, torch.Tensor, torch.Tensor],
        layout: Layout,
        precision: Precision,
        envelope: torch.Tensor | None,
        *tensors: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        edge, *tables = tensors
        mlp, logits, residual = weights
        (m, width), n, copies = edge.shape, len(tables[0]), layout.copies
        to_logits = LOG2_E * logits
        values, new_edge = edge.new_empty(2, m, width), torch.empty_like(edge)
        message = edge.new_empty(copies * m, width)
        _tiled(
            "attention_forward", m, edge, layout.target, layout.source, *tables, *_weights(mlp), to_logits, residual,
            values, message, new_edge, precision=precision, H=mlp.hidden, E=width, COPIES=copies,
        )  # fmt: skip
        exponent = None if envelope is None else envelope.log2()
        means: list[torch.Tensor] = []
        for part, segments in zip(values, (layout.by_target, layout.by_source), strict=True):
            mean, norm = edge.new_empty(2, n, width)
            _run(
                "segment_means", n, part, edge if exponent is None else exponent, message, segments.starts,
                segments.rows, mean, norm, m, E=width, COPIES=copies, SMOOTH=exponent is not None, K=_SEGMENT_ROWS,
            )  # fmt: skip
            means += [mean, norm]
        ctx.weights, ctx.layout, ctx.precision, ctx.to_logits = weights, layout, precision, to_logits
        ctx.save_for_backward(exponent, *tensors, message, *means)
        return new_edge, means[0], means[2]

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        exponent, edge, *tables, message, mean_t, norm_t, mean_s, norm_s = ctx.saved_tensors
        g_new, g_target, g_source = (g.contiguous() for g in gradients)
        (mlp, _, residual), layout, precision = ctx.weights, ctx.layout, ctx.precision
        (m, width), smooth = edge.shape, exponent is not None
        g_message, g_logits = torch.empty_like(message), torch.empty_like(edge)
        g_envelope = torch.empty_like(exponent) if smooth else None
        _tiled(
            "means_backward", m, edge, layout.target, layout.source, ctx.to_logits, exponent if smooth else edge,
            message, mean_t, norm_t, g_target, mean_s, norm_s, g_source, g_new, g_message, g_logits,
            g_envelope if smooth else edge, precision=precision, E=width, COPIES=layout.copies, SMOOTH=smooth,
        )  # fmt: skip
        g_edge, g_tables = _message_backward(mlp, layout, precision, edge, tables, residual, g_message, g_new, g_logits)
        return (None, None, None, g_envelope, g_edge, *g_tables)


class _Refinement(torch.autograd.Function):
    """`Tiles.refinement`. Autograd does not inspect the MLP and the update."""

    @staticmethod
    def forward(
        ctx: Any,
        mlp: GatedMLP,
        update: EdgeUpdate | None,
        layout: Layout,
        precision: Precision,
        *tensors: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        edge, envelope, *tables = tensors
        (m, width), copies = edge.shape, layout.copies
        message, new_edge = edge.new_empty(copies * m, width), torch.empty_like(edge) if update else edge
        first, second, residual = _Update.of(update, edge)
        _tiled(
            "refinement_forward", m, edge, *layout.pointers, *_three(tables), *_weights(mlp), envelope, layout.entry,
            *first, *second, residual, message, new_edge, precision=precision, H=mlp.hidden, E=width, COPIES=copies,
            CENTERED=layout.center is not None, **_flags(update),
        )  # fmt: skip
        ctx.mlp, ctx.update, ctx.layout, ctx.precision = mlp, update, layout, precision
        ctx.save_for_backward(*tensors, message)
        pooled = layout.by_target.sums(message, envelope, layout.entry)
        return (new_edge, pooled) if update else (pooled,)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        edge, envelope, *tables, message = ctx.saved_tensors
        mlp, update, layout, precision = ctx.mlp, ctx.update, ctx.layout, ctx.precision
        *g_edges, g_pooled = (g.contiguous() for g in gradients)
        g_new = g_edges[0] if update else None
        m, width = edge.shape
        g_message, g_envelopes = torch.empty_like(message), torch.empty_like(message)
        first, (second, _), residual = _Update.of(update, edge)
        _tiled(
            "pool_backward", m, layout.target, envelope, layout.entry, *first, second, message, g_pooled,
            g_new if update else edge, g_message, g_envelopes, precision=precision, E=width, COPIES=layout.copies,
            **_flags(update),
        )  # fmt: skip
        if layout.center is None:  # each bond has its own envelope
            g_envelope = g_envelopes.view(layout.copies, m, width).sum(0)
        else:
            g_envelope = layout.by_source.sums(g_envelopes)
        del g_envelopes
        g_edge, g_tables = _message_backward(mlp, layout, precision, edge, tables, residual, g_message, g_new, None)
        return (None, None, None, None, g_edge, g_envelope, *g_tables)


def _three(tables: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Tables by target, by source and by centre; without centres that by source stands in, and is not read."""
    target, source, *center = tables
    return target, source, center[0] if center else source


class _Update(NamedTuple):
    """The tensors of `EdgeUpdate`; others stand for what is not read."""

    first: tuple[torch.Tensor, torch.Tensor]
    second: tuple[torch.Tensor, torch.Tensor]
    residual: torch.Tensor

    @classmethod
    def of(cls, update: EdgeUpdate | None, edge: torch.Tensor) -> _Update:
        """Read weights and biases."""
        if update is None:
            return cls((edge, edge), (edge, edge), edge)
        first, second = update.ffn.first, update.ffn.second
        biases = [edge if layer.bias is None else layer.bias for layer in (first, second)]
        return cls((first.weight, biases[0]), (second.weight, biases[1]), update.residual)


def _flags(update: EdgeUpdate | None) -> dict[str, bool]:
    """Constants of kernels that update edges."""
    if update is None:
        return {"UPDATE": False, "BIAS": False, "SMOOTH_EDGES": False}
    return {"UPDATE": True, "BIAS": update.ffn.first.bias is not None, "SMOOTH_EDGES": update.smooth}


def _message_backward(
    mlp: GatedMLP,
    layout: Layout,
    precision: Precision,
    edge: torch.Tensor,
    tables: Sequence[torch.Tensor],
    residual: torch.Tensor,
    g_message: torch.Tensor,
    g_new: torch.Tensor | None,
    g_logits: torch.Tensor | None,
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Gradients by edges and by tables, from those by messages, by new edges and by edges through logits."""
    (m, width), (_, _, *center) = edge.shape, tables
    g_edge, g_hidden = torch.empty_like(edge), edge.new_empty(layout.copies * m, 2 * mlp.hidden)
    _tiled(
        "message_backward", m, edge, *layout.pointers, *_three(tables), *_weights(mlp), residual, g_message,
        edge if g_new is None else g_new, edge if g_logits is None else g_logits, g_edge, g_hidden,
        precision=precision, H=mlp.hidden, E=width, COPIES=layout.copies, CENTERED=bool(center),
        UPDATE=g_new is not None, WEIGHTED=g_logits is not None,
    )  # fmt: skip
    segments = (layout.by_target, layout.by_source, layout.by_center)
    return g_edge, [x.sums(g_hidden) for _, x in zip(tables, segments, strict=False) if x is not None]


def fits(config: ModelConfig) -> bool:
    """
    Whether there are kernels for an architecture.

    Examples
    --------
    >>> import matris
    >>> config = matris.load(device="cpu").config
    >>> fits(config), fits(replace(config, edge_feat_dim=48))
    (True, False)
    """
    widths = (config.node_feat_dim, config.edge_feat_dim, config.three_body_feat_dim)
    return config.norm_type == "layer" and config.graph_conv_mlp == "gatemlp" and set(widths) <= set(WIDTHS)


@cache
def computes(config: ModelConfig, device: torch.device, dtype: torch.dtype, precision: Precision) -> bool:
    """
    Whether the kernels compute a network on a device: they exist, compile, and give the numbers of torch.

    The numbers are energies, forces and stresses of two blocks with drawn weights, for a fixed graph. Otherwise torch
    computes the messages, and the log tells why.

    Raises
    ------
    RuntimeError
        If the device has no memory left.
    """
    if not fits(config) or dtype != torch.float32:
        reason = f"no kernels for this architecture in {dtype}: they need layer norms, gates and widths {WIDTHS}"
    elif find_spec("triton") is None:
        reason = "triton is not installed"
    else:
        try:
            reason = _difference(config, device, precision)
        except Exception as error:  # whatever a compiler or a driver raises, torch can compute
            if is_out_of_memory(error):
                raise
            reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
    if reason:
        logger.warning("torch computes the messages on %s, which takes longer: %s", device, reason)
    return not reason


def _difference(config: ModelConfig, device: torch.device, precision: Precision) -> str:
    """Say where the kernels differ from torch on a fixed graph; empty if they do not."""
    from matris.model.chunked import Chunks
    from matris.model.network import MatRIS, evaluate

    with torch.random.fork_rng(devices=[]), torch.device("cpu"), torch.inference_mode(False):
        torch.manual_seed(0)
        network = MatRIS(replace(config, num_layers=2), magmoms=False)
    network = network.requires_grad_(False).eval().to(device=device, dtype=torch.float32)
    graph = check_graph(config, device)
    chunks = Chunks(len(graph.angle_sign), tiles=Tiles.of(graph, precision))
    with full_precision():
        ours, torchs = (evaluate(network, graph, chunks=x) for x in (chunks, None))
    differences = []
    for name in ("atom_energies", "forces", "stresses"):
        right, value = getattr(torchs, name), getattr(ours, name)
        error = float((value - right).abs().max() / right.abs().max())
        if not error <= _TOLERANCE[precision]:
            differences.append(f"{name} by {error:.1e}")
    return f"in {precision} its kernels differ: {', '.join(differences)} of the largest" if differences else ""


def check_graph(config: ModelConfig, device: torch.device) -> Graph:
    """Build the graph of the comparison, on the host: two crystals, two atoms without angles, and one alone."""
    import numpy as np

    from matris.model.graph import Batch, Geometry, Graph, build_graph

    box = 4 * config.pairwise_cutoff
    far = (config.three_body_cutoff + config.pairwise_cutoff) / 2
    skew = [[4.1, 0, 0], [0.4, 3.9, 0], [0.2, 0.3, 4.4]]
    crystals = [
        Geometry(np.array(numbers), np.array(places, dtype=float), np.array(cell, dtype=float), np.ones(3, dtype=bool))
        for numbers, cell, places in (
            ([14, 8], np.diag([3.1, 3.3, 3.6]), [[0, 0, 0], [1.4, 1.5, 1.9]]),
            ([11, 17, 26], skew, [[0, 0, 0], [2, 0.1, 0.2], [1, 2, 2.5]]),
            ([3, 9], np.diag([box] * 3), [[0, 0, 0], [0, 0, far]]),
            ([29], np.diag([box] * 3), [[0, 0, 0]]),
        )
    ]
    graph = build_graph(Batch.of(crystals), config.pairwise_cutoff, config.three_body_cutoff)
    return Graph(**{field.name: getattr(graph, field.name).to(device) for field in fields(graph)})
