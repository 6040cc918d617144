"""Rows of data sets: JSON lists of objects, or pandas' JSON lines, plain or compressed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from monty.io import zopen
from pymatgen.core import Structure

from matris.errors import BoardError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def read_rows(path: Path, names: Sequence[str]) -> list[dict[str, Any]]:
    """
    Read rows and check that they have what a board needs; ``structure`` becomes pymatgen's.

    Parameters
    ----------
    path
        A file, ``.json`` or ``.jsonl``, plain or compressed.
    names
        Keys that each row must have.

    Raises
    ------
    BoardError
        If the file cannot be read, or a row lacks a key.

    Examples
    --------
    >>> from pathlib import Path
    >>> _ = Path("rows.json").write_text('[{"id": "a", "k": 1.0}, {"id": "b"}]')
    >>> read_rows(Path("rows.json"), ("id",))[0]
    {'id': 'a', 'k': 1.0}
    >>> read_rows(Path("rows.json"), ("id", "k"))
    Traceback (most recent call last):
    matris.errors.BoardError: rows.json: row 2 has no k
    """
    try:
        with zopen(path, "rt", encoding="utf-8") as file:
            text = file.read()
        rows = [json.loads(line) for line in text.splitlines()] if ".jsonl" in path.name else json.loads(text)
    except (OSError, EOFError, ValueError) as error:
        raise BoardError(f"{path} cannot be read: {error}") from error
    for number, row in enumerate(rows, start=1):
        if missing := [name for name in names if name not in row]:
            raise BoardError(f"{path}: row {number} has no {', '.join(missing)}")
        if "structure" in names and not isinstance(row["structure"], Structure):
            content = row["structure"]
            row["structure"] = Structure.from_dict(json.loads(content) if isinstance(content, str) else content)
    return rows
