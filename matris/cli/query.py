"""Commands that look things up: query (results in a store) and models (checkpoints)."""

from __future__ import annotations

import sys
from pathlib import Path  # noqa: TC003 - typer reads it
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.markup import escape
from rich.table import Table

from matris.cli.console import (
    Column,
    print_documents,
    print_fields,
    print_table,
    stderr,
    stdout,
    write_columns,
    write_json,
)
from matris.cli.options import Format, Store, WithReferences, clear_errors, require_results

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matris.model.checkpoints import Published
    from matris.stores.candidate_store import CandidateStore
    from matris.stores.query.query import CandidateQuery

_PAGE_SIZE = 50  # rows of a table


def query(
    text: Annotated[
        str | None,
        typer.Argument(metavar="FILTER", help="Filter, such as 'has Fe, O and ehull <= 50 meV'.", show_default="all"),
    ] = None,
    formula: Annotated[str | None, typer.Option(metavar="FORMULA", help="Reduced formula, such as Fe2O3.")] = None,
    chemsys: Annotated[
        str | None, typer.Option(metavar="A-B-C", help="Chemical system: exactly these elements.")
    ] = None,
    elements: Annotated[str | None, typer.Option(metavar="A,B", help="Elements: at least these.")] = None,
    below: Annotated[float | None, typer.Option(metavar="EV", help="Maximum energy above the hull (eV/atom).")] = None,
    state: Annotated[
        str | None,
        typer.Option(metavar="STATE", help="State of the result: converged, max_steps, failed, rejected or duplicate."),
    ] = None,
    sort: Annotated[
        str, typer.Option(metavar="A,-B", help="Fields to sort by; -FIELD puts the largest first.")
    ] = "energy_above_hull",
    best_per: Annotated[
        str | None,
        typer.Option(metavar="FIELD", help="Field, such as chemsys: only the first result of each of its values."),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="Maximum number of results.", show_default=f"{_PAGE_SIZE} in a table, else all"
        ),
    ] = None,
    page: Annotated[int, typer.Option(metavar="N", min=1, help="Page number; a page has --limit results.")] = 1,
    columns: Annotated[
        str | None,
        typer.Option(
            metavar="A,B.C", help="Fields in a table or CSV; nested fields with dots, such as elastic.bulk_modulus."
        ),
    ] = None,
    output: Annotated[
        Literal["table", "json", "jsonl", "csv"], typer.Option("--format", help="Format of the printed results.")
    ] = "table",
    structures: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder for the relaxed structures, as CIF files.")
    ] = None,
    count: Annotated[bool, typer.Option("--count", help="Print only the number of results.")] = False,
    with_references: WithReferences = False,
    store: Store = None,
) -> None:
    """
    Find results in the store; docs/queries.md explains the language of FILTER.

    `matris query 'has Fe, O and ehull <= 50 meV and not phonon.has_imaginary_modes'`

    `matris query --elements Fe,O --format csv > iron-oxides.csv`
    """
    with clear_errors():
        from matris.stores.candidate_store import CandidateStore

        require_results(store)
        opened = CandidateStore.open(store)
        warn_of_incomplete(opened)
        results = opened.query(
            formula=formula,
            chemsys=chemsys,
            elements=_split(elements),
            below=below,
            state=state,
            with_references=with_references,
        )
        results = (results if text is None else results.where(text)).sort(*_split(sort) or ())
        if best_per is not None:
            results = results.best_of(best_per)
        if count:
            stdout().print(results.count())
        else:
            origins = results.origins()
            warn_of_origins(origins)
            _show_results(results, page, limit, output, _split(columns), structures, several=len(origins) > 1)


def models(output: Format = "table") -> None:
    """
    List the checkpoints: energy scale, predictions and local files; for the embedded one also errors and limits.

    `matris models`
    """
    with clear_errors():
        from matris.files.cache import cache_directory
        from matris.model import checkpoints
        from matris.model.card_text import limits, measured_errors

        if output != "table":
            _write_models(output)
            return
        _show_choice(checkpoints.REGISTRY["matris_10m_oam"])
        table = Table(box=None, header_style="bold", pad_edge=False)
        for name in ("key", "energy scale", "predicts", "file", "at hand", "trained on"):
            table.add_column(name, no_wrap=name != "trained on")
        _, card = checkpoints.read_file(checkpoints.locate())
        table.add_row(
            card.key, card.energy_scale, card.predicts, "in the package", "[green]yes[/green]", card.description
        )
        for entry in checkpoints.REGISTRY.values():
            at_hand = "[green]yes[/green]" if entry.path.exists() else "no"
            table.add_row(entry.key, entry.energy_scale, entry.predicts, entry.file, at_hand, entry.trained_on)
        out = stdout()
        out.print(table)
        out.print(
            f"Files are read from {escape(str(cache_directory()))}; missing ones are downloaded to it.", soft_wrap=True
        )
        out.print("Without a network, copy the files to this folder.")
        if errors := measured_errors(card):
            out.print(f"\n[bold]{escape(card.key)}: measured errors[/bold]")
            columns = [list(column) for column in zip(*errors, strict=True)]
            print_table([Column(name, cells) for name, cells in zip(["set", "what", "value"], columns, strict=True)])
        for number, sentence in enumerate(limits(card)):
            heading = "" if number else f"\n[bold]{escape(card.key)}: where it must not be used[/bold]\n"
            out.print(f"{heading}{escape(sentence)}", soft_wrap=True)


def _write_models(form: str) -> None:
    """Write the list of checkpoints for other programs."""
    from matris.model import checkpoints

    card = checkpoints.read_file(checkpoints.locate())[1]
    fields = ("key", "energy_scale", "predicts", "file", "at_hand", "trained_on")
    rows: list[tuple[object, ...]] = [(card.key, card.energy_scale, card.predicts, None, True, card.description)]
    rows += [
        (each.key, each.energy_scale, each.predicts, str(each.path), each.path.is_file(), each.trained_on)
        for each in checkpoints.REGISTRY.values()
    ]
    if form == "json":
        write_json(dict(zip(fields, row, strict=True)) for row in rows)
    else:
        write_columns(fields, rows)


def _show_choice(best: Published) -> None:
    """Print which key to use."""
    where = "its file is at hand" if best.path.is_file() else "its file is downloaded at the first use"
    out = stdout()
    out.print(f"For results: --checkpoint {best.key}; {where}.", soft_wrap=True)
    out.print("To try things out: the default, which is in the package.\n", soft_wrap=True)


def _split(names: str | None) -> list[str] | None:
    """Split the value of an option at its commas."""
    return [name.strip() for name in names.split(",")] if names else None


def warn_of_origins(origins: Sequence[tuple[str, str]]) -> None:
    """Print how to select one checkpoint and one set of settings, if there are results of several."""
    if len(origins) < 2:  # noqa: PLR2004
        return
    names = ", ".join(f"{key} (settings {digest})" for key, digest in origins)
    by_key = f"checkpoint = {origins[0][0]}"
    chosen = by_key if len({key for key, _ in origins}) > 1 else ""
    if len({digest for _, digest in origins}) > 1:
        chosen += f"{' and ' if chosen else ''}settings.digest = '{origins[0][1]}'"
    stderr.print(
        f"[yellow]Results of {len(origins)} checkpoints or settings[/yellow], the same candidates in each: "
        f"{escape(names)}. For one of them, add to the filter: {escape(chosen)}",
        soft_wrap=True,
    )


def warn_of_incomplete(store: CandidateStore) -> None:
    """Print which results lack, because arrays of job outputs are missing in the store."""
    from matris.stores.builder import incomplete_remark

    if remark := incomplete_remark(store.incomplete()):
        stderr.print(f"[yellow]{escape(remark)}[/yellow]", soft_wrap=True)


def _show_results(
    results: CandidateQuery,
    page: int,
    limit: int | None,
    output: str,
    columns: list[str] | None,
    folder: Path | None,
    *,
    several: bool,
) -> None:
    """Print a page of results, and write their structures if there is a folder for them."""
    from matris.files.structure_files import write_structures
    from matris.stores.query.tables import COLUMNS, expanded, json_ready, row
    from matris.stores.report.formats import plural

    size = limit or (_PAGE_SIZE if output == "table" or page > 1 else None)
    shown = results if size is None else results.page(page, size)
    if output == "json":
        write_json(map(json_ready, shown))
    elif output == "jsonl":
        shown.to_jsonl(sys.stdout)
    elif output == "csv":
        shown.to_csv(sys.stdout, columns or COLUMNS)
    else:
        documents = list(shown)
        names = expanded(columns) if columns else []
        if columns:
            print_fields(names, [row(d, names) for d in documents])
        else:
            print_documents(documents, origins=several)
        n = len(documents)
        total = results.count() if page > 1 or n == size else n
        hidden = 0 if results.with_references else results.n_references()
        verb = "matches" if hidden == 1 else "match"
        hint = f"; {plural(hidden, 'reference')} {verb} too (--with-references)" if hidden else ""
        stderr.print((f"{total} found" if total == n else f"{n} of {total} found, page {page}") + hint)
    if folder is not None:
        n_files = write_structures(shown.structures(), folder, labelled=several)
        stderr.print(f"{plural(n_files, 'structure')} in {escape(str(folder))}")
