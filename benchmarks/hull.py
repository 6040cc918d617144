"""
Compute hulls of very many phases: ``python benchmarks/hull.py --help``.

Reference phases and candidates are generated from a seed: 89 elements with frequencies as in the Materials Project's
database (half of all phases contain oxygen), two to seven elements per phase with the frequencies found there, and
energies that favour some pairs of elements. The full size is
``nice python benchmarks/hull.py --references 150000 --candidates 100000``.

``build`` times `matris.stores.hull.hull.hull_results` for all candidates against the references, without making entries
and documents. ``one`` times a single candidate in a system that was not used before, and a candidate that becomes a
competing phase. ``peer`` repeats ``build`` with pymatgen's PatchedPhaseDiagram on fewer of the same entries, and prints
the largest difference. Where no patch covers a candidate, pymatgen would minimise numerically, so its PhaseDiagram of
the system is used instead. Each part runs in its own process, whose peak memory is reported.
"""

from __future__ import annotations

import argparse
import resource
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from itertools import combinations
from multiprocessing import get_context
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
from pymatgen.core import Composition, Element
from pymatgen.entries.computed_entries import ComputedEntry

from matris.stores.hull.hull import hull_results
from matris.stores.hull.phase_space import Phase
from matris.stores.hull.references import References

if TYPE_CHECKING:
    from collections.abc import Callable

SYMBOLS = [Element.from_Z(z).symbol for z in (*range(1, 85), *range(89, 95))]
SIZES = {1: 0.005, 2: 0.14, 3: 0.44, 4: 0.28, 5: 0.105, 6: 0.025, 7: 0.005}
"""Fraction of phases by number of elements, about as in the Materials Project."""

FREQUENT = {"O": 45, "F": 8, "S": 8, "H": 7, "P": 9, "N": 7, "Li": 9, "Si": 7, "Se": 5, "Na": 5, "C": 6, "Mg": 5,
            "Fe": 5, "Mn": 5, "K": 4, "Ba": 4, "Al": 4, "Cu": 4, "Co": 4, "V": 4, "Ca": 4, "Ni": 4, "Te": 4, "Cl": 4,
            "Sr": 4, "B": 4, "Ge": 4, "Ti": 4}  # fmt: skip
"""Sampling weights of elements; noble gases have 0.05, all others 2."""

AMOUNTS = [1, 2, 3, 4, 5, 6, 8, 9, 10, 12]
CHECKPOINT = {"key": "synthetic", "sha256": "0" * 64, "energy_scale": "matpes-pbe"}


def phases(count: int, seed: int, *, elements: bool) -> list[tuple[dict[str, float], float]]:
    """Generate compositions with energies (eV/atom); `elements` adds the pure elements at the start."""
    weights = np.array([FREQUENT.get(s, 0.05 if Element(s).is_noble_gas else 2.0) for s in SYMBOLS])
    field = np.random.default_rng(0)  # the same chemistry for references and candidates
    pure = -field.uniform(1, 9, len(SYMBOLS))
    pull = np.abs(np.subtract.outer(*[np.array([_electronegativity(s) for s in SYMBOLS])] * 2))
    pull = pull * (1 + field.random(pull.shape))
    rng = np.random.default_rng(seed)
    sizes = rng.choice(list(SIZES), count, p=np.array(list(SIZES.values())) / sum(SIZES.values()))
    order = np.log(rng.random((count, len(SYMBOLS)))) / weights  # the largest are a weighted sample without replacement
    rows = []
    for size, keys in zip(sizes, order, strict=True):
        chosen = np.argpartition(-keys, size)[:size]
        amounts = rng.choice(AMOUNTS, size)
        x = amounts / amounts.sum()
        energy = x @ pure[chosen] - 0.8 * x @ pull[np.ix_(chosen, chosen)] @ x
        energy += abs(rng.normal(0, 0.15)) + (0.0 if elements else 0.1)
        rows.append(({SYMBOLS[i]: float(n) for i, n in zip(chosen, amounts, strict=True)}, float(energy)))
    first = [({symbol: 1.0}, float(energy)) for symbol, energy in zip(SYMBOLS, pure, strict=True)]
    return [*first, *rows] if elements else rows


def _electronegativity(symbol: str) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        value = Element(symbol).X
    return 2.0 if np.isnan(value) else float(value)


def references(count: int) -> References:
    """Make a reference set of pure elements and compounds."""
    made = phases(count - len(SYMBOLS), seed=1, elements=True)
    entries = (
        ComputedEntry(Composition(amounts), energy * sum(amounts.values()), entry_id=f"reference-{i}")
        for i, (amounts, energy) in enumerate(made)
    )
    return References("synthetic", CHECKPOINT["energy_scale"], tuple(entries), date="2026-01-01")


def documents(count: int, seed: int = 2) -> list[dict[str, Any]]:
    """Make candidate documents with the fields that hulls use."""
    return [
        {
            "document_id": f"candidate-{seed}-{i}",
            "state": "converged",
            "chemsys": "-".join(sorted(amounts)),
            "composition": amounts,
            "energy_per_atom": energy,
            "correction_scheme": "none",
            "checkpoint": CHECKPOINT,
            "settings": {"digest": "0" * 12},
        }
        for i, (amounts, energy) in enumerate(phases(count, seed, elements=False))
    ]


def peak_gb() -> float:
    """Return the peak memory of this process (GB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def build(n_references: int, n_candidates: int) -> list[str]:
    """Time placing all candidates at once."""
    known, candidates = references(n_references), documents(n_candidates)
    before = peak_gb()
    started = time.perf_counter()
    found = hull_results(candidates, known)
    seconds = time.perf_counter() - started
    stable = sum(bool(result.is_stable) for result in found.values())
    assert len(found) == n_candidates
    systems = len({document["chemsys"] for document in candidates})
    return [
        row("matris, all candidates", n_references)
        + f" {n_candidates:,} in {systems:,} systems, {stable:,} below the hull | {seconds:.1f} s "
        f"| {peak_gb():.2f} GB ({before:.2f} before) | |"
    ]


def one(n_references: int, _: int) -> list[str]:
    """Time placing candidates one by one, and adding them as competing phases."""
    known = references(n_references)
    started = time.perf_counter()
    space = known.space
    read = time.perf_counter() - started
    fresh = documents(400, seed=3)
    times = timed([lambda document=document: hull_results([document], known) for document in fresh])
    again = timed([lambda document=document: hull_results([document], known) for document in fresh])

    def join(phase: Phase) -> None:
        space.place(phase.system, [phase])
        space.add([phase])

    new = [Phase(d["document_id"], d["composition"], d["energy_per_atom"] - 0.1) for d in fresh]
    adding = timed([lambda phase=phase: join(phase) for phase in new])
    return [
        row("matris, references read into memory", n_references) + f" | {read:.1f} s | {peak_gb():.2f} GB | |",
        *(
            row(name, n_references) + f" 1 of 400 | median {median(t):.2f} ms, 95 % {np.quantile(t, 0.95):.2f} ms | | |"
            for name, t in (
                ("matris, one candidate, new subsystems", times),
                ("matris, one candidate, cached subsystems", again),
                ("matris, one candidate that becomes a competing phase", adding),
            )
        ),
    ]


def timed(calls: list[Callable[[], object]]) -> list[float]:
    """Return the time of each call (ms)."""
    times = []
    for call in calls:
        started = time.perf_counter()
        call()
        times.append((time.perf_counter() - started) * 1e3)
    return times


def peer(n_references: int, n_candidates: int) -> list[str]:
    """Compare with pymatgen: the same candidates on the same entries."""
    from pymatgen.analysis.phase_diagram import PatchedPhaseDiagram, PDEntry, PhaseDiagram

    known, candidates = references(n_references), documents(n_candidates)
    started = time.perf_counter()
    found = hull_results(candidates, known)
    ours = time.perf_counter() - started
    started = time.perf_counter()
    patched = PatchedPhaseDiagram(known.entries)
    built = time.perf_counter() - started
    covered, others = [], []
    for document in candidates:
        entry = PDEntry(Composition(document["composition"]), 0.0)
        spaces = [set(entry.elements) <= set(space) for space in patched.spaces]
        (covered if any(spaces) or entry.is_element else others).append((document, entry))
    difference, times = 0.0, []
    for document, entry in covered:
        started = time.perf_counter()
        hull = patched.get_hull_energy_per_atom(entry.composition)
        times.append(time.perf_counter() - started)
        distance = document["energy_per_atom"] - hull
        difference = max(difference, abs(distance - found[document["document_id"]].energy_above_hull))
    by_system: dict[frozenset[Any], list[Any]] = {}
    for entry in known.entries:
        by_system.setdefault(frozenset(entry.composition.elements), []).append(entry)
    rest = 0.0
    for document, entry in others[:300]:
        parts = (frozenset(p) for n in range(1, len(entry.elements) + 1) for p in combinations(entry.elements, n))
        diagram = PhaseDiagram([e for part in parts for e in by_system.get(part, ())])
        distance = document["energy_per_atom"] - diagram.get_hull_energy_per_atom(entry.composition)
        rest = max(rest, abs(distance - found[document["document_id"]].energy_above_hull))
    seconds = built + sum(times)
    return [
        row("matris, the same candidates", n_references) + f" {n_candidates:,} | {ours:.1f} s | | |",
        row("pymatgen PatchedPhaseDiagram", n_references)
        + f" {len(covered):,} covered by a patch | {seconds:.1f} s ({built:.1f} to build; one candidate: median "
        f"{median(times) * 1e3:.2f} ms) | {peak_gb():.2f} GB, both sides | {difference:.1e} |",
        row("pymatgen PhaseDiagram of the system", n_references)
        + f" {min(300, len(others))} of {len(others):,} not covered by a patch | | | {rest:.1e} |",
    ]


def row(name: str, n_references: int) -> str:
    """Return the start of a line of the table."""
    return f"| {name} | {n_references:,} |"


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--references", type=int, default=20_000)
    parser.add_argument("--candidates", type=int, default=10_000)
    parser.add_argument(
        "--peer-references", type=int, default=5_000, help="number of references in the comparison with pymatgen"
    )
    parser.add_argument("--peer-candidates", type=int, default=2_000)
    parser.add_argument("--parts", nargs="+", default=["build", "one", "peer"], choices=["build", "one", "peer"])
    options = parser.parse_args()
    from peers import machine  # imports torch, which must not add to the memory of the parts

    print(f"{machine('cpu', 1)}\n")
    print("| | references | candidates | wall time | peak memory | largest difference (eV/atom) |")
    print("|---|---|---|---|---|---|")
    counts = {"peer": (options.peer_references, options.peer_candidates)}
    parts = {"build": build, "one": one, "peer": peer}
    for name in options.parts:
        n_references, n_candidates = counts.get(name, (options.references, options.candidates))
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            for line in pool.submit(parts[name], n_references, n_candidates).result():
                print(line, flush=True)


if __name__ == "__main__":
    main()
