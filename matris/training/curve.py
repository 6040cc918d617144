"""The log of a training as an HTML page with plots."""

from __future__ import annotations

import csv
from contextlib import contextmanager
from typing import TYPE_CHECKING

from matris.training.page import write_figure_page

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_UNITS = {
    "energy": "energy (eV/atom)",
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
    """Draw the log when the block ends, even if the training fails or is interrupted."""
    try:
        yield
    finally:
        if wanted and log.exists():
            write_curve(log, page, title)


def write_curve(log: Path, page: Path, title: str) -> None:
    r"""
    Draw the log of a training: losses, each validation error, learning rate.

    Parameters
    ----------
    log
        ``log.csv`` of `matris.training.trainer.train`.
    page
        Self-contained HTML file. It is replaced when the new page is complete.
    title
        Headline, as text.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     log, page = Path(folder) / "log.csv", Path(folder) / "log.html"
    ...     _ = log.write_text("step,train_loss,loss,energy\n1,0.5,0.6,0.1\n2,0.4,0.5,0.05\n")
    ...     write_curve(log, page, "Training of tiny")
    ...     "<h1>Training of tiny</h1>" in page.read_text(encoding="utf-8")
    True
    """
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    with log.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    steps = [int(row["step"]) for row in rows]
    columns = {name: [float(row[name]) if row[name] else None for row in rows] for name in (rows[0] if rows else ())}
    quantities = [name for name in _UNITS if any(columns.get(name, ()))]
    n_pairs = (len(quantities) + 1) // 2  # rows of two plots below the loss
    figure = make_subplots(
        rows=1 + n_pairs, cols=2, specs=[[{"colspan": 2}, None], *[[{}, {}]] * n_pairs],
        subplot_titles=["loss", *(_UNITS[name] for name in quantities)],
    )  # fmt: skip
    for name, label in (("train_loss", "training"), ("loss", "validation")):
        figure.add_trace(go.Scatter(x=steps, y=columns.get(name, []), name=label, mode="lines+markers"), row=1, col=1)
    for i, name in enumerate(quantities):
        trace = go.Scatter(x=steps, y=columns[name], name=name, mode="lines+markers", showlegend=False)
        figure.add_trace(trace, row=2 + i // 2, col=1 + i % 2)
    figure.update_yaxes(type="log")
    for i, name in enumerate(quantities):
        if name in ("learning_rate", "skipped"):
            figure.update_yaxes(type="linear", row=2 + i // 2, col=1 + i % 2)
    figure.update_layout(height=330 * (1 + n_pairs), template="plotly_white", margin={"t": 40})
    write_figure_page(page, title, figure)
