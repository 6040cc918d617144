"""The command `matris relax`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from matris.cli.campaign_run import DOCUMENT_FIELDS, candidates_of, run_campaign, summary, write_documents
from matris.cli.console import Column, numbers, pressures, print_table, stderr, stdout
from matris.cli.options import (
    Checkpoint,
    ChunkSize,
    Devices,
    Dispersion,
    Files,
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
from matris.cli.submit import project_store, submission_of, submit_campaign

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matris.cli.console import Document


def relax(
    files: Files,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Folder for the relaxed structures.")
    ] = Path("relaxed"),
    form: Annotated[
        Literal["cif", "symmetrized-cif", "poscar", "entries"],
        typer.Option(
            "--as",
            metavar="FORMAT",
            help="Format of the relaxed structures: cif, symmetrized-cif, poscar, or entries (pymatgen's computed "
            "entries, in one JSON file).",
        ),
    ] = "cif",
    relax_cell: Annotated[
        bool, typer.Option("--relax-cell/--fixed-cell", help="Relax the cell too, or only the atoms.")
    ] = True,
    pressure: Pressure = 0.0,
    checkpoint: Checkpoint = None,
    dispersion: Dispersion = None,
    device: Devices = None,
    store: Store = None,
    fmax: Fmax = 0.05,
    max_steps: MaxSteps = 500,
    optimizer: Optimizer = "lbfgs",
    chunk_size: ChunkSize = 500,
    then: Then = None,
    printed: Printed = "table",
    submit: Submit = False,
    project: Project = None,
    worker: Worker = None,
    resource: Resource = None,
) -> None:
    """
    Relax structures, write them to files, print their energies (eV/atom), and keep all results in the store.

    Under --pressure, the enthalpy E + pV is minimal. Files of structures that did not converge are named so,
    and the exit code is 3.

    `matris relax POSCAR other.cif --output relaxed`
    """
    with clear_errors():
        from matris.flows.campaign.campaign import Campaign
        from matris.flows.campaign.funnel import Funnel
        from matris.makers.batch_relax import BatchRelaxMaker

        submission = submission_of(project, worker, resource, device) if submit else None
        store = project_store(submission, store) if submission else store
        try:
            funnel = Funnel(sanity=False, duplicates=False, hull=False, properties=properties_of(then))
            maker = BatchRelaxMaker(
                checkpoint=checkpoint,
                dispersion=dispersion,
                device=device if submission else None,
                relax_cell=relax_cell,
                fmax=fmax,
                max_steps=max_steps,
                optimizer=optimizer,
                pressure=pressure,
            )
            maker.settings()
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None
        with stderr.status("Opening the store …"):
            campaign = Campaign(
                store,
                maker,
                funnel,
                title=f"Relaxing {shortened([path.name or str(path) for path in files])}",
                chunk_size=chunk_size,
            )
        candidates = candidates_of(list(map(str, files)))
        if submission is None:
            run_campaign(campaign, candidates, device)
        elif not submit_campaign(campaign, candidates, submission):
            return
        documents = list(campaign.documents(DOCUMENT_FIELDS))
        written = campaign.write_structures(output, form)
        if printed == "table":
            _show_relaxed(documents, written)
        else:
            write_documents(documents, printed)
        out = stdout() if printed == "table" else stderr
        out.print(summary(campaign, documents, hull=False), soft_wrap=True)
        if then:
            stderr.print(f"In the store: matris query --columns formula,{','.join(funnel.properties)}", soft_wrap=True)
        exit_by_states(documents)


def _show_relaxed(documents: Sequence[Document], files: Mapping[str, Path]) -> None:
    """Print a table of the results, one structure per line; `files` are the files by document id."""
    from matris.stores.report.outcomes import reason

    steps = [d.get("n_steps") for d in documents]
    remarks = [str(files.get(d["document_id"]) or f"{d['source']}: {reason(d)}") for d in documents]
    print_table(
        [
            Column("formula", [d.get("formula_pretty") or "–" for d in documents]),
            Column("state", [d["state"] for d in documents]),
            numbers("steps", steps),
            numbers("raw energy\neV/atom", [d.get("uncorrected_energy_per_atom") for d in documents], 4),
            *pressures(documents),
            numbers("fmax\neV/Å", [d.get("fmax") for d in documents], 4),
            numbers("volume\nÅ³", [d.get("volume") for d in documents], 2),
            Column("file or reason", remarks, shrinks="fold"),
        ]
    )
