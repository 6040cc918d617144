"""The command `matris learn`."""

from __future__ import annotations

import time
from pathlib import Path  # noqa: TC003 - typer reads it
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from matris.cli.campaign import CampaignName  # noqa: TC001 - typer reads it
from matris.cli.console import Column, print_table, stderr, stdout, write_columns, write_json
from matris.cli.options import Devices, Format, Store, clear_errors, require_results

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matris.flows.learning.loop import Learning
    from matris.flows.learning.plan import Plan
    from matris.flows.learning.teacher import Teacher

_POLL_INTERVAL = 30.0  # seconds between looks at the labels
_MAX_ROWS = 50
_COLUMNS = ("candidate_id", "formula", "energy_above_hull", "source", "reasons")


def learn(
    campaign: CampaignName = None,
    per_round: Annotated[
        int | None,
        typer.Option("--labels", metavar="N", min=1, help="Labels that a round asks for.", show_default="30"),
    ] = None,
    budget: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Labels of all rounds together.", show_default="120"),
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Rounds to close now.", show_default="until the loop stops")
    ] = None,
    incomplete: Annotated[
        bool, typer.Option("--incomplete", help="Close the current round without the labels that lack.")
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for labels, which other processes add, until the loop stops.")
    ] = False,
    teacher: Annotated[
        str | None,
        typer.Option(
            metavar="CHECKPOINT",
            help="Label by another checkpoint instead of first principles, to try a loop.",
            show_default="labels by matris label",
        ),
    ] = None,
    replay: Annotated[
        Path | None,
        typer.Option(
            metavar="SET",
            exists=True,
            help="Set of earlier training data, against forgetting, which it also measures.",
            show_default=False,
        ),
    ] = None,
    forgetting: Annotated[
        float | None,
        typer.Option(
            metavar="X", min=0.0, help="Largest relative growth of errors on the old data.", show_default="0.1"
        ),
    ] = None,
    second: Annotated[
        str | None,
        typer.Option(metavar="CHECKPOINT", help="Second checkpoint, whose disagreement counts.", show_default="none"),
    ] = None,
    spread: Annotated[
        float | None,
        typer.Option(
            metavar="EV",
            min=1e-4,
            help="Standard deviation of the errors of distances to the hull until labels tell, eV/atom.",
            show_default="0.05",
        ),
    ] = None,
    epochs: Annotated[
        float | None, typer.Option(metavar="N", min=0.01, help="Passes over the labels.", show_default="40")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(metavar="X", min=1e-9, help="Maximum learning rate.", show_default="0.0003")
    ] = None,
    device: Devices = None,
    store: Store = None,
    output: Format = "table",
) -> None:
    """
    Improve a campaign by first-principles labels: choose candidates, fine-tune, screen again.

    The first call chooses candidates and says which. When their labels are in the store ('matris label'), the same
    command learns them, screens with the new checkpoint if it is better, and chooses the next ones, until the list of
    stable phases does not move any more or the budget is spent. After an interruption, the same command goes on.

    `matris screen --chemsys Li-Fe-O --store campaign`

    `matris learn --store campaign --labels 30 --budget 120 --replay mptrj-sample`

    `matris learn --store campaign --format json > chosen.json`
    """
    with clear_errors():
        from matris.cli.campaign_run import named_devices
        from matris.cli.console import CampaignProgress
        from matris.flows.learning.loop import Learning

        require_results(store)
        given = {
            "per_round": per_round,
            "budget": budget,
            "replay": None if replay is None else str(replay.absolute()),
            "forgetting": forgetting,
            "second": second,
            "spread": spread,
            "epochs": epochs,
            "learning_rate": learning_rate,
        }
        with CampaignProgress() as progress:
            loop = Learning(
                store,
                campaign,
                labeller=None if teacher is None else _teacher(teacher),
                devices=named_devices(device),
                watch=progress.watch,
            )
            loop.plan = _changed(loop.plan, given)
            record = loop.go_on(rounds=rounds, incomplete=incomplete)
            while wait and record.stopped is None and loop.missing():
                time.sleep(_POLL_INTERVAL)
                if not loop.missing():
                    record = loop.go_on(rounds=rounds)
        if output == "json":
            write_json(_chosen_rows(loop))
        elif output == "csv":
            rows = _chosen_rows(loop)
            write_columns(_COLUMNS, [list((row | {"reasons": "; ".join(row["reasons"])}).values()) for row in rows])
        else:
            _show(loop)


def _changed(plan: Plan, given: Mapping[str, Any]) -> Plan:
    """Change the settings that were given."""
    from dataclasses import replace

    return replace(plan, **{name: value for name, value in given.items() if value is not None})


def _teacher(checkpoint: str) -> Teacher:
    """Load a checkpoint that labels."""
    from matris.flows.learning.teacher import Teacher
    from matris.model.potential import load

    potential = load(checkpoint)
    return Teacher(potential, potential.card.key, potential.card.energy_scale)


def _chosen_rows(loop: Learning) -> list[dict[str, Any]]:
    """Candidates that wait for a label."""
    missing = loop.missing()
    documents = {
        document["document_id"]: document
        for document in loop.first.store.documents(
            [each.document_id for each in missing], ["formula_pretty", "energy_above_hull", "source"]
        )
    }
    rows = []
    for each in missing:
        document = documents[each.document_id]
        values = (document.get(name) for name in ("formula_pretty", "energy_above_hull", "source"))
        rows.append(dict(zip(_COLUMNS, (each.candidate_id, *values, each.reasons), strict=True)))
    return rows


def _show(loop: Learning) -> None:
    """Print the rounds, and the candidates that wait for a label."""
    from matris.cli.status_view import rounds_table
    from matris.flows.learning.loop import missing_remark
    from matris.stores.report.rounds import round_rows, rounds_remarks

    out = stdout()
    if loop.record.rounds:
        out.print(rounds_table(round_rows(loop.record)))
    if rows := _chosen_rows(loop):
        _show_chosen(rows)
    for remark in rounds_remarks(loop.record):
        out.print(escape(remark), soft_wrap=True)
    if rows:
        stderr.print(escape(missing_remark(loop.missing())), soft_wrap=True)


def _show_chosen(rows: Sequence[Mapping[str, Any]]) -> None:
    shown = rows[:_MAX_ROWS]
    print_table(
        [
            Column("formula", [row["formula"] or "–" for row in shown]),
            Column("candidate", [row["candidate_id"] for row in shown]),
            Column("why", ["; ".join(row["reasons"]) for row in shown], shrinks="fold"),
        ],
        title=f"Candidates to calculate: {len(rows)}",
    )
