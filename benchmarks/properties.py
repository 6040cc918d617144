"""
Compare heat capacities and elastic moduli with DFT: ``python benchmarks/properties.py --data FOLDER``.

The references are harmonic heat capacities at 300 K (Alexandria) and Voigt–Reuss–Hill moduli (Materials Project) of
binary compounds. A random sample (seed 0) of those whose elements the checkpoint supports is computed.
"""

from __future__ import annotations

import argparse
import gzip
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from peers import machine
from pymatgen.core import Structure

import matris
from matris.properties.elastic import elastic
from matris.properties.phonons import JOULE_PER_MOLE, PhononSettings, phonons

if TYPE_CHECKING:
    from matris.model.potential import Potential


def choose(path: Path, potential: Potential, count: int) -> list[dict[str, Any]]:
    """Sample references whose elements the checkpoint supports."""
    rows = json.loads(gzip.decompress(path.read_bytes()))
    for row in rows:
        structure = row["structure"]
        row["structure"] = Structure.from_dict(json.loads(structure) if isinstance(structure, str) else structure)
    covered = [r for r in rows if {e.symbol for e in r["structure"].composition} <= set(potential.elements)]
    return [covered[i] for i in np.random.default_rng(0).permutation(len(covered))[:count]]


def line(name: str, unit: str, computed: list[float], reference: list[float], asked: int, seconds: float) -> str:
    """Return a row of the table."""
    difference = np.subtract(computed, reference)
    errors = f"{np.abs(difference).mean():.2f} | {np.median(np.abs(difference)):.2f} | {difference.mean():+.2f}"
    return f"| {name} | {len(computed)} of {asked} | {errors} | {np.mean(reference):.1f} {unit} | {seconds:.0f} |"


def heat_capacities(path: Path, potential: Potential, count: int, min_length: float) -> str:
    """Compare heat capacities at 300 K per mole of atoms (the reference is per mole of cells); return a row."""
    rows = choose(path, potential, count)
    started = time.perf_counter()
    settings = PhononSettings(min_length=min_length, temperatures=(300.0,))
    records = phonons([row["structure"] for row in rows], potential, fmax=1e-3, max_steps=500, settings=settings)
    computed, reference = [], []
    for row, record in zip(rows, records, strict=True):
        if record.phonons is None or record.phonons.has_imaginary_modes:
            continue
        computed.append(float(record.phonons.heat_capacity[0]) * JOULE_PER_MOLE / record.phonons.n_atoms)
        reference.append(float(row["heat_capacity"]) / len(row["structure"]))
    seconds = time.perf_counter() - started
    return line("heat capacity at 300 K", "J/K/mol", computed, reference, len(rows), seconds)


def moduli(path: Path, potential: Potential, count: int) -> list[str]:
    """Compare bulk and shear moduli (GPa); return rows."""
    rows = choose(path, potential, count)
    started = time.perf_counter()
    records = elastic([row["structure"] for row in rows], potential, fmax=1e-3, max_steps=500)
    seconds = time.perf_counter() - started
    stable = [(row, r.fit.moduli()) for row, r in zip(rows, records, strict=True) if r.fit is not None and r.fit.stable]
    return [
        line(
            name,
            "GPa",
            [found[ours] for _, found in stable],
            [float(row[theirs]) for row, _ in stable],
            len(rows),
            seconds,
        )
        for name, ours, theirs in (
            ("bulk modulus", "k_vrh", "bulk_modulus_vrh"),
            ("shear modulus", "g_vrh", "shear_modulus_vrh"),
        )
    ]


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with alexandria_phonon_cv and mp_elasticity")
    parser.add_argument("--checkpoint", help="key or file; default: the embedded checkpoint")
    parser.add_argument("--phonons", type=int, default=40, help="number of materials for heat capacities")
    parser.add_argument("--elastic", type=int, default=60, help="number of materials for moduli")
    parser.add_argument(
        "--min-length", type=float, default=8.0, help="minimum distance between opposite faces of the supercell (Å)"
    )
    parser.add_argument("--dtype", default="float32", choices=["float32", "float64"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    potential = matris.load(options.checkpoint, device=options.device, dtype=options.dtype)
    print(f"{potential.card.key}, {machine(options.device, options.threads)}, {options.dtype}\n")
    print("| property | computed and stable | mean absolute error | median | mean error | mean of references | s |")
    print("|---|---|---|---|---|---|---|")
    if options.elastic:
        for row in moduli(options.data / "mp_elasticity.json.gz", potential, options.elastic):
            print(row, flush=True)
    if options.phonons:
        reference = options.data / "alexandria_phonon_cv.json.gz"
        print(heat_capacities(reference, potential, options.phonons, options.min_length))


if __name__ == "__main__":
    main()
