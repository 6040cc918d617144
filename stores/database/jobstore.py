"""The jobflow JobStore for results: the user's own, a folder, or a MongoDB database."""

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
"""Fields by which jobflow and the builder of candidates find jobs, beside (uuid, index)."""

_MONGO = (MongoStore, MongoURIStore, ResultsMongoStore)  # exact types; their other subclasses differ

logger = logging.getLogger(__name__)


def open_job_store(location: str | Path | None = None) -> JobStore:
    """Open a job store that has a ``data`` store for arrays; connect and index it.

    Parameters
    ----------
    location
        A folder, which holds everything in ``matris.sqlite``; or ``mongodb://HOST/DATABASE``; or ``project://NAME``,
        the job store of a jobflow-remote project on this machine. By default the job store of the jobflow configuration
        (``JOBFLOW_CONFIG_FILE``, ``JOBFLOW_JOB_STORE`` or ``~/.jobflow.yaml``) if it names one, otherwise the folder
        ``matris-results``.

    Raises
    ------
    StoreError
        If the store cannot be opened, has no ``data`` store, or cannot be indexed because it holds a job twice.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from jobflow import job, run_locally
    >>> with TemporaryDirectory() as folder:
    ...     store = open_job_store(folder)
    ...     double = job(lambda x: 2 * x)(21)
    ...     _ = run_locally(double, store=store, log=False)
    ...     print(store.get_output(double.uuid))
    ...     store.close()
    42
    """
    settings = JobflowSettings() if location is None else None  # type: ignore[call-arg]
    if settings is not None and "JOB_STORE" in settings.model_fields_set:
        store = _with_results_store(settings.JOB_STORE, "the jobflow configuration")
    elif str(location).startswith(PROJECT):
        name = str(location).removeprefix(PROJECT)
        store = _with_results_store(_of_project(name), f"jobflow-remote project {name}")
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
        logger.warning("%s has no indexes: queries are slow beyond a few thousand documents", store.docs_store.name)
    return store


def sibling_store(job_store: JobStore, collection_name: str, key: str) -> Store:
    """Open and connect another collection in the database of a job store's documents.

    Parameters
    ----------
    job_store
        Connected job store.
    collection_name
        Name of the other collection.
    key
        Field that identifies a document of the collection.

    Raises
    ------
    StoreError
        If the job store is of a kind that cannot hold other collections.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     with sibling_store(open_job_store(folder), "notes", key="name") as notes:
    ...         notes.update({"name": "first", "text": "cell from the CIF"})
    ...         print(notes.count())
    1
    """
    docs = job_store.docs_store
    sibling: SQLiteStore | MemoryStore | MongoStore
    if type(docs) is MemoryStore:
        sibling = MemoryStore(collection_name, key=key)
        sibling._coll = docs._collection.database[collection_name]  # noqa: SLF001 - a MemoryStore cannot be opened by name
    elif isinstance(docs, SQLiteStore):
        sibling = SQLiteStore(docs.path, collection_name, key=key)
    elif isinstance(docs, PrivateMongoStore):
        sibling = PrivateMongoStore(docs.uri_file, docs.database, collection_name, key=key)
    elif type(docs) in _MONGO:
        arguments = {k: v for k, v in _arguments(docs).items() if not k.startswith("last_updated")}
        sibling = ResultsMongoStore(**arguments | {"collection_name": collection_name, "key": key, "validator": None})
    else:
        raise StoreError(
            f"{type(docs).__name__} cannot hold {collection_name!r} beside the jobs: "
            "use a MongoStore or SQLiteStore for the documents of the job store"
        )
    sibling.connect()
    return sibling


def _embedded(folder: Path) -> JobStore:
    if folder.exists() and not folder.is_dir():
        raise StoreError(f"{folder} is a file; name the folder for {DATABASE_FILE}")
    path = folder / DATABASE_FILE
    data = SQLiteStore(path, "outputs_blobs", key="blob_uuid")
    docs = SQLiteStore(path, "outputs", key="uuid", last_updated_field=STAMP, last_updated_type="isoformat")
    return JobStore(docs, additional_stores={"data": data})


def _mongo(uri: str) -> JobStore:
    """Put documents into a collection and arrays into GridFS, as a chunk's arrays may exceed a document's 16 MB."""
    try:
        database = parse_uri(uri)["database"]
    except (PyMongoError, ValueError) as error:
        raise StoreError(f"invalid MongoDB address: {error}") from error
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
        raise StoreError(f"this machine has no jobflow-remote project {name!r}: {error}") from error


def _with_results_store(store: JobStore, origin: str) -> JobStore:
    """Replace maggma's MongoDB store by `ResultsMongoStore`."""
    if "data" not in _additional(store):
        raise StoreError(f'the job store of {origin} has no additional store "data" for arrays; add one')
    if type(store.docs_store) in _MONGO:
        store.docs_store = ResultsMongoStore(**_arguments(store.docs_store))
    return store


def _arguments(store: MongoStore) -> dict[str, Any]:
    """Return the arguments that open the collection of a store again."""
    arguments = {k: v for k, v in store.as_dict().items() if not k.startswith("@")}
    return arguments | {"ssh_tunnel": store.ssh_tunnel, "validator": store.validator}


def _index(store: JobStore) -> None:
    """Index the fields that jobflow searches; (uuid, index) is unique, so two processes cannot store a job twice."""
    docs = store.docs_store
    if isinstance(docs, (SQLiteStore, ResultsMongoStore)):
        if not docs.ensure_index(["uuid", "index"], unique=True):
            raise StoreError(f"{_shown(docs)} cannot be indexed by (uuid, index): see the warning above")
    elif isinstance(docs, MongoStore):
        docs._collection.create_index([("uuid", 1), ("index", 1)], unique=True)  # noqa: SLF001 - maggma indexes one field
    of_data = [(data, field) for data in _additional(store).values() for field in ("blob_uuid", "job_uuid")]
    parts = [*((docs, field) for field in INDEXED), *of_data]
    for part, field in parts:
        if not part.ensure_index(field):
            raise StoreError(f"{_shown(part)} cannot be indexed by {field!r}: check the permissions of its user")


def _additional(store: JobStore) -> dict[str, Store]:
    return store.additional_stores  # type: ignore[has-type,no-any-return]


def _shown(store: Any) -> str:
    """Return the name of a store, without a password."""
    uri = getattr(store, "uri", None)
    hosts = ",".join(f"{host}:{port}" for host, port in parse_uri(uri)["nodelist"]) if uri else store.name
    return f"{hosts}/{store.database}" if uri else hosts
