"""The log of a training as one page with plots."""

from __future__ import annotations

import csv
from contextlib import contextmanager
from html import escape
from typing import TYPE_CHECKING

from matris.files.whole_file import whole_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_UNITS = {
    "energy": "energy, eV/atom",
    "force": "force, length (eV/Å)",
    "force_component": "force, component (eV/Å)",
    "stress": "stress (GPa)",
    "magmom": "magnetic moment (μB)",
    "noise": "noise, in units of σ",
    "learning_rate": "learning rate",
    "skipped": "skipped batches",
}


@contextmanager
def drawn(log: Path, page: Path, title: str, *, wanted: bool) -> Iterator[None]:
    """Draw the log at the end of the block, also after a failure or an interruption."""
    try:
        yield
    finally:
        if wanted and log.exists():
            write_curve(log, page, title)


def write_curve(log: Path, page: Path, title: str) -> None:
    """
    Draw the log of a training: losses, validation errors, learning rate.

    Parameters
    ----------
    log
        ``log.csv`` of `matris.training.trainer.train`.
    page
        Self-contained HTML file, replaced when the new one is complete.
    title
        Headline.
    """
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    with log.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    steps = [int(row["step"]) for row in rows]
    columns = {name: [float(row[name]) if row[name] else None for row in rows] for name in (rows[0] if rows else ())}
    drawn = [name for name in _UNITS if any(columns.get(name, ()))]
    figure = make_subplots(
        rows=1 + (len(drawn) + 1) // 2, cols=2, specs=[[{"colspan": 2}, None], *[[{}, {}]] * ((len(drawn) + 1) // 2)],
        subplot_titles=["loss", *(_UNITS[name] for name in drawn)],
    )  # fmt: skip
    for name, label in (("train_loss", "training"), ("loss", "validation")):
        figure.add_trace(go.Scatter(x=steps, y=columns.get(name, []), name=label, mode="lines+markers"), row=1, col=1)
    for i, name in enumerate(drawn):
        trace = go.Scatter(x=steps, y=columns[name], name=name, mode="lines+markers", showlegend=False)
        figure.add_trace(trace, row=2 + i // 2, col=1 + i % 2)
    figure.update_yaxes(type="log")
    for i, name in enumerate(drawn):
        if name in ("learning_rate", "skipped"):
            figure.update_yaxes(type="linear", row=2 + i // 2, col=1 + i % 2)
    figure.update_layout(height=330 * (1 + (len(drawn) + 1) // 2), template="plotly_white", title=escape(title))
    with whole_file(page) as draft:
        figure.write_html(draft, include_plotlyjs=True)
