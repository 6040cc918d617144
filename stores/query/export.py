"""Candidates as files of other programs: CIF, CSV, JSON lines, extended XYZ."""

from __future__ import annotations

from itertools import batched
from typing import TYPE_CHECKING, Any, Literal, get_args

from matris.errors import MatrisError
from matris.stores.query.tables import open_target, write_cif

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ase import Atoms

    from matris.stores.query.query import CandidateQuery, Document

type ExportFormat = Literal["cif", "csv", "jsonl", "extxyz"]
FORMATS: tuple[str, ...] = get_args(ExportFormat.__value__)

_SUFFIXES = {".csv": "csv", ".jsonl": "jsonl", ".xyz": "extxyz", ".extxyz": "extxyz", "": "cif"}
_BATCH = 100  # crystals read at once
_INFO = ("candidate_id", "document_id", "formula_pretty", "energy_above_hull", "formation_energy_per_atom", "source")


def format_of(target: Path) -> str:
    """
    Format that a name stands for: by the suffix of a file; CIF for a folder.

    Raises
    ------
    MatrisError
        If the suffix stands for none.
    """
    found = "cif" if target.is_dir() else _SUFFIXES.get(target.suffix.lower())
    if found is None:
        raise MatrisError(f"{target}: cannot tell the format by its name; choose one of {', '.join(FORMATS)}")
    return found


def export(asked: CandidateQuery, target: Path, form: str | None = None) -> int:
    """
    Write candidates, one at a time.

    A file gets its name when it is complete; an earlier one is replaced then.

    Parameters
    ----------
    asked
        Which.
    target
        File; for CIF a folder, in which each crystal is a file named by formula and document.
    form
        ``"cif"``, ``"csv"``, ``"jsonl"`` or ``"extxyz"``. By default as the name says, see `format_of`.

    Returns
    -------
    int
        How many were written; without relaxed structure there is nothing to write in CIF and extended XYZ.

    Raises
    ------
    MatrisError
        If there is no such format.
    OSError
        If it cannot be written.
    """
    form = form or format_of(target)
    if form == "cif":
        if target.is_file():
            raise MatrisError(f"{target} is a file: name a folder for the CIF files")
        return write_cif(asked.structures(), target)
    if form == "extxyz":
        return _write_extxyz(asked, target)
    if form not in FORMATS:
        raise MatrisError(f"unknown format {form!r}; there are {', '.join(FORMATS)}")
    (asked.to_csv if form == "csv" else asked.to_jsonl)(target)
    return asked.count()


def frames(asked: CandidateQuery) -> Iterator[Atoms]:
    """
    Yield relaxed crystals as ASE has them.

    Parameters
    ----------
    asked
        Which; those without a relaxed structure are left out.

    Yields
    ------
    Atoms
        With the potential's total energy (eV), and where they are stored forces (eV/Å), stress (eV/Å³) and magnetic
        moments (μB), in a calculator; ids, formula, source and energies (eV/atom) in ``info``.
    """
    for batch in batched(asked, _BATCH):
        criteria = {"document_id": {"$in": [document["document_id"] for document in batch]}}
        fields = ["document_id", "structure", "forces", "stress", "magmoms"]
        found = {arrays["document_id"]: arrays for arrays in asked.data.query(criteria, properties=fields)}
        for document in batch:
            arrays = found.get(document["document_id"]) or {}
            if arrays.get("structure"):
                yield _atoms(document, arrays)


def _atoms(document: Document, arrays: dict[str, Any]) -> Atoms:
    import numpy as np
    from ase import Atoms
    from ase.calculators.singlepoint import SinglePointCalculator
    from pymatgen.core.structure import Structure

    structure = Structure.from_dict(arrays["structure"])
    atoms = Atoms(
        [site.specie.symbol for site in structure],
        positions=structure.cart_coords,
        cell=structure.lattice.matrix,
        pbc=True,
        info={name: document[name] for name in _INFO if document.get(name) is not None},
    )
    results = {name: np.array(arrays[name]) for name in ("forces", "stress", "magmoms") if arrays.get(name) is not None}
    if "stress" in results:
        results["stress"] = results["stress"].ravel()[[0, 4, 8, 5, 2, 1]]  # Voigt's order
    if document.get("energy") is not None:
        results["energy"] = document["energy"]
    if results:
        atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


def _write_extxyz(asked: CandidateQuery, target: Path) -> int:
    from ase.io.extxyz import write_xyz

    n = 0
    with open_target(target) as stream:
        for atoms in frames(asked):
            write_xyz(stream, atoms)
            n += 1
    return n
