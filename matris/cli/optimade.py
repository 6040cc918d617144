"""Commands that publish results in the OPTIMADE format."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the signature
from typing import TYPE_CHECKING, Annotated

import typer

from matris.cli.console import stderr
from matris.cli.options import Store, WithReferences, clear_errors, require_results

if TYPE_CHECKING:
    from matris.stores.candidate_store import CandidateStore

app = typer.Typer(no_args_is_help=True, help="Serve or export the relaxed candidates for OPTIMADE clients.")


@app.command()
def export(
    file: Annotated[
        Path, typer.Argument(metavar="FILE.jsonl", dir_okay=False, help="File to write; an old one is replaced.")
    ],
    with_references: WithReferences = False,
    store: Store = None,
) -> None:
    """
    Write the relaxed candidates to a file that any OPTIMADE server can import.

    `matris optimade export candidates.jsonl`
    """
    with clear_errors():
        from matris.stores.candidate_store import CandidateStore
        from matris.stores.optimade.export import export_optimade

        require_results(store)
        candidates = CandidateStore.open(store)
        with stderr.status("Writing …"):
            n_structures = export_optimade(candidates, file, with_references=with_references)
        _print_counts(n_structures, candidates, "exported")


@app.command("serve")
def serve_command(
    with_references: WithReferences = False,
    store: Store = None,
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Address to listen on; 0.0.0.0 for all interfaces.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(metavar="PORT", min=0, max=65535, help="Port to listen on; 0 for any free port.")
    ] = 5000,
) -> None:
    """
    Serve the relaxed candidates to OPTIMADE clients, until interrupted.

    New results are served after a restart, which publishes only what is new.

    `matris optimade serve --port 5000`
    """
    with clear_errors():
        from matris.stores.optimade.server import make_app, open_published, publish
        from matris.stores.serving.listening import address_of, listen, run

        require_results(store)
        with listen(host, port) as listener:
            candidates, published = open_published(store)
            with stderr.status("Publishing new results …"):
                publish(candidates, published, with_references=with_references)
            _print_counts(published.count(), candidates, "served")
            stderr.print(f"OPTIMADE at {address_of(listener)}, until Ctrl-C")
            run(make_app(published), listener)


def _print_counts(n_structures: int, candidates: CandidateStore, done: str) -> None:
    """Print the number of structures, and the number of candidates that are not among them."""
    rest = candidates.docs.count() - n_structures
    excluded = f"; {rest} rejected, failed, duplicate or damaged ones, and references, are not" if rest else ""
    stderr.print(f"{n_structures} structures {done}{excluded}")
