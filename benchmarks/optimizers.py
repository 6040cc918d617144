"""
Count evaluations of L-BFGS and FIRE on thirty mixed crystals: ``python benchmarks/optimizers.py --help``.

Twenty generated prototypes and six textbook crystals, all strained and rattled, and four larger rattled ones. The two
optimizers alternate, on one part of the crystals at a time.
"""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING

import numpy as np
import torch
from cells import olivine, prototypes, rattled
from pymatgen.core import Lattice, Structure

from matris import load, relax
from matris.structures import problem_with
from recipes.embedded.materials import generate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matris.relaxation.records import RelaxRecord

STEPS, PARTS, SAME = 300, 3, 1e-3  # SAME: eV/atom


def crystals(elements: Sequence[str], count: int = 30) -> list[Structure]:
    """Make up to thirty crystals of the elements, small and generated ones first."""
    made = (material.structure for material in generate(99, 100))
    known = [structure for structure in made if len(structure) <= 16 and problem_with(structure, elements) is None]
    textbook, random = prototypes(), np.random.default_rng(5)
    small = sorted(known[:60], key=len)[::3]
    for name in ("MgO", "CaF2", "TiO2", "SrTiO3", "ZnO", "Cu"):
        small.append(textbook[name] * (2, 1, 1) if len(textbook[name]) < 4 else textbook[name])
    chosen = []
    for number, start in enumerate(small):
        structure = rattled(start, number, 0.1)
        lattice = structure.lattice.matrix @ (np.eye(3) + random.normal(0, 0.03, (3, 3)))
        chosen.append(Structure(Lattice(lattice), structure.species, structure.frac_coords))
    for name, size in (("SrTiO3", (2, 2, 1)), ("Ti", (2, 2, 1)), ("ZnO", (2, 1, 1))):
        chosen.append(rattled(textbook[name] * size, 11, 0.15))
    lithium_phosphate = olivine()
    has_all = problem_with(lithium_phosphate, elements) is None
    chosen.append(lithium_phosphate if has_all else rattled(textbook["CaF2"] * (2, 2, 1), 13, 0.15))
    return [structure for structure in chosen if problem_with(structure, elements) is None][:count]


def main() -> None:
    """Print one table for each force criterion."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default=None)
    parser.add_argument("--fmax", type=float, nargs="+", default=[0.05, 0.005])
    parser.add_argument("--count", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    potential = load(options.checkpoint, device=options.device)
    structures = crystals(potential.elements, options.count)
    print(f"{len(structures)} crystals of {np.mean([len(s) for s in structures]):.1f} atoms on average, "
          f"{potential.card.key}, at most {STEPS} steps")  # fmt: skip
    for fmax in options.fmax:
        records: dict[str, dict[int, RelaxRecord]] = {"lbfgs": {}, "fire": {}}
        seconds = dict.fromkeys(records, 0.0)
        for part in range(PARTS):
            which = range(part, len(structures), PARTS)
            for optimizer in ("lbfgs", "fire") if part % 2 else ("fire", "lbfgs"):
                start = time.perf_counter()
                for record in relax(
                    [structures[i] for i in which], potential, fmax=fmax, max_steps=STEPS, optimizer=optimizer
                ):
                    records[optimizer][which[record.index]] = record
                seconds[optimizer] += time.perf_counter() - start
        _print_table(fmax, records, seconds)


def _print_table(fmax: float, records: dict[str, dict[int, RelaxRecord]], seconds: dict[str, float]) -> None:
    """Print evaluations, and where the energies of L-BFGS are."""
    missed = [
        f"{optimizer}: crystal {index} {record.state} {record.error or ''}"
        for optimizer, of_all in records.items()
        for index, record in sorted(of_all.items())
        if record.state != "converged"
    ]
    print(f"\nfmax {fmax} eV/Å. " + (f"Not converged: {'; '.join(missed)}" if missed else "All converged."))
    print("| optimizer | evaluations: mean | median | 90 % | largest | converged | s |\n|---|---|---|---|---|---|---|")
    for optimizer, of_all in records.items():
        counts = np.array([record.n_steps + 1 for record in of_all.values()])
        converged = sum(record.state == "converged" for record in of_all.values())
        print(f"| {optimizer} | {counts.mean():.1f} | {np.median(counts):.0f} | {np.quantile(counts, 0.9):.0f} | "
              f"{counts.max()} | {converged} of {len(counts)} | {seconds[optimizer]:.0f} |")  # fmt: skip
    both = [
        (records["lbfgs"][i], records["fire"][i])
        for i in records["fire"]
        if records["lbfgs"][i].state == records["fire"][i].state == "converged"
    ]
    shifts = np.array([(one.energy or 0) / len(_structure(one)) - (other.energy or 0) / len(_structure(other))
                       for one, other in both])  # fmt: skip
    print(f"energy of lbfgs: lower {np.sum(shifts < -SAME)}, same within {SAME} eV/atom {np.sum(abs(shifts) <= SAME)}, "
          f"higher {np.sum(shifts > SAME)}; {shifts.min():+.4f} to {shifts.max():+.4f} eV/atom")  # fmt: skip


def _structure(record: RelaxRecord) -> Structure:
    """Structure of a record that has one."""
    assert record.structure is not None
    return record.structure


if __name__ == "__main__":
    main()
