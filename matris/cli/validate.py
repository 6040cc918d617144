"""The command `matris validate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from matris.cli.campaign import CampaignName  # noqa: TC001 - typer reads it
from matris.cli.console import Column, meV, numbers, print_table, stderr, stdout, write_columns, write_json
from matris.cli.options import Device, Format, Store, clear_errors, require_results

if TYPE_CHECKING:
    from matris.stores.documents.validation import Validation

_MAX_ROWS = 20


def validate(
    second: Annotated[
        str,
        typer.Option(
            "--with",
            metavar="CHECKPOINT|FILE|MODULE:CLASS(…)",
            help="Second potential (a key or a file of a checkpoint, or the call that makes an ASE calculator or "
            "torch-sim model), or computed entries that came back from another code (pymatgen JSON), whose entry_id is "
            "that of `matris export`.",
        ),
    ],
    campaign: CampaignName = None,
    top: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Number of candidates, the best by the campaign.", show_default="all"),
    ] = None,
    relax: Annotated[
        bool, typer.Option("--relax", help="Relax by the second potential; by default it only evaluates.")
    ] = False,
    energy_scale: Annotated[
        str,
        typer.Option(
            "--energy-scale",
            metavar="SCALE",
            help="Energy scale of a calculator or model: mp, omat24, matpes-pbe, matpes-r2scan, or mp2020-corrected "
            "(CHGNet).",
        ),
    ] = "mp",
    device: Device = None,
    store: Store = None,
    output: Format = "table",
) -> None:
    """
    Check the ranking of a campaign by a second potential, or by energies that came back.

    Printed are Kendall's τ of the two rankings, the mean absolute difference of the distances to the hull, which stable
    candidates stay stable, and the calibrated probability of stability. The page is in the store's folder.

    `matris validate --store campaign --with matris_10m_mp --top 50`

    `matris validate --store campaign --with "chgnet.model.dynamics:CHGNetCalculator()" --energy-scale mp2020-corrected`

    `matris validate --store campaign --with dft.json`
    """
    with clear_errors():
        from matris.boards.contestants import is_call, peer
        from matris.flows.campaign.results import CampaignResults
        from matris.flows.campaign.validation import validate_by_entries, validate_by_maker, validate_by_model
        from matris.makers.batch_relax import BatchRelaxMaker, BatchStaticMaker
        from matris.stores.database.jobstore import local_folder
        from matris.stores.documents.documents import pressure_of
        from matris.stores.report.validation_page import write_validation

        require_results(store)
        results = CampaignResults.find(store, campaign)
        if is_call(second):
            with stderr.status("Computing …"):
                found = validate_by_model(results, peer(second).model, second, energy_scale, top, relax=relax)
        elif ".json" in Path(second).suffixes:
            found = validate_by_entries(results, second, top)
        else:
            pressure = pressure_of(results.record()["settings"])
            maker = (
                BatchRelaxMaker(checkpoint=second, device=device, pressure=pressure)
                if relax
                else BatchStaticMaker(checkpoint=second, device=device)
            )
            with stderr.status("Computing …"):
                found = validate_by_maker(results, maker, top)
        if output == "json":
            write_json([found.model_dump()])
        elif output == "csv":
            rows = [[each.formula_pretty, each.first, each.second, each.document_id] for each in found.candidates]
            write_columns(["formula", found.first, found.second, "document_id"], rows)
        else:
            _show(found)
        page = write_validation(found, local_folder(store) / "validation.html")
        stderr.print(f"Report: {escape(str(page))}", soft_wrap=True)


def _show(found: Validation) -> None:
    """Print the summary, the calibration, and the first candidates."""
    out = stdout()
    for line in found.sentences():
        out.print(escape(line), soft_wrap=True)
    print_table(
        [
            Column("above hull\nmeV/atom", [each.range() for each in found.calibration], right=True),
            numbers("candidates", [each.n for each in found.calibration]),
            numbers("stable", [each.n_stable for each in found.calibration]),
            numbers("expected\nshare", [each.expected for each in found.calibration], 2),
        ],
        title=f"Stable by {found.second}, against the distance by {found.first}",
    )
    shown = found.candidates[:_MAX_ROWS]
    print_table(
        [
            Column("formula", [each.formula_pretty or "–" for each in shown]),
            Column(f"{found.first}\nmeV/atom", [meV(each.first) for each in shown], right=True),
            Column(f"{found.second}\nmeV/atom", [meV(each.second) for each in shown], right=True),
        ]
    )
