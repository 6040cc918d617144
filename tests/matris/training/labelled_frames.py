"""Lennard-Jones crystals with exact labels, and the same in the formats that users have."""

from __future__ import annotations

import json

import numpy as np
from ase.build import bulk
from ase.calculators.lj import LennardJones
from ase.calculators.singlepoint import SinglePointCalculator
from ase.units import GPa
from pymatgen.core import Structure

CRYSTALS = {"Ar": (3.4, 5.2), "Ne": (2.8, 4.3), "Kr": (3.6, 5.6), "Xe": (4.0, 6.2)}
"""Lennard-Jones lengths and lattice constants (Å)."""


def crystals(n, *, wide=0.04, seed=3):
    """Strained and rattled crystals, in turn of each gas, each with its labels and material."""
    rng = np.random.default_rng(seed)
    for number in range(n):
        symbol = list(CRYSTALS)[number % len(CRYSTALS)]
        sigma, a = CRYSTALS[symbol]
        atoms = bulk(symbol, "fcc", a=a, cubic=True)
        atoms.set_cell(atoms.cell * rng.uniform(1 - wide, 1 + wide), scale_atoms=True)
        atoms.positions += rng.normal(scale=0.05, size=atoms.positions.shape)
        atoms.calc = LennardJones(sigma=sigma, epsilon=0.1, rc=9.0)
        kept = SinglePointCalculator(
            atoms,
            energy=atoms.get_potential_energy() - 3.0 * len(atoms),
            forces=atoms.get_forces(),
            stress=atoms.get_stress(),
            magmoms=np.array([0.5, -1.0, 0.0, 2.0]),
        )
        atoms.calc = kept
        atoms.info["material"] = f"{symbol}-crystal"
        yield atoms


def _structure(atoms):
    return Structure(atoms.cell[:], atoms.get_chemical_symbols(), atoms.positions, coords_are_cartesian=True).as_dict()


def as_mptrj(frames):
    """The layout of MPtrj: mappings by material and frame, stresses in kbar with VASP's sign."""
    content = {}
    for number, atoms in enumerate(frames):
        results = atoms.calc.results
        content.setdefault(f"mp-{atoms.info['material']}", {})[f"task-0-{number}"] = {
            "structure": _structure(atoms),
            "uncorrected_total_energy": results["energy"],
            "corrected_total_energy": results["energy"] - 1.0,
            "energy_per_atom": (results["energy"] - 1.0) / len(atoms),
            "force": results["forces"].tolist(),
            "stress": (-10 / GPa * atoms.get_stress(voigt=False)).tolist(),
            "magmom": results["magmoms"].tolist(),
        }
    return json.dumps(content)


def as_matpes(frames, functional="PBE"):
    """The layout of MatPES: a list, stresses in kbar as Voigt's six with VASP's sign."""
    content = [
        {
            "nsites": len(atoms),
            "structure": _structure(atoms),
            "energy": atoms.calc.results["energy"],
            "forces": atoms.calc.results["forces"].tolist(),
            "stress": (-10 / GPa * atoms.get_stress()).tolist(),
            "matpes_id": f"matpes-{number}",
            "functional": functional,
            "provenance": {"original_mp_id": f"mp-{atoms.info['material']}"},
        }
        for number, atoms in enumerate(frames)
    ]
    return json.dumps(content)
