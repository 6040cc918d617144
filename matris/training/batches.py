"""Batches of similar cost, the shares of processes, and pieces that fit into memory or cache."""

from __future__ import annotations

import heapq
import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from matris.model.graph import count_edges
from matris.model.potential import bytes_kept
from matris.training.data.dataset import DataSet

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from matris.model.config import ModelConfig
    from matris.training.data.frame import Frame

_CPU_PIECE = 1.2e8  # bytes kept for the backward pass; fits into caches, and is large enough for a compiled step
_CUDA_SHARE = 1 / 8  # of a device's memory for a piece; the second derivative needs several times as much
_WINDOW = 32  # batches that are balanced together: more are more equal, fewer are more random


def costs(frames: Sequence[Frame], config: ModelConfig) -> NDArray[np.float64]:
    """Bytes per frame that the network keeps for the backward pass, to which the time of a step is proportional."""
    counts: Iterable[Sequence[int]]
    if isinstance(frames, DataSet):
        counts = zip(*(edges.tolist() for edges in frames.edges(config)), strict=True)
    else:
        counts = (count_edges(f.geometry, config.pairwise_cutoff, config.three_body_cutoff) for f in frames)
    return np.array([bytes_kept(config, *c) for c in counts], dtype=float)


def largest_piece(device: torch.device) -> float:
    """Best size of a piece on a device, in bytes kept for the backward pass."""
    if device.type == "cuda":
        return _CUDA_SHARE * torch.cuda.get_device_properties(device).total_memory
    return _CPU_PIECE


def balanced(indices: NDArray[np.int64], costs: NDArray[np.float64], n: int) -> list[NDArray[np.int64]]:
    """
    Divide frames into parts of similar cost: in decreasing order of cost, each goes to the cheapest part.

    Parameters
    ----------
    indices
        Frames to divide.
    costs
        Costs of all frames.
    n
        Number of parts; some are empty if there are fewer frames.
    """
    parts: list[list[int]] = [[] for _ in range(n)]
    loads = [(0.0, i) for i in range(n)]
    for index in np.asarray(indices)[np.argsort(-costs[indices], kind="stable")]:
        load, part = loads[0]
        parts[part].append(int(index))
        heapq.heapreplace(loads, (load + costs[index], part))
    return [np.array(part, dtype=np.int64) for part in parts]


def per_epoch(n: int, batch_size: int) -> int:
    """Return the number of batches in one pass over n frames."""
    return max(1, n // batch_size)


def epoch(costs: NDArray[np.float64], batch_size: int, seed: Sequence[int]) -> list[NDArray[np.int64]]:
    """
    Draw the batches of one pass over all frames, in random order.

    The batches have similar costs, and therefore different numbers of frames.

    Parameters
    ----------
    costs
        Costs of all frames.
    batch_size
        Mean number of frames.
    seed
        Seed of the order.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(costs))
    n = per_epoch(len(costs), batch_size)
    windows = np.array_split(np.arange(n), math.ceil(n / _WINDOW))
    ends = [round(len(order) * (window[-1] + 1) / n) for window in windows]
    batches = []
    for window, members in zip(windows, np.split(order, ends[:-1]), strict=True):
        batches += balanced(members, costs, len(window))
    return [batches[i] for i in rng.permutation(len(batches))]


def pieces(indices: NDArray[np.int64], costs: NDArray[np.float64], largest: float) -> list[NDArray[np.int64]]:
    """Divide a batch into the least number of parts with a mean cost of at most `largest`; gradients are summed."""
    if not len(indices):
        return []
    n = min(len(indices), math.ceil(float(costs[indices].sum()) / largest))
    return balanced(indices, costs, n)
