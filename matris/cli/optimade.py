"""Commands that hand results on in OPTIMADE's terms."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the signature
from typing import TYPE_CHECKING, Annotated

import typer

from matris.cli.console import stderr
from matris.cli.options import Store, check_there, clear_errors

if TYPE_CHECKING:
    from matris.stores.candidate_store import CandidateStore

app = typer.Typer(no_args_is_help=True, help="Serve or export the relaxed candidates for OPTIMADE's clients.")


@app.command()
def export(
    file: Annotated[Path, typer.Argument(metavar="FILE.jsonl", dir_okay=False, help="An older one is replaced.")],
    store: Store = None,
) -> None:
    """
    Write the relaxed candidates to one file, with which any OPTIMADE server can be filled.

    `matris optimade export candidates.jsonl`
    """
    with clear_errors():
        from matris.stores.candidate_store import CandidateStore
        from matris.stores.optimade.export import export_optimade

        check_there(store)
        candidates = CandidateStore.open(store)
        with stderr.status("Writing …"):
            n_structures = export_optimade(candidates, file)
        _say(n_structures, candidates, "exported")


@app.command("serve")
def serve_command(
    store: Store = None,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 for any that is free.")] = 5000,
) -> None:
    """
    Answer OPTIMADE queries on the relaxed candidates, until interrupted.

    Results that come meanwhile are served after a restart, which writes only what is new.

    `matris optimade serve --port 5000`
    """
    with clear_errors():
        from matris.stores.optimade.server import listen, open_published, publish, serve

        check_there(store)
        with listen(host, port) as listener:
            candidates, published = open_published(store)
            with stderr.status("Publishing what is new …"):
                publish(candidates, published)
            _say(published.count(), candidates, "served")
            stderr.print("OPTIMADE at http://{}:{}, until Ctrl-C".format(*listener.getsockname()[:2]))
            serve(published, listener)


def _say(n_structures: int, candidates: CandidateStore, done: str) -> None:
    """Say how many structures there are, and how many candidates are not among them."""
    rest = candidates.docs.count() - n_structures
    without = f"; {rest} rejected, failed, duplicate or damaged ones are not" if rest else ""
    stderr.print(f"{n_structures} structures {done}{without}")
