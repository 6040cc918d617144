"""The commands `matris cluster init` and `matris cluster check`, and what each check finds."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from matris.cli import app

if TYPE_CHECKING:
    from collections.abc import Iterator

    from click.testing import Result

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of projects; the environment that runs the tests is the one on the cluster."""
    jobflow_remote = pytest.importorskip("jobflow_remote", reason="the extra `remote` is not installed")
    monkeypatch.setattr(jobflow_remote.SETTINGS, "projects_folder", str(tmp_path / "projects"))
    monkeypatch.setattr(jobflow_remote.SETTINGS, "project", None)
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.delenv("MATRIS_MONGO_URI", raising=False)
    return tmp_path / "projects"


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["cluster", *map(str, arguments)])


def init(folder: Path, uri: str, **more: object) -> Result:
    given = {"database": uri, "scheduler": "shell", "work_dir": folder.parent / "work"} | more
    options = [word for key, value in given.items() for word in (f"--{key.replace('_', '-')}", value)]
    return invoke("init", "hull", *options)


def line(result: Result, what: str) -> str:
    (found,) = [each for each in result.stdout.splitlines() if what in each]
    return found


def test_init(folder: Path, mongo_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    done = init(folder, f"{mongo_server}/cli_cluster_init", module="cuda/12", env="A=1")
    assert done.exit_code == 0, done.output
    for told in ("hull.yaml", "Its queue is new", "matris cluster check hull --no-job", "jf -p hull runner start"):
        assert told in done.stdout
    text = (folder / "hull.yaml").read_text()
    assert "module load cuda/12" in text
    assert 'export A="1"' in text
    assert f'export PATH={Path(sys.executable).parent}:"$PATH"' in text
    again = init(folder, f"{mongo_server}/cli_cluster_init")
    assert again.exit_code == 1
    assert "hull.yaml exists already" in again.stderr
    monkeypatch.setenv("MATRIS_MONGO_URI", f"{mongo_server}/cli_cluster_init")
    place = ["--work-dir", "/scratch/me/", "--host", "me@login", "--python", "/home/me/env"]
    forced = invoke("init", "hull", "--scheduler", "slurm", *place, "--force")
    assert forced.exit_code == 0, forced.output
    assert "Its queue existed already" in forced.stdout
    text = (folder / "hull.yaml").read_text()
    assert "host: login\n    user: me\n" in text
    assert "work_dir: /scratch/me\n" in text
    assert "source /home/me/env/bin/activate" in text


def test_init_without_answers(folder: Path) -> None:
    done = invoke("init", "hull", "--scheduler", "slurm")
    assert done.exit_code == 1
    assert "give --database, --work-dir: there is no terminal" in done.stderr
    assert not folder.exists()
    assert "--env A has no value" in init(folder, "mongodb://h/d", env="A").stderr
    assert "names no database" in init(folder, "mongodb://u:s3cr3t@h").stderr


def test_init_asks_at_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    from matris.cli import cluster

    monkeypatch.setattr(cluster, "sys", SimpleNamespace(stdin=SimpleNamespace(isatty=lambda: True)))
    given = {"--database": None, "--scheduler": "slurm", "--work-dir": ""}
    monkeypatch.setattr(cluster.typer, "prompt", lambda what, **_: f"the {what}")
    assert cluster._prompt_for_missing(given) == ["the database", "slurm", "the work-dir"]


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jobflow_remote", None)
    for command in (["check"], ["init", "hull", "--scheduler", "slurm"]):
        done = invoke(*command)
        assert done.exit_code == 1
        assert "pip install 'matris-flows[remote]'" in done.stderr


def test_a_runner_that_starts_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    daemon = pytest.importorskip("jobflow_remote.jobs.daemon", reason="the extra `remote` is not installed")
    from matris.flows.cluster import checks

    starting, running = daemon.DaemonStatus.STARTING, daemon.DaemonStatus.RUNNING
    said = iter([starting, starting, running])
    manager = SimpleNamespace(check_status=lambda: next(said))
    monkeypatch.setattr(daemon.DaemonManager, "from_project", lambda _: manager)
    waits: list[float] = []
    monkeypatch.setattr(checks, "time", SimpleNamespace(monotonic=lambda: sum(waits), sleep=waits.append))
    finding = checks.check_runner(SimpleNamespace(name="hull"))  # type: ignore[arg-type]
    assert (finding.failed, finding.message) == (False, "runs on this machine")
    assert len(waits) == 2
    controller = SimpleNamespace(get_running_runner=lambda: None, close=lambda: None)
    manager.check_status = lambda: starting
    found = checks.check_runner(SimpleNamespace(name="hull", get_job_controller=lambda: controller))  # type: ignore[arg-type]
    assert (found.failed, found.message) == (True, "does not run (STARTING): jf -p hull runner start")
    assert sum(waits) >= 60


def test_check_of_what_is_right(folder: Path, mongo_server: str) -> None:
    """All but the runner, which is not started."""
    uri = f"{mongo_server}/cli_cluster_check"
    assert init(folder, uri).exit_code == 0
    done = invoke("check", "--no-job")
    told = done.stdout.splitlines()
    assert [each for each in told if not each.startswith("ok ")] == [
        "wrong runner: does not run (SHUT_DOWN): jf -p hull runner start"
    ]
    assert "ok database: cli_cluster_check answers and can be written" in told
    for worker in ("gpu", "cpu"):
        for what in ("host", "folder", "scheduler", "environment"):
            assert line(done, f"{worker}: {what}").startswith("ok ")
    assert done.exit_code == 1
    import pymongo

    (client,) = [pymongo.MongoClient(uri)]
    database = client.get_default_database()
    assert database["hull_auxiliary"].count_documents({"_id": {"$regex": "^matris-check"}}) == 0
    assert database["outputs"].count_documents({}) == 0
    assert database["outputs_blobs.files"].count_documents({}) == 0
    assert list((folder.parent / "work").iterdir()) == []
    database["hull_auxiliary"].drop()
    assert "its queue is not prepared: jf -p hull admin reset" in line(invoke("check", "--no-job"), "database")


def test_check_of_a_database_that_is_away(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matris.flows.cluster import checks

    monkeypatch.setattr(checks, "_DATABASE_TIMEOUT", 300)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    done = init(folder, f"mongodb://me:s3cr3t@127.0.0.1:{port}/d?serverSelectionTimeoutMS=300")
    assert done.exit_code == 0
    assert "The database does not answer yet" in done.stdout
    assert "jf -p hull admin reset" in done.stdout
    checked = invoke("check", "--no-job")
    assert checked.exit_code == 1
    found = line(checked, "wrong database")
    assert f"127.0.0.1:{port}" in found
    assert f"see the address in {folder / 'hull.mongodb'}" in found
    assert "s3cr3t" not in done.output + checked.output
    assert "runner" not in checked.stdout
    (folder / "hull.mongodb").chmod(0o640)
    assert f"chmod 600 {folder / 'hull.mongodb'}" in line(invoke("check", "--no-job"), "wrong database")


def worker_findings(folder: Path, **changed: Any) -> dict[str, tuple[bool, str]]:
    """What the checks of a worker find, by what they check."""
    from matris.flows.cluster.project import ClusterAnswers
    from matris.flows.cluster.project_files import validated, write_project
    from matris.flows.cluster.worker_checks import check_worker

    activate = f'export PATH={Path(sys.executable).parent}:"$PATH"'
    place = {"work_dir": str(folder.parent / "work"), "folder": folder, "executables": Path(sys.executable).parent}
    given = {"name": "hull", "scheduler": "shell", "database": "d", "python": activate, **place} | changed
    answers = ClusterAnswers(**given)
    project = write_project(answers, "mongodb://h/d", force=True)
    assert validated(project.model_dump()) is not None
    found = check_worker("gpu", project.workers["gpu"], answers.file)
    return {finding.check.removeprefix("gpu: "): (finding.failed, finding.message) for finding in found}


def test_check_of_an_unknown_host(folder: Path) -> None:
    found = worker_findings(folder, host="nowhere.invalid", scheduler="slurm")
    assert list(found) == ["host"]
    wrong, told = found["host"]
    assert wrong
    assert "nowhere.invalid cannot be reached" in told
    assert "`ssh nowhere.invalid echo test`" in told
    assert str(folder / "hull.yaml") in told


def test_check_of_a_login_node(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By ssh: commands in a login shell there, files by sftp."""
    from matris.flows.cluster.project import ClusterAnswers
    from matris.flows.cluster.project_files import write_project
    from matris.flows.cluster.worker_checks import check_worker
    from tests.ssh_server import PASSWORD, login_node

    activate = f'export PATH={Path(sys.executable).parent}:"$PATH"'
    place = {"work_dir": str(folder.parent / "work"), "folder": folder, "executables": Path(sys.executable).parent}
    there = {"host": "127.0.0.1", "user": "me", "python": activate, "environment": {"PYTHONPATH": str(REPOSITORY)}}
    answers = ClusterAnswers(name="hull", scheduler="shell", database="d", **place, **there)
    worker = write_project(answers, "mongodb://h/d").workers["gpu"]
    with login_node() as port, Path(os.devnull).open() as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)  # fabric passes it to the remote process
        login = {"port": port, "password": PASSWORD, "connect_kwargs": {"allow_agent": False, "look_for_keys": False}}
        found = list(check_worker("gpu", worker.model_copy(update=login), answers.file))
        assert not any(finding.failed for finding in found), found
        assert [finding.check for finding in found] == [
            f"gpu: {what}" for what in ("host", "folder", "scheduler", "environment")
        ]
        assert not any(finding.failed for finding in found), found
        assert all("127.0.0.1" in finding.message for finding in found)
        nowhere = {"work_dir": Path("/proc/nowhere")}
        wrong = list(check_worker("gpu", worker.model_copy(update=login | nowhere), answers.file))[1]
        assert "/proc/nowhere on 127.0.0.1 cannot be written" in wrong.message
        (refused,) = check_worker("gpu", worker.model_copy(update=login | {"password": "shut"}), answers.file)
        assert "127.0.0.1 cannot be reached (AuthenticationException: " in refused.message
    assert list((folder.parent / "work").iterdir()) == []


@pytest.mark.parametrize("scheduler", ["slurm", "pbs", "sge"])
def test_check_without_a_scheduler(folder: Path, monkeypatch: pytest.MonkeyPatch, scheduler: str) -> None:
    commands = folder.parent / "commands"
    commands.mkdir()
    bash = shutil.which("bash")
    assert bash is not None
    (commands / "bash").symlink_to(bash)
    monkeypatch.setenv("PATH", str(commands))
    found = worker_findings(folder, scheduler=scheduler, user="me")
    wrong, told = found["scheduler"]
    assert wrong
    assert f"{scheduler} on this machine does not answer" in told
    assert "not found" in told
    assert f"correct workers.gpu in {folder / 'hull.yaml'}" in told
    assert not found["environment"][0], found["environment"]


def test_check_of_a_job_that_slurm_refuses(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = folder.parent / "commands"
    commands.mkdir()
    for name, script in {
        "squeue": "exit 0",
        "sbatch": 'grep -q partition=nowhere "$2" && echo "sbatch: error: invalid partition specified: nowhere" >&2 '
        "&& exit 1; exit 0",
    }.items():
        (commands / name).write_text(f"#!/bin/sh\n{script}\n")
        (commands / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}{os.pathsep}{os.environ['PATH']}")
    wrong, told = worker_findings(folder, scheduler="slurm", partition="nowhere")["scheduler"]
    assert wrong
    assert "takes no such job (sbatch: error: invalid partition specified: nowhere)" in told
    assert "correct workers.gpu.resources" in told
    assert worker_findings(folder, scheduler="slurm", partition="gpu")["scheduler"] == (
        False,
        "slurm on this machine answers and takes the job",
    )
    assert "gpuz" in worker_findings(folder, scheduler="slurm", gpu_request="gpuz={n}")["scheduler"][1]


def test_check_of_a_folder_that_cannot_be_written(folder: Path) -> None:
    (folder.parent / "file").write_text("")
    found = worker_findings(folder, work_dir=f"{folder.parent}/file/work")
    wrong, told = found["folder"]
    assert wrong
    assert f"{folder.parent}/file/work on this machine cannot be written" in told
    assert f"work_dir in {folder / 'hull.yaml'}" in told


@pytest.mark.parametrize(
    ("activate", "told"),
    [
        ("source /nowhere/bin/activate; export PATH=/nowhere", "has no matris and jobflow-remote"),
        ("jf() { :; }; python() { echo No module named matris >&2; return 1; }", "No module named matris"),
        ("jf() { :; }; python() { return 1; }", "pip install 'matris-flows[remote]' into it"),
    ],
)
def test_check_of_an_environment_without_matris(folder: Path, activate: str, told: str) -> None:
    wrong, found = worker_findings(folder, python=activate)["environment"]
    assert wrong
    assert told in found
    assert "correct workers.gpu.pre_run" in found


def test_check_of_another_version(folder: Path) -> None:
    from importlib.metadata import version

    there = {"matris-flows": "0.0.1", "jobflow-remote": version("jobflow-remote"), "python": "/env/bin/python"}
    activate = f"jf() {{ :; }}; python() {{ echo 'Welcome'; echo 'matris-check {json.dumps(there)}'; }}"
    wrong, told = worker_findings(folder, python=activate)["environment"]
    assert wrong
    assert "/env/bin/python on this machine has matris-flows 0.0.1 there, " in told
    assert told.endswith(" here: install the same")


TOLD = {"host": "n1", "device_name": "H100", "torch": "2.11", "checkpoint": "c", "sha256": "f00", "n_gpus": 1}


@pytest.mark.parametrize(
    ("resources", "ran", "expected"),
    [
        ({"gres": "gpu:1"}, {"device": "cuda:0", "visible_devices": "2"}, None),
        (None, {"device": "cpu", "device_name": "cpu", "visible_devices": None, "n_gpus": 0}, None),
        ({"gres": "gpu:1"}, {"device": "cpu", "visible_devices": "2"}, "torch 2.11 there finds no GPU"),
        ({"select": "ngpus=1"}, {"device": "cpu", "visible_devices": None}, "the scheduler gave it no GPU"),
        ({"gres": "gpu:1"}, {"device": "cuda:0", "visible_devices": "0,1", "n_gpus": 2}, "sees 2 GPUs on n1"),
    ],
)
def test_device_of_a_job(resources: dict[str, str] | None, ran: dict[str, Any], expected: str | None) -> None:
    from matris.flows.cluster.job_checks import _device_result

    worker: Any = SimpleNamespace(resources=resources)
    finding = _device_result("gpu: job", worker, Path("hull.yaml"), TOLD | ran)
    assert finding.failed == (expected is not None)
    assert (expected or "checkpoint c, sha256 f00") in finding.message
    if expected is None:
        assert f"CUDA_VISIBLE_DEVICES={ran['visible_devices']}" in finding.message


@pytest.fixture
def runner(folder: Path, mongo_server: str) -> Iterator[None]:
    """Run a runner that polls every second."""
    assert init(folder, f"{mongo_server}/cli_cluster_jobs", env=f"PYTHONPATH={REPOSITORY}").exit_code == 0
    file = folder / "hull.yaml"
    fast = "".join(f"  delay_{what}: 1\n" for what in ("checkout", "advance_status", "check_run_status"))
    kept = [each for each in file.read_text().splitlines(keepends=True) if not each.startswith("  delay_")]
    file.write_text("".join(kept).replace("runner:\n", f"runner:\n{fast}"))
    jf = Path(sys.executable).with_name("jf")
    with (folder / "runner.log").open("wb") as log:
        process = subprocess.Popen(
            [jf, "-p", "hull", "runner", "run"],
            env=os.environ | {"JFREMOTE_PROJECTS_FOLDER": str(folder)},
            stdout=log,
            stderr=log,
        )
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.slow
@pytest.mark.usefixtures("runner")
def test_jobs(tiny_checkpoint: Path) -> None:
    """A job on each worker; one with a checkpoint that is not there."""
    from matris.flows.cluster.job_checks import check_jobs
    from matris.flows.cluster.project_files import read_project

    project, file = read_project("hull")
    start = time.monotonic()
    found = {finding.check: finding for finding in check_jobs(project, file, str(tiny_checkpoint), 3)}
    assert sorted(found) == ["cpu: job", "gpu: job"]
    for finding in found.values():
        assert not finding.failed, finding
        assert f"of {socket.gethostname()} (" in finding.message
        assert "with checkpoint tiny, sha256 " in finding.message
    assert time.monotonic() - start < 180
    for finding in check_jobs(project, file, "/nowhere.safetensors", 3):
        assert finding.failed
        assert "FAILED (" in finding.message
        assert "/nowhere.safetensors" in finding.message
        assert "jf -p hull job info" in finding.message


def test_job_that_waits(folder: Path, mongo_server: str) -> None:
    """No runner: the job stays where it is."""
    from matris.flows.cluster.job_checks import check_jobs
    from matris.flows.cluster.project_files import read_project

    assert init(folder, f"{mongo_server}/cli_cluster_waits").exit_code == 0
    project, file = read_project("hull")
    for finding in check_jobs(project, file, None, 0.0):
        assert finding.failed
        assert "is READY after 0 min, and stays: jf -p hull job info" in finding.message
