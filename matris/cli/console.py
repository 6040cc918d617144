"""Output of the command line: tables, machine-readable lists and progress."""

from __future__ import annotations

import json
import sys
from datetime import datetime
from typing import TYPE_CHECKING, Any, Self

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


def document_table(
    documents: Sequence[Document], *, title: str | None = None, numbered: bool = False, origins: bool = False
) -> Table:
    """
    Lay out the most important fields of candidate documents.

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
    table = Table(title=title, title_justify="left", box=None, header_style="bold", pad_edge=False)
    if numbered:
        table.add_column("#", justify="right")
    for name in ("formula", "space group"):
        table.add_column(name, no_wrap=True)
    for name in ("above hull\nmeV/atom", "formation\neV/atom", "corrected\neV/atom", "atoms"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("state", no_wrap=True)
    for name in ("checkpoint", "settings") if origins else ():
        table.add_column(name, no_wrap=True)
    table.add_column("source", overflow="ellipsis", no_wrap=True)
    for number, d in enumerate(documents, start=1):
        row = [
            d.get("formula_pretty") or "–",
            (d.get("symmetry") or {}).get("symbol") or "–",
            meV(d.get("energy_above_hull")),
            eV(d.get("formation_energy_per_atom")),
            eV(d.get("energy_per_atom"), 4),
            str(d.get("nsites") or "–"),
            f"{d['state']}{', extrapolates' if d.get('is_extrapolating') else ''}",
            *((d["checkpoint"]["key"], d["settings"]["digest"]) if origins else ()),
            origin(d),
        ]
        style = "green" if d.get("is_stable") else "red" if d["state"] in {"failed", "rejected"} else ""
        table.add_row(*([str(number)] if numbered else []), *(Text(cell, style=style) for cell in row))
    return table


def origin(document: Document) -> str:
    """Return the origin of a candidate: its file, or its prototype."""
    prototype = document.get("provenance", {}).get("prototype")
    return f"{prototype} type" if prototype else str(document["source"])


def columns_table(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> Table:
    """Lay out chosen columns."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in names:
        table.add_column(name.replace(".", ".\n"), overflow="fold")
    for values in rows:
        table.add_row(*(Text(cell(value)) for value in values))
    return table


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
            self.known = event["known"]
            self._bar.update(self._task("relax"), total=event["queued"])
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

    def _task(self, stage: str) -> TaskID:
        if stage not in self._tasks:
            self._tasks[stage] = self._bar.add_task(stage, total=None, lost="")
        return self._tasks[stage]
