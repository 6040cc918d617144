"""
Time campaigns of this checkout and of another one in alternation: ``python benchmarks/checkouts.py FOLDER``.

``git worktree add --detach FOLDER COMMIT`` makes the other checkout; both run in this environment, with default
settings and the weights that the other one embeds. Each round runs ``matris screen`` once with each, into new stores.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from itertools import islice
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

from peers import machine

from matris import load
from matris.machine import usable_cores
from matris.structures import problem_with
from recipes.embedded.materials import generate

if TYPE_CHECKING:
    from collections.abc import Sequence

HERE = Path(__file__).parents[1]
WEIGHTS = Path("matris/data/matris_embedded.safetensors")


class Run(NamedTuple):
    """Wall and processor time of a campaign with its processes (s), and the documents of its candidates by source."""

    wall: float
    processor: float
    documents: dict[str, dict[str, Any]]

    def __str__(self) -> str:
        computed = [d["n_steps"] for d in self.documents.values() if d.get("n_steps") is not None]
        states = Counter(document["state"] for document in self.documents.values())
        return f"{self.wall:.1f} | {self.processor:.1f} | {sum(computed) / max(1, len(computed)):.1f} | " + ", ".join(
            f"{n} {state}" for state, n in states.most_common()
        )


def environment(checkout: Path) -> dict[str, str]:
    """Make the environment of a checkout's commands, without settings of threads and devices."""
    kept = {name: value for name, value in os.environ.items() if name not in {"OMP_NUM_THREADS", "MATRIS_DEVICE"}}
    return kept | {"PYTHONPATH": str(checkout)}


def screen(checkout: Path, sources: Path, store: Path, options: Sequence[str]) -> Run:
    """Run ``matris screen`` of a checkout."""
    command = [sys.executable, "-W", "ignore", "-m", "matris.cli"]
    arguments = ["screen", str(sources), "--store", str(store), *options]
    start = time.perf_counter()
    process = subprocess.Popen(
        [*command, *arguments],
        env=environment(checkout),
        cwd=store.parent,
        stdout=subprocess.DEVNULL,
        stderr=(store.parent / "stderr.txt").open("wb"),
    )
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{checkout}: matris screen failed\n{(store.parent / 'stderr.txt').read_text()[-2000:]}")
    query = [*command, "query", "--store", str(store), "--format", "json"]
    found = subprocess.run(query, env=environment(checkout), cwd=store.parent, capture_output=True, check=True)
    documents = {d["source"]: d for d in json.loads(found.stdout) if d["source"].startswith(str(sources))}
    return Run(wall, usage.ru_utime + usage.ru_stime, documents)


def same_and_different(ours: Run, other: Run) -> str:
    """Compare the energies of the candidates that both runs relaxed."""
    energies = [
        (document["uncorrected_energy_per_atom"], other.documents[name]["uncorrected_energy_per_atom"])
        for name, document in ours.documents.items()
        if document["state"] == other.documents.get(name, {}).get("state") == "converged"
    ]
    differences = [1000 * (a - b) for a, b in energies]
    lower, higher = sum(d < -1 for d in differences), sum(d > 1 for d in differences)
    return f"{len(energies)} converged in both: {lower} lower by more than 1 meV/atom here, {higher} higher"


def main() -> None:
    """Print a line for each run, and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path, help="folder of the other checkout")
    parser.add_argument("--candidates", type=int, default=300)
    parser.add_argument("--atoms", type=int, default=12, help="maximum number in a cell")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("options", nargs="*", help="further options of matris screen, after --")
    options = parser.parse_args()
    checkout = options.checkout.absolute()
    weights = checkout / WEIGHTS
    elements = load(weights, device="cpu").elements
    usable = (
        material.structure
        for material in generate(99, 10 * options.candidates)
        if len(material.structure) <= options.atoms and problem_with(material.structure, elements) is None
    )
    sides = {"this": HERE, "other": checkout}
    runs: dict[str, list[Run]] = {side: [] for side in sides}
    print(f"{machine('cpu', usable_cores())}; {options.candidates} candidates; load {os.getloadavg()[0]:.1f}\n")
    print("| round | checkout | wall, s | processor, s | steps, mean | candidates |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        sources = Path(folder) / "candidates"
        sources.mkdir()
        for number, structure in enumerate(islice(usable, options.candidates)):
            structure.to(filename=str(sources / f"{number:05d}.json"))
        for number in range(options.rounds):
            order = list(sides) if number % 2 == 0 else list(sides)[::-1]
            for side in order:
                place = Path(folder) / f"{number}-{side}"
                place.mkdir()
                run = screen(sides[side], sources, place / "store", ["--checkpoint", str(weights), *options.options])
                runs[side].append(run)
                print(f"| {number + 1} | {side} | {run} |", flush=True)
    for name in ("wall", "processor"):
        ratios = [getattr(b, name) / getattr(a, name) for a, b in zip(*runs.values(), strict=True)]
        print(f"\n{name}, other over this: {median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})", end="")
    print(f"\n{same_and_different(runs['this'][0], runs['other'][0])}")


if __name__ == "__main__":
    main()
