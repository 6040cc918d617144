"""An OPTIMADE server on a candidate store."""

from __future__ import annotations

import logging
import re
import socket
from contextlib import suppress
from datetime import UTC, datetime
from itertools import batched
from typing import TYPE_CHECKING, Any

from matris.errors import MatrisError, StoreError
from matris.stores.candidate_store import CandidateStore
from matris.stores.database.jobstore import open_job_store, sibling_store
from matris.stores.optimade.resources import PREFIX, SERVED, resources

try:
    logging.getLogger("optimade").addHandler(logging.NullHandler())  # else it writes to /var/log and stdout
    import uvicorn
    from lark import v_args
    from optimade.filtertransformers.mongo import MongoTransformer
    from optimade.models import StructureResource
    from optimade.server.create_app import create_app
    from optimade.server.entry_collections import EntryCollection
    from optimade.server.mappers import StructureMapper

    from matris.stores.optimade.export import server_config
except ImportError as error:
    raise MatrisError("OPTIMADE's tools are not installed: pip install 'matris-flows[optimade]'") from error

if TYPE_CHECKING:
    from pathlib import Path

    from fastapi import FastAPI
    from maggma.core import Store
    from optimade.server.config import ServerConfig

COLLECTION = "optimade_structures"
"""Beside the candidates, where the server reads their OPTIMADE form."""

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

_FORMAT = 1  # another number where `to_optimade` changes: what is published is then written anew
_BATCH = 500


def open_published(location: str | Path | None = None) -> tuple[CandidateStore, Store]:
    """
    Open the candidates and, in the same database, the collection of their OPTIMADE form.

    Parameters
    ----------
    location
        Folder or MongoDB URI, as `matris.stores.database.jobstore.open_job_store` takes it.

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
            raise StoreError(f"cannot index {name!r} of {published.name}: check the rights on this store")
    return candidates, published


def publish(candidates: CandidateStore, published: Store) -> int:
    """
    Bring the OPTIMADE form of the candidates up to date; only what changed is written.

    Parameters
    ----------
    candidates
        What is to be served.
    published
        Collection of OPTIMADE structures, see `open_published`.

    Returns
    -------
    int
        How many were written or removed.
    """
    known = {entry["id"]: entry["stamp"] for entry in published.query(properties=["id", "stamp"])}
    served = candidates.docs.query(SERVED, properties=["document_id", "last_updated"])
    current = {document["document_id"]: _stamp(document) for document in served}
    stale = [identity for identity, stamp in current.items() if known.get(identity) != stamp]
    written: set[str] = set()
    for ids in batched(stale, _BATCH):
        found = resources(candidates, SERVED | {"document_id": {"$in": list(ids)}})
        entries = [_entry(document, resource) for document, resource in found]
        if entries:
            published.update(entries, key="id")
            written.update(entry["id"] for entry in entries)
    gone = known.keys() - (current.keys() - (set(stale) - written))
    for ids in batched(sorted(gone), _BATCH):
        published.remove_docs({"id": {"$in": list(ids)}})
    return len(written) + len(gone)


def make_app(published: Store) -> FastAPI:
    """
    Make the web application.

    Parameters
    ----------
    published
        What `publish` wrote; it is read at each request.

    Returns
    -------
    FastAPI
        OPTIMADE's reference server, whose endpoint ``structures`` answers from the store.
    """
    config = server_config()
    app = create_app(config)
    collections = app.state.entry_collections
    collections["structures"] = PublishedStructures(published, config)
    if not len(collections["links"]):
        names = {"name": config.provider.name, "description": config.provider.description}
        collections["links"].insert([names | {"id": PREFIX, "type": "links", "link_type": "root", "base_url": None}])
    return app


def listen(host: str = "127.0.0.1", port: int = 5000) -> socket.socket:
    """
    Take an address to serve at; a port of 0 is any that is free.

    Raises
    ------
    MatrisError
        If the address is taken or not of this machine.
    """
    try:
        return socket.create_server((host, port))
    except OSError as error:
        raise MatrisError(f"cannot listen on {host}, port {port}: {error}") from error


def serve(published: Store, listener: socket.socket) -> None:
    """
    Answer OPTIMADE queries until interrupted.

    Parameters
    ----------
    published
        What `publish` wrote.
    listener
        Where, see `listen`.
    """
    with suppress(KeyboardInterrupt):  # the server has ended in order
        uvicorn.Server(uvicorn.Config(make_app(published), log_level="warning")).run(sockets=[listener])


class PublishedStructures(EntryCollection):
    """
    Structures as OPTIMADE's server asks for them, answered by any of our stores.

    Parameters
    ----------
    store
        What `publish` wrote.
    config
        Of the server.
    """

    def __init__(self, store: Store, config: ServerConfig) -> None:
        mapper = StructureMapper(config)
        super().__init__(StructureResource, mapper, _Filters(mapper=mapper), config)
        self.store = store

    def __len__(self) -> int:
        return self.count()

    def count(self, **kwargs: Any) -> int:
        """Count the structures that match ``filter``."""
        n_found: int = self.store.count(kwargs.get("filter", {}))
        return n_found

    def insert(self, data: list[Any]) -> None:
        """Refuse: `publish` writes."""
        raise NotImplementedError("structures come from the candidate store")

    def _run_db_query(
        self,
        criteria: dict[str, Any],
        single_entry: bool = False,  # noqa: ARG002 - a page of one
    ) -> tuple[list[dict[str, Any]], int, bool]:
        """Give a page of structures, how many there are in all, and whether more follow."""
        if "page_above" in criteria:
            raise NotImplementedError("pages are counted: use page_offset or page_number")
        skip = criteria.get("skip", 0)
        found = self.store.query(
            criteria["filter"],
            properties=list(criteria["projection"]),
            sort=dict(criteria.get("sort", [])) | {"id": 1},  # pages neither overlap nor leave gaps
            skip=skip,
            limit=criteria["limit"],
        )
        page = [_read(entry) for entry in found]
        n_seen = skip + len(page)
        at_end = len(page) < criteria["limit"] and (page or not skip)
        n_found = n_seen if at_end else self.count(filter=criteria["filter"])
        return page, n_found, n_seen < n_found


class _Filters(MongoTransformer):
    """OPTIMADE filters as MongoDB's."""

    @v_args(inline=True)
    def property_first_comparison(self, quantity: str, query: dict[str, Any]) -> dict[str, Any]:
        """Let an index find what HAS ONLY some values, as it has any of them; OPTIMADE's own fails under a NOT."""
        if "#only" in query:
            values = query["#only"]
            return {"$and": [{quantity: {"$in": values}}, {quantity: {"$not": {"$elemMatch": {"$nin": values}}}}]}
        found: dict[str, Any] = super().property_first_comparison(quantity, query)
        return found

    def fuzzy_string_op_rhs(self, arg: list[Any]) -> dict[str, Any]:
        """CONTAINS, STARTS WITH and ENDS WITH take their text literally; OPTIMADE's own reads patterns in it."""
        found: dict[str, Any] = super().fuzzy_string_op_rhs([*arg[:-1], re.escape(arg[-1])])
        return found


def _entry(document: dict[str, Any], resource: dict[str, Any]) -> dict[str, Any]:
    """Resource as it is stored: flat, its time as a time, and with what tells whether it is up to date."""
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
    """Give the time of a stored resource the zone that OPTIMADE asks for."""
    return {key: value for key, value in entry.items() if key != "_id"} | {
        "last_modified": entry["last_modified"].replace(tzinfo=UTC)
    }


def _stamp(document: dict[str, Any]) -> str:
    return f"{_FORMAT} {document['last_updated'].isoformat()}"
