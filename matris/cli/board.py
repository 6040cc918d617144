"""The command `matris board`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.markup import escape

from matris.cli.console import Column, cell, print_table, stderr, stdout
from matris.cli.options import Checkpoint, Device, clear_errors

if TYPE_CHECKING:
    from matris.boards.contestants import Contestant
    from matris.boards.run import BoardResult

DIFFERS = 4
"""Exit code of a board whose metrics differ from the published ones."""


def board(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the board; 'list' lists all.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Folder for the results: one for each checkpoint.")
    ] = Path("board"),
    checkpoint: Checkpoint = None,
    peer: Annotated[
        str | None,
        typer.Option(
            "--peer",
            metavar="MODULE:CLASS(…)",
            help="Measure an ASE calculator or torch-sim model, named by the call that makes it, not a checkpoint.",
        ),
    ] = None,
    python: Annotated[
        Path | None,
        typer.Option("--python", metavar="FILE", help="Interpreter of another environment that has the peer and ASE."),
    ] = None,
    label: Annotated[
        str | None,
        typer.Option("--name", metavar="TEXT", help="Name of the peer in the results.", show_default="its call"),
    ] = None,
    energy_scale: Annotated[
        str,
        typer.Option(
            "--energy-scale",
            metavar="SCALE",
            help="Energy scale of the peer: mp, omat24, matpes-pbe, matpes-r2scan, or mp2020-corrected (CHGNet).",
        ),
    ] = "mp",
    data: Annotated[
        Path | None, typer.Option("--data", metavar="FILE|DIR", help="Data of the board (docs/boards.md).")
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", metavar="N", min=1, help="Compute the first N items only.")
    ] = None,
    compare: Annotated[
        str | None,
        typer.Option(
            "--compare", metavar="NAME", help="Published result to compare with.", show_default="the checkpoint's"
        ),
    ] = None,
    shard: Annotated[
        str, typer.Option("--shard", metavar="I/N", help="Compute part I of N, from 1: one process or job each.")
    ] = "1/1",
    merge: Annotated[
        list[Path] | None,
        typer.Option("--merge", metavar="DIR", exists=True, help="Take over the results of a part; may be repeated."),
    ] = None,
    device: Device = None,
    dtype: Annotated[
        Literal["float32", "float64"], typer.Option("--dtype", help="Floating-point type of a checkpoint's numbers.")
    ] = "float32",
) -> None:
    """
    Run a public benchmark: print its metrics, write them to files, and compare them with published values.

    Run the same command again to resume. The exit code is 4 if a metric differs from the published one by more than
    the protocol explains.

    `matris board diatomics --data diatomics-dft.json.gz --output results`
    """
    with clear_errors():
        from matris.boards.catalogue import BOARDS
        from matris.boards.contestants import checkpoint as load_checkpoint
        from matris.boards.contestants import peer as make_peer
        from matris.boards.run import run_board
        from matris.nearest import did_you_mean

        if name == "list":
            print_table([Column("board", list(BOARDS)), Column("measures", [b.about for b in BOARDS.values()])])
            return
        if name not in BOARDS:
            raise typer.BadParameter(f"there is no board {name!r}{did_you_mean(name, list(BOARDS))}")
        if peer is not None and checkpoint is not None:
            raise typer.BadParameter("give --checkpoint or --peer, not both")
        if python is not None and peer is None:
            raise typer.BadParameter("--python needs --peer")
        part = _part(shard)
        contestant: Contestant = (
            make_peer(peer, python, energy_scale, label) if peer else load_checkpoint(checkpoint, device, dtype)
        )
        result = run_board(
            BOARDS[name],
            contestant,
            output,
            data=data,
            limit=limit,
            compare=compare,
            shard=part,
            merge=merge or (),
            progress=stderr.is_terminal,
        )
        _show(name, result, output)


def _part(text: str) -> tuple[int, int]:
    """Read I/N: the number of a part, from 0, and how many there are."""
    number, _, parts = text.partition("/")
    if not (number.isdecimal() and parts.isdecimal() and 1 <= int(number) <= int(parts)):
        raise typer.BadParameter(f"--shard {text}: write I/N, such as 3/8")
    return int(number) - 1, int(parts)


def _show(name: str, result: BoardResult, folder: Path) -> None:
    """Print metrics beside published values, and what differs or failed."""
    document = result.document
    published = {c.metric: c for c in result.comparisons}
    metrics = document["metrics"]
    columns = [Column(name, list(metrics)), Column("value", [cell(value) for value in metrics.values()], right=True)]
    if published:
        values = [published[metric].published if metric in published else None for metric in metrics]
        columns.append(Column(f"published\n{document['compared_with']}", [cell(v) for v in values], right=True))
    print_table(columns, title=f"{document['contestant']['name']}: {document['n_items']} items")
    stdout().print(f"Files: {escape(str(folder / name))}.json, .md, .jsonl", soft_wrap=True)
    if document["failures"]:
        key, reason = next(iter(document["failures"].items()))
        message = f"{len(document['failures'])} of {document['n_items']} items failed; the first, {key}: {reason}"
        stderr.print(f"[yellow]{escape(message)}[/yellow]", soft_wrap=True)
    for remark in document["remarks"]:
        stderr.print(f"[yellow]{escape(remark)}[/yellow]", soft_wrap=True)
    if not document["is_whole"]:
        stderr.print("[yellow]A part of the board: no metrics to publish or compare.[/yellow]")
    for comparison in result.differences:
        stderr.print(
            f"[red bold]DIFFERS[/red bold] {comparison.metric}: {comparison.value}, published {comparison.published} "
            f"(tolerance {comparison.tolerance})",
            soft_wrap=True,
        )
    if result.differences:
        raise typer.Exit(DIFFERS)
