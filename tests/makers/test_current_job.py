"""Jobs and their surroundings: stores that cannot keep arrays, and other jobs in the same folder."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from jobflow import CURRENT_JOB, JobStore, run_locally
from maggma.stores import JSONStore, MemoryStore
from pymatgen.core import Lattice, Structure

from matris import makers
from matris.errors import StoreError
from matris.makers import BatchEosMaker, BatchRelaxMaker
from matris.makers.current_job import check_store
from matris.relaxation.journal import Journal, JournalInUseError
from matris.stores.database.jobstore import open_job_store
from tests.makers.test_stores import SETTINGS

MGO = Structure(Lattice([[0, 2.13, 2.13], [2.13, 0, 2.13], [2.13, 2.13, 0]]), ["Mg", "O"], [[0, 0, 0], [0.5] * 3])
MAKERS = [getattr(makers, name)(**settings) for name, settings in SETTINGS.items() if name.startswith("Batch")]


@pytest.mark.parametrize("maker", MAKERS, ids=lambda maker: type(maker).__name__)
def test_a_store_without_data_is_found_before_the_computation(maker, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(type(maker), "potential", lambda _: pytest.fail("loaded a potential"))
    for store, message in (
        (JobStore(MemoryStore()), 'no additional store "data"'),
        (
            JobStore(
                JSONStore(str(tmp_path / "docs.json"), read_only=False), additional_stores={"data": MemoryStore()}
            ),
            "in memory",
        ),
    ):
        with pytest.raises(StoreError, match=message):
            run_locally(maker.make([MGO]), store=store, log=False, raise_immediately=True)


def test_stores_with_data():
    CURRENT_JOB.reset()  # jobflow does not after a job that failed
    check_store()  # outside a job
    check_store(JobStore(MemoryStore(), additional_stores={"data": MemoryStore()}))


def test_a_configuration_with_arrays_in_memory_is_refused(tmp_path, monkeypatch):
    docs = {"type": "JSONStore", "paths": str(tmp_path / "docs.json"), "read_only": False}
    configuration = {"JOB_STORE": {"docs_store": docs, "additional_stores": {"data": {"type": "MemoryStore"}}}}
    (tmp_path / "jobflow.yaml").write_text(json.dumps(configuration))
    monkeypatch.setenv("JOBFLOW_CONFIG_FILE", str(tmp_path / "jobflow.yaml"))
    with pytest.raises(StoreError, match='keeps "data" in memory'):
        open_job_store()


@pytest.mark.parametrize(
    "maker",
    [
        BatchRelaxMaker(max_steps=2),
        makers.BatchStaticMaker(first=BatchRelaxMaker(max_steps=2)),
        BatchEosMaker(fmax=0.5, max_steps=2),
    ],
    ids=lambda maker: type(maker).__name__,
)
def test_a_journal_of_another_job_is_left_alone(maker, tmp_path, monkeypatch, tiny_checkpoint):
    """A job whose journal in the current folder is held computes with one of its own."""
    monkeypatch.chdir(tmp_path)
    maker = maker.update_kwargs({"checkpoint": str(tiny_checkpoint), "device": "cpu"}, nested=False)
    store = JobStore(MemoryStore(), additional_stores={"data": MemoryStore()})
    run_locally(maker.make([MGO]), store=store, log=False, raise_immediately=True)
    held = {path: path.read_bytes() for path in tmp_path.glob("*") if path.is_file()}
    assert held
    headers = {path: json.loads(content.splitlines()[0]) for path, content in held.items()}
    code = (
        "import sys, json; from matris.relaxation.journal import Journal\n"
        "held = [Journal(path, header) for path, header in json.loads(sys.argv[1])]\n"
        "print('held', flush=True); sys.stdin.read()"
    )
    plain = [(str(path), {k: v for k, v in header.items() if k != "version"}) for path, header in headers.items()]
    holder = subprocess.Popen(
        [sys.executable, "-c", code, json.dumps(plain)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(JournalInUseError):
            Journal(*plain[0])
        job = maker.make([MGO])
        run_locally(job, store=store, log=False, raise_immediately=True)
        output = store.get_output(job.uuid)
        assert len(output.get("records") or output.get("documents")) == 1
        assert {path: path.read_bytes() for path in held} == held
        assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == [f"journal-{job.uuid}"]
        named = maker.update_kwargs({"journal_dir": str(tmp_path)}, nested=False)
        with pytest.raises(JournalInUseError):  # its owner waits for the journal, or names another folder
            run_locally(named.make([MGO]), store=store, log=False, raise_immediately=True)
    finally:
        holder.communicate("")
