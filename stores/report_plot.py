"""Interactive pictures of convex hulls of two and three elements."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
from pymatgen.core import Composition

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pymatgen.entries.computed_entries import ComputedEntry

_DRAWABLE = (2, 3)
_COLOUR_RANGE = 200.0
"""Distance above the hull (meV/atom) at which the colour scale ends."""

_GREEN = "#1a7f4b"
_LINE = "#8796a5"
_FONT = {"family": "system-ui, -apple-system, Segoe UI, Roboto, Helvetica, Arial, sans-serif", "size": 13}


@dataclass(frozen=True)
class HullPoint:
    """
    One phase in a hull plot.

    Parameters
    ----------
    formula
        What it is called.
    composition
        Element symbol to amount.
    formation_energy
        eV/atom.
    above_hull
        eV/atom; None for a phase of a reference set, which is drawn as such.
    label
        Further line for the hover text.
    """

    formula: str
    composition: Mapping[str, float]
    formation_energy: float
    above_hull: float | None
    label: str = ""


def hull_points(documents: Iterable[Mapping[str, Any]]) -> list[HullPoint]:
    """Phases with a hull distance among candidate documents."""
    return [
        HullPoint(
            formula=document["formula_pretty"],
            composition=document["composition_reduced"],
            formation_energy=document["formation_energy_per_atom"],
            above_hull=document["energy_above_hull"],
            label=(document.get("symmetry") or {}).get("symbol") or "",
        )
        for document in documents
        if document.get("hull_state") == "ok" and document.get("formation_energy_per_atom") is not None
    ]


def drawable_systems(points: Sequence[HullPoint]) -> list[tuple[str, ...]]:
    """
    Chemical systems worth a picture: of two or three elements, with at least one compound.

    If all phases together have no more than three elements, those are a system, whether or not a phase has all.

    Returns
    -------
    list of tuple
        Sorted element symbols; systems with most phases come first.
    """
    spaces = Counter(frozenset(p.composition) for p in points if p.above_hull is not None)
    systems = {space for space in (*spaces, frozenset().union(*spaces)) if len(space) in _DRAWABLE}
    size = {space: sum(n for part, n in spaces.items() if part <= space) for space in systems}
    return [tuple(sorted(space)) for space in sorted(systems, key=lambda s: (-size[s], -len(s), sorted(s)))]


def hull_figure(
    system: Sequence[str], points: Sequence[HullPoint], references: Sequence[HullPoint] | None = None
) -> str:
    """
    Draw the phases of one chemical system and its convex hull of formation energies.

    Parameters
    ----------
    system
        Two or three element symbols.
    points
        Phases; those outside the system are left out.
    references
        Phases that make up the hull in place of `points`.

    Returns
    -------
    str
        JSON of a plotly figure, safe inside a ``<script>`` element.
    """
    import plotly.graph_objects as go

    competing = [point for point in (points if references is None else references) if _within(point, system)]
    corners, edges = _hull(system, competing)
    inside = [point for point in (*(references or ()), *points) if _within(point, system)]
    groups = _groups(inside, corners)
    figure = go.Figure(layout={"font": _FONT, "paper_bgcolor": "white", "plot_bgcolor": "white"})
    (_draw_binary if len(system) == _DRAWABLE[0] else _draw_ternary)(figure, system, corners, edges, groups)
    figure.update_layout(margin={"l": 70, "r": 30, "t": 30, "b": 60}, legend={"orientation": "h", "y": -0.12})
    content: str = figure.to_json()
    json.loads(content)
    return content.replace("</", "<\\/")


type _Edges = Sequence[tuple[int, int]]
type _Groups = Sequence[tuple[str, list[HullPoint], dict[str, Any]]]


def _within(point: HullPoint, system: Sequence[str]) -> bool:
    """Whether a phase belongs to a chemical system."""
    return set(point.composition) <= set(system)


def _draw_binary(
    figure: Any, system: Sequence[str], corners: Sequence[HullPoint], edges: _Edges, groups: _Groups
) -> None:
    """Draw formation energy against the fraction of the second element."""
    xs: list[float | None] = []
    ys: list[float | None] = []
    for i, j in edges:
        xs += [_fraction(corners[i], system[1]), _fraction(corners[j], system[1]), None]
        ys += [corners[i].formation_energy, corners[j].formation_energy, None]
    line = {"color": _LINE, "width": 1.5}
    figure.add_scatter(x=xs, y=ys, mode="lines", line=line, hoverinfo="skip", name="convex hull")
    for name, group, style in groups:
        figure.add_scatter(
            x=[_fraction(p, system[1]) for p in group],
            y=[p.formation_energy for p in group],
            name=name,
            **style,
        )
    axis = {"gridcolor": "#eef1f4", "zerolinecolor": "#c7d0d8"}
    figure.update_xaxes(title=f"atomic fraction of {system[1]} in {system[0]}–{system[1]}", range=[-0.04, 1.04], **axis)
    figure.update_yaxes(title="formation energy (eV/atom)", **axis)


def _draw_ternary(
    figure: Any, system: Sequence[str], corners: Sequence[HullPoint], edges: _Edges, groups: _Groups
) -> None:
    """Draw compositions in a triangle, joined where phases coexist on the hull."""
    keys = ("a", "b", "c")
    lines: dict[str, list[float | None]] = {key: [] for key in keys}
    for i, j in edges:
        for key, element in zip(keys, system, strict=True):
            lines[key] += [_fraction(corners[i], element), _fraction(corners[j], element), None]
    style = {"color": _LINE, "width": 1.2}
    figure.add_scatterternary(**lines, mode="lines", line=style, hoverinfo="skip", name="coexistence on the hull")
    for name, group, marker_style in groups:
        at = {k: [_fraction(p, element) for p in group] for k, element in zip(keys, system, strict=True)}
        figure.add_scatterternary(**at, name=name, **marker_style)
    axes = {
        f"{key}axis": {
            "title": element,
            "showgrid": False,
            "layer": "below traces",
            "ticks": "",
            "showticklabels": False,
        }
        for key, element in zip(keys, system, strict=True)
    }
    figure.update_layout(ternary={"sum": 1, "bgcolor": "white", **axes})


def _groups(points: Sequence[HullPoint], corners: Sequence[HullPoint]) -> _Groups:
    """Sort out reference, unstable and stable phases with the style of each, in drawing order."""
    reference = [p for p in points if p.above_hull is None]
    unstable = sorted(
        (p for p in points if p.above_hull is not None and p.above_hull > 0), key=lambda p: -(p.above_hull or 0)
    )
    stable = [p for p in points if p.above_hull is not None and p.above_hull <= 0]
    colour = {
        "color": [1e3 * (p.above_hull or 0) for p in unstable],
        "cmin": 0,
        "cmax": _COLOUR_RANGE,
        "colorscale": [[0, "#2a9d8f"], [0.35, "#e9c46a"], [1, "#c8553d"]],
        "colorbar": {"title": {"text": "meV/atom<br>above hull"}, "thickness": 12, "len": 0.6},
    }
    styles: list[tuple[str, list[HullPoint], dict[str, Any]]] = [
        ("reference", reference, {"marker": {"symbol": "square-open", "size": 7, "color": _LINE, "opacity": 0.5}}),
        ("above the hull", unstable, {"marker": {"size": 9, "line": {"width": 0.5, "color": "white"}, **colour}}),
        ("stable", stable, {"marker": {"size": 12, "color": _GREEN, "line": {"width": 1, "color": "white"}}}),
    ]
    result = []
    for name, group, style in styles:
        if not group:
            continue
        text = {"text": _labels(group, corners), "textposition": "top center", "mode": "markers+text"}
        hover = {"cliponaxis": False, "hovertext": [_hover(p) for p in group], "hoverinfo": "text"}
        result.append((name, group, {**style, **text, **hover}))
    return result


def _labels(group: Sequence[HullPoint], corners: Sequence[HullPoint]) -> list[str]:
    """Write the formula of each compound at a corner of the hull; axes name the elements."""
    return [_formula(p.formula) if len(p.composition) > 1 and p in corners else "" for p in group]


def _hover(point: HullPoint) -> str:
    """Hover text of one phase."""
    formation = f"formation energy {point.formation_energy:.3f} eV/atom"
    distance = "reference phase" if point.above_hull is None else f"{1e3 * point.above_hull:.1f} meV/atom above hull"
    return "<br>".join((f"<b>{_formula(point.formula)}</b> {point.label}", formation, distance))


def _formula(formula: str) -> str:
    """Set the numbers of a formula as subscripts."""
    return re.sub(r"(\d+(?:\.\d+)?)", r"<sub>\1</sub>", formula)


def _fraction(point: HullPoint, element: str) -> float:
    """Atomic fraction of an element."""
    return point.composition.get(element, 0.0) / sum(point.composition.values())


def _hull(system: Sequence[str], points: Sequence[HullPoint]) -> tuple[list[HullPoint], list[tuple[int, int]]]:
    """Corners of the lower convex hull and the edges between them; the elements count as zero."""
    elements = [HullPoint(e, {e: 1.0}, 0.0, None) for e in system]
    candidates = [*elements, *(p for p in points if len(p.composition) > 1)]
    entries = [
        PDEntry(Composition(p.composition), p.formation_energy * sum(p.composition.values()), attribute=i)
        for i, p in enumerate(candidates)
    ]
    diagram = PhaseDiagram(entries)
    edges = {
        (min(i, j), max(i, j))
        for facet in diagram.facets
        for n, i in enumerate(map(int, facet))
        for j in map(int, facet[n + 1 :])
    }
    vertices = sorted({vertex for edge in edges for vertex in edge})
    place = {vertex: number for number, vertex in enumerate(vertices)}
    corners = [candidates[diagram.qhull_entries[vertex].attribute] for vertex in vertices]
    return corners, sorted((place[i], place[j]) for i, j in edges)


def reference_points(entries: Iterable[ComputedEntry]) -> list[HullPoint]:
    """
    Compounds of a reference set with their formation energies.

    Parameters
    ----------
    entries
        Corrected entries.

    Returns
    -------
    list of HullPoint
        Of at most three elements; those whose elements are not all in the set are left out.
    """
    listed = list(entries)
    pure: dict[str, float] = {}
    for entry in listed:
        if entry.is_element:
            symbol = entry.composition.chemical_system
            pure[symbol] = min(entry.energy_per_atom, pure.get(symbol, entry.energy_per_atom))
    points = []
    for entry in listed:
        symbols = entry.composition.chemical_system_set
        if entry.is_element or len(symbols) > _DRAWABLE[1] or not symbols <= pure.keys():
            continue
        fractions = entry.composition.fractional_composition.get_el_amt_dict()
        formation = entry.energy_per_atom - sum(x * pure[symbol] for symbol, x in fractions.items())
        reduced = entry.composition.reduced_composition.get_el_amt_dict()
        points.append(HullPoint(entry.reduced_formula, reduced, formation, None, str(entry.entry_id or "")))
    return points
