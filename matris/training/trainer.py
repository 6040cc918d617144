"""Training with AdamW: cosine schedule with warm-up, gradient clipping, EMA of the weights, exact resumption."""

from __future__ import annotations

import csv
import logging
import math
import time
import zlib
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import distributed

from matris.errors import MatrisError
from matris.files.whole_file import whole_file
from matris.model.checkpoints import load_plain
from matris.training import batches
from matris.training.loss import LossWeights
from matris.training.objective import LabelObjective
from matris.training.optimizers import OptimizerName, make_optimizers
from matris.training.precision import single_precision

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from matris.model.network import MatRIS
    from matris.training.data.frame import Frame
    from matris.training.objective import Objective

logger = logging.getLogger(__name__)

STATE = "training-state.pt"
LOG = "log.csv"

_FIRST = ("step", "epoch", "learning_rate", "train_loss", "loss")  # first columns of the log
_SKIPPED = 20  # largest number of skipped batches


@dataclass(frozen=True)
class TrainSettings:
    """
    Settings of a training.

    The defaults are the paper's (arXiv 2603.02002), except for EMA, warm-up and the end of the schedule, which it does
    not specify.

    Parameters
    ----------
    steps
        Total number of optimizer steps, at which the cosine schedule ends. By default, those of `epochs`.
    epochs
        Passes over the training frames.
    batch_size
        Mean number of structures in a step; batches have similar costs instead of equal sizes.
    learning_rate
        Peak learning rate of the schedule.
    warmup
        Steps of linear warm-up.
    optimizer
        ``"adamw"``, or ``"muon"`` for matrices with AdamW for the rest (`matris.training.optimizers`).
    weight_decay
        Decoupled weight decay.
    clip
        Largest norm of the gradient, which is clipped to it.
    ema_decay
        Decay of the exponential moving average (EMA) of the weights per step. The average is validated and kept.
    weights
        Weights of the loss.
    seed
        Seed of the order of frames.
    validate_every
        Steps between validations and saved states.
    frozen_blocks
        Number of first blocks whose weights are frozen, together with the embeddings.
    layer_decay
        Ratio of the learning rates of a block and the next one; the read-out has the full rate.
    replay_share
        Fraction of old structures in each batch, against forgetting.
    early_stopping
        End after this many validations without a lower loss, with the best weights. By default all steps are taken.
    compiled_step
        Compile the training step with torch's inductor, which takes minutes and pays off in long runs.
    """

    steps: int | None = None
    epochs: float = 40.0
    batch_size: int = 512
    learning_rate: float = 3e-4
    warmup: int = 1000
    optimizer: OptimizerName = "adamw"
    weight_decay: float = 1e-2
    clip: float = 0.5
    ema_decay: float = 0.999
    weights: LossWeights = field(default_factory=LossWeights)
    seed: int = 0
    validate_every: int = 500
    frozen_blocks: int = 0
    layer_decay: float = 1.0
    replay_share: float = 0.0
    early_stopping: int | None = None
    compiled_step: bool = False

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012 - for configuration files

    def total(self, n_frames: int) -> int:
        """Return the total number of steps for a number of training frames."""
        if self.steps is not None:
            return self.steps
        return max(1, math.ceil(self.epochs * batches.per_epoch(n_frames, self.new_size)))

    @property
    def new_size(self) -> int:
        """Mean number of new structures in a batch."""
        return max(1, round(self.batch_size * (1 - self.replay_share)))

    def rate(self, step: int, total: int) -> float:
        """Return the learning rate of a step (from 0): linear warm-up, then half a cosine down to 1 % of the peak."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        progress = (step - self.warmup) / max(1, total - self.warmup)
        return self.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))

    def check(self) -> None:
        """
        Check the ranges of all settings.

        Raises
        ------
        MatrisError
            If a setting is out of range; the message names it.
        """
        wrong = {
            "steps or epochs": (1 if self.steps is None else self.steps) < 1 or self.epochs <= 0,
            "batch_size": self.batch_size < 1,
            "learning_rate": self.learning_rate <= 0,
            "clip": self.clip <= 0,
            "ema_decay": not 0 <= self.ema_decay < 1,
            "validate_every": self.validate_every < 1,
            "layer_decay": not 0 < self.layer_decay <= 1,
            "replay_share": not 0 <= self.replay_share < 1,
            "early_stopping": self.early_stopping is not None and self.early_stopping < 1,
        }
        if names := [name for name, is_wrong in wrong.items() if is_wrong]:
            raise MatrisError(f"training setting {names[0]} is out of range")


@single_precision()
def train(
    network: MatRIS,
    training: Sequence[Frame],
    validation: Sequence[Frame],
    settings: TrainSettings,
    directory: Path,
    *,
    replay: Sequence[Frame] = (),
    objective: Objective | None = None,
) -> dict[str, float]:
    """
    Train a network in place; a run in the directory of a killed run resumes it exactly.

    The network ends with the exponential moving average (EMA) of its weights, which is also validated.

    Under `torch.distributed`, every process holds the network and computes a share of each batch, of similar cost; the
    sum of their gradients equals that of one process with the whole batch.

    Parameters
    ----------
    network
        The network, on its device, with element energies set.
    training, validation
        Labelled frames.
    settings
        Settings of the training.
    directory
        Folder of ``training-state.pt`` and ``log.csv``. The column ``compiled`` of the log is the share of the batches
        since the last row that the compiled step computed, if there is one.
    replay
        Old frames to mix into each batch.
    objective
        Training objective; by default, the labels.

    Returns
    -------
    dict
        Validation errors of the final weights, for quantities with labels: eV/atom, eV/Å, GPa, μB.

    Raises
    ------
    MatrisError
        Without frames, for a saved state of other settings or frames, or if too many batches were skipped because of a
        gradient that is not finite.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from ase.build import bulk
    >>> from matris.model.config import ModelConfig
    >>> from matris.model.graph import Geometry
    >>> from matris.model.network import MatRIS
    >>> from matris.training.data.frame import Frame
    >>> frames = [
    ...     Frame(Geometry.of(bulk("Cu", a=a)), -3.0, np.zeros((1, 3)), np.zeros((3, 3)), f"Cu {a}")
    ...     for a in (3.5, 3.6, 3.7)
    ... ]
    >>> tiny = ModelConfig(num_layers=1, node_feat_dim=8, edge_feat_dim=8, three_body_feat_dim=8, mlp_hidden_dims=(8,))
    >>> settings = TrainSettings(steps=2, batch_size=2, warmup=1)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     errors = train(MatRIS(tiny, magmoms=False), frames[:2], frames[2:], settings, Path(folder))
    >>> sorted(errors)
    ['energy', 'force', 'force_component', 'stress']
    """
    settings.check()
    if not len(training) or not len(validation):
        raise MatrisError(f"{len(training)} training and {len(validation)} validation frames: both are needed")
    if bool(len(replay)) != (settings.replay_share > 0):
        raise MatrisError(
            f"a share of {settings.replay_share} of old frames was asked for, and {len(replay)} were given"
        )
    directory.mkdir(parents=True, exist_ok=True)
    objective = objective or LabelObjective(network, settings.weights)
    frames = Joined(training, replay)
    costs = np.concatenate([batches.costs(part, network.config) for part in (training, replay)])
    aside = batches.costs(validation, network.config)
    run = _Run(network, objective, settings, directory, settings.total(len(training)))
    run.resume(zlib.crc32(costs.tobytes()))
    if settings.compiled_step and run.step < run.total:
        run.objective.compile([frames[i] for i in np.argsort(costs)[-2:]])
    began, losses = time.monotonic(), list[float]()
    while not run.is_done():
        for number, chosen in _batches(costs, len(training), settings, run.step, run.total):
            losses.append(run.take_step([frames[i] for i in chosen], costs[chosen]))
            if run.step % settings.validate_every == 0 or run.step == run.total:
                run.validate(validation, aside)
                run.log(number, losses, time.monotonic() - began)
                run.save()
                losses.clear()
                if run.is_done():
                    break
    run.finish()
    return run.summary


class Joined:
    """Two sequences of frames, joined."""

    def __init__(self, first: Sequence[Frame], second: Sequence[Frame]) -> None:
        self.first, self.second = first, second

    def __len__(self) -> int:
        return len(self.first) + len(self.second)

    def __getitem__(self, index: int) -> Frame:
        n = len(self.first)
        return self.first[index] if index < n else self.second[index - n]


def _batches(
    costs: NDArray[np.float64], n_new: int, settings: TrainSettings, step: int, total: int
) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Yield epoch and batch of each step from `step` to the end of its epoch; frames from `n_new` on are old ones."""
    number, position = divmod(step, batches.per_epoch(n_new, settings.new_size))
    new = batches.epoch(costs[:n_new], settings.new_size, [settings.seed, number])[position:]
    for offset, chosen in enumerate(new[: total - step]):
        if n_new < len(costs):
            n_old = max(1, settings.batch_size - settings.new_size)
            old = _old_batch(costs[n_new:], n_old, settings.seed, step + offset)
            chosen = np.concatenate([chosen, n_new + old])  # noqa: PLW2901 - the whole batch
        yield number, chosen


def _old_batch(costs: NDArray[np.float64], size: int, seed: int, step: int) -> NDArray[np.int64]:
    """Draw the old frames of a step; passes over old and new frames are independent."""
    number, position = divmod(step, batches.per_epoch(len(costs), size))
    return batches.epoch(costs, size, [seed, number, 1])[position]


class _Run:
    """State of a training: network, optimizer, EMA and progress."""

    def __init__(
        self, network: MatRIS, objective: Objective, settings: TrainSettings, directory: Path, total: int
    ) -> None:
        self.objective, self.settings, self.directory, self.total = objective, settings, directory, total
        self.rank, self.world = _rank()
        network.domain = None  # it belongs to the old weights
        self.module = objective.module
        self.module.requires_grad_(True).train()
        names = [name for name, _ in self.module.named_parameters()]
        factors = _factors(names, settings)
        if not network.config.learnable_basis:
            factors = [0.0 if name.endswith("frequencies") else f for name, f in zip(names, factors, strict=True)]
        trained = []
        for (name, p), factor in zip(self.module.named_parameters(), factors, strict=True):
            p.requires_grad_(factor > 0)
            if factor > 0:
                p.grad = torch.zeros_like(p)
                trained.append((name, p, factor))
        self.parameters = [p for _, p, _ in trained]
        self.optimizers = make_optimizers(settings.optimizer, trained, settings.learning_rate, settings.weight_decay)
        self.device = self.parameters[0].device
        self.piece = batches.largest_piece(self.device)
        self.average = [p.detach().clone() for p in self.parameters]
        self.best = [mean.clone() for mean in self.average]
        self.step, self.skipped, self.stale, self.lowest, self.frames = 0, 0, 0, math.inf, 0
        self.summary: dict[str, float] = {}
        self.best_summary: dict[str, float] = {}

    def is_done(self) -> bool:
        """Whether all steps are taken, or early stopping ends the training."""
        limit = self.settings.early_stopping
        return self.step >= self.total or (limit is not None and self.stale >= limit)

    def take_step(self, frames: Sequence[Frame], costs: NDArray[np.float64]) -> float:
        """Take a step on a batch, or skip it if its gradient is not finite; return the loss."""
        settings = self.settings
        share = batches.balanced(np.arange(len(frames)), costs, self.world)[self.rank]
        torch._foreach_zero_([p.grad for p in self.parameters if p.grad is not None])
        total = torch.zeros((), device=self.device)
        for piece in batches.pieces(share, costs, self.piece):
            seeds = [(settings.seed, self.step, i) for i in piece.tolist()]
            total += self.objective.backward([frames[i] for i in piece], 1 / len(frames), seeds)
        total = self._add_up(total)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, settings.clip)
        for group in (group for optimizer in self.optimizers for group in optimizer.param_groups):
            group["lr"] = group["factor"] * settings.rate(self.step, self.total)
        if torch.isfinite(norm) and torch.isfinite(total):
            for optimizer in self.optimizers:
                optimizer.step()
            self._average()
        else:
            self._skip(frames)
        self.step += 1
        return float(total)

    def _add_up(self, loss: torch.Tensor) -> torch.Tensor:
        """Sum gradients and loss over the processes in one message."""
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
        """Update the EMA; its decay is smaller in the first steps, so that the initial weights are soon forgotten."""
        done = self.step - self.skipped
        keep = min(self.settings.ema_decay, (1 + done) / (10 + done))
        torch._foreach_lerp_(self.average, list[torch.Tensor](self.parameters), 1 - keep)

    def _skip(self, frames: Sequence[Frame]) -> None:
        """Count a skipped batch, and name its frames."""
        self.skipped += 1
        culprits = [f.material for i, f in enumerate(frames) if not self._is_finite(f, i)] or [
            f.material for f in frames
        ]
        message = f"step {self.step}: the gradient is not finite, because of {', '.join(culprits)}"
        if self.skipped > _SKIPPED:
            raise MatrisError(f"{message}; {_SKIPPED} batches were skipped before: remove these frames")
        logger.warning("%s; the step is skipped", message)

    def _is_finite(self, frame: Frame, index: int) -> bool:
        """Whether the loss of one frame of a batch and its gradient are finite."""
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        torch._foreach_zero_(gradients)
        loss = self.objective.backward([frame], 1.0, [(self.settings.seed, self.step, index)])
        return bool(loss.isfinite()) and all(bool(g.isfinite().all()) for g in gradients)

    @torch.no_grad()
    def _swap(self) -> None:
        """Exchange the weights and their EMA."""
        for p, mean in zip(self.parameters, self.average, strict=True):
            kept = p.clone()
            p.copy_(mean)
            mean.copy_(kept)

    def validate(self, frames: Sequence[Frame], costs: NDArray[np.float64]) -> None:
        """Compute the errors of the EMA of the weights, and keep it if it is the best."""
        share = batches.balanced(np.arange(len(frames)), costs, self.world)[self.rank]
        self._swap()
        parts = [[frames[i] for i in piece] for piece in batches.pieces(share, costs, self.piece)]
        sums = self.objective.sums(parts)
        self._swap()
        if self.world > 1:
            distributed.all_reduce(sums)
        self.summary = mean_errors(sums, self.objective.names)
        loss = self.objective.score(self.summary)
        self.stale += 1
        if loss < self.lowest:
            self.lowest, self.stale, self.best_summary = loss, 0, self.summary
            torch._foreach_copy_(self.best, self.average)

    def log(self, epoch: int, losses: Sequence[float], seconds: float) -> None:
        """Append a row to the CSV log."""
        if self.rank > 0:
            return
        row = {
            "step": self.step,
            "epoch": epoch,
            "learning_rate": self.settings.rate(self.step - 1, self.total),
            "train_loss": float(np.mean(losses)),
            "loss": self.objective.score(self.summary),
            **self.summary,
            "skipped": self.skipped,
            "compiled": self.objective.compiled_share(),
            "seconds": seconds,
        }
        path = self.directory / LOG
        new = not path.exists()
        columns = (*_FIRST, *self.objective.names, "skipped", "compiled", "seconds")
        with path.open("a", newline="") as stream:
            writer = csv.DictWriter(stream, columns)
            if new:
                writer.writeheader()
            writer.writerow(row)
        logger.info(" ".join(f"{name}={row[name]:.4g}" for name in columns if row.get(name) is not None))

    def save(self) -> None:
        """Write the state atomically."""
        if self.rank > 0:
            return
        path = self.directory / STATE
        state = {
            "step": self.step,
            "frames": self.frames,
            "skipped": self.skipped,
            "stale": self.stale,
            "lowest": self.lowest,
            "settings": asdict(self.settings),
            "network": self.module.state_dict(),
            "average": self._state_with(self.average),
            "best": self._state_with(self.best),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "summary": self.summary,
            "best_summary": self.best_summary,
        }
        with whole_file(path) as draft:
            torch.save(state, draft)

    def _names(self) -> list[str]:
        return [name for name, p in self.module.named_parameters() if p.requires_grad]

    def _state_with(self, weights: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the state of the network with other weights."""
        return {**self.module.state_dict(), **dict(zip(self._names(), weights, strict=True))}

    def resume(self, frames: int) -> None:
        """
        Load the saved state, if there is one, and remove later rows of the log.

        Parameters
        ----------
        frames
            Checksum that identifies the training frames.
        """
        self.frames = frames
        path = self.directory / STATE
        if not path.exists():
            if self.rank == 0:
                _cut_log(self.directory / LOG, 0)
            return
        state: dict[str, Any] = load_plain(path)
        changed = [name for name, value in asdict(self.settings).items() if state["settings"].get(name) != value]
        if changed and changed != ["compiled_step"]:  # which does not change the result
            raise MatrisError(
                f"{path} was written with other settings ({', '.join(changed)}): "
                "train in another directory, or remove it"
            )
        if state["frames"] != frames:
            raise MatrisError(f"{path} was written with other frames: train in another directory, or remove it")
        self.module.load_state_dict(state["network"])
        for optimizer, content in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(content)
        for name, mean, best in zip(self._names(), self.average, self.best, strict=True):
            mean.copy_(state["average"][name])
            best.copy_(state["best"][name])
        self.step, self.skipped = int(state["step"]), int(state["skipped"])
        self.stale, self.lowest = int(state["stale"]), float(state["lowest"])
        self.summary, self.best_summary = dict(state["summary"]), dict(state["best_summary"])
        if self.rank == 0:
            _cut_log(self.directory / LOG, self.step)
        logger.info("resuming from step %d", self.step)

    def finish(self) -> None:
        """Give the network the EMA of its weights, the best one with early stopping, and freeze it."""
        if self.settings.early_stopping is not None and self.lowest < math.inf:
            torch._foreach_copy_(self.average, self.best)
            self.summary = self.best_summary
        self._swap()
        for p in self.parameters:
            p.grad = None
        self.module.requires_grad_(False).eval()


def _factors(names: Sequence[str], settings: TrainSettings) -> list[float]:
    """
    Return the factor of each parameter's learning rate, zero for a frozen parameter.

    The embeddings come before the first block, the read-out after the last one.
    """
    depths = [_depth(name) for name in names]
    blocks = 1 + max(depth for depth in depths if depth is not None)
    factors = []
    for depth in depths:
        place = blocks if depth is None else depth
        is_frozen = settings.frozen_blocks > 0 and place < settings.frozen_blocks
        factors.append(0.0 if is_frozen else settings.layer_decay ** (blocks - place))
    return factors


def _depth(name: str) -> int | None:
    """Return the block of a parameter: −1 for the embeddings, None for the read-out."""
    parts = name.removeprefix("network.").split(".")
    if parts[0] == "blocks":
        return int(parts[1])
    return -1 if parts[0].startswith(("atom_", "bond_", "line_", "angle_")) else None


def mean_errors(sums: torch.Tensor, names: Sequence[str]) -> dict[str, float]:
    """Divide sums by numbers of labels, shape (2, n); quantities without labels are left out."""
    totals, counts = sums.tolist()
    return {name: total / n for name, total, n in zip(names, totals, counts, strict=True) if n}


@single_precision()
def validate(network: MatRIS, frames: Sequence[Frame]) -> dict[str, float]:
    """Return mean errors over frames, for those of `ERRORS` with labels: eV/atom, eV/Å, GPa, μB."""
    costs = batches.costs(frames, network.config)
    objective = LabelObjective(network, LossWeights())
    largest = batches.largest_piece(network.reference_energies.device)
    parts = batches.pieces(np.arange(len(frames)), costs, largest)
    return mean_errors(objective.sums([[frames[i] for i in part] for part in parts]), objective.names)


def _rank() -> tuple[int, int]:
    """Return the rank of this process, and the number of processes."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def _cut_log(path: Path, step: int) -> None:
    """Remove rows after a step, logged by a run that was killed before it saved its state."""
    if not path.exists():
        return
    header, *rows = path.read_text().splitlines(keepends=True)
    kept = [row for row in rows if row.endswith("\n") and int(row.split(",")[0]) <= step]
    path.write_text("".join([header, *kept]))
