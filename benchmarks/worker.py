"""
Worker process of one side of a comparison: ``python worker.py ours|published``; JSON lines in and out.

PYTHONPATH decides which ``matris`` it imports (see `peers.py`), so this file imports nothing of the package at module
level.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from contextlib import redirect_stdout
from typing import Any

import numpy as np
import torch
from ase.filters import FrechetCellFilter
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from ase.md.verlet import VelocityVerlet
from ase.optimize import FIRE
from ase.units import fs
from pymatgen.core import Structure
from pymatgen.io.ase import AseAtomsAdaptor

LAST_WEIGHT = "energy_head.energy_head.layers.{}.weight"


class Ours:
    """Package of this repository."""

    def load(self, path: str, device: str) -> None:
        from matris import load

        self.potential = load(path, device=device)

    def limit(self, memory: float) -> None:
        """Limit the memory that a call keeps (bytes)."""
        self.potential.memory = memory

    def call(self, structures: list[Structure]) -> list[tuple[float, Any, Any]]:
        return [(p.energy, p.forces, p.stress) for p in self.potential.predict(structures)]

    def calculator(self) -> Any:
        from matris import MatRISCalculator

        return MatRISCalculator(self.potential)


class Published:
    """The package ``matris`` 1.0.0 of the model's authors: eager on a CPU, its own operators on CUDA."""

    def make(self, path: str, config: dict[str, Any], scale: float) -> None:
        """Write random weights (seed 0); the last energy weight is scaled to give realistic forces."""
        from matris.model import MatRIS

        torch.manual_seed(0)
        state = MatRIS(**config).state_dict()
        state[LAST_WEIGHT.format(3 * len(config["mlp_hidden_dims"]))] *= scale
        torch.save({"config": config, "state_dict": state}, path)

    def load(self, path: str, device: str) -> None:
        from matris.model import MatRIS

        self.device, self.mode = device, "fast" if device == "cuda" else "torch"
        content = torch.load(path, weights_only=True)
        model = MatRIS(**{**content["config"], "reference_energy": None})
        own = model.state_dict()
        model.load_state_dict({name: content["state_dict"][name].reshape(x.shape) for name, x in own.items()})
        self.model = model.to(device).eval().requires_grad_(False)

    def call(self, structures: list[Structure]) -> list[tuple[float, Any, Any]]:
        graphs = [self.model.graph_converter(s, mode=self.mode).to(self.device) for s in structures]
        result = self.model(graphs, task="efs", mode=self.mode)
        return [
            (float(e) * len(s), f.detach().cpu().numpy(), x.detach().cpu().numpy() / 160.21766208)
            for s, e, f, x in zip(structures, result["e"], result["f"], result["s"], strict=True)
        ]

    def calculator(self) -> Any:
        from matris.applications.base import MatRISCalculator

        loading, type(self.model).load = type(self.model).load, lambda **_: self.model
        calculator = MatRISCalculator(device=self.device, mode=self.mode, activation_checkpoint=False)
        type(self.model).load = loading
        return calculator


def relax_batch(
    side: Ours, structures: list[Structure], fmax: float, steps: int, optimizer: Any
) -> list[tuple[float, int, bool]]:
    """Relax by `matris.relax`; return energy (eV/atom), number of steps and convergence of each structure."""
    from matris import relax

    found = relax(structures, side.potential, fmax=fmax, max_steps=steps, optimizer=optimizer)
    records = sorted(found, key=lambda r: r.index)
    energies = [
        float("nan") if r.energy is None else r.energy / len(s) for r, s in zip(records, structures, strict=True)
    ]
    return [(energy, r.n_steps, r.state == "converged") for energy, r in zip(energies, records, strict=True)]


def relax_singly(side: Any, structures: list[Structure], fmax: float, steps: int) -> list[tuple[float, int, bool]]:
    """Relax one by one by ASE's FIRE and Frechet cell filter; return energy (eV/atom), number of steps, convergence."""
    calculator, results = side.calculator(), []
    for structure in structures:
        atoms = AseAtomsAdaptor.get_atoms(structure, msonable=False)
        atoms.calc = calculator
        optimizer = FIRE(FrechetCellFilter(atoms), logfile=None)
        converged = bool(optimizer.run(fmax=fmax, steps=steps))
        results.append((atoms.get_potential_energy() / len(atoms), optimizer.nsteps, converged))
    return results


def run_dynamics(side: Any, structure: Structure, steps: int) -> None:
    """Run velocity Verlet from 300 K with a time step of 1 fs."""
    atoms = AseAtomsAdaptor.get_atoms(structure, msonable=False)
    atoms.calc = side.calculator()
    MaxwellBoltzmannDistribution(atoms, temperature_K=300, rng=np.random.default_rng(0))
    VelocityVerlet(atoms, timestep=fs).run(steps)


def peak_megabytes(device: str) -> float:
    """Return the peak memory of the process, or on the GPU (MB)."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def main() -> None:
    """Answer requests until standard input ends."""
    side: Any = {"ours": Ours, "published": Published}[sys.argv[1]]()
    threads, device = int(sys.argv[2]), sys.argv[3]
    torch.set_num_threads(threads)
    out, structures = sys.stdout, []
    for line in sys.stdin:
        request = json.loads(line)
        answer: dict[str, Any] = {}
        with redirect_stdout(sys.stderr):
            match request.pop("do"):
                case "make":
                    side.make(**request)
                case "load":
                    side.load(request["path"], device)
                    structures = [Structure.from_dict(s) for s in request["structures"]]
                case "limit":
                    side.limit(**request)
                case "call":
                    chosen = [structures[i] for i in request["which"]]
                    if device == "cuda":
                        torch.cuda.synchronize()
                    started = time.perf_counter()
                    results = side.call(chosen)
                    answer["seconds"] = time.perf_counter() - started
                    answer["energies"] = [e / len(s) for (e, _, _), s in zip(results, chosen, strict=True)]
                    answer["forces"] = [f.tolist() for _, f, _ in results]
                case "relax":
                    how = relax_batch if "optimizer" in request else relax_singly
                    chosen = [structures[i] for i in request.pop("which")]
                    started = time.perf_counter()
                    results = how(side, chosen, **request)
                    answer["seconds"] = time.perf_counter() - started
                    answer["energies"], answer["steps"], answer["converged"] = zip(*results, strict=True)
                case "dynamics":
                    started = time.perf_counter()
                    run_dynamics(side, structures[request["which"]], request["steps"])
                    answer["seconds"] = time.perf_counter() - started
        answer["peak_megabytes"] = peak_megabytes(device)
        out.write(json.dumps(answer) + "\n")
        out.flush()


if __name__ == "__main__":
    main()
