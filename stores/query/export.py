"""Export of candidates to files: CIF, POSCAR, extended XYZ, pymatgen's entries, CSV and JSON lines."""

from __future__ import annotations

import json
import math
from itertools import batched
from typing import TYPE_CHECKING, Any, Literal, get_args

from matris.errors import MatrisError
from matris.files.stored_objects import structure_of
from matris.files.structure_files import SUFFIXES, write_structures
from matris.stores.documents.fields import value_of
from matris.stores.query.tables import open_target, write_entries

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ase import Atoms

    from matris.stores.query.query import CandidateQuery, Document

type ExportFormat = Literal["cif", "symmetrized-cif", "poscar", "extxyz", "entries", "csv", "jsonl"]
FORMATS: tuple[str, ...] = get_args(ExportFormat.__value__)

_SUFFIXES = {".csv": "csv", ".jsonl": "jsonl", ".json": "entries", ".xyz": "extxyz", ".extxyz": "extxyz", "": "cif"}
_BATCH = 100  # structures per query
_INFO = {
    "candidate_id": "candidate_id",
    "document_id": "document_id",
    "formula_pretty": "formula_pretty",
    "energy_above_hull": "energy_above_hull",
    "formation_energy_per_atom": "formation_energy_per_atom",
    "state": "state",
    "source": "source",
    "checkpoint": "checkpoint.key",
    "settings": "settings.digest",
}
"""Fields of a document in ``info``, by their names there."""


def format_of(target: Path) -> str:
    """
    Derive the format from a path: by the suffix of a file; CIF for a folder.

    Raises
    ------
    MatrisError
        If no format has the suffix.

    Examples
    --------
    >>> from pathlib import Path
    >>> format_of(Path("stable.csv")), format_of(Path("stable")), format_of(Path("stable.xyz"))
    ('csv', 'cif', 'extxyz')
    """
    form = "cif" if target.is_dir() else _SUFFIXES.get(target.suffix.lower())
    if form is None:
        raise MatrisError(f"{target}: cannot tell the format from this name; choose one of {', '.join(FORMATS)}")
    return form


def export(query: CandidateQuery, target: Path, form: str | None = None) -> int:
    """
    Write candidates to files, one candidate at a time.

    A file appears under its name, in place of an earlier one, only when it is complete.

    Parameters
    ----------
    query
        Candidates to write.
    target
        File; for CIF and POSCAR a folder, which gets one file per structure, named by formula and document id.
    form
        ``"cif"``, ``"symmetrized-cif"``, ``"poscar"`` (see `matris.files.structure_files.structure_text`),
        ``"extxyz"``, ``"entries"`` (a JSON list of pymatgen's ComputedStructureEntry), ``"csv"`` or ``"jsonl"``. By
        default `format_of` derives it from `target`.

    Returns
    -------
    int
        Number of candidates written. Formats with structures omit candidates without a relaxed structure, and entries
        those without a corrected energy.

    Raises
    ------
    MatrisError
        If there is no such format.
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from matris.stores import CandidateStore
    >>> with TemporaryDirectory() as folder:
    ...     query = CandidateStore.open(folder).query(stable=True)
    ...     export(query, Path(folder, "stable.csv"))  # 0: the store is empty
    0
    """
    form = form or format_of(target)
    if form in SUFFIXES:
        if target.is_file():
            raise MatrisError(f"{target} is a file: name a folder for the files of the structures")
        return write_structures(query.structures(), target, form, labelled=len(query.origins()) > 1)
    if form == "entries":
        with open_target(target) as stream:
            return write_entries(query.entries(), stream)
    if form == "extxyz":
        return _write_extxyz(query, target)
    if form not in FORMATS:
        raise MatrisError(f"unknown format {form!r}; the formats are {', '.join(FORMATS)}")
    (query.to_csv if form == "csv" else query.to_jsonl)(target)
    return query.count()


def frames(query: CandidateQuery) -> Iterator[Atoms]:
    """
    Yield relaxed structures as ASE atoms.

    Parameters
    ----------
    query
        Candidates; those without a relaxed structure are omitted.

    Yields
    ------
    Atoms
        Structure with a calculator that holds the total energy of the potential (eV) and, if they are stored, forces
        (eV/Å), stress (eV/Å³) and magnetic moments (μB). ``info`` has ids, formula, source, energies (eV/atom), key of
        the checkpoint, and digest of the settings. Numbers that are not finite are omitted.
    """
    for batch in batched(query, _BATCH):
        criteria = {"document_id": {"$in": [document["document_id"] for document in batch]}}
        fields = ["document_id", "structure", "forces", "stress", "magmoms"]
        by_id = {arrays["document_id"]: arrays for arrays in query.data.query(criteria, properties=fields)}
        for document in batch:
            arrays = by_id.get(document["document_id"]) or {}
            if arrays.get("structure"):
                yield _atoms(document, arrays)


def _atoms(document: Document, arrays: dict[str, Any]) -> Atoms:
    import numpy as np
    from ase import Atoms
    from ase.calculators.singlepoint import SinglePointCalculator

    structure = structure_of(document["document_id"], arrays["structure"])
    atoms = Atoms(
        [site.specie.symbol for site in structure],
        positions=structure.cart_coords,
        cell=structure.lattice.matrix,
        pbc=True,
        info=_info(document),
    )
    results = {name: np.array(arrays[name]) for name in ("forces", "stress", "magmoms") if arrays.get(name) is not None}
    results = {name: values for name, values in results.items() if np.isfinite(values).all()}
    if "stress" in results:
        results["stress"] = results["stress"].ravel()[[0, 4, 8, 5, 2, 1]]  # Voigt order
    if (energy := document.get("energy")) is not None and math.isfinite(energy):
        results["energy"] = energy
    if results:
        atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


def _info(document: Document) -> dict[str, Any]:
    found = {name: value_of(document, field) for name, field in _INFO.items()}
    return {
        name: value
        for name, value in found.items()
        if value is not None and not (isinstance(value, float) and not math.isfinite(value))
    }


def _as_read(text: str) -> str:
    """
    Write a text for extended XYZ so that ASE reads it back as it is.

    ASE takes a text that looks like a number, a truth value or a list of them for that, also in quotes; it breaks lines
    and drops backslashes. Such texts are written as JSON, as ASE writes lists of texts.
    """
    from ase.io.extxyz import key_val_dict_to_str, key_val_str_to_dict

    line = key_val_dict_to_str({"before": 1, "text": text, "after": 2})
    try:
        found = key_val_str_to_dict(line)
    except ValueError:
        found = {}
    is_read = list(found) == ["before", "text", "after"] and type(found["text"]) is str and found["text"] == text
    if is_read and len(line.splitlines()) == 1:
        return text
    return "_JSON " + json.dumps(text).replace("\\", "\\\\")  # ASE quotes the quotes, but not the backslashes


def _write_extxyz(query: CandidateQuery, target: Path) -> int:
    from ase.io.extxyz import write_xyz

    n = 0
    with open_target(target) as stream:
        for atoms in frames(query):
            atoms.info = {
                name: _as_read(value) if isinstance(value, str) else value for name, value in atoms.info.items()
            }
            write_xyz(stream, atoms)
            n += 1
    return n
