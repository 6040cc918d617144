"""Errors of a potential against reference data: labelled frames, formation energies, lattice constants."""

from __future__ import annotations

import gzip
import json
import logging
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.build import bulk
from ase.collections import dcdft
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution, Stationary
from ase.md.verlet import VelocityVerlet
from ase.units import fs
from pymatgen.core import Structure

from matris.calculator import MatRISCalculator
from matris.relaxation.relax import relax
from matris.structures import problem_with, to_structure
from matris.training.assess import assess
from matris.training.data.reading import read_frames
from recipes.embedded.labels import held_out

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matris.model.potential import Potential
    from matris.training.data.frame import Frame

logger = logging.getLogger(__name__)

FRAME_SETS = ("mptrj_random", "mpf_tp")
_LATTICE_FMAX = 0.02  # eV/Å
_LATTICE_STEPS = 300


def frame_errors(potential: Potential, frames: Sequence[Frame]) -> dict[str, float]:
    """
    Mean absolute errors over the frames whose elements the potential covers, beside those of predicting zero.

    Parameters
    ----------
    potential
        The potential.
    frames
        Labelled frames of any elements.

    Returns
    -------
    dict
        ``frames`` covered; ``energy`` mean and ``energy_median`` (meV/atom); ``force_component`` over all atoms and,
        for comparison, ``force_component_zero`` (eV/Å); ``stress`` (GPa).
    """
    rows = assess(potential, (("all", frame) for frame in frames)).rows()
    if not rows:
        return {"frames": 0}
    row = rows[0]
    return {
        "frames": row["frames"],
        "energy": row["energy_mae"],
        "energy_median": row["energy_median"],
        "force_component": row["force_mae"] / 1e3,
        "force_component_zero": row["force_zero"] / 1e3,
        "stress": row["stress_mae"],
    }


def lattice_errors(potential: Potential, references: Sequence[tuple[Structure, float]]) -> dict[str, float]:
    """
    Relax each structure and compare the cube root of its volume with the reference.

    Parameters
    ----------
    potential
        The potential.
    references
        Structures to start from, and their reference volumes (Å³ per cell).

    Returns
    -------
    dict
        ``structures``, how many ``converged``, and of those the ``median`` and ``mean`` absolute and the
        ``mean_signed`` relative error of the lattice constant (%).
    """
    errors = []
    for record in relax([s for s, _ in references], potential, fmax=_LATTICE_FMAX, max_steps=_LATTICE_STEPS):
        structure, reference = references[record.index]
        if record.state == "converged" and record.structure is not None:
            errors.append(100 * ((record.structure.volume / reference) ** (1 / 3) - 1))
        else:
            logger.info("%s: %s %s", structure.composition.reduced_formula, record.state, record.error)
    result: dict[str, float] = {"structures": len(references), "converged": len(errors)}
    if errors:
        result |= {
            "median": float(np.median(np.abs(errors))),
            "mean": float(np.mean(np.abs(errors))),
            "mean_signed": float(np.mean(errors)),
        }
    return result


def elements_of_dcdft(potential: Potential) -> list[tuple[Structure, float]]:
    """Elements of ``ase.collections.dcdft`` with their PBE volumes (WIEN2k)."""
    return [
        (to_structure(dcdft[symbol]), dcdft.data[symbol]["wien2k_volume"] * len(dcdft[symbol]))
        for symbol in dcdft.names
        if symbol in potential.elements
    ]


def binaries(potential: Potential, path: Path, count: int = 60, max_sites: int = 8) -> list[tuple[Structure, float]]:
    """Every n-th covered binary of at most `max_sites` atoms in the Materials Project elasticity set."""
    structures = [Structure.from_dict(e["structure"]) for e in _read_json(path)]
    covered = [s for s in structures if len(s) <= max_sites and problem_with(s, potential.elements) is None]
    return [(s, s.volume) for s in covered[:: max(1, len(covered) // count)]]


def dynamics(potential: Potential, steps: int = 1000, temperature: float = 300.0) -> dict[str, dict[str, float]]:
    """
    Run microcanonical dynamics of Si, NaCl and MgO (8 atoms, 1 fs) from a relaxed cell.

    Parameters
    ----------
    potential
        The potential.
    steps
        Velocity-Verlet steps.
    temperature
        Of the first velocities (K); half of it goes into the potential energy.

    Returns
    -------
    dict
        By formula: ``drift`` of the total energy, a linear fit over the run (meV/atom/ps), its root-mean-square
        ``fluctuation`` about that line (meV/atom), ``temperature`` mean of the second half (K).
    """
    starts = {
        "Si": bulk("Si", "diamond", a=5.43, cubic=True),
        "NaCl": bulk("NaCl", "rocksalt", a=5.69, cubic=True),
        "MgO": bulk("MgO", "rocksalt", a=4.25, cubic=True),
    }
    result = {}
    for record, (formula, start) in zip(
        sorted(relax(list(starts.values()), potential), key=lambda r: r.index), starts.items(), strict=True
    ):
        atoms = record.structure.to_ase_atoms() if record.structure is not None else start
        atoms.calc = MatRISCalculator(potential)
        MaxwellBoltzmannDistribution(atoms, temperature_K=temperature, rng=np.random.default_rng(0))
        Stationary(atoms)
        integrator = VelocityVerlet(atoms, timestep=1.0 * fs)
        energies, temperatures = [], []
        for _ in integrator.irun(steps):
            energies.append(1e3 * atoms.get_total_energy() / len(atoms))
            temperatures.append(atoms.get_temperature())
        time = np.arange(len(energies)) * 1e-3
        slope, offset = np.polyfit(time, energies, 1)
        result[formula] = {
            "drift": float(slope),
            "fluctuation": float(np.std(energies - (slope * time + offset))),
            "temperature": float(np.mean(temperatures[len(temperatures) // 2 :])),
        }
    return result


def evaluate(potential: Potential, data: Path | None) -> dict[str, Any]:
    """
    Measure everything that the card reports.

    Parameters
    ----------
    potential
        The potential.
    data
        Folder of the reference data (``mptrj_random.extxyz.gz`` and so on); what is absent is left out.

    Returns
    -------
    dict
        One entry per set.
    """
    table: dict[str, Any] = {
        "dcdft elements, lattice constant": lattice_errors(potential, elements_of_dcdft(potential))
    }
    table |= {f"dynamics of {formula}, 300 K, 1 ps": errors for formula, errors in dynamics(potential).items()}
    logger.info("%s", table)
    if data is None:
        return table
    if (path := data / "mp_elasticity.json.gz").exists():
        table["MP binaries, lattice constant"] = lattice_errors(potential, binaries(potential, path))
        logger.info("%s", table["MP binaries, lattice constant"])
    for name in FRAME_SETS:
        if (path := data / f"{name}.extxyz.gz").exists():
            # of a set that may be trained on, the formulas that were not
            frames = [f for f in read_frames([path]) if name == "mpf_tp" or held_out(f.formula)]
            table[name] = frame_errors(potential, frames)
            logger.info("%s: %s", name, table[name])
    if (path := data / "wbm_equilibrium.json.gz").exists():
        table["wbm_equilibrium"] = _wbm_errors(potential, _read_json(path))
    return table


def _wbm_errors(potential: Potential, entries: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Energy per atom at the DFT geometry of relaxed WBM crystals (meV/atom)."""
    errors = []
    for entry in entries:
        structure = Structure.from_dict(entry["structure"])
        if problem_with(structure, potential.elements) is None:
            energy = potential.predict(structure).energy / len(structure)
            errors.append(1e3 * abs(energy - entry["energy"] / len(structure)))
    if not errors:
        return {"structures": 0}
    return {"structures": len(errors), "energy": float(np.mean(errors)), "energy_median": float(np.median(errors))}


def _read_json(path: Path) -> list[dict[str, Any]]:
    """Read a compressed JSON list."""
    with gzip.open(path, "rt") as stream:
        content: list[dict[str, Any]] = json.load(stream)
    return content
