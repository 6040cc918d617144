"""The command `matris bias`."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads it
from typing import Annotated

import typer
from rich.markup import escape

from matris.cli.console import Column, meV, numbers, print_table, stderr, stdout, write_columns, write_json
from matris.cli.options import Checkpoint, Device, Dispersion, Format, Store, clear_errors

_MAX_ROWS = 20


def bias(
    references: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="Entries with structures (pymatgen JSON) on the energy scale of the checkpoint.",
        ),
    ],
    relax: Annotated[bool, typer.Option("--relax", help="Relax the phases; by default they are evaluated.")] = False,
    checkpoint: Checkpoint = None,
    dispersion: Dispersion = None,
    device: Device = None,
    store: Store = None,
    output: Format = "table",
) -> None:
    """
    Compare a checkpoint with the entries of known phases, by element, before a hull of these references is believed.

    `matris bias references.json.gz --checkpoint matris_10m_oam`
    """
    with clear_errors():
        from matris.flows.campaign.reference_bias import reference_bias
        from matris.makers.batch_relax import BatchRelaxMaker, BatchStaticMaker
        from matris.stores.database.jobstore import local_folder
        from matris.stores.report.validation_page import write_bias

        make = BatchRelaxMaker if relax else BatchStaticMaker
        maker = make(checkpoint=checkpoint, dispersion=dispersion, device=device)
        with stderr.status("Computing …"):
            found = reference_bias(references, maker, store)
        if output == "json":
            write_json([found.model_dump()])
        elif output == "csv":
            rows = [[each.element, each.n, each.mean, each.mae, each.offset] for each in found.elements]
            write_columns(["element", "phases", "mean", "mae", "offset"], rows)
        else:
            for line in found.sentences():
                stdout().print(escape(line), soft_wrap=True)
            print_table(
                [
                    Column("element", [each.element for each in found.elements]),
                    numbers("phases", [each.n for each in found.elements]),
                    Column("mean\nmeV/atom", [meV(each.mean) for each in found.elements], right=True),
                    Column("mae\nmeV/atom", [meV(each.mae) for each in found.elements], right=True),
                    Column("offset\nmeV", [meV(each.offset) for each in found.elements], right=True),
                ]
            )
            worst = found.phases[:_MAX_ROWS]
            print_table(
                [
                    Column("formula", [each.formula_pretty for each in worst]),
                    Column("error\nmeV/atom", [meV(each.error) for each in worst], right=True),
                    Column("entry", [each.entry_id for each in worst], shrinks="cut"),
                ]
            )
        page = write_bias(found, local_folder(store) / "bias.html")
        stderr.print(f"Report: {escape(str(page))}", soft_wrap=True)
