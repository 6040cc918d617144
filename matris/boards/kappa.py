"""
Lattice thermal conductivities of 103 binary compounds at 300 K against DFT: Matbench Discovery's phonon task.

Metrics are those of its module ``metrics/phonons.py``, after B. Póta and others, arXiv:2408.00755; the property is
`matris.properties.conductivity`.
"""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ase.io
import numpy as np
from ase.data import atomic_numbers, covalent_radii
from moyopy import MoyoDataset
from moyopy.interface import MoyoAdapter
from pymatgen.core import Composition, Lattice, Structure

from matris.boards.board import Board, mean
from matris.boards.published import KAPPA
from matris.errors import BoardError
from matris.properties.conductivity import ConductivitySettings, conductivity
from matris.structures import to_structure

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from matris.boards.board import Job, Metrics, Values

WORST = 2.0
"""SRME and SRE of a crystal without a result."""
_TEMPERATURE, _FMAX, _STEPS, _DISPLACEMENT = 300.0, 1e-4, 500, 0.03
_DISPLACEMENTS = {"chgnet-0.3.0": 0.01}  # Å, of published rows that have another one
_CUBIC = ((4, 4, 4), (2, 2, 2), (19, 19, 19))
_HEXAGONAL = ((5, 5, 3), (3, 3, 2), (19, 19, 15))
"""
Supercells of second and third order (A. Togo, L. Chaput, I. Tanaka, Phys. Rev. B 91, 094306 (2015)), and mesh (of
autoWTE, the program that wrote the board's structures).
"""
_GAMMA, _WURTZITE_U = 186, 0.375

type Cells = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True, eq=False)
class KappaItem:
    """
    One crystal.

    Attributes
    ----------
    structure, space_group
        Conventional cell, and its number.
    cells
        Supercells of second and third order, and mesh.
    kappa
        DFT's conductivity, W/m/K: a third of the trace.
    modes
        DFT's contributions of the modes to it, shape (q, m); None if they are not at hand.
    """

    structure: Structure
    space_group: int
    cells: Cells
    kappa: float
    modes: NDArray[np.float64] | None = None


def prototype(formula: str, space_group: int) -> Structure:
    """
    Conventional cell of rock salt (225), zinc blende (216) or wurtzite (186) with bonds as long as covalent radii say.

    Examples
    --------
    >>> [len(prototype("MgO", group)) for group in (225, 216, 186)]
    [8, 8, 4]
    """
    elements = [str(element) for element in Composition(formula)]
    bond = sum(float(covalent_radii[atomic_numbers[element]]) for element in elements)
    if space_group == _GAMMA:
        lattice = Lattice.hexagonal(bond * (8 / 3) ** 0.5, bond * 8 / 3)
        return Structure.from_spacegroup(186, lattice, elements, [[1 / 3, 2 / 3, 0], [1 / 3, 2 / 3, _WURTZITE_U]])
    edges = {225: (2.0, 0.5), 216: (4 / 3**0.5, 0.25)}
    if space_group not in edges:
        raise BoardError(f"{formula}: space group {space_group} is not 225, 216 or 186")
    edge, other = edges[space_group]
    return Structure.from_spacegroup(space_group, Lattice.cubic(bond * edge), elements, [[0, 0, 0], [other] * 3])


def _read(data: Path) -> dict[str, Any]:
    """Read conductivities; structures and modes of the board, where the folder has them."""
    folder = data if data.is_dir() else data.parent
    analysis = data if data.is_file() else next(iter(sorted(folder.glob("kappa*103*.json.gz"))), None)
    if analysis is None:
        raise BoardError(f"{folder} has no kappa*103*.json.gz: ids, formulas, space groups and conductivities")
    content = json.loads(gzip.decompress(analysis.read_bytes()))
    names = ("material_ids", "formulas", "space_groups", "kappa_dft")
    if missing := [name for name in names if name not in content]:
        raise BoardError(f"{analysis} has no {', '.join(missing)}")
    structures = _structures(folder) if data.is_dir() else {}
    modes = _modes(folder) if data.is_dir() else {}
    items = {}
    for key, formula, group, kappa in zip(*(content[name] for name in names), strict=True):
        structure, cells = structures.get(key) or (
            prototype(formula, group),
            _HEXAGONAL if group == _GAMMA else _CUBIC,
        )
        items[key] = KappaItem(structure, group, cells, kappa, modes.get(key))
    return items


def _structures(folder: Path) -> dict[str, tuple[Structure, Cells]]:
    """Read the board's structures, which name their supercells."""
    found = {}
    for path in folder.glob("*phononDB-PBE-103-structures*.extxyz"):
        for atoms in ase.io.read(path, ":"):
            info = atoms.info
            second, third = (np.asarray(info[name]) for name in ("fc2_supercell", "fc3_supercell"))
            for matrix in (second, third):
                if matrix.ndim > 1 and np.any(matrix != np.diag(np.diag(matrix))):
                    raise BoardError(f"{path}: {atoms.symbols} has a supercell that is not diagonal")
            repeats = [np.diag(matrix) if matrix.ndim > 1 else matrix for matrix in (second, third)]
            mesh = info.get("q_point_mesh", info.get("q_mesh"))
            atoms.calc, atoms.info = None, {}
            cells = tuple(tuple(int(number) for number in numbers) for numbers in (*repeats, mesh))
            found[str(info.get("material_id", info.get("mp_id")))] = (to_structure(atoms), cells)
    return found  # type: ignore[return-value] # three tuples


def _modes(folder: Path) -> dict[str, NDArray[np.float64]]:
    """Read DFT's modes from the board's file: pandas' JSON, by columns."""
    found = {}
    for path in folder.glob("*kappas-phononDB-PBE-noNAC*.json*"):
        text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        columns = json.loads(text)
        ids = columns.get("material_id") or columns["mp_id"]
        weights = columns.get("mode_weights") or columns["weights"]
        for row, key in ids.items():
            if "mode_kappa_tot_avg" in columns:
                modes = np.asarray(columns["mode_kappa_tot_avg"][row], dtype=float)[0]
            else:
                modes = np.asarray(columns["mode_kappa_tot_rta"][row], dtype=float)[0][..., :3].mean(axis=-1)
            found[key] = modes / np.sum(weights[row])
    return found


def _compute(job: Job, items: Mapping[str, Any]) -> Generator[tuple[str, Values]]:
    """Compute crystals of equal supercells together."""
    groups = defaultdict[Any, list[str]](list)
    for key, item in items.items():
        groups[item.cells].append(key)
    for (second, third, mesh), keys in groups.items():
        settings = ConductivitySettings(
            supercell=second,
            supercell_fc3=third,
            displacement=_DISPLACEMENTS.get(job.contestant.name, _DISPLACEMENT),
            mesh=mesh,
            symprec=1e-5,
            temperatures=(_TEMPERATURE,),
        )
        records = conductivity(
            [items[key].structure for key in keys],
            job.contestant.model,
            fmax=_FMAX,
            max_steps=_STEPS,
            settings=settings,
            journal_dir=job.folder,
            progress=job.progress,
        )
        for key, record in zip(keys, records, strict=True):
            if record.conductivity is None or record.structure is None:
                yield key, {"error": record.error or "; ".join(record.warnings)}
                continue
            found = record.conductivity
            group = MoyoDataset(MoyoAdapter.from_py_obj(record.structure), symprec=1e-5).number
            modes = found.modes.conductivities[0][..., :3].mean(axis=-1)
            yield (
                key,
                {
                    "kappa": float(found.mean[0]),
                    "coherence": float(found.coherence[0][:3].mean()),
                    "space_group": group,
                    "modes": modes.tolist(),
                    "warnings": list(record.warnings),
                },
            )


def relative_difference(kappa: float | None, dft: float) -> float:
    """
    Symmetric relative difference (SRD) of two conductivities, from -2 to 2; -2 without a result.

    Examples
    --------
    >>> relative_difference(3.0, 1.0), relative_difference(None, 1.0)
    (1.0, -2.0)
    """
    if kappa is None:
        return -WORST
    return WORST * (kappa - dft) / (kappa + dft) if kappa + dft else 0.0


def mode_error(kappa: float, modes: NDArray[np.float64], dft: float, dft_modes: NDArray[np.float64]) -> float:
    """
    Symmetric relative mean error (SRME): that of the modes, which cannot cancel each other.

    Parameters
    ----------
    kappa, dft
        Conductivities, W/m/K.
    modes, dft_modes
        Contributions of the modes, shape (q, m); equal shapes, else the error is 2.

    Examples
    --------
    >>> import numpy as np
    >>> mode_error(3.0, np.array([[2.0, 1.0]]), 3.0, np.array([[1.0, 2.0]]))  # 2 (1 + 1) / 6
    0.6666666666666666
    """
    if modes.shape != dft_modes.shape:
        return WORST
    error = WORST * float(np.abs(modes - dft_modes).sum()) / (kappa + dft)
    return error if 0 <= error <= WORST else WORST


def _score(items: Mapping[str, Any], results: Mapping[str, Values]) -> Metrics:
    differences, errors, failed = list[float](), list[float](), 0
    has_modes = all(item.modes is not None for item in items.values())
    for key, item in items.items():
        values = results[key]
        kappa = values.get("kappa")
        differences.append(relative_difference(kappa, item.kappa))
        if kappa is None or values["space_group"] != item.space_group:
            failed, error = failed + 1, WORST
        else:
            error = mode_error(kappa, np.asarray(values["modes"]), item.kappa, item.modes) if has_modes else WORST
        if has_modes:
            errors.append(error)
    imaginary = sum("imaginary" in (values.get("error") or "") for values in results.values())
    return {
        "SRME": mean(errors),
        "SRE": mean(map(abs, differences)),
        "SRD": mean(differences),
        "failure rate": failed / len(items) if items else None,
        "imaginary mode rate": imaginary / len(items) if items else None,
    }


def _remarks(items: Mapping[str, Any]) -> list[str]:
    if all(item.modes is not None for item in items.values()):
        return []
    return ["SRME is missing: the folder has no *kappas-phononDB-PBE-noNAC*.json.gz, DFT's conductivities by mode"]


KAPPA_BOARD = Board(
    name="kappa",
    about="lattice thermal conductivity of 103 compounds at 300 K against DFT: SRME, SRE, SRD (Matbench Discovery)",
    data="kappa_103.json.gz, or a folder with it and, for SRME, the board's structures and conductivities by mode",
    files=("kappa*103*.json.gz", "*phononDB-PBE-103-structures*.extxyz", "*kappas-phononDB-PBE-noNAC*.json*"),
    read=_read,
    compute=_compute,
    score=_score,
    settings={
        "fmax": _FMAX,
        "max_steps": _STEPS,
        "displacement": _DISPLACEMENT,
        "displacement_of": _DISPLACEMENTS,
        "temperature": _TEMPERATURE,
        "cubic": list(_CUBIC),
        "hexagonal": list(_HEXAGONAL),
    },
    published=KAPPA,
    tolerance={"SRME": 0.03, "SRE": 0.03, "SRD": 0.03},
    chunk=10,  # a thousand displaced supercells; more would only fill the memory
    remarks=_remarks,
)
