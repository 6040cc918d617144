"""
Compare our checkpoints with CHGNet, SevenNet-0 and nequix-oam-1: ``python benchmarks/accuracy.py --data FOLDER``.

The predictions of each potential are kept in ``--cache``. An interrupted run resumes, and a new checkpoint computes its
own column only. The others are installed into ``.peers/`` if they are missing; ``--peers`` without names leaves them
out. Run it in the root of a checkout, with ``PYTHONPATH=.``.

Lattice constants are cube roots of volumes. Forces, stress and formation energies are evaluated at the DFT geometry.
Formation energies refer to DFT energies of the Materials Project's elements: MP2020-corrected energies for CHGNet,
which was trained on those, raw energies for the others. Bulk moduli are from a Birch–Murnaghan fit to five volumes
between 94 and 106 %, and are compared with DFT's Voigt–Reuss–Hill moduli. Heat capacities (300 K) are per mole of
atoms; crystals with imaginary modes have none.

A second table shows how well a checkpoint's extrapolation warning predicts force errors. It has three sets of frames:
formulas held out from training, mostly near equilibrium; mpf_tp, hot and compressed; and the first set with the
elements of all sites shuffled, where SevenNet-0 replaces DFT as the reference.
"""

from __future__ import annotations

import argparse
import gzip
import json
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import physical
import torch
from ase import Atoms
from ase.build import bulk
from ase.collections import dcdft
from ase.io import read
from peers import machine
from potentials import PEERS, Contestant, ours, rates
from reference_data import Case, read_json, shuffled
from scipy.stats import rankdata, spearmanr

import matris
from matris.properties.eos import eos
from matris.structures import to_structure
from matris.units import GPA
from recipes.embedded.labels import held_out

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from pymatgen.core import Structure

type Found = dict[str, Any]

BAD_FORCE = 0.3  # eV/Å: the warning should flag frames with a larger mean error of a force component
MAX_SITES = 8  # in the cell of a binary compound
_UNCOMMON = {"He", "Ne", "Ar", "Kr", "Xe", "Rn", "Po", "Tc"}


def symbols_of(thing: Structure | Atoms) -> set[str]:
    """Return the symbols of the elements in a cell."""
    return set(thing.symbols) if isinstance(thing, Atoms) else thing.composition.chemical_system_set


def elements_of_dcdft(_: Path) -> list[Case]:
    """Return the elemental crystals of ``ase.collections.dcdft``."""
    return [(symbol, (to_structure(dcdft[symbol]),)) for symbol in dcdft.names]


def binaries(data: Path) -> list[Case]:
    """Return binary compounds of common solid elements, in small cells, with bulk moduli (GPa)."""
    common = set(dcdft.names) - _UNCOMMON
    rows = read_json(data / "mp_elasticity.json.gz")
    chosen = [r for r in rows if len(r["structure"]) <= MAX_SITES and symbols_of(r["structure"]) <= common]
    return shuffled([(r["mp_id"], (r["structure"], float(r["bulk_modulus_vrh"]))) for r in chosen])


def frames(data: Path) -> list[Case]:
    """Return frames far from equilibrium, with DFT labels."""
    return shuffled([(f"{i}", (atoms,)) for i, atoms in enumerate(read(data / "mpf_tp.extxyz.gz", index=":"))])


def calm_frames(data: Path) -> list[Case]:
    """Return DFT frames of formulas held out from our checkpoints' training, most of them near equilibrium."""
    some = [
        (f"{name} {i}", (atoms,))
        for name in ("mptrj_random", "alexandria_random")
        for i, atoms in enumerate(read(data / f"{name}.extxyz.gz", index=":"))
        if held_out(atoms.get_chemical_formula()) and len(atoms) <= 40
    ]
    return shuffled(some)


def swapped_frames(data: Path) -> list[Case]:
    """Return the frames of `calm_frames` with the elements of all sites shuffled."""
    swapped = []
    for name, (atoms,) in calm_frames(data):
        if len(set(atoms.symbols)) > 1:
            other = Atoms(numbers=atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=True)
            other.numbers = np.random.default_rng(zlib.crc32(name.encode())).permutation(other.numbers)
            swapped.append((name, (other,)))
    return swapped


def wbm(data: Path) -> list[Case]:
    """Return relaxed WBM crystals with raw and corrected formation energies (eV/atom)."""
    entries = json.loads(gzip.decompress((data / "mp_elemental_reference_entries.json.gz").read_bytes()))
    per_atom = {s: e["energy"] / sum(e["composition"].values()) for s, e in entries.items()}
    names = "formation_energy_per_atom", "corrected_formation_energy_per_atom"
    cases = []
    for row in read_json(data / "wbm_equilibrium.json.gz"):
        composition = row["structure"].composition
        of_elements = sum(per_atom[e.symbol] * n for e, n in composition.items()) / composition.num_atoms
        cases.append((row["material_id"], (row["structure"], of_elements, *(float(row[name]) for name in names))))
    return shuffled(cases)


def lattice_constant(contestant: Contestant, chosen: Sequence[Case]) -> Iterator[tuple[str, Found]]:
    """Relax elemental crystals; yield the errors of their lattice constants (%)."""
    for record in matris.relax([c[0] for _, c in chosen], contestant.model, fmax=0.02, max_steps=300):
        name, (structure,) = chosen[record.index]
        found: Found = {"state": record.state}
        if record.structure is not None:
            reference = dcdft.data[name]["wien2k_volume"] * len(structure)
            found["error"] = 100 * ((record.structure.volume / reference) ** (1 / 3) - 1)
        yield name, found


def equation_of_state(contestant: Contestant, chosen: Sequence[Case]) -> Iterator[tuple[str, Found]]:
    """Relax binary compounds and fit equations of state; yield errors of lattice constants (%), bulk moduli (GPa)."""
    structures = [c[0] for _, c in chosen]
    volumes = np.linspace(0.94, 1.06, 5).tolist()
    records = eos(
        structures, contestant.model, fmax=0.01, max_steps=200, volumes=volumes, equations=["birch_murnaghan"]
    )
    for (name, (structure, modulus)), record in zip(chosen, records, strict=True):
        found: Found = {"state": record.state, "reference": modulus}
        if record.structure is not None:
            found["error"] = 100 * ((record.structure.volume / structure.volume) ** (1 / 3) - 1)
        if record.fits:
            found["modulus"] = record.fits[0].b0
        yield name, found


def labels(contestant: Contestant, chosen: Sequence[Case]) -> Iterator[tuple[str, Found]]:
    """Yield mean absolute errors of force (eV/Å) and stress components (GPa), and the extrapolation of the frame."""
    for (name, (atoms,)), answer in zip(chosen, contestant.predict([c[0] for _, c in chosen]), strict=True):
        yield (
            name,
            {
                "force": float(np.abs(answer.forces - atoms.get_forces()).mean()),
                "stress": float(GPA * np.abs(answer.stress - atoms.get_stress(voigt=False)).mean()),
                "extrapolation": answer.extrapolation,
            },
        )


def answers(contestant: Contestant, chosen: Sequence[Case]) -> Iterator[tuple[str, Found]]:
    """Yield forces (eV/Å) and extrapolation of frames without labels."""
    for (name, _), answer in zip(chosen, contestant.predict([c[0] for _, c in chosen]), strict=True):
        yield name, {"forces": np.round(answer.forces, 4).tolist(), "extrapolation": answer.extrapolation}


def formation(contestant: Contestant, chosen: Sequence[Case]) -> Iterator[tuple[str, Found]]:
    """Yield errors of formation energies (meV/atom)."""
    given = contestant.predict([c[0].to_ase_atoms() for _, c in chosen])
    for (name, (structure, of_elements, raw, corrected)), answer in zip(chosen, given, strict=True):
        wanted = corrected if contestant.corrected else raw
        yield name, {"error": 1e3 * (answer.energy / len(structure) - of_elements - wanted)}


PARTS: dict[str, tuple[Callable[[Path], list[Case]], Callable[..., Iterator[tuple[str, Found]]], int, int]] = {
    "elements": (elements_of_dcdft, lattice_constant, 71, 8),
    "frames": (frames, labels, 535, 16),
    "formation": (wbm, formation, 488, 32),
    "binaries": (binaries, equation_of_state, 100, 4),
    "calm": (calm_frames, labels, 200, 16),
    "swapped": (swapped_frames, answers, 100, 16),
    "heat": (physical.heat_capacities, physical.heat_capacity, 40, 4),
    "ground": (physical.ground_states, physical.ground_state, 29, 1),
    "hull": (physical.stable_phases, physical.distance_to_hull, 11, 11),
    "steps": (physical.scans, physical.energy_steps, 7, 1),
    "modes": (physical.optical_modes, physical.optical_mode, 2, 2),
}
"""Parts: function that returns the cases, function that measures them, default number of cases, and batch size."""


def measure(contestant: Contestant, part: str, data: Path, cache: Path, count: int | None) -> dict[str, Any]:
    """
    Measure the cases of a part that are not in the cache.

    Returns
    -------
    dict
        ``found``: results by case; ``elements``: elements by case.
    """
    cases_of, function, default, at_once = PARTS[part]
    path = cache / contestant.identity / f"{part}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = json.loads(path.read_text()) if path.exists() else {"found": {}, "elements": {}}
    cases = cases_of(data)[: count or default]
    left = [
        case
        for case in cases
        if case[0] not in kept["found"]
        and (contestant.elements is None or symbols_of(case[1][0]) <= contestant.elements)
    ]
    for start in range(0, len(left), at_once):
        chosen = left[start : start + at_once]
        for name, found in one_by_one(function, contestant, chosen):
            kept["found"][name] = found
        kept["elements"] |= {name: sorted(symbols_of(case[0])) for name, case in chosen}
        new = path.with_suffix(".new")
        new.write_text(json.dumps(kept))
        new.replace(path)
        print(f"{contestant.name} {part}: {start + len(chosen)} of {len(left)}", flush=True)
    names = {name for name, _ in cases}
    return {**kept, "found": {name: found for name, found in kept["found"].items() if name in names}}


def one_by_one(
    function: Callable[..., Iterator[tuple[str, Found]]], contestant: Contestant, chosen: Sequence[Case]
) -> list[tuple[str, Found]]:
    """Measure a batch of cases; if it fails, measure them one by one, and record the error of the failing case."""
    try:
        return list(function(contestant, chosen))
    except Exception as error:  # noqa: BLE001 - any package, any crystal
        if len(chosen) == 1:
            return [(chosen[0][0], {"failed": f"{type(error).__name__}: {error}"[:200]})]
        return [found for case in chosen for found in one_by_one(function, contestant, [case])]


def within(results: Mapping[str, Any], elements: frozenset[str] | None) -> list[Found]:
    """Return the results of successful cases that have only the given elements."""
    return [
        found
        for name, found in results["found"].items()
        if "failed" not in found and (elements is None or set(results["elements"][name]) <= elements)
    ]


def _lengths(some: list[Found]) -> str:
    good = np.abs([f["error"] for f in some if f["state"] == "converged"])
    if not len(good):
        return "–"
    return f"{np.median(good):.2f} / {good.mean():.2f} % ({len(good)} of {len(some)})"


def _mean(some: list[Found], key: str, digits: int) -> str:
    values = np.abs([f[key] for f in some])
    return f"{values.mean():.{digits}f} / {np.median(values):.{digits}f} ({len(values)})" if len(values) else "–"


def _capacities(some: list[Found]) -> str:
    if not some:
        return "–"
    stable = [f["error_per_atom"] for f in some if not f["imaginary"]]
    error = f"{np.abs(stable).mean():.2f} J/K/mol" if stable else "–"
    return f"{error} ({len(stable)} of {len(some)})"


def _right(some: list[Found]) -> str:
    return f"{sum(f['right'] for f in some)} of {len(some)}" if some else "–"


def _near_hull(some: list[Found]) -> str:
    return f"{sum(f['above'] < 1e3 * physical.WINDOW for f in some)} of {len(some)}" if some else "–"


def _largest(some: list[Found], key: str, unit: str) -> str:
    values = [np.inf if f[key] is None else abs(f[key]) for f in some]
    return f"{max(values):.3g} {unit}" if values else "–"


def _moduli(some: list[Found]) -> str:
    pairs = np.array([(f["modulus"], f["reference"]) for f in some if f.get("modulus") and f["reference"] > 0])
    if not len(pairs):
        return "–"
    error = np.abs(pairs[:, 0] - pairs[:, 1])
    relative = 100 * error / pairs[:, 1]
    return f"{np.median(relative):.0f} %, {error.mean():.1f} / {np.median(error):.1f} GPa ({len(pairs)} of {len(some)})"


ROWS: tuple[tuple[str, str, Callable[[list[Found]], str]], ...] = (
    ("elements", "lattice constant, dcdft elements: median / mean (converged)", _lengths),
    ("binaries", "lattice constant, MP binaries: median / mean (converged)", _lengths),
    ("frames", "forces on mpf_tp, eV/Å: mean / median (frames)", lambda some: _mean(some, "force", 3)),
    ("frames", "stress on mpf_tp, GPa: mean / median (frames)", lambda some: _mean(some, "stress", 2)),
    ("formation", "formation energy on WBM, meV/atom: mean / median (crystals)", lambda some: _mean(some, "error", 0)),
    ("binaries", "bulk modulus, MP binaries: median; mean / median (fitted)", _moduli),
    ("heat", "heat capacity per mole of atoms, binaries: mean (without imaginary modes)", _capacities),
    ("ground", "observed ground states", _right),
    ("hull", "stable phases of Li–Fe–O within 50 meV/atom of the hull of MP's entries", _near_hull),
    ("steps", "largest energy step in a scan of the volume", lambda some: _largest(some, "step", "meV/atom")),
    ("modes", "frequency of optical modes at 0.06 Å, from 0.003 Å", lambda some: _largest(some, "change", "%")),
)

ROW_PARTS = {part for part, _, _ in ROWS}


def table(some: Sequence[Contestant], results: Mapping[str, Mapping[str, Any]], parts: Sequence[str]) -> Iterator[str]:
    """Yield the lines of the table: first cases whose elements all our checkpoints cover, then all cases."""
    covered = frozenset.intersection(*[c.elements for c in some if c.elements is not None] or [frozenset()])
    yield f"| | {' | '.join(c.name for c in some)} |"
    yield "|---" * (len(some) + 1) + "|"
    yield f"| parameters | {' | '.join(f'{c.parameters / 1e3:.0f}k' for c in some)} |"
    sets = [(f"the {len(covered)} elements that all our checkpoints cover", covered)] if covered else []
    if any(c.elements is None for c in some):
        sets.append(("all elements, for potentials that cover them", None))
    for title, elements in sets:
        yield f"| *{title}* |{' |' * len(some)}"
        for part, name, cell in ROWS:
            if part in parts:
                cells = [
                    cell(within(results[c.name][part], elements)) if elements or c.elements is None else ""
                    for c in some
                ]
                yield f"| {name} | {' | '.join(cells)} |"


def speed(some: Sequence[Contestant], rounds: int) -> Iterator[str]:
    """Yield the lines of the table with structures per second."""
    cells = {
        "NaCl, 8 atoms": bulk("NaCl", "rocksalt", a=5.69, cubic=True),
        "MgO, 40 atoms": bulk("MgO", "rocksalt", a=4.25, cubic=True).repeat((5, 1, 1)),
    }
    found = rates(some, cells, rounds)
    for label, of_each in found.items():
        for kind, what in (("single", "one per call"), ("batch", "16 per call")):
            told = [f"{m:.1f} ({low:.1f} to {high:.1f})" for m, low, high in (of_each[c.name][kind] for c in some)]
            yield f"| structures per second, {label}, {what} | {' | '.join(told)} |"


def warning_table(some: Sequence[Contestant], results: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yield the lines of a table that relates a checkpoint's extrapolation to its force errors."""
    ours = [c for c in some if "calm" in results[c.name]]
    judges = [c for c in ours if any(f.get("extrapolation") is not None for f in within(results[c.name]["calm"], None))]
    if not judges:
        yield "None of the checkpoints has a training domain, so there is no warning to assess."
        return
    teacher = next((c for c in some if c.name == "7net-0"), None)
    bad = f"error above {BAD_FORCE} eV/Å"
    columns = (
        "checkpoint, frames", "rank correlation with the force error", f"AUC for {bad}", "flagged",
        f"flagged of {bad}", "mean error, flagged / not",
    )  # fmt: skip
    yield f"| {' | '.join(columns)} |"
    yield "|---|---|---|---|---|---|"
    for judge in judges:
        sets = {
            "set aside": pairs(results[judge.name]["calm"]),
            "mpf_tp": pairs(results[judge.name]["frames"]),
        }
        if teacher is not None:
            sets["elements swapped (error: from 7net-0)"] = disagreement(
                results[judge.name]["swapped"], results[teacher.name]["swapped"]
            )
        sets["all of these"] = np.concatenate(list(sets.values()))
        for name, values in sets.items():
            yield f"| {judge.name}, {len(values)} {name} | {verdict(values)} |"


def pairs(results: Mapping[str, Any]) -> np.ndarray:
    """Return extrapolation and force error (eV/Å) of frames, shape (n, 2)."""
    return np.array([(f["extrapolation"], f["force"]) for f in within(results, None)]).reshape(-1, 2)


def disagreement(mine: Mapping[str, Any], others: Mapping[str, Any]) -> np.ndarray:
    """Return extrapolation, and mean difference of the forces from another potential (eV/Å), shape (n, 2)."""
    both = [
        (f, others["found"][name])
        for name, f in mine["found"].items()
        if "forces" in f and "forces" in others["found"].get(name, {})
    ]
    rows = [(f["extrapolation"], np.abs(np.subtract(f["forces"], g["forces"])).mean()) for f, g in both]
    return np.array(rows).reshape(-1, 2)


def verdict(values: np.ndarray) -> str:
    """Return the cells of the table that relate a warning to errors; `values` has shape (n, 2)."""
    if len(values) < 3:
        return "– | – | – | – | –"
    far, error = values.T
    wrong, flagged = error > BAD_FORCE, far > 1
    told = f"{spearmanr(far, error).statistic:.2f} | {area(far, wrong):.2f} | {100 * flagged.mean():.0f} % | "
    told += f"{100 * flagged[wrong].mean():.0f} %" if wrong.any() else "–"
    apart = [f"{error[x].mean():.2f}" if x.any() else "–" for x in (flagged, ~flagged)]
    return f"{told} | {' / '.join(apart)} eV/Å"


def area(score: np.ndarray, positive: np.ndarray) -> float:
    """Area under the ROC curve: the probability that a positive scores above a negative (Mann and Whitney)."""
    n = int(positive.sum())
    if not 0 < n < len(score):
        return float("nan")
    return float((rankdata(score)[positive].sum() - n * (n + 1) / 2) / (n * (len(score) - n)))


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of reference data")
    parser.add_argument("--checkpoint", nargs="*", default=["matris_embedded"], help="keys or files of our checkpoints")
    parser.add_argument("--peers", nargs="*", default=list(PEERS), choices=list(PEERS))
    parser.add_argument("--parts", nargs="*", default=[*PARTS, "speed"], choices=[*PARTS, "speed"])
    parser.add_argument("--count", nargs="*", default=[], metavar="PART=N", help="number of cases of a part")
    parser.add_argument("--cache", type=Path, default=Path("accuracy-results"), help="folder of kept results")
    parser.add_argument("--rounds", type=int, default=7, help="rounds of the speed measurement")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    counts = {part: int(number) for part, _, number in (given.partition("=") for given in options.count)}
    if unknown := set(counts) - set(PARTS):
        parser.error(f"--count: no part {', '.join(unknown)}; there are {', '.join(PARTS)}")
    some = [ours(checkpoint) for checkpoint in options.checkpoint]
    for name in options.peers:
        try:
            some.append(PEERS[name]())
        except ImportError as error:
            print(f"{name} is left out: {error}")
    parts = [part for part in PARTS if part in options.parts]
    results = {
        c.name: {
            part: measure(c, part, options.data, options.cache, counts.get(part))
            for part in parts
            if c.elements is not None or part in ROW_PARTS or (part, c.name) == ("swapped", "7net-0")
        }
        for c in some
    }
    print(f"\n{machine('cpu', options.threads)}, float32\n")
    for line in table(some, results, [part for part in parts if part in ROW_PARTS]):
        print(line)
    if "speed" in options.parts:
        for line in speed(some, options.rounds):
            print(line, flush=True)
    if {"frames", "calm", "swapped"} <= set(parts):
        print()
        for line in warning_table(some, results):
            print(line)


if __name__ == "__main__":
    main()
