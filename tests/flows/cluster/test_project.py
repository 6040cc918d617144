"""Projects of jobflow-remote that answers make."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from monty.json import MontyDecoder

from matris.errors import MatrisError, StoreError
from matris.stores.candidate_store import CandidateStore
from matris.stores.database.address import read_uri, write_uri
from matris.stores.database.jobstore import sibling_store
from matris.stores.database.private_mongo import PrivateMongoStore

pytest.importorskip("jobflow_remote", reason="the extra `remote` is not installed")

from matris.flows.cluster.project import ClusterAnswers, project_spec
from matris.flows.cluster.project_files import prepare_queue, read_project, validated, write_project

SECRET = "s3cr3t"  # noqa: S105 - nobody's
URI = f"mongodb://me:{SECRET}@db.example.org:27017/screening?authSource=admin"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    import jobflow_remote

    monkeypatch.setattr(jobflow_remote.SETTINGS, "projects_folder", str(tmp_path))
    monkeypatch.setattr(jobflow_remote.SETTINGS, "project", None)
    return tmp_path


def answers(folder: Path, **more) -> ClusterAnswers:
    place = {"name": "hull", "work_dir": "/scratch/me", "folder": folder, "executables": Path("/env/bin")}
    return ClusterAnswers(**{"scheduler": "slurm", "database": "screening", **place, **more})


def header(scheduler_answers: ClusterAnswers) -> str:
    """What a job of the worker says to its scheduler."""
    worker = validated(project_spec(scheduler_answers)).workers["gpu"]
    return worker.get_scheduler_io().get_submission_script("true", options=worker.resources)


@pytest.mark.parametrize(
    ("more", "lines"),
    [
        ({}, ["#SBATCH --gres=gpu:1", "#SBATCH --time=24:00:00", "#SBATCH --cpus-per-task=4", "#SBATCH --ntasks=1"]),
        (
            {"partition": "a100", "account": "p1", "memory": "32G", "gpu_request": "gpus_per_node={n}"},
            ["--partition=a100", "--account=p1", "--mem=32G", "--gpus-per-node=1"],
        ),
        (
            {"gpus_per_node": 4, "memory": "32G", "gpu_request": "gres=gpu:a100:{n}", "whole_node": True},
            ["--gres=gpu:a100:4", "--mem=128G", "--ntasks=4", "--cpus-per-task=4"],
        ),
        (
            {"scheduler": "pbs", "partition": "gpuq", "account": "p1", "memory": "32gb"},
            ["#PBS -q gpuq", "#PBS -A p1", "#PBS -l select=1:ncpus=4:ngpus=1:mem=32gb", "#PBS -l walltime=24:00:00"],
        ),
        (
            {"scheduler": "sge", "partition": "gpu.q", "account": "p1", "memory": "32G", "user": "me"},
            ["#$ -q gpu.q", "#$ -P p1", "#$ -l gpu=1,h_vmem=32G", "#$ -l h_rt=24:00:00", "#$ -S /bin/bash"],
        ),
    ],
)
def test_job_says_to_its_scheduler(folder, more, lines):
    script = header(answers(folder, **more))
    for line in lines:
        assert line in script


@pytest.mark.parametrize("scheduler", ["slurm", "pbs", "sge", "shell"])
@pytest.mark.parametrize("host", [None, "login.example.org"])
def test_every_project_is_valid(folder, scheduler, host):
    given = answers(folder, scheduler=scheduler, host=host, user="me", python="/home/me/env", max_jobs=3)
    project = validated(project_spec(given))
    gpu, cpu = project.workers["gpu"], project.workers["cpu"]
    assert (gpu.type, gpu.scheduler_type, gpu.max_jobs) == ("remote" if host else "local", scheduler, 3)
    assert (cpu.type, cpu.scheduler_type) == ("local", "shell")
    assert getattr(gpu, "host", None) == host
    assert gpu.get_host() is not None
    assert cpu.work_dir == folder / "hull" / "cpu"
    assert (gpu.scheduler_username is not None) == (scheduler == "sge")
    assert list(project.get_jobstore().additional_stores) == ["data"]
    collections = [project.get_queue_store().collection_name, project.queue.flows_collection]
    assert collections == ["hull_jobs", "hull_flows"]


@pytest.mark.parametrize(
    ("request_", "of_node", "of_job"),
    [
        (None, ("gres", "gpu:4"), "--gres=gpu:1"),
        ("gres=gpu:a100:{n}", ("gres", "gpu:a100:4"), "--gres=gpu:a100:1"),
        ("gpus_per_node={n}", ("gpus_per_node", "4"), "--gpus-per-node=1"),
    ],
)
def test_whole_node_feeds_each_gpu(folder, request_, of_node, of_job):
    given = answers(folder, gpus_per_node=4, walltime="1-00:00:00", whole_node=True, gpu_request=request_)
    gpu = validated(project_spec(given)).workers["gpu"]
    assert gpu.resources[of_node[0]] == of_node[1]
    assert gpu.batch.parallel_jobs == 4
    assert gpu.batch.max_time == 0.8 * 86400
    assert gpu.execution_cmd.startswith(f"srun --exact -N1 -n1 -c4 {of_job} --mem=0 ")
    assert gpu.execution_cmd.format("/there").endswith("jf -fe execution run /there")
    assert validated(project_spec(answers(folder, gpus_per_node=4))).workers["gpu"].batch is None


def test_device_of_jobs(folder):
    """What asks for a GPU must not compute without; who knows better says so."""

    def pre_run(**more):
        return validated(project_spec(answers(folder, **more))).workers["gpu"].pre_run

    assert 'export MATRIS_DEVICE="cuda"' in pre_run()
    assert "MATRIS_DEVICE" not in pre_run(scheduler="shell")
    assert 'export MATRIS_DEVICE="cpu"' in pre_run(environment={"MATRIS_DEVICE": "cpu"})
    assert "MATRIS_DEVICE" not in (validated(project_spec(answers(folder))).workers["cpu"].pre_run)


def test_environment_comes_after_modules(folder):
    """A module's Python must not come before that of the environment."""
    env = folder / "env"
    (env / "bin").mkdir(parents=True)
    (env / "bin" / "activate").write_text(f'export PATH="{env}/bin:$PATH"\n')
    given = answers(
        folder,
        modules=("python/3.12",),
        environment={"OMP_NUM_THREADS": "4", "DATA": "$HOME/d"},
        python=str(env),
        cache_dir="/scratch/me/cache",
    )
    pre_run = validated(project_spec(given)).workers["gpu"].pre_run
    script = f'module() {{ export PATH="/opt/$2:$PATH"; }}\n{pre_run}\necho $PATH; echo $DATA $MATRIS_CACHE\n'
    done = subprocess.run(
        ["bash", "-c", script], env={"HOME": "/home/me", "PATH": "/bin"}, capture_output=True, text=True, check=True
    )
    path, rest = done.stdout.splitlines()
    assert path.split(":") == [f"{env}/bin", "/opt/python/3.12", "/bin"]
    assert rest == "/home/me/d /scratch/me/cache/matris"
    assert 'TORCHINDUCTOR_CACHE_DIR="/scratch/me/cache/inductor"' in pre_run


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"scheduler": "lsf"}, "no scheduler 'lsf': give one of slurm, pbs, sge, shell"),
        ({"name": "a b"}, "the project's name 'a b'"),
        ({"work_dir": "$SCRATCH/me"}, "work folder '$SCRATCH/me' is no absolute path"),
        ({"work_dir": "me"}, "work folder 'me' is no absolute path"),
        ({"walltime": "24h"}, "the time '24h' is not"),
        ({"memory": "1.5G"}, "the memory '1.5G'"),
        ({"gpu_request": "gpu:1"}, "the request 'gpu:1'"),
        ({"scheduler": "shell", "gpus_per_node": 2}, "matris screen --device cuda:0,cuda:1"),
        ({"scheduler": "pbs", "whole_node": True}, "only Slurm"),
        ({"scheduler": "sge"}, "give the user's name"),
        ({"host": "login"}, "environment on another machine is not known"),
        ({"environment": {"A B": "1"}}, "names of environment variables"),
    ],
)
def test_answers_that_do_not_fit(folder, more, told):
    with pytest.raises(MatrisError) as error:
        project_spec(answers(folder, **more))
    assert told in str(error.value)


def test_unknown_resource(folder):
    """The scheduler's name of a resource is not ours to check, but jobflow-remote's."""
    with pytest.raises(ValueError, match="gpuz"):
        header(answers(folder, gpu_request="gpuz={n}"))


def test_no_secret_in_a_project(folder):
    given = answers(folder)
    project = write_project(given, URI)
    assert SECRET not in given.file.read_text()
    assert given.uri_file.stat().st_mode & 0o777 == 0o600
    for store in (project.get_queue_store(), project.get_jobstore().docs_store):
        assert SECRET not in f"{store.name} {store.as_dict()} {store!r} {vars(store)}"
    assert SECRET not in project.model_dump_json()
    again, file = read_project(None)
    assert (again.name, file) == ("hull", given.file)
    assert again.model_dump() == project.model_dump()
    from jobflow_remote.config.manager import ConfigManager

    assert ConfigManager().get_project("hull").model_dump() == project.model_dump()


def test_a_project_is_not_overwritten(folder):
    given = answers(folder)
    write_project(given, URI)
    before = given.file.read_text()
    with pytest.raises(MatrisError, match=r"hull\.yaml exists already"):
        write_project(replace(given, work_dir="/other"), URI)
    assert given.file.read_text() == before
    write_project(replace(given, work_dir="/other"), URI, force=True)
    assert "work_dir: /other" in given.file.read_text()


def test_projects_that_are_not_there(folder):
    with pytest.raises(MatrisError, match="matris cluster init"):
        read_project(None)
    write_project(answers(folder), URI)
    write_project(answers(folder, name="other"), URI)
    with pytest.raises(MatrisError, match="hull, other"):
        read_project(None)
    with pytest.raises(MatrisError, match="no project 'third'"):
        read_project("third")
    (folder / "bad.yaml").write_text("name: bad\nqueue: {}\nworkers: {gpu: {type: local}}\n")
    with pytest.raises(MatrisError, match=r"project 'bad': workers\.gpu\.local\.scheduler_type"):
        read_project("bad")


@pytest.mark.parametrize(
    ("text", "rights", "told"),
    [
        (URI, 0o644, "others may read it: chmod 600"),
        ("hello", 0o600, "is not a MongoDB address"),
        ("mongodb://me:" + SECRET + "@host", 0o600, "names no database"),
        (None, 0o600, "chmod 600 it"),
    ],
)
def test_address_that_cannot_be_used(tmp_path, text, rights, told):
    path = tmp_path / "p.mongodb"
    if text is not None:
        path.write_text(text)
        path.chmod(rights)
    store = PrivateMongoStore(str(path), "screening", "outputs")
    with pytest.raises(StoreError) as error:
        store.connect()
    assert told in str(error.value)
    assert SECRET not in str(error.value)


def test_queue_and_results(folder, mongo_server):
    uri = f"{mongo_server}/cluster_project"
    project = write_project(answers(folder, database="cluster_project"), uri)
    assert prepare_queue(project)
    assert not prepare_queue(project)
    job_store = project.get_jobstore()
    job_store.connect()
    job_store.update({"uuid": "a", "index": 1, "output": {"big": [1, 2]}}, key=["uuid", "index"], save={"data": "big"})
    assert job_store.get_output("a", load=True) == {"big": [1, 2]}
    sibling = sibling_store(job_store, "campaigns", "campaign_id")
    sibling.update({"campaign_id": "c"})
    assert sibling.query_one({"campaign_id": "c"})["campaign_id"] == "c"
    assert CandidateStore.beside(job_store).docs.count() == 0
    copy = MontyDecoder().process_decoded(job_store.docs_store.as_dict())
    copy.connect()
    assert copy.count({"uuid": "a"}) == 1


def test_address_is_replaced_whole(tmp_path):
    path = tmp_path / "new" / "p.mongodb"
    assert write_uri(path, URI) == "screening"
    assert write_uri(path, "mongodb://h/other") == "other"
    assert read_uri(path) == "mongodb://h/other"
    with pytest.raises(StoreError, match="names no database"):
        write_uri(path, "mongodb://h")
    assert [each.name for each in path.parent.iterdir()] == ["p.mongodb"]
