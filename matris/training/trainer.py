"""The training loop: AdamW, cosine schedule with warm-up, clipping, validation, exact resumption."""

from __future__ import annotations

import csv
import logging
import math
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import distributed

from matris.checkpoints import load_plain
from matris.errors import MatrisError
from matris.training.data import collate
from matris.training.loss import LossWeights, errors

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from matris.network import MatRIS
    from matris.training.data import Frame

logger = logging.getLogger(__name__)

STATE = "training-state.pt"
LOG = "log.csv"
_ERRORS = ("energy", "force", "force_component", "stress")
_COLUMNS = ("step", "epoch", "learning_rate", "train_loss", *_ERRORS, "seconds")


@dataclass(frozen=True)
class TrainSettings:
    """
    How to train.

    Parameters
    ----------
    steps
        Optimiser steps in total; the cosine schedule ends there.
    batch_size
        Structures in a step.
    learning_rate
        Peak of the schedule.
    warmup
        Steps of linear warm-up.
    weight_decay
        Of AdamW.
    clip
        Largest norm of the gradient.
    weights
        Of the loss.
    seed
        Of the order of the frames.
    validate_every
        Steps between validations and saved states.
    """

    steps: int
    batch_size: int = 8
    learning_rate: float = 3e-3
    warmup: int = 100
    weight_decay: float = 1e-3
    clip: float = 0.5
    weights: LossWeights = field(default_factory=LossWeights)
    seed: int = 0
    validate_every: int = 500

    def rate(self, step: int) -> float:
        """Learning rate of a step (from 0): linear warm-up, then half a cosine down to 1 % of the peak."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        progress = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


def train(
    network: MatRIS, training: Sequence[Frame], validation: Sequence[Frame], settings: TrainSettings, directory: Path
) -> dict[str, float]:
    """
    Train in place; start again in the same directory to go on exactly where a killed run stopped.

    Under `torch.distributed` every process holds the network and takes an equal share of each batch; the averaged
    gradient is that of one process with the whole batch.

    Parameters
    ----------
    network
        On its device, with element energies set.
    training, validation
        Labelled frames.
    settings
        How to train.
    directory
        For ``training-state.pt`` and ``log.csv``.

    Returns
    -------
    dict
        The last validation errors: energy (eV/atom), force and force_component (eV/Å), stress (GPa).

    Raises
    ------
    MatrisError
        Without frames, for a loss that is not finite, for a saved state of other settings, or for a batch that the
        processes cannot share equally.
    """
    if not training or not validation:
        raise MatrisError(f"{len(training)} training and {len(validation)} validation frames: both are needed")
    rank, world = _rank()
    if min(settings.batch_size, len(training)) % world:
        raise MatrisError(f"{world} processes cannot share batches of {settings.batch_size} equally")
    directory.mkdir(parents=True, exist_ok=True)
    device = network.reference_energies.device
    network.requires_grad_(True).train()
    parameters = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay)
    start, summary = _resume(directory / STATE, network, optimizer, settings)
    began, losses = time.monotonic(), list[float]()
    per_epoch = max(1, len(training) // settings.batch_size)
    for step in range(start, settings.steps):
        epoch, position = divmod(step, per_epoch)
        order = np.random.default_rng([settings.seed, epoch]).permutation(len(training))
        chosen = order[position * settings.batch_size : (position + 1) * settings.batch_size]
        if world > 1:
            chosen = deal(chosen, [len(training[i].forces) for i in chosen], world)[rank]
        batch = collate([training[i] for i in chosen], network.config, device)
        for group in optimizer.param_groups:
            group["lr"] = settings.rate(step)
        loss = errors(network, batch, differentiable=True).loss(settings.weights)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        _average([p.grad for p in parameters if p.grad is not None], world)
        norm = torch.nn.utils.clip_grad_norm_(parameters, settings.clip)
        if not torch.isfinite(norm):
            names = [training[i].material for i in chosen]
            raise MatrisError(f"step {step}: the gradient is not finite; the batch was {names}")
        optimizer.step()
        losses.append(float(loss.detach()))
        if (step + 1) % settings.validate_every == 0 or step + 1 == settings.steps:
            sums = _error_sums(network, validation[rank::world])
            if world > 1:
                distributed.all_reduce(sums)
            summary = _mean(sums)
            if rank > 0:
                losses.clear()
                continue
            row = {
                "step": step + 1,
                "epoch": epoch,
                "learning_rate": settings.rate(step),
                "train_loss": float(np.mean(losses)),
                "seconds": time.monotonic() - began,
                **summary,
            }
            _log(directory / LOG, row)
            logger.info(" ".join(f"{name}={row[name]:.4g}" for name in _COLUMNS))
            losses.clear()
            _save(directory / STATE, network, optimizer, settings, step + 1, summary)
    network.requires_grad_(False).eval()
    return summary


def deal(indices: NDArray[np.int64], sizes: Sequence[int], hands: int) -> list[NDArray[np.int64]]:
    """Deal a batch into shares of equal number and like total size: back and forth, the largest first."""
    ordered = np.asarray(indices)[np.argsort(sizes, kind="stable")[::-1]]
    rounds = ordered.reshape(-1, hands)
    rounds[1::2] = rounds[1::2, ::-1]
    return list(rounds.T)


def validate(network: MatRIS, frames: Sequence[Frame]) -> dict[str, float]:
    """Mean errors over frames: energy (eV/atom), force and force_component (eV/Å), stress (GPa)."""
    return _mean(_error_sums(network, frames))


def _error_sums(network: MatRIS, frames: Sequence[Frame], batch_size: int = 16) -> torch.Tensor:
    """Add up the errors, and what to divide them by, shape (2, number of errors)."""
    device = network.reference_energies.device
    sums = torch.zeros(2, len(_ERRORS), dtype=torch.float64, device=device)
    for start in range(0, len(frames), batch_size):
        chosen = frames[start : start + batch_size]
        result = errors(network, collate(chosen, network.config, device), differentiable=False)
        # a component error is a mean over atoms, the others over structures
        n_atoms = sum(len(f.forces) for f in chosen)
        weight = sums.new_tensor([n_atoms if name == "force_component" else len(chosen) for name in _ERRORS])
        sums[0] += weight * torch.stack([getattr(result, name).double() for name in _ERRORS])
        sums[1] += weight
    return sums


def _mean(sums: torch.Tensor) -> dict[str, float]:
    return dict(zip(_ERRORS, (sums[0] / sums[1]).tolist(), strict=True))


def _rank() -> tuple[int, int]:
    """Rank of this process, and number of processes."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def _average(gradients: Sequence[torch.Tensor], world: int) -> None:
    """Average gradients over the processes, in one message."""
    if world == 1:
        return
    flat = torch.cat([g.flatten() for g in gradients])
    distributed.all_reduce(flat)
    for gradient, mean in zip(gradients, flat.div_(world).split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


def _save(
    path: Path,
    network: MatRIS,
    optimizer: torch.optim.Optimizer,
    settings: TrainSettings,
    step: int,
    summary: dict[str, float],
) -> None:
    """Write the state atomically."""
    temporary = path.with_suffix(".new")
    state = {
        "step": step,
        "settings": asdict(settings),
        "network": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "summary": summary,
    }
    torch.save(state, temporary)
    temporary.replace(path)


def _resume(
    path: Path, network: MatRIS, optimizer: torch.optim.Optimizer, settings: TrainSettings
) -> tuple[int, dict[str, float]]:
    """Load a saved state, if there is one."""
    if not path.exists():
        return 0, {}
    state: dict[str, Any] = load_plain(path)
    if state["settings"] != asdict(settings):
        raise MatrisError(f"{path} was written with other settings: train in another directory, or remove it")
    network.load_state_dict(state["network"])
    optimizer.load_state_dict(state["optimizer"])
    logger.info("going on from step %d", state["step"])
    return int(state["step"]), dict(state["summary"])


def _log(path: Path, row: dict[str, float]) -> None:
    """Append a row to the CSV log."""
    new = not path.exists()
    with path.open("a", newline="") as stream:
        writer = csv.DictWriter(stream, _COLUMNS)
        if new:
            writer.writeheader()
        writer.writerow(row)
