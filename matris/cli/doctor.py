"""The command `matris doctor`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from matris.cli.console import stdout, write_columns, write_json
from matris.cli.options import FAILURE, Checkpoint, Device, Format, Store, clear_errors

if TYPE_CHECKING:
    from matris.flows.doctor.finding import Finding

_COLOURS = {"ok": "green", "note": "yellow", "wrong": "red"}


def doctor(
    checkpoint: Checkpoint = None,
    device: Device = None,
    store: Store = None,
    project: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Project of jobflow-remote whose database and runner must answer.",
            show_default="checked if there is one",
        ),
    ] = None,
    output: Format = "table",
) -> None:
    """
    Check this machine before anything runs: what is missing, and what to do.

    Python and its packages, torch, device, C compiler, folders, disks, jobflow's configuration, the store, the project
    of jobflow-remote, and the checkpoint. Nothing is downloaded. The exit code is 1 if a line is wrong; notes are no
    obstacle.

    `matris doctor --checkpoint matris_10m_oam --store campaign`
    """
    with clear_errors(resumes=False):
        from matris.flows.doctor.examination import examine

        findings: list[Finding] = []
        for finding in examine(checkpoint=checkpoint, device=device, store=store, project=project):
            findings.append(finding)
            if output == "table":
                _show(finding)
        if output == "json":
            write_json([finding._asdict() for finding in findings])
        elif output == "csv":
            write_columns(list(findings[0]._fields), [list(finding) for finding in findings])
        if any(finding.state == "wrong" for finding in findings):
            raise typer.Exit(FAILURE)


def _show(finding: Finding) -> None:
    """Print a line, and what to do on a line of its own."""
    mark = f"[{_COLOURS[finding.state]}]{finding.state:5}[/{_COLOURS[finding.state]}]"
    stdout().print(f"{mark} {finding.check:10} {escape(finding.message)}", soft_wrap=True)
    if finding.remedy:
        stdout().print(f"{'':16} → {escape(finding.remedy)}", soft_wrap=True)
