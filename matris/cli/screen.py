"""Commands that run campaigns: screen, relax."""

from __future__ import annotations

import signal
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from matris.cli.console import CampaignProgress, document_table, eV, stderr, stdout
from matris.cli.options import (
    Checkpoint,
    ChunkSize,
    Devices,
    Files,
    Fmax,
    MaxSteps,
    Project,
    Resource,
    Store,
    Submit,
    Worker,
    clear_errors,
    exit_by_states,
    listed,
)
from matris.cli.submit import chosen, store_of, submit_campaign

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from matris.cli.console import Document
    from matris.flows.campaign.campaign import Campaign
    from matris.stores.documents.candidate import Candidate

_TOP = 20
_SHOWN = (
    "candidate_id",
    "source",
    "provenance",
    "state",
    "stage",
    "duplicate_of",
    "error",
    "formula_pretty",
    "symmetry",
    "nsites",
    "volume",
    "energy_per_atom",
    "uncorrected_energy_per_atom",
    "formation_energy_per_atom",
    "energy_above_hull",
    "is_stable",
    "hull_state",
    "n_steps",
    "fmax",
)


def screen(
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SOURCE",
            help="Files and folders of structures, stores, generators: see docs/sources.md.",
            show_default=False,
        ),
    ] = None,
    chemsys: Annotated[
        str | None,
        typer.Option(metavar="A-B-C", help="Generate candidates of a chemical system from prototypes."),
    ] = None,
    max_sites: Annotated[int, typer.Option(metavar="N", min=1, help="Most atoms in a generated cell.")] = 14,
    references: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="Take the hull against these computed entries (pymatgen JSON) on the checkpoint's energy scale.",
            show_default="a hull of candidates and elements, all computed here",
        ),
    ] = None,
    known_phases: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="Compute the phases of these entries (pymatgen JSON, with structures) too: they compete on the hull.",
        ),
    ] = None,
    largest: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Drop cells of more atoms.", show_default="any size")
    ] = None,
    charge_balance: Annotated[
        bool, typer.Option("--charge-balance", help="Drop compositions without balanced oxidation states.")
    ] = False,
    keep_duplicates: Annotated[
        bool, typer.Option("--keep-duplicates", help="Compute structures that equal another one, too.")
    ] = False,
    window: Annotated[
        float, typer.Option(metavar="EV", min=0.0, help="Survivors are at most so far above the hull (eV/atom).")
    ] = 0.1,
    static: Annotated[
        bool, typer.Option("--static", help="Compute energies of what is relaxed once more, in double precision.")
    ] = False,
    then: Annotated[
        str | None,
        typer.Option(metavar="phonon,elastic", help="Properties to compute of the survivors.", show_default="none"),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of the HTML report.", show_default="report, in the store's folder"),
    ] = None,
    checkpoint: Checkpoint = None,
    device: Devices = None,
    store: Store = None,
    fmax: Fmax = 0.05,
    max_steps: MaxSteps = 500,
    chunk_size: ChunkSize = 500,
    submit: Submit = False,
    project: Project = None,
    worker: Worker = None,
    resource: Resource = None,
) -> None:
    """
    Relax candidates, rank them by distance to the convex hull, write an HTML report.

    Candidates come from files, from --chemsys, or both. Interrupt it at any time: the same command goes on where it
    stopped, and what the store already holds is not computed again.

    `matris screen structures/ --store campaign`

    `matris screen --chemsys Li-Fe-O --then phonon`

    `matris screen structures/ --submit`, and the same again when it is finished, for the results
    """
    if not sources and not chemsys:
        raise typer.BadParameter("name files or folders to screen, or a chemical system with --chemsys")
    with clear_errors():
        from matris.flows.campaign.campaign import Campaign, local_folder
        from matris.flows.campaign.funnel import Funnel
        from matris.makers.batch_relax import BatchRelaxMaker, BatchStaticMaker

        where = chosen(project, worker, resource, device) if submit else None
        store = store_of(where, store) if where else store
        with stderr.status("Opening the store …"):
            try:
                funnel = Funnel(
                    max_sites=largest,
                    charge_balance=charge_balance,
                    duplicates=not keep_duplicates,
                    window=window,
                    properties=tuple(name.strip() for name in then.split(",")) if then else (),
                )
            except ValueError as error:
                raise typer.BadParameter(str(error)) from None
            on: dict[str, Any] = {"checkpoint": checkpoint, "device": device if where else None}
            maker = BatchRelaxMaker(**on, steps=max_steps, relax_kwargs={"fmax": fmax})
            campaign = Campaign(
                store,
                BatchStaticMaker(**on, dtype="float64", first=maker) if static else maker,
                funnel,
                title=_title(sources or [], chemsys),
                chunk_size=chunk_size,
                references=references,
                known_phases=known_phases,
            )
        candidates = _candidates(sources or [], chemsys, max_sites)
        if where is None:
            _run(campaign, candidates, device)
        elif not submit_campaign(campaign, candidates, where):
            return
        with stderr.status("Writing the report …"):
            documents = list(campaign.documents(_SHOWN))
            page = campaign.report(report or local_folder(store) / "report")
        _show_ranking(documents)
        _summarise(campaign, documents)
        stdout().print(f"Report: {page}", soft_wrap=True)
        exit_by_states(documents)


def relax(
    files: Files,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Folder of the relaxed CIF files.")
    ] = Path("relaxed"),
    relax_cell: Annotated[bool, typer.Option("--relax-cell/--fixed-cell", help="Whether the cell relaxes too.")] = True,
    checkpoint: Checkpoint = None,
    device: Devices = None,
    store: Store = None,
    fmax: Fmax = 0.05,
    max_steps: MaxSteps = 500,
    chunk_size: ChunkSize = 500,
    submit: Submit = False,
    project: Project = None,
    worker: Worker = None,
    resource: Resource = None,
) -> None:
    """
    Relax structures, write them as CIF files, print energies, keep everything in the store.

    `matris relax POSCAR other.cif --output relaxed`
    """
    with clear_errors():
        from matris.flows.campaign.campaign import Campaign
        from matris.flows.campaign.funnel import Funnel
        from matris.makers.batch_relax import BatchRelaxMaker

        where = chosen(project, worker, resource, device) if submit else None
        store = store_of(where, store) if where else store
        with stderr.status("Opening the store …"):
            campaign = Campaign(
                store,
                BatchRelaxMaker(
                    checkpoint=checkpoint,
                    device=device if where else None,
                    relax_cell=relax_cell,
                    steps=max_steps,
                    relax_kwargs={"fmax": fmax},
                ),
                Funnel(sanity=False, duplicates=False, hull=False),
                title=f"Relaxing {listed([path.name or str(path) for path in files])}",
                chunk_size=chunk_size,
            )
        candidates = _candidates(list(map(str, files)), None, 0)
        if where is None:
            _run(campaign, candidates, device)
        elif not submit_campaign(campaign, candidates, where):
            return
        documents = list(campaign.documents(_SHOWN))
        _show_relaxed(campaign, documents, campaign.write_structures(output))
        exit_by_states(documents)


def _candidates(sources: Sequence[str], chemsys: str | None, max_sites: int) -> Iterator[Candidate]:
    """Read and generate, one candidate after the other."""
    from matris.flows.sources.opening import open_source
    from matris.flows.sources.prototypes import generate_candidates

    for source in sources:
        yield from open_source(source)
    if chemsys:
        yield from generate_candidates(chemsys, max_sites=max_sites)


def _run(campaign: Campaign, candidates: Iterator[Candidate], device: str | None) -> None:
    """Compute what the store lacks, under a progress bar."""
    from matris.flows.local.runner import run

    devices = [name.strip() for name in device.split(",")] if device else [None]
    with _stopped_like_ctrl_c(), CampaignProgress() as progress:
        run(campaign, candidates, devices, progress.watch)
    if progress.known:
        stderr.print(f"{progress.known} were in the store already")


@contextmanager
def _stopped_like_ctrl_c() -> Iterator[None]:
    """Let SIGTERM, by which schedulers end a job, end a campaign in order."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _title(sources: Sequence[str], chemsys: str | None) -> str:
    """Headline of a campaign."""
    names = [chemsys.replace("-", "–")] if chemsys else []
    names += [Path(source).name or source for source in sources]
    return f"Screening {listed(names)}"


def _show_ranking(documents: Sequence[Document]) -> None:
    """Print the head of the ranking."""
    from matris.stores.report.outcomes import ranked

    ranking = ranked(documents)
    if ranking:
        title = f"Best {_TOP} of {len(ranking)}" if len(ranking) > _TOP else "Ranking"
        stdout().print(document_table(ranking[:_TOP], title=title, numbered=True))
    without = Counter(d["hull_state"] for d in ranking if d.get("energy_above_hull") is None)
    for why, count in without.most_common():
        stdout().print(f"{count} without a distance to the hull: {escape(str(why))}", soft_wrap=True)


def _show_relaxed(campaign: Campaign, documents: Sequence[Document], files: Mapping[str, Path]) -> None:
    """Print what relaxing gave, one structure a line."""
    from matris.stores.report.outcomes import reason

    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("formula", "state"):
        table.add_column(name, no_wrap=True)
    for name in ("steps", "energy\neV/atom", "fmax\neV/Å", "volume\nÅ³"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("file or reason", overflow="fold")
    for d in documents:
        table.add_row(
            d.get("formula_pretty") or "–",
            d["state"],
            str(d.get("n_steps") if d.get("n_steps") is not None else "–"),
            eV(d.get("uncorrected_energy_per_atom"), 4),
            eV(d.get("fmax"), 4),
            eV(d.get("volume"), 2),
            escape(str(files.get(d["document_id"]) or f"{d['source']}: {reason(d)}")),
        )
    stdout().print(table)
    stdout().print(_summary(campaign, documents, hull=False), soft_wrap=True)


def _summarise(campaign: Campaign, documents: Sequence[Document]) -> None:
    """Print what became of the candidates, and why some are lost."""
    from matris.stores.documents.candidate import REFERENCE_SOURCES
    from matris.stores.report.outcomes import lost, reason

    out = stdout()
    failures = [d for d in lost(documents) if d["state"] != "max_steps" or d["source"] in REFERENCE_SOURCES]
    for d in failures[:_TOP]:
        what = f"{d['source']} {d['formula_pretty']}" if d["source"] in REFERENCE_SOURCES else d["source"]
        out.print(f"[red]{d['state']}[/red] {escape(what)}: {escape(reason(d))}", soft_wrap=True)
    if len(failures) > _TOP:
        out.print(f"… and {len(failures) - _TOP} more: matris query --state failed, --state rejected")
    out.print(_summary(campaign, documents), soft_wrap=True)


def _summary(campaign: Campaign, documents: Sequence[Document], *, hull: bool = True) -> str:
    """One line."""
    from matris.stores.report.outcomes import Funnel

    intake: dict[str, Any] = campaign.record()["intake"]
    return Funnel.of(documents, intake, campaign.funnel.window if hull else None).summary()
