"""
Random structure search: how often the ground state of a binary is found among random crystals.

The ground state is the lowest energy per atom of this checkpoint over the known structure types of the formula
(``prototypes:``). It is found if a random crystal relaxes to this energy or below. Try ``--binaries MgO --count 10``.
"""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING

from peers import machine

import matris
from matris.flows.sources.prototypes import generate_candidates
from matris.flows.sources.random_search import random_crystals

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pymatgen.core import Structure

    from matris.model.potential import Potential
    from matris.relaxation.records import RelaxRecord

BINARIES = (
    *("LiF", "NaCl", "KBr", "CsCl", "MgO", "CaO", "SrS", "ZnO", "ZnS", "BeO"),
    *("GaAs", "AlN", "BN", "SiC", "CaF2", "Li2O", "TiO2", "MgF2", "Al2O3", "SiO2"),
)
SAME = 2e-3
"""Energies up to this far apart (eV/atom) are of one crystal."""


def relaxed(structures: Iterable[Structure], potential: Potential, max_steps: int) -> list[tuple[float, RelaxRecord]]:
    """Relax structures; the converged ones with their energies (eV/atom), lowest first."""
    records = matris.relax(structures, potential, fmax=0.02, max_steps=max_steps)
    done = [(r.energy / len(r.structure), r) for r in records if r.state == "converged" and r.structure]
    return sorted(done, key=lambda pair: pair[0])


def main() -> None:
    """Print a table of the binaries and the share of ground states found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binaries", nargs="+", default=BINARIES)
    parser.add_argument("--count", type=int, default=200, help="random crystals of each binary")
    parser.add_argument("--sizes", type=int, nargs=2, default=(1, 4), help="formula units")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max-steps", type=int, default=500)
    parser.add_argument("--checkpoint")
    options = parser.parse_args()
    potential = matris.load(options.checkpoint, device="cpu")
    print(f"{machine('cpu', 1)}; {options.count} random crystals each\n")
    print("| formula | known ground state | random, meV/atom above it | space group | hits | converged | s |")
    print("|---|---|---|---|---|---|---|", flush=True)
    found = 0
    for formula in options.binaries:
        start = time.perf_counter()
        crystals = [
            c.structure
            for c in random_crystals([formula], count=options.count, sizes=tuple(options.sizes), seed=options.seed)
            if c.structure
        ]
        elements = crystals[0].composition.chemical_system
        known = [
            c.structure
            for c in generate_candidates(elements)
            if c.structure and c.structure.composition.reduced_formula == crystals[0].composition.reduced_formula
        ]
        best, random = (relaxed(each, potential, options.max_steps) for each in (known, crystals))
        if not best or not random:
            print(f"| {formula} | {'–' if not best else ''} | nothing converged | – | 0 | {len(random)} | – |")
            continue
        above = random[0][0] - best[0][0]
        found += above < SAME
        hits = sum(energy < best[0][0] + SAME for energy, _ in random)
        groups = [pairs[0][1].structure.get_space_group_info(symprec=0.1)[0] for pairs in (best, random)]
        seconds = time.perf_counter() - start
        print(
            f"| {formula} | {groups[0]} | {1e3 * above:.1f} | {groups[1]} | {hits} | {len(random)} | {seconds:.0f} |",
            flush=True,
        )
    print(f"\nThe known ground state, or a lower one, is found in {found} of {len(options.binaries)} binaries.")


if __name__ == "__main__":
    main()
