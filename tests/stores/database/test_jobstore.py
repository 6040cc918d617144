"""Job stores through jobflow: in a folder, from the user's configuration, and on MongoDB."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid

import pytest
from jobflow import Flow, JobStore, job, run_locally
from maggma.stores import JSONStore, MemoryStore, MongoStore
from monty.json import MontyDecoder, MontyEncoder
from pymongo import MongoClient
from pymongo.errors import DuplicateKeyError
from pymongo.uri_parser import parse_uri

from matris.errors import StoreError
from matris.stores.database.jobstore import open_job_store, sibling_store
from matris.stores.database.mongo import ResultsMongoStore
from matris.stores.database.sqlite.store import SQLiteStore


@job(data=["forces"])
def relax(n):
    return {"energy": -1.5 * n, "forces": [[float(n)] * 3] * 4}


@job
def total(outputs):
    return sum(output["energy"] for output in outputs)


def run_flow(store, folder, monkeypatch):
    monkeypatch.chdir(folder)
    jobs = [relax(n) for n in (1, 2, 3)]
    last = total([j.output for j in jobs])
    responses = run_locally(Flow([*jobs, last]), store=store, create_folders=True, ensure_success=True)
    assert responses[last.uuid][1].output == -9
    return [j.uuid for j in (*jobs, last)]


@pytest.fixture(autouse=True)
def no_configuration(monkeypatch, tmp_path):
    """Hide a jobflow configuration of the user who runs the tests."""
    monkeypatch.delenv("JOBFLOW_JOB_STORE", raising=False)
    monkeypatch.setenv("JOBFLOW_CONFIG_FILE", str(tmp_path / "none.yaml"))


def test_a_fresh_process_reads_a_flow(tmp_path, monkeypatch):
    store = open_job_store(tmp_path / "results")
    ids = run_flow(store, tmp_path, monkeypatch)
    code = (
        "import json, sys; from matris.stores.database.jobstore import open_job_store; s = open_job_store(sys.argv[1]);"
        "d = s.query_one({'uuid': sys.argv[2]}, load=True)['output'];"
        "b = s.query_one({'uuid': sys.argv[2]})['output'];"
        "print(json.dumps([d, sorted(b['forces']), s.get_output(sys.argv[3]), s.count({}), s.last_updated.year]))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "results"), ids[1], ids[3]]
    out = subprocess.run(command, capture_output=True, text=True, check=True, cwd="/")
    document, blob, answer, count, year = json.loads(out.stdout)
    assert document == {"energy": -3.0, "forces": [[2.0] * 3] * 4}
    assert blob == ["@class", "@module", "blob_uuid", "store"]
    assert (answer, count) == (-9, 4)
    assert year >= 2025
    store.remove_docs({"uuid": ids[1]})
    assert (store.count({}), store.additional_stores["data"].count({})) == (3, 2)


def test_a_job_is_stored_once(tmp_path):
    store = open_job_store(tmp_path)
    for n in (1, 2):
        store.update({"uuid": "u", "index": 1, "output": n})
    store.update({"uuid": "u", "index": 2, "output": 3})
    assert [d["output"] for d in store.query({"uuid": "u"}, sort={"index": 1})] == [2, 3]
    with pytest.raises(StoreError, match="unique"):
        store.docs_store.update({"uuid": "u", "index": 1, "name": "other"}, key="name")


def test_default_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    open_job_store().update({"uuid": "u", "index": 1})
    assert open_job_store("matris-results").count({}) == 1
    assert (tmp_path / "matris-results" / "matris.sqlite").is_file()


def test_configuration(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JOBFLOW_CONFIG_FILE", str(tmp_path / "jobflow.yaml"))
    configuration = tmp_path / "jobflow.yaml"
    docs = {"docs_store": {"type": "MemoryStore", "collection_name": "mine"}}
    configuration.write_text(json.dumps({"JOB_STORE": docs | {"additional_stores": {"data": {"type": "MemoryStore"}}}}))
    assert open_job_store().docs_store.name == "mem://mine"
    assert not (tmp_path / "matris-results").exists()
    configuration.write_text(json.dumps({"JOB_STORE": docs}))
    with pytest.raises(StoreError, match='"data"'):
        open_job_store()
    configuration.write_text(
        json.dumps({"UID_TYPE": "uuid4"})
    )  # names no store, so jobflow would keep the results in memory
    assert isinstance(open_job_store().docs_store, SQLiteStore)


def test_wrong_places(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="is a file"):
        open_job_store(tmp_path / "file")
    with pytest.raises(StoreError, match="names no database"):
        open_job_store("mongodb://localhost")
    with pytest.raises(StoreError, match=r"127\.0\.0\.1:9/d") as error:
        open_job_store("mongodb://user:secret@127.0.0.1:9/d?serverSelectionTimeoutMS=50")
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("scheme", ["postgres", "MONGODB", "sqlite", "https"])
def test_an_address_of_another_kind_is_no_folder(scheme, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreError, match=f"begins with {scheme}://; name a folder, mongodb://") as error:
        open_job_store(f"{scheme}://me:secret@host/results")
    assert "secret" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_siblings(tmp_path):
    memory = JobStore(MemoryStore(), additional_stores={"data": MemoryStore("data")})
    memory.connect()
    for job_store in (open_job_store(tmp_path), memory):
        first = sibling_store(job_store, "candidates", key="document_id")
        first.update({"document_id": "x", "n": 1})
        second = sibling_store(job_store, "candidates", key="document_id")
        assert second.query_one({"document_id": "x"})["n"] == 1
        assert job_store.count({}) == 0
        assert (second.key, second.last_updated_field) == ("document_id", "last_updated")
    text = JobStore(JSONStore(str(tmp_path / "x.json"), read_only=False))
    with pytest.raises(StoreError, match="JSONStore"):
        sibling_store(text, "candidates", key="document_id")


def test_mongodb(tmp_path, monkeypatch, mongo_server):
    database = f"matris-{uuid.uuid4().hex[:8]}"
    try:
        store = open_job_store(f"{mongo_server}/{database}")
        ids = run_flow(store, tmp_path, monkeypatch)
        again = open_job_store(f"{mongo_server}/{database}")
        assert again.query_one({"uuid": ids[2]}, load=True)["output"]["forces"] == [[3.0] * 3] * 4
        with pytest.raises(DuplicateKeyError):
            again.docs_store._collection.insert_one({"uuid": ids[2], "index": 1})
        candidates = sibling_store(again, "candidates", key="document_id")
        assert isinstance(candidates, MongoStore)
        candidates.update({"document_id": "x"})
        assert sibling_store(again, "candidates", key="document_id").count({"document_id": "x"}) == 1
    finally:
        MongoClient(mongo_server).drop_database(database)


def test_a_configured_mongodb_is_opened_with_care(tmp_path, monkeypatch, mongo_server):
    """The user's MongoStore, by host or by address, keeps its settings and gains retries and the size check."""
    database = f"matris-{uuid.uuid4().hex[:8]}"
    host, port = parse_uri(mongo_server)["nodelist"][0]
    by_host = {"type": "MongoStore", "database": database, "host": host, "port": port, "collection_name": "mine"}
    by_uri = {"type": "MongoStore", "database": database, "uri": mongo_server, "collection_name": "mine"}
    stamp = {"last_updated_field": "completed_at", "last_updated_type": "isoformat", "key": "uuid"}
    monkeypatch.setenv("JOBFLOW_CONFIG_FILE", str(tmp_path / "jobflow.yaml"))
    try:
        for address in (by_host, by_uri) if "@" not in mongo_server else (by_uri,):
            data = {"data": address | {"type": "GridFSStore", "collection_name": "blobs"}}
            settings = {"JOB_STORE": {"docs_store": address | stamp, "additional_stores": data}}
            (tmp_path / "jobflow.yaml").write_text(json.dumps(settings))
            store = open_job_store()
            store.update({"uuid": "u", "index": 1, "completed_at": "2026-01-01T00:00:00"})
            docs = store.docs_store
            assert isinstance(docs, ResultsMongoStore)
            assert (docs.collection_name, docs.key, store.last_updated.year) == ("mine", "uuid", 2026)
            with pytest.raises(StoreError, match=r"16\.0 MB"):
                store.update({"uuid": "v", "index": 1, "output": "x" * 2**24})
            again = MontyDecoder().decode(MontyEncoder().encode(store))
            again.connect()
            assert isinstance(again.docs_store, ResultsMongoStore)
            assert again.count({"uuid": "u"}) == 1
            assert sibling_store(store, "candidates", key="document_id").database == database
    finally:
        MongoClient(mongo_server).drop_database(database)


@pytest.mark.filterwarnings("ignore:.*URIStore is deprecated")
def test_atomate2s_documented_configuration(tmp_path, monkeypatch, private_server):
    """`type: MongoURIStore` and `GridFSURIStore`, with a password and arguments of the driver."""
    database = f"matris-{uuid.uuid4().hex[:8]}"
    address = {"uri": f"{private_server}/{database}?authSource=admin", "mongoclient_kwargs": {"appname": "mine"}}
    docs = {"type": "MongoURIStore", "collection_name": "outputs", **address}
    data = {"type": "GridFSURIStore", "collection_name": "outputs_blobs", **address}
    (tmp_path / "jobflow.yaml").write_text(
        json.dumps({"JOB_STORE": {"docs_store": docs, "additional_stores": {"data": data}}})
    )
    monkeypatch.setenv("JOBFLOW_CONFIG_FILE", str(tmp_path / "jobflow.yaml"))
    try:
        ids = run_flow(open_job_store(), tmp_path, monkeypatch)
        store = open_job_store()
        assert isinstance(store.docs_store, ResultsMongoStore)
        assert store.docs_store._collection.database.client.options.pool_options.appname == "mine"
        assert store.query_one({"uuid": ids[1]}, load=True)["output"]["forces"] == [[2.0] * 3] * 4
        candidates = sibling_store(store, "candidates", key="document_id")
        candidates.update({"document_id": "x"})
        assert candidates.count() == 1
        names = (store.name, store.docs_store.name, store.additional_stores["data"].name, candidates.name)
        assert names == tuple(
            each.format(parse_uri(private_server)["nodelist"][0][1], database)
            for each in (
                "JobStore-mongo://127.0.0.1:{}/{}/outputs",
                "mongo://127.0.0.1:{}/{}/outputs",
                "gridfs://127.0.0.1:{}/{}/outputs_blobs",
                "mongo://127.0.0.1:{}/{}/candidates",
            )
        )
    finally:
        MongoClient(private_server).drop_database(database)
