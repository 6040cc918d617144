"""Convex hulls of a campaign: figures of small chemical systems, and a table of all systems."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

from markupsafe import Markup

from matris.stores.report.figure_style import Picture
from matris.stores.report.formats import grouped
from matris.stores.report.hull_figure import hull_figures
from matris.stores.report.hull_points import drawable_systems, inside

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matris.stores.report.hull_points import HullPoint
    from matris.stores.report.tally import System, Tally

MAX_PLOTS = 60
"""Largest number of hulls that a page draws."""

MAX_SYSTEMS = 500
"""Largest number of chemical systems in the table."""

_FIGURE_POINTS = 1500  # phases in one figure
_HEIGHT = 500  # pixels
_CAPTIONS = {
    2: (Markup("Formation energy against composition"),),
    3: (Markup("Phases that coexist on the hull"), Markup("Formation energy above the triangle, eV/atom")),
    4: (Markup("Phases that coexist on the hull"),),
}


class Hulls(NamedTuple):
    """
    Convex hulls on a page.

    Attributes
    ----------
    figures
        Element symbols of a chemical system and its pictures. Systems with most phases come first.
    systems
        Names of chemical systems and their counts. Systems with most survivors come first.
    notes
        Sentences below the figures.
    """

    figures: Sequence[tuple[Sequence[str], Sequence[Picture]]]
    systems: Sequence[tuple[str, System]]
    notes: Sequence[str]


def hulls(tally: Tally, references: Sequence[HullPoint] | None) -> Hulls:
    """
    Draw the hulls of chemical systems of two to four elements, and list all systems.

    Parameters
    ----------
    tally
        Counts of all documents.
    references
        Phases that make up the hull in place of the candidates.
    """
    phases = tally.phases
    systems = drawable_systems({system: len(points) for system, points in phases.items()})
    reference_phases = None if references is None else _by_system(references)
    figures = []
    for system in systems[:MAX_PLOTS]:
        points = sorted(inside(phases, system), key=lambda point: point.above_hull or 0)[:_FIGURE_POINTS]
        corners = None if reference_phases is None else inside(reference_phases, system)
        drawn = hull_figures(system, points, corners)
        captions = _CAPTIONS[len(system)]
        pictures = [Picture(json.dumps(f, allow_nan=False), _HEIGHT, c) for f, c in zip(drawn, captions, strict=True)]
        figures.append((system, pictures))
    notes = [_sentence(tally)]
    if not systems:
        notes.append("No chemical system of two to four elements has a hull.")
    if len(systems) > MAX_PLOTS:
        notes.append(f"{grouped(len(systems) - MAX_PLOTS)} further chemical systems are not drawn.")
    if any(len(points) == tally.phase_limit for points in phases.values()):
        notes.append(f"Only the {tally.phase_limit} phases nearest to the hull of each chemical system are drawn.")
    return Hulls(figures, sorted(tally.systems.items(), key=_place)[:MAX_SYSTEMS], notes)


def _by_system(points: Sequence[HullPoint]) -> dict[str, list[HullPoint]]:
    systems: dict[str, list[HullPoint]] = {}
    for point in points:
        systems.setdefault("-".join(sorted(point.composition)), []).append(point)
    return systems


def _sentence(tally: Tally) -> str:
    """Name the hull types and reference sets."""
    names = "; ".join(f"{hull_type} ({name})" if name else hull_type for hull_type, name in sorted(tally.hulls))
    return (
        f"Hull: {names}. Lines connect phases that coexist on it."
        if names
        else "No candidate has a distance to the hull."
    )


def _place(item: tuple[str, System]) -> tuple[int, float, str]:
    """Sort key of a chemical system: most survivors first, then the smallest distance to the hull."""
    name, system = item
    return -system.survivors, system.best[0] if system.best else float("inf"), name
