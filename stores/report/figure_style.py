"""Shared code of the pictures of property documents: reading a document, and the style of a figure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from markupsafe import Markup
from pydantic import BaseModel

from matris.stores.report.formats import formula_html

if TYPE_CHECKING:
    from collections.abc import Mapping

    import plotly.graph_objects as go

type Document = Mapping[str, Any] | BaseModel

ACCENT = "#0b6e75"
BAD = "#b3261e"
GOOD = "#1a7f4b"
SECOND = "#c07a12"
THIRD = "#5b4b9a"
LINE = "#8796a5"
STRONG = "#c7d0d8"
GRID = "#e9edf1"
INK = "#1b2733"
PAPER = "#ffffff"

PALETTE = {
    ACCENT: "--accent",
    BAD: "--bad",
    GOOD: "--good",
    SECOND: "--second",
    THIRD: "--third",
    LINE: "--strong",
    STRONG: "--axis",
    GRID: "--grid",
    INK: "--ink",
    PAPER: "--paper",
}
"""Names, in page.css, of the colours of figures: a page in the dark mode draws each in the dark colour of its name."""

FONT = {
    "family": "system-ui, -apple-system, Segoe UI, Roboto, Helvetica, Arial, sans-serif",
    "size": 13,
    "color": INK,
}
MODEBAR = {"bgcolor": "rgba(0,0,0,0)", "color": LINE, "activecolor": ACCENT}


@dataclass(frozen=True)
class Picture:
    """A plotly figure as JSON text with its caption and its height in pixels, or the problem with it."""

    content: str = ""
    height: int = 0
    caption: str = ""
    problem: str = ""

    @classmethod
    def of(cls, figure: go.Figure) -> Self:
        """
        Convert a figure. Its title becomes the caption, as a page breaks lines and plotly does not.

        Parameters
        ----------
        figure
            Figure by `titled`, whose title is escaped.
        """
        title, height = figure.layout.title.text, figure.layout.height
        shown = type(figure)(figure)
        shown.update_layout(title_text=None, height=None, margin_t=24)
        return cls(str(shown.to_json()), height, Markup(title or ""))  # noqa: S704 - see above


def read(document: Document, *needed: str) -> tuple[str, dict[str, Any]]:
    """
    Return the name of the material, for a title, and the fields of a document.

    Raises
    ------
    ValueError
        If a needed field is missing; the message names the field and the reason.
    """
    fields = dict(document.model_dump() if isinstance(document, BaseModel) else document)
    material = fields.get("formula_pretty") or fields.get("candidate_id") or "the document"
    for field in needed:
        value = fields.get(field)
        if value is None or (isinstance(value, (list, tuple, dict)) and not value):
            why = fields.get("error") or ("the material failed" if fields.get("state") == "failed" else None)
            raise ValueError(f"{material} has no {field}" + (f": {why}" if why else ""))
        if isinstance(value, dict) and "blob_uuid" in value:
            raise ValueError(f"{field} of {material} is in the additional store: read the document with load=True")
    return str(formula_html(str(material))), fields


def subplots(**layout: Any) -> go.Figure:
    """Make an empty figure of subplots in the style of the reports."""
    from plotly.subplots import make_subplots

    figure = make_subplots(**layout)
    figure.update_layout(template="none", font=FONT, paper_bgcolor=PAPER, plot_bgcolor=PAPER, modebar=MODEBAR)
    axis = {"gridcolor": GRID, "zeroline": False, "showline": True, "linecolor": LINE, "mirror": True}
    axis |= {"title_font_size": 13}
    figure.update_xaxes(**axis)
    figure.update_yaxes(title_standoff=12, **axis)
    return figure


def titled(figure: go.Figure, title: str, height: int) -> go.Figure:
    """Set title, height, margins and legend of a figure."""
    legend = {"orientation": "h", "x": 1, "xanchor": "right", "y": 1.01, "yanchor": "bottom"}
    heading = {"text": title, "x": 0.01, "xanchor": "left", "y": 0.98, "yanchor": "top", "font": {"size": 15}}
    margin = {"l": 76, "r": 24, "t": 56, "b": 52}
    figure.update_layout(title=heading, height=height, margin=margin, legend=legend, hovermode="closest")
    return figure


def curve(figure: go.Figure, x: Any, y: Any, name: str, colour: str, hover: str, **place: int) -> None:
    """Draw a curve."""
    text = f"{name}<br>%{{x:.4g}}: {hover}<extra></extra>"
    figure.add_scatter(
        x=np.asarray(x, dtype=float),
        y=np.asarray(y, dtype=float),
        mode="lines",
        line={"color": colour, "width": 2},
        name=name,
        hovertemplate=text,
        **place,
    )
