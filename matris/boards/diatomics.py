"""Two equal atoms at all distances, H to U: the diatomics task of Matbench Discovery."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from matris.boards.board import Board, mean
from matris.boards.curves import WALL, Curve, curve_metrics, is_jumpy, window
from matris.boards.published import DIATOMICS
from matris.boards.single_points import single_points
from matris.files.whole_file import whole_file

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping
    from pathlib import Path

    from matris.boards.board import Finished, Job, Metrics, Values

DISTANCES = np.geomspace(0.1, 6.0, 119)
"""Distances of the board, Å."""
_BOX = 50.0  # Å
_ELEMENTS = chemical_symbols[1:93]
_NOT_IN_MP = {"Po", "At", "Rn", "Fr", "Ra"}  # the board scores none of them: no data for training


def _read(data: Path) -> dict[str, Curve | None]:
    """Read the PBE curves by element; None where the curve jumps too much to compare with."""
    with gzip.open(data, "rt", encoding="utf-8") as file:
        curves = json.load(file)["PBE"]
    references = {
        element: Curve.of(curves[f"{element}-{element}"]) for element in _ELEMENTS if f"{element}-{element}" in curves
    }
    scored = [element for element in _ELEMENTS if element not in _NOT_IN_MP]
    return {
        element: None if element not in references or is_jumpy(element, references[element]) else references[element]
        for element in scored
    }


def _compute(job: Job, items: Mapping[str, Any]) -> Generator[tuple[str, Values]]:
    """Compute the curves of all elements, as one stream."""
    points = single_points(job.contestant.engine, (dimer(e, r) for e in items for r in DISTANCES.tolist()))
    for element in items:
        answers = [next(points) for _ in DISTANCES]
        curve = Curve(DISTANCES, np.array([p.energy for p in answers]), np.stack([p.forces for p in answers]))
        finite = curve.finite
        low, high = window(element, float(DISTANCES[-1]), WALL)
        counts = (low - 1e-12 <= DISTANCES) & (high >= DISTANCES)
        if not finite[counts].all():
            reasons = (point.error for point in answers if point.error)
            yield element, {"error": next(reasons, "energy or forces are not finite at a distance that counts")}
            continue
        yield (
            element,
            {
                "distances": curve.distances[finite].tolist(),
                "energies": curve.energies[finite].tolist(),
                "forces": curve.forces[finite].tolist(),
            },
        )


def dimer(element: str, distance: float) -> Atoms:
    """
    Two atoms in a periodic box of 50 Å, along x.

    Examples
    --------
    >>> round(float(dimer("H", 0.74).get_distance(0, 1)), 2)
    0.74
    """
    middle = _BOX / 2
    return Atoms([element] * 2, [[middle] * 3, [middle + distance, middle, middle]], cell=[_BOX] * 3, pbc=True)


def _score(items: Mapping[str, Any], results: Mapping[str, Values]) -> Metrics:
    """Means over the elements, each over those for which the metric exists."""
    each = [
        curve_metrics(element, Curve.of(values), items[element])
        for element, values in results.items()
        if not values.get("error")
    ]
    names = [*DIATOMICS["matris_10m_oam"], "conservation_deviation"]
    return {name: mean(metrics.get(name) for metrics in each) for name in names} | {"elements": len(each)}


def _write(run: Finished) -> None:
    """Write the curves in the layout of the board's file."""
    curves = {f"{e}-{e}": values for e, values in run.results.items() if not values.get("error")}
    reasons = {f"{e}-{e}": values["error"] for e, values in run.results.items() if values.get("error")}
    content = {
        "homo-nuclear": curves,
        "hetero-nuclear": {},
        "distances": DISTANCES.tolist(),
        "run_metadata": {"excluded_formula_reasons": reasons, "model": run.contestant.name},
    }
    with whole_file(run.folder / "diatomics-curves.json.gz") as draft, gzip.open(draft, "wt", encoding="utf-8") as file:
        json.dump(content, file, allow_nan=False)


DIATOMICS_BOARD = Board(
    name="diatomics",
    about="curves of two equal atoms, H to U, against PBE (Matbench Discovery)",
    data="the board's PBE curves, diatomics-dft.json.gz",
    read=_read,
    compute=_compute,
    score=_score,
    settings={"distances": "geomspace(0.1, 6.0, 119) Å", "box": _BOX},
    published=DIATOMICS,
    write=_write,
    # another machine changes the last digits; counts of flips and sums of jumps amplify them
    tolerance={
        "pbe_wall_dist_mae": 0.01,
        "pbe_energy_mae": 0.05,
        "pbe_bond_length_error": 0.01,
        "pbe_well_depth_error": 0.05,
        "pbe_force_mae": 0.1,
        "tortuosity": 0.02,
        "energy_diff_flips": 0.1,
        "force_flips": 0.1,
    },
)
