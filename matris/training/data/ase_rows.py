"""Labelled frames of ASE databases."""

from __future__ import annotations

import json
import sqlite3
from typing import TYPE_CHECKING, Any

import numpy as np

from matris.files.ase_db import read_rows
from matris.model.graph import Geometry
from matris.training.data.labelled import Rejected, take, unreadable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from matris.training.data.labelled import LabelOptions, Outcome

_COLUMNS = ("energy", "forces", "stress", "magmoms", "key_value_pairs")
_MATERIAL = ("material", "mp_id", "material_id", "candidate_id")


def read_ase_frames(file: Path, options: LabelOptions) -> Iterator[Outcome]:
    """
    Yield the rows of a database that have a calculator's results, in ASE's units.

    Stresses are in eV/Å³ unless `options` names another unit.

    The key-value pairs ``material`` (or ``mp_id``, ``candidate_id``), ``split`` and ``energy_scale`` are used.
    """
    try:
        for identity, atoms, columns in read_rows(file, _COLUMNS):
            location = f"{file.name}:{identity}"
            try:
                if isinstance(atoms, ValueError):
                    raise atoms
                labels, pairs = _labels(columns, options), json.loads(columns["key_value_pairs"] or "{}")
                yield take(
                    location,
                    Geometry.of(atoms),
                    labels,
                    options,
                    material=next((str(pairs[key]) for key in _MATERIAL if key in pairs), None),
                    scale=pairs.get("energy_scale"),
                    split=pairs.get("split"),
                )
            except (ValueError, TypeError) as error:
                yield unreadable(location, error)
    except sqlite3.Error as error:
        yield Rejected(file.name, "unreadable", f"ASE database: {error}")


def _labels(columns: dict[str, Any], options: LabelOptions) -> dict[str, Any]:
    arrays: dict[str, Any] = {
        name: None if columns[name] is None else np.frombuffer(columns[name], "<f8")
        for name in ("forces", "stress", "magmoms")
    }
    if arrays["forces"] is not None:
        arrays["forces"] = arrays["forces"].reshape(-1, 3)
    stress = options.stress(arrays["stress"], options.stress_unit or "eV/Å³")
    return {**arrays, "energy": columns["energy"], "stress": stress}
