"""Campaigns on a database with a password: nobody else sees it, and nothing repeats it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from urllib.parse import quote, unquote

import pytest
from pymatgen.core import Lattice, Structure
from pymongo import MongoClient

from matris.cli.main import app
from matris.errors import MatrisError
from matris.flows import Campaign
from matris.makers import BatchRelaxMaker
from matris.stores import CandidateStore
from matris.stores.database.address import write_uri
from matris.stores.database.atomic import add_missing, set_fields
from matris.stores.database.jobstore import open_job_store, sibling_store
from tests.conftest import PASSWORD

MATRIS = [sys.executable, "-c", "from matris.cli import main; main()"]
QUOTED = quote(PASSWORD, safe="")


def holds_password(text):
    return any(part in unquote(text) + text for part in ("Zx9p", PASSWORD, QUOTED))


@pytest.fixture
def uri(private_server, request):
    name = f"d{abs(hash(request.node.name))}"
    yield f"{private_server}/{name}?authSource=admin"
    with MongoClient(private_server) as client:
        client.drop_database(name)


@pytest.fixture
def environment(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("MATRIS_STORE", "JOBFLOW_JOB_STORE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("JOBFLOW_CONFIG_FILE", str(tmp_path / "none.yaml"))
    return {**os.environ, "CUDA_VISIBLE_DEVICES": ""}


def processes():
    out = subprocess.run(["ps", "axww", "-o", "pid=,ppid=,args="], capture_output=True, text=True, check=True).stdout
    return [line.split(None, 2) for line in out.splitlines()]


def campaign(command, environment):
    """Run a campaign; return its output, and the command lines that it and its children showed."""
    seen, own = set(), []
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    while process.poll() is None:
        for pid, ppid, *arguments in processes():
            if int(pid) == process.pid:
                own += arguments
            elif int(ppid) == process.pid:
                seen.update(arguments)
        time.sleep(0.1)
    output = process.stdout.read()
    assert process.returncode == 0, output
    assert any("worker" in line for line in seen), seen
    return output, own, seen


def documents(uri):
    with MongoClient(uri) as client:
        database = client.get_default_database()
        return [str(document) for name in database.list_collection_names() for document in database[name].find()]


def test_a_campaign_shows_no_password(tmp_path, tiny_checkpoint, environment, uri):
    for number in range(2):
        Structure(Lattice.cubic(2.9 + number / 10), ["Fe"], [[0, 0, 0]]).to(str(tmp_path / f"{number}.cif"))
    options = ["--checkpoint", str(tiny_checkpoint), "--device", "cpu", "--max-steps", "1"]
    for number, (place, more) in enumerate((([], {"MATRIS_STORE": uri}), (["--store", uri], {}))):
        command = [*MATRIS, "screen", f"{number}.cif", *place, *options]
        output, own, seen = campaign(command, environment | more)
        assert not any(map(holds_password, seen)), seen
        assert not holds_password(output)
        assert not holds_password(own[-1])  # an address on the command line is seen until Python has started
        if not place:
            assert not any(map(holds_password, own))
    stored = documents(uri)
    assert len(stored) > 5
    assert not any(map(holds_password, stored))


@pytest.mark.usefixtures("environment")
def test_commands_take_the_address_from_a_file(tmp_path, monkeypatch, uri, capsys):
    file = tmp_path / "hull.mongodb"
    write_uri(file, uri)
    CandidateStore.open(uri).docs.update({"document_id": "x", "schema_version": 1, "state": "converged"})
    for place in (["--store", str(file)], []):
        app(["query", "--columns", "document_id", "--format", "csv", *place], standalone_mode=False)
        assert capsys.readouterr().out.split() == ["document_id", "x"]
        monkeypatch.setenv("MATRIS_STORE", str(file))
    store = open_job_store(file)
    for part in (store, store.docs_store, store.additional_stores["data"], sibling_store(store, "c", "k")):
        assert not holds_password(f"{part.name} {part!r} {part.as_dict()}")
    assert Campaign(file, BatchRelaxMaker(device="cpu")).journal("w") == tmp_path / "matris-results" / "journal" / "w"
    file.chmod(0o644)
    with pytest.raises(MatrisError, match="others may read it"):
        open_job_store(file)


@pytest.mark.usefixtures("environment")
def test_messages_show_no_password(uri):
    job_store = open_job_store(uri)
    scratch = sibling_store(job_store, "scratch", "k")
    scratch.update([{"k": 1, "a": 5}])
    candidates = CandidateStore.open(uri)
    candidates.docs.update({"document_id": "new", "schema_version": 99})
    wrong = uri.replace(QUOTED, QUOTED + "x")
    unquoted = uri.replace(QUOTED, PASSWORD)
    attempts = {
        "set_fields": lambda: set_fields(scratch, {1: {"a.b": 2}}),
        "add_missing": lambda: add_missing(scratch, [{"x": 1}]),
        "value": lambda: scratch.update([{"k": 2, "v": 2**70}]),
        "schema": lambda: CandidateStore.open(uri),
        "no campaign": lambda: Campaign.open(uri, "none"),
        "wrong password": lambda: open_job_store(wrong),
        "unquoted": lambda: open_job_store(unquoted),
        "no database": lambda: open_job_store(uri.split("?")[0].rpartition("/")[0]),
        "port": lambda: open_job_store("mongodb://me:Zx9p/a@h/d"),
        "option": lambda: open_job_store(uri + "&tlsInsecure=Zx9p&w=Zx9p"),
    }
    for name, attempt in attempts.items():
        with pytest.raises(MatrisError) as error:
            attempt()
        assert not holds_password(f"{error.value} {error.value!r} {error.value.__cause__!r}"), name
    for part in (job_store, job_store.docs_store, job_store.additional_stores["data"], scratch):
        assert not holds_password(f"{part.name} {part!r}")


@pytest.mark.parametrize("arguments", [["relax", "{}"], ["query", "--bogus", "{}"], ["{}"], ["export", "a", "b", "{}"]])
def test_wrong_arguments_are_not_repeated(environment, arguments):
    arguments = [each.format(f"mongodb://me:{QUOTED}@127.0.0.1:9/d") for each in arguments]
    out = subprocess.run([*MATRIS, *arguments], capture_output=True, text=True, check=False, env=environment)
    assert out.returncode == 2
    assert not holds_password("".join(out.stderr.split()) + out.stdout)


@pytest.mark.usefixtures("environment")
def test_a_wrong_configuration_is_not_repeated(tmp_path, monkeypatch):
    monkeypatch.setenv("JOBFLOW_CONFIG_FILE", str(tmp_path / "jobflow.yaml"))
    bad = [
        "{type: MongoURIStore, uri: 'mongodb://me:Zx9p@h:1/d'}",
        "{type: MongoURIStore, uri: 'mongodb://me:Zx9p/a@h:1/d', collection_name: c}",
        "{type: MongoStore, password: Zx9p, database: d}",
        "{type: NoStore, password: Zx9p}",
    ]
    for docs in [*bad, "Zx9p"]:
        (tmp_path / "jobflow.yaml").write_text(f"JOB_STORE: {{docs_store: {docs}, additional_stores: {{}}}}")
        with pytest.raises(MatrisError, match="jobflow configuration") as error:
            open_job_store()
        assert not holds_password(f"{error.value} {error.value.__cause__!r}")
