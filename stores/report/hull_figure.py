"""Interactive pictures of convex hulls of two to four elements."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
from pymatgen.core import Composition

from matris.stores.report.hull_points import HullPoint

if TYPE_CHECKING:
    from collections.abc import Sequence

_COLOUR_RANGE = 200.0
"""Upper end of the colour scale: distance above the hull, meV/atom."""

_GREEN = "#1a7f4b"
_LINE = "#8796a5"
_FONT = {"family": "system-ui, -apple-system, Segoe UI, Roboto, Helvetica, Arial, sans-serif", "size": 13}
_LABELS = 40  # formulas in a picture
_CORNERS = ((0.0, 0.0, 0.0), (1.0, 0.0, 0.0), (0.5, 0.8660, 0.0), (0.5, 0.2887, 0.8165))
"""Corners of a regular tetrahedron."""

type _Edges = Sequence[tuple[int, int]]
type _Groups = Sequence[tuple[str, list[HullPoint], dict[str, Any]]]
type _Figure = tuple[list[dict[str, Any]], dict[str, Any]]


def hull_figure(
    system: Sequence[str], points: Sequence[HullPoint], references: Sequence[HullPoint] | None = None
) -> dict[str, Any]:
    """
    Draw the phases of one chemical system and its convex hull of formation energies.

    Parameters
    ----------
    system
        Two to four element symbols.
    points
        Phases of the system and its subsystems.
    references
        Reference phases of the system and its subsystems; they make up the hull in place of `points`.

    Returns
    -------
    dict
        JSON-ready plotly figure; formation energies in eV/atom, distances to the hull in meV/atom.

    Examples
    --------
    >>> oxide = HullPoint("MgO", {"Mg": 1.0, "O": 1.0}, formation_energy=-3.0, above_hull=0.0)
    >>> figure = hull_figure(("Mg", "O"), [oxide])
    >>> [trace["name"] for trace in figure["data"]]
    ['convex hull', 'stable']
    """
    corners, edges = _hull(system, points if references is None else references)
    shown = [*(references or ()), *points]
    named = {p.formula for p in corners[:_LABELS] if len(p.composition) > 1}
    groups = _groups(shown, named, flat=len(system) < len(_CORNERS))
    draw = {2: _binary, 3: _ternary, 4: _quaternary}[len(system)]
    traces, layout = draw(system, corners, edges, groups)
    common = {
        "font": _FONT,
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
        "hovermode": "closest",
        "margin": {"l": 70, "r": 30, "t": 30, "b": 60},
        "legend": {"orientation": "h", "y": -0.12},
    }
    return {"data": traces, "layout": common | layout}


def _binary(system: Sequence[str], corners: Sequence[HullPoint], edges: _Edges, groups: _Groups) -> _Figure:
    """Draw formation energy against the atomic fraction of the second element."""
    ends = [(_fraction(point, system[1]), point.formation_energy) for point in corners]
    x, y = _lines(ends, edges)
    line = {"color": _LINE, "width": 1.5}
    traces: list[dict[str, Any]] = [_hull_line("scatter", "convex hull", line, x=x, y=y)]
    for name, group, style in groups:
        at = {"x": [_fraction(p, system[1]) for p in group], "y": [p.formation_energy for p in group]}
        traces.append({"type": "scatter", "name": name, "cliponaxis": False, **at, **style})
    axis = {"gridcolor": "#eef1f4", "zerolinecolor": "#c7d0d8", "linecolor": "#c7d0d8"}
    title = f"atomic fraction of {system[1]} in {system[0]}–{system[1]}"
    return traces, {
        "xaxis": {"title": {"text": title}, "range": [-0.04, 1.04], **axis},
        "yaxis": {"title": {"text": "formation energy (eV/atom)"}, **axis},
    }


def _ternary(system: Sequence[str], corners: Sequence[HullPoint], edges: _Edges, groups: _Groups) -> _Figure:
    """Draw compositions in a triangle, with lines between phases that coexist on the hull."""
    keys = ("a", "b", "c")
    lines = _lines([[_fraction(point, element) for element in system] for point in corners], edges)
    line = {"color": _LINE, "width": 1.2}
    traces = [_hull_line("scatterternary", "coexistence on the hull", line, **dict(zip(keys, lines, strict=True)))]
    for name, group, style in groups:
        at = {k: [_fraction(p, element) for p in group] for k, element in zip(keys, system, strict=True)}
        traces.append({"type": "scatterternary", "name": name, "cliponaxis": False, **at, **style})
    plain = {"showgrid": False, "layer": "below traces", "ticks": "", "showticklabels": False, "linecolor": _LINE}
    axes = {f"{key}axis": {"title": {"text": element}, **plain} for key, element in zip(keys, system, strict=True)}
    return traces, {"ternary": {"sum": 1, "bgcolor": "white", **axes}}


def _quaternary(system: Sequence[str], corners: Sequence[HullPoint], edges: _Edges, groups: _Groups) -> _Figure:
    """Draw compositions in a tetrahedron, with lines between phases that coexist on the hull."""
    x, y, z = _lines([_in_space(point, system) for point in corners], edges)
    line = {"color": _LINE, "width": 2}
    traces = [_hull_line("scatter3d", "coexistence on the hull", line, x=x, y=y, z=z)]
    for name, group, style in groups:
        places = zip(*(_in_space(p, system) for p in group), strict=True)
        traces.append({"type": "scatter3d", "name": name, **dict(zip("xyz", map(list, places), strict=True)), **style})
    names = {"mode": "text", "text": list(system), "textfont": {"size": 17}, "hoverinfo": "skip", "showlegend": False}
    at = dict(zip("xyz", map(list, zip(*_CORNERS, strict=True)), strict=True))
    traces.append({"type": "scatter3d", **at, **names})
    hidden = {"visible": False}
    camera = {"eye": {"x": 0.3, "y": -1.6, "z": 0.5}}
    return traces, {"scene": {"xaxis": hidden, "yaxis": hidden, "zaxis": hidden, "camera": camera}}


def _hull_line(kind: str, name: str, line: dict[str, Any], **at: Any) -> dict[str, Any]:
    """Make the trace of the lines of the hull."""
    return {"type": kind, "name": name, "mode": "lines", "line": line, "hoverinfo": "skip", **at}


def _lines(ends: Sequence[Sequence[float]], edges: _Edges) -> list[list[float | None]]:
    """Coordinates of line segments between points, axis by axis; None separates the segments."""
    paths: list[list[float | None]] = [[] for _ in ends[0]]
    for i, j in edges:
        for path, start, end in zip(paths, ends[i], ends[j], strict=True):
            path += [start, end, None]
    return paths


def _in_space(point: HullPoint, system: Sequence[str]) -> tuple[float, float, float]:
    """Cartesian coordinates of a composition in the tetrahedron."""
    shares = [_fraction(point, element) for element in system]
    x, y, z = (sum(share * corner[axis] for share, corner in zip(shares, _CORNERS, strict=True)) for axis in range(3))
    return x, y, z


def _groups(points: Sequence[HullPoint], named: set[str], *, flat: bool) -> _Groups:
    """Group reference, unstable and stable phases with the style of each group, in drawing order."""
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
    scale = 1.0 if flat else 0.6  # plotly draws markers larger in 3D
    styles: list[tuple[str, list[HullPoint], dict[str, Any]]] = [
        ("reference", reference, {"symbol": "square-open", "size": 7 * scale, "color": _LINE, "opacity": 0.5}),
        ("above the hull", unstable, {"size": 9 * scale, "line": {"width": 0.5, "color": "white"}, **colour}),
        ("stable", stable, {"size": 12 * scale, "color": _GREEN, "line": {"width": 1, "color": "white"}}),
    ]
    result = []
    for name, group, marker in styles:
        if not group:
            continue
        text = ["" if name == "above the hull" or p.formula not in named else _formula(p.formula) for p in group]
        style: dict[str, Any] = {"marker": marker, "text": text, "textposition": "top center", "mode": "markers+text"}
        result.append((name, group, {**style, "hovertext": [_hover(p) for p in group], "hoverinfo": "text"}))
    return result


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
    """Vertices of the lower convex hull and the edges between them; elements have formation energy 0."""
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
