"""Commands that compute properties: `elastic`, `eos`, `phonon`, `qha`, `md`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.markup import escape
from rich.table import Table

from matris.cli.console import cell, stderr, stdout, write_columns, write_json
from matris.cli.options import (
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
    clear_errors,
    exit_by_states,
    listed,
)
from matris.cli.submit import submission_of, submit_properties

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matris.cli.console import Document
    from matris.flows.cluster.submission import Submission
    from matris.makers.batch import BatchMaker
    from matris.stores.report.property_kinds import PropertyKind


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
        submission = submission_of(project, worker, resource, device) if submit else None
        _properties("elastic", files, maker, store, output, report, submission)


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
        submission = submission_of(project, worker, resource, device) if submit else None
        _properties("phonon", files, maker, store, output, report, submission)


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
    submission: Submission | None = None,
) -> None:
    """Compute a property of all structures in some files, print it, write a page about it."""
    from matris.flows.campaign.campaign import local_folder
    from matris.flows.local.property_run import compute_properties
    from matris.stores.report.property_kinds import KINDS
    from matris.stores.report.property_page import write_property_report

    if submission is not None:
        found = submit_properties(name, files, maker, submission, store)
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
