"""A trainer: AdamW, cosine schedule with warm-up, clipping, an average of the weights, exact resumption."""

from __future__ import annotations

import csv
import logging
import math
import os
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import distributed

from matris.checkpoints import load_plain
from matris.errors import MatrisError
from matris.training import batches
from matris.training.data import collate
from matris.training.loss import ERRORS, LossWeights, errors

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from matris.network import MatRIS
    from matris.training.data import Frame

logger = logging.getLogger(__name__)

STATE = "training-state.pt"
LOG = "log.csv"
COLUMNS = ("step", "epoch", "learning_rate", "train_loss", "loss", *ERRORS, "skipped", "seconds")

_CPU_PIECE = 6e7  # bytes kept: small enough for a processor's caches, large enough for a step's fixed costs
_CUDA_SHARE = 1 / 8  # of a device's memory that a piece may keep: differentiating twice keeps several times as much
_SKIPPED = 20  # batches in a training


@dataclass(frozen=True)
class TrainSettings:
    """
    How to train.

    Parameters
    ----------
    steps
        Optimiser steps in total; the cosine schedule ends there.
    batch_size
        Structures in a step, on average: batches cost about the same.
    learning_rate
        Peak of the schedule.
    warmup
        Steps of linear warm-up.
    weight_decay
        Of AdamW.
    clip
        Largest norm of the gradient.
    ema
        Share of the average of the weights that a step leaves as it is; the average is what is validated and kept.
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
    ema: float = 0.999
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

    The network ends with the exponential average of its weights, which is also what is validated.

    Under `torch.distributed` every process holds the network and takes a share of each batch of about the same cost;
    the gradient, summed over them, is that of one process with the whole batch.

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
        The last validation errors that have labels, of `ERRORS`: eV/atom, eV/Å, GPa, μB.

    Raises
    ------
    MatrisError
        Without frames, for a saved state of other settings, or if too many batches had to be skipped because their
        gradient was not finite.
    """
    if not training or not validation:
        raise MatrisError(f"{len(training)} training and {len(validation)} validation frames: both are needed")
    directory.mkdir(parents=True, exist_ok=True)
    run = _Run(network, settings, directory)
    run.resume()
    costs = batches.costs(training, network.config)
    aside = batches.costs(validation, network.config)
    began, losses = time.monotonic(), list[float]()
    while run.step < settings.steps:
        for number, chosen in _batches(costs, settings, run.step):
            losses.append(run.take_step([training[i] for i in chosen], costs[chosen]))
            if run.step % settings.validate_every == 0 or run.step == settings.steps:
                run.summary = run.validate(validation, aside)
                run.log(number, losses, time.monotonic() - began)
                run.save()
                losses.clear()
    run.finish()
    return run.summary


def _batches(costs: NDArray[np.float64], settings: TrainSettings, step: int) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Yield epoch and batch for each step from `step` to the end of its epoch."""
    number, position = divmod(step, batches.per_epoch(len(costs), settings.batch_size))
    for chosen in batches.epoch(costs, settings.batch_size, [settings.seed, number])[position:][
        : settings.steps - step
    ]:
        yield number, chosen


class _Run:
    """A training under way: the network, its optimiser and average, and how far it is."""

    def __init__(self, network: MatRIS, settings: TrainSettings, directory: Path) -> None:
        self.network, self.settings, self.directory = network, settings, directory
        self.rank, self.world = _rank()
        self.device = network.reference_energies.device
        self.piece = _CPU_PIECE
        if self.device.type == "cuda":
            self.piece = _CUDA_SHARE * torch.cuda.get_device_properties(self.device).total_memory
        network.domain = None  # what it has learnt is about to change
        network.requires_grad_(True).train()
        self.parameters = list(network.parameters())
        for p in self.parameters:
            p.grad = torch.zeros_like(p)
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        self.average = [p.detach().clone() for p in self.parameters]
        self.step, self.skipped = 0, 0
        self.summary: dict[str, float] = {}

    def take_step(self, frames: Sequence[Frame], costs: NDArray[np.float64]) -> float:
        """Take a step on a batch, or none if its gradient is not finite; give its loss."""
        settings = self.settings
        share = batches.balanced(np.arange(len(frames)), costs, self.world)[self.rank]
        for p in self.parameters:
            if p.grad is not None:
                p.grad.zero_()
        total = torch.zeros((), device=self.device)
        for piece in batches.pieces(share, costs, self.piece):
            chosen = [frames[i] for i in piece]
            losses = errors(self.network, collate(chosen, self.network.config, self.device), differentiable=True).loss(
                settings.weights
            )
            losses.sum().div(len(frames)).backward()
            total += losses.detach().sum() / len(frames)
        total = self._add_up(total)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, settings.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = settings.rate(self.step)
        if torch.isfinite(norm) and torch.isfinite(total):
            self.optimizer.step()
            self._average()
        else:
            self._skip(frames)
        self.step += 1
        return float(total)

    def _add_up(self, loss: torch.Tensor) -> torch.Tensor:
        """Add gradients, and the loss, over the processes, in one message."""
        if self.world == 1:
            return loss
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        flat = torch.cat([*(g.flatten() for g in gradients), loss[None]])
        distributed.all_reduce(flat)
        *parts, total = flat.split([*(g.numel() for g in gradients), 1])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))
        return total[0]

    @torch.no_grad()
    def _average(self) -> None:
        """Move the average towards the weights; the first steps count more, so that the start is soon forgotten."""
        done = self.step - self.skipped
        keep = min(self.settings.ema, (1 + done) / (10 + done))
        torch._foreach_lerp_(self.average, list[torch.Tensor](self.parameters), 1 - keep)

    def _skip(self, frames: Sequence[Frame]) -> None:
        """Count and name a batch that would spoil the weights."""
        self.skipped += 1
        culprits = [f.material for f in frames if not self._is_finite(f)] or [f.material for f in frames]
        message = f"step {self.step}: the gradient is not finite, because of {', '.join(culprits)}"
        if self.skipped > _SKIPPED:
            raise MatrisError(f"{message}; {_SKIPPED} batches were skipped before: leave these frames out")
        logger.warning("%s; the step is skipped", message)

    def _is_finite(self, frame: Frame) -> bool:
        """Whether the gradient of one frame's loss is."""
        batch = collate([frame], self.network.config, self.device)
        loss = errors(self.network, batch, differentiable=True).loss(self.settings.weights).sum()
        gradients = torch.autograd.grad(loss, self.parameters, allow_unused=True)
        return bool(torch.isfinite(loss)) and all(bool(g.isfinite().all()) for g in gradients if g is not None)

    @torch.no_grad()
    def _swap(self) -> None:
        """Exchange the weights and their average."""
        for p, mean in zip(self.parameters, self.average, strict=True):
            kept = p.clone()
            p.copy_(mean)
            mean.copy_(kept)

    def validate(self, frames: Sequence[Frame], costs: NDArray[np.float64]) -> dict[str, float]:
        """Errors of the average of the weights."""
        share = batches.balanced(np.arange(len(frames)), costs, self.world)[self.rank]
        self._swap()
        sums = _error_sums(self.network, [[frames[i] for i in p] for p in batches.pieces(share, costs, self.piece)])
        self._swap()
        if self.world > 1:
            distributed.all_reduce(sums)
        return _mean(sums)

    def log(self, epoch: int, losses: Sequence[float], seconds: float) -> None:
        """Append a row to the CSV log."""
        if self.rank > 0:
            return
        weights = asdict(self.settings.weights)
        row = {
            "step": self.step,
            "epoch": epoch,
            "learning_rate": self.settings.rate(self.step - 1),
            "train_loss": float(np.mean(losses)),
            "loss": sum(weight * self.summary.get(name, 0.0) for name, weight in weights.items()),
            "skipped": self.skipped,
            "seconds": seconds,
            **self.summary,
        }
        path = self.directory / LOG
        new = not path.exists()
        with path.open("a", newline="") as stream:
            writer = csv.DictWriter(stream, COLUMNS)
            if new:
                writer.writeheader()
            writer.writerow(row)
        logger.info(" ".join(f"{name}={row[name]:.4g}" for name in COLUMNS if name in row))

    def save(self) -> None:
        """Write the state atomically."""
        if self.rank > 0:
            return
        path = self.directory / STATE
        temporary = path.with_suffix(".new")
        state = {
            "step": self.step,
            "skipped": self.skipped,
            "settings": asdict(self.settings),
            "network": self.network.state_dict(),
            "average": self.average_state(),
            "optimizer": self.optimizer.state_dict(),
            "summary": self.summary,
        }
        with temporary.open("wb") as stream:
            torch.save(state, stream)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)

    def average_state(self) -> dict[str, torch.Tensor]:
        """State of a network that has the average of the weights."""
        names = [name for name, _ in self.network.named_parameters()]
        return {**self.network.state_dict(), **dict(zip(names, self.average, strict=True))}

    def resume(self) -> None:
        """Load the saved state, if there is one, and forget what was logged after it."""
        path = self.directory / STATE
        if not path.exists():
            return
        state: dict[str, Any] = load_plain(path)
        if state["settings"] != asdict(self.settings):
            raise MatrisError(f"{path} was written with other settings: train in another directory, or remove it")
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        for mean, (name, _) in zip(self.average, self.network.named_parameters(), strict=True):
            mean.copy_(state["average"][name])
        self.step, self.skipped = int(state["step"]), int(state["skipped"])
        self.summary = dict(state["summary"])
        if self.rank == 0:
            _cut_log(self.directory / LOG, self.step)
        logger.info("going on from step %d", self.step)

    def finish(self) -> None:
        """Leave the network with the average of its weights, frozen."""
        self._swap()
        for p in self.parameters:
            p.grad = None
        self.network.requires_grad_(False).eval()


def validate(network: MatRIS, frames: Sequence[Frame]) -> dict[str, float]:
    """Mean errors over frames, of those of `ERRORS` that have labels: eV/atom, eV/Å, GPa, μB."""
    costs = batches.costs(frames, network.config)
    parts = batches.pieces(np.arange(len(frames)), costs, _CPU_PIECE)
    return _mean(_error_sums(network, [[frames[i] for i in part] for part in parts]))


def _error_sums(network: MatRIS, parts: Sequence[Sequence[Frame]]) -> torch.Tensor:
    """Add up errors, and what to divide them by, shape (2, number of errors)."""
    device = network.reference_energies.device
    sums = torch.zeros(2, len(ERRORS), dtype=torch.float64, device=device)
    for part in parts:
        sums += errors(network, collate(part, network.config, device), differentiable=False).sums()
    return sums


def _mean(sums: torch.Tensor) -> dict[str, float]:
    totals, counts = sums.tolist()
    return {name: total / n for name, total, n in zip(ERRORS, totals, counts, strict=True) if n}


def _rank() -> tuple[int, int]:
    """Rank of this process, and number of processes."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def _cut_log(path: Path, step: int) -> None:
    """Leave out what was logged after a step, by a run that was killed before it saved its state."""
    if not path.exists():
        return
    header, *rows = path.read_text().splitlines(keepends=True)
    kept = [row for row in rows if row.endswith("\n") and int(row.split(",")[0]) <= step]
    path.write_text("".join([header, *kept]))
