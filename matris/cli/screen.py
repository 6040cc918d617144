"""The command `matris screen`."""

from __future__ import annotations

from collections import Counter
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.markup import escape

from matris.cli.campaign_run import (
    DOCUMENT_FIELDS,
    begun,
    candidates_of,
    run_campaign,
    summary,
    warn_of_demonstrator,
    write_documents,
)
from matris.cli.console import print_documents, stderr, stdout
from matris.cli.options import (
    Checkpoint,
    ChunkSize,
    Devices,
    Dispersion,
    Fmax,
    MaxSteps,
    Optimizer,
    Pressure,
    Printed,
    Project,
    Resource,
    Store,
    Submit,
    Then,
    Worker,
    clear_errors,
    exit_by_states,
    properties_of,
    shortened,
)
from matris.cli.query import warn_of_incomplete
from matris.cli.submit import project_store, submission_of, submit_campaign

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matris.cli.console import Document
    from matris.flows.campaign.campaign import Campaign

_COMPLETE_HULL = {"auto": None, "yes": True, "no": False}
_MAX_ROWS = 20  # of the ranking, and of the list of lost candidates


def _file_or_mp(value: str | None) -> str | None:
    """Refuse a file that does not exist."""
    if value is not None and value != "mp" and not Path(value).is_file():
        raise typer.BadParameter(f"there is no file {value!r}; give a file of entries, or mp")
    return value


def screen(
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SOURCE",
            help="Structure files or folders, stores, or generators of candidates (docs/sources.md).",
            show_default=False,
        ),
    ] = None,
    chemsys: Annotated[
        str | None,
        typer.Option(metavar="A-B-C", help="Chemical system whose candidates are generated from prototypes."),
    ] = None,
    max_sites: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Maximum number of atoms in a candidate's cell.",
            show_default="14 with --chemsys, else no limit",
        ),
    ] = None,
    references: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|mp",
            callback=_file_or_mp,
            help="Computed entries (pymatgen JSON) on the checkpoint's energy scale that define the hull; or mp, to "
            "fetch those of the candidates' chemical systems from the Materials Project.",
            show_default="a hull of the candidates and their elements, computed here",
        ),
    ] = None,
    known_phases: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="Entries with structures (pymatgen JSON) of known phases, which are computed and compete on the hull.",
        ),
    ] = None,
    competitors: Annotated[
        Literal["auto", "yes", "no"],
        typer.Option(
            help="Whether to compute competing compounds, from prototypes in the candidates' chemical systems; "
            "auto: if there are few systems.",
        ),
    ] = "auto",
    charge_balance: Annotated[
        bool, typer.Option("--charge-balance", help="Drop compositions without charge-balanced oxidation states.")
    ] = False,
    keep_duplicates: Annotated[
        bool, typer.Option("--keep-duplicates", help="Compute duplicate structures too.")
    ] = False,
    keep_going: Annotated[
        bool,
        typer.Option("--keep-going", help="Go on even if the first 20 candidates all fail for the same reason."),
    ] = False,
    window: Annotated[
        float, typer.Option(metavar="EV", min=0.0, help="Maximum energy above the hull of a survivor (eV/atom).")
    ] = 0.1,
    static: Annotated[
        bool, typer.Option("--static", help="Recompute the energies of relaxed structures in double precision.")
    ] = False,
    pressure: Pressure = 0.0,
    then: Then = None,
    report: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of the HTML report.", show_default="report, in the store's folder"),
    ] = None,
    checkpoint: Checkpoint = None,
    dispersion: Dispersion = None,
    device: Devices = None,
    store: Store = None,
    fmax: Fmax = 0.05,
    max_steps: MaxSteps = 500,
    optimizer: Optimizer = "lbfgs",
    chunk_size: ChunkSize = 500,
    output: Printed = "table",
    submit: Submit = False,
    project: Project = None,
    worker: Worker = None,
    resource: Resource = None,
) -> None:
    """
    Relax candidates, rank them by distance to the convex hull (eV/atom), and write an HTML report.

    Candidates come from SOURCE, from --chemsys, or from both. After an interruption, the same command resumes; results
    in the store are not computed again. Under --pressure, hulls compare enthalpies, and elements, competing compounds
    and known phases are relaxed at that pressure too. With --submit, run the same command again to get the results.

    `matris screen structures/ --store campaign`

    `matris screen --chemsys Li-Fe-O --then phonon`

    `matris screen structures/ --submit`
    """
    if not sources and not chemsys:
        raise typer.BadParameter("give files or folders to screen, or a chemical system with --chemsys")
    with clear_errors():
        from matris.flows.campaign.campaign import Campaign
        from matris.flows.campaign.funnel import Funnel
        from matris.flows.sources.opening import chemical_system_of
        from matris.flows.sources.prototypes import generate_candidates
        from matris.makers.batch_relax import BatchRelaxMaker, BatchStaticMaker
        from matris.model.checkpoints import require_elements
        from matris.stores.database.jobstore import local_folder
        from matris.stores.query.values import elements_of

        submission = submission_of(project, worker, resource, device) if submit else None
        store = project_store(submission, store) if submission else store
        systems = [chemsys, *map(chemical_system_of, sources or [])]
        require_elements(checkpoint, [symbol for system in systems if system for symbol in elements_of(system)])
        limit = {"max_sites": max_sites} if max_sites else {}
        generated = begun(generate_candidates(chemsys, **limit)) if chemsys else ()
        candidates = chain(candidates_of(sources or []), generated)
        with stderr.status("Opening the store …"):
            try:
                funnel = Funnel(
                    max_sites=max_sites,
                    charge_balance=charge_balance,
                    duplicates=not keep_duplicates,
                    complete_hull=_COMPLETE_HULL[competitors] if sources else False,  # --chemsys generates them itself
                    window=window,
                    properties=properties_of(then),
                )
            except ValueError as error:
                raise typer.BadParameter(str(error)) from None
            potential: dict[str, Any] = {
                "checkpoint": checkpoint,
                "dispersion": dispersion,
                "device": device if submission else None,
            }
            potential["keep_going"] = keep_going
            maker = BatchRelaxMaker(
                **potential,
                fmax=fmax,
                max_steps=max_steps,
                optimizer=optimizer,
                pressure=pressure,
            )
            campaign = Campaign(
                store,
                BatchStaticMaker(**potential, dtype="float64", first=maker) if static else maker,
                funnel,
                title=_title(sources or [], chemsys),
                chunk_size=chunk_size,
                references=references,
                known_phases=known_phases,
            )
        if submission is None:
            run_campaign(campaign, candidates, device, keep_going=keep_going)
        elif not submit_campaign(campaign, candidates, submission):
            return
        with stderr.status("Writing the report …"):
            documents = list(campaign.documents((*DOCUMENT_FIELDS, "checkpoint", *properties_of(then))))
            page = campaign.report(report or local_folder(store) / "report")
        if output == "table":
            _show_ranking(documents)
            _show_hull(campaign, documents)
            _show_lost(documents)
        else:
            write_documents(documents, output)
        warn_of_incomplete(campaign.store)
        out = stdout() if output == "table" else stderr
        out.print(summary(campaign, documents), soft_wrap=True)
        for line in property_lines(documents, properties_of(then)):
            out.print(line, soft_wrap=True)
        out.print(f"Report: {page}", soft_wrap=True)
        warn_of_demonstrator(documents)
        exit_by_states(documents, all_converge=False)


def property_lines(documents: Sequence[Document], properties: Sequence[str]) -> list[str]:
    """
    Count the results of the properties that were computed for survivors, by state.

    Examples
    --------
    >>> found = [{"phonon": {"state": "converged"}}, {"phonon": {"state": "failed"}}, {"phonon": None}]
    >>> property_lines(found, ["phonon"])
    ["phonon: 1 converged, 1 failed; see them by matris query 'phonon is known' --columns formula,phonon"]
    """
    lines = []
    for name in properties:
        states = Counter(document[name]["state"] for document in documents if document.get(name))
        counts = ", ".join(f"{count} {state}" for state, count in sorted(states.items())) or "no survivor"
        lines.append(f"{name}: {counts}; see them by matris query '{name} is known' --columns formula,{name}")
    return lines


def _title(sources: Sequence[str], chemsys: str | None) -> str:
    """Make the title of the campaign."""
    from matris.stores.query.values import elements_of

    names = ["–".join(elements_of(chemsys))] if chemsys else []
    names += [Path(source).name or source for source in sources]
    return f"Screening {shortened(names)}"


def _show_ranking(documents: Sequence[Document]) -> None:
    """Print the first rows of the ranking."""
    from matris.stores.report.outcomes import ranked

    ranking = ranked(documents)
    if ranking:
        title = f"Best {_MAX_ROWS} of {len(ranking)}" if len(ranking) > _MAX_ROWS else "Ranking"
        print_documents(ranking[:_MAX_ROWS], title=title, numbered=True)
    without_hull = Counter(d["hull_state"] for d in ranking if d.get("energy_above_hull") is None)
    for reason, count in without_hull.most_common():
        stdout().print(f"{count} without a distance to the hull: {escape(str(reason))}", soft_wrap=True)


def _show_hull(campaign: Campaign, documents: Sequence[Document]) -> None:
    """Print which hull the distances refer to, and which competing phases it lacks."""
    from matris.flows.campaign.competing import hull_remarks

    for remark in hull_remarks(documents, campaign.references):
        stdout().print(escape(remark), soft_wrap=True)


def _show_lost(documents: Sequence[Document]) -> None:
    """Print candidates that failed or were rejected, with the reasons."""
    from matris.stores.documents.candidate import REFERENCE_SOURCES
    from matris.stores.report.outcomes import lost, reason

    out = stdout()
    failures = [d for d in lost(documents) if d["state"] != "max_steps" or d["source"] in REFERENCE_SOURCES]
    for d in failures[:_MAX_ROWS]:
        name = f"{d['source']} {d['formula_pretty']}" if d["source"] in REFERENCE_SOURCES else d["source"]
        out.print(f"[red]{d['state']}[/red] {escape(name)}: {escape(reason(d))}", soft_wrap=True)
    if len(failures) > _MAX_ROWS:
        out.print(f"… and {len(failures) - _MAX_ROWS} more: matris query --state failed, --state rejected")
