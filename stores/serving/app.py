"""The web application: pages and files of one store, and the progress of its campaigns."""

from __future__ import annotations

import logging
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

from matris.errors import MatrisError
from matris.files.stored_objects import DamagedStructureError, UnknownClassError
from matris.files.structure_files import StructureFormat  # noqa: TC001 - same
from matris.stores.query.export import ExportFormat  # noqa: TC001 - FastAPI reads the signatures
from matris.stores.serving import downloads, pages
from matris.stores.serving.served_store import GONE

try:
    from fastapi import BackgroundTasks, FastAPI, Query, Request
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import FileResponse, HTMLResponse, Response
    from starlette.exceptions import HTTPException
    from starlette.middleware.trustedhost import TrustedHostMiddleware
except ImportError as error:
    raise MatrisError("the tools of a web server are not installed: pip install 'matris-flows[serve]'") from error

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from matris.stores.serving.served_store import ServedStore

LOOPBACK = ("localhost", "127.0.0.1", "::1", "[::1]")
"""Names under which a browser reaches a server on this machine alone."""

MOUNTED = "/optimade"
"""Path of the OPTIMADE server, if there is one."""

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; connect-src 'self'; worker-src blob:; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",  # plotly evaluates code of its own
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_DAY = "private, max-age=86400"

logger = logging.getLogger(__name__)


class Campaigns(Protocol):
    """The campaigns of a store: what the server knows of them comes from the command that starts it."""

    def progress(self) -> Sequence[Mapping[str, Any]]:
        """
        Read the progress of all campaigns, the newest first.

        Returns
        -------
        sequence of mapping
            ``name``, ``title``, ``checkpoint``, ``phase``, ``read``, ``stages`` (each with ``name``, ``done``,
            ``total``, ``rate`` and ``remaining`` as texts) and ``problems`` (sentences).
        """
        ...

    def report(self, name: str, folder: Path) -> Path | None:
        """Write the report of a campaign into a folder, and return its page; None if there is no such campaign."""
        ...


class NoCampaigns:
    """A store whose campaigns are not shown."""

    def progress(self) -> Sequence[Mapping[str, Any]]:
        """Return no campaign."""
        return ()

    def report(self, name: str, folder: Path) -> Path | None:  # noqa: ARG002
        """Return None: no campaign is known."""
        return None


def make_app(
    store: ServedStore,
    campaigns: Campaigns | None = None,
    *,
    name: str = "the store",
    hosts: Sequence[str] = LOOPBACK,
) -> FastAPI:
    """
    Make the web application. It only reads.

    Parameters
    ----------
    store
        Store to serve.
    campaigns
        Its campaigns; by default none are shown.
    name
        Name of the store in headings.
    hosts
        Names of the server that requests may use; ``"*"`` allows any. A page of another site, whose name leads to this
        machine, cannot read results under its own name (DNS rebinding).

    Examples
    --------
    >>> from fastapi.testclient import TestClient
    >>> from matris.stores import CandidateStore
    >>> from matris.stores.serving.served_store import ServedStore
    >>> with TemporaryDirectory() as folder:
    ...     _ = CandidateStore.open(folder)  # an empty store
    ...     client = TestClient(make_app(ServedStore(folder)), base_url="http://127.0.0.1")
    ...     [client.get(path).status_code for path in ("/", "/?filter=ehull+<", "/candidate/none")]
    [200, 400, 404]
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, title="matris")
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)
    app.middleware("http")(_with_headers)
    _answer_errors(app)
    known = campaigns or NoCampaigns()
    _add_searches(app, store, known, name)
    _add_candidates(app, store)
    _add_files(app, store, _Reports(store, known))
    return app


def _add_searches(app: FastAPI, store: ServedStore, campaigns: Campaigns, name: str) -> None:
    """Add the page of a search, and its part that changes."""

    @app.get("/", response_class=HTMLResponse)
    def search(
        text: Annotated[str, Query(alias="filter", max_length=2000)] = "",
        sort: Annotated[str, Query(max_length=200)] = pages.Search().order,
        references: Literal["yes", ""] = "",
        page: Annotated[int, Query(ge=1, le=10**9)] = 1,
    ) -> HTMLResponse:
        wanted = pages.Search(text, sort, bool(references))
        content, is_understood = pages.search_page(store.open(), wanted, page, name, campaigns.progress())
        return HTMLResponse(content, 200 if is_understood else 400)

    @app.get("/progress", response_class=HTMLResponse)
    def progress() -> HTMLResponse:
        return HTMLResponse(pages.progress_part(store.open(), campaigns.progress()))


def _add_candidates(app: FastAPI, store: ServedStore) -> None:
    """Add the page of a candidate, its structure and its document."""

    @app.get("/candidate/{document_id}", response_class=HTMLResponse)
    def candidate(document_id: str) -> HTMLResponse:
        return HTMLResponse(pages.candidate_page(store.open(), _document(store, document_id)))

    @app.get("/candidate/{document_id}/structure")
    def structure(document_id: str, form: Annotated[StructureFormat, Query(alias="format")] = "cif") -> Response:
        document = _document(store, document_id)
        crystal = store.open().candidates.structure(document_id)
        if crystal is None:
            raise HTTPException(404, f"candidate {document_id} has no relaxed structure")
        kind = "text/plain" if form == "poscar" else "chemical/x-cif"
        return _attached(*downloads.structure_file(document, crystal, form), kind)

    @app.get("/candidate/{document_id}/document")
    def document(document_id: str) -> Response:
        return _attached(*downloads.document_file(_document(store, document_id)), "application/json")


def _add_files(app: FastAPI, store: ServedStore, reports: _Reports) -> None:
    """Add files: results of a search, reports of campaigns, and the library that draws figures."""

    @app.get("/results")
    def results(
        background: BackgroundTasks,
        form: Annotated[ExportFormat, Query(alias="format")] = "csv",
        text: Annotated[str, Query(alias="filter", max_length=2000)] = "",
        sort: Annotated[str, Query(max_length=200)] = pages.Search().order,
        references: Literal["yes", ""] = "",
    ) -> FileResponse:
        query = pages.Search(text, sort, bool(references)).query(store.open())
        folder = TemporaryDirectory(prefix="matris-serve-")
        try:
            path = downloads.results_file(query, form, Path(folder.name))
        except BaseException:
            folder.cleanup()
            raise
        background.add_task(folder.cleanup)
        return FileResponse(path, filename=path.name, background=background)

    @app.get("/campaign/{campaign}")
    def campaign_report(campaign: str) -> FileResponse:
        return FileResponse(reports.page(campaign), media_type="text/html")

    @app.get("/favicon.ico")
    def no_icon() -> Response:
        return Response(status_code=204)

    @app.get("/plotly.js")
    def plotly() -> Response:
        from plotly.offline import get_plotlyjs

        return Response(get_plotlyjs(), media_type="text/javascript", headers={"Cache-Control": _DAY})


class _Reports:
    """Pages of campaigns, which are written again when the store has changed."""

    def __init__(self, store: ServedStore, campaigns: Campaigns) -> None:
        self._store, self._campaigns = store, campaigns
        self._folder = TemporaryDirectory(prefix="matris-serve-")
        self._written: dict[str, tuple[Any, Path]] = {}
        self._lock = Lock()

    def page(self, name: str) -> Path:
        """Return the page of a campaign."""
        stamp = self._stamp()
        with self._lock:
            before = self._written.get(name)
            if before is None or before[0] != stamp:
                folder = Path(self._folder.name, str(len(self._written)) if before is None else before[1].parent.name)
                page = self._campaigns.report(name, folder)
                if page is None:
                    raise HTTPException(404, f"there is no campaign {name}")
                self._written[name] = stamp, page
            return self._written[name][1]

    def _stamp(self) -> Any:
        docs = self._store.open().candidates.docs
        newest = docs.query_one(properties=["last_updated"], sort={"last_updated": -1}) or {}
        return docs.count(), newest.get("last_updated")


def _document(store: ServedStore, document_id: str) -> Mapping[str, Any]:
    found = store.open().candidates.documents([document_id])
    if not found:
        raise HTTPException(404, f"there is no candidate {document_id}")
    return found[0]


def _attached(name: str, text: str, kind: str) -> Response:
    return Response(text, media_type=kind, headers={"Content-Disposition": f'attachment; filename="{name}"'})


async def _with_headers(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
    """Add headers that keep other sites from using an answer, and pages from loading anything of other sites."""
    response = await answer(request)
    if request.url.path.startswith(MOUNTED):
        if "access-control-allow-origin" in response.headers:  # OPTIMADE's server is made for public data
            del response.headers["access-control-allow-origin"]
        return response
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    return response


def _answer_errors(app: FastAPI) -> None:
    """Answer errors with a sentence: those of the request, a store that cannot be read, and bugs."""

    def page(status: int, title: str, sentence: str) -> HTMLResponse:
        return HTMLResponse(pages.error_page(title, sentence), status)

    def gone(_: Request, error: Exception) -> HTMLResponse:
        if pages.is_of_user(error):
            return page(400, "This search cannot be answered", str(error))
        logger.warning("the store cannot be read: %s", error)
        sentence = "The store cannot be read now: it does not answer, or was moved. Try again in a while; the terminal "
        return page(503, "No results now", sentence + "of the server says why.")

    for kind in GONE:
        app.add_exception_handler(kind, gone)
    for damage in (DamagedStructureError, UnknownClassError):
        app.add_exception_handler(damage, lambda _, error: page(500, "A damaged structure", str(error)))
    app.add_exception_handler(MatrisError, lambda _, error: page(400, "This search cannot be answered", str(error)))
    app.add_exception_handler(
        HTTPException,
        lambda _, error: page(error.status_code, "Not found" if error.status_code == 404 else "Error", error.detail),  # type: ignore[attr-defined]  # noqa: PLR2004
    )

    def invalid(_: Request, error: Exception) -> HTMLResponse:
        problems = "; ".join(f"{'.'.join(map(str, e['loc'][1:]))}: {e['msg']}" for e in error.errors())  # type: ignore[attr-defined]
        return page(400, "This request cannot be answered", problems)

    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(Exception, lambda *_: page(500, "Error", "The server cannot answer this request."))
