"""Commands about campaigns: status, cancel, resume, report, export."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.markup import escape

from matris.cli.console import stderr, stdout
from matris.cli.options import Store, check_there, clear_errors

if TYPE_CHECKING:
    from pymatgen.core import Structure

CampaignName = Annotated[
    str | None,
    typer.Option(
        "--campaign", metavar="NAME", help="Its name, or the first letters.", show_default="the one worked on last"
    ),
]

_PAUSE = 3.0  # seconds between looks


def status(
    campaign: CampaignName = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Look again and again until it is finished.")] = False,
    store: Store = None,
) -> None:
    """
    How far a campaign is: stages, chunks, rate, remaining time, what was lost and why.

    `matris status --store campaign --watch`
    """
    with clear_errors():
        from matris.cli.status_view import status_view
        from matris.flows.campaign.status import read_status

        check_there(store)
        found = read_status(store, campaign)
        if not watch:
            stdout().print(status_view(found))
            return
        from rich.live import Live

        with Live(status_view(found), console=stdout(), auto_refresh=False) as live:
            while found.phase != "finished":
                time.sleep(_PAUSE)
                found = read_status(store, found.name)
                live.update(status_view(found), refresh=True)


def cancel(campaign: CampaignName = None, store: Store = None) -> None:
    """
    Stop the jobs of a campaign that was submitted to a cluster; what is finished is kept.

    `matris cancel --store project://hull`
    """
    with clear_errors():
        from matris.flows.campaign.campaign import Campaign
        from matris.flows.cluster.project_files import need_jobflow_remote

        check_there(store)
        need_jobflow_remote()
        from matris.flows.cluster.supervisor import cancel as stop

        opened = Campaign.open(store, campaign)
        n = stop(opened)
        stdout().print(f"{n} chunks of campaign {opened.name} stopped. To go on: matris resume", soft_wrap=True)


def resume(campaign: CampaignName = None, store: Store = None) -> None:
    """
    Go on with a submitted campaign: what was cancelled, given up or lost is submitted again.

    `matris resume --store project://hull`
    """
    with clear_errors():
        from matris.cli.submit import warn_of_runner
        from matris.flows.campaign.campaign import Campaign
        from matris.flows.cluster.project_files import need_jobflow_remote

        check_there(store)
        need_jobflow_remote()
        from matris.flows.cluster.supervisor import resume as go_on
        from matris.flows.cluster.supervisor import submitted_to

        opened = Campaign.open(store, campaign)
        sent: list[int] = []
        finished = go_on(opened, lambda event: sent.append(event["n"]))
        told = "is finished" if finished else f"goes on: {sum(sent)} candidates in {len(sent)} chunks submitted again"
        stdout().print(f"Campaign {opened.name} {told}", soft_wrap=True)
        if opened.record().get("reading"):
            stderr.print("Its candidates are being read, or that was cut short: then run its command again")
        if not finished:
            warn_of_runner(submitted_to(opened))


def report(
    campaign: CampaignName = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Its folder.", show_default="report, in the store's folder"),
    ] = None,
    known: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SOURCE", help="Crystals that are no news: count what is stable, unique and novel beside them."
        ),
    ] = None,
    store: Store = None,
) -> None:
    """
    Write the HTML report of a campaign, finished or not.

    `matris report --store campaign --known icsd/`
    """
    with clear_errors():
        from matris.flows.campaign.campaign import Campaign, local_folder

        check_there(store)
        with stderr.status("Writing the report …"):
            crystals = [crystal for source in known for crystal in _crystals(source)] if known else None
            opened = Campaign.open(store, campaign)
            page = opened.report(output or local_folder(store) / "report", crystals)
        stdout().print(f"Report: {page}", soft_wrap=True, markup=False)


def export(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[FILTER] FILE|DIR",
            help="Which candidates, as for 'matris query' (by default all that converged), and where to.",
        ),
    ],
    form: Annotated[
        Literal["cif", "csv", "jsonl", "extxyz"] | None,
        typer.Option("--format", help="Of the file; CIF goes into a folder.", show_default="as the name says"),
    ] = None,
    store: Store = None,
) -> None:
    """
    Write candidates as CIF, CSV, JSON lines or extended XYZ, those nearest to the hull first.

    `matris export 'ehull <= 50 meV' stable/ --format cif`

    `matris export 'has Fe and not phonon.has_imaginary_modes' iron.xyz`
    """
    *filters, target = words
    if len(filters) > 1:
        raise typer.BadParameter("name one filter, in quotes, and one file or folder")
    with clear_errors():
        from matris.stores.candidate_store import CandidateStore
        from matris.stores.query.export import export as write

        check_there(store)
        asked = CandidateStore.open(store).query().where(filters[0] if filters else "state = converged")
        n = write(asked.sort("energy_above_hull"), Path(target), form)
        stderr.print(f"{n} candidates in {escape(target)}", soft_wrap=True)


def _crystals(source: str) -> list[Structure]:
    """Read the crystals of a source, without what cannot be read."""
    from matris.flows.sources.files import read_candidates

    return [each.structure for each in read_candidates(source) if each.structure is not None]
