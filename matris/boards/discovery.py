"""Relaxation of WBM's structures, and their stability on DFT's hull: Matbench Discovery."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from moyopy import MoyoDataset
from moyopy.interface import MoyoAdapter
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.entries.compatibility import MaterialsProject2020Compatibility

from matris.boards.board import Board
from matris.boards.published import DISCOVERY
from matris.boards.stability import discovery_metrics, relaxation_metrics
from matris.boards.submission import write_submission
from matris.boards.wbm import FILES, Wbm, WbmItem
from matris.errors import BoardError
from matris.relaxation.relax import relax
from matris.stores.documents.corrections import CORRECTED

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping
    from pathlib import Path

    from pymatgen.core import Structure

    from matris.boards.board import Job, Metrics, Values

_FMAX, _STEPS = 0.05, 500
_TIGHTER = {"matris_10m_oam": 0.02, "nequix-mp-1": 0.02, "nequix-mp-1-pft": 0.02}
"""Force criteria (eV/Å) of published rows that have one of their own."""
_SYMPRECS = ("1e-2", "1e-5")  # Å


def _read(data: Path) -> dict[str, Any]:
    if not data.is_dir():
        raise BoardError("discovery needs a folder: --data DIR")
    return dict(Wbm(data).items())


def _compute(job: Job, items: Mapping[str, Any]) -> Generator[tuple[str, Values]]:
    """Relax structures; as each finishes, compare it with DFT's."""
    scale = job.contestant.energy_scale
    if scale not in {"mp", CORRECTED}:
        raise BoardError(
            f"{job.contestant.name} has the energy scale {scale}; the Materials Project's hull needs mp or {CORRECTED}"
        )
    keys = list(items)
    records = relax(
        (items[key].initial() for key in keys),
        job.contestant.model,
        fmax=_TIGHTER.get(job.contestant.name, _FMAX),
        max_steps=_STEPS,
        optimizer="fire",
    )
    for record in records:
        item = cast("WbmItem", items[keys[record.index]])
        if record.structure is None or record.energy is None:
            yield item.material_id, {"error": record.error, "n_steps": record.n_steps}
            continue
        corrected = corrected_energy(item, record.structure, record.energy, scale)
        values: Values = {
            "structure": record.structure.as_dict(),
            "energy": record.energy,
            "converged": record.state == "converged",
            "n_steps": record.n_steps,
            **against_dft(record.structure, item.entry().structure),
        }
        if corrected is None:
            yield item.material_id, {**values, "error": "MP2020 refuses the entry"}
            continue
        composition = record.structure.composition
        elements = sum(item.wbm.element_energies[str(e)] * amount for e, amount in composition.items())
        yield item.material_id, {**values, "e_form": round((corrected - elements) / len(record.structure), 4)}


def corrected_energy(item: WbmItem, structure: Structure, energy: float, scale: str) -> float | None:
    """Energy (eV) with MP2020's corrections, as of the DFT entry with this structure; None if the scheme refuses it."""
    if scale == CORRECTED:
        return energy
    entry = item.entry()
    entry._energy, entry._structure = energy, structure  # noqa: SLF001 - as the board does
    processed = _mp2020().process_entry(entry, clean=True)
    return None if processed is None else float(processed.energy)


@cache
def _mp2020() -> MaterialsProject2020Compatibility:
    return MaterialsProject2020Compatibility(check_potcar=False)


def against_dft(structure: Structure, dft: Structure) -> Values:
    """
    Compare a relaxed structure with DFT's.

    Returns
    -------
    dict
        ``rmsd``: distance of the sites in units of (V/n)^⅓, None if they do not match; ``symmetry``: for each tolerance
        the number of the space group and of operations, then DFT's.
    """
    found = StructureMatcher(stol=1.0, scale=False).get_rms_dist(structure, dft)
    groups = {}
    for symprec in _SYMPRECS:
        try:
            sets = [MoyoDataset(MoyoAdapter.from_py_obj(each), symprec=float(symprec)) for each in (structure, dft)]
        except Exception:  # noqa: BLE001, S112 - moyo raises its own errors; the board leaves such crystals out
            continue
        groups[symprec] = [number for each in sets for number in (each.number, each.operations.num_operations)]
    return {"rmsd": None if found is None else float(found[0]), "symmetry": groups}


def _score(items: Mapping[str, Any], results: Mapping[str, Values]) -> Metrics:
    """Metrics of the three subsets, and of the relaxed structures."""
    e_form, rows = np.full(len(items), np.nan), []
    for number, key in enumerate(items):
        values = results[key]
        if values.get("e_form") is not None:
            e_form[number] = values["e_form"]
        if "symmetry" in values:
            rows.append((values["rmsd"], values["symmetry"]))
    form, hull = (np.array([getattr(item, name) for item in items.values()]) for name in ("e_form", "e_hull"))
    unique = np.array([item.is_unique for item in items.values()], dtype=bool)
    return discovery_metrics(e_form, form, hull, unique) | relaxation_metrics(rows)


DISCOVERY_BOARD = Board(
    name="discovery",
    about="relaxation of WBM, F1 and DAF of stable crystals, RMSD, symmetry (Matbench Discovery)",
    data=f"a folder with Matbench Discovery's files {', '.join(FILES.values())}",
    files=tuple(FILES.values()),
    read=_read,
    compute=_compute,
    score=_score,
    settings={"fmax": _FMAX, "fmax_of": _TIGHTER, "max_steps": _STEPS, "optimizer": "fire"},
    published=DISCOVERY,
    tolerance={
        **{f"{subset} {name}": 0.005 for subset in ("full", "unique", "10k") for name in ("F1", "Precision", "Recall")},
        **{f"{subset} {name}": 0.002 for subset in ("full", "unique", "10k") for name in ("MAE",)},
        "RMSD": 0.001,
    },
    chunk=10_000,
    write=write_submission,
)
