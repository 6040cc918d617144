"""The command line; what runs and looks at campaigns, trains, and clusters and OPTIMADE are in files of their own."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.markup import escape
from rich.table import Table

from matris import cli_campaign, cli_cluster, cli_optimade, cli_screen, cli_submit, cli_training
from matris.cli_options import (
    Checkpoint,
    Device,
    Files,
    Format,
    MinLength,
    Page,
    Project,
    Resource,
    Store,
    Submit,
    Worker,
    check_there,
    clear_errors,
    exit_by_states,
    listed,
)
from matris.terminal import (
    cell,
    columns_table,
    document_table,
    stderr,
    stdout,
    write_columns,
    write_json,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matris.flows.cluster.submission import Submission
    from matris.makers.batch import BatchMaker
    from matris.stores.candidate_query import CandidateQuery
    from matris.stores.property_kinds import PropertyKind
    from matris.terminal import Document

NOTHING_COMPUTED = 1
INTERRUPTED = 130

_TOP = 20
_PAGE = 50
_NAMED = 3

app = typer.Typer(
    name="matris",
    help="High-throughput screening of crystals with the MatRIS interatomic potential.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(cli_screen.screen)
app.command()(cli_screen.relax)
app.command()(cli_campaign.status)
app.command()(cli_campaign.cancel)
app.command()(cli_campaign.resume)
app.command()(cli_campaign.report)
app.command()(cli_campaign.export)
app.command()(cli_training.label)
app.command()(cli_training.data)
app.command()(cli_training.evaluate)
app.command()(cli_training.train)
app.command()(cli_training.finetune)
app.add_typer(cli_optimade.app, name="optimade")
app.add_typer(cli_cluster.app, name="cluster")


def main() -> None:
    """Run the command line."""
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # other packages' deprecations are no business of a user's terminal
    app()


@app.command()
def elastic(
    files: Files,
    checkpoint: Checkpoint = None,
    device: Device = None,
    store: Store = None,
    output: Format = "table",
    report: Page = None,
    submit: Submit = False,
    project: Project = None,
    worker: Worker = None,
    resource: Resource = None,
) -> None:
    """
    Elastic tensors: moduli and mechanical stability (GPa).

    `matris elastic POSCAR other.cif`
    """
    with clear_errors():
        from matris.makers import BatchElasticMaker

        maker = BatchElasticMaker(checkpoint=checkpoint, device=device)
        where = cli_submit.chosen(project, worker, resource, device) if submit else None
        _properties("elastic", files, maker, store, output, report, where)


@app.command()
def eos(
    files: Files,
    checkpoint: Checkpoint = None,
    device: Device = None,
    store: Store = None,
    output: Format = "table",
    report: Page = None,
) -> None:
    """
    Equations of state: equilibrium volume and bulk modulus (third-order Birch–Murnaghan; JSON has others too).

    `matris eos POSCAR other.cif --format json > eos.json`
    """
    with clear_errors():
        from matris.makers import BatchEosMaker

        _properties("eos", files, BatchEosMaker(checkpoint=checkpoint, device=device), store, output, report)


@app.command()
def phonon(
    files: Files,
    min_length: MinLength = 12.0,
    follow: Annotated[
        bool, typer.Option("--follow", help="Distort unstable crystals along their worst mode, and relax them.")
    ] = False,
    checkpoint: Checkpoint = None,
    device: Device = None,
    store: Store = None,
    output: Format = "table",
    report: Page = None,
    submit: Submit = False,
    project: Project = None,
    worker: Worker = None,
    resource: Resource = None,
) -> None:
    """
    Harmonic phonons: dynamical stability and thermal properties at 300 K.

    `matris phonon POSCAR --min-length 15`
    """
    with clear_errors():
        from matris.makers import BatchPhononMaker

        maker = BatchPhononMaker(
            checkpoint=checkpoint, device=device, min_length=min_length, follow_instabilities=follow
        )
        where = cli_submit.chosen(project, worker, resource, device) if submit else None
        _properties("phonon", files, maker, store, output, report, where)


@app.command()
def qha(
    files: Files,
    min_length: MinLength = 12.0,
    t_max: Annotated[float, typer.Option(metavar="K", min=20.0, help="Highest temperature (K).")] = 1000.0,
    checkpoint: Checkpoint = None,
    device: Device = None,
    store: Store = None,
    output: Format = "table",
    report: Page = None,
) -> None:
    """
    Quasi-harmonic thermodynamics: thermal expansion, bulk modulus and heat capacity, Grüneisen parameters.

    `matris qha POSCAR --t-max 600`
    """
    with clear_errors():
        from matris.makers import BatchQhaMaker

        maker = BatchQhaMaker(checkpoint=checkpoint, device=device, min_length=min_length, t_max=t_max)
        _properties("qha", files, maker, store, output, report)


@app.command()
def md(
    files: Files,
    ensemble: Annotated[
        Literal["nve", "nvt", "npt"],
        typer.Option(help="nvt: Langevin thermostat; npt: with a barostat by which the whole cell fluctuates."),
    ] = "nvt",
    temperature: Annotated[
        float, typer.Option(metavar="K", min=0.0, help="Of initial velocities and thermostat (K).")
    ] = 300.0,
    pressure: Annotated[float, typer.Option(metavar="P", help="Of npt (GPa).")] = 0.0,
    steps: Annotated[int, typer.Option(metavar="N", min=1, help="Steps of each structure.")] = 1000,
    time_step: Annotated[float, typer.Option(metavar="FS", help="Of the integrator (fs).")] = 1.0,
    interval: Annotated[int, typer.Option(metavar="N", min=1, help="Steps between frames.")] = 10,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Of initial velocities and noise.")] = 0,
    trajectories: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the trajectories, extended XYZ.")] = Path(
        "trajectories"
    ),
    checkpoint: Checkpoint = None,
    device: Device = None,
    store: Store = None,
    output: Format = "table",
    report: Page = None,
) -> None:
    """
    Molecular dynamics of the cells as they are: mean temperature, pressure, volume and energy, and trajectories.

    Give supercells of some hundred atoms. A structure whose trajectory is complete in the folder is not computed again.

    `matris md supercell.vasp --ensemble npt --temperature 600 --steps 20000`
    """
    with clear_errors():
        from matris.makers import BatchMDMaker

        maker = BatchMDMaker(
            checkpoint=checkpoint,
            device=device,
            ensemble=ensemble,
            temperature=temperature,
            pressure=pressure,
            time_step=time_step,
            n_steps=steps,
            traj_interval=interval,
            mb_velocity_seed=seed,
            trajectory_dir=str(trajectories),
        )
        try:
            maker.settings()
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None
        _properties("md", files, maker, store, output, report)


def _properties(
    name: str,
    files: Sequence[Path],
    maker: BatchMaker,
    store: str | None,
    output: str,
    report: Path | None,
    where: Submission | None = None,
) -> None:
    """Compute a property of all structures in some files, print it, write a page about it."""
    from matris.flows.campaign import local_folder
    from matris.flows.properties import compute_properties
    from matris.stores.property_kinds import KINDS
    from matris.stores.property_report import write_property_report

    if where is not None:
        found = cli_submit.submit_properties(name, files, maker, where, store)
        if found is None:
            return
        documents = found
    else:
        with stderr.status(f"{maker.name.removeprefix('batch ').capitalize()} …"):
            maker.potential()
            documents = compute_properties(files, maker, store)
    kind = KINDS[name]
    _show_properties(documents, output, kind)
    if documents:
        title = f"{kind.title}: {listed([path.name or str(path) for path in files])}"
        with stderr.status("Writing the page …"):
            page = write_property_report(documents, report or local_folder(store), title)
        stderr.print(f"Report: {escape(str(page))}", soft_wrap=True)
    exit_by_states(documents)


def _show_properties(documents: Sequence[Document], output: str, kind: PropertyKind) -> None:
    """Print one material a line, or whole documents."""
    rows = [(d, kind.row(d)) for d in documents]
    if output == "json":
        write_json(documents)
    elif output == "csv":
        write_columns(
            ["formula", "state", *kind.columns, "source"],
            [[d.get("formula_pretty"), d["state"], *cells, d["source"]] for d, cells in rows],
        )
    else:
        table = Table(box=None, header_style="bold", pad_edge=False)
        table.add_column("formula", no_wrap=True)
        for name in kind.columns:
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("state", no_wrap=True)
        table.add_column("source, reason, warnings", overflow="fold")
        for d, cells in rows:
            remarks = "; ".join([d["source"], *([d["error"]] if d["error"] else []), *d["warnings"]])
            table.add_row(d.get("formula_pretty") or "–", *map(cell, cells), d["state"], escape(remarks))
        stdout().print(table)


@app.command()
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


@app.command()
def models() -> None:
    """List the checkpoints: energy scale, predictions, whether at hand; what the embedded ones are worth."""
    with clear_errors():
        from matris import checkpoints
        from matris.cache import cache_directory
        from matris.limits import limits, measured_errors

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
    from matris.stores.query_tables import COLUMNS, expanded, json_ready, row, write_cif

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


if __name__ == "__main__":
    main()
