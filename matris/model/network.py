"""The MatRIS network (arXiv 2603.02002): separable attention and refinement on atoms, bonds and angles.

The algebra is rearranged for speed, and the function stays the same:

* The first linear layer of each gated MLP is split by its inputs, so that atoms and bonds are projected once and then
  gathered.
* Core and gate share one matrix product, and so do both attention logits.
* Softmax and weighted sum are one ratio per node.
* Unused outputs of the last block are skipped.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple, cast

import torch
from torch import nn
from torch.nn import functional

from matris.model import kernels
from matris.model.basis import angular_basis, positive_envelope, radial_basis
from matris.model.chunked import IndexedTable, Segments, chunk_slices, map_rows, segment_sum
from matris.model.config import MAX_ATOMIC_NUMBER
from matris.model.layers import FeedForward, GatedMLP, Norm, mean_of_copies, to_copies

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from matris.model.chunked import Chunks
    from matris.model.config import ModelConfig
    from matris.model.domain import Domain
    from matris.model.graph import Graph


@torch.no_grad()
def segment_peaks(
    function: Callable[..., tuple[torch.Tensor]],
    rows: Sequence[torch.Tensor],
    segments: Sequence[Segments],
    chunks: Chunks | None,
    least: float,
) -> list[torch.Tensor]:
    """
    Find the largest value of each segment and channel, by which a softmax shifts its logits without effect.

    Parameters
    ----------
    function
        Maps rows, (c, …) each, to values, (c, len(segments) · d).
    rows
        Tensors of m rows.
    segments
        The segments, for each block of d channels.
    chunks
        How to split the rows.
    least
        Smallest result, that of an empty segment.

    Returns
    -------
    list of Tensor
        Shapes (n, d).
    """
    peaks: list[torch.Tensor] = []
    for part in chunk_slices(rows[0].shape[0], chunks):
        (values,) = function(*(row[part] for row in rows))
        blocks = values.chunk(len(segments), 1)
        peaks = peaks or [x.new_full((s.n, x.shape[1]), least) for x, s in zip(blocks, segments, strict=True)]
        for peak, block, s in zip(peaks, blocks, segments, strict=True):
            for index in s.index:
                peak.scatter_reduce_(0, index[part, None].expand_as(block), block, "amax")
    return peaks


class Attention(nn.Module):
    """
    Separable attention on one graph.

    Features are stored once per edge; messages run along the `copies` directed copies of each edge.

    The messages m of the edges of a node are averaged in each channel, with logits x: Σ eˣ m / Σ eˣ. In a smooth
    network, each edge has an envelope u that vanishes at the cutoff, and the average is Σ u eˣ m / (1 + Σ u eˣ).
    Without the 1, u would cancel where a node has a single edge, and the last edge would vanish with a jump.
    """

    def __init__(self, node: int, edge: int, config: ModelConfig, copies: int) -> None:
        super().__init__()
        gated = config.graph_conv_mlp == "gatemlp"
        self.copies = copies
        self.edge_mlp = GatedMLP((edge, node, node), node, edge, config.norm_type, gated=gated)
        self.node_mlp = GatedMLP((node, edge, edge), node, node, config.norm_type, gated=gated)
        self.logits = nn.Parameter(torch.empty(2 * edge, edge))  # rows: by target, by source
        self.node_residual = nn.Parameter(torch.ones(node))
        self.edge_residual = nn.Parameter(torch.ones(edge))
        nn.init.normal_(self.logits, std=edge**-0.5)

    def forward(
        self,
        node: torch.Tensor,
        edge: torch.Tensor,
        target: torch.Tensor,
        source: torch.Tensor,
        envelope: torch.Tensor | None,
        chunks: Chunks | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Update both features.

        Parameters
        ----------
        node, edge
            Shapes (n, node) and (m, edge).
        target, source
            Nodes of each directed copy, shape (copies, m).
        envelope
            u of each edge, from 0 to 1, shape (m,); None if the network is not smooth.
        chunks
            How to split the edges.
        """
        at_target = IndexedTable(self.edge_mlp.project(1, node), target)
        at_source = IndexedTable(self.edge_mlp.project(2, node), source)
        weights = self.edge_mlp, self.logits, self.edge_residual
        if chunks is not None and chunks.tiles:
            new_edge, by_target, by_source = chunks.tiles.attention(*weights, edge, at_target, at_source, envelope)
        else:
            if chunks is not None and chunks.kernels:
                new_edge, *sums = kernels.attention(*weights, edge, at_target, at_source, chunks, envelope)
            else:
                new_edge, *sums = self.messages(edge, at_target, at_source, envelope, chunks)
            target_sum, target_norm, source_sum, source_norm = sums
            tiny = torch.finfo(node.dtype).tiny  # for nodes without edges
            by_target, by_source = target_sum / target_norm.clamp(min=tiny), source_sum / source_norm.clamp(min=tiny)
        update = self.node_mlp.project(0, node)
        update = update + self.node_mlp.project(1, by_target)
        update = update + self.node_mlp.project(2, by_source)
        new_node = self.node_mlp.finish(update) + self.node_residual * node
        return new_node, new_edge

    def messages(
        self,
        edge: torch.Tensor,
        at_target: IndexedTable,
        at_source: IndexedTable,
        envelope: torch.Tensor | None,
        chunks: Chunks | None,
    ) -> tuple[torch.Tensor, ...]:
        """Compute new edges, then by target and by source: weighted sums of messages, and what divides them."""
        mlp, copies = self.edge_mlp, self.copies
        to_target, to_source = (Segments(x.index, x.table.shape[0]) for x in (at_target, at_source))
        logits: list[torch.Tensor] = []
        if chunks is None or chunks.kept >= 1:  # otherwise logits are recomputed, which is cheaper than keeping them
            logits += map_rows(self.logits_of, [edge], [], [], chunks)
        # where an envelope is zero so is its slope, and its gradient, which may overflow, must not be read
        scale = [] if envelope is None else [torch.where(envelope > 0, envelope, 0)[:, None]]
        exponents = [] if envelope is None else [kernels.exponent(envelope)[:, None]]

        def weight(x: torch.Tensor, *exponent: torch.Tensor) -> tuple[torch.Tensor]:
            values = x if logits else self.logits_of(x)[0]
            return (sum(exponent, values),)

        least = -torch.inf if envelope is None else 0.0
        peaks = segment_peaks(weight, [*(logits or [edge]), *exponents], (to_target, to_source), chunks, least)

        def function(edge: torch.Tensor, *others: torch.Tensor) -> tuple[torch.Tensor, ...]:
            *stored, at_target, at_source, target_peak, source_peak = others
            message = mlp.finish(to_copies(mlp.project(0, edge), copies) + at_target + at_source)
            (values,) = stored[: len(logits)] or self.logits_of(edge)
            by_target, by_source = to_copies(values, copies).chunk(2, 1)
            by_target = torch.exp2(by_target - target_peak)
            by_source = torch.exp2(by_source - source_peak)
            for factor in stored[len(logits) :]:
                factors = to_copies(factor, copies)
                by_target, by_source = factors * by_target, factors * by_source
            return (
                mean_of_copies(message, copies),
                by_target * message, by_target, by_source * message, by_source,
            )  # fmt: skip

        peak_tables = [IndexedTable(peaks[0], at_target.index), IndexedTable(peaks[1], at_source.index)]
        message, *sums = map_rows(
            function,
            [edge, *logits, *scale],
            [at_target, at_source, *peak_tables],
            [to_target, to_target, to_source, to_source],
            chunks,
        )
        if envelope is not None:  # the 1 of the denominator, shifted like the weights
            sums[1] = sums[1] + torch.exp2(-peaks[0])
            sums[3] = sums[3] + torch.exp2(-peaks[1])
        return (message + self.edge_residual * edge, *sums)

    def logits_of(self, edge: torch.Tensor) -> tuple[torch.Tensor]:
        """Logits of edges to base two, by target and by source side by side, (m, 2 · edge)."""
        return (functional.linear(edge, kernels.LOG2_E * self.logits),)


class Refinement(nn.Module):
    """Refinement with a learnable envelope; `center` is the feature width of the atom that two bonds share, or 0."""

    def __init__(self, node: int, edge: int, config: ModelConfig, copies: int, center: int = 0) -> None:
        super().__init__()
        gated = config.graph_conv_mlp == "gatemlp"
        inputs = (edge, center, node, node) if center else (edge, node, node)
        self.copies = copies
        self.smooth_edges = config.use_smoothed_for_delta_edge and not center
        self.message_mlp = GatedMLP(inputs, node, edge, config.norm_type, gated=gated)
        self.envelope = nn.Linear(config.num_radial, edge, bias=False)
        self.node_ffn = FeedForward(edge, node, node, bias=config.use_bias)
        self.edge_ffn = FeedForward(edge, edge, edge, bias=config.use_bias)
        self.node_residual = nn.Parameter(torch.ones(node))
        self.edge_residual = nn.Parameter(torch.ones(edge))

    def forward(
        self,
        node: torch.Tensor,
        edge: torch.Tensor,
        target: torch.Tensor,
        source: torch.Tensor,
        basis: torch.Tensor,
        chunks: Chunks | None,
        center: IndexedTable | None = None,
        *,
        update_edges: bool = True,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Update both features.

        Parameters
        ----------
        node, edge
            Shapes (n, node) and (m, edge).
        target, source
            Nodes of each directed copy, shape (copies, m).
        basis
            Smooth radial basis of each bond, shape (bonds, num_radial).
        chunks
            How to split the edges.
        center
            On the line graph: atom features (N, center) and the atom of each angle (1, m).
        update_edges
            False in the last block, whose edge features are not used.
        """
        mlp, last = self.message_mlp, len(self.message_mlp.inputs) - 1
        envelope = self.envelope(basis)
        tables = [IndexedTable(mlp.project(last - 1, node), target), IndexedTable(mlp.project(last, node), source)]
        if center is None:  # atom graph: edges are bonds, each with its own envelope
            entry = torch.arange(edge.shape[0], device=edge.device).repeat(self.copies, 1)
        else:  # line graph: nodes are bonds; the target's envelope factors out of its sum
            entry = source
            tables.append(IndexedTable(mlp.project(1, center.table), center.index))
        update = kernels.EdgeUpdate(self.edge_ffn, self.edge_residual, self.smooth_edges) if update_edges else None
        if chunks is not None and chunks.tiles:
            results = chunks.tiles.refinement(mlp, update, edge, envelope, tables)
        elif chunks is not None and chunks.kernels:
            results = kernels.refinement(mlp, update, edge, envelope, entry, tables, chunks)
        else:
            results = self.messages(edge, envelope, entry, tables, chunks, update_edges=update_edges)
        *new_edge, pooled = results
        if center is not None:
            pooled = pooled * envelope
        new_node = self.node_ffn(pooled) + self.node_residual * node
        return new_node, new_edge[0] if update_edges else edge

    def messages(
        self,
        edge: torch.Tensor,
        envelope: torch.Tensor,
        entry: torch.Tensor,
        tables: Sequence[IndexedTable],
        chunks: Chunks | None,
        *,
        update_edges: bool,
    ) -> tuple[torch.Tensor, ...]:
        """Compute new edges, if `update_edges`, and enveloped messages summed by target."""
        mlp, copies = self.message_mlp, self.copies

        def function(edge: torch.Tensor, scale: torch.Tensor, *contributions: torch.Tensor) -> tuple[torch.Tensor, ...]:
            message = mlp.finish(sum(contributions, to_copies(mlp.project(0, edge), copies)))
            smooth = message * scale
            if not update_edges:
                return (smooth,)
            return self.edge_ffn(smooth if self.smooth_edges else message, copies), smooth

        to_target = Segments(tables[0].index, tables[0].table.shape[0])
        *delta, pooled = map_rows(function, [edge], [IndexedTable(envelope, entry), *tables], [to_target], chunks)
        return (*(x + self.edge_residual * edge for x in delta), pooled)


class Block(nn.Module):
    """One interaction block: attention on the line and atom graphs, then refinement on both."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        atom, bond, angle = config.node_feat_dim, config.edge_feat_dim, config.three_body_feat_dim
        self.line_attention = Attention(bond, angle, config, copies=1)
        self.atom_attention = Attention(atom, bond, config, copies=2)
        self.line_refinement = Refinement(bond, angle, config, copies=1, center=atom)
        self.atom_refinement = Refinement(atom, bond, config, copies=2)


class MatRIS(nn.Module):
    """
    The network: from graphs to atomic energies and magnetic moments.

    Parameters
    ----------
    config
        Architecture.
    magmoms
        Whether the network has a head for magnetic moments.

    Attributes
    ----------
    domain
        Applicability domain of the training set, if known; it has no influence on predictions.
    """

    def __init__(self, config: ModelConfig, *, magmoms: bool) -> None:
        super().__init__()
        atom, bond, angle = config.node_feat_dim, config.edge_feat_dim, config.three_body_feat_dim
        self.config = config
        self.domain: Domain | None = None
        self.atom_embedding = nn.Embedding(MAX_ATOMIC_NUMBER, atom)
        self.atom_linear = nn.Linear(atom, atom, bias=False)
        self.bond_basis = radial_basis(config, config.pairwise_cutoff)
        self.line_basis = radial_basis(config, config.three_body_cutoff)
        self.bond_linear_in = nn.Linear(config.num_radial, bond, bias=False)
        self.bond_linear_mid = nn.Linear(bond, bond, bias=False)
        self.bond_norm = Norm(bond, "layer")
        self.bond_linear_out = nn.Linear(bond, bond, bias=False)
        self.angle_basis = angular_basis(config)
        self.angle_linear_in = nn.Linear(self.angle_basis.dim, angle, bias=False)
        self.angle_linear_out = nn.Linear(angle, angle, bias=False)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.readout_norm = Norm(atom, config.norm_type)
        self.energy_head = _mlp((atom, *config.mlp_hidden_dims, 1))
        self.magmom_head = _mlp((atom, 2 * atom, 1)) if magmoms else None
        self.register_buffer("reference_energies", torch.zeros(MAX_ATOMIC_NUMBER))

    reference_energies: torch.Tensor

    def forward(
        self,
        graph: Graph,
        vectors: torch.Tensor,
        *,
        magmoms: bool = False,
        chunks: Chunks | None = None,
        condition: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
        """
        Compute the contribution of each atom to the energy, and its magnetic moment.

        Parameters
        ----------
        graph
            The batch.
        vectors
            Bond vectors (Å), shape (B, 3): those of the graph, or a copy with respect to which to differentiate.
        magmoms
            Whether to compute magnetic moments, if there is a head.
        chunks
            How to split bonds and angles; None for training.
        condition
            Added to the initial bond features, shape (B, edge_feat_dim). Training uses it for inputs besides the graph.

        Returns
        -------
        energies
            Atomic energies without the element's reference (eV), shape (N,).
        magmoms
            Absolute moments (μB), shape (N,), or None.
        features
            Features of the atoms after the last block, shape (N, node_feat_dim).
        """
        lengths = torch.linalg.vector_norm(vectors, dim=1)
        unit = vectors / lengths[:, None]
        bond_basis, line_basis = self.bond_basis(lengths), self.line_basis(lengths)
        atom = functional.silu(self.atom_linear(self.atom_embedding(graph.numbers - 1)))
        bond = self.bond_norm(functional.linear(bond_basis, self.bond_linear_mid.weight @ self.bond_linear_in.weight))
        bond = functional.silu(self.bond_linear_out(bond))
        if condition is not None:
            bond = bond + condition
        to, of = graph.angle_target[None], graph.angle_source[None]
        if chunks is not None and chunks.tiles:
            (angle,) = self.embed_angles(graph.angle_sign, *chunks.tiles.ends(unit))
        else:
            ends = [IndexedTable(unit, to), IndexedTable(unit, of)]
            (angle,) = map_rows(self.embed_angles, [graph.angle_sign], ends, [], chunks)
        target = torch.stack([graph.centers, graph.neighbors])
        source = target.flip(0)
        bond_envelope, angle_envelope = self.envelopes(lengths, graph, chunks)
        for index, block in enumerate(cast("Iterable[Block]", self.blocks)):
            update_edges = index + 1 < len(self.blocks)
            bond, angle = block.line_attention(bond, angle, to, of, angle_envelope, chunks)
            atom, bond = block.atom_attention(atom, bond, target, source, bond_envelope, chunks)
            center = IndexedTable(atom, graph.angle_center[None])
            bond, angle = block.line_refinement(
                bond, angle, to, of, line_basis, chunks, center, update_edges=update_edges
            )
            atom, bond = block.atom_refinement(
                atom, bond, target, source, bond_basis, chunks, update_edges=update_edges
            )
        normed = self.readout_norm(atom)
        energies = self.energy_head(normed).flatten()
        if magmoms and self.magmom_head is not None:
            return energies, self.magmom_head(normed).flatten().abs(), atom
        return energies, None, atom

    def envelopes(
        self, lengths: torch.Tensor, graph: Graph, chunks: Chunks | None
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """
        Compute envelopes for the weights of the attention.

        Parameters
        ----------
        lengths
            Of the bonds (Å), shape (B,).
        graph
            The batch.
        chunks
            How bonds and angles are split.

        Returns
        -------
        tuple of Tensor
            u(r/r_pair) of each bond, (B,), and u(r_a/r_3) u(r_b/r_3) of each angle, (A,); None without `smooth`.
        """
        config = self.config
        if not config.smooth:
            return None, None
        reduced = torch.stack([lengths / config.pairwise_cutoff, lengths / config.three_body_cutoff])
        of_bond, of_end = positive_envelope(reduced, config.envelope_exponent)
        if chunks is not None and chunks.tiles:
            at_target, at_source = chunks.tiles.ends(of_end[:, None])
            return of_bond, (at_target * at_source).flatten()
        return of_bond, of_end.index_select(0, graph.angle_target) * of_end.index_select(0, graph.angle_source)

    def embed_angles(self, sign: torch.Tensor, to: torch.Tensor, of: torch.Tensor) -> tuple[torch.Tensor]:
        """Compute initial features of angles, (m, angle), from relative orientations (m,) and unit vectors (m, 3)."""
        weight = self.angle_linear_out.weight @ self.angle_linear_in.weight
        return (functional.silu(functional.linear(self.angle_basis(sign * (to * of).sum(1)), weight)),)


def _mlp(dims: tuple[int, ...]) -> nn.Sequential:
    """Linear layers with biases, and SiLU between them."""
    layers: list[nn.Module] = []
    for i, (a, b) in enumerate(pairwise(dims)):
        layers += [nn.Linear(a, b)] + ([nn.SiLU()] if i + 2 < len(dims) else [])
    return nn.Sequential(*layers)


def reference_energy(per_element: torch.Tensor, graph: Graph) -> torch.Tensor:
    """
    Sum the reference energies of the elements for each structure.

    The published package computes the energy per atom from mole fractions in float32. This function does the same, to
    reproduce its energies. The result is exactly extensive, because a supercell has the same mole fractions.

    Parameters
    ----------
    per_element
        Energies of the elements (eV), shape (94,).
    graph
        The batch.

    Returns
    -------
    Tensor
        eV, float64, shape (S,).
    """
    counts = torch.zeros(graph.n_systems * MAX_ATOMIC_NUMBER, device=per_element.device, dtype=torch.float32)
    cell = graph.system * MAX_ATOMIC_NUMBER + graph.numbers - 1
    counts = counts.index_add(0, cell, torch.ones_like(cell, dtype=counts.dtype)).view(-1, MAX_ATOMIC_NUMBER)
    fractions = counts.float() / graph.n_atoms[:, None].float()
    per_atom = functional.linear(fractions, per_element.float()[None, :]).flatten()
    return per_atom.double() * graph.n_atoms


class Evaluation(NamedTuple):
    """
    Predictions of a network for a batch.

    Attributes
    ----------
    energies
        Total energies with element references (eV), float64, shape (S,).
    forces
        −∂E/∂x (eV/Å), shape (N, 3).
    stresses
        (1/V) ∂E/∂ε (eV/Å³), symmetric, positive under tension, shape (S, 3, 3).
    magmoms
        μB, shape (N,), or None.
    features
        Features of the atoms after the last block, shape (N, node_feat_dim): the input of
        `matris.model.domain.Domain`.
    atom_energies
        Contribution of each atom to the energy, with the reference energy of its element (eV), shape (N,).
    """

    energies: torch.Tensor
    forces: torch.Tensor
    stresses: torch.Tensor
    magmoms: torch.Tensor | None
    features: torch.Tensor
    atom_energies: torch.Tensor


def evaluate(
    network: MatRIS,
    graph: Graph,
    *,
    magmoms: bool = False,
    differentiable: bool = False,
    chunks: Chunks | None = None,
) -> Evaluation:
    """
    Compute energies, forces and stresses of a batch.

    The energy depends on the atoms only through the bond vectors r. One gradient g = ∂E/∂r therefore gives both the
    forces, −Σ ± g, and the virial, Σ r⊗g.

    Parameters
    ----------
    network
        The network.
    graph
        The batch.
    magmoms
        Whether to compute magnetic moments.
    differentiable
        Whether the results can be differentiated with respect to the weights (training); requires ``chunks=None``.
    chunks
        How to split bonds and angles. The weights must be frozen.

    Returns
    -------
    Evaluation
    """
    with torch.inference_mode(False), torch.enable_grad():
        vectors = graph.vectors.detach().requires_grad_()
        atomic, moments, features = network(graph, vectors, magmoms=magmoms, chunks=chunks)
        # structures do not interact: the gradient of the summed energy is that of each structure
        (gradient,) = torch.autograd.grad(atomic.sum(), vectors, create_graph=differentiable, materialize_grads=True)
    if not differentiable:
        atomic, gradient = atomic.detach(), gradient.detach()
        moments = None if moments is None else moments.detach()
        vectors, features = vectors.detach(), features.detach()
    n, tiles = graph.numbers.shape[0], None if chunks is None else chunks.tiles
    per_bond = (vectors[:, :, None] * gradient[:, None, :]).flatten(1)
    if tiles:
        energies = tiles.atoms_by_system(atomic.double()[:, None]).flatten()
        forces = tiles.by_atom(torch.cat([-gradient, gradient]))
        virial = tiles.bonds_by_system(per_bond)
    else:
        energies = atomic.new_zeros(graph.n_systems, dtype=torch.float64).index_add(0, graph.system, atomic.double())
        forces = segment_sum(gradient, graph.neighbors, n) - segment_sum(gradient, graph.centers, n)
        virial = segment_sum(per_bond, graph.system[graph.centers], graph.n_systems)
    energies = energies + reference_energy(network.reference_energies, graph)
    virial = virial.view(-1, 3, 3)
    stresses = (virial + virial.transpose(1, 2)) / (2 * graph.volumes[:, None, None])
    atom_energies = atomic + network.reference_energies[graph.numbers - 1].to(atomic.dtype)
    return Evaluation(energies, forces, stresses, moments, features, atom_energies)
