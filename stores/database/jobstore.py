"""The jobflow JobStore that results go to: the user's own, a folder, or a MongoDB database."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobflow.core.store import JobStore
from jobflow.settings import JobflowSettings
from maggma.stores import MemoryStore, MongoStore, MongoURIStore
from pymongo.errors import PyMongoError
from pymongo.uri_parser import parse_uri

from matris.errors import StoreError
from matris.stores.database import DATABASE_FILE
from matris.stores.database.mongo import ResultsGridFSStore, ResultsMongoStore
from matris.stores.database.private_mongo import PrivateMongoStore
from matris.stores.database.sqlite.store import SQLiteStore

if TYPE_CHECKING:
    from maggma.core import Store

DEFAULT_FOLDER = "matris-results"
PROJECT = "project://"
STAMP = "completed_at"  # what jobflow writes, as an ISO string
INDEXED = ("uuid", STAMP, "output.chunk_format", "output.property_format")
"""What jobflow and the builder of candidates look jobs up by, beside (uuid, index)."""

_MONGO = (MongoStore, MongoURIStore, ResultsMongoStore)  # not the stores derived from them, of other kinds

logger = logging.getLogger(__name__)


def open_job_store(location: str | Path | None = None) -> JobStore:
    """Open a job store with a ``data`` store for arrays, connected and indexed.

    Parameters
    ----------
    location
        A folder, where everything is in ``matris.sqlite``; or ``mongodb://HOST/DATABASE``; or ``project://NAME``, the
        job store of a project of jobflow-remote on this machine. Without it the job store of the jobflow configuration
        (``JOBFLOW_CONFIG_FILE``, ``JOBFLOW_JOB_STORE`` or ``~/.jobflow.yaml``) if that names one, else the folder
        ``matris-results``.

    Raises
    ------
    StoreError
        If it cannot be opened, has no ``data`` store, or holds jobs twice so that they cannot be indexed.
    """
    settings = JobflowSettings() if location is None else None  # type: ignore[call-arg]
    if settings is not None and "JOB_STORE" in settings.model_fields_set:
        store = _careful(settings.JOB_STORE, "the jobflow configuration")
    elif str(location).startswith(PROJECT):
        name = str(location).removeprefix(PROJECT)
        store = _careful(_of_project(name), f"jobflow-remote's project {name}")
    elif str(location).startswith(("mongodb://", "mongodb+srv://")):
        store = _mongo(str(location))
    else:
        store = _embedded(Path(location or DEFAULT_FOLDER))
    try:
        store.connect()
        _index(store)
    except PyMongoError as error:
        raise StoreError(f"MongoDB at {_shown(store.docs_store)} does not answer or refuses: {error}") from error
    except NotImplementedError:  # maggma's MontyStore
        logger.warning("%s keeps no indexes: slow beyond some thousand documents", store.docs_store.name)
    return store


def sibling_store(job_store: JobStore, collection_name: str, key: str) -> Store:
    """Open another collection in the database that holds a job store's documents, connected.

    Raises
    ------
    StoreError
        If the job store is of a kind that keeps no other collections beside it.
    """
    docs = job_store.docs_store
    sibling: SQLiteStore | MemoryStore | MongoStore
    if type(docs) is MemoryStore:
        sibling = MemoryStore(collection_name, key=key)
        sibling._coll = docs._collection.database[collection_name]  # noqa: SLF001 - memory is not found by name
    elif isinstance(docs, SQLiteStore):
        sibling = SQLiteStore(docs.path, collection_name, key=key)
    elif isinstance(docs, PrivateMongoStore):
        sibling = PrivateMongoStore(docs.uri_file, docs.database, collection_name, key=key)
    elif type(docs) in _MONGO:
        place = {k: v for k, v in _place(docs).items() if not k.startswith("last_updated")}
        sibling = ResultsMongoStore(**place | {"collection_name": collection_name, "key": key, "validator": None})
    else:
        raise StoreError(
            f"{type(docs).__name__} cannot hold {collection_name!r} beside the jobs: "
            "use a MongoStore or SQLiteStore for the job store's documents"
        )
    sibling.connect()
    return sibling


def _embedded(folder: Path) -> JobStore:
    if folder.exists() and not folder.is_dir():
        raise StoreError(f"{folder} is a file; name the folder that holds, or shall hold, {DATABASE_FILE}")
    path = folder / DATABASE_FILE
    data = SQLiteStore(path, "outputs_blobs", key="blob_uuid")
    docs = SQLiteStore(path, "outputs", key="uuid", last_updated_field=STAMP, last_updated_type="isoformat")
    return JobStore(docs, additional_stores={"data": data})


def _mongo(uri: str) -> JobStore:
    """Documents in a collection, arrays in GridFS: a chunk's may be more than the 16 MB of one MongoDB document."""
    try:
        database = parse_uri(uri)["database"]
    except (PyMongoError, ValueError) as error:
        raise StoreError(f"not a MongoDB address: {error}") from error
    if not database:
        raise StoreError("the MongoDB address names no database; write mongodb://HOST:PORT/DATABASE")
    data = ResultsGridFSStore.from_uri(uri, "outputs_blobs", database, key="blob_uuid")
    stamp = {"last_updated_field": STAMP, "last_updated_type": "isoformat"}
    return JobStore(
        ResultsMongoStore.from_uri(uri, "outputs", database, key="uuid", **stamp), additional_stores={"data": data}
    )


def _of_project(name: str) -> JobStore:
    try:
        from jobflow_remote.config.base import ConfigError
        from jobflow_remote.config.manager import ConfigManager
    except ModuleNotFoundError as error:
        raise StoreError(f"{PROJECT}{name} needs jobflow-remote: pip install 'matris-flows[remote]'") from error
    try:
        return ConfigManager().get_project(name).get_jobstore()
    except ConfigError as error:
        raise StoreError(f"no project {name!r} of jobflow-remote on this machine: {error}") from error


def _careful(store: JobStore, whose: str) -> JobStore:
    """Put our MongoDB store in the place of maggma's."""
    if "data" not in _additional(store):
        raise StoreError(f'the job store of {whose} has no additional store "data" for arrays; add one')
    if type(store.docs_store) in _MONGO:
        store.docs_store = ResultsMongoStore(**_place(store.docs_store))
    return store


def _place(store: MongoStore) -> dict[str, Any]:
    """Give the arguments that open the collection of a store again."""
    place = {k: v for k, v in store.as_dict().items() if not k.startswith("@")}
    return place | {"ssh_tunnel": store.ssh_tunnel, "validator": store.validator}


def _index(store: JobStore) -> None:
    """Index what jobflow looks up; (uuid, index) is unique, or a job that two processes store could be there twice."""
    docs = store.docs_store
    if isinstance(docs, (SQLiteStore, ResultsMongoStore)):
        if not docs.ensure_index(["uuid", "index"], unique=True):
            raise StoreError(f"{_shown(docs)} cannot be indexed by (uuid, index): see the warning above")
    elif isinstance(docs, MongoStore):
        docs._collection.create_index([("uuid", 1), ("index", 1)], unique=True)  # noqa: SLF001 - maggma takes one field
    of_data = [(data, field) for data in _additional(store).values() for field in ("blob_uuid", "job_uuid")]
    parts = [*((docs, field) for field in INDEXED), *of_data]
    for part, field in parts:
        if not part.ensure_index(field):
            raise StoreError(f"{_shown(part)} cannot be indexed by {field!r}: check the rights of its user")


def _additional(store: JobStore) -> dict[str, Store]:
    return store.additional_stores  # type: ignore[has-type,no-any-return]


def _shown(store: Any) -> str:
    """Name of a store without a password."""
    uri = getattr(store, "uri", None)
    hosts = ",".join(f"{host}:{port}" for host, port in parse_uri(uri)["nodelist"]) if uri else store.name
    return f"{hosts}/{store.database}" if uri else hosts
