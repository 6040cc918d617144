"""Training of a checkpoint from a configuration file: ``matris train``."""

from __future__ import annotations

import difflib
import logging
import platform
from dataclasses import asdict, fields, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path  # noqa: TC003 - pydantic reads it
from typing import TYPE_CHECKING, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from matris.errors import CheckpointError, MatrisError
from matris.model import checkpoints
from matris.model.checkpoints import Card
from matris.model.config import ModelConfig
from matris.model.network import MatRIS
from matris.model.potential import Potential
from matris.training.curve import drawn
from matris.training.data.dataset import DataSet
from matris.training.data.element_energies import regress_reference_energies
from matris.training.denoising import DenoiseObjective, Denoiser, DenoiseSettings
from matris.training.fit_domain import fit_domain, label_ranges
from matris.training.precision import single_precision
from matris.training.processes import together
from matris.training.trainer import LOG, TrainSettings, train

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matris.training.data.frame import Frame
    from matris.training.trainer import Joined

logger = logging.getLogger(__name__)

SIZES = {"S": 4, "M": 6, "L": 10}
"""Number of blocks of the paper's models; `PAPER` has their other settings, with the angle cut-off of L for all."""

PAPER: dict[str, Any] = {
    "mlp_hidden_dims": (128, 256, 128),
    "three_body_expansion": "fourier",
    "norm_type": "layer",
    "three_body_cutoff": 4.5,
    "use_smoothed_for_delta_edge": True,
    "reference_energy": "ridge",
}

EXAMPLE = """\
# matris train CONFIG.yaml; run it again to resume after a stop. Comments show the defaults.
data: my-set                  # a folder of 'matris data'
output: my-matris             # state, log.csv, log.html and my-matris.safetensors go there
key: my-matris                # name of the checkpoint
# energy_scale: mp            # default: that of the set

model:
  size: S                     # S, M or L: 4, 6 or 10 blocks; or keys of a checkpoint's config, such as
  # num_layers: 4
  # three_body_cutoff: 4.5    # Å; the number of angles, and so the cost, grows with its sixth power
  # smooth: false             # true, with three_body_expansion: chebyshev: no jump of energy and force at the cut-offs

training:
  # epochs: 40                # passes over the data; or steps: 100000
  # batch_size: 512           # mean number of structures
  # learning_rate: 3.0e-4     # peak, after a linear warm-up; then half a cosine
  # warmup: 1000              # steps
  # optimizer: adamw          # or muon, for matrices: a lower loss after as many frames in trainings from the start
  # weight_decay: 1.0e-2
  # clip: 0.5                 # largest norm of the gradient
  # ema_decay: 0.999          # per step, of the average of the weights, which is validated and kept
  # weights: {energy: 5, force: 5, stress: 0.1, magmom: 0.1}   # per eV/atom, eV/Å, GPa, μB
  # seed: 0
  # validate_every: 500       # steps; the state is saved then
  # early_stopping: null      # end after this many validations without a lower loss
  # compiled_step: false      # compile the step, which takes minutes and a C++ compiler

# denoising: {epochs: 20, smallest: 0.02, largest: 0.2}   # pre-training: noise on positions (Å)
# device: cpu                 # default: MATRIS_DEVICE, else a GPU if there is one
"""


class TrainConfig(BaseModel):
    """
    A configuration file of ``matris train``; `EXAMPLE` explains each key.

    Attributes
    ----------
    data, output, key, energy_scale, description, device
        Training set, output folder, name, energy scale and description of the checkpoint, device.
    model
        Size in the paper, and keys of `ModelConfig`.
    training, denoising
        Settings of training and pre-training.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: Path
    output: Path
    key: str = Field(min_length=1, pattern=r"^[\w.+-]+$")
    energy_scale: str | None = None
    description: str = ""
    model: dict[str, Any] = Field(default_factory=lambda: {"size": "S"})
    training: TrainSettings = Field(default_factory=TrainSettings)
    denoising: DenoiseSettings | None = None
    device: str | None = None


def read_config(path: Path) -> TrainConfig:
    """
    Read a configuration file.

    Raises
    ------
    MatrisError
        If a key is unknown, missing or out of range; the message names it, and suggests a similar key.
    """
    try:
        content = YAML(typ="safe").load(path)
    except (OSError, UnicodeDecodeError, YAMLError) as error:
        raise MatrisError(f"cannot read {path}: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise MatrisError(f"{path} holds no keys: 'matris train --example' prints a configuration")
    content = {name: value for name, value in content.items() if value is not None}
    try:
        config = TrainConfig.model_validate(content)
        config.training.check()
        network_config(config.model)
    except ValidationError as error:
        raise MatrisError(f"{path}: {'; '.join(_problem(e) for e in error.errors())}") from error
    except MatrisError as error:
        raise MatrisError(f"{path}: {error}") from error
    return config


def _problem(error: Any) -> str:
    """Describe an error of a configuration."""
    location = ".".join(str(part) for part in error["loc"])
    if error["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        valid = {
            "training": [f.name for f in fields(TrainSettings)],
            "denoising": [f.name for f in fields(DenoiseSettings)],
            "weights": ["energy", "force", "stress", "magmom"],
        }.get(str(error["loc"][-2]) if len(error["loc"]) > 1 else "", list(TrainConfig.model_fields))
        return f"unknown key {location}{_meant(str(error['loc'][-1]), valid)}"
    if error["type"] == "missing":
        return f"key {location} is missing"
    return f"{location}: {error['msg']}, not {error['input']!r}"


def _meant(name: str, valid: Sequence[str]) -> str:
    """Suggest a similar name, or list all names."""
    close = difflib.get_close_matches(name, valid, 1)
    return f": {close[0]}?" if close else f": known are {', '.join(valid)}"


def network_config(model: dict[str, Any]) -> ModelConfig:
    """
    Return the architecture of a configuration: a size of the paper with changes.

    Raises
    ------
    MatrisError
        If a key or value is unknown or not supported.

    Examples
    --------
    >>> config = network_config({"size": "M", "three_body_cutoff": 4.0})
    >>> config.num_layers, config.three_body_cutoff
    (6, 4.0)
    """
    keys = [f.name for f in fields(ModelConfig)]
    for name in model:
        if name != "size" and name not in keys:
            raise MatrisError(f"unknown key model.{name}{_meant(name, ['size', *keys])}")
    size = model.get("size", "S")
    if size not in SIZES:
        raise MatrisError(f"model.size is one of {', '.join(SIZES)}, not {size!r}")
    rest = {name: value for name, value in model.items() if name != "size"}
    try:
        return ModelConfig.from_dict({**PAPER, "num_layers": SIZES[size], **rest})
    except CheckpointError as error:
        raise MatrisError(f"model: {error}") from error


@single_precision()
def train_checkpoint(config: TrainConfig) -> Path | None:
    """
    Train a checkpoint from scratch; another call with the same configuration resumes it.

    Returns
    -------
    Path
        The checkpoint; None in processes that do not write files.
    """
    data = DataSet(config.data)
    training, validation = data.part("training"), data.part("validation")
    scale = config.energy_scale or data.meta["energy_scale"]
    if scale is None:
        raise MatrisError(f"{config.data} does not name the energy scale of its labels: set energy_scale")
    architecture = network_config(config.model)
    with together(config.device) as (device, is_first):
        torch.manual_seed(config.training.seed)
        network = MatRIS(architecture, magmoms=has_magmoms(training)).to(device)
        network.reference_energies.copy_(torch.from_numpy(regress_reference_energies(training)))
        if config.denoising is not None:
            pretrain(network, training, validation, config.training, config.denoising, config.output / "denoising")
        page = config.output / "log.html"
        with drawn(config.output / LOG, page, f"Training of {config.key}", wanted=is_first):
            errors = train(network, training, validation, config.training, config.output)
        if not is_first:
            return None
        card = Card(
            key=config.key,
            energy_scale=scale,
            predicts="efsm" if network.magmom_head is not None else "efs",
            elements=tuple(sorted(data.meta["elements"])),
            description=config.description or f"MatRIS trained on {config.data.name}",
            details={
                **provenance(device),
                "data": describe_set(data),
                "parameters": sum(p.numel() for p in network.parameters()),
                "training": {**asdict(config.training), "steps_taken": config.training.total(len(training))},
                "denoising": None if config.denoising is None else asdict(config.denoising),
                "errors": {"validation": errors},
            },
        )
        path = config.output / f"{config.key}.safetensors"
        checkpoints.save(path, network, card)  # whatever comes after the training, its result is kept
        card.details["domain"] = domain_of(network, card, data)
        card.details["trained_on"] = label_ranges(data)
        checkpoints.save(path, network, card)
        return path


def pretrain(
    network: MatRIS,
    training: Sequence[Frame],
    validation: Sequence[Frame],
    settings: TrainSettings,
    noise: DenoiseSettings,
    directory: Path,
) -> dict[str, float]:
    """Pre-train a network by denoising, in place, with the batches and the schedule of the later training."""
    torch.manual_seed(settings.seed)
    denoiser = Denoiser(network).to(network.reference_energies.device)
    settings = replace(
        settings, steps=None, epochs=noise.epochs, early_stopping=None, compiled_step=False, replay_share=0.0
    )
    return train(network, training, validation, settings, directory, objective=DenoiseObjective(denoiser, noise))


def has_magmoms(frames: Sequence[Frame]) -> bool:
    """Whether any frame has magnetic moments."""
    if isinstance(frames, DataSet):
        return "magnetic moment (μB)" in frames.meta["labels"]
    return any(frame.magmoms is not None for frame in frames)


def domain_of(network: MatRIS, card: Card, frames: Sequence[Frame] | Joined) -> dict[str, Any] | None:
    """Fit the domain of the network; None if that fails."""
    try:
        return fit_domain(Potential(network, card), frames)
    except MatrisError as error:
        logger.warning("%s", error)
        return None


def describe_set(data: DataSet) -> dict[str, Any]:
    """Describe a set for a card: name, digest, numbers of frames."""
    return {
        "name": data.path.name,
        "sha256": data.identity,
        "sources": data.source_names,
        "energy_scale": data.meta["energy_scale"],
        "n_training": data.meta["n_training"],
        "n_validation": data.meta["n_validation"],
        "n_materials": data.meta["n_materials"],
    }


def provenance(device: torch.device) -> dict[str, Any]:
    """Return date, device and versions for a card."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "device": f"{device.type}: {name}",
        "versions": {"matris-flows": version("matris-flows"), "torch": torch.__version__},
    }
