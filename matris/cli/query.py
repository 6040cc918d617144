"""Commands that look things up: `query` (results in a store) and `models` (checkpoints)."""

from __future__ import annotations

import sys
from pathlib import Path  # noqa: TC003 - typer reads it
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.markup import escape
from rich.table import Table

from matris.cli.console import columns_table, document_table, stderr, stdout, write_json
from matris.cli.options import Store, check_there, clear_errors

if TYPE_CHECKING:
    from matris.stores.query.query import CandidateQuery

_PAGE = 50


def query(
    text: Annotated[
        str | None,
        typer.Argument(metavar="FILTER", help="Such as 'has Fe, O and ehull <= 50 meV'.", show_default="all"),
    ] = None,
    formula: Annotated[str | None, typer.Option(metavar="FORMULA", help="Reduced formula, such as Fe2O3.")] = None,
    chemsys: Annotated[str | None, typer.Option(metavar="A-B-C", help="Exactly these elements.")] = None,
    elements: Annotated[str | None, typer.Option(metavar="A,B", help="At least these elements.")] = None,
    below: Annotated[float | None, typer.Option(metavar="EV", help="Above the hull by at most this (eV/atom).")] = None,
    state: Annotated[str | None, typer.Option(help="What became of it: converged, max_steps, failed, …")] = None,
    sort: Annotated[
        str, typer.Option(metavar="A,-B", help="Fields to sort by; -FIELD for the largest first.")
    ] = "energy_above_hull",
    best_per: Annotated[
        str | None, typer.Option(metavar="FIELD", help="Only the first by --sort of each, such as chemsys.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Most results.", show_default=f"{_PAGE} in a table, else all")
    ] = None,
    page: Annotated[int, typer.Option(metavar="N", min=1, help="Which page of --limit results.")] = 1,
    columns: Annotated[
        str | None, typer.Option(metavar="A,B.C", help="Fields of a table or CSV, dotted in sub-documents.")
    ] = None,
    output: Annotated[
        Literal["table", "json", "jsonl", "csv"], typer.Option("--format", help="What to print.")
    ] = "table",
    structures: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write the relaxed structures there, as CIF.")
    ] = None,
    count: Annotated[bool, typer.Option("--count", help="Print only how many there are.")] = False,
    store: Store = None,
) -> None:
    """
    Find results in the store. The language of FILTER, with examples, is in docs/queries.md.

    `matris query 'has Fe, O and ehull <= 50 meV and not phonon.has_imaginary_modes'`

    `matris query --elements Fe,O --format csv > iron-oxides.csv`
    """
    with clear_errors():
        from matris.stores.candidate_store import CandidateStore

        check_there(store)
        asked = CandidateStore.open(store).query(
            formula=formula, chemsys=chemsys, elements=_names(elements), below=below, state=state
        )
        asked = (asked if text is None else asked.where(text)).sort(*_names(sort) or ())
        if best_per is not None:
            asked = asked.best_of(best_per)
        if count:
            stdout().print(asked.count())
        else:
            _show_found(asked, page, limit, output, _names(columns), structures)


def models() -> None:
    """List the checkpoints: energy scale, predictions, whether at hand; what the embedded ones are worth."""
    with clear_errors():
        from matris.files.cache import cache_directory
        from matris.model import checkpoints
        from matris.model.card_text import limits, measured_errors

        table = Table(box=None, header_style="bold", pad_edge=False)
        for name in ("key", "energy scale", "predicts", "file", "at hand", "trained on"):
            table.add_column(name, no_wrap=name != "trained on")
        embedded = [
            checkpoints.read_file(checkpoints.locate(key))[1] for key in (checkpoints.EMBEDDED, checkpoints.LARGE)
        ]
        for card in embedded:
            table.add_row(
                card.key, card.energy_scale, card.predicts, "in the package", "[green]yes[/green]", card.description
            )
        for entry in checkpoints.REGISTRY.values():
            at_hand = "[green]yes[/green]" if entry.path.exists() else "no"
            table.add_row(entry.key, entry.energy_scale, entry.predicts, entry.file, at_hand, entry.trained_on)
        out = stdout()
        out.print(table)
        out.print(
            f"Files are looked for in {escape(str(cache_directory()))}; missing ones are downloaded there.",
            soft_wrap=True,
        )
        out.print("Without a network, place them there.")
        for card in embedded:
            if errors := measured_errors(card):
                out.print(f"\n[bold]{escape(card.key)}: measured errors[/bold]")
                out.print(columns_table(["set", "what", "value"], errors))
            for number, sentence in enumerate(limits(card)):
                heading = "" if number else f"\n[bold]{escape(card.key)}: where it must not be used[/bold]\n"
                out.print(f"{heading}{escape(sentence)}", soft_wrap=True)


def _names(listed: str | None) -> list[str] | None:
    """Split what an option lists."""
    return [name.strip() for name in listed.split(",")] if listed else None


def _show_found(
    asked: CandidateQuery, page: int, limit: int | None, output: str, columns: list[str] | None, folder: Path | None
) -> None:
    """Print a page of what was found, and write its structures if there is a folder for them."""
    from matris.stores.query.tables import COLUMNS, expanded, json_ready, row, write_cif

    size = limit or (_PAGE if output == "table" or page > 1 else None)
    shown = asked if size is None else asked.page(page, size)
    if output == "json":
        write_json(map(json_ready, shown))
    elif output == "jsonl":
        shown.to_jsonl(sys.stdout)
    elif output == "csv":
        shown.to_csv(sys.stdout, columns or COLUMNS)
    else:
        found = list(shown)
        names = expanded(columns) if columns else []
        table = columns_table(names, [row(d, names) for d in found]) if columns else document_table(found)
        stdout().print(table)
        total = asked.count() if page > 1 or len(found) == size else len(found)
        stderr.print(f"{total} found" if total == len(found) else f"{len(found)} of {total} found, page {page}")
    if folder is not None:
        stderr.print(f"{write_cif(shown.structures(), folder)} structures in {escape(str(folder))}")
