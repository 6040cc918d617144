"""Parity plots of predictions against labels, with tables of errors, as an HTML page."""

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
    Draw predictions against labels, with a plot for each quantity and a colour for each set.

    Parameters
    ----------
    points
        Index of the set, label and prediction, shape (n, 3), by quantity; see `matris.training.assess.PARITY` for the
        units.
    sets
        Names of the sets.

    Returns
    -------
    plotly.graph_objects.Figure

    Examples
    --------
    >>> figure = parity_figure({"energy": np.array([[0, -5.0, -5.1], [0, -4.0, -4.2]])}, ["validation"])
    >>> figure.layout.annotations[0].text
    'Energy (eV/atom)'
    """
    import plotly.graph_objects as go
    from plotly.colors import qualitative
    from plotly.subplots import make_subplots

    titles = [f"{name[0].upper()}{name[1:]} ({PARITY[name]})" for name in points]
    figure = make_subplots(rows=(len(points) + 1) // 2, cols=2, subplot_titles=titles)
    for i, (rows, name) in enumerate(zip(points.values(), points, strict=True)):
        place = {"row": i // 2 + 1, "col": i % 2 + 1}
        for index in np.unique(rows[:, 0]).astype(int).tolist():
            members = rows[rows[:, 0] == index]
            trace = go.Scattergl(
                x=members[:, 1], y=members[:, 2], mode="markers",
                name=sets[index], legendgroup=str(index), showlegend=i == 0,
                marker={"size": 4, "opacity": 0.5, "color": qualitative.D3[index % len(qualitative.D3)]},
            )  # fmt: skip
            figure.add_trace(trace, **place)
        ends = [float(rows[:, 1:].min()), float(rows[:, 1:].max())]
        line = {"color": "grey", "width": 1}
        figure.add_trace(
            go.Scatter(x=ends, y=ends, mode="lines", line=line, showlegend=False, hoverinfo="skip"), **place
        )
        figure.update_xaxes(title_text="label", **place)
        figure.update_yaxes(title_text="prediction", **place)
        if name == "energy":
            figure.update_traces(showlegend=len(sets) > 1, selector={"mode": "markers"}, **place)
    figure.update_layout(height=480 * ((len(points) + 1) // 2), template="plotly_white", margin={"t": 40})
    return figure


def write_parity_page(
    path: Path, title: str, rows: Sequence[dict[str, Any]], figure: go.Figure, remarks: Sequence[str] = ()
) -> None:
    """
    Write a self-contained HTML page with parity plots and tables of errors.

    Parameters
    ----------
    path
        The file. It is replaced when the new page is complete.
    title
        Headline, as text.
    rows
        Errors, see `matris.training.assess.Assessment.rows`.
    figure
        The plots, see `parity_figure`.
    remarks
        Paragraphs between the plots and the tables, as text.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> row = {"kind": "all", "name": "all", **dict.fromkeys(COLUMNS), "energy_mae": 12.5}
    >>> figure = parity_figure({"energy": np.array([[0, -5.0, -5.1], [0, -4.0, -4.2]])}, ["validation"])
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "parity.html"
    ...     write_parity_page(path, "tiny", [row], figure)
    ...     "<td>12.5</td>" in path.read_text(encoding="utf-8")
    True
    """
    tables = [(heading, [row for row in rows if row["kind"] == kind]) for kind, heading in _TABLES.items()]
    write_figure_page(path, title, figure, remarks=remarks, columns=COLUMNS, tables=tables)
