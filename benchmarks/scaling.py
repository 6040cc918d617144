"""
Measure time and memory against the number of atoms: ``python benchmarks/scaling.py --help``.

Diamond silicon with random weights of the published 10M configuration, each size in its own process. The exponents are
fitted to the logarithms; memory is the peak beyond that of the smallest size.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from cells import silicon
from peers import Peer, machine
from single_call import CONFIG


def main() -> None:
    """Print a table and two exponents."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--repeats", type=int, nargs="+", default=[1, 2, 3, 4, 6, 8, 11], help="numbers of cubic cells per axis"
    )
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--memory", type=float, help="limit of memory kept for the backward pass (GB); 0: keep none")
    options = parser.parse_args()
    print(f"{machine(options.device, options.threads)}, {options.layers} blocks"
          + (f", memory limit {options.memory} GB\n" if options.memory is not None else "\n"))  # fmt: skip
    print("| atoms | s, fastest | peak memory, MB |\n|---|---|---|")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "random.pth.tar"
        with Peer("published") as published:
            published.ask("make", path=str(path), config={**CONFIG, "num_layers": options.layers}, scale=1.0)
        for repeats in options.repeats:
            structure = silicon(repeats)
            with Peer("ours", threads=options.threads, device=options.device) as ours:
                ours.load(path, [structure])
                if options.memory is not None:
                    ours.ask("limit", memory=1e9 * options.memory)
                answers = [ours.ask("call", which=[0]) for _ in range(options.rounds)]
            rows.append((len(structure), min(a["seconds"] for a in answers), answers[-1]["peak_megabytes"]))
            print("| {} | {:.3f} | {:.0f} |".format(*rows[-1]), flush=True)
    atoms, seconds, memory = np.array(rows).T
    large = atoms >= 64  # smaller sizes are dominated by fixed costs
    time = np.polyfit(np.log(atoms[large]), np.log(seconds[large]), 1)[0]
    space = np.polyfit(np.log(atoms[large]), np.log(memory[large] - memory[0]), 1)[0]
    print(f"\nexponents from 64 atoms on: time {time:.2f}, memory {space:.2f}")


if __name__ == "__main__":
    main()
