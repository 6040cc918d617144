"""Status of a campaign, for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from matris.cli.console import Column, lay_out, rate
from matris.stores.report.rounds import COLUMNS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import RenderableType

    from matris.flows.campaign.status import StageStatus, Status

_PHASES = {
    "reading": "reading candidates",
    "running": "running",
    "queued": "queued: jobs wait for the cluster or for the runner",
    "cancelled": "cancelled: 'matris resume' resumes it",
    "waiting": "waiting: no process works on it; 'matris screen' with the same arguments resumes it",
    "stopped": "stopped: the first candidates all failed",
    "finished": "finished: nothing is left to compute",
}
_SHORT = {name: name.replace(" ", "\n", 1) for name in COLUMNS} | {"in the first campaign": "steps in\nthe first"}
_CHUNK_STATES = ("waiting", "taken", "done", "broken")  # in the order of the columns
_MAX_REASONS = 8
_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def status_view(status: Status) -> RenderableType:
    """Lay out the status of a campaign."""
    head = Text.assemble(
        (status.title, "bold"), f"  {status.name}  checkpoint {status.checkpoint}\n", (_PHASES[status.phase], "cyan")
    )
    read = f"{_count(status.read)} read"
    counts = [(status.identical, "identical"), (status.known, "known already")]
    counts += [(status.references, "competing phases added")]
    counts += [(sum(kinds.values()), f"dropped at {stage}") for stage, kinds in status.dropped.items()]
    read += "".join(f", {_count(count)} {label}" for count, label in counts if count)
    parts: list[RenderableType] = [head, Text(read)]
    if status.jobs:
        parts.append(
            Text(f"submitted to {status.cluster}: " + ", ".join(f"{n} {state}" for state, n in status.jobs.items()))
        )
    parts.append(_stages(status))
    reasons = {f"{stage}: {kind}": n for stage, kinds in status.dropped.items() for kind, n in kinds.items()}
    reasons |= {kind: reasons.get(kind, 0) + n for kind, n in status.lost.items()}
    if reasons:
        parts.append(_reasons(reasons))
    parts += [Text(f"chunk given up: {error}", style="red") for error in status.broken[:_MAX_REASONS]]
    if status.stopped:
        parts.append(Text(status.stopped, style="red"))
    if status.incomplete:
        parts.append(Text(status.incomplete, style="yellow"))
    if status.deaths:
        parts.append(
            Text(f"{_count(status.deaths)} times a process died on a chunk; another one took it over", style="yellow")
        )
    if status.jobs.get("ended"):
        parts.append(
            Text(
                "results of ended jobs are collected by a job 'matris supervise' or by 'matris resume'", style="yellow"
            )
        )
    if status.jobs.get("lost"):
        parts.append(
            Text("lost jobs are submitted again when the next job ends, or by 'matris resume'", style="yellow")
        )
    if status.rounds:
        parts += [Text("Rounds of learning", style="bold"), rounds_table(status.rounds)]
        parts += [Text(remark) for remark in status.learning]
    return Group(*parts)


def rounds_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Lay out the table of rounds, without columns that are empty."""
    columns = [Column(_SHORT[name] + (f"\n{unit}" if unit else ""), [_cell(row[name]) for row in rows], right=True)
               for name, unit in COLUMNS.items() if any(row[name] is not None for row in rows)]  # fmt: skip
    return lay_out(columns)[0]


def _cell(value: Any) -> str:
    """Format a value of the table of rounds."""
    if value is None or isinstance(value, bool):
        return "–" if value is None else "yes" if value else "no"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _stages(status: Status) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("stage", no_wrap=True)
    table.add_column("", width=24)
    for name in ("candidates", "chunks\nwaiting", "\nrunning", "\ndone", "\ngiven up", "rate", "remaining"):
        table.add_column(name, justify="right", no_wrap=True)
    for stage in status.stages:
        table.add_row(*_row(stage))
    return table


def _row(stage: StageStatus) -> list[RenderableType]:
    total, done = sum(stage.candidates.values()), stage.candidates["done"]
    counts = [_count(stage.chunks[state]) if stage.chunks[state] else "–" for state in _CHUNK_STATES]
    bar = ProgressBar(total=max(total, 1), completed=done, width=24)
    return [stage.stage, bar, f"{_count(done)}/{_count(total)}", *counts, rate(stage.rate), duration(stage.remaining)]


def _reasons(reasons: Mapping[str, int]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("lost", justify="right")
    table.add_column("reason", overflow="fold")
    ordered = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    for reason, count in ordered[:_MAX_REASONS]:
        table.add_row(_count(count), Text(reason))
    if rest := sum(count for _, count in ordered[_MAX_REASONS:]):
        table.add_row(_count(rest), "for other reasons")
    return table


def duration(seconds: float | None) -> str:
    """Format a duration, rounded to minutes, hours or days."""
    if seconds is None:
        return "–"
    if seconds < _MINUTE:
        return "< 1 min"
    if seconds < _HOUR:
        return f"{seconds / _MINUTE:.0f} min"
    return f"{seconds / _HOUR:.1f} h" if seconds < _DAY else f"{seconds / _DAY:.1f} d"


def _count(number: int) -> str:
    return f"{number:,}".replace(",", "\u202f")
