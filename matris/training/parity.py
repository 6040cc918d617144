"""Predictions beside labels, as one HTML page."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from matris.files.whole_file import whole_file
from matris.training.assess import COLUMNS, PARITY

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import plotly.graph_objects as go
    from numpy.typing import NDArray

_STYLE = (
    "body{font:15px system-ui,sans-serif;margin:2em auto;max-width:75em;padding:0 1em}"
    "table{border-collapse:collapse;margin:1em 0}td,th{padding:.15em .7em;text-align:right}"
    "td:first-child,th:first-child{text-align:left}tr:nth-child(even){background:#f4f4f4}"
)


def parity_figure(points: Mapping[str, NDArray[np.float64]], sets: Sequence[str]) -> go.Figure:
    """
    Plot predictions against labels, with one plot per quantity and one colour per set.

    Parameters
    ----------
    points
        Set, label and prediction by quantity, shape (n, 3).
    sets
        Names of the sets.

    Returns
    -------
    plotly.graph_objects.Figure
    """
    import plotly.graph_objects as go
    from plotly.colors import qualitative
    from plotly.subplots import make_subplots

    titles = [f"{name[0].upper()}{name[1:]} ({PARITY[name]})" for name in points]
    figure = make_subplots(rows=(len(points) + 1) // 2, cols=2, subplot_titles=titles)
    for i, (rows, name) in enumerate(zip(points.values(), points, strict=True)):
        at = {"row": i // 2 + 1, "col": i % 2 + 1}
        for index in np.unique(rows[:, 0]).astype(int).tolist():
            mine = rows[rows[:, 0] == index]
            trace = go.Scattergl(
                x=mine[:, 1], y=mine[:, 2], mode="markers", name=sets[index], legendgroup=str(index), showlegend=i == 0,
                marker={"size": 4, "opacity": 0.5, "color": qualitative.D3[index % len(qualitative.D3)]},
            )  # fmt: skip
            figure.add_trace(trace, **at)
        ends = [float(rows[:, 1:].min()), float(rows[:, 1:].max())]
        line = {"color": "grey", "width": 1}
        figure.add_trace(go.Scatter(x=ends, y=ends, mode="lines", line=line, showlegend=False, hoverinfo="skip"), **at)
        figure.update_xaxes(title_text="label", **at)
        figure.update_yaxes(title_text="prediction", **at)
        if name == "energy":
            figure.update_traces(showlegend=len(sets) > 1, selector={"mode": "markers"}, **at)
    figure.update_layout(height=480 * ((len(points) + 1) // 2), template="plotly_white", margin={"t": 40})
    return figure


def write_parity_page(
    path: Path, title: str, rows: Sequence[dict[str, Any]], figure: go.Figure, remarks: Sequence[str] = ()
) -> None:
    """
    Write a self-contained page with tables of errors and parity plots.

    Parameters
    ----------
    path
        The file; it is replaced when the new one is complete.
    title
        Headline.
    rows
        As `matris.training.assess.Assessment.rows` gives them.
    figure
        The plots.
    remarks
        What the reader must know.
    """
    parts = [f"<h1>{escape(title)}</h1>", *(f"<p>{escape(remark)}</p>" for remark in remarks)]
    for kind, headline in (("all", "Errors"), ("set", "By set"), ("element", "By element")):
        chosen = [row for row in rows if row["kind"] == kind]
        if chosen:
            parts += [f"<h2>{headline}</h2>", _table(chosen)]
    plots = figure.to_html(full_html=False, include_plotlyjs=True)
    page = (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head><body>{''.join(parts[:1])}{plots}{''.join(parts[1:])}</body></html>\n"
    )
    with whole_file(path) as draft:
        draft.write_text(page, encoding="utf-8")


def _table(rows: Sequence[dict[str, Any]]) -> str:
    heads = ["", *(f"{name.replace('_', ' ')}{f'<br>{unit}' if unit else ''}" for name, unit in COLUMNS.items())]
    lines = ["".join(f"<th>{head}</th>" for head in heads)]
    for row in rows:
        cells = [escape(row["name"]), *(_shown(row[name]) for name in COLUMNS)]
        lines.append("".join(f"<td>{cell}</td>" for cell in cells))
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
