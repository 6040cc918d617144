"""Labelled documents of JSON: MPtrj, MatPES, and any that hold a pymatgen structure beside its labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from ase.data import atomic_numbers

from matris.errors import MatrisError
from matris.files.json_stream import DEEPEST, JsonStream, items, read_lines
from matris.files.stored_objects import decode_structure
from matris.files.text import MAX_TEXT
from matris.model.graph import Geometry
from matris.training.data.labelled import Rejected, take, unreadable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TextIO

    from matris.files.json_stream import Path
    from matris.training.data.labelled import LabelOptions, Outcome

_SCALES = {"PBE": "matpes-pbe", "R2SCAN": "matpes-r2scan"}
_ERRORS = (ValueError, KeyError, TypeError, IndexError, AttributeError, MatrisError)


def read_json_frames(name: str, stream: TextIO, options: LabelOptions) -> Iterator[Outcome]:
    """
    Yield the labelled documents of a file: a list, nested mappings, or several documents one after the other.

    Parameters
    ----------
    name
        Name of the file.
    stream
        Its text, of any size.
    options
        Units and limits.
    """
    text = JsonStream(stream)
    number = 0
    try:
        while text.peek():
            for path, document in items(text, (number,) if number else (), _labelled, MAX_TEXT):
                place = "/".join(map(str, path))
                yield from_document(f"{name}:{place}" if place else name, document, options, path)
            number += 1
    except ValueError as error:
        yield Rejected(name, "unreadable", f"{' '.join(str(error).split())[:200]}; the rest of the file is not read")


def read_json_lines(name: str, stream: TextIO, options: LabelOptions) -> Iterator[Outcome]:
    """Yield the documents of a file with one a line; a broken line costs only itself."""
    for number, _, value in read_lines(stream):
        location = f"{name}:{number}"
        if isinstance(value, ValueError):
            yield unreadable(location, value)
            continue
        for path, document in _labelled((), value):
            yield from_document(location, document, options, path)


def _labelled(path: Path, value: Any) -> Iterator[tuple[Path, Any]]:
    """Yield the documents in a value: mappings with a structure."""
    if isinstance(value, dict) and isinstance(value.get("structure"), dict):
        yield path, value
    elif isinstance(value, dict | list) and len(path) < DEEPEST:
        for step, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _labelled((*path, step), part)


def from_document(location: str, document: dict[str, Any], options: LabelOptions, path: Path = ()) -> Outcome:
    """
    Convert a document of MPtrj or MatPES, or one with labels under ASE's names beside its structure.

    Parameters
    ----------
    where
        Source, and location in the source.
    document
        Mapping with ``structure``, a pymatgen structure as a dictionary.
    options
        Units and limits.
    path
        Names of the enclosing mappings.
    """
    try:
        structure = document["structure"]
        if "force" in document and ("uncorrected_total_energy" in document or "energy_per_atom" in document):
            labels, names = _mptrj(path, document, options)
            if labels["energy"] is None:
                detail = "it has only the corrected energy, which potentials are not trained on"
                return Rejected(location, "no energy", detail)
        elif "matpes_id" in document:
            labels, names = _matpes(document, options)
        else:
            labels, names = _plain(document, options)
        return take(location, _geometry(structure), labels, options, **names)
    except _ERRORS as error:
        return unreadable(location, error)


def _geometry(structure: dict[str, Any]) -> Geometry:
    """Read a structure as arrays, which is much faster than pymatgen; unusual structures are left to pymatgen."""
    sites = structure["sites"]
    species = [site["species"] for site in sites]
    numbers = [atomic_numbers.get(kinds[0]["element"], 0) for kinds in species if len(kinds) == 1]
    if len(numbers) < len(sites) or 0 in numbers or any(kinds[0]["occu"] != 1 for kinds in species):
        return Geometry.of(decode_structure(structure))
    cell = np.array(structure["lattice"]["matrix"], dtype=float).reshape(3, 3)
    places = np.array([site["abc"] for site in sites], dtype=float).reshape(-1, 3)
    pbc = np.array(structure["lattice"].get("pbc", (True, True, True)), dtype=bool)
    return Geometry(np.array(numbers, dtype=np.int64), places @ cell, cell, pbc)


def _mptrj(path: Path, document: dict[str, Any], options: LabelOptions) -> tuple[dict[str, Any], dict[str, Any]]:
    """
    Labels of MPtrj: raw energies (eV), stresses in kbar, positive under compression as VASP has them.

    Source: the description at figshare, doi 10.6084/m9.figshare.23713842.
    """
    labels = {
        "energy": document.get("uncorrected_total_energy"),
        "forces": document["force"],
        "stress": options.stress(document.get("stress"), "kbar", flipped=True),
        "magmoms": document.get("magmom"),
    }
    material = document.get("mp_id") or (str(path[-2]) if len(path) > 1 else None)
    return labels, {"material": material, "scale": "mp"}


def _matpes(document: dict[str, Any], options: LabelOptions) -> tuple[dict[str, Any], dict[str, Any]]:
    """
    Labels of MatPES: stresses in kbar as xx, yy, zz, yz, xz, xy, positive under compression as VASP has them.

    Source: the description of the data set and the tutorial at matpes.ai, which multiplies by −0.1 to get GPa.
    Magnetic moments are those that VASP projects on the sites, where the structure has them.
    """
    labels = {
        "energy": document.get("energy"),
        "forces": document.get("forces"),
        "stress": options.stress(document.get("stress"), "kbar", flipped=True),
        "magmoms": _site_magmoms(document["structure"]),
    }
    provenance = document.get("provenance") or {}
    scale = _SCALES.get(str(document.get("functional", "")).upper())
    return labels, {"material": provenance.get("original_mp_id"), "scale": scale}


def _plain(document: dict[str, Any], options: LabelOptions) -> tuple[dict[str, Any], dict[str, Any]]:
    """
    Labels under ASE's names, such as those of our stores; a stress needs a unit, here or from the user.

    pymatgen's computed entries have theirs in ``data``, and the uncorrected energy as ``energy``.
    """
    if str(document.get("@class")) == "ComputedStructureEntry":
        document = {**(document.get("data") or {}), **document}
    labels = {name: document.get(name) for name in ("energy", "forces", "magmoms")}
    unit = document.get("stress_unit") or options.stress_unit
    labels["stress"] = options.stress(document.get("stress"), unit)
    names = {"scale": document.get("energy_scale"), "split": document.get("split")}
    return labels, {"material": document.get("material") or document.get("candidate_id"), **names}


def _site_magmoms(structure: dict[str, Any]) -> list[float] | None:
    moments: list[Any] = [(site.get("properties") or {}).get("magmom") for site in structure["sites"]]
    return moments if all(isinstance(m, int | float) for m in moments) else None
