"""Options that several commands share, and the exit codes of all commands."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.markup import escape

from matris.cli.console import stderr
from matris.errors import MatrisError
from matris.masking import masked

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from matris.cli.console import Document

FAILURE = 1
UNCONVERGED = 3
INTERRUPTED = 130

_MAX_LISTED = 3

Files = Annotated[
    list[Path],
    typer.Argument(
        metavar="FILE", exists=True, help="CIF, POSCAR, extended XYZ or pymatgen JSON files, or folders of them."
    ),
]
Checkpoint = Annotated[
    str | None,
    typer.Option(
        metavar="KEY|FILE",
        help="Checkpoint: a key that 'matris models' lists, or a file.",
        show_default="the embedded checkpoint",
    ),
]
Dispersion = Annotated[
    Literal["d3"] | None,
    typer.Option(
        "--dispersion",
        help="Add D3(BJ) dispersion, for the functional of the checkpoint.",
        show_default="none",
    ),
]
Device = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Device, such as cuda, cuda:1 or cpu.", show_default="a GPU if there is one"),
]
Devices = Annotated[
    str | None,
    typer.Option(
        "--device",
        metavar="NAME,NAME",
        help="Device, such as cuda, cuda:1 or cpu; several, separated by commas, run one process per device.",
        show_default="all GPUs; without one, a process for each CPU core",
    ),
]
Store = Annotated[
    str | None,
    typer.Option(
        metavar="DIR|URI|FILE",
        help="Store of the results: a folder, mongodb://HOST/DATABASE, a file that holds this address, or "
        "project://NAME of jobflow-remote.",
        show_default="$MATRIS_STORE, else your jobflow configuration, else ./matris-results",
    ),
]
Submit = Annotated[
    bool,
    typer.Option(
        "--submit",
        help="Submit the work to a cluster, by jobflow-remote (docs/cluster.md).",
        rich_help_panel="Cluster",
    ),
]
Project = Annotated[
    str | None,
    typer.Option(
        "--project",
        metavar="NAME",
        help="Project of jobflow-remote.",
        show_default="jobflow-remote's own choice",
        rich_help_panel="Cluster",
    ),
]
Worker = Annotated[
    str | None,
    typer.Option(
        "--worker",
        metavar="NAME,NAME",
        help="Workers of the project that compute.",
        show_default="gpu",
        rich_help_panel="Cluster",
    ),
]
Resource = Annotated[
    list[str] | None,
    typer.Option(
        "--resource",
        metavar="KEY=VALUE",
        help="Resource that each job requests, such as time=02:00:00; may be repeated.",
        show_default="the worker's resources",
        rich_help_panel="Cluster",
    ),
]
WithReferences = Annotated[
    bool,
    typer.Option(
        "--with-references",
        help="Include the elements, known phases and prototypes that only compete on hulls.",
    ),
]
Then = Annotated[
    str | None,
    typer.Option(
        "--then",
        metavar="NAME,NAME",
        help="Properties to compute for the survivors: what converged, within the hull window if there are hulls.",
        show_default="none",
    ),
]
Fmax = Annotated[
    float,
    typer.Option(metavar="F", min=1e-9, help="Convergence threshold for the forces on atoms and cell (eV/Å)."),
]
MaxSteps = Annotated[int, typer.Option(metavar="N", min=0, help="Maximum number of optimisation steps per structure.")]
Optimizer = Annotated[
    Literal["lbfgs", "fire"],
    typer.Option("--optimizer", help="Algorithm of the relaxations; lbfgs needs fewer evaluations."),
]
Pressure = Annotated[
    float, typer.Option(metavar="GPA", help="External pressure on the relaxed cells (GPa); compresses if positive.")
]
ChunkSize = Annotated[int, typer.Option(metavar="N", min=1, help="Maximum number of candidates in one job.")]
MinLength = Annotated[
    float, typer.Option(metavar="A", min=1.0, help="Minimum distance between opposite faces of the supercell (Å).")
]
Format = Annotated[Literal["table", "json", "csv"], typer.Option("--format", help="Format of the printed results.")]
Printed = Annotated[
    Literal["table", "json", "csv"],
    typer.Option("--format", help="Format of the printed results; other messages than tables go to standard error."),
]
Page = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.html|DIR",
        help="HTML page with tables and plots, or the folder for it.",
        show_default="the store's folder",
    ),
]


def properties_of(then: str | None) -> tuple[str, ...]:
    """
    Split the value of ``--then``.

    Raises
    ------
    MatrisError
        If a property needs a package that is not installed.
    """
    names = tuple(name.strip() for name in then.split(",")) if then else ()
    if "kappa" in names:
        from matris.properties.conductivity import require_phono3py

        require_phono3py()
    return names


@contextmanager
def clear_errors(*, resumes: bool = True) -> Iterator[None]:
    """
    Turn expected errors and Ctrl-C into one line on standard error and an exit code.

    Parameters
    ----------
    resumes
        Whether the command resumes when it is run again, for the message after Ctrl-C.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except (MatrisError, OSError) as error:  # OSError: disk full, missing rights
        stderr.print(f"[red]Error:[/red] {escape(masked(str(error)))}", soft_wrap=True)
        raise typer.Exit(FAILURE) from None
    except KeyboardInterrupt:
        message = (
            "Finished results are kept; run the same command again to resume." if resumes else "No results are kept."
        )
        stderr.print(f"Interrupted. {message}")
        raise typer.Exit(INTERRUPTED) from None


def require_results(location: str | None) -> None:
    """
    Check that a folder holds results; opening a store there would create one.

    Raises
    ------
    StoreError
        If the folder holds no store.
    """
    from matris.errors import StoreError
    from matris.stores.database import DATABASE_FILE
    from matris.stores.database.jobstore import chosen_location, is_folder

    chosen = chosen_location(location)
    if chosen is not None and is_folder(chosen) and not (Path(chosen) / DATABASE_FILE).is_file():
        raise StoreError(f"{chosen} holds no results: it has no {DATABASE_FILE}")


def _show_checkpoints(documents: Sequence[Document]) -> None:
    """Print which checkpoints know the elements that were not supported."""
    from matris.structures import unsupported_elements

    unknown = sorted({symbol for d in documents for symbol in unsupported_elements(d.get("error"))})
    if unknown:
        from matris.model.checkpoints import where_known

        stderr.print(f"[yellow]{escape(where_known(unknown))}[/yellow]", soft_wrap=True)


def shortened(names: Sequence[str]) -> str:
    """List the first few names and the number of the others."""
    rest = len(names) - _MAX_LISTED
    return ", ".join(names[:_MAX_LISTED]) + (f" and {rest} more" if rest > 0 else "")


def exit_by_states(documents: Sequence[Document], *, all_converge: bool = True) -> None:
    """
    Exit with an error code if no structure could be computed, or one did not converge.

    Parameters
    ----------
    documents
        Documents of all structures.
    all_converge
        Whether structures that did not converge have an exit code of their own.
    """
    _show_checkpoints(documents)
    if not any(document["state"] in {"converged", "max_steps", "completed"} for document in documents):
        stderr.print("[red]Error:[/red] nothing could be computed")
        raise typer.Exit(FAILURE)
    late = [document["source"] for document in documents if document["state"] == "max_steps"]
    if all_converge and late:
        stderr.print(f"[yellow]Not converged:[/yellow] {escape(shortened(late))}", soft_wrap=True)
        raise typer.Exit(UNCONVERGED)
