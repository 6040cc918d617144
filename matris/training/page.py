"""A figure with tables of errors as one HTML file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from matris.files.whole_file import whole_file

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import plotly.graph_objects as go


def write_figure_page(
    path: Path,
    title: str,
    figure: go.Figure,
    *,
    remarks: Sequence[str] = (),
    columns: Mapping[str, str] | None = None,
    tables: Sequence[tuple[str, Sequence[Mapping[str, Any]]]] = (),
) -> None:
    """
    Write a self-contained HTML page of one figure.

    Parameters
    ----------
    path
        The file. It is replaced when the new page is complete.
    title
        Headline, as text.
    figure
        Plotly figure.
    remarks
        Paragraphs below the figure, as text.
    columns
        Columns of the tables and their units.
    tables
        Heading and rows of each table; a row has a ``name`` and a value for each column. Empty tables are left out.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("matris.training"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("figure.html").render(
        title=title,
        figure=Markup(figure.to_html(full_html=False, include_plotlyjs=True)),  # noqa: S704 - plotly escapes its JSON
        remarks=remarks,
        columns=columns or {},
        tables=tables,
    )
    with whole_file(path) as draft:
        draft.write_text(page, encoding="utf-8")
