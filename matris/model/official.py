"""Translation of the parameter names of published checkpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from matris.errors import CheckpointError
from matris.model.network import MatRIS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matris.model.config import ModelConfig

_REFERENCE = ("reference_energy.fc.weight", "composition_model.fc.weight")
_MAGMOM = "magmom_head.magmom_head.layers."


def names(config: ModelConfig, *, magmoms: bool) -> dict[str, list[str]]:
    """
    Map the name of each tensor of `MatRIS` to the published tensors that it stacks along the first axis.

    Parameters
    ----------
    config
        Architecture.
    magmoms
        Whether the network has a head for magnetic moments.
    """
    table = {
        "atom_embedding.weight": ["atom_embedding.embedding.weight"],
        "atom_linear.weight": ["atom_embedding.atom_swish_layer.linear.weight"],
        "bond_linear_in.weight": ["edge_embedding.edge_linear1.weight"],
        "bond_linear_mid.weight": ["edge_embedding.edge_linear2.weight"],
        "bond_linear_out.weight": ["edge_embedding.swish_layer.linear.weight"],
        "angle_linear_in.weight": ["three_body_embedding.angle_embedding.weight"],
        "angle_linear_out.weight": ["three_body_embedding.swish_layer.linear.weight"],
    }
    radial = "offset" if config.distance_expansion == "gaussian" else "frequencies"
    table[f"bond_basis.{radial}"] = [f"edge_embedding.pairwise_rbf_expansion.{radial}"]
    table[f"line_basis.{radial}"] = [f"edge_embedding.threebody_rbf_expansion.{radial}"]
    if config.three_body_expansion != "chebyshev":
        angular = "factor" if config.three_body_expansion == "sh" else "frequencies"
        table[f"angle_basis.{angular}"] = [f"three_body_embedding.expansion.{angular}"]
    table |= _norm("bond_norm", ["edge_embedding.edge_init_norm"], "layer")
    table |= _norm("readout_norm", ["readout_norm"], config.norm_type)
    for i in range(len(config.mlp_hidden_dims) + 1):
        table |= _linear(f"energy_head.{2 * i}", f"energy_head.energy_head.layers.{3 * i}")
    if magmoms:
        table |= _linear("magmom_head.0", f"{_MAGMOM}0") | _linear("magmom_head.2", f"{_MAGMOM}3")
    for layer in range(config.num_layers):
        for ours, theirs in (("line", "line_graph"), ("atom", "atom_graph")):
            block, published = f"blocks.{layer}.{ours}", f"interaction_block.{layer}"
            table |= _attention(f"{block}_attention", f"{published}.attn_block_{theirs}", config)
            table |= _refinement(f"{block}_refinement", f"{published}.refine_block_{theirs}", config)
    return table


def translate(
    state: Mapping[str, torch.Tensor], config: ModelConfig, source: str
) -> tuple[MatRIS, dict[str, torch.Tensor]]:
    """
    Translate a published state dict to the names and shapes of `MatRIS`.

    Parameters
    ----------
    state
        Published names and tensors.
    config
        Architecture.
    source
        Name of the file in error messages.

    Returns
    -------
    network
        Network of that architecture, whose weights are not set.
    state
        Translated names and tensors.

    Raises
    ------
    CheckpointError
        If a tensor is missing, unknown, or has the wrong shape.
    """
    magmoms = any(name.startswith(_MAGMOM) for name in state)
    network = MatRIS(config, magmoms=magmoms)
    table = names(config, magmoms=magmoms)
    reference = [name for name in _REFERENCE if name in state]
    used = {name for group in table.values() for name in group} | set(reference)
    missing, unknown = sorted(used - set(state)), sorted(set(state) - used)
    if missing or unknown:
        raise CheckpointError(
            f"{source} does not contain the tensors that its config requires: "
            f"{len(missing)} tensors missing {missing[:3]}, {len(unknown)} unknown {unknown[:3]}"
        )
    shapes = {name: tensor.shape for name, tensor in network.state_dict().items()}
    result = {
        "reference_energies": state[reference[0]].reshape(-1)
        if reference
        else torch.zeros(shapes["reference_energies"])
    }
    for ours, group in table.items():
        parts = [state[name] for name in group]
        if len({part.shape for part in parts}) > 1:
            raise CheckpointError(f"{source}: {group} should have one shape, not {[tuple(p.shape) for p in parts]}")
        stacked = parts[0] if len(parts) == 1 else torch.cat(parts)
        if not _fits(parts[0].shape, len(parts), shapes[ours]):
            raise CheckpointError(
                f"{source}: {group[0]} has shape {tuple(parts[0].shape)}, which does not fit the checkpoint's config"
            )
        result[ours] = stacked.reshape(shapes[ours])
    if result["reference_energies"].shape != shapes["reference_energies"]:
        raise CheckpointError(f"{source}: element energies have shape {tuple(state[reference[0]].shape)}, not (1, 94)")
    return network, result


def _fits(part: torch.Size, count: int, ours: torch.Size) -> bool:
    """Whether `count` stacked tensors of shape `part` have the shape `ours`, apart from axes of length one."""
    part_dims, our_dims = [d for d in part if d != 1], [d for d in ours if d != 1]
    if count == 1:
        return part_dims == our_dims
    return our_dims in ([count, *part_dims], [count * part_dims[0], *part_dims[1:]])


def _linear(ours: str, theirs: str, *, bias: bool = True) -> dict[str, list[str]]:
    """Names of a linear layer."""
    return {f"{ours}.{kind}": [f"{theirs}.{kind}"] for kind in (("weight", "bias") if bias else ("weight",))}


def _norm(ours: str, theirs: list[str], kind: str) -> dict[str, list[str]]:
    """Names of a norm, whose weights are stacked."""
    kinds = ("weight", "bias") if kind == "layer" else ("weight",)
    return {f"{ours}.{k}": [f"{name}.{k}" for name in theirs] for k in kinds}


def _gated(ours: str, theirs: str, config: ModelConfig) -> dict[str, list[str]]:
    """Names of a gated MLP; core and gate are stacked."""
    if config.graph_conv_mlp == "gatemlp":
        mlps, norms = [f"{theirs}.mlp_core", f"{theirs}.mlp_gate"], [f"{theirs}.core_norm", f"{theirs}.gate_norm"]
    else:
        mlps, norms = [f"{theirs}.0"], [f"{theirs}.1"]
    table = {
        f"{ours}.{kind}_{end}": [f"{mlp}.layers.{layer}.{kind}" for mlp in mlps]
        for kind in ("weight", "bias")
        for end, layer in (("in", 0), ("out", 3))
    }
    return table | _norm(f"{ours}.norm", norms, config.norm_type)


def _attention(ours: str, theirs: str, config: ModelConfig) -> dict[str, list[str]]:
    """Names of an attention layer; the logits by target and by source are stacked."""
    return {
        f"{ours}.logits": [f"{theirs}.target_weight_linear.weight", f"{theirs}.source_weight_linear.weight"],
        f"{ours}.node_residual": [f"{theirs}.node_res_weight"],
        f"{ours}.edge_residual": [f"{theirs}.edge_res_weight"],
        **_gated(f"{ours}.edge_mlp", f"{theirs}.edge_nonlinear_update", config),
        **_gated(f"{ours}.node_mlp", f"{theirs}.node_nonlinear_update", config),
    }


def _refinement(ours: str, theirs: str, config: ModelConfig) -> dict[str, list[str]]:
    """Names of a refinement layer."""
    table = {
        f"{ours}.envelope.weight": [f"{theirs}.learnable_envelope.weight"],
        f"{ours}.node_residual": [f"{theirs}.node_res_weight"],
        f"{ours}.edge_residual": [f"{theirs}.edge_res_weight"],
        **_gated(f"{ours}.message_mlp", f"{theirs}.edge_nonlinear_update", config),
    }
    for kind in ("node", "edge"):
        for end, layer in (("first", 0), ("second", 3)):
            table |= _linear(f"{ours}.{kind}_ffn.{end}", f"{theirs}.{kind}_FFN.layers.{layer}", bias=config.use_bias)
    return table
