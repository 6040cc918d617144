"""How fast a potential is: single calls on supercells, and relaxations of many small cells."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from ase.build import bulk
from ase.data import atomic_numbers, covalent_radii
from torch_sim.io import atoms_to_state

from matris.boards.board import Board
from matris.boards.published import EFFICIENCY
from matris.relaxation.relax import relax

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from ase import Atoms

    from matris.boards.board import Job, Metrics, Values
    from matris.relaxation.relax import Engine

_SIZES = (100, 200, 500, 1000)
_REPEATS = 5
_N_CELLS, _SEED = 500, 0
_FMAX, _STEPS = 0.05, 500
_METALS = ("Li", "Na", "K", "Mg", "Ca", "Sr", "Ti", "Zr", "Mn", "Fe", "Co", "Ni", "Cu", "Zn", "Al", "Ga", "In", "Ag")
_OTHERS = ("O", "S", "Se", "F", "Cl", "Br", "N", "P", "As")
_PROTOTYPES = ("rocksalt", "zincblende", "cesiumchloride", "fluorite", "wurtzite")
_CELL_IN_BONDS = {"rocksalt": 2.0, "zincblende": 4 / 3**0.5, "cesiumchloride": 2 / 3**0.5, "fluorite": 4 / 3**0.5}


def _read(_: None) -> dict[str, Any]:
    """Name the measurements."""
    return {f"call {size} atoms": size for size in _SIZES} | {"relaxations": _N_CELLS}


def _compute(job: Job, items: Mapping[str, Any]) -> Generator[tuple[str, Values]]:
    """Measure, one after the other; this process should have the machine for itself."""
    engine = job.contestant.engine
    for key, number in items.items():
        try:
            yield key, _relaxations(engine, number) if key == "relaxations" else _calls(engine, number)
        except (RuntimeError, ValueError, MemoryError) as error:  # such as out of memory at 1,000 atoms
            yield key, {"error": f"{type(error).__name__}: {error}"}


def supercell(n_atoms: int, seed: int = _SEED) -> Atoms:
    """
    Rock-salt MgO with displaced atoms, of the given number of atoms.

    Examples
    --------
    >>> len(supercell(100)), len(supercell(1000))
    (100, 1000)
    """
    pairs = n_atoms // 2
    shapes = [(i, j, pairs // (i * j)) for i in range(1, 40) for j in range(1, 40) if pairs % (i * j) == 0]
    repeats = min(shapes, key=lambda shape: max(shape) - min(shape))
    atoms = bulk("MgO", "rocksalt", a=4.21).repeat(repeats)
    atoms.rattle(0.05, seed=seed)
    return atoms


def small_cells(n_cells: int, elements: tuple[str, ...] | None = None) -> list[Atoms]:
    """
    Cells of binary compounds, 2 to 12 atoms, strained and displaced: as small as WBM's, of random elements.

    Parameters
    ----------
    n_cells
        How many; the first ones are those of any larger number.
    elements
        Elements that may occur; all if None.
    """
    rng = np.random.default_rng(_SEED)
    metals, others = ([e for e in kind if elements is None or e in elements] for kind in (_METALS, _OTHERS))
    if not (metals and others):
        raise ValueError("the potential knows no pair of a metal and a nonmetal of the board")
    cells = []
    for number in range(n_cells):
        metal, other = rng.choice(metals), rng.choice(others)
        prototype = _PROTOTYPES[number % len(_PROTOTYPES)]
        bond = float(sum(covalent_radii[atomic_numbers[e]] for e in (metal, other)))
        formula = f"{metal}{other}{'2' if prototype == 'fluorite' else ''}"
        if prototype == "wurtzite":
            atoms = bulk(formula, prototype, a=bond * (8 / 3) ** 0.5)
        else:
            a = bond * _CELL_IN_BONDS[prototype]
            atoms = bulk(formula, prototype, a=a, cubic=prototype != "cesiumchloride")
        strain = rng.normal(0, 0.02, (3, 3))
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + (strain + strain.T) / 2), scale_atoms=True)
        atoms.rattle(0.05, rng=rng)
        cells.append(atoms)
    return cells


def _calls(engine: Engine, n_atoms: int) -> Values:
    """Time of energy, forces and stress of one supercell, graph included; every call has new positions."""
    model = engine.model
    times = []
    for repeat in range(_REPEATS + 1):  # the first one warms up
        state = atoms_to_state([supercell(n_atoms, repeat)], model.device, model.dtype)
        start = _now(model.device)
        model(state)
        times.append(_now(model.device) - start)
    return {"ms": 1e3 * statistics.median(times[1:]), "spread_ms": 1e3 * (max(times[1:]) - min(times[1:]))}


def _relaxations(engine: Engine, n_cells: int) -> Values:
    """Time of relaxations, all in one stream."""
    cells = small_cells(n_cells, engine.elements)
    list(relax(cells[:2], engine.model, max_steps=2))  # warms up
    start = _now(engine.model.device)
    records = list(relax(cells, engine.model, fmax=_FMAX, max_steps=_STEPS, optimizer="fire"))
    seconds = _now(engine.model.device) - start
    return {
        "relaxations": len(records),
        "seconds": seconds,
        "converged": sum(record.state == "converged" for record in records),
        "evaluations": sum(record.n_steps + 1 for record in records),
        "mean_atoms": float(np.mean([len(cell) for cell in cells])),
    }


def _now(device: torch.device) -> float:
    """Clock (s), after the device has finished what it has to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _score(_: Mapping[str, Any], results: Mapping[str, Values]) -> Metrics:
    metrics: Metrics = {}
    for key, values in results.items():
        if key.startswith("call"):
            metrics[f"{key} [ms]"] = values.get("ms")
        elif "seconds" in values:
            metrics["relaxations/s"] = values["relaxations"] / values["seconds"]
            metrics["evaluations/s"] = values["evaluations"] / values["seconds"]
            metrics["converged"] = values["converged"]
    return metrics


def _remarks(_: Mapping[str, Any]) -> list[str]:
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    return [f"times of {name}; other work on the machine makes them longer"]


EFFICIENCY_BOARD = Board(
    name="efficiency",
    about="time of energy, forces and stress at 100 to 1,000 atoms; relaxations per second of 500 small cells",
    data=None,
    read=_read,
    compute=_compute,
    score=_score,
    settings={"repeats": _REPEATS, "fmax": _FMAX, "max_steps": _STEPS, "optimizer": "fire", "cells": _N_CELLS},
    published=EFFICIENCY,
    remarks=_remarks,
)
