"""
Equilibrium structures, formation energies, moduli, heat capacities and softening, at MatCalc's protocols.

The protocols are those of ``matcalc.benchmark`` (materialsvirtuallab/matcalc, 2025-11):

* equilibrium: atoms move by 0.1 Å at random, the crystal relaxes to 0.05 eV/Å; d is the distance of fingerprints of the
  sites, E_f refers to elements relaxed by the contestant, where their structures are in the folder, else to DFT's;
* elasticity: relaxed to 0.05 eV/Å, strained by ±0.5, ±1 % and sheared by ±3, ±6 %, atoms clamped, stress of the
  relaxed cell subtracted, Voigt-Reuss-Hill;
* heat capacity at 300 K: relaxed to 0.05 eV/Å, displacements of 0.015 Å in 2×2×2 cells;
* softening: slope of the forces in those of DFT, for structures of high energy.
"""

from __future__ import annotations

import random
from importlib.util import find_spec
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, Any

import numpy as np
from pymatgen.analysis.elasticity.elastic import ElasticTensor
from pymatgen.analysis.elasticity.strain import DeformedStructureSet, Strain
from pymatgen.analysis.elasticity.stress import Stress

from matris.boards.board import Board, mean
from matris.boards.elements import element_energies, find_elements
from matris.boards.fingerprints import fingerprint_distance
from matris.boards.phonons import Harmonic, computed
from matris.boards.published import MATCALC
from matris.boards.rows import read_rows
from matris.errors import BoardError
from matris.properties.groups import Relaxer
from matris.units import GPA

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping
    from pathlib import Path

    from pymatgen.core import Structure

    from matris.boards.board import Job, Metrics, Values

_FMAX, _STEPS = 0.05, 500
_PERTURBATION = 0.1  # Å
_SEED = 0
_NORMAL, _SHEAR = (-0.01, -0.005, 0.005, 0.01), (-0.06, -0.03, 0.03, 0.06)
_DISPLACEMENT, _REPEATS = 0.015, 2 * np.eye(3, dtype=np.int64)
_COLUMNS = {
    "equilibrium": ("structure", "formation_energy_per_atom"),
    "elasticity": ("structure", "bulk_modulus_vrh", "shear_modulus_vrh"),
    "phonon": ("structure", "heat_capacity"),
}


def _read(data: Path) -> dict[str, Any]:
    """Read the sets that the folder holds; the keys begin with the name of the set, sets take turns."""
    if not data.is_dir():
        raise BoardError("matcalc needs a folder: --data DIR")
    sets = []
    for name, columns in _COLUMNS.items():
        for path in sorted(data.glob(f"*{name}*.json*")):
            rows = read_rows(path, columns)
            ids = [str(row.get("mp_id") or row.get("material_id") or number) for number, row in enumerate(rows)]
            sets.append([(f"{name}/{key}", row) for key, row in zip(ids, rows, strict=True)])
    sets += [list(_softening(path)) for path in sorted(data.glob("*high-energy-states*.json*"))]
    if not sets:
        raise BoardError(f"{data} holds no *equilibrium*, *elasticity*, *phonon* or *high-energy-states* file")
    elements = find_elements(data) if any(key.startswith("equilibrium/") for key, _ in chain(*sets)) else None
    items = dict(item for turn in zip_longest(*sets) for item in turn if item is not None)
    for key, item in items.items():
        if key.startswith("equilibrium/"):
            item["elements"] = elements
    return items


def _softening(path: Path) -> Generator[tuple[str, Any]]:
    """Read the frames of each material: {material: {frame: {structure, vasp_f}}}."""
    from monty.serialization import loadfn

    for key, frames in loadfn(path).items():
        yield f"softening/{key}", [(frame["structure"], np.asarray(frame["vasp_f"])) for frame in frames.values()]


def _compute(job: Job, items: Mapping[str, Any]) -> Generator[tuple[str, Values]]:
    """Compute each set in turn."""
    kinds: dict[str, Callable[[Job, dict[str, Any]], Generator[tuple[str, Values]]]] = {
        "equilibrium": _equilibrium,
        "elasticity": _elasticity,
        "phonon": _heat_capacity,
        "softening": _forces,
    }
    for name, function in kinds.items():
        if chosen := {key: item for key, item in items.items() if key.partition("/")[0] == name}:
            yield from function(job, chosen)


def _equilibrium(job: Job, items: dict[str, Any]) -> Generator[tuple[str, Values]]:
    relaxer = Relaxer(job.contestant.model, _FMAX, _STEPS, job.folder, progress=job.progress)
    symbols = {str(element) for item in items.values() for element in item["structure"].composition}
    energies = element_energies(job, next(iter(items.values()))["elements"], symbols)
    records = relaxer.materials(perturbed(item["structure"], key) for key, item in items.items())
    for (key, item), record in zip(items.items(), records, strict=True):
        if record.structure is None or record.energy is None:
            yield key, {"error": record.error}
            continue
        composition = record.structure.composition
        if lacking := [str(element) for element in composition if str(element) not in energies]:
            yield key, {"error": f"no reference energy of {', '.join(lacking)}"}
            continue
        elements = sum(energies[str(element)] * amount for element, amount in composition.items())
        yield (
            key,
            {
                "e_form": (record.energy - elements) / len(record.structure),
                "d": fingerprint_distance(record.structure, item["structure"]),
                "state": record.state,
            },
        )


def perturbed(structure: Structure, key: str) -> Structure:
    """Move the atoms by 0.1 Å in random directions that follow from the key."""
    moved = structure.copy()
    directions = np.random.default_rng(random.Random(f"{_SEED} {key}").getrandbits(64)).normal(size=(len(moved), 3))
    for index, direction in enumerate(directions):
        moved.translate_sites([index], _PERTURBATION * direction / np.linalg.norm(direction), frac_coords=False)
    return moved


def _elasticity(job: Job, items: dict[str, Any]) -> Generator[tuple[str, Values]]:
    model = job.contestant.model
    starts = Relaxer(model, _FMAX, _STEPS, job.folder, progress=job.progress).materials(
        item["structure"] for item in items.values()
    )
    sets = [
        DeformedStructureSet(start.structure, _NORMAL, _SHEAR) if start.structure is not None else None
        for start in starts
    ]
    still = Relaxer(model, _FMAX, 0, job.folder, progress=job.progress)
    groups = still.groups([list(each) if each else [] for each in sets])
    for key, start, strained, cells in zip(items, starts, sets, groups, strict=True):
        problem = start.error or next((cell.error for cell in cells if cell.error), None)
        if strained is None or problem:
            yield key, {"error": problem}
            continue
        tensor = ElasticTensor.from_independent_strains(
            [Strain.from_deformation(deformation) for deformation in strained.deformations],
            [Stress(cell.stress) for cell in cells],
            eq_stress=Stress(start.stress),
        )
        yield key, {"k": float(tensor.k_vrh) * GPA, "g": float(tensor.g_vrh) * GPA, "state": start.state}


def _heat_capacity(job: Job, items: dict[str, Any]) -> Generator[tuple[str, Values]]:
    crystals = [Harmonic(item["structure"], _REPEATS) for item in items.values()]
    results = computed(job, crystals, fmax=_FMAX, displacement=_DISPLACEMENT)
    for (key, item), (result, error) in zip(items.items(), results, strict=True):
        if result is None:
            yield key, {"error": error}
        else:  # of the given cell
            yield key, {"c_v": result["heat_capacity"] * len(item["structure"]) / result["n_atoms"]}


def _forces(job: Job, items: dict[str, Any]) -> Generator[tuple[str, Values]]:
    still = Relaxer(job.contestant.model, _FMAX, 0, job.folder, progress=job.progress)
    groups = still.groups([[structure for structure, _ in frames] for frames in items.values()])
    for (key, frames), cells in zip(items.items(), groups, strict=True):
        if problem := next((cell.error for cell in cells if cell.forces is None), None):
            yield key, {"error": problem}
            continue
        given = np.concatenate([forces.ravel() for _, forces in frames])
        found = np.concatenate([cell.forces.ravel() for cell in cells if cell.forces is not None])
        yield key, {"softening": float(given @ found / (given @ given))}  # least squares through the origin


def _score(items: Mapping[str, Any], results: Mapping[str, Values]) -> Metrics:
    """MatCalc's columns: mean d, mean absolute errors, mean slope; and how many items each has."""

    def errors(kind: str, value: str, reference: str) -> list[float]:
        return [
            abs(values[value] - items[key][reference])
            for key, values in results.items()
            if key.startswith(f"{kind}/") and values.get(value) is not None
        ]

    columns = {
        "d": [values["d"] for values in results.values() if values.get("d") is not None],
        "e_form_mae [eV/atom]": errors("equilibrium", "e_form", "formation_energy_per_atom"),
        "k_mae [GPa]": errors("elasticity", "k", "bulk_modulus_vrh"),
        "g_mae [GPa]": errors("elasticity", "g", "shear_modulus_vrh"),
        "c_v_mae [J/K/mol]": errors("phonon", "c_v", "heat_capacity"),
        "softening": [values["softening"] for values in results.values() if "softening" in values],
    }
    metrics: Metrics = {name: mean(each) for name, each in columns.items()}
    return metrics | {f"n {name.partition(' ')[0]}": len(each) for name, each in columns.items()}


def _remarks(items: Mapping[str, Any]) -> list[str]:
    """Say what differs from MatCalc's numbers."""
    remarks = []
    first = next((item for key, item in items.items() if key.startswith("equilibrium/")), None)
    if first is not None and find_spec("matminer") is None:
        remarks.append("d is missing: matminer, which computes the fingerprints, is not installed")
    if first is not None and any(isinstance(value, float) for value in first["elements"].values()):
        remarks.append("formation energies refer to DFT's elements; MatCalc's to elements that the potential relaxed")
    return remarks


MATCALC_BOARD = Board(
    name="matcalc",
    about="structure, formation energy, moduli, heat capacity, softening against DFT (MatCalc, MatPES)",
    data="a folder of MatCalc's benchmark files: *equilibrium*, *elasticity*, *phonon*, *high-energy-states*.json.gz",
    files=tuple(
        f"*{name}*.json*" for name in ("equilibrium", "elasticity", "phonon", "high-energy-states", "lement*ef")
    ),
    remarks=_remarks,
    read=_read,
    compute=_compute,
    score=_score,
    settings={
        "fmax": _FMAX,
        "perturbation": _PERTURBATION,
        "normal_strains": list(_NORMAL),
        "shear_strains": list(_SHEAR),
        "displacement": _DISPLACEMENT,
        "repeats": 2,
    },
    published=MATCALC,
    tolerance={
        "d": 0.02,
        "e_form_mae [eV/atom]": 0.005,
        "k_mae [GPa]": 1.5,
        "g_mae [GPa]": 1.5,
        "c_v_mae [J/K/mol]": 1.0,
        "softening": 0.02,
    },
)
