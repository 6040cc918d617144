"""
Molecular dynamics of silicon: ``python benchmarks/dynamics.py --help``.

``verlet``: ASE's velocity Verlet drives our calculator and the published one, in alternation, in separate processes,
with the same random weights of the published 10M configuration. Microseconds per atom and step is the usual metric;
NVIDIA reports 3.02 for MACE-large on an H100.

``temperatures``: Langevin dynamics at five temperatures with one checkpoint: by `matris.properties.arrhenius.diffusion`
in one batch, by the same one temperature after the other, and by ASE's `Langevin` with our calculator one after the
other. The three alternate in one process.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
import torch
from ase import units
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from cells import silicon
from peers import Peer, machine
from single_call import CONFIG

import matris
from matris.properties.arrhenius import diffusion
from matris.properties.ensembles import DynamicsSettings

if TYPE_CHECKING:
    from collections.abc import Callable

    from pymatgen.core import Structure

    from matris.model.potential import Potential

TEMPERATURES = (400.0, 600.0, 800.0, 1000.0, 1200.0)
FRICTION_TIME = 1000.0  # fs


def main() -> None:
    """Print tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=["verlet", "temperatures"], default=["verlet", "temperatures"])
    parser.add_argument("--checkpoint", help="for temperatures; default: the embedded one")
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
    if "verlet" in options.parts:
        verlet(options)
    if "temperatures" in options.parts:
        temperatures(options)


def temperatures(options: argparse.Namespace) -> None:
    """Print the times of five temperatures, together and one by one."""
    torch.set_num_threads(options.threads)
    potential = matris.load(options.checkpoint, device=options.device)
    kelvins = ", ".join(f"{kelvin:g}" for kelvin in TEMPERATURES)
    print(f"{machine(options.device, options.threads)}, {potential.card.key}, {potential.dtype}, at {kelvins} K\n")
    print("| atoms | way | ms per step of all five | time / batch: median (range) |")
    print("|---|---|---|---|")
    for n in options.repeats:
        structure = silicon(n)
        ways: dict[str, Callable[[int], float]] = {
            "one batch": lambda steps, cell=structure: ours(cell, potential, steps, [TEMPERATURES]),
            "one by one": lambda steps, cell=structure: ours(cell, potential, steps, [(t,) for t in TEMPERATURES]),
            "one by one, ASE": lambda steps, cell=structure: by_ase(cell, potential, steps),
        }
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        for run in ways.values():
            run(1)  # warms up
        for _ in range(options.rounds):
            for way, run in ways.items():
                seconds[way].append(run(options.steps))
        for way, times in seconds.items():
            ratios = np.divide(times, seconds["one batch"])
            spread = f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
            step = 1e3 * median(times) / (options.steps + 1)  # the initial forces are one more call
            print(f"| {len(structure)} | {way} | {step:.1f} | {spread} |", flush=True)


def ours(structure: Structure, potential: Potential, steps: int, batches: list[tuple[float, ...]]) -> float:
    """Time our dynamics, one batch of temperatures after the other, s."""
    settings = DynamicsSettings(n_steps=steps, interval=steps, thermostat_time=FRICTION_TIME)
    started = time.perf_counter()
    for batch in batches:
        (record,) = diffusion([structure], potential, temperatures=batch, settings=settings)
        if any(run.state != "completed" for run in record.runs):
            raise RuntimeError(f"a run failed: {record}")
    return time.perf_counter() - started


def by_ase(structure: Structure, potential: Potential, steps: int) -> float:
    """Time ASE's Langevin dynamics with our calculator, one temperature after the other, s."""
    started = time.perf_counter()
    for kelvin in TEMPERATURES:
        atoms = structure.to_ase_atoms()
        atoms.calc = matris.MatRISCalculator(potential)
        MaxwellBoltzmannDistribution(atoms, temperature_K=kelvin, rng=np.random.default_rng(0))
        rng = np.random.default_rng(1)
        friction = 1 / (FRICTION_TIME * units.fs)
        Langevin(atoms, 1.0 * units.fs, temperature_K=kelvin, friction=friction, rng=rng).run(steps)
    return time.perf_counter() - started


def verlet(options: argparse.Namespace) -> None:
    """Print the speed of our calculator and the published one."""
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
