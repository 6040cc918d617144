"""
Molecular dynamics of silicon with the published 10M configuration: ``python benchmarks/dynamics.py --help``.

ASE's velocity Verlet drives our calculator and the published one, in alternation, in separate processes, with the same
random weights. Microseconds per atom and step is the usual metric; NVIDIA reports 3.02 for MACE-large on an H100.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from statistics import median

import torch
from cells import silicon
from peers import Peer, machine
from single_call import CONFIG


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, nargs="+", default=[2, 3, 5], help="numbers of cubic cells per axis")
    parser.add_argument("--layers", type=int, default=10)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--ours-only", action="store_true", help="leave out the published package, if it runs out of memory"
    )
    options = parser.parse_args()
    print(f"{machine(options.device, options.threads)}, {options.layers} blocks\n")
    print("| atoms | ours, steps/s | ours, µs per atom and step | published / ours: median (range) |")
    print("|---|---|---|---|")
    structures = [silicon(n) for n in options.repeats]
    settings = {"threads": options.threads, "device": options.device}
    config = {**CONFIG, "num_layers": options.layers}
    with (
        tempfile.TemporaryDirectory() as folder,
        Peer("published", **settings) as published,
        Peer("ours", **settings) as ours,
    ):
        path = Path(folder) / "random.pth.tar"
        published.ask("make", path=str(path), config=config, scale=1.0)
        peers = [ours] if options.ours_only else [ours, published]
        for peer in peers:
            peer.load(path, structures)
        for number, structure in enumerate(structures):
            times: dict[str, list[float]] = {peer.side: [] for peer in peers}
            for peer in peers:
                peer.ask("dynamics", which=number, steps=1)  # warms up
            for _ in range(options.rounds):
                for peer in peers:
                    answer = peer.ask("dynamics", which=number, steps=options.steps)
                    times[peer.side].append(
                        answer["seconds"] / (options.steps + 1)
                    )  # the initial forces are one more call
            best = median(times["ours"])
            ratios = [p / o for p, o in zip(times.get("published", []), times["ours"], strict=False)]
            ratio = f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})" if ratios else "not run"
            print(f"| {len(structure)} | {1 / best:.3f} | {1e6 * best / len(structure):.0f} | {ratio} |", flush=True)


if __name__ == "__main__":
    main()
