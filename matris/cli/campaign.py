"""Commands on existing campaigns: status, cancel, resume, report, export."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.markup import escape

from matris.cli.console import stderr, stdout
from matris.cli.options import Store, WithReferences, clear_errors, require_results
from matris.cli.query import warn_of_incomplete, warn_of_origins

if TYPE_CHECKING:
    from matris.stores.query.query import CandidateQuery
    from matris.stores.report.discovery import KnownCrystals

CampaignName = Annotated[
    str | None,
    typer.Option(
        "--campaign",
        metavar="NAME",
        help="Name of the campaign, or its first characters.",
        show_default="the campaign that ran last",
    ),
]

_POLL_INTERVAL = 3.0  # seconds between updates of --watch


def status(
    campaign: CampaignName = None,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Update the view until the campaign is finished or stopped.")
    ] = False,
    output: Annotated[
        Literal["table", "json"], typer.Option("--format", help="Format of the printed status; json is for scripts.")
    ] = "table",
    store: Store = None,
) -> None:
    """
    Show the progress of a campaign: stages, chunks, rate, remaining time, and reasons for lost candidates.

    `matris status --store campaign --watch`
    """
    with clear_errors():
        from matris.cli.status_view import status_view
        from matris.flows.campaign.status import read_status

        require_results(store)
        current = read_status(store, campaign)
        if output == "json":
            if watch:
                raise typer.BadParameter("--watch updates a table: leave --format json out")
            content = vars(current) | {"stages": [vars(stage) for stage in current.stages]}
            sys.stdout.write(json.dumps(content, indent=1, default=dict) + "\n")
            return
        if not watch:
            stdout().print(status_view(current))
            return
        from rich.live import Live

        with Live(status_view(current), console=stdout(), auto_refresh=False) as live:
            while current.phase not in {"finished", "stopped"}:
                time.sleep(_POLL_INTERVAL)
                current = read_status(store, current.name)
                live.update(status_view(current), refresh=True)


def cancel(campaign: CampaignName = None, store: Store = None) -> None:
    """
    Cancel the jobs of a campaign that was submitted to a cluster; finished results are kept.

    `matris cancel --store project://hull`
    """
    with clear_errors():
        from matris.flows.campaign.campaign import Campaign
        from matris.flows.cluster.project_files import need_jobflow_remote

        require_results(store)
        need_jobflow_remote()
        from matris.flows.cluster import supervisor

        opened = Campaign.open(store, campaign)
        n = supervisor.cancel(opened)
        stdout().print(f"{n} chunks of campaign {opened.name} stopped. To resume: matris resume", soft_wrap=True)


def resume(campaign: CampaignName = None, store: Store = None) -> None:
    """
    Resume a submitted campaign: submit again what was cancelled, given up or lost.

    `matris resume --store project://hull`
    """
    with clear_errors():
        from matris.cli.submit import warn_without_runner
        from matris.flows.campaign.campaign import Campaign
        from matris.flows.cluster.project_files import need_jobflow_remote

        require_results(store)
        need_jobflow_remote()
        from matris.flows.cluster import supervisor

        opened = Campaign.open(store, campaign)
        sent: list[int] = []
        finished = supervisor.resume(opened, lambda event: sent.append(event["n"]))
        outcome = (
            "is finished" if finished else f"resumes: {sum(sent)} candidates in {len(sent)} chunks submitted again"
        )
        stdout().print(f"Campaign {opened.name} {outcome}", soft_wrap=True)
        if opened.record().get("reading"):
            stderr.print("Its candidates are still being read, or reading was interrupted: then run its command again")
        if not finished:
            warn_without_runner(supervisor.submitted_to(opened))


def report(
    campaign: CampaignName = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="DIR", help="Folder of the report.", show_default="report, in the store's folder"
        ),
    ] = None,
    known: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SOURCE",
            help="Known crystals, as for 'matris screen': the report counts which candidates are stable, unique and "
            "novel relative to them; may be repeated.",
        ),
    ] = None,
    store: Store = None,
) -> None:
    """
    Write the HTML report of a campaign, at any time.

    `matris report --store campaign --known icsd/`
    """
    with clear_errors():
        from matris.flows.campaign.results import CampaignResults
        from matris.stores.database.jobstore import local_folder

        require_results(store)
        with stderr.status("Writing the report …"):
            crystals = _known_crystals(known) if known else None
            opened = CampaignResults.find(store, campaign)
            page = opened.report(output or local_folder(store) / "report", crystals)
        if crystals is not None:
            stderr.print(f"Known crystals: {len(crystals.structures)} compared; {crystals}", soft_wrap=True)
        warn_of_incomplete(opened.store)
        stdout().print(f"Report: {page}", soft_wrap=True, markup=False)


def export(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[FILTER] FILE|DIR",
            help="Filter, as for 'matris query' (default: all converged candidates), and the file or folder to write.",
        ),
    ],
    form: Annotated[
        Literal["cif", "symmetrized-cif", "poscar", "extxyz", "entries", "csv", "jsonl", "phonopy"] | None,
        typer.Option(
            "--format",
            help="Format; CIF, POSCAR and phonopy's files are written to a folder. entries: pymatgen's computed "
            "entries, in one JSON file. phonopy: force constants and bands of candidates whose phonons are computed.",
            show_default="from the name of the file",
        ),
    ] = None,
    with_references: WithReferences = False,
    store: Store = None,
) -> None:
    """
    Write candidates, sorted by distance to the hull, as CIF, POSCAR, extended XYZ, entries, CSV or JSON lines.

    `matris export 'ehull <= 50 meV' stable/ --format cif`

    `matris export 'has Fe and not phonon.has_imaginary_modes' iron.xyz`
    """
    *filters, target = words
    if len(filters) > 1:
        raise typer.BadParameter("give one filter, in quotes, and one file or folder")
    with clear_errors():
        from matris.stores.candidate_store import CandidateStore
        from matris.stores.query.export import export as write
        from matris.stores.report.formats import plural

        require_results(store)
        query = CandidateStore.open(store).query(with_references=with_references)
        query = query.where(filters[0] if filters else "state = converged")
        warn_of_origins(query.origins())
        query = query.sort("energy_above_hull")
        n = _write_phonons(query, store, target) if form == "phonopy" else write(query, Path(target), form)
        stderr.print(f"{plural(n, 'candidate') or 'no candidate'} in {escape(target)}", soft_wrap=True)
        if form != "phonopy" and (n_same := query.where("state = converged and duplicate_of is known").count()):
            of_them = f"{n_same} of them relaxed to the same crystal as another candidate"
            stderr.print(f"{of_them}; without these: add 'duplicate_of is missing' to the filter", soft_wrap=True)


def _write_phonons(query: CandidateQuery, store: str | None, folder: str) -> int:
    """Write force constants and bands of the candidates whose phonons are computed."""
    from matris.properties.phonon_files import LARGE, write_phonon_files
    from matris.stores.database.jobstore import open_job_store
    from matris.stores.documents.properties import property_output

    job_store = open_job_store(store)
    found = ((candidate, property_output(job_store, "phonon", candidate, LARGE)) for candidate in query)
    return write_phonon_files(
        ({**document, "source": candidate["source"]} for candidate, document in found if document is not None), folder
    )


def _known_crystals(sources: list[str]) -> KnownCrystals:
    """Read the crystals of sources, as `matris screen` reads candidates."""
    from matris.cli.campaign_run import candidates_of
    from matris.stores.report.discovery import KnownCrystals

    return KnownCrystals.of(candidates_of(sources))
