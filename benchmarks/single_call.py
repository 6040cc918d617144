"""
Compare energies, forces, stresses and time with the published package: ``python benchmarks/single_call.py --help``.

Each package runs in its own process with the same weights (random, seed 0, scaled to give realistic forces). Calls
alternate, and include building the graph. Ratios are published / ours: above one, ours is faster or smaller.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from cells import mixed_sixteen, olivine, rocksalt, silicon
from peers import Peer, machine

if TYPE_CHECKING:
    from pymatgen.core import Structure

CONFIG: dict[str, Any] = {
    "num_layers": 10, "node_feat_dim": 128, "edge_feat_dim": 128, "three_body_feat_dim": 128,
    "mlp_hidden_dims": [128, 256, 128], "distance_expansion": "Bessel", "num_radial": 7,
    "three_body_expansion": "fourier", "num_angular": 7, "norm_type": "layer", "graph_conv_mlp": "gatemlp",
    "pairwise_cutoff": 6.0, "three_body_cutoff": 4.5, "use_smoothed_for_delta_edge": True,
}  # fmt: skip
"""The published 10M configuration."""

SCALE = 300.0

CASES: dict[str, tuple[list[Structure], int]] = {
    "NaCl, 8 atoms": ([rocksalt()], 10),
    "Si, 8 atoms": ([silicon()], 10),
    "LiFePO4, 28 atoms": ([olivine()], 10),
    "16 mixed crystals": (mixed_sixteen(), 3),
    "Si, 216 atoms": ([silicon(3)], 3),
}
"""Structures of one call, and number of blocks: three where the published package runs out of memory with ten."""


def compare(name: str, rounds: int, threads: int, device: str, memory: float | None, folder: Path) -> None:
    """Run one case in new processes, and print its line of the table."""
    structures, layers = CASES[name]
    path = folder / f"{layers}.pth.tar"
    which = list(range(len(structures)))
    with (
        Peer("published", threads=threads, device=device) as published,
        Peer("ours", threads=threads, device=device) as ours,
    ):
        if not path.exists():
            published.ask("make", path=str(path), config={**CONFIG, "num_layers": layers}, scale=SCALE)
        times: dict[str, list[float]] = {"published": [], "ours": []}
        answers: dict[str, dict[str, Any]] = {}
        for peer in (published, ours):
            peer.load(path, structures)
            if memory is not None and peer is ours:
                peer.ask("limit", memory=1e9 * memory)
            answers[peer.side] = peer.ask("call", which=which)  # warms up
        for _ in range(rounds):
            for peer in (published, ours):
                answers[peer.side] = peer.ask("call", which=which)
                times[peer.side].append(answers[peer.side]["seconds"])
    energy = np.subtract(answers["ours"]["energies"], answers["published"]["energies"])
    pairs = list(zip(answers["ours"]["forces"], answers["published"]["forces"], strict=True))
    force = max(float(np.abs(np.subtract(a, b)).max()) for a, b in pairs)
    largest = max(float(np.abs(b).max()) for _, b in pairs)
    ratios = [p / o for p, o in zip(times["published"], times["ours"], strict=True)]
    memory = answers["published"]["peak_megabytes"] / answers["ours"]["peak_megabytes"]
    print(
        f"| {name} | {layers} | {median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) | "
        f"{median(times['ours']):.3f} | {memory:.1f} ({answers['ours']['peak_megabytes']:.0f} MB) | "
        f"{np.abs(energy).max():.0e} | {force:.0e} of {largest:.1f} |",
        flush=True,
    )


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=list(CASES), nargs="+", default=list(CASES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--memory", type=float, help="limit of memory that ours keeps for the backward pass (GB)")
    options = parser.parse_args()
    print(f"{machine(options.device, options.threads)}, {options.rounds} rounds, float32"
          + (f", memory limit of ours {options.memory} GB\n" if options.memory is not None else "\n"))  # fmt: skip
    print("| case | blocks | time, published / ours: median (range) | ours, s | peak memory, published / ours (ours) | "
          "energy, eV/atom | force, eV/Å |")  # fmt: skip
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name in options.case:
            compare(name, options.rounds, options.threads, options.device, options.memory, Path(folder))


if __name__ == "__main__":
    main()
