"""Documents as table rows, CSV, JSON lines and entries."""

from __future__ import annotations

import csv
import io
import json
import math
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from matris.files.whole_file import whole_file
from matris.stores.documents.fields import field_named, leaves, value_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from pymatgen.entries.computed_entries import ComputedStructureEntry

type Document = Mapping[str, Any]

COLUMNS = (
    "formula_pretty",
    "chemsys",
    "symmetry.symbol",
    "nsites",
    "state",
    "energy_above_hull",
    "is_stable",
    "formation_energy_per_atom",
    "energy_per_atom",
    "enthalpy_per_atom",
    "pressure",
    "uncorrected_energy_per_atom",
    "hull_type",
    "hull_reference",
    "hull_state",
    "checkpoint.key",
    "settings.digest",
    "source",
    "error",
    "document_id",
)
"""Default columns of a CSV file."""


def expanded(columns: Iterable[str]) -> list[str]:
    """
    Replace aliases by the names of their fields, and groups by the names of the fields in them.

    Raises
    ------
    MatrisError
        If there is no such field.

    Examples
    --------
    >>> expanded(["formula", "ehull", "checkpoint", "symmetry.symbol"])
    ['formula_pretty', 'energy_above_hull', 'checkpoint.key', 'symmetry.symbol']
    """
    return list(dict.fromkeys(leaf for name in columns for leaf in leaves(name)))


def flat(document: Document, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted names and values of all fields, descending into sub-documents."""
    for name, value in document.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def heading(name: str) -> str:
    """
    Head a column of a CSV file: the name of a field, with its unit in square brackets.

    Examples
    --------
    >>> heading("energy_above_hull"), heading("formula_pretty")
    ('energy_above_hull [eV/atom]', 'formula_pretty')
    """
    unit = field_named(name).unit
    return f"{name} [{unit}]" if unit else name


_FORMULAS = ("=", "+", "-", "@", "\t", "\r", "'")  # beginnings of texts that spreadsheets compute or change


def row(document: Document, columns: Iterable[str]) -> list[Any]:
    """Values of a document for a table: numbers, texts, booleans and None; times and lists become text."""
    return [_cell(value_of(document, name)) for name in columns]


def write_csv(
    documents: Iterable[Document],
    target: str | Path | TextIO,
    columns: Sequence[str],
    headings: Sequence[str] | None = None,
) -> None:
    """
    Write a table, one document at a time.

    A text that a spreadsheet would take for a formula (it begins with ``=``, ``+``, ``-``, ``@``, a tab or a carriage
    return) gets an apostrophe in front, and so does a text that begins with one. A cell that begins with an apostrophe
    is therefore read by removing it. Numbers that are not finite and missing values become empty cells.

    Parameters
    ----------
    documents
        Documents, one per row.
    target
        Open stream, or a file, which appears under its name only when it is complete.
    columns
        Dotted names of the fields.
    headings
        Headings of the columns, see `heading`. Default: the names.
    """
    with open_target(target) as stream:
        stream.write(csv_line(headings or columns))
        stream.writelines(csv_line([_no_formula(value) for value in row(document, columns)]) for document in documents)


def csv_line(cells: Iterable[Any]) -> str:
    """Write a row of a CSV table; cells with a line feed or a carriage return are quoted in all versions of Python."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\r\n").writerow(cells)  # characters of the terminator are quoted in cells
    return buffer.getvalue().removesuffix("\r\n") + "\n"


def write_jsonl(documents: Iterable[Document], target: str | Path | TextIO) -> None:
    """Write complete documents as JSON, one per line; `target` as in `write_csv`."""
    with open_target(target) as stream:
        stream.writelines(json.dumps(json_ready(document)) + "\n" for document in documents)


def write_entries(entries: Iterable[ComputedStructureEntry], stream: TextIO) -> int:
    """Write pymatgen's entries as a JSON list, one per line, for its ``loadfn``; return their number."""
    from monty.json import MontyEncoder

    n = 0
    for entry in entries:
        stream.write(",\n" if n else "[\n")
        stream.write(json.dumps(entry.as_dict(), cls=MontyEncoder))
        n += 1
    stream.write("\n]\n" if n else "[]\n")
    return n


def json_ready(value: Any) -> Any:
    """Convert a value to JSON types: times become ISO 8601, numbers that are not finite become null."""
    if isinstance(value, dict):
        return {str(name): json_ready(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_ready(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, datetime):
        return value.isoformat()
    return value if value is None or isinstance(value, (str, int)) else str(value)


def _no_formula(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULAS) else value


def _cell(value: Any) -> Any:
    """Value of a table cell; lists and sub-documents become JSON text."""
    ready = json_ready(value)
    return json.dumps(ready, ensure_ascii=False) if isinstance(ready, (dict, list)) else ready


@contextmanager
def open_target(target: str | Path | TextIO) -> Iterator[TextIO]:
    """Open a file that gets its name when it is whole; a stream is used as it is."""
    if not isinstance(target, (str, Path)):
        yield target
        return
    with whole_file(Path(target)) as draft, draft.open("w", encoding="utf-8", newline="") as stream:
        yield stream
