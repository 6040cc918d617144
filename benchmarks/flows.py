"""
Compare phonons and elastic tensors with atomate2's flows: ``python benchmarks/flows.py --help``.

atomate2's force-field ``PhononMaker`` and ``ElasticMaker``, with our `RelaxMaker` and `StaticMaker` in them, are
compared with `BatchPhononMaker` and `BatchElasticMaker`. Checkpoint, dtype, force threshold, steps, displacements and
supercells are the same (atomate2's ``make`` gets our supercells). All run by jobflow's ``run_locally`` with a
MemoryStore, each job in its own folder. Times include everything but imports, loading the model (resident on both
sides) and one warm-up run of each flow on a small cell.

No relaxation fixes the symmetry. atomate2's default does, and would refine strained cells, which our `RelaxMaker`
prevents; without it, neither side changes a strained cell, and atomate2's side saves the time.

``--parts physics`` prints the differences of the results (in float64), ``time`` the times of both sides, in alternation
by groups of materials, and ``precision`` the differences between float32 and float64 in our Makers.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
import warnings
from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING, Any

os.environ.setdefault("MPLBACKEND", "Agg")  # atomate2's flow draws

import numpy as np
import torch
from atomate2.forcefields.flows.elastic import ElasticMaker
from atomate2.forcefields.flows.phonons import PhononMaker
from cells import prototypes
from jobflow import JobStore, run_locally
from maggma.stores import MemoryStore
from peers import machine
from phonopy import Phonopy
from phonopy.harmonic.dynmat_to_fc import get_commensurate_points
from phonopy.phonon.band_structure import get_band_qpoints_by_seekpath
from phonopy.structure.atoms import PhonopyAtoms
from pymatgen.core import Structure

import matris
from matris.makers import BatchElasticMaker, BatchPhononMaker, RelaxMaker, StaticMaker
from matris.properties.phonons import supercell_matrix

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jobflow import Flow, Job
    from numpy.typing import NDArray

FLOWS = ("phonons", "elastic")
PHYSICS = ("Si", "NaCl", "MgO", "Mg")
DISPLACEMENT, SYMPREC = 0.01, 1e-3  # Å, both sides' defaults
COMMENSURATE, ENDS, PATH = "commensurate points", "high-symmetry points", "path"


@dataclass(frozen=True)
class Settings:
    """Settings of both sides."""

    checkpoint: str | None
    device: str
    dtype: str
    fmax: float
    steps: int
    min_length: float

    @property
    def where(self) -> dict[str, str | None]:
        return {"checkpoint": self.checkpoint, "device": self.device, "dtype": self.dtype}

    def relaxation(self, *, cell: bool) -> RelaxMaker:
        """Make the relaxation Maker for atomate2's flows."""
        return RelaxMaker(relax_cell=cell, steps=self.steps, relax_kwargs={"fmax": self.fmax}, **self.where)


def outputs(job: Job | Flow) -> dict[str, Any]:
    """Run a job or flow; return the last output of each job, by name."""
    store = JobStore(MemoryStore(), additional_stores={"data": MemoryStore()})
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        responses = run_locally(job, store=store, log=False, create_folders=True, root_dir=folder)
    names = {j.uuid: j.name for j in getattr(job, "jobs", [job])}
    return {names.get(uuid, uuid): r[max(r)].output for uuid, r in responses.items()}


def our_phonons(structures: Sequence[Structure], settings: Settings) -> list[Any]:
    """Return the phonon documents of one job; None for a material without phonons."""
    maker = BatchPhononMaker(
        fmax=settings.fmax, max_steps=settings.steps, min_length=settings.min_length, displacement=DISPLACEMENT,
        symprec=SYMPREC, **settings.where,
    )  # fmt: skip
    (found,) = outputs(maker.make(list(structures))).values()
    return [d if d.force_constants else None for d in found.documents]


def our_tensors(structures: Sequence[Structure], settings: Settings) -> list[Any]:
    """Return the elastic documents of one job; None for a material without a tensor."""
    maker = BatchElasticMaker(fmax=settings.fmax, max_steps=settings.steps, **settings.where)
    (found,) = outputs(maker.make(list(structures))).values()
    return [d if d.elastic_tensor else None for d in found.documents]


def their_phonons(structure: Structure, matrix: Any, settings: Settings) -> Any:
    """Return atomate2's phonon document, or None."""
    static = StaticMaker(**settings.where)
    maker = PhononMaker(
        bulk_relax_maker=settings.relaxation(cell=True), static_energy_maker=static, phonon_displacement_maker=static,
        displacement=DISPLACEMENT, symprec=SYMPREC,
    )  # fmt: skip
    found = outputs(maker.make(structure, supercell_matrix=np.asarray(matrix).tolist()))
    return found.get("generate_frequencies_eigenvectors")


def their_tensor(structure: Structure, settings: Settings) -> Any:
    """Return atomate2's elastic document, or None."""
    makers = {
        "bulk_relax_maker": settings.relaxation(cell=True),
        "elastic_relax_maker": settings.relaxation(cell=False),
    }
    return outputs(ElasticMaker(**makers).make(structure)).get("fit_elastic_tensor")


def spectrum(structure: Structure, matrix: Any, primitive: Any, force_constants: Any) -> Phonopy:
    """Make a Phonopy object with unchanged force constants."""
    cell = PhonopyAtoms(
        symbols=[site.specie.symbol for site in structure],
        cell=structure.lattice.matrix,
        scaled_positions=structure.frac_coords,
    )
    phonopy = Phonopy(cell, supercell_matrix=matrix, primitive_matrix=primitive, symprec=SYMPREC)
    phonopy.force_constants = np.array(force_constants)
    return phonopy


def ours_of(document: Any) -> Phonopy:
    """Make a Phonopy object from our document."""
    structure = Structure.from_dict(document.structure)
    return spectrum(structure, document.supercell_matrix, document.primitive_matrix, document.force_constants)


def theirs_of(document: Any) -> Phonopy:
    """Make a Phonopy object from atomate2's document."""
    constants = document.force_constants.force_constants
    return spectrum(document.structure, document.supercell_matrix, document.primitive_matrix, constants)


def qpoints(phonopy: Phonopy) -> dict[str, NDArray[np.float64]]:
    """Return the wave vectors at which frequencies are compared, by name."""
    inner = np.linalg.inv(phonopy.primitive_matrix) @ phonopy.supercell_matrix
    path = get_band_qpoints_by_seekpath(phonopy.primitive, 51)[0]
    return {
        COMMENSURATE: get_commensurate_points(inner.round().astype(int)),
        ENDS: np.array([q for segment in path for q in (segment[0], segment[-1])]),
        PATH: np.concatenate(path),
    }


def apart(one: Phonopy, other: Phonopy) -> dict[str, float]:
    """
    Return the largest differences of sorted frequencies (THz), by name of the wave vectors.

    Raises
    ------
    ValueError
        If the primitive cells have different volumes.
    """
    if not np.isclose(one.primitive.volume, other.primitive.volume, rtol=1e-2):
        raise ValueError("the primitive cells differ")
    turn = (
        np.linalg.inv(one.primitive.cell).T @ other.primitive.cell.T
    )  # the same wave vectors, in the other reciprocal basis
    return {
        where: float(np.abs(one.run_qpoints(q).frequencies - other.run_qpoints(q @ turn).frequencies).max())
        for where, q in qpoints(one).items()
    }


def physics(structures: dict[str, Structure], settings: Settings) -> None:
    """Print the differences between both sides."""
    print("| material | elastic tensor, relative to the largest constant: standard axes | own axes | "
          f"phonons, THz: {COMMENSURATE} | {ENDS} | {PATH} | path, both symmetrised | "
          "acoustic at Γ, THz: ours | atomate2's |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|")
    for name, structure in structures.items():
        (phonons,), (tensor,) = our_phonons([structure], settings), our_tensors([structure], settings)
        if phonons is None or tensor is None:
            print(f"| {name} | our Makers failed |")
            continue
        one, other = ours_of(phonons), theirs_of(their_phonons(structure, phonons.supercell_matrix, settings))
        theirs = their_tensor(structure, settings).elastic_tensor
        elastic = [
            np.abs(np.subtract(tensor.elastic_tensor[kind], found)).max() / np.abs(found).max()
            for kind, found in (("ieee_format", theirs.ieee_format), ("raw", theirs.raw))
        ]
        found = apart(one, other)
        gamma = [np.abs(p.run_qpoints([[0, 0, 0]]).frequencies[0, :3]).max() for p in (one, other)]
        other.symmetrize_force_constants(show_drift=False)
        row = [
            *(f"{100 * x:.3f} %" for x in elastic),
            *(f"{x:.4f}" for x in (*found.values(), apart(one, other)[PATH])),
        ]
        print(f"| {name} | {' | '.join(row)} | {gamma[0]:.1e} | {gamma[1]:.1e} |", flush=True)


def timed[T](function: Callable[..., T], *arguments: object) -> tuple[T, float]:
    """Call a function; return its result and the wall time (s)."""
    started = time.perf_counter()
    result = function(*arguments)
    return result, time.perf_counter() - started


def warm_up(structure: Structure, settings: Settings) -> None:
    """Run everything once on a small cell, so that code that is loaded on first use (plots, kernels) is not timed."""
    our_phonons([structure], settings)
    our_tensors([structure], settings)
    their_phonons(structure, supercell_matrix(structure, settings.min_length, SYMPREC), settings)
    their_tensor(structure, settings)


def compare_times(structures: list[Structure], group: int, flows: Sequence[str], settings: Settings) -> None:
    """Print the times of both sides for the same materials."""
    seconds: dict[tuple[str, str], list[float]] = {
        (k, s): [] for k in ("phonons", "elastic") for s in ("ours", "theirs")
    }
    out: dict[tuple[str, str], int] = dict.fromkeys(seconds, 0)

    def count(kind: str, side: str, documents: Sequence[Any], took: float) -> None:
        seconds[kind, side].append(took)
        out[kind, side] += sum(document is not None for document in documents)

    parts = [structures[start : start + group] for start in range(0, len(structures), group)]
    for part in parts if "phonons" in flows else []:
        documents, took = timed(our_phonons, part, settings)
        count("phonons", "ours", documents, took)
        matrices = [
            d.supercell_matrix if d else supercell_matrix(s, settings.min_length, SYMPREC)
            for s, d in zip(part, documents, strict=True)
        ]
        each = zip(part, matrices, strict=True)
        count("phonons", "theirs", *timed(lambda each: [their_phonons(s, m, settings) for s, m in each], each))
    for part in parts if "elastic" in flows else []:
        count("elastic", "ours", *timed(our_tensors, part, settings))
        count("elastic", "theirs", *timed(lambda part: [their_tensor(s, settings) for s in part], part))
    print(
        "| flow | materials | succeeded: batch Makers | atomate2's flow | batch Makers, s | atomate2's flow, s | "
        "atomate2 / batch, by group: median | range |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for kind in flows:
        ours, theirs = seconds[kind, "ours"], seconds[kind, "theirs"]
        ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
        print(f"| {kind} | {len(structures)} | {out[kind, 'ours']} | {out[kind, 'theirs']} | {sum(ours):.0f} | "
              f"{sum(theirs):.0f} | {median(ratios):.1f} | {min(ratios):.1f} to {max(ratios):.1f} |")  # fmt: skip


def precision(structures: dict[str, Structure], settings: Settings) -> None:
    """Print the differences between float32 and float64 in our Makers."""
    single, double = (replace(settings, dtype=dtype) for dtype in ("float32", "float64"))
    cells = list(structures.values())
    tensors, phonons, seconds = {}, {}, {}
    for chosen in (single, double):
        matris.load(chosen.checkpoint, device=chosen.device, dtype=chosen.dtype)
        phonons[chosen], first = timed(our_phonons, cells, chosen)
        tensors[chosen], second = timed(our_tensors, cells, chosen)
        seconds[chosen] = first + second
    print("| material | states in float32: phonons, elastic | elastic tensor, relative to the largest constant "
          f"| phonons, THz: {COMMENSURATE} | {ENDS} | {PATH} |")  # fmt: skip
    print("|---|---|---|---|---|---|")
    for number, name in enumerate(structures):
        found = [answers[chosen][number] for answers in (tensors, phonons) for chosen in (single, double)]
        if None in found:
            print(f"| {name} | failed |")
            continue
        small, large, one, other = found
        stiff = np.array(large.elastic_tensor["ieee_format"])
        elastic = np.abs(small.elastic_tensor["ieee_format"] - stiff).max() / np.abs(stiff).max()
        row = " | ".join(f"{x:.4f}" for x in apart(ours_of(one), ours_of(other)).values())
        print(f"| {name} | {one.state}, {small.state} | {100 * elastic:.3f} % | {row} |")
    print(f"\n{seconds[single]:.0f} s in float32, {seconds[double]:.0f} s in float64; the numbers of steps may differ")


def main() -> None:
    """Print tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", default=["physics", "time"], choices=["physics", "time", "precision"])
    parser.add_argument("--checkpoint", help="key or file; default: the embedded checkpoint")
    parser.add_argument("--count", type=int, default=20, help="number of materials that are timed")
    parser.add_argument("--flows", nargs="+", default=FLOWS, choices=FLOWS, help="flows that are timed")
    parser.add_argument("--group", type=int, default=5, help="number of materials in a group")
    parser.add_argument("--materials", nargs="+", default=PHYSICS, help="formulas for physics and precision")
    parser.add_argument(
        "--min-length", type=float, default=10.0, help="minimum distance between opposite faces of the supercell (Å)"
    )
    parser.add_argument("--fmax", type=float, default=1e-4, help="force threshold (eV/Å); for physics at most 1e-5")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--dtype", default="float32", choices=["float32", "float64"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.filterwarnings("ignore")
    settings = Settings(
        options.checkpoint, options.device, options.dtype, options.fmax, options.steps, options.min_length
    )
    potential = matris.load(options.checkpoint, device=options.device, dtype=options.dtype)
    known = {f: s for f, s in prototypes().items() if {e.symbol for e in s.composition} <= set(potential.elements)}
    potential.predict(known["Si"])
    print(
        f"{potential.card.key}, {machine(options.device, options.threads)}, {options.dtype}, supercells of "
        f"{options.min_length:g} Å, fmax {options.fmax:g} eV/Å, at most {options.steps} steps"
    )
    chosen = {formula: known[formula] for formula in options.materials}
    if "physics" in options.parts:
        tight = replace(settings, fmax=min(options.fmax, 1e-5), dtype="float64")
        print(f"\n## Physics: batch Makers and atomate2's flows, float64, fmax {tight.fmax:g} eV/Å\n")
        physics(chosen, tight)
    if "time" in options.parts:
        print("\n## Time\n")
        warm_up(known["Al"], replace(settings, min_length=5.0))
        compare_times(list(known.values())[: options.count], options.group, options.flows, settings)
    if "precision" in options.parts:
        print("\n## Precision: float32 and float64, batch Makers\n")
        precision(chosen, settings)


if __name__ == "__main__":
    main()
