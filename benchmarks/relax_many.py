"""
Relax many small crystals: ``python benchmarks/relax_many.py --help``.

Four methods with the weights of a small trained network of the published architecture (`weights.SMALL`), in two
processes: `matris.relax` with L-BFGS and with FIRE, ASE's FIRE with our calculator, and ASE's FIRE with the published
package. The methods alternate, on one part of the crystals at a time.
"""

from __future__ import annotations

import argparse
import tempfile
from itertools import islice
from pathlib import Path
from statistics import median

import numpy as np
import torch
from peers import Peer, machine
from weights import SMALL, write_published

from matris import load
from matris.structures import problem_with
from recipes.embedded.materials import generate

FMAX, STEPS, PARTS = 0.05, 200, 5
SAME = 1e-3  # eV/atom
BATCH = "`matris.relax`"


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    elements = load(SMALL, device="cpu").elements
    made = (m.structure for m in generate(99, 8 * options.count))
    small = (s for s in made if len(s) <= 12 and problem_with(s, elements) is None)
    structures = list(islice(small, options.count))
    print(f"{machine(options.device, options.threads)}, "
          f"{len(structures)} crystals of {np.mean([len(s) for s in structures]):.1f} atoms on average, "
          f"fmax {FMAX} eV/Å, at most {STEPS} steps; energies within {1000 * SAME:.0f} meV/atom are the same\n"
    )  # fmt: skip
    settings = {"threads": options.threads, "device": options.device}
    with (
        tempfile.TemporaryDirectory() as folder,
        Peer("published", **settings) as published,
        Peer("ours", **settings) as ours,
    ):
        path = Path(folder) / "small.pth.tar"
        write_published(path)
        ways = {
            BATCH: (ours, {"optimizer": "lbfgs"}),
            "`matris.relax`, FIRE": (ours, {"optimizer": "fire"}),
            "ASE, our calculator": (ours, {}),
            "ASE, published calculator": (published, {}),
        }
        for peer in (ours, published):
            peer.load(path, structures)
            peer.ask("call", which=[0])
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        energies: dict[str, list[float]] = {way: [] for way in ways}
        steps: dict[str, list[int]] = {way: [] for way in ways}
        converged: dict[str, list[bool]] = {way: [] for way in ways}
        for part in range(PARTS):
            which = list(range(part, len(structures), PARTS))
            for way, (peer, chosen) in ways.items():
                answer = peer.ask("relax", which=which, fmax=FMAX, steps=STEPS, **chosen)
                seconds[way].append(answer["seconds"])
                energies[way] += answer["energies"]
                steps[way] += answer["steps"]
                converged[way] += answer["converged"]
    print(
        "| method | crystals per minute | steps, mean | converged | time, ratio to ours: median (range) "
        "| energies lower / same / higher than ours |"
    )
    print("|---|---|---|---|---|---|")
    for way in ways:
        ratios = [a / b for a, b in zip(seconds[way], seconds[BATCH], strict=True)]
        difference = np.subtract(energies[way], energies[BATCH])
        lower, higher = np.sum(difference < -SAME), np.sum(difference > SAME)
        same = np.sum(np.abs(difference) <= SAME)
        rate, spread = 60 * len(structures) / sum(seconds[way]), f"({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"| {way} | {rate:.1f} | {np.mean(steps[way]):.0f} | {sum(converged[way])} | "
              f"{median(ratios):.2f} {spread} | {lower} / {same} / {higher} |")  # fmt: skip


if __name__ == "__main__":
    main()
