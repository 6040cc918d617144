"""What the commands have in common: options, and how they end."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.markup import escape

from matris.cli.console import stderr
from matris.errors import MatrisError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from matris.cli.console import Document

NOTHING_COMPUTED = 1
INTERRUPTED = 130

_NAMED = 3

Files = Annotated[
    list[Path],
    typer.Argument(metavar="FILE", exists=True, help="CIF, POSCAR, extended XYZ, pymatgen JSON, or folders of them."),
]
Checkpoint = Annotated[
    str | None,
    typer.Option(metavar="KEY|FILE", help="A key, as 'matris models' lists them, or a file.", show_default="embedded"),
]
Device = Annotated[
    str | None, typer.Option(metavar="NAME", help="cpu, cuda, cuda:1, …", show_default="a GPU if there is one")
]
Devices = Annotated[
    str | None,
    typer.Option(
        "--device",
        metavar="NAME,NAME",
        help="cpu, cuda, …; a process for each that is named, as in cuda:0,cuda:1.",
        show_default="a GPU if there is one",
    ),
]
Store = Annotated[
    str | None,
    typer.Option(
        metavar="DIR|URI",
        help="Where results are kept: a folder, or mongodb://HOST/DATABASE.",
        show_default="your jobflow configuration, else ./matris-results",
    ),
]
Submit = Annotated[
    bool,
    typer.Option(
        "--submit",
        help="Hand the work to the workers of a jobflow-remote project: see docs/cluster.md.",
        rich_help_panel="Cluster",
    ),
]
Project = Annotated[
    str | None,
    typer.Option(
        "--project", metavar="NAME", help="Of jobflow-remote.", show_default="its own choice", rich_help_panel="Cluster"
    ),
]
Worker = Annotated[
    str | None,
    typer.Option("--worker", metavar="NAME,NAME", help="Which compute.", show_default="gpu", rich_help_panel="Cluster"),
]
Resource = Annotated[
    list[str] | None,
    typer.Option(
        "--resource",
        metavar="KEY=VALUE",
        help="Of a job, such as time=02:00:00; may be repeated.",
        show_default="the worker's",
        rich_help_panel="Cluster",
    ),
]
Fmax = Annotated[
    float, typer.Option(metavar="F", min=1e-9, help="Converged below this force on atoms and cell (eV/Å).")
]
MaxSteps = Annotated[int, typer.Option(metavar="N", min=0, help="Most optimisation steps of a structure.")]
ChunkSize = Annotated[int, typer.Option(metavar="N", min=1, help="Candidates in one job.")]
MinLength = Annotated[
    float, typer.Option(metavar="A", min=1.0, help="Least distance between faces of the supercell (Å).")
]
Format = Annotated[Literal["table", "json", "csv"], typer.Option("--format", help="What to print.")]
Page = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.html|DIR",
        help="Where the page with tables and pictures goes.",
        show_default="the store's folder",
    ),
]


@contextmanager
def clear_errors(*, resumes: bool = True) -> Iterator[None]:
    """Turn what goes wrong on purpose into one line and an exit code; after Ctrl-C say whether anything is kept."""
    try:
        yield
    except BrokenPipeError:
        raise
    except (MatrisError, OSError) as error:  # of the system: disk full, no rights
        stderr.print(f"[red]Error:[/red] {escape(str(error))}", soft_wrap=True)
        raise typer.Exit(NOTHING_COMPUTED) from None
    except KeyboardInterrupt:
        kept = "What is finished is kept; run the same command again to go on." if resumes else "Nothing is kept."
        stderr.print(f"Interrupted. {kept}")
        raise typer.Exit(INTERRUPTED) from None


def check_there(location: str | None) -> None:
    """
    Refuse to look for results in a folder that holds none: opening it would make a store there.

    Raises
    ------
    StoreError
        If there is no store.
    """
    from matris.errors import StoreError
    from matris.stores.database import DATABASE_FILE

    if location is not None and "://" not in location and not (Path(location) / DATABASE_FILE).is_file():
        raise StoreError(f"{location} holds no results: there is no {DATABASE_FILE} in it")


def listed(names: Sequence[str]) -> str:
    """Name the first few."""
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")


def exit_by_states(documents: Sequence[Document]) -> None:
    """End with an error code if nothing at all could be computed."""
    if not any(document["state"] in {"converged", "max_steps", "completed"} for document in documents):
        stderr.print("[red]Error:[/red] nothing could be computed")
        raise typer.Exit(NOTHING_COMPUTED)
