"""Interactive pictures of convex hulls of two to four elements."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from markupsafe import escape
from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
from pymatgen.core import Composition

from matris.stores.report.figure_style import FONT, GOOD, GRID, LINE, MODEBAR, PAPER, STRONG
from matris.stores.report.formats import formula_html
from matris.stores.report.hull_points import SCALE, SCALE_END, HullPoint

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_LABELS = 40  # formulas in a picture
_TETRAHEDRON = ((0.0, 0.0, 0.0), (1.0, 0.0, 0.0), (0.5, 0.8660, 0.0), (0.5, 0.2887, 0.8165))
_TRIANGLE = ((0.0, 0.0), (1.0, 0.0), (0.5, 0.8660))
_AROUND = {
    "eye": {"x": 1.35, "y": -1.0, "z": 0.95},
    "center": {"x": 0, "y": 0, "z": -0.08},
    "projection": {"type": "orthographic"},
}
"""View of a tetrahedron in which no corner lies behind the others."""

_ABOVE = {"eye": {"x": 0.45, "y": -1.75, "z": 0.75}, "projection": {"type": "orthographic"}}

type _Figure = tuple[list[dict[str, Any]], dict[str, Any]]
type _Groups = Sequence[tuple[str, list[HullPoint], dict[str, Any]]]


class _Hull(NamedTuple):
    """Corners of a lower convex hull, and the pairs and the simplices of corners that bound it, by index."""

    corners: list[HullPoint]
    edges: list[tuple[int, int]]
    facets: list[tuple[int, ...]]


def hull_figures(
    system: Sequence[str], points: Sequence[HullPoint], references: Sequence[HullPoint] | None = None
) -> list[dict[str, Any]]:
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
    list of dict
        JSON-ready plotly figures. Two elements: formation energy against composition. Three: compositions in a
        triangle, and formation energy above this triangle in space. Four: compositions in a tetrahedron. Formation
        energies are in eV/atom, distances to the hull in meV/atom.

    Examples
    --------
    >>> oxide = HullPoint("MgO", {"Mg": 1.0, "O": 1.0}, formation_energy=-3.0, above_hull=0.0)
    >>> (figure,) = hull_figures(("Mg", "O"), [oxide])
    >>> [trace["name"] for trace in figure["data"]]
    ['convex hull', 'stable']
    """
    hull = _hull(system, points if references is None else references)
    shown = [*(references or ()), *points]
    named = {p.formula for p in hull.corners[:_LABELS] if len(p.composition) > 1}
    groups = _groups(shown, named)
    draw = {2: (_binary,), 3: (_ternary, _energies), 4: (_quaternary,)}[len(system)]
    common = {
        "font": FONT,
        "paper_bgcolor": PAPER,
        "plot_bgcolor": PAPER,
        "hovermode": "closest",
        "modebar": MODEBAR,
        "margin": {"l": 20, "r": 20, "t": 30, "b": 60},
        "legend": {"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom", "x": 0},
    }
    figures = []
    for each in draw:
        traces, layout = each(system, hull, groups)
        figures.append({"data": traces, "layout": common | layout})
    return figures


def _binary(system: Sequence[str], hull: _Hull, groups: _Groups) -> _Figure:
    """Draw formation energy against the atomic fraction of the second element."""
    ends = [(_fraction(point, system[1]), point.formation_energy) for point in hull.corners]
    x, y = _lines(ends, hull.edges)
    line = {"color": LINE, "width": 1.5}
    traces: list[dict[str, Any]] = [_hull_line("scatter", "convex hull", line, x=x, y=y)]
    for name, group, style in groups:
        at = {"x": [_fraction(p, system[1]) for p in group], "y": [p.formation_energy for p in group]}
        traces.append({"type": "scatter", "name": name, "cliponaxis": False, **at, **style})
    axis = {"gridcolor": GRID, "zerolinecolor": STRONG, "linecolor": STRONG}
    title = f"atomic fraction of {system[1]} in {system[0]}–{system[1]}"
    return traces, {
        "xaxis": {"title": {"text": title, "standoff": 8}, "range": [-0.04, 1.04], "automargin": True, **axis},
        "yaxis": {"title": {"text": "formation energy (eV/atom)", "standoff": 8}, "automargin": True, **axis},
        "margin": {"l": 60, "r": 20, "t": 30, "b": 90},
    }


def _ternary(system: Sequence[str], hull: _Hull, groups: _Groups) -> _Figure:
    """Draw compositions in a triangle, with lines between phases that coexist on the hull."""
    keys = ("a", "b", "c")
    lines = _lines([[_fraction(point, element) for element in system] for point in hull.corners], hull.edges)
    line = {"color": LINE, "width": 1.2}
    traces = [_hull_line("scatterternary", "tie lines", line, **dict(zip(keys, lines, strict=True)))]
    for name, group, style in groups:
        at = {k: [_fraction(p, element) for p in group] for k, element in zip(keys, system, strict=True)}
        traces.append({"type": "scatterternary", "name": name, "cliponaxis": False, **at, **style})
    corners = {key: [float(n == m) for m in range(3)] for n, key in enumerate(keys)}
    beside = ["top center", "bottom left", "bottom right"]
    names = {"mode": "markers+text", "text": list(system), "textposition": beside, "textfont": {"size": 16}}
    blank = {"marker": {"size": 13, "opacity": 0}, "hoverinfo": "skip", "showlegend": False, "meta": "fixed"}
    traces.append({"type": "scatterternary", "name": "elements", "cliponaxis": False, **corners, **names, **blank})
    plain = {"showgrid": False, "layer": "below traces", "ticks": "", "showticklabels": False, "linecolor": LINE}
    axes = {f"{key}axis": {**plain, "title": {"text": ""}} for key in keys}
    layout = {"ternary": {"sum": 1, "bgcolor": PAPER, **axes}, "margin": {"l": 45, "r": 45, "t": 45, "b": 75}}
    return traces, layout


def _energies(system: Sequence[str], hull: _Hull, groups: _Groups) -> _Figure:
    """Draw formation energy above the triangle of compositions, and the hull below it as a surface."""
    ends = [_above_triangle(point, system) for point in hull.corners]
    columns = dict(zip("xyz", map(list, zip(*ends, strict=True)), strict=True))
    surface = {
        "type": "mesh3d",
        "name": "convex hull",
        **columns,
        **dict(zip("ijk", map(list, zip(*hull.facets, strict=True)), strict=True)),
        "color": LINE,
        "opacity": 0.35,
        "flatshading": True,
        "hoverinfo": "skip",
    }
    lines = dict(zip("xyz", _lines(ends, hull.edges), strict=True))
    traces = [surface, _hull_line("scatter3d", "convex hull", {"color": LINE, "width": 2}, **lines)]
    around = [(*_TRIANGLE[n % 3], 0.0) for n in range(4)]
    rim = dict(zip("xyz", map(list, zip(*around, strict=True)), strict=True))
    traces.append({**_hull_line("scatter3d", "elements", {"color": STRONG, "width": 2}, **rim), "showlegend": False})
    places = {element: (*_TRIANGLE[n], 0.0) for n, element in enumerate(system)}
    labelled = _in_space(traces, groups, places, lambda point: _above_triangle(point, system))
    axis = {"gridcolor": GRID, "zerolinecolor": STRONG, "linecolor": STRONG, "showbackground": False}
    scene = {
        "xaxis": {"visible": False},
        "yaxis": {"visible": False},
        "zaxis": {"title": {"text": ""}, "nticks": 5, "tickfont": {"size": 11}, **axis},
        "aspectmode": "manual",
        "aspectratio": {"x": 1.5, "y": 1.3, "z": 1.2},
        "camera": _ABOVE,
    }
    return traces, {"scene": scene | labelled, "margin": {"l": 0, "r": 0, "t": 10, "b": 45}}


def _quaternary(system: Sequence[str], hull: _Hull, groups: _Groups) -> _Figure:
    """Draw compositions in a tetrahedron, with lines between phases that coexist on the hull."""
    lines = _lines([_in_tetrahedron(point, system) for point in hull.corners], hull.edges)
    line = {"color": LINE, "width": 2}
    traces = [_hull_line("scatter3d", "tie lines", line, **dict(zip("xyz", lines, strict=True)))]
    places = dict(zip(system, _TETRAHEDRON, strict=True))
    labelled = _in_space(traces, groups, places, lambda point: _in_tetrahedron(point, system))
    hidden = {f"{axis}axis": {"visible": False} for axis in "xyz"}
    ratio = {axis: 1.5 * max(corner[n] for corner in _TETRAHEDRON) for n, axis in enumerate("xyz")}
    scene = {**hidden, "aspectmode": "manual", "aspectratio": ratio, "camera": _AROUND}
    return traces, {"scene": scene | labelled, "margin": {"l": 0, "r": 0, "t": 10, "b": 45}}


def _in_space(
    traces: list[dict[str, Any]],
    groups: _Groups,
    elements: Mapping[str, tuple[float, ...]],
    place: Callable[[HullPoint], tuple[float, float, float]],
) -> dict[str, Any]:
    """
    Add the traces of phases in space, and return the annotations of the scene: elements and formulas.

    The page moves annotations apart where they collide, which it cannot do with texts of a 3D trace.
    """
    plain = {"showarrow": False, "xanchor": "center", "yanchor": "middle"}
    labels = [
        {**plain, **dict(zip("xyz", at, strict=True)), "text": f"<b>{element}</b>", "font": {"size": 16}}
        for element, at in elements.items()
    ]
    for name, group, style in groups:
        places = [place(point) for point in group]
        columns = dict(zip("xyz", map(list, zip(*places, strict=True)), strict=True))
        marker = style["marker"] | {"size": 0.6 * style["marker"]["size"]}  # plotly draws markers larger in 3D
        texts = style["text"]
        flat = {key: value for key, value in style.items() if key not in {"text", "textposition"}}
        traces.append({"type": "scatter3d", "name": name, **columns, **flat, "marker": marker, "mode": "markers"})
        labels += [
            {**plain, **dict(zip("xyz", at, strict=True)), "text": text, "font": {"size": 12}}
            for at, text in zip(places, texts, strict=True)
            if text
        ]
    return {"annotations": labels}


def _hull_line(kind: str, name: str, line: dict[str, Any], **at: Any) -> dict[str, Any]:
    """Make the trace of the lines of the hull."""
    return {"type": kind, "name": name, "mode": "lines", "line": line, "hoverinfo": "skip", **at}


def _lines(ends: Sequence[Sequence[float]], edges: Sequence[tuple[int, int]]) -> list[list[float | None]]:
    """Coordinates of line segments between points, axis by axis; None separates the segments."""
    paths: list[list[float | None]] = [[] for _ in ends[0]]
    for i, j in edges:
        for path, start, end in zip(paths, ends[i], ends[j], strict=True):
            path += [start, end, None]
    return paths


def _in_tetrahedron(point: HullPoint, system: Sequence[str]) -> tuple[float, float, float]:
    """Cartesian coordinates of a composition in the tetrahedron."""
    shares = [_fraction(point, element) for element in system]
    x, y, z = (
        sum(share * corner[axis] for share, corner in zip(shares, _TETRAHEDRON, strict=True)) for axis in range(3)
    )
    return x, y, z


def _above_triangle(point: HullPoint, system: Sequence[str]) -> tuple[float, float, float]:
    """Cartesian coordinates of a composition in the triangle, and the formation energy."""
    shares = [_fraction(point, element) for element in system]
    x, y = (sum(share * corner[axis] for share, corner in zip(shares, _TRIANGLE, strict=True)) for axis in range(2))
    return x, y, point.formation_energy


def _groups(points: Sequence[HullPoint], named: set[str]) -> _Groups:
    """Group reference, unstable and stable phases with the style of each group, in drawing order."""
    reference = [p for p in points if p.above_hull is None]
    unstable = sorted(
        (p for p in points if p.above_hull is not None and p.above_hull > 0), key=lambda p: -(p.above_hull or 0)
    )
    stable = [p for p in points if p.above_hull is not None and p.above_hull <= 0]
    colour = {
        "color": [1e3 * (p.above_hull or 0) for p in unstable],
        "cmin": 0,
        "cmax": SCALE_END,
        "colorscale": [list(stop) for stop in SCALE],
        "showscale": False,  # the page has one for all its hulls
    }
    styles: list[tuple[str, list[HullPoint], dict[str, Any]]] = [
        ("reference", reference, {"symbol": "square-open", "size": 7, "color": LINE, "opacity": 0.5}),
        ("above the hull", unstable, {"size": 9, "line": {"width": 0.5, "color": PAPER}, **colour}),
        ("stable", stable, {"size": 12, "color": GOOD, "line": {"width": 1, "color": PAPER}}),
    ]
    result = []
    for name, group, marker in styles:
        if not group:
            continue
        text = [
            "" if name == "above the hull" or p.formula not in named else str(formula_html(p.formula)) for p in group
        ]
        style: dict[str, Any] = {"marker": marker, "text": text, "textposition": "top center", "mode": "markers+text"}
        result.append((name, group, {**style, "hovertext": [_hover(p) for p in group], "hoverinfo": "text"}))
    return result


def _hover(point: HullPoint) -> str:
    """Hover text of one phase."""
    formation = f"formation energy {point.formation_energy:.3f} eV/atom"
    distance = "reference phase" if point.above_hull is None else f"{1e3 * point.above_hull:.1f} meV/atom above hull"
    return "<br>".join((f"<b>{formula_html(point.formula)}</b> {escape(point.label)}", formation, distance))


def _fraction(point: HullPoint, element: str) -> float:
    """Atomic fraction of an element."""
    return point.composition.get(element, 0.0) / sum(point.composition.values())


def _hull(system: Sequence[str], points: Sequence[HullPoint]) -> _Hull:
    """Compute the lower convex hull of some phases; elements have formation energy 0."""
    elements = [HullPoint(e, {e: 1.0}, 0.0, None) for e in system]
    candidates = [*elements, *(p for p in points if len(p.composition) > 1)]
    entries = [
        PDEntry(Composition(p.composition), p.formation_energy * sum(p.composition.values()), attribute=i)
        for i, p in enumerate(candidates)
    ]
    diagram = PhaseDiagram(entries)
    facets = [tuple(map(int, facet)) for facet in diagram.facets]
    edges = {(min(i, j), max(i, j)) for facet in facets for n, i in enumerate(facet) for j in facet[n + 1 :]}
    vertices = sorted({vertex for edge in edges for vertex in edge})
    place = {vertex: number for number, vertex in enumerate(vertices)}
    return _Hull(
        [candidates[diagram.qhull_entries[vertex].attribute] for vertex in vertices],
        sorted((place[i], place[j]) for i, j in edges),
        [tuple(place[vertex] for vertex in facet) for facet in facets],
    )
