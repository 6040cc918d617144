"""OPTIMADE server for a candidate store."""

from __future__ import annotations

import logging
import re
from datetime import UTC, datetime
from itertools import batched
from typing import TYPE_CHECKING, Any, cast

from bson.errors import BSONError
from pymongo.errors import PyMongoError

from matris.errors import MatrisError, StoreError
from matris.stores.candidate_store import CandidateStore
from matris.stores.database.jobstore import open_job_store, sibling_store
from matris.stores.optimade.resources import PREFIX, resources, served

try:
    logging.getLogger("optimade").addHandler(logging.NullHandler())  # otherwise it logs to /var/log and stdout
    from fastapi.exceptions import RequestValidationError
    from lark import v_args
    from lark.exceptions import VisitError
    from optimade.exceptions import BadRequest, InternalServerError, OptimadeHTTPException
    from optimade.filtertransformers.mongo import MongoTransformer
    from optimade.models import StructureResource
    from optimade.server.create_app import create_app
    from optimade.server.entry_collections import EntryCollection
    from optimade.server.exception_handlers import general_exception
    from optimade.server.mappers import StructureMapper

    from matris.stores.optimade.export import server_config
except ImportError as error:
    raise MatrisError("OPTIMADE's tools are not installed: pip install 'matris-flows[optimade]'") from error

if TYPE_CHECKING:
    from pathlib import Path

    from fastapi import FastAPI, Request
    from maggma.core import Store
    from optimade.server.config import ServerConfig

COLLECTION = "optimade_structures"
"""Collection, in the database of the candidates, with their OPTIMADE resources."""

INDEXED = (
    "elements",
    "nelements",
    "nsites",
    "chemical_formula_reduced",
    "chemical_formula_anonymous",
    "chemical_formula_descriptive",
    "last_modified",
    f"_{PREFIX}_energy_above_hull",
)

_UNSTORABLE = (BSONError, OverflowError, UnicodeEncodeError)

logger = logging.getLogger(__name__)

_FORMAT = 1  # increase when `to_optimade` changes: all resources are then published again
_BATCH = 500


def open_published(location: str | Path | None = None) -> tuple[CandidateStore, Store]:
    """
    Open the candidates and, in the same database, the collection of their OPTIMADE resources.

    Parameters
    ----------
    location
        Folder or MongoDB URI, as in `matris.stores.database.jobstore.open_job_store`.

    Raises
    ------
    StoreError
        If the store cannot be opened or indexed.
    """
    job_store = open_job_store(location)
    candidates = CandidateStore.beside(job_store)
    published = sibling_store(job_store, COLLECTION, "id")
    for name, unique in [("id", True), *((name, False) for name in INDEXED)]:
        if not published.ensure_index(name, unique=unique):
            raise StoreError(f"cannot index {name!r} of {published.name}: check the permissions of this store")
    return candidates, published


def publish(candidates: CandidateStore, published: Store, *, with_references: bool = False) -> int:
    """
    Bring the OPTIMADE resources of the candidates up to date. Only changes are written.

    Parameters
    ----------
    candidates
        Candidates to serve.
    published
        Collection of OPTIMADE resources, see `open_published`.
    with_references
        As for `matris.stores.optimade.resources.served`.

    Returns
    -------
    int
        Number of resources written or removed.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     candidates, published = open_published(folder)
    ...     publish(candidates, published)  # 0: the store is empty
    0
    """
    stamps = {entry["id"]: entry["stamp"] for entry in published.query(properties=["id", "stamp"])}
    criteria = served(with_references=with_references)
    documents = candidates.docs.query(criteria, properties=["document_id", "last_updated"])
    current = {document["document_id"]: _stamp(document) for document in documents}
    stale = [identity for identity, stamp in current.items() if stamps.get(identity) != stamp]
    written: set[str] = set()
    for ids in batched(stale, _BATCH):
        pairs = resources(candidates, criteria | {"document_id": {"$in": list(ids)}})
        entries = [_entry(document, resource) for document, resource in pairs]
        if entries:
            published.update(entries, key="id")
            written.update(entry["id"] for entry in entries)
    removed = stamps.keys() - (current.keys() - (set(stale) - written))
    for ids in batched(sorted(removed), _BATCH):
        published.remove_docs({"id": {"$in": list(ids)}})
    return len(written) + len(removed)


def make_app(published: Store, path: str = "") -> FastAPI:
    """
    Make the web application.

    Parameters
    ----------
    published
        Collection that `publish` fills. It is read at each request.
    path
        Path under which another application mounts this one.

    Returns
    -------
    FastAPI
        OPTIMADE's reference server; its endpoint ``structures`` reads the collection.
    """
    config = server_config(root_path=path or None)
    app = create_app(config)
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(Exception, _internal_error)
    collections = app.state.entry_collections
    collections["structures"] = PublishedStructures(published, config)
    if not len(collections["links"]):
        names = {"name": config.provider.name, "description": config.provider.description}
        collections["links"].insert([names | {"id": PREFIX, "type": "links", "link_type": "root", "base_url": None}])
    return app


class PublishedStructures(EntryCollection):
    """
    Structures endpoint of OPTIMADE's server, backed by a maggma store.

    Parameters
    ----------
    store
        Collection that `publish` fills.
    config
        Configuration of the server.
    """

    def __init__(self, store: Store, config: ServerConfig) -> None:
        mapper = StructureMapper(config)
        super().__init__(StructureResource, mapper, _Filters(mapper=mapper), config)
        self.store = store

    def find(self, params: Any) -> Any:
        """
        Find structures as OPTIMADE's tools do, and answer what cannot be answered without details of this machine.

        Raises
        ------
        BadRequest
            If a filter is nested too deeply, or holds a number or text that no store can hold.
        InternalServerError
            If the store cannot be read; the reason is logged.
        """
        try:
            return super().find(params)
        except (RecursionError, VisitError) as error:
            if isinstance(error, VisitError) and not isinstance(error.orig_exc, RecursionError):
                raise
            raise BadRequest(detail="the filter is nested too deeply") from None
        except (StoreError, PyMongoError, BSONError, OverflowError, UnicodeEncodeError) as error:
            if isinstance(error, _UNSTORABLE) or isinstance(error.__cause__, _UNSTORABLE):
                raise BadRequest(detail="a number or text of the query is one that no document can hold") from None
            logger.exception("a query failed")
            raise InternalServerError(detail="the store cannot be read now") from None

    def __len__(self) -> int:
        return self.count()

    def count(self, **kwargs: Any) -> int:
        """Count the structures that match ``filter``."""
        n_matching: int = self.store.count(kwargs.get("filter", {}))
        return n_matching

    def insert(self, data: list[Any]) -> None:
        """Raise: only `publish` writes."""
        raise NotImplementedError("structures come from the candidate store")

    def _run_db_query(
        self,
        criteria: dict[str, Any],
        single_entry: bool = False,  # noqa: ARG002 - a page of one
    ) -> tuple[list[dict[str, Any]], int, bool]:
        """Return a page of structures, the number of all matching structures, and whether more follow."""
        if "page_above" in criteria:
            raise NotImplementedError("page_above is not supported: use page_offset or page_number")
        skip = criteria.get("skip", 0)
        entries = self.store.query(
            criteria["filter"],
            properties=list(criteria["projection"]),
            sort=dict(criteria.get("sort", [])) | {"id": 1},  # a unique order: pages have no overlaps and no gaps
            skip=skip,
            limit=criteria["limit"],
        )
        page = [_read(entry) for entry in entries]
        n_seen = skip + len(page)
        at_end = len(page) < criteria["limit"] and (page or not skip)
        n_matching = n_seen if at_end else self.count(filter=criteria["filter"])
        return page, n_matching, n_seen < n_matching


class _Filters(MongoTransformer):
    """Translation of OPTIMADE filters to MongoDB filters."""

    @v_args(inline=True)
    def property_first_comparison(self, quantity: str, query: dict[str, Any]) -> dict[str, Any]:
        """Translate HAS ONLY such that an index serves it; the translation by OPTIMADE's tools fails under a NOT."""
        if "#only" in query:
            values = query["#only"]
            return {"$and": [{quantity: {"$in": values}}, {quantity: {"$not": {"$elemMatch": {"$nin": values}}}}]}
        criteria: dict[str, Any] = super().property_first_comparison(quantity, query)
        return criteria

    def fuzzy_string_op_rhs(self, arg: list[Any]) -> dict[str, Any]:
        """Escape the text of CONTAINS, STARTS WITH and ENDS WITH, which OPTIMADE's tools read as a pattern."""
        criteria: dict[str, Any] = super().fuzzy_string_op_rhs([*arg[:-1], re.escape(arg[-1])])
        return criteria

    def _apply_mongo_date_filter(self, filter_: Any) -> Any:
        """Convert texts that are compared with a time, in every kind of comparison."""
        if isinstance(filter_, list):
            return [self._apply_mongo_date_filter(part) for part in filter_]
        if not isinstance(filter_, dict):
            return filter_
        return {
            name: _as_times(part) if name == "last_modified" else self._apply_mongo_date_filter(part)
            for name, part in filter_.items()
        }


def _as_times(comparison: Any) -> Any:
    """Convert the texts in a comparison with a time; they are in UTC unless they name another zone."""
    if isinstance(comparison, dict):
        return {operator: _as_times(value) for operator, value in comparison.items()}
    if isinstance(comparison, list):
        return [_as_times(value) for value in comparison]
    if not isinstance(comparison, str):
        return comparison
    try:
        time = datetime.fromisoformat(comparison)
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC).replace(tzinfo=None)
    except (ValueError, OverflowError):
        raise BadRequest(
            detail=f"{comparison[:50]!r} is no time such as 2026-05-04T12:00:00Z, which last_modified is compared with"
        ) from None


def _invalid_request(request: Request, error: Exception) -> Any:
    """Answer a request with wrong parameters, which is no error of the server."""
    problems = "; ".join(f"{'.'.join(map(str, e['loc'][1:]))}: {e['msg']}" for e in cast("Any", error).errors())
    return general_exception(request, BadRequest(detail=problems))


def _internal_error(request: Request, error: Exception) -> Any:
    """Answer after an unexpected error without its text, which may name files of this machine."""
    if isinstance(error, OptimadeHTTPException):  # raised by OPTIMADE's own checks, such as of the version in the URL
        return general_exception(request, error)
    logger.error("a request failed", exc_info=error)
    return general_exception(request, InternalServerError(detail="the server cannot answer this request"))


def _entry(document: dict[str, Any], resource: dict[str, Any]) -> dict[str, Any]:
    """Convert a resource to its stored form: flat, with a datetime, and a stamp that tells if it is up to date."""
    attributes = resource["attributes"]
    modified = datetime.fromisoformat(attributes["last_modified"])
    return {
        **attributes,
        "id": resource["id"],
        "type": resource["type"],
        "last_modified": modified.astimezone(UTC).replace(tzinfo=None),
        "stamp": _stamp(document),
    }


def _read(entry: dict[str, Any]) -> dict[str, Any]:
    """Add the time zone that OPTIMADE expects to the time of a stored resource."""
    return {key: value for key, value in entry.items() if key != "_id"} | {
        "last_modified": entry["last_modified"].replace(tzinfo=UTC)
    }


def _stamp(document: dict[str, Any]) -> str:
    return f"{_FORMAT} {document['last_updated'].isoformat()}"
