"""Tables about sets of labelled frames and training errors, for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.markup import escape
from rich.table import Table

from matris.cli.console import Column, cell, lay_out, numbers
from matris.training.assess import COLUMNS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from matris.training.data.dataset import DataSet
    from matris.training.finetuning import Tuned

_PER_ROW = 6  # elements
_TUNED = {
    "energy": ("meV/atom", 1e3),
    "force": ("meV/Å", 1e3),
    "force_component": ("meV/Å", 1e3),
    "stress": ("GPa", 1.0),
    "magmom": ("μB", 1.0),
}  # unit, and factor from eV and Å, of each error
_FEW = 20  # frames of an element, below which training hardly learns it


def data_view(data: DataSet) -> RenderableType:
    """Lay out the content of a set: counts, sources, labels, elements, and frames left out."""
    meta = data.meta
    left_out = sum(meta["rejected"].values())
    head = (
        f"[bold]{escape(str(data.path))}[/bold]: {meta['n_frames']} frames of {meta['n_materials']} materials, "
        f"{meta['n_training']} to train on and {meta['n_validation']} set aside; "
        f"energy scale {escape(meta['energy_scale'] or 'unknown')}"
    )
    parts: list[RenderableType] = [
        head,
        "",
        _sources(meta["sources"]),
        "",
        _labels(meta["labels"]),
        "",
        _elements(meta),
    ]
    if left_out:
        share = left_out / (left_out + meta["n_frames"])
        parts += ["", _reasons(meta["rejected"]), f"{left_out} frames left out ({share:.1%}), listed in rejected.csv"]
    rare = [symbol for symbol, counts in meta["elements"].items() if counts["frames"] < _FEW]
    if rare:
        parts.append(f"In fewer than {_FEW} frames: {', '.join(rare)}")
    return Group(*parts)


def tuned_table(tuned: Tuned) -> Table:
    """Lay out the validation errors before and after fine-tuning, on new and on replayed frames."""
    names = [name for name in _TUNED if name in tuned.after or name in tuned.old_after]
    rows = {
        "new, before": tuned.before,
        "new, after": tuned.after,
        "old, before": tuned.old_before,
        "old, after": tuned.old_after,
    }
    rows = {label: errors for label, errors in rows.items() if errors}
    columns = [Column("", list(rows))]
    for name in names:
        unit, factor = _TUNED[name]
        values = [factor * errors[name] if name in errors else None for errors in rows.values()]
        columns.append(numbers(f"{name.replace('_', ' ')}\n{unit}", values))
    return lay_out(columns)[0]


def error_table(rows: Sequence[dict[str, Any]]) -> Table:
    """Lay out errors, one set or element per line; empty columns are omitted."""
    names = [name for name in COLUMNS if any(row[name] is not None for row in rows)]
    columns = [Column("", [row["name"] for row in rows])]
    for name in names:
        head = f"{name.replace('_', '\n', 1).replace('_', ' ')}\n{COLUMNS[name]}"
        columns.append(numbers(head, [row[name] for row in rows]))
    return lay_out(columns)[0]


def _table(names: Sequence[str]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for i, name in enumerate(names):
        table.add_column(name, justify="right" if i else "left", no_wrap=True)
    return table


def _sources(sources: Sequence[dict[str, Any]]) -> Table:
    table = _table(("source", "frames", "left out", "energy rise / work\nof forces", "\nof stress"))
    for source in sources:
        work = [
            f"{ratio['ratio']:.2f} ({ratio['pairs']})" if (ratio := source["work"].get(name)) else "not comparable"
            for name in ("forces", "stress")
        ]
        if (signs := source["pressures"]) is not None:
            work[1] = f"same sign as {signs['key']}: {signs['agreeing']:.0%} ({signs['n_frames']})"
        table.add_row(escape(source["name"]), str(source["n_frames"]), str(source["n_rejected"]), *work)
    return table


def _labels(labels: dict[str, dict[str, float]]) -> Table:
    names = ("n", "mean", "std", "min", "median", "p99", "max")
    table = _table(("label", *names))
    for label, statistics in labels.items():
        table.add_row(label, *(cell(statistics[name]) for name in names))
    return table


def _elements(meta: dict[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False, title="Frames with an element", title_justify="left")
    rows = [f"[bold]{symbol}[/bold] {counts['frames']}" for symbol, counts in meta["elements"].items()]
    for _ in range(_PER_ROW):
        table.add_column()
    for start in range(0, len(rows), _PER_ROW):
        table.add_row(*rows[start : start + _PER_ROW])
    return table


def _reasons(rejected: dict[str, int]) -> Table:
    table = _table(("left out because", "frames"))
    for reason, n in rejected.items():
        table.add_row(escape(reason), str(n))
    return table
