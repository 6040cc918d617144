"""`matris cluster check` of a project for Slurm."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from matris.cli import app
from matris.makers.batch_relax import BatchRelaxMaker
from tests.cluster.chunks import crystals, outputs
from tests.cluster.remote import daemon, project

if TYPE_CHECKING:
    from pathlib import Path

    from matris.flows.cluster.check_results import CheckResult

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def file(projects: Path, mongo_server: str) -> Path:
    return project(projects, "checked", f"{mongo_server}/slurm_check")


def test_check(file: Path, tiny_checkpoint: Path) -> None:
    """
    All is well but for the GPU: Slurm gave the job one that no CUDA finds, and the job says where it ran.

    Another job that was not told to take the CPU then fails, and says why.
    """
    from jobflow_remote import submit_flow

    chunk = BatchRelaxMaker(checkpoint=str(tiny_checkpoint)).make(crystals(1))
    submit_flow(chunk, worker="gpu", project="checked")
    with daemon(file):
        done = CliRunner().invoke(app, ["cluster", "check", "checked", "--checkpoint", str(tiny_checkpoint)])
        (error,), _ = outputs("checked", [chunk], minutes=5)
    assert re.search(r"'cuda' was asked for by MATRIS_DEVICE, but .* \(CUDA_VISIBLE_DEVICES=[0-3]\)", error), error
    lines = done.stdout.splitlines()
    assert len(lines) == 12, done.output
    (wrong,) = [line for line in lines if not line.startswith("ok ")]
    assert re.match(r"wrong gpu: job: ran on the cpu of \S+ \(cpu, CUDA_VISIBLE_DEVICES=[0-3]\); torch", wrong), wrong
    assert wrong.endswith("finds no GPU: install the build that matches its driver")
    assert "ok gpu: scheduler: slurm on this machine answers and takes the job" in lines
    assert "ok runner: runs on this machine" in lines
    (cpu,) = [line for line in lines if line.startswith("ok cpu: job")]
    assert "CUDA_VISIBLE_DEVICES=None) with checkpoint tiny" in cpu
    assert done.exit_code == 1


def scheduler(file: Path, **changed: str) -> CheckResult:
    """What the check finds about the scheduler if other resources are asked for."""
    from matris.flows.cluster.project_files import read_project
    from matris.flows.cluster.worker_checks import check_worker

    worker = read_project("checked")[0].workers["gpu"]
    found = check_worker("gpu", worker.model_copy(update={"resources": worker.resources | changed}), file)
    return next(finding for finding in found if finding.check == "gpu: scheduler")


@pytest.mark.parametrize(
    ("changed", "refusal"),
    [
        ({"partition": "a100"}, "Invalid partition"),
        ({"gres": "gpu:5"}, "node configuration is not available"),
        ({"gres": "tpu:1"}, "Invalid generic resource"),
        ({"mem": "900G"}, "node configuration is not available"),
    ],
)
def test_resources_that_slurm_does_not_have(file: Path, changed: dict[str, str], refusal: str) -> None:
    finding = scheduler(file, **changed)
    assert finding.failed
    assert re.search(refusal, finding.message), finding
    assert f"correct workers.gpu.resources in {file}" in finding.message


def test_slurm_that_is_away(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its configuration names a port at which nobody answers."""
    away = tmp_path / "slurm.conf"
    away.write_text(
        "ClusterName=away\nSlurmctldHost=localhost(127.0.0.1)\nSlurmctldPort=1\nMessageTimeout=2\nNodeName=localhost\n"
    )
    monkeypatch.setenv("SLURM_CONF", str(away))
    finding = scheduler(file)
    assert finding.failed
    assert "slurm on this machine does not answer" in finding.message
