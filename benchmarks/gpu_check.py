"""
Check the kernels for GPUs against torch, and time both: ``python benchmarks/gpu_check.py --help``.

For the day a GPU is there: eight minutes on an H100 should do. Without one, ``--device cpu`` runs the same checks on
small networks in Triton's interpreter, without times. Each part prints its table when it is done, and one that fails
prints why; ``--minutes`` limits what is started.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback
from dataclasses import replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from cells import olivine, prototypes, rattled, rocksalt, silicon
from pymatgen.core import Lattice, Structure
from single_call import CONFIG

from matris.model import graph as graphs
from matris.model.checkpoints import Card
from matris.model.chunked import Chunks
from matris.model.config import ModelConfig
from matris.model.graph import Batch, Geometry, Graph, build_graph
from matris.model.network import Evaluation, MatRIS, evaluate
from matris.model.potential import Potential
from matris.model.precision import PRECISIONS, full_precision
from matris.model.triton_messages import Tiles, computes

if TYPE_CHECKING:
    from collections.abc import Callable

    from matris.model.precision import Precision

TEN_MILLION = ModelConfig.from_dict(CONFIG)
SMALL = replace(TEN_MILLION, node_feat_dim=64, edge_feat_dim=32, three_body_feat_dim=32, num_layers=2,
                pairwise_cutoff=3.2, three_body_cutoff=2.5, mlp_hidden_dims=(32,))  # fmt: skip
SMOOTH = {"smooth": True, "three_body_expansion": "chebyshev"}
CRYSTALS = [rattled(crystal, i, 0.05) for i, crystal in enumerate(prototypes().values())]
MANY = [CRYSTALS[i % len(CRYSTALS)] for i in range(64)]
CASES = {"NaCl, 8 atoms": [rocksalt()], "LiFePO4, 28": [olivine()], "Si, 64": [silicon(2)], "Si, 216": [silicon(3)],
         "64 small cells": MANY, "Si, 1,000": [silicon(5)]}  # fmt: skip


class Check(NamedTuple):
    """What is asked for."""

    device: torch.device
    end: float
    rounds: int
    precisions: list[Precision]

    @property
    def on_gpu(self) -> bool:
        """Whether there is a GPU to check."""
        return self.device.type == "cuda"

    @property
    def is_late(self) -> bool:
        """Whether nothing more is to be started."""
        return time.monotonic() > self.end

    def network(self, config: ModelConfig, dtype: torch.dtype = torch.float32) -> MatRIS:
        """Draw weights, scaled to give realistic forces."""
        torch.manual_seed(0)
        network = MatRIS(config, magmoms=False)
        with torch.no_grad():
            list(network.energy_head)[-1].weight.mul_(300 if self.on_gpu else 30)
        return network.requires_grad_(False).eval().to(self.device, dtype)

    def graph(self, config: ModelConfig, crystals: list[Structure], dtype: torch.dtype = torch.float32) -> Graph:
        """Build a graph on the device."""
        batch = Batch.of([Geometry.of(crystal) for crystal in crystals], self.device)
        return build_graph(batch, config.pairwise_cutoff, config.three_body_cutoff, dtype=dtype)

    def milliseconds(self, function: Callable[[], object]) -> float:
        """Time one call."""
        self.wait()
        start = time.perf_counter()
        function()
        self.wait()
        return 1e3 * (time.perf_counter() - start)

    def wait(self) -> None:
        """Wait until the GPU has done what it was told."""
        if self.on_gpu:
            torch.cuda.synchronize()


class ByTorch(Potential):
    """A potential without kernels."""

    tiled = False


def tiled(network: MatRIS, graph: Graph, precision: str) -> Evaluation:
    """Evaluate by the kernels."""
    return evaluate(network, graph, chunks=Chunks(2**17, tiles=Tiles.of(graph, precision)))


def compiling(check: Check, network: MatRIS, graph: Graph) -> list[Precision]:
    """List the precisions whose kernels compile, and print why others do not; older Tritons do not know all."""
    result = []
    for precision in check.precisions:
        start = time.monotonic()
        try:
            tiled(network, graph, precision)
        except Exception as error:  # noqa: BLE001 - a compiler's or a driver's
            print(f"{precision}: {type(error).__name__}: {str(error)[:500]}\n")
            continue
        result.append(precision)
        if (seconds := time.monotonic() - start) > 5:
            print(f"<!-- {precision}: first call {seconds:.0f} s -->")
    return result


def run(title: str, part: Callable[[Check], None], check: Check) -> None:
    """Print what a part finds, or its error: the other parts still run."""
    print(f"\n## {title}\n", flush=True)
    start = time.monotonic()
    try:
        part(check)
    except Exception:  # noqa: BLE001 - a part that fails must not cost the rest
        traceback.print_exc(limit=4, file=sys.stdout)
    print(f"\n({time.monotonic() - start:.0f} s{', out of time' if check.is_late else ''})", flush=True)


def machine(check: Check) -> None:
    """Print device and versions."""
    if check.on_gpu:
        properties = torch.cuda.get_device_properties(check.device)
        limit = getattr(properties, "shared_memory_per_block_optin", 0)
        print(f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, capability {properties.major}."
              f"{properties.minor}, {limit // 1024} KiB shared memory, CUDA {torch.version.cuda}, HIP "
              f"{torch.version.hip}")  # fmt: skip
    else:
        print("CPU, Triton's interpreter, small networks: this checks the program, and says nothing on GPUs")
    for name in ("torch", "triton", "torch-sim-atomistic", "nvalchemi-toolkit-ops", "warp-lang", "matris-flows"):
        try:
            print(f"{name} {version(name)}", end=", ")
        except PackageNotFoundError:
            print(f"{name} missing", end=", ")
    print()


def lists(check: Check) -> None:
    """Compare neighbour lists of the device with the host's: skewed, tiny and unwrapped cells, and dense ones."""

    def keys(bonds: tuple[torch.Tensor, ...]) -> np.ndarray:
        i, j, vectors = (x.cpu().numpy() for x in bonds)
        rows = zip(i.tolist(), j.tolist(), (vectors.round(5) + 0.0).tolist(), strict=True)
        return np.array(sorted(min((a, c, *w), (c, a, *[-x for x in w])) for a, c, w in rows))

    rng, differ = np.random.default_rng(0), 0
    for _ in range(20):
        cells = []
        for _ in range(rng.integers(1, 8)):
            n, cell = int(rng.integers(1, 9)), rng.normal(size=(3, 3))
            while abs(np.linalg.det(cell)) < 0.15:
                cell = rng.normal(size=(3, 3))
            cell *= (n * rng.uniform(9, 40) / abs(np.linalg.det(cell))) ** (1 / 3)
            cells.append(Geometry(np.full(n, 14), rng.uniform(-2, 3, (n, 3)) @ cell, cell, np.ones(3, dtype=bool)))
        here = keys(graphs.bonds_together(Batch.of(cells, check.device), 6.0))
        host = keys(graphs.bonds_one_by_one(Batch.of(cells), 6.0))
        differ += here.shape != host.shape or not np.allclose(here, host, atol=2e-5)
    print(f"random batches that differ from the host's: {differ} of 20")
    hydride = Structure.from_spacegroup("Im-3m", Lattice.cubic(3.089), ["O", "H"], [[0, 0, 0], [0, 0.5, 0.5]])
    for name, crystal in (("dense hydride, 0.27 atoms/Å³", hydride), ("Si, 1,728 atoms", silicon(6))):
        counts = [len(graphs.bonds_together(Batch.of([Geometry.of(crystal)], check.device), 6.0)[0]),
                  len(graphs.bonds_one_by_one(Batch.of([Geometry.of(crystal)]), 6.0)[0])]  # fmt: skip
        print(f"{name}: {counts[0]} bonds, host {counts[1]}")
    print(f"lists by {'Warp' if graphs._warp_computes(check.device) else 'torch: Warp is not there, and not tested'}")  # noqa: SLF001


def correctness(check: Check) -> None:
    """Compare energies, forces and stresses with float64, and two calls with each other."""
    print("| network | computed by | energy, eV/atom | force, eV/Å | stress, GPa | same bits twice |")
    print("|---|---|---|---|---|---|")
    crystals = CRYSTALS[:8] if check.on_gpu else [CRYSTALS[3]]
    for name, changes in (("published", {}), ("smooth", SMOOTH)):
        config = replace(replace(TEN_MILLION, num_layers=3) if check.on_gpu else SMALL, **changes)
        network, graph = check.network(config), check.graph(config, crystals)
        right = evaluate(
            check.network(config, torch.float64),
            replace(graph, **{x: getattr(graph, x).double() for x in ("vectors", "volumes", "angle_sign")}),
        )
        ways = {"torch": partial(evaluate, network, graph)}
        ways |= {x: partial(tiled, network, graph, x) for x in compiling(check, network, graph)}
        for way, function in ways.items():
            if check.is_late:
                return
            with full_precision():
                first, second = function(), function()
            energy = float(((first.energies - right.energies) / graph.n_atoms).abs().max())
            force = float((first.forces - right.forces).abs().max())
            stress = 160.2 * float((first.stresses - right.stresses).abs().max())
            same = all(torch.equal(a, b) for a, b in zip(first[:3], second[:3], strict=True))
            print(f"| {name} | {way} | {energy:.1e} | {force:.1e} of {right.forces.abs().max():.2f} | {stress:.1e} | "
                  f"{'yes' if same else 'no'} |", flush=True)  # fmt: skip
        for precision in check.precisions if check.on_gpu else ():
            print(f"{name}, {precision}: a potential uses {'the kernels' if computes(config, check.device, torch.float32, precision) else 'torch'}")  # noqa: E501  # fmt: skip


def speed(check: Check) -> None:
    """Time the published 10M size, in alternation, and measure its memory."""
    print("| case | atoms | angles | graph, ms | computed by | ms: median (range) | µs/atom | torch / this | peak, GB "
          "(estimate) |\n|---|---|---|---|---|---|---|---|---|")  # fmt: skip
    for smooth in (False, True):
        config = replace(TEN_MILLION, **(SMOOTH if smooth else {}))
        network = check.network(config)
        by_torch, by_tiles = (kind(network, Card(key="random", predicts="ef")) for kind in (ByTorch, Potential))
        for name in ("Si, 64", "64 small cells") if smooth else CASES:
            if check.is_late:
                return
            crystals = CASES[name]
            graph = check.graph(config, crystals)
            build = partial(check.graph, config, crystals)
            building = median(check.milliseconds(build) for _ in range(5))
            ways = {"torch": partial(by_torch.evaluate, graph)}
            ways |= {x: partial(tiled, network, graph, x) for x in compiling(check, network, graph)}
            times: dict[str, list[float]] = {way: [] for way in ways}
            peaks: dict[str, float] = {}
            with full_precision():
                for way, function in ways.items():
                    function()
                    check.wait()
                    torch.cuda.reset_peak_memory_stats()
                    before = torch.cuda.memory_allocated()
                    function()
                    peaks[way] = (torch.cuda.max_memory_allocated() - before) / 1e9
                for _ in range(check.rounds):
                    for way, function in ways.items():
                        times[way].append(check.milliseconds(function))
            for way, values in times.items():
                ratio = median(t / o for t, o in zip(times["torch"], values, strict=True))
                potential = by_torch if way == "torch" else by_tiles
                planned = potential.bytes_kept(graph.n_bonds, graph.n_angles) / 1e9
                print(f"| {name}{', smooth' if smooth else ''} | {len(graph.numbers)} | {graph.n_angles} | "
                      f"{building:.1f} | {way} | {median(values):.2f} ({min(values):.2f} to {max(values):.2f}) | "
                      f"{1e3 * median(values) / len(graph.numbers):.0f} | {ratio:.2f} | {peaks[way]:.2f} "
                      f"({planned:.2f}) |", flush=True)  # fmt: skip


def kernels(check: Check) -> None:
    """List the kernels that take the time of a call."""
    from torch.profiler import ProfilerActivity, profile

    network, graph = check.network(TEN_MILLION), check.graph(TEN_MILLION, MANY)
    for precision in compiling(check, network, graph):
        with profile(activities=[ProfilerActivity.CUDA]) as profiler:
            tiled(network, graph, precision)
            check.wait()
        events = sorted(profiler.key_averages(), key=lambda event: -event.self_device_time_total)
        total = sum(event.self_device_time_total for event in events)
        print(f"{precision}: {sum(event.count for event in events)} kernels, {total / 1e3:.1f} ms on the device")
        for event in events[:12]:
            print(f"    {event.self_device_time_total / 1e3:8.2f} ms {event.count:6d} × {event.key[:70]}")


def main() -> None:
    """Run all parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--minutes", type=float, default=8.0, help="no part or case starts later")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    options = parser.parse_args()
    if options.device == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":  # read when Triton is imported
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "TRITON_INTERPRET": "1"})  # noqa: S606
    if options.device != "cpu" and not torch.cuda.is_available():
        sys.exit("no GPU here; --device cpu tries this program")
    end = time.monotonic() + 60 * options.minutes
    wanted = [x for x in options.precisions if options.device != "cpu" or x != "bf16x3"]  # unknown to the interpreter
    check = Check(torch.device(options.device), end, options.rounds, wanted)
    parts = {"Machine": machine, "Neighbour lists": lists, "Numbers": correctness}
    if check.on_gpu:
        parts |= {"Times": speed, "Kernels": kernels}
    for title, part in parts.items():
        if not check.is_late:
            run(title, part, check)


if __name__ == "__main__":
    main()
