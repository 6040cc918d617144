"""
Measure the savings of a cascade: relaxations by an expensive potential, alone and after the embedded checkpoint.

``python benchmarks/cascade.py`` uses SevenNet-0 as the expensive potential, and installs it into a folder of its own.
The crystals are filled prototypes, randomly displaced and strained.
"""

from __future__ import annotations

import argparse
import time
from itertools import chain, islice
from statistics import median
from typing import TYPE_CHECKING

from peers import machine, use_potential

import matris
from matris.flows.sources.prototypes import generate_candidates
from matris.flows.sources.rattle import rattle

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pymatgen.core import Structure

SYSTEMS = ("Li-Mg-O", "Na-Fe-O", "Ca-Ti-O", "K-Mn-F", "Ni-Al-Zr", "Li-Co-O", "Mg-Al-Cu", "Sr-Zr-O")


def crystals(number: int) -> list[Structure]:
    """Return displaced and strained prototypes of at least four atoms, from all systems in turn."""
    each = [[c for c in generate_candidates(s) if c.structure is not None and len(c.structure) > 3] for s in SYSTEMS]
    turns = chain.from_iterable(zip(*(sources[:number] for sources in each), strict=False))
    found = islice(rattle(turns, amplitude=0.1, strain=0.03), number)
    return [c.structure for c in found if c.structure is not None]


def relaxed(structures: Sequence[Structure], model: object, fmax: float) -> tuple[list[matris.RelaxRecord], float]:
    """Relax; return the records in the order of the structures, and the time (s)."""
    start = time.perf_counter()
    records = sorted(matris.relax(structures, model, fmax=fmax, max_steps=300), key=lambda record: record.index)
    return records, time.perf_counter() - start


def main() -> None:
    """Print evaluations and times of both methods, and the differences of their energies."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--crystals", type=int, default=40)
    parser.add_argument("--fmax", type=float, default=0.05)
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    structures = crystals(options.crystals)
    sizes = [len(structure) for structure in structures]
    print(f"{machine('cpu', 1)}; {len(structures)} crystals of {min(sizes)} to {max(sizes)} atoms, fmax {options.fmax}")
    use_potential("sevenn")
    from sevenn.calculator import SevenNetCalculator

    costly = matris.AseModel(SevenNetCalculator("7net-0", device="cpu"), identity="7net-0")
    cheap = matris.load(device="cpu")
    next(iter(matris.relax(structures[:1], costly, max_steps=1)))  # warm-up
    next(iter(matris.relax(structures[:1], cheap, max_steps=1)))
    for _ in range(options.rounds):
        alone, t_alone = relaxed(structures, costly, options.fmax)
        first, t_first = relaxed(structures, cheap, options.fmax)
        starts = [record.structure or start for record, start in zip(first, structures, strict=True)]
        after, t_after = relaxed(starts, costly, options.fmax)
        steps = [sum(record.n_steps + 1 for record in records) for records in (alone, after)]
        print(f"alone: {steps[0]} evaluations, {t_alone:.0f} s; states {states(alone)}")
        print(
            f"cascade: {t_first:.1f} s embedded checkpoint, then {steps[1]} evaluations, {t_after:.0f} s; "
            f"states {states(after)}"
        )
        print(f"saved: {100 * (1 - steps[1] / steps[0]):.0f} % of the evaluations, ", end="")
        print(f"{100 * (1 - (t_first + t_after) / t_alone):.0f} % of the time")
        apart = [
            abs(one.energy - other.energy) / len(structure)
            for one, other, structure in zip(alone, after, structures, strict=True)
            if one.energy is not None and other.energy is not None
        ]
        near = sum(difference < 0.005 for difference in apart)
        print(
            f"energy differences: median {1000 * median(apart):.2f} meV/atom, {near} of {len(apart)} within 5 meV/atom"
        )


def states(records: Sequence[matris.RelaxRecord]) -> dict[str, int]:
    """Count the states of the records."""
    found = [record.state for record in records]
    return {state: found.count(state) for state in sorted(set(found))}


if __name__ == "__main__":
    main()
