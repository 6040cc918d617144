"""Rows of reference data, for the accuracy of potentials."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

import numpy as np
from pymatgen.core import Structure

if TYPE_CHECKING:
    from pathlib import Path

type Case = tuple[str, Any]


def read_json(path: Path) -> list[dict[str, Any]]:
    """Read a gzip-compressed JSON list of rows with structures."""
    rows: list[dict[str, Any]] = json.loads(gzip.decompress(path.read_bytes()))
    for row in rows:
        structure = row["structure"]
        row["structure"] = Structure.from_dict(json.loads(structure) if isinstance(structure, str) else structure)
    return rows


def shuffled(cases: list[Case]) -> list[Case]:
    """Shuffle cases with a fixed seed, so that the first n cases are a random sample."""
    return [cases[i] for i in np.random.default_rng(0).permutation(len(cases))]
