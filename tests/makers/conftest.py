"""Stores through which every Maker's job must go."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest
from jobflow import JobStore
from maggma.stores import MemoryStore

from matris.stores.database.jobstore import open_job_store

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(params=["memory", "sqlite", "mongodb"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> JobStore:
    """Give an empty job store: in memory, the embedded one, or behind a server of MongoDB's protocol."""
    if request.param == "memory":
        return JobStore(MemoryStore(), additional_stores={"data": MemoryStore()})
    if request.param == "sqlite":
        return open_job_store(tmp_path / "results")
    return open_job_store(f"{request.getfixturevalue('mongo_server')}/makers-{uuid.uuid4().hex[:8]}")
