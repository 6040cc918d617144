"""Predictions beside labels, as one HTML page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from matris.training.assess import COLUMNS, PARITY
from matris.training.page import write_figure_page

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import plotly.graph_objects as go
    from numpy.typing import NDArray

_TABLES = {"all": "Errors", "set": "By set", "element": "By element"}


def parity_figure(points: Mapping[str, NDArray[np.float64]], sets: Sequence[str]) -> go.Figure:
    """
    Draw predictions over labels, a plot for each quantity and a colour for each set.

    Parameters
    ----------
    points
        By quantity: set, label and prediction, shape (n, 3).
    sets
        Their names.

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
    Write a page with tables of errors and parity plots that needs nothing else.

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
    tables = [(heading, [row for row in rows if row["kind"] == kind]) for kind, heading in _TABLES.items()]
    write_figure_page(path, title, figure, remarks=remarks, columns=COLUMNS, tables=tables)
