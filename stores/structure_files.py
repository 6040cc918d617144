"""Crystals in files: CIF, POSCAR, extended XYZ and pymatgen JSON; one item per crystal, or the reason why not."""

from __future__ import annotations

import json
import re
import warnings
from dataclasses import dataclass, field
from io import StringIO
from typing import TYPE_CHECKING, Any

import ase.io
from ase.io.extxyz import XYZError
from pymatgen.core.periodic_table import DummySpecies
from pymatgen.core.structure import Structure, StructureError
from pymatgen.io.cif import CifParser

from matris.stores.structure_defects import check_cif, check_poscar
from matris.structures import to_structure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

_PARSE_ERRORS = (
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    RecursionError,
    StructureError,
)
"""What the parsers of pymatgen and ASE raise on malformed text; numpy's LinAlgError is a ValueError."""

_CIF_DEFECTS = ("Missing elements", "Incorrect stoichiometry", "implicit hydrogens")
"""Warnings of pymatgen's CIF parser that mean: the structure is not the one in the file."""

_SPACE_GROUP_KEYS = (
    "_symmetry_space_group_name_H-M",
    "_space_group_name_H-M_alt",
    "_symmetry_Int_Tables_number",
    "_space_group_IT_number",
)

_ODD_MESSAGES = {
    "integer modulo by zero": "a loop without values",
    "is longer than argument": "a loop whose values do not fill its columns; is the file truncated?",
    "is not a multiple of": "a loop whose values do not fill its columns; is the file truncated?",
    "NaN to integer": "a coordinate is not a number",
    "exceeded tolerance": "two atoms on one site, their occupancies sum to more than 1",
    "no structures": "it holds no structure",
    "at least 1 site": "it lists no atom sites",
    "_atom_site_label": "it lists no atom sites; is the file truncated?",
    "below threshold": "the cell is flat",
    "Singular matrix": "the cell has no volume",
    "could not convert string to float: ''": "a number is missing; is the file truncated?",
    "list index out of range": "a line or a column is missing; is the file truncated?",
    "into shape (3,3)": "the cell parameters are incomplete",
}


@dataclass(frozen=True)
class Parsed:
    """
    One crystal of a file, or why there is none.

    Attributes
    ----------
    structure
        Without oxidation states and site properties, or None.
    error
        One line, or None.
    where
        Place in the file, such as ``{"block": "NaCl"}``; empty if the file holds one crystal.
    text
        What was parsed, for the identity of an item without a structure.
    """

    structure: Structure | None
    error: str | None
    where: dict[str, Any] = field(default_factory=dict)
    text: str = ""


def parse_file(name: str, text: str) -> Iterator[Parsed]:
    """
    Parse the text of a structure file; never raises for its content.

    Parameters
    ----------
    name
        File name without a suffix of compression, which tells the format.
    text
        Content.

    Yields
    ------
    Parsed
    """
    parser = parser_for(name)
    if parser is None:
        yield Parsed(None, f"unknown type of structure file; known are {KNOWN}", text=text)
    elif not text.strip():
        yield Parsed(None, "the file is empty", text=text)
    else:
        yield from parser(text)


def parser_for(name: str) -> Callable[[str], Iterator[Parsed]] | None:
    """Parser for a file name, or None if it does not look like a structure file."""
    lower = name.lower()
    if lower.endswith((".vasp", ".poscar", ".contcar")) or re.match(r"(poscar|contcar)([-_.]|$)", lower):
        return _parse_poscar
    return next((parser for suffix, parser in _PARSERS.items() if lower.endswith(suffix)), None)


def _attempt(read: Callable[[], Structure], where: dict[str, Any], text: str, kind: str) -> Parsed:
    """Call a reader; turn what goes wrong into a reason of one line."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            return Parsed(_bare(read()), None, where, text)
        except _PARSE_ERRORS as error:
            message = f"no {error}" if isinstance(error, KeyError) else str(error) or type(error).__name__
    message = message.removeprefix("No structure parsed for section 1 in CIF.\n")
    message = next((plain for odd, plain in _ODD_MESSAGES.items() if odd in message), message)
    hints = [str(w.message) for w in caught if "Defaulting to P1" not in str(w.message)]
    message = "; ".join(dict.fromkeys([message, *hints]))
    return Parsed(None, " ".join(f"unreadable {kind}: {message}".split())[:500], where, text)


def _bare(structure: Structure) -> Structure:
    """Only species, lattice and coordinates: what an identity is made of, and what a potential sees."""
    if len(structure) == 0:
        raise ValueError("it lists no atom sites")
    for site in structure:
        for species in site.species:
            if isinstance(species, DummySpecies):
                raise ValueError(f"unknown element {species.symbol}")  # noqa: TRY004
    structure = structure.copy()
    for name in list(structure.site_properties):
        structure.remove_site_property(name)
    structure.properties = {}
    structure.remove_oxidation_states()
    return structure


def _parse_cif(text: str) -> Iterator[Parsed]:
    blocks = _cif_blocks(text)
    if not blocks:
        yield Parsed(None, "unreadable CIF: it holds no data block", text=text)
    for name, block in blocks:
        where = {"block": name} if len(blocks) > 1 else {}
        yield _attempt(lambda block=block: _cif_structure(block), where, block, "CIF")  # type: ignore[misc]


def _cif_blocks(text: str) -> list[tuple[str, str]]:
    """Split at ``data_`` lines outside of text fields, as the parser checks only the first block of a file."""
    blocks: list[tuple[str, list[str]]] = []
    in_text_field = False
    for line in text.splitlines():
        if line.startswith(";"):
            in_text_field = not in_text_field
        if not in_text_field and line.lstrip().lower().startswith("data_"):
            blocks.append((line.strip()[5:], ["data_" + line.strip()[5:]]))
        elif blocks:
            blocks[-1][1].append(line)
    with_atoms = [(name, "\n".join(lines) + "\n") for name, lines in blocks]
    if len(with_atoms) > 1:  # publication files open with a block of metadata
        with_atoms = [(name, block) for name, block in with_atoms if "_atom_site_" in block] or with_atoms
    return with_atoms


def _cif_structure(block: str) -> Structure:
    parser: Any = CifParser.from_str(block)
    (data,) = parser.as_dict().values()
    check_cif(data)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        structures = parser.parse_structures(primitive=False, on_error="raise")
    for message in dict.fromkeys([*(str(w.message) for w in caught), *parser.warnings]):
        if any(defect in message for defect in _CIF_DEFECTS):
            raise ValueError(message)
        if "Defaulting to P1" in message and (group := _space_group(data)) not in {None, "P1", "1"}:
            raise ValueError(f"unknown space group {group!r}, and no symmetry operations")
    structure: Structure = structures[0]
    return structure


def _space_group(data: dict[str, Any]) -> str | None:
    """Space group that a block names by symbol or number."""
    for key in _SPACE_GROUP_KEYS:
        if (value := data.get(key)) not in {None, "?", "."}:
            return str(value).replace(" ", "")
    return None


def _parse_poscar(text: str) -> Iterator[Parsed]:
    yield _attempt(lambda: _poscar_structure(text), {}, text, "POSCAR")


def _poscar_structure(text: str) -> Structure:
    check_poscar(text)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        structure: Structure = Structure.from_str(text, fmt="poscar")
    if any("false names" in str(w.message) for w in caught):
        raise ValueError("it does not name its elements (VASP 4 format); add a line of symbols above the counts")
    return structure


def _parse_xyz(text: str) -> Iterator[Parsed]:
    lines = text.rstrip().splitlines()
    start, frame = 0, 0
    while start < len(lines):
        if not lines[start].strip():
            start += 1
            continue
        try:
            n = int(lines[start])
        except ValueError:
            n = -1
        stop = start + n + 2
        if n < 0:
            reason = f"line {start + 1} is {lines[start][:40]!r}, expected a number of atoms; the rest is not read"
            yield Parsed(None, f"unreadable XYZ: {reason}", {"frame": frame}, "\n".join(lines[start:]))
            return
        block = "\n".join(lines[start:stop]) + "\n"
        where = {"frame": frame} if frame or stop < len(lines) else {}
        if stop > len(lines):
            yield Parsed(None, "unreadable XYZ: the last frame is truncated", where, block)
        else:
            yield _attempt(lambda block=block: _xyz_structure(block), where, block, "XYZ")  # type: ignore[misc]
        start, frame = stop, frame + 1


def _xyz_structure(block: str) -> Structure:
    try:
        atoms: Any = ase.io.read(StringIO(block), index=0, format="extxyz")
    except XYZError as error:
        raise ValueError(str(error)) from error
    return to_structure(atoms)


def _parse_json(text: str) -> Iterator[Parsed]:
    try:
        content = json.loads(text)
    except ValueError as error:
        yield Parsed(None, f"unreadable JSON: {error}", text=text)
        return
    except RecursionError:
        yield Parsed(None, "unreadable JSON: it is nested too deeply", text=text)
        return
    if content in ([], {}):
        yield Parsed(None, "unreadable JSON: it holds no structure", text=text)
    for where, item in _json_items(content):
        yield _attempt(lambda item=item: _json_structure(item), where, json.dumps(item), "JSON")  # type: ignore[misc]


def _json_items(content: Any) -> Iterable[tuple[dict[str, Any], Any]]:
    """Structures of a file: one, a list, or a mapping from names."""
    if isinstance(content, list):
        return (({"index": i}, item) for i, item in enumerate(content))
    if isinstance(content, dict) and not {"lattice", "structure"} & content.keys():
        named = {k: v for k, v in content.items() if not k.startswith("@")}
        if named and all(isinstance(value, dict) for value in named.values()):
            return (({"name": name}, item) for name, item in named.items())
    return [({}, content)]


def _json_structure(item: Any) -> Structure:
    """Read a structure or anything that carries one, without building any other class a file may name."""
    if isinstance(item, dict) and isinstance(item.get("structure"), dict):
        item = item["structure"]
    if not isinstance(item, dict) or not {"lattice", "sites"} <= item.keys():
        raise ValueError("no pymatgen structure ('lattice' and 'sites') and no 'structure' in it")
    structure: Structure = Structure.from_dict(item)
    return structure


_PARSERS: dict[str, Callable[[str], Iterator[Parsed]]] = {
    ".cif": _parse_cif,
    ".xyz": _parse_xyz,
    ".extxyz": _parse_xyz,
    ".json": _parse_json,
}

KNOWN = "*.cif, POSCAR*, CONTCAR*, *.vasp, *.xyz, *.extxyz, *.json, each also as .gz"


def name_without_compression(path: Path) -> str:
    """File name that tells the format."""
    return path.name[: -len(path.suffix)] if path.suffix in {".gz", ".bz2", ".xz"} else path.name
