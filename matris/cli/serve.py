"""The command that shows a store in the browser."""

from __future__ import annotations

import socket
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from matris.cli.console import rate, stderr
from matris.cli.options import Store, clear_errors, require_results
from matris.cli.status_view import duration

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from fastapi import FastAPI

    from matris.flows.campaign.status import Status

_SHOWN = 20  # campaigns, the newest


def serve(
    host: Annotated[
        str,
        typer.Option(metavar="NAME", help="Address to listen on. There is no authentication: see docs/serve.md."),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(metavar="N", min=0, max=65535, help="Port to listen on; 0 for any free port.")
    ] = 8000,
    optimade: Annotated[
        bool,
        typer.Option(help="Serve OPTIMADE clients too, at /optimade, if OPTIMADE's tools are installed."),
    ] = True,
    store: Store = None,
) -> None:
    """
    Show results in the browser, until interrupted: searches, candidates with plots, progress, downloads.

    `matris serve --store campaign`
    """
    with clear_errors():
        from matris.stores.serving.app import LOOPBACK, make_app
        from matris.stores.serving.listening import address_of, is_loopback, listen, run
        from matris.stores.serving.served_store import ServedStore

        require_results(store)
        served = ServedStore(store)
        served.open()
        with listen(host, port) as listener:
            hosts = (*LOOPBACK, host) if is_loopback(host) else ("*",)
            app = make_app(served, _Campaigns(store), name=_name(store), hosts=hosts)
            if optimade:
                _mount_optimade(app, store)
            if not is_loopback(host):
                stderr.print(
                    f"[yellow]Anyone who reaches {escape(host)} on the network can read all results[/yellow]: there is "
                    "no authentication and no encryption. To reach it from another computer, leave out --host and use "
                    f"a tunnel: ssh -L {listener.getsockname()[1]}:localhost:{listener.getsockname()[1]} "
                    f"{socket.gethostname()}",
                    soft_wrap=True,
                )
            stderr.print(f"Results at {address_of(listener)}, until Ctrl-C", soft_wrap=True)
            run(app, listener)


class _Campaigns:
    """The campaigns of a store, read from it anew at each request."""

    def __init__(self, location: str | None) -> None:
        self._location = location

    def progress(self) -> Sequence[Mapping[str, Any]]:
        """Read the progress of the newest campaigns."""
        from matris.flows.campaign.status import read_status

        newest = self._records().query(properties=["campaign_id"], sort={"last_updated": -1}, limit=_SHOWN)
        return [_progress(read_status(self._location, record["campaign_id"])) for record in newest]

    def report(self, name: str, folder: Path) -> Path | None:
        """Write the report of a campaign; None if there is no such campaign."""
        from matris.flows.campaign.results import CampaignResults

        if not self._records().count({"campaign_id": name}):
            return None
        return CampaignResults.find(self._location, name).report(folder)

    def _records(self) -> Any:
        from matris.stores.database.jobstore import open_job_store, sibling_store

        return sibling_store(open_job_store(self._location), "campaigns", "campaign_id")


def _progress(status: Status) -> dict[str, Any]:
    """Arrange the progress of a campaign for the page."""
    problems = [status.stopped, status.incomplete, *islice(status.broken, 3)]
    return {
        "name": status.name,
        "title": status.title,
        "checkpoint": status.checkpoint,
        "phase": status.phase,
        "read": status.read,
        "stages": [
            {
                "name": stage.stage,
                "done": stage.candidates["done"],
                "total": sum(stage.candidates.values()),
                "rate": rate(stage.rate),
                "remaining": duration(stage.remaining),
            }
            for stage in status.stages
        ],
        "problems": [problem for problem in problems if problem],
    }


def _name(store: str | None) -> str:
    """Name a store in headings, without the password in its address."""
    from pathlib import Path

    from matris.masking import masked
    from matris.stores.database.jobstore import DEFAULT_FOLDER, chosen_location, is_folder

    chosen = chosen_location(store)
    if chosen is None:
        return DEFAULT_FOLDER
    return Path(chosen).absolute().name if is_folder(chosen) else masked(str(chosen))


def _mount_optimade(app: FastAPI, store: str | None) -> None:
    """Serve OPTIMADE beside the pages; say why not if it cannot be."""
    from matris.errors import MatrisError
    from matris.stores.serving.app import MOUNTED

    try:
        from matris.stores.optimade.server import make_app, open_published, publish

        candidates, published = open_published(store)
        with stderr.status("Publishing new results for OPTIMADE …"):
            publish(candidates, published)
        app.mount(MOUNTED, make_app(published, MOUNTED))
    except MatrisError as error:
        stderr.print(f"Without OPTIMADE: {escape(str(error))}", soft_wrap=True)
    else:
        stderr.print(f"OPTIMADE at {MOUNTED}", soft_wrap=True)
