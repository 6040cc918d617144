"""Energies of the elements, to which formation energies refer."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from monty.io import zopen
from pymatgen.core import Structure

from matris.errors import BoardError
from matris.properties.groups import Relaxer

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from matris.boards.board import Job

type Elements = dict[str, Any]
"""For each symbol the energy per atom (eV), or crystal structures of the element that the contestant relaxes."""


def find_elements(folder: Path) -> Elements:
    """
    Read the elements of a folder.

    The first of ``*lement-Refs*.json*``, MatCalc's file with structures, and ``*elemental*reference*.json*``, the
    Materials Project's lowest entries as Matbench Discovery has them, counts.

    Raises
    ------
    BoardError
        If there is none of these files.
    """
    for pattern in ("*lement-Refs*.json*", "*elemental*reference*.json*"):
        for path in sorted(folder.glob(pattern)):
            return read_elements(path)
    raise BoardError(
        f"{folder} has no energies of elements: MatCalc's MP-PBE-Element-Refs.json.gz (structures to relax), or "
        "Matbench Discovery's mp-elemental-reference-entries.json.gz (DFT's energies)"
    )


def read_elements(path: Path) -> Elements:
    """Read one file: entries of elements, or MatCalc's structures."""
    with zopen(path, "rt", encoding="utf-8") as file:
        content = json.load(file)
    elements: Elements = {}
    for symbol, entry in content.items():
        if "structure" in entry and "energy" not in entry:
            many = entry["structure"] if isinstance(entry["structure"], list) else [entry["structure"]]
            elements[symbol] = [Structure.from_dict(each) for each in many]
        else:  # a ComputedEntry of any cell, without corrections, or an energy per atom
            amount = sum(entry["composition"].values()) if "composition" in entry else 1
            elements[symbol] = entry.get("energy_per_atom", entry.get("energy")) / amount
    return elements


def element_energies(job: Job, elements: Elements, symbols: Collection[str], fmax: float = 0.05) -> dict[str, float]:
    """
    Energies per atom (eV) of the elements that are needed: as given, or the lowest of the relaxed structures.

    Elements whose structures all fail have none.
    """
    given = {symbol: elements[symbol] for symbol in symbols if isinstance(elements.get(symbol), float)}
    wanted = [(s, structure) for s in sorted(symbols) if isinstance(elements.get(s), list) for structure in elements[s]]
    records = Relaxer(job.contestant.model, fmax, 500, job.folder, progress=job.progress).materials(
        structure for _, structure in wanted
    )
    for (symbol, structure), record in zip(wanted, records, strict=True):
        if record.energy is not None:
            given[symbol] = min(given.get(symbol, float("inf")), record.energy / len(structure))
    return given
