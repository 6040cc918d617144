"""Crystals of JSON that pymatgen or ASE wrote: documents of any size, and JSON lines."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms

from matris.files import json_stream
from matris.files.json_stream import DEEPEST, JsonStream, items, read_lines
from matris.files.stored_objects import decode_structure
from matris.files.text import MAX_SITES
from matris.flows.sources.ase_database import moving_structure
from matris.flows.sources.parsed import Parsed, attempt

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TextIO

    from pymatgen.core.structure import Structure

    from matris.files.json_stream import Path


def read_json(stream: TextIO) -> Iterator[Parsed]:
    """Yield the crystals of a document: one, a list, a mapping from names, a table, an ASE database."""
    text = JsonStream(stream)
    n_values = 0
    while text.peek():
        path: Path = (n_values,) if n_values else ()
        is_empty = True
        try:
            for place, item in items(text, path, _within, json_stream.PIECE):
                is_empty = False
                yield _parsed(_location(place), item)
        except ValueError as error:
            reason = " ".join(f"{error}; the rest is not read".split())
            yield Parsed(None, f"unreadable JSON: {reason[:300]}", _location(path), text.ahead())
            return
        if is_empty:
            yield Parsed(None, "unreadable JSON: it holds no structure", _location(path))
        n_values += 1


def read_json_lines(stream: TextIO) -> Iterator[Parsed]:
    """Yield the crystals of a file with one document a line; a broken line costs only itself."""
    for number, line, value in read_lines(stream):
        location = {"line": number}
        if isinstance(value, ValueError):
            yield Parsed(None, f"unreadable JSON: {value}", location, line[: json_stream.PIECE])
            continue
        is_empty = True
        for path, item in _within((), value):
            is_empty = False
            yield _parsed(location | _location(path), item)
        if is_empty:
            yield Parsed(None, "unreadable JSON: it holds no structure", location, line)


def _within(path: Path, value: Any) -> Iterator[tuple[Path, Any]]:
    """Yield what is a crystal in a value, and what should be one but is malformed."""
    if isinstance(value, list) and len(path) < DEEPEST:
        parts = list(enumerate(value))
        if path:  # a row or a column of a table, which holds other things too
            parts = [(i, part) for i, part in parts if isinstance(part, dict | list)]
        is_row = bool(path) and isinstance(path[-1], int)
        if is_row and not parts:
            yield path, value
        for i, part in parts:
            yield from _within((*path, i), part)
    elif isinstance(value, dict) and not _is_crystal(value) and len(path) < DEEPEST:
        members = {k: v for k, v in value.items() if isinstance(v, dict | list) and v}
        if "@class" in value or (not members and any(isinstance(v, str) for v in value.values())):
            yield path, value
        else:
            for name, part in members.items():
                yield from _within((*path, name), part)
    else:
        yield path, value


def _is_crystal(value: dict[str, Any]) -> bool:
    inner = value.get("structure")
    return (
        bool({"lattice", "sites"} & value.keys())
        or {"numbers", "positions"} <= value.keys()
        or (isinstance(inner, dict) and bool({"lattice", "sites"} & inner.keys()))
    )


def _location(path: Path) -> dict[str, Any]:
    """Location in a document: names, and the first position in a list."""
    names = [step for step in path if isinstance(step, str)]
    numbers = [step for step in path if isinstance(step, int)]
    return ({"name": "/".join(names)} if names else {}) | ({"index": numbers[0]} if numbers else {})


def _parsed(location: dict[str, Any], item: Any) -> Parsed:
    return attempt(lambda: _structure(item), location, json.dumps(item), "JSON")


def _structure(item: Any) -> Structure:
    """Read a structure, or an object with a structure; other classes that a file may name are never built."""
    if isinstance(item, dict) and isinstance(item.get("structure"), dict):
        item = item["structure"]
    if isinstance(item, dict) and {"numbers", "positions"} <= item.keys():
        return _from_ase(item)
    if not isinstance(item, dict) or not {"lattice", "sites"} <= item.keys():
        raise ValueError("no pymatgen structure ('lattice' and 'sites') and no 'structure' in it")
    if len(item["sites"]) > MAX_SITES:
        raise ValueError(f"it has more than {MAX_SITES} sites")
    return decode_structure(item)


def _from_ase(row: dict[str, Any]) -> Structure:
    """Read a row of an ASE database in JSON."""
    numbers, positions, cell, pbc = (_array(row.get(name)) for name in ("numbers", "positions", "cell", "pbc"))
    if len(numbers) > MAX_SITES:
        raise ValueError(f"it has more than {MAX_SITES} sites")
    atoms = Atoms(numbers.astype(int), positions.reshape(-1, 3), cell=cell.reshape(3, 3), pbc=pbc)
    masses, momenta = (None if row.get(name) is None else _array(row[name]) for name in ("masses", "momenta"))
    return moving_structure(atoms, masses, momenta, row.get("constraints"))


def _array(value: Any) -> np.ndarray:
    """Read an array as ASE writes it: a list, or an object with shape and type."""
    if isinstance(value, dict) and "array" in value:  # a cell
        value = value["array"]
    if isinstance(value, dict):
        value = value["__ndarray__"][2]
    return np.asarray(value, dtype=float)
