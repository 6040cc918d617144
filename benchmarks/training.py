"""
Measure the structures per second of a training step: ``python benchmarks/training.py --data FOLDER``.

The network is that of the embedded checkpoint or a size of the paper, with random weights, on frames of MPtrj in cells
of 8 to 40 atoms. The variants of a step alternate for several rounds. On a CPU, times are processor times, which other
processes on a shared machine disturb less than wall times.
"""

from __future__ import annotations

import argparse
import time
from itertools import batched
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
import torch
from peers import machine

from matris.model import checkpoints
from matris.model.network import MatRIS
from matris.training import batches
from matris.training.data.frame import collate
from matris.training.data.reading import read_frames
from matris.training.loss import LossWeights
from matris.training.objective import LabelObjective
from matris.training.recipe import SIZES, network_config

if TYPE_CHECKING:
    from collections.abc import Callable

    from matris.training.data.frame import Frame


def rate(step: Callable[[list[Frame]], object], parts: list[list[Frame]]) -> float:
    """Return structures per second: of processor time of all threads on a CPU, of wall time with a GPU."""
    start = time.process_time() if torch.cuda.device_count() == 0 else time.perf_counter()
    for part in parts:
        step(part)
    if torch.cuda.device_count():
        torch.cuda.synchronize()
    stop = time.process_time() if torch.cuda.device_count() == 0 else time.perf_counter()
    return sum(map(len, parts)) / (stop - start)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with mptrj_random.extxyz.gz")
    parser.add_argument("--model", choices=["embedded", *SIZES], default="embedded")
    parser.add_argument("--frames", type=int, default=48)
    parser.add_argument("--batch-size", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--compile", action="store_true", help="also compile the step, which takes minutes the first time"
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    if options.model == "embedded":
        config = checkpoints.read_file(checkpoints.locate())[0].config
    else:
        config = network_config({"size": options.model})
    network = MatRIS(config, magmoms=False).to(options.device)
    frames = [f for f in read_frames([options.data / "mptrj_random.extxyz.gz"]) if 8 <= len(f.forces) <= 40]
    frames = frames[: options.frames]
    costs = batches.costs(frames, config)
    objective = LabelObjective(network, LossWeights())
    for p in network.parameters():
        p.grad = torch.zeros_like(p)

    def step(part: list[Frame]) -> None:
        objective.backward(part, 1 / len(part), [])

    whole = [list(part) for part in batched(frames, options.batch_size)]
    largest = batches.largest_piece(torch.device(options.device))
    pieces = [
        [frames[i] for i in piece]
        for chosen in batched(range(len(frames)), options.batch_size)
        for piece in batches.pieces(np.array(chosen), costs, largest)
    ]
    ways = {
        "graphs only": (lambda part: collate(part, config, options.device), whole, False),
        f"batches of {options.batch_size}, undivided": (step, whole, False),
        f"in pieces of {largest / 1e6:.0f} MB": (step, pieces, False),
    }
    if options.compile:
        ways["in pieces, compiled"] = (step, pieces, True)
    print(f"{machine(options.device, options.threads)}, {options.model}, {options.rounds} rounds; "
          f"{np.mean([len(f.forces) for f in frames]):.0f} atoms per structure\n")  # fmt: skip
    compiled_step = None
    if options.compile:
        start = time.perf_counter()
        objective.compile([frames[i] for i in np.argsort(costs)[-2:]])
        compiled_step = objective._compiled  # noqa: SLF001 - to switch it on and off
        print(f"compiled in {time.perf_counter() - start:.0f} s\n")
    found: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(options.rounds + 1):
        for name, (way, parts, is_compiled) in ways.items():
            objective._compiled = compiled_step if is_compiled else None  # noqa: SLF001
            if number:  # the first warms up
                found[name].append(rate(way, parts))
            else:
                rate(way, parts[:2])
    print("| step | structures/s: median (range) |\n|---|---|")
    for name, rates in found.items():
        print(f"| {name} | {median(rates):.1f} ({min(rates):.1f} to {max(rates):.1f}) |", flush=True)


if __name__ == "__main__":
    main()
