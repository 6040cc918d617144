"""Architecture of a MatRIS network, as in the ``config`` of a checkpoint."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from matris.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_ATOMIC_NUMBER = 94
"""Largest atomic number of all MatRIS models: plutonium."""


@dataclass(frozen=True)
class ModelConfig:
    """
    Architecture of a MatRIS network. The defaults apply to keys that a published ``config`` omits.

    Parameters
    ----------
    num_layers
        Number of interaction blocks.
    node_feat_dim, edge_feat_dim, three_body_feat_dim
        Width of atom, bond and angle features.
    mlp_hidden_dims
        Hidden widths of the energy readout.
    dropout
        Only 0 is supported; no published model uses dropout.
    use_bias
        Whether the feed-forward networks of the refinement have biases.
    distance_expansion, three_body_expansion
        ``"bessel"`` or ``"gaussian"``; ``"fourier"``, ``"sh"`` (spherical harmonics) or ``"chebyshev"``.
    num_radial, num_angular
        Number of radial basis functions, and of Fourier or Chebyshev basis functions.
    max_l, max_n
        Degrees and radial orders of the spherical-harmonics expansion.
    envelope_exponent
        Exponent p of the polynomial envelope.
    graph_conv_mlp
        ``"gatemlp"`` or ``"mlp"``.
    activation_type
        Only ``"silu"`` is supported.
    norm_type
        ``"layer"`` or ``"rms"``.
    pairwise_cutoff, three_body_cutoff
        Cutoffs of the atom graph and of the line graph (Å).
    use_smoothed_for_delta_edge
        Whether the bond update of the refinement reads the enveloped messages.
    learnable_basis
        Whether the frequencies of the basis functions are trained.
    is_intensive
        Whether the raw output of the published network is in eV/atom. Energies of this package are total energies (eV).
    is_conservation
        Whether forces are the negative gradient of the energy. Only True is supported.
    reference_energy
        Name of the set of reference energies of the elements, or None if the network has none.
    smooth
        Whether the weights of the attention have an envelope, so that energy, forces and stress are continuous where a
        bond or an angle crosses a cutoff. Published networks have none.

    Examples
    --------
    >>> config = ModelConfig.from_dict({"num_layers": 2, "norm_type": "layer"})
    >>> config.num_layers, config.pairwise_cutoff, config.smooth
    (2, 6.0, False)
    >>> ModelConfig.from_dict({"smooth": True, "three_body_expansion": "chebyshev"}).three_body_expansion
    'chebyshev'
    """

    num_layers: int = 6
    node_feat_dim: int = 128
    edge_feat_dim: int = 128
    three_body_feat_dim: int = 128
    mlp_hidden_dims: tuple[int, ...] = (128, 128)
    dropout: float = 0.0
    use_bias: bool = False
    distance_expansion: str = "bessel"
    three_body_expansion: str = "sh"
    num_radial: int = 7
    num_angular: int = 7
    max_l: int = 4
    max_n: int = 4
    envelope_exponent: int = 8
    graph_conv_mlp: str = "gatemlp"
    activation_type: str = "silu"
    norm_type: str = "rms"
    pairwise_cutoff: float = 6.0
    three_body_cutoff: float = 4.0
    use_smoothed_for_delta_edge: bool = False
    learnable_basis: bool = True
    is_intensive: bool = True
    is_conservation: bool = True
    reference_energy: str | None = None
    smooth: bool = False

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> ModelConfig:
        """
        Read the ``config`` of a checkpoint.

        Raises
        ------
        CheckpointError
            If a key is unknown, a value has the wrong type, or the architecture is not supported.
        """
        names = {field.name for field in fields(cls)}
        if unknown := sorted(set(config) - names):
            raise CheckpointError(
                f"the checkpoint's config has unknown keys {unknown}: it needs a newer version of this package"
            )
        values = dict(config)
        try:
            if "mlp_hidden_dims" in values:
                dims = values["mlp_hidden_dims"]
                values["mlp_hidden_dims"] = tuple(int(d) for d in ([dims] if isinstance(dims, int) else dims))
            for name in (
                "distance_expansion",
                "three_body_expansion",
                "graph_conv_mlp",
                "activation_type",
                "norm_type",
            ):
                if name in values:
                    values[name] = str(values[name]).lower()
            result = cls(**values)
            result.check()
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"the checkpoint's config cannot be read: {error}") from error
        return result

    def check(self) -> None:
        """
        Check that the architecture is supported.

        Raises
        ------
        CheckpointError
            If it is not; the message contains the key, its value and the supported values.
        """
        supported = {
            "distance_expansion": ("bessel", "gaussian"),
            "three_body_expansion": ("fourier", "sh", "chebyshev"),
            "graph_conv_mlp": ("gatemlp", "mlp"),
            "activation_type": ("silu",),
            "norm_type": ("layer", "rms"),
            "dropout": (0, 0.0),
        }
        for name, values in supported.items():
            if getattr(self, name) not in values:
                raise CheckpointError(f"config {name}={getattr(self, name)!r} is not supported; supported: {values}")
        if not self.is_conservation:
            raise CheckpointError(
                "config is_conservation=False: a head that predicts forces directly is not supported; "
                "use a checkpoint whose forces are gradients of its energy"
            )
        if self.num_angular != self.num_radial:
            raise CheckpointError(
                f"config num_angular={self.num_angular} must equal num_radial={self.num_radial}: "
                "the envelope of the line graph uses the radial basis"
            )
        if self.num_layers < 1 or not 0 < self.three_body_cutoff <= self.pairwise_cutoff:
            raise CheckpointError("config needs num_layers >= 1 and 0 < three_body_cutoff <= pairwise_cutoff")
        if self.max_l > 5:  # noqa: PLR2004 - the tabulated Bessel functions end there
            raise CheckpointError(f"config max_l={self.max_l} is not supported, at most 5")
        if not isinstance(self.smooth, bool):
            raise CheckpointError(f"config smooth={self.smooth!r} must be true or false")
        if self.smooth:
            self._check_smooth()

    def _check_smooth(self) -> None:
        """Check that the energy of a smooth network has no jump and no kink."""
        if self.three_body_expansion == "fourier":
            raise CheckpointError(
                "config smooth=True is not supported with three_body_expansion='fourier', which has a kink at 180°; "
                "use 'chebyshev' or 'sh'"
            )
        if self.distance_expansion == "gaussian":
            raise CheckpointError(
                "config smooth=True is not supported with distance_expansion='gaussian', which has no envelope; "
                "use 'bessel'"
            )
        if not isinstance(self.envelope_exponent, int) or self.envelope_exponent < 1:
            raise CheckpointError(
                f"config smooth=True needs a positive integer as envelope_exponent, not {self.envelope_exponent!r}"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {**asdict(self), "mlp_hidden_dims": list(self.mlp_hidden_dims)}
