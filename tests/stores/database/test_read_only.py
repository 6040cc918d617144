"""Results that another user owns: all of them are read, none is lost by a copy."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

from matris.errors import StoreError
from matris.stores.candidate_store import CandidateStore
from matris.stores.database.jobstore import open_job_store
from matris.stores.database.sqlite.store import SQLiteStore
from tests.stores.query.question_documents import documents, fill

NOBODY = 65534


@pytest.fixture
def folder():
    """A folder that every user can reach; those of pytest are private."""
    path = Path(tempfile.mkdtemp())
    path.chmod(0o755)
    yield path / "results"
    for each in (path, *path.rglob("*")):
        each.chmod(0o755)
    shutil.rmtree(path)


@contextmanager
def only_reading(folder):
    """Take away the permission to write, also from the administrator, whose permissions are not checked."""
    modes = {path: path.stat().st_mode for path in (folder, *folder.iterdir())}
    for path, mode in modes.items():
        path.chmod(mode & ~0o222)
    if os.geteuid() == 0:
        os.seteuid(NOBODY)
        try:
            yield
        finally:
            os.seteuid(0)
    else:
        yield
    for path, mode in modes.items():
        if path.exists():
            path.chmod(mode)


def written(folder, more=0):
    """Fill a store and close it, then store further documents in a process that is killed."""
    jobs = open_job_store(folder)
    store = CandidateStore.beside(jobs)
    fill(store)
    for part in (store.docs, store.data, store.properties, store.chunks, jobs):
        part.close()
    if more and os.fork() == 0:
        again = CandidateStore.open(folder)
        again.docs.update([{"document_id": f"late-{n}", "schema_version": 1} for n in range(more)])
        os.kill(os.getpid(), signal.SIGKILL)
    if more:
        os.wait()
    return len(documents())


def test_complete_results_are_read(folder):
    n = written(folder)
    with only_reading(folder):
        store = CandidateStore.open(folder)
        assert store.query().count() == n
        assert store.query(formula="Fe2O3").count() > 2
        with pytest.raises(StoreError, match=r"read-only.*\.backup"):
            store.docs.update({"document_id": "x"})
    assert sorted(path.name for path in folder.iterdir()) == ["matris.sqlite"]


def test_documents_in_the_log_are_read(folder):
    n = written(folder, more=50)
    assert (folder / "matris.sqlite-wal").stat().st_size > 0
    with only_reading(folder):
        assert CandidateStore.open(folder).query().count() == n + 50


def test_a_log_that_cannot_be_read_is_an_error(folder):
    written(folder, more=50)
    (folder / "matris.sqlite-shm").unlink()
    with only_reading(folder), pytest.raises(StoreError, match="copy both files together"):
        CandidateStore.open(folder)
    copy = folder.parent / "copy"  # the way out that the message names
    copy.mkdir()
    for name in ("matris.sqlite", "matris.sqlite-wal"):
        shutil.copy(folder / name, copy)
    assert CandidateStore.open(copy).docs.count({"document_id": {"$regex": "^late"}}) == 50


def test_changes_of_the_owner_are_seen(folder):
    owner = SQLiteStore(folder / "matris.sqlite", "c", key="k")
    owner.connect()
    owner.update({"k": 1})
    owner.close()
    with only_reading(folder):
        reader = SQLiteStore(folder / "matris.sqlite", "c", key="k")
        reader.connect()
        assert reader.count() == 1
    owner.connect()
    owner.update([{"k": 2}, {"k": 3}])
    assert reader.count() == 3
    owner.close()
    with only_reading(folder):
        assert sorted(document["k"] for document in reader.query()) == [1, 2, 3]
