"""The jobflow JobStore for results: the user's own, a folder, or a MongoDB database."""

from __future__ import annotations

import inspect
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobflow.core.store import JobStore
from jobflow.settings import JobflowSettings
from maggma.stores import GridFSStore, MemoryStore, MongoStore, MongoURIStore
from maggma.stores.gridfs import GridFSURIStore
from pydantic import ValidationError
from pymongo.errors import PyMongoError

from matris.errors import StoreError
from matris.stores.database import DATABASE_FILE
from matris.stores.database.address import MONGODB, read_uri, uri_database
from matris.stores.database.mongo import ResultsGridFSStore, ResultsMongoStore
from matris.stores.database.private_mongo import PrivateGridFSStore, PrivateMongoStore
from matris.stores.database.sqlite.store import SQLiteStore

if TYPE_CHECKING:
    from maggma.core import Store

DEFAULT_FOLDER = "matris-results"
STORE_VARIABLE = "MATRIS_STORE"
"""Environment variable with the location of the results: it is not seen by other users, as a command line is."""

PROJECT = "project://"
STAMP = "completed_at"  # what jobflow writes, as an ISO string
INDEXED = ("uuid", STAMP, "output.chunk_format", "output.property_format", "output.label_format")
"""Fields by which jobflow, the builder of candidates and the harvest of labels find jobs, beside (uuid, index)."""

_MONGO = (MongoStore, MongoURIStore, ResultsMongoStore)  # exact types; their other subclasses differ
_GRIDFS = (GridFSStore, GridFSURIStore, ResultsGridFSStore)

logger = logging.getLogger(__name__)


def open_job_store(location: str | Path | None = None) -> JobStore:
    """Open a job store that has a ``data`` store for arrays; connect and index it.

    Parameters
    ----------
    location
        A folder, which holds everything in ``matris.sqlite``; or ``mongodb://HOST/DATABASE``; or a file that holds such
        an address and that only its owner may read; or ``project://NAME``, the job store of a jobflow-remote project on
        this machine. By default the location in the environment variable ``MATRIS_STORE``, else the job store of the
        jobflow configuration (``JOBFLOW_CONFIG_FILE``, ``JOBFLOW_JOB_STORE`` or ``~/.jobflow.yaml``) if it names one,
        else the folder ``matris-results``.

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
    store = job_store_at(location)
    try:
        store.connect()
        _index(store)
    except PyMongoError as error:
        raise StoreError(f"MongoDB at {store.docs_store.name} does not answer or refuses: {error}") from error
    except NotImplementedError:  # maggma's MontyStore
        logger.warning("%s has no indexes: queries are slow beyond a few thousand documents", store.docs_store.name)
    return store


def job_store_at(location: str | Path | None = None) -> JobStore:
    """
    Make the job store of a location as `open_job_store` does, without connecting it: nothing is created.

    Parameters
    ----------
    location
        As for `open_job_store`.

    Raises
    ------
    StoreError
        If the location or the jobflow configuration cannot be used, or the job store has no ``data`` store.

    Examples
    --------
    >>> job_store_at("campaign").docs_store.name
    'sqlite://...campaign/matris.sqlite/outputs'
    """
    location = chosen_location(location)
    configured = _configured() if location is None else None
    if configured is not None:
        store = _with_results_store(configured, "the jobflow configuration")
    elif str(location).startswith(PROJECT):
        name = str(location).removeprefix(PROJECT)
        store = _with_results_store(_of_project(name), f"jobflow-remote project {name}")
    elif str(location).startswith(MONGODB):
        store = _mongo(str(location))
    elif location is not None and Path(location).is_file():
        store = _of_address_file(Path(location))
    elif "://" in str(location):  # the rest of it may hold a password
        raise StoreError(
            f"no store has an address that begins with {str(location).partition('://')[0]}://; name a folder, "
            "mongodb://USER:PASSWORD@HOST:PORT/DATABASE, a file that holds this address, or project://NAME"
        )
    else:
        store = _embedded(Path(location or DEFAULT_FOLDER))
    return store


def read_output(job_store: JobStore, uuid: str) -> Any:
    """
    Read the last output of a job with its arrays, as it is stored.

    `jobflow.JobStore.get_output` decodes an output that holds a reference to another one, and may then import any class
    that the output names.

    Parameters
    ----------
    job_store
        Connected job store.
    uuid
        Id of the job.

    Raises
    ------
    StoreError
        If the store has no output of the job, or lacks its arrays.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from jobflow import job, run_locally
    >>> with TemporaryDirectory() as folder:
    ...     store = open_job_store(folder)
    ...     double = job(lambda x: {"twice": 2 * x})(21)
    ...     _ = run_locally(double, store=store, log=False)
    ...     print(read_output(store, double.uuid))
    ...     store.close()
    {'twice': 42}
    """
    try:
        result = job_store.query_one({"uuid": uuid}, properties=["output"], sort={"index": -1}, load=True)
    except KeyError as error:  # jobflow stores the arrays last
        raise StoreError(f"the job store lacks the arrays of job {uuid}: run the job again") from error
    if result is None:
        raise StoreError(f"the job store has no output of job {uuid}: run the job again")
    return result["output"]


def chosen_location(location: str | Path | None = None) -> str | Path | None:
    """
    Return a given location, or the one in the environment variable ``MATRIS_STORE``, or None.

    Examples
    --------
    >>> chosen_location("results")
    'results'
    """
    return location if location is not None else os.environ.get(STORE_VARIABLE) or None


def is_folder(location: str | Path | None) -> bool:
    """Tell whether a location is a folder, which need not exist; otherwise it is a database, or the default."""
    return location is not None and "://" not in str(location) and not Path(location).is_file()


def local_folder(location: str | Path | None) -> Path:
    """
    Return the folder for files beside a store: the store itself if it is a folder, else the default folder.

    Examples
    --------
    >>> local_folder("campaign"), local_folder("mongodb://localhost/screening")
    (PosixPath('campaign'), PosixPath('matris-results'))
    """
    location = chosen_location(location)
    return Path(location) if location is not None and is_folder(location) else Path(DEFAULT_FOLDER)


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
        arguments = {k: v for k, v in _arguments(docs, MongoStore).items() if not k.startswith("last_updated")}
        sibling = ResultsMongoStore(**arguments | {"collection_name": collection_name, "key": key, "validator": None})
    else:
        raise StoreError(
            f"{type(docs).__name__} cannot hold {collection_name!r} beside the jobs: "
            "use a MongoStore or SQLiteStore for the documents of the job store"
        )
    sibling.connect()
    return sibling


def _embedded(folder: Path) -> JobStore:
    path = folder / DATABASE_FILE
    data = SQLiteStore(path, "outputs_blobs", key="blob_uuid")
    docs = SQLiteStore(path, "outputs", key="uuid", last_updated_field=STAMP, last_updated_type="isoformat")
    return JobStore(docs, additional_stores={"data": data})


def _mongo(uri: str) -> JobStore:
    """Put documents into a collection and arrays into GridFS, as a chunk's arrays may exceed a document's 16 MB."""
    database = uri_database(uri, "the address of the store")
    data = ResultsGridFSStore.from_uri(uri, "outputs_blobs", database, key="blob_uuid")
    stamp = {"last_updated_field": STAMP, "last_updated_type": "isoformat"}
    return JobStore(
        ResultsMongoStore.from_uri(uri, "outputs", database, key="uuid", **stamp), additional_stores={"data": data}
    )


def _of_address_file(file: Path) -> JobStore:
    """Open the database whose address is in a file; no store repeats the address."""
    with file.open("rb") as content:
        beginning = content.read(len(MONGODB[0]))
    if not beginning.startswith(b"mongodb"):
        raise StoreError(
            f"{file} is a file without a MongoDB address; name the folder for {DATABASE_FILE}, or a file with the line "
            "mongodb://USER:PASSWORD@HOST:PORT/DATABASE"
        )
    path, database = str(file.absolute()), uri_database(read_uri(file), str(file))
    data = PrivateGridFSStore(path, database, "outputs_blobs", key="blob_uuid")
    docs = PrivateMongoStore(
        path, database, "outputs", key="uuid", last_updated_field=STAMP, last_updated_type="isoformat"
    )
    return JobStore(docs, additional_stores={"data": data})


def _configured() -> JobStore | None:
    """Return the job store of the jobflow configuration, if it names one."""
    try:
        settings = JobflowSettings()  # type: ignore[call-arg]
    except ValidationError as error:  # its text repeats the configuration, which may hold a password
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise StoreError(f"the jobflow configuration cannot be used: {problems}") from None
    except (PyMongoError, LookupError, TypeError, ValueError) as error:
        raise StoreError(
            f"the jobflow configuration cannot be used ({type(error).__name__}): check the types, names and addresses "
            "of its stores"
        ) from None
    return settings.JOB_STORE if "JOB_STORE" in settings.model_fields_set else None


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
    """Replace maggma's MongoDB stores by ours, which retry, check sizes and have no passwords in their names."""
    if "data" not in _additional(store):
        raise StoreError(f'the job store of {origin} has no additional store "data" for arrays; add one')
    if type(_additional(store)["data"]) is MemoryStore and type(store.docs_store) is not MemoryStore:
        raise StoreError(
            f'the job store of {origin} keeps "data" in memory, so that the arrays of its documents are lost when the '
            "process ends: give data a store of the same database, such as GridFSStore for MongoDB"
        )
    store.docs_store = _ours(store.docs_store)
    for name, part in _additional(store).items():
        _additional(store)[name] = _ours(part)
    return store


def _ours(store: Store) -> Store:
    """Return a `ResultsMongoStore` or `ResultsGridFSStore` in place of maggma's; leave other stores alone."""
    ours = ResultsMongoStore if type(store) in _MONGO else ResultsGridFSStore if type(store) in _GRIDFS else None
    return store if ours is None else ours(**_arguments(store, ours))


def _arguments(store: Store, kind: type[Store]) -> dict[str, Any]:
    """
    Return the arguments that open the collection of a store again.

    maggma's own dictionary form of a store lacks arguments that a subclass passes on, such as ``mongoclient_kwargs``.
    """
    names = [name for name in inspect.signature(kind.__init__).parameters if name not in {"self", "kwargs"}]
    base = ["key", "last_updated_field", "last_updated_type", "validator"]
    return {name: getattr(store, name) for name in [*names, *base]}


def _index(store: JobStore) -> None:
    """Index the fields that jobflow searches; (uuid, index) is unique, so two processes cannot store a job twice."""
    docs = store.docs_store
    if isinstance(docs, (SQLiteStore, ResultsMongoStore)):
        if not docs.ensure_index(["uuid", "index"], unique=True):
            raise StoreError(f"{docs.name} cannot be indexed by (uuid, index): see the warning above")
    elif isinstance(docs, MongoStore):
        docs._collection.create_index([("uuid", 1), ("index", 1)], unique=True)  # noqa: SLF001 - maggma indexes one field
    of_data = [(data, field) for data in _additional(store).values() for field in ("blob_uuid", "job_uuid")]
    parts = [*((docs, field) for field in INDEXED), *of_data]
    for part, field in parts:
        if not part.ensure_index(field):
            raise StoreError(f"{part.name} cannot be indexed by {field!r}: check the permissions of its user")


def _additional(store: JobStore) -> dict[str, Store]:
    return store.additional_stores  # type: ignore[has-type,no-any-return]
