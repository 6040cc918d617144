"""
Check and time a GPU in eight minutes: ``python benchmarks/gpu.py --help``.

Each part writes its result to a file of the folder ``--output`` when it has finished. A further run prints what is
there, and computes what is missing. No part starts after ``--minutes``. The report begins with the goals; its tables
are for docs/speed.md. ``--device cpu --quick`` runs the same program on tiny networks: it tests the program, and says
nothing about GPUs.

Networks have the published 10M size with random weights (seed 0). Times are medians of calls in alternation. Beside
them stands ``matris`` 1.0.0 in its mode ``fast``, if ``benchmarks/.peers/matris-1.0.0`` holds it
(``python -c "from peers import install_published; install_published()"`` in this folder installs it).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import replace
from functools import cached_property, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from ase.data import chemical_symbols
from cells import olivine, prototypes, rattled, rocksalt, silicon
from peers import PUBLISHED, Peer
from pymatgen.core import Lattice, Structure
from single_call import CONFIG, SCALE
from weights import write_random
from worker import Ours, run_dynamics

from matris import load, relax
from matris.machine import PROCESSES
from matris.model.chunked import Chunks
from matris.model.config import ModelConfig
from matris.model.graph import Batch, Geometry, Graph, bonds_one_by_one, bonds_together, build_graph
from matris.model.network import Evaluation, MatRIS, evaluate
from matris.model.potential import Potential
from matris.model.precision import PRECISIONS, full_precision

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from matris.model.neighbors import Pairs

    type Row = dict[str, Any]

TEN_MILLION = ModelConfig.from_dict(CONFIG)
TINY = replace(TEN_MILLION, node_feat_dim=8, edge_feat_dim=8, three_body_feat_dim=8, num_layers=1, mlp_hidden_dims=(8,),
               pairwise_cutoff=4.0, three_body_cutoff=3.0)  # fmt: skip
SMOOTH = {"smooth": True, "three_body_expansion": "chebyshev"}
CRYSTALS = [rattled(crystal, i, 0.05) for i, crystal in enumerate(prototypes().values())]
CASES = {"Si, 64 atoms": [silicon(2)], "Si, 216 atoms": [silicon(3)], "Si, 1,000 atoms": [silicon(5)],
         "64 small cells": [CRYSTALS[i % len(CRYSTALS)] for i in range(64)], "LiFePO4, 28 atoms": [olivine()],
         "NaCl, 8 atoms": [rocksalt()]}  # fmt: skip
GOALS = {"Si, 64 atoms": (15, "ms a call", "37.9: MatRIS with CUDA graphs"),
         "Si, 216 atoms": (25, "ms a call", "58.7: MatRIS with CUDA graphs"),
         "Si, 1,000 atoms": (100, "µs an atom", ""),
         "screening": (10, "structures a second, at least", "6 to 11: models of 1 to 10 M parameters")}  # fmt: skip
STEPS = 15  # evaluations of a relaxation in the screening part: the mean of L-BFGS on mixed crystals


class Session:
    """A device, and what is asked for."""

    def __init__(self, device: str, folder: Path, rounds: int, precisions: Sequence[str], *, quick: bool) -> None:
        self.device, self.folder, self.rounds, self.quick = torch.device(device), folder, rounds, quick
        self.precisions = precisions if self.on_gpu else ()
        if self.on_gpu:
            torch.cuda.set_device(self.device)
        self.config = TINY if quick else TEN_MILLION

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    @cached_property
    def weights(self) -> Path:
        """Random weights in a file, once for all parts."""
        path = self.folder / "random.safetensors"
        if not path.exists():
            write_random(path, self.config.to_dict(), tuple(chemical_symbols[1:90]))
        return path

    def potential(self, **options: Any) -> Potential:
        return load(self.weights, device=self.device, **options)

    def network(self, config: ModelConfig, device: torch.device | str, dtype: torch.dtype = torch.float32) -> MatRIS:
        """Draw weights, scaled to give realistic forces."""
        torch.manual_seed(0)
        network = MatRIS(config, magmoms=False)
        with torch.no_grad():
            list(network.energy_head)[-1].weight.mul_(30 if self.quick else SCALE)
        return network.requires_grad_(False).eval().to(device, dtype)

    def graph(
        self,
        config: ModelConfig,
        crystals: Sequence[Structure],
        device: torch.device | str,
        dtype: torch.dtype = torch.float32,
    ) -> Graph:
        batch = Batch.of([Geometry.of(crystal) for crystal in crystals], device)
        return build_graph(batch, config.pairwise_cutoff, config.three_body_cutoff, dtype=dtype)

    def wait(self) -> None:
        if self.on_gpu:
            torch.cuda.synchronize()

    def seconds(self, function: Callable[[], object]) -> float:
        self.wait()
        start = time.perf_counter()
        function()
        self.wait()
        return time.perf_counter() - start

    def alternated(self, ways: dict[str, Callable[[], object]]) -> dict[str, list[float]]:
        """Time calls in ms, in alternation, after two that prepare; those that raise an error leave, with a message."""
        working = {}
        for way, function in ways.items():
            try:
                function(), function()
            except Exception as error:  # noqa: BLE001 - a compiler's or a driver's, or no memory; others may work
                print(f"{way}: {type(error).__name__}: {str(error)[:300]}", file=sys.stderr, flush=True)
            else:
                working[way] = function
        rounds = [{way: 1e3 * self.seconds(function) for way, function in working.items()} for _ in range(self.rounds)]
        return {way: [times[way] for times in rounds] for way in working}


class ByTorch(Potential):
    """A potential without kernels in Triton."""

    tiled = False


def tiled(network: MatRIS, graph: Graph, precision: Any) -> Evaluation:
    """Evaluate by the kernels in Triton."""
    from matris.model.triton_messages import Tiles

    with full_precision():
        return evaluate(network, graph, chunks=Chunks(2**17, tiles=Tiles.of(graph, precision)))


def by_torch(network: MatRIS, graph: Graph) -> Evaluation:
    """Evaluate without kernels of our own."""
    with full_precision():
        return evaluate(network, graph)


def lists(session: Session) -> list[Row]:
    """Compare neighbour lists with the host's: skewed, tiny and unwrapped cells, dense and large ones."""

    def keys(pairs: Pairs) -> np.ndarray:
        i, j, vectors = (x[pairs.are_near].cpu().numpy() for x in pairs[:3])
        rows = zip(i.tolist(), j.tolist(), (vectors.round(5) + 0.0).tolist(), strict=True)
        return np.array(sorted(min((a, c, *w), (c, a, *[-x for x in w])) for a, c, w in rows)).reshape(-1, 5)

    def compared(geometries: list[Geometry]) -> tuple[bool, bool, int]:
        here, again = (bonds_together(Batch.of(geometries, session.device), 6.0) for _ in range(2))
        one, other = keys(here), keys(bonds_one_by_one(Batch.of(geometries), 6.0))
        same = all(torch.equal(x, y) for x, y in zip(here, again, strict=True))
        return one.shape == other.shape and np.allclose(one, other, atol=2e-5), same, len(one)

    rng, right, repeated, bonds = np.random.default_rng(0), 0, 0, 0
    n_batches = 2 if session.quick else 20
    for _ in range(n_batches):
        geometries = []
        for _ in range(rng.integers(1, 8)):
            n, cell = int(rng.integers(1, 9)), rng.normal(size=(3, 3))
            while abs(np.linalg.det(cell)) < 0.15:
                cell = rng.normal(size=(3, 3))
            cell *= (n * rng.uniform(9, 40) / abs(np.linalg.det(cell))) ** (1 / 3)
            geometries.append(Geometry(np.full(n, 14), rng.uniform(-2, 3, (n, 3)) @ cell, cell, rng.random(3) < 0.9))
        is_right, is_repeated, n = compared(geometries)
        right, repeated, bonds = right + is_right, repeated + is_repeated, bonds + n
    rows = [{"cells": f"{n_batches} random batches", "right": right, "same bits twice": repeated, "bonds": bonds}]
    sulfide = Structure.from_spacegroup("Im-3m", Lattice.cubic(3.089), ["S", "H"], [[0, 0, 0], [0, 0.5, 0.5]])
    for name, crystal in (("H3S, 0.27 atoms/Å³", sulfide), ("Si, 1,728 atoms", silicon(2 if session.quick else 6))):
        is_right, is_repeated, n = compared([Geometry.of(crystal)])
        rows.append({"cells": name, "right": is_right, "same bits twice": is_repeated, "bonds": n})
    return rows


def numbers(session: Session) -> list[Row]:
    """Compare energies, forces and stresses with those of the CPU in float64, and two calls with each other."""
    rows = []
    crystals = CRYSTALS[:2] if session.quick else CRYSTALS[:8]
    for kind, changes in (("published", {}), ("smooth", SMOOTH)):
        config = replace(session.config, num_layers=min(3, session.config.num_layers), **changes)
        double = torch.float64
        right = evaluate(session.network(config, "cpu", double), session.graph(config, crystals, "cpu", double))
        network, graph = session.network(config, session.device), session.graph(config, crystals, session.device)
        ways = {"torch": partial(by_torch, network, graph)}
        ways |= {x: partial(tiled, network, graph, x) for x in session.precisions}
        n_atoms = torch.tensor([len(crystal) for crystal in crystals])
        for way, function in ways.items():
            row: Row = {"network": kind, "by": way}
            try:
                first, second = function(), function()
            except Exception as error:  # noqa: BLE001 - a compiler's or a driver's; other ways may work
                rows.append(row | {"error": f"{type(error).__name__}: {str(error)[:200]}"})
                continue
            energies, forces, stresses = (x.double().cpu() for x in first[:3])
            rows.append(row | {
                "energy, eV/atom": float(((energies - right.energies) / n_atoms).abs().max()),
                "force, eV/Å": float((forces - right.forces).abs().max()),
                "of": float(right.forces.abs().max()),
                "stress, GPa": 160.2 * float((stresses - right.stresses).abs().max()),
                "same bits twice": all(torch.equal(a, b) for a, b in zip(first[:3], second[:3], strict=True)),
            })  # fmt: skip
    if session.on_gpu:
        rows.append({"network": "chosen by a potential", "by": "kernels" if session.potential().tiled else "torch"})
    return rows


def relaxations(session: Session) -> list[Row]:
    """Relax with the embedded checkpoint, twice here and once on the CPU."""
    crystals, steps = (CRYSTALS[:2], 2) if session.quick else (CRYSTALS, 60)

    def relaxed(device: torch.device | str) -> dict[int, Any]:
        return {record.index: record for record in relax(crystals, load(device=device), max_steps=steps)}

    here, again, host = relaxed(session.device), relaxed(session.device), relaxed("cpu")

    def apart(one: dict[int, Any], other: dict[int, Any]) -> Row:
        pairs = [(one[i].energy, other[i].energy, len(crystals[i])) for i in one if one[i].energy and other[i].energy]
        return {"steps differ in": sum(one[i].n_steps != other[i].n_steps for i in one),
                "energy, eV/atom": max((abs(a - b) / n for a, b, n in pairs), default=None)}  # fmt: skip

    states = {state: sum(r.state == state for r in here.values()) for state in ("converged", "max_steps", "failed")}
    return [{"compared": "twice here", "crystals": len(crystals), **states, **apart(here, again)},
            {"compared": "with the CPU", "crystals": len(crystals), **states, **apart(here, host)}]  # fmt: skip


def speed(session: Session, name: str) -> list[Row]:
    """Time one case by each way, and measure its memory."""
    name, crystals = ("3 crystals", CRYSTALS[:3]) if session.quick else (name, CASES[name])
    geometries, rows = [Geometry.of(crystal) for crystal in crystals], []
    plain = session.potential()
    graph = plain.graph(geometries)
    ways: dict[str, Callable[[], object]] = {"graph alone": partial(plain.graph, geometries)}
    ways["torch"] = partial(ByTorch(plain.network, plain.card).evaluate, graph)
    potentials: dict[str, Potential] = {}
    for precision in session.precisions:
        potentials[precision] = session.potential(precision=precision)
        if potentials[precision].tiled:
            ways[precision] = partial(tiled, plain.network, graph, precision)
            ways[f"{precision}, whole call"] = partial(_predicted, potentials[precision], geometries)
    if len(crystals) == 1 and session.on_gpu:
        replayed = session.potential(cuda_graphs=True)
        ways["CUDA graph, whole call"] = partial(_predicted, replayed, geometries)
    if not session.on_gpu:
        ways["whole call"] = partial(_predicted, plain, geometries)
    for way, times in session.alternated(ways).items():
        row = {"case": name, "atoms": len(graph.numbers), "angles": graph.n_angles, "by": way, "ms": median(times),
               "from": min(times), "to": max(times), "µs/atom": 1e3 * median(times) / len(graph.numbers)}  # fmt: skip
        if session.on_gpu and way != "graph alone":
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            ways[way]()
            row["peak, GB"] = (torch.cuda.max_memory_allocated() - before) / 1e9
            if way in potentials:
                row["planned, GB"] = potentials[way].bytes_kept(graph.n_bonds, graph.n_angles) / 1e9
        rows.append(row)
    return rows


def _predicted(potential: Potential, geometries: list[Geometry]) -> object:
    """Call a potential: graph, network, and results on the host."""
    return list(potential.predict_geometries(geometries))


def recorded(session: Session) -> list[Row]:
    """Compare replayed CUDA graphs with calls, along a trajectory of rattled cells."""
    plain, replayed = session.potential(), session.potential(cuda_graphs=True)
    worst, calls = 0.0, 3 if session.quick else 20
    for seed in range(calls):
        geometry = Geometry.of(rattled(silicon(1 if session.quick else 2), seed, 0.1))
        a, b = (p.evaluate(p.graph([geometry])).forces for p in (plain, replayed))
        worst = max(worst, float((a - b).abs().max()))
    calls_recorded = getattr(replayed._compute, "_kept", ())  # noqa: SLF001 - what no option tells
    return [{"calls": calls, "recordings": len(calls_recorded), "largest difference of forces, eV/Å": worst}]


def trajectory(session: Session, repeats: int) -> list[Row]:
    """Time steps of dynamics by ASE's velocity Verlet, with and without CUDA graphs."""
    rows, steps = [], 2 if session.quick else 20
    for graphs in (False, True) if session.on_gpu else (False,):
        side = Ours()
        side.potential = session.potential(cuda_graphs=graphs)
        run_dynamics(side, silicon(repeats), 3)
        seconds = session.seconds(partial(run_dynamics, side, silicon(repeats), steps)) / (steps + 1)
        rows.append({"atoms": 8 * repeats**3, "CUDA graphs": graphs, "ms a step": 1e3 * seconds})
    return rows


def screening(session: Session, processes: int) -> list[Row]:
    """Time relaxations in processes that share the device: 15 evaluations each, and a journal on disk."""
    count = (3 if session.quick else 256) * processes
    rows = []
    for network in ("random, 10M size", "embedded"):
        if processes == 1:
            result = [_screened(session, network, 0, count)]
        else:
            result = _in_processes(session, network, processes, count)
        seconds = max(x["seconds"] for x in result)
        done = sum(x["done"] for x in result)
        rows.append({"network": network, "processes": processes, "structures": done, "failed": count - done,
                     "structures a second": done / seconds, "structures a GPU-hour": round(3600 * done / seconds),
                     "evaluations, mean": sum(x["evaluations"] for x in result) / max(done, 1),
                     "peak, GB, all": sum(x["peak"] for x in result)})  # fmt: skip
    return rows


def _screened(session: Session, network: str, first: int, count: int, begin: Callable[[], None] = lambda: None) -> Row:
    """Relax crystals of one to six atoms: to the end with the embedded network, else a number of steps."""
    potential = load(device=session.device) if network == "embedded" else session.potential()
    limits = {"max_steps": 100} if network == "embedded" else {"fmax": 1e-9, "max_steps": STEPS - 1}
    limits |= {"max_steps": 2} if session.quick else {}
    cells = [rattled(CRYSTALS[i % len(CRYSTALS)], 100 + i, 0.03) for i in range(first, first + count)]
    list(relax(cells[:8], potential, **{**limits, "max_steps": 1}))  # compiles
    begin()
    if session.on_gpu:
        torch.cuda.reset_peak_memory_stats()
    with tempfile.TemporaryDirectory(dir=session.folder) as folder:
        start = time.perf_counter()
        records = [r for r in relax(cells, potential, journal=folder, **limits) if r.state != "failed"]
        seconds = time.perf_counter() - start
    peak = torch.cuda.max_memory_allocated() / 1e9 if session.on_gpu else 0.0
    return {"seconds": seconds, "done": len(records), "evaluations": sum(r.n_steps + 1 for r in records), "peak": peak}


def _in_processes(session: Session, network: str, processes: int, count: int) -> list[Row]:
    """Relax in processes that begin together."""
    share = count // processes
    command = [sys.executable, __file__, "--device", str(session.device), "--output", str(session.weights.parent)]
    command += ["--quick"] * session.quick + ["--screen"]
    environment = {**os.environ, PROCESSES: str(processes)}
    children = [
        subprocess.Popen([*command, network, str(i * share), str(share)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                         text=True, env=environment)
        for i in range(processes)
    ]  # fmt: skip
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    for child in children:
        child.stdin.write("go\n")  # type: ignore[union-attr]
        child.stdin.flush()  # type: ignore[union-attr]
    return [json.loads(child.communicate()[0]) for child in children]


def _screen_in_child(session: Session, network: str, first: int, count: int) -> None:
    """Relax when the parent process says so, and print the result."""

    def begin() -> None:
        print("ready", flush=True)
        sys.stdin.readline()

    print(json.dumps(_screened(session, network, first, count, begin)), flush=True)


def published(session: Session) -> list[Row]:
    """Time ``matris`` 1.0.0, in its mode ``fast`` on a GPU, with its own random weights."""
    if not (PUBLISHED / "matris").is_dir():
        return [{"case": "not installed"}]
    names, rows = ["Si, 64 atoms", "Si, 216 atoms", "64 small cells"], []
    with Peer("published", device=session.device.type) as peer:
        path = session.folder / "published.pth.tar"
        peer.ask("make", path=str(path), config=CONFIG, scale=SCALE)
        for name in names:
            peer.load(path, CASES[name])
            which = list(range(len(CASES[name])))
            times = [peer.ask("call", which=which)["seconds"] for _ in range(2 + session.rounds)][2:]
            rows.append({"case": name, "ms": 1e3 * median(times), "from": 1e3 * min(times), "to": 1e3 * max(times)})
    return rows


def training(session: Session) -> list[Row]:
    """Compile a training step of two small blocks, compare it with torch, and time both."""
    from matris.training.data.frame import Frame
    from matris.training.loss import LossWeights
    from matris.training.objective import LabelObjective

    config = replace(session.config, num_layers=1 if session.quick else 2, node_feat_dim=64, edge_feat_dim=64,
                     three_body_feat_dim=64)  # fmt: skip
    network = session.network(config, session.device).requires_grad_(True)
    frames = [Frame(Geometry.of(c), -3.0 * len(c), np.zeros((len(c), 3)), np.zeros((3, 3)), "x") for c in CRYSTALS[:8]]
    objective = LabelObjective(network, LossWeights())
    for p in network.parameters():
        p.grad = torch.zeros_like(p)
    step = partial(objective.backward, frames, 1.0, [])
    plain = session.alternated({"torch": step})["torch"]
    if session.quick:  # compiling takes minutes
        return [{"by": "torch", "ms": median(plain)}]
    compiling = session.seconds(partial(objective.compile, frames))
    compiled = session.alternated({"compiled": step})["compiled"]
    return [{"by": "torch", "ms": median(plain)},
            {"by": "compiled, agrees with torch", "ms": median(compiled), "compiled in, s": compiling}]  # fmt: skip


def profile(session: Session) -> list[Row]:
    """List the kernels that take the time of a call of 64 small cells."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiling

    if not session.on_gpu:
        return [{"kernel": "no GPU"}]
    potential = session.potential()
    graph = potential.graph([Geometry.of(crystal) for crystal in CASES["64 small cells"]])
    potential.evaluate(graph)
    with profiling(activities=[ProfilerActivity.CUDA]) as profiler:
        potential.evaluate(graph)
        session.wait()
    events = sorted(profiler.key_averages(), key=lambda event: -event.self_device_time_total)
    total = sum(event.self_device_time_total for event in events) / 1e3
    rows: list[Row] = [{"kernel": "all", "ms": total, "launches": sum(event.count for event in events)}]
    return rows + [{"kernel": event.key[:60], "ms": event.self_device_time_total / 1e3, "launches": event.count}
                   for event in events[:12]]  # fmt: skip


PARTS: dict[str, Callable[[Session], list[Row]]] = {
    "Neighbour lists": lists,
    "Numbers, against the CPU in float64": numbers,
    **{f"Times: {name}": partial(speed, name=name) for name in list(CASES)[:4]},
    "Screening": partial(screening, processes=1),
    "Dynamics, Si 64": partial(trajectory, repeats=2),
    "CUDA graphs against calls": recorded,
    "Dynamics, Si 216": partial(trajectory, repeats=3),
    "Published package": published,
    "Screening, two processes on the device": partial(screening, processes=2),
    "Relaxations": relaxations,
    "Kernels": profile,
    **{f"Times: {name}": partial(speed, name=name) for name in list(CASES)[4:]},
    "Training step": training,
}
TINY_PARTS = ["Neighbour lists", "Numbers, against the CPU in float64", "Times: Si, 64 atoms", "Screening",
              "CUDA graphs against calls"]  # fmt: skip


def machine(session: Session) -> Row:
    """Name device and versions: results of different ones do not go together."""
    facts: Row = {"device": "CPU: this tests the program, and says nothing about GPUs", "quick": session.quick}
    if session.on_gpu:
        properties = torch.cuda.get_device_properties(session.device)
        facts["device"] = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
        facts |= {"capability": f"{properties.major}.{properties.minor}", "CUDA": torch.version.cuda,
                  "HIP": torch.version.hip}  # fmt: skip
    for name in ("torch", "triton", "torch-sim-atomistic", "warp-lang", "matris-flows"):
        try:
            facts[name] = version(name)
        except PackageNotFoundError:
            facts[name] = "missing"
    return facts


def report(folder: Path) -> str:
    """Write goals and tables from the files of a folder."""
    found = {name: json.loads(path.read_text()) for name in PARTS if (path := _file(folder, name)).exists()}
    facts = json.loads((folder / "machine.json").read_text())
    lines = ["| goal | asked for | measured | others |", "|---|---|---|---|"]
    for name, (goal, unit, others) in GOALS.items():
        measured = _measured(found, name) if "capability" in facts else "no GPU"
        lines.append(f"| {name} | {goal} {unit} | {measured} | {others} |")
    lines += ["", ", ".join(f"{name} {value}" for name, value in facts.items() if value is not None), ""]
    if facts["warp-lang"] == "missing":
        lines += ["Warp is not installed. Our neighbour lists need none; those of torch-sim were not tested.", ""]
    for name in PARTS:
        part = found.get(name)
        lines += [f"## {name}", "", _table(part["rows"]) if part else "not run", ""]
        if part and part["error"]:
            lines += ["```", part["error"], "```", ""]
    return "\n".join(lines)


def _measured(found: dict[str, Any], goal: str) -> str:
    """Find what a goal is about among the results: the fastest way that is as exact as float32."""
    if goal == "screening":
        rows = [row for name in found if name.startswith("Screening") for row in found[name]["rows"]]
        rates = [row["structures a second"] for row in rows if row["network"] != "embedded"]
        return f"{max(rates):.1f}" if rates else "not yet"
    rows = found.get(f"Times: {goal}", {"rows": []})["rows"]
    calls = [row for row in rows if row["by"].endswith("whole call") and "bf16" not in row["by"]]
    if not calls:
        return "not yet"
    best = min(calls, key=lambda row: row["ms"])
    return f"{best['µs/atom' if 'µs' in GOALS[goal][1] else 'ms']:.1f} ({best['by']})"


def _table(rows: Sequence[Row]) -> str:
    """Write rows as a Markdown table."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    shown = [[_shown(row.get(column)) for column in columns] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in [columns, ["---"] * len(columns), *shown])


def _shown(value: Any) -> str:
    """Write a value of a table."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return str(value)


def _file(folder: Path, part: str) -> Path:
    """Name the file of a part."""
    return folder / f"{''.join(c if c.isalnum() else '-' for c in part.lower())}.json"


def run(session: Session, wanted: Sequence[str], end: float) -> None:
    """Compute the parts that have no result yet, and write each to its file."""
    facts, path = machine(session), session.folder / "machine.json"
    if path.exists() and json.loads(path.read_text()) != facts:
        sys.exit(f"{path} is of another device or other versions: choose another folder by --output")
    path.write_text(json.dumps(facts))
    for name in wanted:
        file = _file(session.folder, name)
        if file.exists() and not json.loads(file.read_text())["error"]:
            continue
        if time.monotonic() > end:
            print(f"{name}: no time left; run again for the rest", file=sys.stderr, flush=True)
            continue
        start, result = time.monotonic(), {"rows": [], "error": ""}
        try:
            result["rows"] = PARTS[name](session)
        except Exception:  # noqa: BLE001 - a part that fails must not cost the rest
            result["error"] = traceback.format_exc(limit=4)
        result["seconds"] = time.monotonic() - start
        file.write_text(json.dumps(result))
        (session.folder / "report.md").write_text(report(session.folder))
        state = "failed" if result["error"] else "done"
        print(f"{name}: {state} in {result['seconds']:.1f} s", file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the parts, and print the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--minutes", type=float, default=8.0, help="no part starts later")
    parser.add_argument("--output", type=Path, default=Path("gpu-results"), help="folder of the results")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    parser.add_argument("--parts", nargs="+", choices=list(PARTS))
    parser.add_argument("--quick", action="store_true", help="a tiny network, few parts: tests the program")
    parser.add_argument("--screen", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.device != "cpu" and not torch.cuda.is_available():
        sys.exit("no GPU here; --device cpu --quick tries this program")
    options.output.mkdir(parents=True, exist_ok=True)
    rounds = 1 if options.quick else options.rounds
    session = Session(options.device, options.output, rounds, options.precisions, quick=options.quick)
    if options.screen:
        network, first, count = options.screen
        _screen_in_child(session, network, int(first), int(count))
        return
    wanted = options.parts or (TINY_PARTS if options.quick else list(PARTS))
    run(session, wanted, time.monotonic() + 60 * options.minutes)
    print(report(options.output))


if __name__ == "__main__":
    main()
