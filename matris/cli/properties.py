"""Commands that compute properties: elastic, eos, phonon, qha, md."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.markup import escape
from rich.table import Table

from matris.cli.campaign_run import named_devices
from matris.cli.console import CampaignProgress, cell, stderr, stdout, write_columns, write_json
from matris.cli.options import (
    Checkpoint,
    Devices,
    Files,
    Format,
    MinLength,
    Optimizer,
    Page,
    Project,
    Resource,
    Store,
    Submit,
    Worker,
    clear_errors,
    exit_by_states,
    shortened,
)
from matris.cli.submit import submission_of, submit_properties

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matris.cli.console import Document
    from matris.flows.cluster.submission import Submission
    from matris.makers.batch import BatchMaker
    from matris.stores.report.property_kinds import PropertyKind


Displacement = Annotated[
    float,
    typer.Option(metavar="Å", min=0.001, max=0.3, help="Length of the displacements (Å); a third of it checks them."),
]


def elastic(
    files: Files,
    optimizer: Optimizer = "lbfgs",
    checkpoint: Checkpoint = None,
    device: Devices = None,
    store: Store = None,
    output: Format = "table",
    report: Page = None,
    submit: Submit = False,
    project: Project = None,
    worker: Worker = None,
    resource: Resource = None,
) -> None:
    """
    Compute elastic tensors, elastic moduli (GPa) and mechanical stability.

    `matris elastic POSCAR other.cif`
    """
    with clear_errors():
        from matris.makers import BatchElasticMaker

        maker = BatchElasticMaker(checkpoint=checkpoint, optimizer=optimizer)
        submission = submission_of(project, worker, resource, device) if submit else None
        _properties("elastic", files, maker, device, store, output, report, submission)


def eos(
    files: Files,
    optimizer: Optimizer = "lbfgs",
    checkpoint: Checkpoint = None,
    device: Devices = None,
    store: Store = None,
    output: Format = "table",
    report: Page = None,
) -> None:
    """
    Fit equations of state: equilibrium volume (Å³) and bulk modulus (GPa).

    Tables show the third-order Birch–Murnaghan fit; --format json has the other equations too.

    `matris eos POSCAR other.cif --format json > eos.json`
    """
    with clear_errors():
        from matris.makers import BatchEosMaker

        maker = BatchEosMaker(checkpoint=checkpoint, optimizer=optimizer)
        _properties("eos", files, maker, device, store, output, report)


def phonon(
    files: Files,
    min_length: MinLength = 12.0,
    displacement: Displacement = 0.03,
    follow: Annotated[
        bool,
        typer.Option("--follow", help="Distort unstable crystals along their most unstable mode, and relax them."),
    ] = False,
    optimizer: Optimizer = "lbfgs",
    checkpoint: Checkpoint = None,
    device: Devices = None,
    store: Store = None,
    output: Format = "table",
    report: Page = None,
    submit: Submit = False,
    project: Project = None,
    worker: Worker = None,
    resource: Resource = None,
) -> None:
    """
    Compute harmonic phonons (THz), dynamical stability, and thermal properties at 300 K per mole of atoms.

    `matris phonon POSCAR --min-length 15`
    """
    with clear_errors():
        from matris.makers import BatchPhononMaker

        maker = BatchPhononMaker(
            checkpoint=checkpoint,
            min_length=min_length,
            displacement=displacement,
            follow_instabilities=follow,
            optimizer=optimizer,
        )
        submission = submission_of(project, worker, resource, device) if submit else None
        _properties("phonon", files, maker, device, store, output, report, submission)


def qha(
    files: Files,
    min_length: MinLength = 12.0,
    displacement: Displacement = 0.03,
    t_max: Annotated[float, typer.Option(metavar="K", min=20.0, help="Maximum temperature (K).")] = 1000.0,
    optimizer: Optimizer = "lbfgs",
    checkpoint: Checkpoint = None,
    device: Devices = None,
    store: Store = None,
    output: Format = "table",
    report: Page = None,
) -> None:
    """
    Compute thermal expansion, bulk modulus, heat capacity and Grüneisen parameters (quasi-harmonic).

    `matris qha POSCAR --t-max 600`
    """
    with clear_errors():
        from matris.makers import BatchQhaMaker

        maker = BatchQhaMaker(
            checkpoint=checkpoint,
            optimizer=optimizer,
            min_length=min_length,
            displacement=displacement,
            t_max=t_max,
        )
        _properties("qha", files, maker, device, store, output, report)


def md(
    files: Files,
    ensemble: Annotated[
        Literal["nve", "nvt", "npt"],
        typer.Option(help="Ensemble: nvt has a Langevin thermostat, npt also a barostat that changes the whole cell."),
    ] = "nvt",
    temperature: Annotated[
        float, typer.Option(metavar="K", min=0.0, help="Temperature of initial velocities and thermostat (K).")
    ] = 300.0,
    pressure: Annotated[float, typer.Option(metavar="P", help="Pressure of the npt ensemble (GPa).")] = 0.0,
    steps: Annotated[int, typer.Option(metavar="N", min=1, help="Number of time steps per structure.")] = 1000,
    time_step: Annotated[float, typer.Option(metavar="FS", help="Time step of the integrator (fs).")] = 1.0,
    interval: Annotated[int, typer.Option(metavar="N", min=1, help="Number of time steps between saved frames.")] = 10,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Seed for initial velocities and noise.")] = 0,
    trajectories: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder for the trajectories, as extended XYZ files.")
    ] = Path("trajectories"),
    checkpoint: Checkpoint = None,
    device: Devices = None,
    store: Store = None,
    output: Format = "table",
    report: Page = None,
) -> None:
    """
    Run molecular dynamics and print the mean temperature (K), pressure (GPa), volume (Å³) and energy (eV/atom).

    The input cells are used unchanged: give supercells of some hundred atoms. Structures whose trajectory in the folder
    is complete are not computed again.

    `matris md supercell.vasp --ensemble npt --temperature 600 --steps 20000`
    """
    with clear_errors():
        from matris.makers import BatchMDMaker

        maker = BatchMDMaker(
            checkpoint=checkpoint,
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
        _properties("md", files, maker, device, store, output, report)


def _properties(
    name: str,
    files: Sequence[Path],
    maker: BatchMaker,
    device: str | None,
    store: str | None,
    output: str,
    report: Path | None,
    submission: Submission | None = None,
) -> None:
    """Compute a property of all structures in some files, print the results, and write an HTML page."""
    from matris.flows.campaign.campaign import local_folder
    from matris.flows.local.property_run import compute_properties
    from matris.stores.report.property_kinds import KINDS
    from matris.stores.report.property_page import write_property_report

    documents: Sequence[Document] | None
    if submission is not None:
        maker.device = device
        documents = submit_properties(name, files, maker, submission, store)
        if documents is None:
            return
    else:
        maker.card()  # an error here has one line, and comes before the structures are read
        with CampaignProgress() as progress:
            documents = compute_properties(files, maker, store, named_devices(device), progress.watch)
    kind = KINDS[name]
    _show_properties(documents, output, kind)
    if documents:
        title = f"{kind.title}: {shortened([path.name or str(path) for path in files])}"
        with stderr.status("Writing the page …"):
            page = write_property_report(documents, report or local_folder(store), title)
        stderr.print(f"Report: {escape(str(page))}", soft_wrap=True)
    exit_by_states(documents)


def _show_properties(documents: Sequence[Document], output: str, kind: PropertyKind) -> None:
    """Print a table or CSV with one material per line, or whole documents as JSON."""
    rows = [(d, kind.row(d)) for d in documents]
    if output == "json":
        write_json(documents)
    elif output == "csv":
        write_columns(
            ["formula", "state", *kind.columns, "reliable", "source"],
            [[d.get("formula_pretty"), d["state"], *cells, d.get("is_reliable"), d["source"]] for d, cells in rows],
        )
    else:
        table = Table(box=None, header_style="bold", pad_edge=False)
        table.add_column("formula", no_wrap=True)
        for name in kind.columns:
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("state", no_wrap=True)
        table.add_column("reliable", no_wrap=True)
        table.add_column("source, reason, warnings", overflow="fold")
        for d, cells in rows:
            remarks = "; ".join([d["source"], *([d["error"]] if d["error"] else []), *d["warnings"]])
            shown = map(cell, (*cells, d["state"], d.get("is_reliable")))
            table.add_row(d.get("formula_pretty") or "–", *shown, escape(remarks))
        stdout().print(table)
