"""The Slurm of the tests binds its GPUs, as one with real ones does."""

from __future__ import annotations

import errno
import re
import time
from typing import TYPE_CHECKING

import pytest

from tests.cluster.slurm import Use, ask, cannot_run, clashes

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.cluster


def test_each_job_has_a_gpu_of_its_own(cluster: dict[str, str], tmp_path: Path) -> None:
    """Four at once on four GPUs, two more when some are free."""
    told = "echo $CUDA_VISIBLE_DEVICES; date +%s.%N; sleep 1; date +%s.%N"
    for _ in range(6):
        assert ask(cluster, "sbatch", "--gres=gpu:1", f"--output={tmp_path}/%j.out", f"--wrap={told}")
    while ask(cluster, "squeue", "-h"):
        time.sleep(0.1)
    uses = [
        Use(gpu, float(start), float(end)) for gpu, start, end in (p.read_text().split() for p in tmp_path.iterdir())
    ]
    assert len(uses) == 6
    assert {use.gpu for use in uses} == {"0", "1", "2", "3"}
    assert clashes(uses) == []


def test_clashes() -> None:
    first, later, other = Use("0", 0.0, 2.0), Use("0", 2.0, 3.0), Use("1", 0.0, 9.0)
    assert clashes([later, other, first]) == []
    assert clashes([later, other, first, Use("0", 1.0, 2.5)]) == [
        (first, Use("0", 1.0, 2.5)),
        (Use("0", 1.0, 2.5), later),
    ]


@pytest.mark.parametrize(
    ("what", "value", "reason"),
    [
        ("sys.platform", "darwin", "Slurm runs on Linux"),
        ("os.geteuid", lambda: 1000, "started as root"),
        ("shutil.which", lambda _: None, "no munged, slurmctld, slurmd, .*: apt-get install slurm-wlm munge"),
    ],
)
def test_reasons_to_skip(monkeypatch: pytest.MonkeyPatch, what: str, value: object, reason: str) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr(what, value)
    assert re.search(reason, cannot_run() or "")


def test_no_devices_can_be_made(cluster: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001
    """Where all else is there, as in a container without the right to."""

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr("os.mknod", refuse)
    assert cannot_run() == "no fake GPU can be made here: [Errno 1] Operation not permitted"
