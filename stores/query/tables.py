"""Documents as rows of a table, as CSV, as JSON lines and as CIF files."""

from __future__ import annotations

import csv
import json
import math
import re
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from matris.files.whole_file import whole_file
from matris.stores.documents.fields import leaves, value_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from pymatgen.core.structure import Structure

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
    "uncorrected_energy_per_atom",
    "hull_type",
    "hull_reference",
    "hull_state",
    "checkpoint.key",
    "source",
    "error",
    "document_id",
)
"""Columns of a CSV file for which nobody named others."""


def expanded(columns: Iterable[str]) -> list[str]:
    """
    Names of columns; aliases and groups of fields are replaced by what they stand for.

    Raises
    ------
    MatrisError
        If there is no such field.
    """
    return list(dict.fromkeys(leaf for name in columns for leaf in leaves(name)))


def flat(document: Document, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted names and values of what is no sub-document."""
    for name, value in document.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def row(document: Document, columns: Iterable[str]) -> list[Any]:
    """Give a document's values for a table: numbers, texts, truths and None; times and lists as text."""
    return [_cell(value_of(document, name)) for name in columns]


def write_csv(documents: Iterable[Document], target: str | Path | TextIO, columns: Sequence[str]) -> None:
    """
    Write a table, one document at a time.

    Parameters
    ----------
    documents
        Rows.
    target
        A file, which appears when it is complete, or an open stream.
    columns
        Dotted names.
    """
    with open_target(target) as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(row(document, columns) for document in documents)


def write_jsonl(documents: Iterable[Document], target: str | Path | TextIO) -> None:
    """Write whole documents, one a line; `target` as for `write_csv`."""
    with open_target(target) as stream:
        stream.writelines(json.dumps(json_ready(document), ensure_ascii=False) + "\n" for document in documents)


def write_cif(structures: Iterable[tuple[Document, Structure]], folder: str | Path) -> int:
    """Write each structure to a file named by its formula and document; give their number."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    n = 0
    for document, structure in structures:
        name = re.sub(r"[^\w.-]", "_", f"{document['formula_pretty']}-{document['document_id']}")
        with whole_file(folder / f"{name}.cif", sync=False) as draft:
            draft.write_text(structure.to(fmt="cif"), encoding="utf-8")
        n += 1
    return n


def json_ready(value: Any) -> Any:
    """Value as JSON can hold it: times in ISO 8601, and null for what is no finite number."""
    if isinstance(value, dict):
        return {str(name): json_ready(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_ready(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, datetime):
        return value.isoformat()
    return value if value is None or isinstance(value, (str, int)) else str(value)


def _cell(value: Any) -> Any:
    """Value in a table of text."""
    plain = json_ready(value)
    return json.dumps(plain, ensure_ascii=False) if isinstance(plain, (dict, list)) else plain


@contextmanager
def open_target(target: str | Path | TextIO) -> Iterator[TextIO]:
    """Open a file that gets its name when it is whole; a stream is used as it is."""
    if not isinstance(target, (str, Path)):
        yield target
        return
    with whole_file(Path(target)) as draft, draft.open("w", encoding="utf-8", newline="") as stream:
        yield stream
