"""Campaigns whose chunks are jobs of a cluster; here of a worker without a scheduler, with jobflow-remote's runner."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import signal
import socket
import sys
import time
import traceback
import types
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from jobflow.core.flow import get_flow
from monty.json import MontyDecoder, jsanitize
from pymatgen.core import Lattice, Structure
from pymongo.errors import AutoReconnect
from typer.testing import CliRunner

from matris.cli import app
from matris.errors import MatrisError, StoreError
from matris.flows.campaign.campaign import Campaign
from matris.flows.campaign.funnel import Funnel
from matris.flows.campaign.intake import take_in
from matris.flows.campaign.stages import CHUNK_SIZES
from matris.flows.campaign.status import read_status
from matris.flows.campaign.turns import turn
from matris.flows.local.runner import run
from matris.makers.batch_relax import BatchRelaxMaker
from matris.stores.documents.candidate import Candidate
from matris.stores.report.property_kinds import KINDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from click.testing import Result

pytest.importorskip("jobflow_remote", reason="the extra `remote` is not installed")

import jobflow_remote

from matris.flows.cluster import supervisor
from matris.flows.cluster.compute import compute_chunk
from matris.flows.cluster.project import ClusterAnswers
from matris.flows.cluster.project_files import prepare_queue, write_project
from matris.flows.cluster.submission import Cluster, Submission, choose_submission
from matris.flows.cluster.supervisor import submit
from matris.flows.cluster.walltime import Ending, ended_in_time, seconds, seconds_left
from tests.cluster.remote import FAST, runner, set_delays
from tests.conftest import free_port, mongo_process

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture
def projects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of jobflow-remote's projects."""
    folder = tmp_path / "projects"
    monkeypatch.setattr(jobflow_remote.SETTINGS, "projects_folder", str(folder))
    monkeypatch.setattr(jobflow_remote.SETTINGS, "project", None)
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.setenv("JFREMOTE_PROJECTS_FOLDER", str(folder))
    return folder


def write_hull(projects: Path, address: str) -> Path:
    """Write the project ``hull``, whose runner looks every second, in a database of its own; its file."""
    database = f"submission{uuid.uuid4().hex[:12]}"
    executables = Path(sys.executable).parent
    answers = ClusterAnswers(
        name="hull",
        scheduler="shell",
        database=database,
        work_dir=str(projects.parent / "work"),
        folder=projects,
        executables=executables,
        python=f'export PATH={executables}:"$PATH"',
        max_jobs=2,
    )
    project = write_project(answers, f"{address}/{database}")
    set_delays(answers.file, FAST)
    prepare_queue(project)
    return answers.file


def maker(checkpoint: Path) -> BatchRelaxMaker:
    return BatchRelaxMaker(
        checkpoint=str(checkpoint), device="cpu", max_steps=3, fmax=99.0, relax_kwargs={"max_batch_atoms": 1}
    )


def candidates(n: int = 4) -> list[Candidate]:
    def crystal(a: float, cation: str) -> Structure:
        vectors = [[0, a / 2, a / 2], [a / 2, 0, a / 2], [a / 2, a / 2, 0]]
        return Structure(Lattice(vectors), [cation, "O"], [[0, 0, 0], [0.5] * 3])

    return [Candidate.from_structure(crystal(4.0 + 0.05 * i, ["Mg", "Fe"][i % 2]), f"{i}.cif") for i in range(n)]


def documents(campaign: Campaign, *but: str) -> list[dict[str, Any]]:
    """Documents but for what differs from run to run."""
    runs = {"_id", "last_updated", "computed_at", "seconds", "taken_at", *but}

    def lasting(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: lasting(each) for key, each in value.items() if key not in runs}
        return [lasting(each) for each in value] if isinstance(value, list) else value

    return sorted(map(lasting, campaign.documents()), key=lambda document: document["document_id"])


def differences(one: Campaign, other: Campaign, *but: str) -> list[Any]:
    """Fields of documents in which two campaigns differ."""
    pairs = zip(documents(one, *but), documents(other, *but), strict=True)
    return [(key, a.get(key), b.get(key)) for a, b in pairs for key in {*a, *b} if a.get(key) != b.get(key)]


class Cast:
    """The runner and its workers, played in this process."""

    def __init__(self) -> None:
        self.where = Submission("hull", jobs_collection="hull_jobs")
        self.cluster = Cluster(self.where)
        self.controller = self.cluster.controller
        self.store = self.cluster.project.get_jobstore()

    def jobs(self, **criteria: Any) -> list[dict[str, Any]]:
        return list(self.controller.jobs.find(criteria).sort("db_id", 1))

    def ready(self, worker: str) -> list[dict[str, Any]]:
        return self.jobs(state="READY", worker=worker)

    def compute(self, document: dict[str, Any], folder: Path) -> Any:
        """Run a job as a worker does, in a folder of its own."""
        from jobflow_remote.remote.data import resolve_job_dict_args

        self.store.connect()
        resolved = resolve_job_dict_args(document["job"], self.store)
        job = MontyDecoder().process_decoded(resolved | {"function_args": list(resolved["function_args"])})
        here = folder / f"{document['uuid']}_{document['index']}"
        here.mkdir(parents=True)
        with contextlib.chdir(here):
            return job.run(self.store)

    def end(self, document: dict[str, Any], response: Any = None, error: str | None = None, **more: Any) -> None:
        """Enter what became of a job, as the runner does."""
        flow = self.controller.flows.find_one({"jobs": document["uuid"]})
        told = None if response is None else jsanitize(dataclasses.asdict(response) | {"output": None}, strict=True)
        now = datetime.now(UTC)
        times = {"start_time": now - timedelta(seconds=10), "end_time": now}
        self.controller.checkin_job(document, flow, told, error, {**times, **more})

    def work(self, folder: Path, worker: str) -> int:
        """Run what is ready for a worker."""
        ready = self.ready(worker)
        for document in ready:
            try:
                self.end(document, self.compute(document, folder))
            except Exception:  # noqa: BLE001 - as jobflow-remote has it
                self.end(document, error=traceback.format_exc())
        return len(ready)

    def play(self, folder: Path) -> None:
        """Run all there is."""
        while self.work(folder, "gpu") + self.work(folder, "cpu"):
            pass


@pytest.fixture
def cast(projects: Path, mongo_server: str) -> Iterator[Cast]:
    write_hull(projects, mongo_server)
    cast = Cast()
    yield cast
    cast.controller.reset(max_limit=0)
    cast.controller.close()


def campaign(checkpoint: Path, store: Path | str = "project://hull", *properties: str) -> Campaign:
    funnel = Funnel(window=99.0, duplicates=False, properties=properties)
    return Campaign(store, maker(checkpoint), funnel, title="S", chunk_size=3)


@pytest.fixture(scope="module")
def alone(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    """The campaign on one machine."""
    local = campaign(tiny_checkpoint, tmp_path_factory.mktemp("local"))
    run(local, candidates(), ())
    return local


def test_same_documents_as_on_one_machine(cast: Cast, mongo_server: str, tiny_checkpoint: Path, tmp_path: Path) -> None:
    alone = campaign(tiny_checkpoint, tmp_path / "alone", "elastic")
    run(alone, candidates(), ())
    sent = campaign(tiny_checkpoint, "project://hull", "elastic")
    told: list[dict[str, Any]] = []
    submit(sent, candidates(), cast.where, told.append)
    assert [each["n"] for each in told if each["event"] == "submitted"] == [3, 3, 1]
    assert {each["worker"] for each in cast.ready("gpu")} == {"gpu"}
    waiting = cast.jobs(state="WAITING")
    assert [(each["worker"], each["job"]["name"]) for each in waiting] == [("cpu", "matris supervise")] * 3
    found = read_status(
        f"{mongo_server}/{cast.cluster.project.get_queue_store().database}"
    )  # through another address of the store
    assert (found.phase, found.jobs, found.cluster) == ("queued", {"queued": 3}, "gpu of project hull")

    again = campaign(tiny_checkpoint, "project://hull", "elastic")  # by another user: all chunks are under way
    submit(again, candidates(), cast.where, told.append)
    assert len(cast.ready("gpu")) == 3

    first, *_ = cast.ready("gpu")
    cast.controller.jobs.update_one({"uuid": first["uuid"]}, {"$set": {"state": "RUNNING"}})
    assert read_status("project://hull").phase == "running"
    cast.controller.jobs.update_one({"uuid": first["uuid"]}, {"$set": {"state": "READY"}})
    cast.play(tmp_path / "runs")
    assert differences(sent, alone) == []
    found = read_status("project://hull")
    assert (found.phase, found.jobs) == ("finished", {})
    assert {stage.stage: stage.candidates["done"] for stage in found.stages} == {"relax": 7, "elastic": 4}
    chunk = sent.job_store.query_one({"output.chunk_format": "matris-chunk-1"})
    assert chunk["output"]["ran_on"]["host"] == socket.gethostname()
    assert not list((tmp_path / "work" / "journals").iterdir())
    assert kept(sent) == []
    n = len(cast.jobs())
    submit(sent, candidates(), cast.where, told.append)  # submits nothing new
    assert len(cast.jobs()) == n


def kept(campaign: Campaign) -> list[dict[str, Any]]:
    """Candidates that still wait in the job store for their chunk."""
    return list(campaign.job_store.query({"name": "candidates"}))


KILLED = "The output file jfremote_out.json was downloaded, but it does not contain the response. The job was killed"


def test_lost_jobs(cast: Cast, tiny_checkpoint: Path, tmp_path: Path, alone: Campaign) -> None:
    """One killed, one that the runner lost, one whose submission was cut off: each is submitted once more."""
    sent = campaign(tiny_checkpoint)
    submit(sent, candidates(), cast.where)
    killed, lost, unsent = cast.ready("gpu")
    cast.end(killed, error=KILLED)
    cast.controller.jobs.update_one({"uuid": lost["uuid"]}, {"$set": {"state": "REMOTE_ERROR", "remote.error": "off"}})
    cast.controller.jobs.delete_one({"uuid": unsent["uuid"]})
    assert read_status("project://hull").jobs == {"lost": 2, "queued": 1}
    assert cast.work(tmp_path / "runs", "cpu") == 1
    assert len(cast.ready("gpu")) == 3
    assert {each["uuid"] for each in cast.ready("gpu")}.isdisjoint({killed["uuid"], lost["uuid"], unsent["uuid"]})
    assert read_status("project://hull").deaths == 2
    cast.play(tmp_path / "runs")
    assert differences(sent, alone, "job_uuid") == []


def test_job_of_a_runner_that_died(cast: Cast, tiny_checkpoint: Path, tmp_path: Path, alone: Campaign) -> None:
    """It stays locked until a process supervises the campaign."""
    sent = campaign(tiny_checkpoint)
    submit(sent, candidates(), cast.where)
    held, recent, _ = cast.ready("gpu")
    for job, minutes in ((held, 11), (recent, 1)):
        lock = {"lock_id": "runner", "lock_time": datetime.now(UTC) - timedelta(minutes=minutes)}
        cast.controller.jobs.update_one({"uuid": job["uuid"]}, {"$set": lock})
        cast.controller.flows.update_one({"jobs": job["uuid"]}, {"$set": lock})
    assert invoke("resume", "--store", "project://hull").exit_code == 0
    assert [job["uuid"] for job in cast.jobs(lock_id="runner")] == [recent["uuid"]]
    assert [flow["jobs"][0] for flow in cast.controller.flows.find({"lock_id": "runner"})] == [recent["uuid"]]
    cast.play(tmp_path / "runs")
    assert differences(sent, alone) == []


def test_a_chunk_that_breaks(cast: Cast, tiny_checkpoint: Path, tmp_path: Path, alone: Campaign) -> None:
    """It is given up, its candidates say why, and `matris resume` tries again."""
    sent = campaign(tiny_checkpoint)
    submit(sent, candidates(), cast.where)
    broken, *_ = cast.ready("gpu")
    for _ in range(3):
        cast.end(broken, error="Traceback …\nmatris.errors.MatrisError: no space left")
        cast.work(tmp_path / "runs", "cpu")
        new = [each for each in cast.ready("gpu") if each["job"]["function_kwargs"] and each["db_id"] > broken["db_id"]]
        broken = max(new, key=lambda each: int(each["db_id"]), default=broken)
    cast.play(tmp_path / "runs")
    found = read_status("project://hull")
    assert found.broken == ["matris.errors.MatrisError: no space left"]
    states = [document["state"] for document in sent.documents()]
    assert sorted(states) == ["converged"] * 4 + ["failed"] * 3
    resumed = invoke("resume", "--store", "project://hull")
    assert "resumes: 3 candidates in 1 chunks submitted again" in resumed.stdout
    assert "The runner does not run" in resumed.stderr
    cast.play(tmp_path / "runs")
    assert differences(sent, alone, "job_uuid") == []
    assert "is finished" in invoke("resume", "--store", "project://hull").stdout


def test_cancel_and_resume(cast: Cast, tiny_checkpoint: Path, tmp_path: Path, alone: Campaign) -> None:
    sent = campaign(tiny_checkpoint)
    submit(sent, candidates(), cast.where)
    first, *_ = cast.ready("gpu")
    cast.end(first, cast.compute(first, tmp_path / "runs"))
    done = invoke("cancel", "--store", "project://hull", "--campaign", sent.name[:5])
    assert "2 chunks of campaign" in done.stdout, done.output
    cast.play(tmp_path / "runs")
    assert read_status("project://hull").phase == "cancelled"
    assert sorted(each["state"] for each in cast.jobs(worker="gpu")) == ["COMPLETED", "USER_STOPPED", "USER_STOPPED"]
    assert "2 chunks submitted again" in invoke("resume", "--store", "project://hull").stdout
    cast.play(tmp_path / "runs")
    assert differences(sent, alone, "job_uuid") == []


def test_time_is_nearly_over(
    cast: Cast, tiny_checkpoint: Path, tmp_path: Path, alone: Campaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each job is told to end after its first candidate; the next goes on from the journal."""
    from matris.makers import batch_relax

    sent = campaign(tiny_checkpoint)
    submit(sent, candidates(), cast.where)
    report = batch_relax._report
    computed = []

    def told_to_end(record: Any) -> None:
        report(record)
        computed.append(record.candidate_id)
        if len(computed) in {1, 3}:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(batch_relax, "_report", told_to_end)
    cast.work(tmp_path / "runs", "gpu")
    (again, *_) = cast.ready("gpu")
    assert again["index"] == 2
    assert again["job"]["function_kwargs"]["finished"] >= 1
    cast.store.connect()
    output = cast.store.get_output(again["uuid"], which=1)
    assert "its scheduler ended it" in output["unfinished"]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    cast.play(tmp_path / "runs")
    assert differences(sent, alone) == []


def test_when_a_job_ends(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def wait() -> str:
        try:
            with ended_in_time():
                time.sleep(5)
        except Ending as ending:
            return str(ending)
        return ""

    monkeypatch.setenv("SLURM_JOB_END_TIME", str(time.time() + 5.1))
    assert wait() == "its time limit was nearly reached"
    monkeypatch.delenv("SLURM_JOB_END_TIME")
    squeue = tmp_path / "squeue"
    squeue.write_text('#!/bin/sh\n[ "$3" = 7 ] && echo 1-00:01:05\n')
    squeue.chmod(0o755)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert seconds_left() == 86465
    squeue.write_text("#!/bin/sh\necho UNLIMITED\n")
    assert seconds_left(30.0) == 30.0
    assert [seconds(text) for text in ("02:00", "1:00:00", "UNLIMITED", None, "a:b")] == [120, 3600, None, None, None]


def test_no_progress(tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def at_once(*_: Any) -> None:
        raise Ending("its time limit was nearly reached")

    monkeypatch.setattr(BatchRelaxMaker.make, "original", at_once)
    chunk = [each.model_dump() for each in candidates(2)]
    slow = dataclasses.replace(maker(tiny_checkpoint), journal_dir=str(tmp_path))
    response = compute_chunk(slow, chunk)
    for tries in (1, 2):
        (again,) = [job for job, _ in get_flow(response.replace).iterflow()]
        assert again.function_kwargs["tries"] == tries
        if tries < 2:
            response = compute_chunk(*again.function_args, **again.function_kwargs)
    with pytest.raises(MatrisError, match="none of them from the last 3 jobs: give jobs more time"):
        compute_chunk(*again.function_args, **again.function_kwargs)


def test_promised_gpu(cast: Cast, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job without the GPU of its worker fails and says so, unless the user names a device."""
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    gpu = dataclasses.replace(cast.where, resources={"gres": "gpu:1"})
    sent = campaign(tiny_checkpoint)
    sent.maker.device = None
    submit(sent, candidates(), gpu)
    (job, *_) = cast.ready("gpu")
    assert job["resources"] == {"gres": "gpu:1"}
    with pytest.raises(MatrisError, match=r"device 'cuda' was asked for, but torch .*sees no CUDA device here"):
        cast.compute(job, tmp_path / "runs")
    cast.controller.reset(max_limit=0)
    named = Campaign("project://hull", maker(tiny_checkpoint), sent.funnel, title="on the CPU", chunk_size=2)
    submit(named, candidates(), gpu)
    (job, *_) = cast.ready("gpu")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    output = cast.compute(job, tmp_path / "cpu").output
    assert (output.device, output.ran_on["visible_devices"]) == ("cpu", "3")
    cluster = Cluster(gpu)
    assert cluster.device(job["uuid"]) == "cuda"
    cluster.project.workers["gpu"].pre_run = "export MATRIS_DEVICE=cpu"  # read by the job
    assert cluster.device(job["uuid"]) is None
    cluster.controller.close()


def test_full_disk(tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("matris.relaxation.journal.Journal.append", full)
    chunk = [each.model_dump() for each in candidates(2)]
    with pytest.raises(MatrisError, match=f"no space left for {tmp_path} .*matris resume"):
        compute_chunk(dataclasses.replace(maker(tiny_checkpoint), journal_dir=str(tmp_path)), chunk)


def test_candidate_that_kills_its_job(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """After a job that was killed the file names the candidate that it computed alone."""
    first, second = chunk = candidates(2)
    careful = dataclasses.replace(maker(tiny_checkpoint), journal_dir=str(tmp_path))
    file = tmp_path / "poison.json"
    file.write_text(json.dumps([{}, first.candidate_id]))
    states = [record.state for record in compute_chunk(careful, chunk, careful=True).records]
    assert states == ["converged", "converged"]
    assert json.loads(file.read_text()) == [{first.candidate_id: 1}, None]
    file.write_text(json.dumps([{first.candidate_id: 1}, first.candidate_id]))
    records = compute_chunk(careful, [first, second], careful=True).records
    assert [record.state for record in records] == ["failed", "converged"]
    assert "died 2 times" in records[0].error


def test_store_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    from matris.flows.queue import retry

    monkeypatch.setattr(retry.time, "sleep", lambda _: None)
    answers = [AutoReconnect("away"), StoreError("no"), 7]
    answers[1].__cause__ = AutoReconnect("away")
    told: list[str] = []

    def ask() -> Any:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert retry.with_retries(ask, told.append) == 7
    assert told == ["away", "no"]
    answers = [StoreError("wrong for good")]
    with pytest.raises(StoreError, match="wrong for good"):
        retry.with_retries(ask)


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, list(map(str, arguments)))


def test_commands(cast: Cast, tiny_checkpoint: Path, tmp_path: Path) -> None:
    files = tmp_path / "structures"
    files.mkdir()
    for each in candidates(4):
        assert each.structure is not None
        each.structure.to(filename=str(files / each.source))
    on = ["--checkpoint", tiny_checkpoint, "--device", "cpu"]
    relax = ["relax", files, *on, "--output", tmp_path / "relaxed", "--fmax", 99, "--chunk-size", 2, "--submit"]
    done = invoke(*relax)
    assert done.exit_code == 0, done.output
    assert "4 read; 4 candidates in 2 chunks submitted to gpu of project hull" in done.stdout
    assert "matris status --store project://hull" in done.stdout
    assert "The runner does not run" in done.stderr
    status = invoke("status", "--store", "project://hull")
    assert "submitted to gpu of project hull: 2 queued" in status.stdout, status.output
    assert "0 candidates in 0 chunks submitted" in invoke(*relax).stdout
    cast.play(tmp_path / "runs")
    assert "converged" in invoke(*relax).stdout
    assert len(list((tmp_path / "relaxed").iterdir())) == 4

    elastic = ["elastic", files / "0.cif", *on, "--submit", "--report", tmp_path / "page.html"]
    assert "1 submitted, by gpu" in invoke(*elastic).stdout
    assert "1 under way, by gpu" in invoke(*elastic).stdout
    (job,) = cast.ready("gpu")
    cast.end(job, error=KILLED)
    assert "1 submitted again, by gpu" in invoke(*elastic).stdout
    cast.play(tmp_path / "runs")
    shown = invoke(*elastic)
    assert shown.exit_code == 0, shown.output
    assert shown.stdout.count("MgO") == 2  # moduli, and elastic constants
    assert (tmp_path / "page.html").exists()

    motion = ["md", files / "0.cif", *on, "--n-steps", 2, "--interval", 1, "--submit", "--format", "json"]
    assert "1 submitted, by gpu" in invoke(*motion).stdout
    cast.play(tmp_path / "runs")
    (document,) = json.loads(invoke(*motion, "--report", tmp_path / "page.html").stdout)
    assert document["state"] == "completed"
    assert Path(document["trajectory"]).is_file()
    assert "journals" in document["trajectory"]


def test_properties_that_can_be_submitted() -> None:
    assert set(CHUNK_SIZES) == set(KINDS)


def test_what_cannot_be_submitted(cast: Cast, tmp_path: Path) -> None:
    screen = ["screen", "--chemsys", "Mg-O", "--submit"]
    for words, told in {
        ("--store", "elsewhere"): "leave --store elsewhere out",
        ("--worker", "gpu,gpx"): "no worker gpx in",
        ("--project", "other"): "no project 'other' in",
        ("--device", "cuda:0,cuda:1"): "a job computes on one device",
        ("--resource", "time"): "write --resource time=VALUE",
    }.items():
        done = invoke(*screen, *words)
        assert done.exit_code == 1
        assert told in done.stderr, done.output
    assert "no jobflow-remote project 'other'" in invoke("status", "--store", "project://other").stderr
    assert cast.jobs() == []
    local = Campaign(tmp_path / "local", title="here")
    local.keep(intake={}, reading=False)
    for command in ("cancel", "resume"):
        assert "was not submitted" in invoke(command, "--store", tmp_path / "local").stderr


@pytest.mark.slow
def test_runner(projects: Path, mongo_server: str, tiny_checkpoint: Path, alone: Campaign) -> None:
    """The same with jobflow-remote's runner and a process for each job."""
    file = write_hull(projects, mongo_server)
    sent = campaign(tiny_checkpoint)
    with runner(file):
        submit(sent, candidates(), choose_submission())
        settled(sent)
    assert differences(sent, alone) == []


@pytest.mark.slow
def test_database_away(projects: Path, tmp_path: Path, tiny_checkpoint: Path, alone: Campaign) -> None:
    """The database is unavailable for half a minute, for the runner and for a supervising job."""
    port = free_port()
    with contextlib.ExitStack() as stack:
        with mongo_process(tmp_path, port) as address:
            file = write_hull(projects, address)
            sent = campaign(tiny_checkpoint)
            submit(sent, candidates(), choose_submission())
            stack.enter_context(runner(file))
            until(lambda: any(job["state"] == "COMPLETED" for job in states(sent)))
        time.sleep(30)
        stack.enter_context(mongo_process(tmp_path, port))
        settled(sent)
        assert differences(sent, alone) == []


def states(sent: Campaign) -> list[dict[str, Any]]:
    """Read the jobs of a campaign's chunks."""
    with Cluster(choose_submission()) as cluster:
        return list(cluster.jobs(item.payload["job"] for item in sent.queue.submitted(sent.name)).values())


def until(what: Callable[[], bool], seconds: float = 1800.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.5)


def settled(sent: Campaign) -> None:
    until(lambda: not sent.queue.is_open(sent.name))
    with turn(sent, "supervision"):  # held until the hulls are computed
        return


def test_a_campaign_whose_first_job_fails_alike_stops(tiny_checkpoint: Path, tmp_path: Path) -> None:
    campaign = Campaign(tmp_path / "store", maker(tiny_checkpoint), Funnel(hull=False, duplicates=False), chunk_size=2)
    crystals = candidates()
    list(take_in(campaign, crystals))
    reason = "the first 20 candidates all failed for the same reason, and the job was stopped; the last one: no driver"
    document = {"state": "FAILED", "error": f"Traceback\nmatris.makers.failing_alike.FailedAlikeError: {reason}\n"}

    def lose() -> str | None:
        item = campaign.queue.submit(campaign.name, supervisor.job_id)
        assert item is not None
        supervisor._return_lost(campaign, item, document)
        return item.error

    lose()
    status = read_status(campaign.location)
    assert (status.phase, status.stopped) == ("stopped", reason)
    assert [(stage.chunks["waiting"], stage.chunks["broken"]) for stage in status.stages] == [(2, 0)]
    where = types.SimpleNamespace(submission=Submission("hull"))  # nothing is submitted: no other attribute is needed
    supervisor._submit_waiting(campaign, where, lambda _: None)

    run(Campaign(tmp_path / "store", maker(tiny_checkpoint), campaign.funnel, title="other"), crystals[:1], ())
    campaign.keep(stopped=None, cancelled=False)
    lose()  # a candidate was computed meanwhile, so the failures are those of the candidates
    assert read_status(campaign.location, campaign.name).phase != "stopped"
    assert not campaign.record()["cancelled"]
    items = [item for item in campaign.queue.items(campaign.name) if item["error"]]
    assert [supervisor._failed_alike(item["error"]) for item in items] == [True]  # all of it is computed next time


def test_a_source_that_gives_nothing_leaves_no_campaign(tiny_checkpoint: Path, tmp_path: Path) -> None:
    def breaks() -> Iterator[Candidate]:
        raise MatrisError("no such folder")
        yield

    campaign = Campaign(tmp_path / "store", maker(tiny_checkpoint), title="empty")
    for candidates_of_it, message in (([], "no candidates for the campaign 'empty'"), (breaks(), "no such folder")):
        with pytest.raises(MatrisError, match=message):
            supervisor.submit(campaign, candidates_of_it, Submission("hull"))
    assert campaign.record() == {}
    with pytest.raises(StoreError):
        read_status(campaign.location)
