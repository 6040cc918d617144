"""Output of the command line: tables, machine-readable lists and progress."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from datetime import datetime
from math import floor, isfinite, log10
from typing import TYPE_CHECKING, Any, Literal, Self

from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rich.progress import Task, TaskID

_PIPED_WIDTH = 160
_GAP = 2  # blanks between columns
_LEAST = 16  # characters of a column that shrinks
_MAX_DECIMALS = 7
_MAX_PLAIN = 1e7
_RATE_WINDOW = 300.0  # seconds over which the rate is averaged; one structure may take a minute

stderr = Console(stderr=True, highlight=False)

type Document = Mapping[str, Any]


def stdout() -> Console:
    """Return a console for results; its width is fixed where the output is no terminal."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else _PIPED_WIDTH)


def meV(energy: float | None) -> str:  # noqa: N802 (a unit)
    """Format an energy in meV, given in eV."""
    return "–" if energy is None else f"{1e3 * energy:.1f}"


def eV(energy: float | None, digits: int = 3) -> str:  # noqa: N802 (a unit)
    """Format a number, such as an energy in eV; None is a dash."""
    return "–" if energy is None else f"{energy:.{digits}f}"


@dataclass(frozen=True)
class Column:
    """
    Column of a table.

    Attributes
    ----------
    name
        Heading; the unit follows after a line break.
    cells
        Texts of all rows.
    right
        Whether they are aligned on the right, as numbers are.
    shrinks
        How a text gives way where the terminal is narrow: ``"cut"`` or ``"fold"`` (onto further lines); None for texts
        that stay whole, such as formulas and numbers.
    """

    name: str
    cells: Sequence[str]
    right: bool = False
    shrinks: Literal["cut", "fold"] | None = None


def numbers(name: str, values: Sequence[Any], digits: int | None = None) -> Column:
    r"""
    Make a column of values; its numbers have equal decimals.

    Parameters
    ----------
    name
        Heading.
    values
        Numbers, texts, booleans or None.
    digits
        Decimals. Default: see `decimals_of`.

    Examples
    --------
    >>> numbers("K\nGPa", [122.984, 64.5, None], 1).cells
    ['123.0', '64.5', '–']
    """
    floats = [value for value in values if isinstance(value, float) and isfinite(value)]
    spec = f".{digits}f" if digits is not None else decimals_of(floats)
    cells = [f"{value:{spec}}" if isinstance(value, float) else cell(value) for value in values]
    texts = any(isinstance(value, str) for value in values)
    return Column(name, cells, right=not texts)


def decimals_of(values: Sequence[float]) -> str:
    """
    Choose one format for numbers of unknown kind: four significant digits of the smallest, or powers of ten.

    Examples
    --------
    >>> decimals_of([122.4, 25.39]), decimals_of([-6.22953, -3.672]), decimals_of([0.0]), decimals_of([3e-7, 2.0])
    ('.2f', '.3f', '.1f', '.3e')
    """
    sizes = [abs(value) for value in values if value]
    if not sizes:
        return ".1f"
    digits = 3 - floor(log10(min(sizes)))
    return f".{max(digits, 0)}f" if digits <= _MAX_DECIMALS and max(sizes) < _MAX_PLAIN else ".3e"


def lay_out(
    columns: Sequence[Column], width: int | None = None, *, title: str | None = None, styles: Sequence[str] = ()
) -> tuple[Table, int]:
    """
    Lay out a table in which formulas and numbers are always whole, and texts such as sources give way.

    Parameters
    ----------
    columns
        Columns of equal length.
    width
        Characters in a line of the terminal. Default: no limit.
    title
        Title of the table.
    styles
        Style of each row. Default: none.

    Returns
    -------
    Table
        The table.
    int
        Its width, which exceeds that of a terminal that is too narrow.
    """
    widths = [max(map(cell_len, [*column.name.split("\n"), *column.cells])) for column in columns]
    gaps = _GAP * (len(columns) - 1)
    shrinking = sorted((n for n, column in enumerate(columns) if column.shrinks), key=lambda n: widths[n])
    if width is not None:
        spare = width - gaps - sum(w for w, column in zip(widths, columns, strict=True) if not column.shrinks)
        for n_left, number in zip(range(len(shrinking), 0, -1), shrinking, strict=True):
            widths[number] = min(widths[number], max(spare // n_left, _LEAST))
            spare -= widths[number]
    table = Table(
        title=title, title_justify="left", box=None, header_style="bold", padding=(0, _GAP, 0, 0), pad_edge=False
    )
    for column, column_width in zip(columns, widths, strict=True):
        folds = column.shrinks == "fold"
        table.add_column(
            Text(column.name),
            width=column_width,
            justify="right" if column.right else "left",
            no_wrap=not folds,
            overflow="fold" if folds else "ellipsis",
        )
    for number, cells in enumerate(zip(*(column.cells for column in columns), strict=True)):
        table.add_row(*(Text(text, style=styles[number] if styles else "") for text in cells))
    return table, sum(widths) + gaps


def print_table(columns: Sequence[Column], *, title: str | None = None, styles: Sequence[str] = ()) -> None:
    """Print a table to standard output, as `lay_out` makes it."""
    console = stdout()
    table, width = lay_out(columns, console.width, title=title, styles=styles)
    console.width = max(console.width, width)  # the terminal breaks lines that are too long; nothing is cut
    console.print(table)


def _state(document: Document) -> str:
    """State of a candidate, whether it is a duplicate, and whether the potential extrapolates."""
    duplicate = document["state"] != "duplicate" and document.get("duplicate_of")
    marks = (", duplicate" if duplicate else "", ", extrapolates" if document.get("is_extrapolating") else "")
    return document["state"] + "".join(marks)


def print_documents(
    documents: Sequence[Document], *, title: str | None = None, numbered: bool = False, origins: bool = False
) -> None:
    """
    Print the most important fields of candidate documents.

    Parameters
    ----------
    documents
        Documents, one per row.
    title
        Title of the table.
    numbered
        Whether rows are numbered.
    origins
        Whether columns for the checkpoint and the digest of the settings are shown.
    """
    from matris.stores.report.outcomes import origin

    def texts(name: str, values: Iterable[Any]) -> Column:
        return Column(name, [str(value or "–") for value in values])

    columns = [
        texts("formula", (d.get("formula_pretty") for d in documents)),
        texts("space group", ((d.get("symmetry") or {}).get("symbol") for d in documents)),
        Column("above hull\nmeV/atom", [meV(d.get("energy_above_hull")) for d in documents], right=True),
        Column("formation\neV/atom", [eV(d.get("formation_energy_per_atom")) for d in documents], right=True),
        Column("corrected\neV/atom", [eV(d.get("energy_per_atom"), 4) for d in documents], right=True),
        *pressures(documents),
        Column("atoms", [str(d.get("nsites") or "–") for d in documents], right=True),
        texts("state", map(_state, documents)),
    ]
    if numbered:
        columns.insert(0, Column("#", [str(number) for number in range(1, len(documents) + 1)], right=True))
    if origins:
        columns.append(texts("checkpoint", (d["checkpoint"]["key"] for d in documents)))
        columns.append(texts("settings", (d["settings"]["digest"] for d in documents)))
    columns.append(Column("source", [origin(d) for d in documents], shrinks="cut"))
    styles = [
        "green" if d.get("is_stable") else "red" if d["state"] in {"failed", "rejected"} else "" for d in documents
    ]
    print_table(columns, title=title, styles=styles)


def pressures(documents: Sequence[Document]) -> list[Column]:
    """Columns for the enthalpy and the pressure; none if all cells were relaxed at zero pressure."""
    if not any(d.get("pressure") for d in documents):
        return []
    return [
        numbers("enthalpy\neV/atom", [d.get("enthalpy_per_atom") for d in documents], 4),
        numbers("pressure\nGPa", [d.get("pressure") or 0.0 for d in documents], 1),
    ]


def print_fields(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print chosen fields of documents, with their units; long texts give way."""
    from matris.stores.documents.fields import field_named

    columns = []
    for name, values in zip(names, zip(*rows, strict=True) if rows else [()] * len(names), strict=True):
        field = field_named(name)
        head = name.replace(".", ".\n") + (f"\n{field.unit}" if field.unit else "")
        column = numbers(head, values, DECIMALS.get(field.unit or "")) if values else Column(head, [])
        long = field.name != "formula_pretty" and any(isinstance(value, str) for value in values)
        columns.append(replace(column, shrinks="fold") if long else column)
    print_table(columns)


DECIMALS = {
    "eV/atom/ps": 6,
    "eV/atom": 4,
    "eV": 4,
    "eV/Å": 4,
    "eV/Å³": 5,
    "GPa": 1,
    "THz": 3,
    "g/cm³": 3,
    "Å³": 2,
    "Å": 3,
    "K": 1,
    "J/K per mole of atoms": 2,
    "J per mole of atoms": 0,
}
"""Decimals of numbers in tables, by their unit."""


def write_json(documents: Iterable[Document]) -> None:
    """Write whole documents to standard output, one at a time."""
    separator = "[\n"
    for document in documents:
        sys.stdout.write(separator + json.dumps(document, indent=1, default=_plain))
        separator = ",\n"
    sys.stdout.write("\n]\n" if separator == ",\n" else "[]\n")


def cell(value: Any) -> str:
    """Format a value for a table: booleans as yes or no, None as a dash."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def write_columns(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Write a table as CSV to standard output; units follow the column names in square brackets."""
    from matris.stores.query.tables import csv_line

    sys.stdout.write(csv_line([name.replace("\n", " [") + "]" if "\n" in name else name for name in names]))
    sys.stdout.writelines(map(csv_line, rows))


def _plain(value: Any) -> str:
    """Convert a value that JSON does not support."""
    return value.isoformat() if isinstance(value, datetime) else str(value)


def rate(per_second: float | None) -> str:
    """Rate per second, minute or hour: the shortest unit that gives a number of at least one."""
    if not per_second:
        return "–"
    for unit, seconds in (("s", 1), ("min", 60), ("h", 3600)):
        if per_second * seconds >= 1 or unit == "h":
            break
    return f"{per_second * seconds:.1f}/{unit}"


class _RateColumn(ProgressColumn):
    """Candidates per second, minute or hour."""

    def render(self, task: Task) -> Text:
        """Return the rate of a task as text."""
        return Text(rate(task.speed), no_wrap=True)


class CampaignProgress:
    """
    Progress bars of a campaign on standard error: finished candidates, rate, remaining time and lost candidates.

    Attributes
    ----------
    known
        Number of candidates that the store held already.
    """

    def __init__(self) -> None:
        self.known = 0
        self._finished = 0
        self._lost = 0
        self._bar = Progress(
            TextColumn("{task.description}"),
            SpinnerColumn(),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            _RateColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[lost]}"),
            console=stderr,
            expand=True,
            speed_estimate_period=_RATE_WINDOW,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def watch(self, event: Mapping[str, Any]) -> None:
        """
        Show an event.

        Parameters
        ----------
        event
            Event from `matris.flows.local.runner.run`.
        """
        what = event["event"]
        if what == "read":
            self.known = max(event["known"] - event["unfinished"], 0)
            self._show_read(event)
        elif what == "stage":
            task = self._task(event["stage"])
            before = self._bar.tasks[task].total or 0 if event["stage"] == "relax" else 0  # twins of failed candidates
            self._bar.update(task, total=before + event["n"])
        elif what == "candidate":
            self._lost += event["state"] != "converged" and not event["is_reference"]
            lost = f"[red]{self._lost} lost[/red]" if self._lost else ""
            self._bar.update(self._task("relax"), advance=1, lost=lost)
        elif what == "done" and event["stage"] != "relax":
            self._bar.update(self._task(event["stage"]), advance=event["n"])
        elif what == "started" and event["n"] > 1:
            self._bar.console.print(f"{event['n']} processes compute.")
        elif what == "died":
            self._bar.console.print(f"A worker process died ({event['cause']}); another one takes over.")
        elif what == "failed":
            consequence = "it is given up" if event["given_up"] else "it is tried again"
            self._bar.console.print(
                f"A chunk of {event['n']} candidates failed; {consequence}: {escape(event['error'])}", soft_wrap=True
            )
        elif what == "waiting":
            self._bar.console.print(f"The store does not answer; waiting: {escape(event['error'])}", soft_wrap=True)

    def _show_read(self, event: Mapping[str, Any]) -> None:
        """Move the bar to what was finished before this run, which is no sample of the rate."""
        task = self._task("relax")
        self._bar.update(task, total=event["finished"] + event["unfinished"] + event["queued"])
        self._bar.tasks[task].completed += event["finished"] - self._finished
        self._finished = event["finished"]

    def _task(self, stage: str) -> TaskID:
        if stage not in self._tasks:
            self._tasks[stage] = self._bar.add_task(stage, total=None, lost="")
        return self._tasks[stage]
