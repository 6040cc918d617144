"""
Harmonic phonons against DFT: the MDR set, or the heat capacities of Alexandria.

The protocol for MDR is that of A. Loew and others, npj Comput. Mater. 11, 178 (2025), as fairchem's
``run_mdr_phonon_benchmark`` has it: the primitive cell relaxes to 0.005 eV/Å, displacements of 0.01 Å in the
reference's supercell, the highest frequency at the wave vectors commensurate with it, thermal properties on a mesh of
20³. No long-range correction on either side.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.units import _hplanck, _k
from phonopy import load as load_phonopy
from phonopy.harmonic.dynmat_to_fc import get_commensurate_points

from matris.boards.board import Board, mean
from matris.boards.published import PHONONS
from matris.boards.rows import read_rows
from matris.errors import BoardError
from matris.properties.groups import Relaxer, UnusableCellError, check_cells, derive
from matris.properties.phonons import PhononRecord, PhononSettings, displaced, find_force_constants, to_structure

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from phonopy import Phonopy
    from pymatgen.core import Structure

    from matris.boards.board import Job, Metrics, Values
    from matris.relaxation.records import RelaxRecord

TEMPERATURE = 300.0  # K
_MESH = (20, 20, 20)
_KELVIN = _hplanck * 1e12 / _k
"""Kelvin per THz."""
_FMAX, _STEPS = 0.005, 500
_DISPLACEMENT = 0.01  # Å
_QUANTITIES = ("max_frequency", "entropy", "free_energy", "heat_capacity")
_UNITS = {"max_frequency": "K", "entropy": "J/K/mol", "free_energy": "kJ/mol", "heat_capacity": "J/K/mol"}


@dataclass(frozen=True, eq=False)
class Harmonic:
    """
    A crystal whose harmonic phonons are computed.

    Attributes
    ----------
    structure
        The cell.
    matrix
        Supercell matrix in phonopy's convention; None for supercells of at least 12 Å.
    """

    structure: Structure
    matrix: NDArray[np.int64] | None = None


def harmonic(phonopy: Phonopy) -> dict[str, float]:
    """
    Compute what the board compares, from force constants.

    Returns
    -------
    dict
        ``max_frequency`` (K) at commensurate wave vectors; ``entropy`` and ``heat_capacity`` (J/K/mol) and
        ``free_energy`` (kJ/mol) at 300 K of the primitive cell, whose number of atoms is ``n_atoms``;
        ``min_frequency`` (THz) on the mesh. Imaginary modes have no part in the thermal properties.
    """
    cells = np.linalg.inv(phonopy.primitive_matrix) @ phonopy.supercell_matrix
    points = get_commensurate_points(cells.round().astype(int))
    highest = max(float(phonopy.get_frequencies(q).max()) for q in points)
    mesh = phonopy.run_mesh(_MESH)
    phonopy.run_thermal_properties(temperatures=[TEMPERATURE])
    thermal = phonopy.get_thermal_properties_dict()
    return {
        "max_frequency": highest * _KELVIN,
        "entropy": float(thermal["entropy"][0]),
        "free_energy": float(thermal["free_energy"][0]),
        "heat_capacity": float(thermal["heat_capacity"][0]),
        "n_atoms": len(phonopy.primitive),
        "min_frequency": float(mesh.frequencies.min()),
    }


def computed(
    job: Job, crystals: Sequence[Harmonic], *, fmax: float, displacement: float
) -> list[tuple[dict[str, float] | None, str | None]]:
    """
    Relax crystals and compute their phonons, all displaced supercells together.

    Returns
    -------
    list of tuple
        For each crystal the results of `harmonic`, or None and the reason.
    """
    settings = PhononSettings(displacement=displacement)
    relaxer = Relaxer(job.contestant.model, fmax, _STEPS, job.folder, progress=job.progress)
    found: dict[int, dict[str, float]] = {}

    def plan(start: RelaxRecord) -> tuple[Phonopy, list[Structure]]:
        if start.structure is None:
            raise UnusableCellError(str(start.error))
        return displaced(start.structure, settings, crystals[start.index].matrix)

    def compute(plans: Sequence[tuple[Phonopy, list[Structure]] | None]) -> list[list[RelaxRecord]]:
        still = Relaxer(job.contestant.model, fmax, 0, job.folder, progress=job.progress)
        return still.groups([each[1] if each else [] for each in plans])

    def analyse(
        start: RelaxRecord, plan: tuple[Phonopy, list[Structure]], cells: Sequence[RelaxRecord]
    ) -> PhononRecord:
        check_cells(cells, ["the supercell", *(f"displacement {i}" for i in range(1, len(cells)))])
        find_force_constants(plan[0], [cell.forces for cell in cells if cell.forces is not None])
        found[start.index] = harmonic(plan[0])
        return PhononRecord(index=start.index, state="converged", structure=start.structure)

    starts = relaxer.materials([crystal.structure for crystal in crystals])
    records = derive(PhononRecord, starts, plan, compute, analyse)
    return [(found.get(record.index), record.error) for record in records]


def _read(data: Path) -> dict[str, Any]:
    """List the phonopy files of the set, or the rows of Alexandria's file."""
    if data.is_file():
        return {row["mp_id"]: row for row in read_rows(data, ("mp_id", "structure", "heat_capacity"))}
    files = sorted(path for suffix in ("yaml", "yaml.xz", "yaml.bz2", "yaml.gz") for path in data.glob(f"*.{suffix}"))
    if not files:
        raise BoardError(f"{data} holds no phonopy files (*.yaml, *.yaml.bz2, *.yaml.xz)")
    return {path.name.partition(".")[0]: path for path in files}


def _compute(job: Job, items: Mapping[str, Any]) -> Generator[tuple[str, Values]]:
    """Compute the references that come as force constants, and the phonons of the contestant."""
    crystals, references = dict[str, Harmonic](), dict[str, dict[str, float]]()
    for key, item in items.items():
        if isinstance(item, dict):
            crystals[key] = Harmonic(item["structure"])
            references[key] = {"heat_capacity": item["heat_capacity"], "n_atoms": len(item["structure"])}
            continue
        try:
            reference = load_phonopy(item, is_nac=False, log_level=0)
            references[key] = harmonic(reference)
        except Exception as error:  # noqa: BLE001 - one bad file must not stop the others
            yield key, {"error": f"{item.name}: {type(error).__name__}: {error}"}
            continue
        crystals[key] = Harmonic(to_structure(reference.unitcell), np.asarray(reference.supercell_matrix))
    results = computed(job, list(crystals.values()), fmax=_FMAX, displacement=_DISPLACEMENT)
    for key, (result, reason) in zip(crystals, results, strict=True):
        yield key, {"error": reason} if result is None else {**result, "reference": references[key]}


def _score(_: Mapping[str, Any], results: Mapping[str, Values]) -> Metrics:
    """Mean absolute errors, per cell of the reference."""
    good = [values for values in results.values() if not values.get("error")]
    errors: dict[str, list[float]] = {name: [] for name in _QUANTITIES}
    for values in good:
        reference = values["reference"]
        for name in set(_QUANTITIES) & set(reference):
            cells = 1.0 if name == "max_frequency" else reference["n_atoms"] / values["n_atoms"]
            errors[name].append(abs(values[name] * cells - reference[name]))
    metrics: Metrics = {f"{name}_mae [{_UNITS[name]}]": mean(each) for name, each in errors.items()}
    unstable = sum(values["min_frequency"] < -0.1 for values in good)  # noqa: PLR2004 - THz
    return metrics | {"crystals": len(good), "unstable": unstable}


PHONONS_BOARD = Board(
    name="phonons",
    about="highest frequency, entropy, free energy and heat capacity at 300 K against DFT (MDR)",
    data="a folder of phonopy files with force constants or forces (MDR: ID.yaml.bz2), or Alexandria's heat capacities",
    files=("*.yaml", "*.yaml.xz", "*.yaml.bz2", "*.yaml.gz"),
    read=_read,
    compute=_compute,
    score=_score,
    settings={"fmax": _FMAX, "displacement": _DISPLACEMENT, "mesh": list(_MESH), "temperature": TEMPERATURE},
    published=PHONONS,
    tolerance={f"{name}_mae [{_UNITS[name]}]": 1.0 for name in _QUANTITIES},
    chunk=50,
)
