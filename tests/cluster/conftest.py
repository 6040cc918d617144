"""A Slurm with four GPUs, and a folder for projects that use it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.cluster.slurm import cannot_run, slurm

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def cluster() -> Iterator[dict[str, str]]:
    """Start a Slurm for the tests; every process of theirs finds it."""
    if reason := cannot_run():
        pytest.skip(reason)
    with (
        tempfile.TemporaryDirectory(prefix="slurm-") as folder,
        slurm(Path(folder) / "slurm") as environment,
        pytest.MonkeyPatch.context() as patch,
    ):
        for name, value in environment.items():
            patch.setenv(name, value)
        yield environment


@pytest.fixture(scope="session")
def projects(cluster: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:  # noqa: ARG001
    """Give the folder of jobflow-remote's projects."""
    jobflow_remote = pytest.importorskip("jobflow_remote", reason="the extra `remote` is not installed")
    folder = tmp_path_factory.mktemp("projects")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jobflow_remote.SETTINGS, "projects_folder", str(folder))
        yield folder
