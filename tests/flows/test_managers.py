"""Jobs and flows of this package under jobflow-remote and FireWorks, as any other's."""

from __future__ import annotations

from pathlib import Path

import pytest
from atomate2.forcefields.flows.elastic import ElasticMaker
from atomate2.forcefields.flows.eos import ForceFieldEosMaker
from atomate2.forcefields.flows.phonons import PhononMaker
from jobflow import Flow, JobStore
from jobflow.core.flow import get_flow
from maggma.stores import MemoryStore
from monty.json import MontyDecoder, jsanitize
from pymatgen.core import Lattice, Structure

from matris.flows import ScreeningFlowMaker
from matris.makers import (
    BatchDefectsMaker,
    BatchDiffusionMaker,
    BatchElasticMaker,
    BatchEosMaker,
    BatchKappaMaker,
    BatchMDMaker,
    BatchNebMaker,
    BatchPhononMaker,
    BatchQhaMaker,
    BatchRelaxMaker,
    BatchStaticMaker,
    BatchSurfacesMaker,
    RelaxMaker,
    StaticMaker,
)

MGO = Structure(Lattice([[0, 2.1, 2.1], [2.1, 0, 2.1], [2.1, 2.1, 0]]), ["Mg", "O"], [[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]])


def flows() -> dict[str, Flow]:
    batch = [
        BatchDiffusionMaker,
        BatchDefectsMaker,
        BatchElasticMaker,
        BatchEosMaker,
        BatchKappaMaker,
        BatchMDMaker,
        BatchNebMaker,
        BatchPhononMaker,
        BatchQhaMaker,
        BatchSurfacesMaker,
    ]
    relax, static = RelaxMaker(), StaticMaker()
    return {
        **{maker.__name__: get_flow(maker().make([MGO])) for maker in [*batch, BatchRelaxMaker, BatchStaticMaker]},
        "RelaxMaker": get_flow(relax.make(MGO)),
        "StaticMaker": get_flow(static.make(MGO)),
        "ScreeningFlowMaker": ScreeningFlowMaker(chunk_size=1, properties=("elastic",)).make([MGO]),
        "ElasticMaker": ElasticMaker(bulk_relax_maker=relax, elastic_relax_maker=relax).make(MGO),
        "ForceFieldEosMaker": ForceFieldEosMaker(initial_relax_maker=relax, eos_relax_maker=relax).make(MGO),
        "PhononMaker": PhononMaker(
            bulk_relax_maker=relax, static_energy_maker=static, phonon_displacement_maker=static
        ).make(MGO),
    }


NAMES = [
    "BatchDiffusionMaker",
    "BatchDefectsMaker",
    "BatchElasticMaker",
    "BatchEosMaker",
    "BatchKappaMaker",
    "BatchMDMaker",
    "BatchNebMaker",
    "BatchPhononMaker",
    "BatchQhaMaker",
    "BatchRelaxMaker",
    "BatchStaticMaker",
    "BatchSurfacesMaker",
    "RelaxMaker",
    "StaticMaker",
    "ScreeningFlowMaker",
    "ElasticMaker",
    "ForceFieldEosMaker",
    "PhononMaker",
]


@pytest.fixture
def project(tmp_path, monkeypatch, mongo_server):
    jobflow_remote = pytest.importorskip("jobflow_remote", reason="the extra `remote` is not installed")
    from matris.flows.cluster.project import ClusterAnswers
    from matris.flows.cluster.project_files import prepare_queue, write_project

    monkeypatch.setattr(jobflow_remote.SETTINGS, "projects_folder", str(tmp_path))
    place = {"work_dir": str(tmp_path / "work"), "folder": tmp_path, "executables": Path("/env/bin")}
    answers = ClusterAnswers(name="any", scheduler="slurm", database="managers", **place)
    project = write_project(answers, f"{mongo_server}/managers")
    prepare_queue(project)
    controller = project.get_job_controller()
    yield controller
    controller.reset(max_limit=0)
    controller.close()


@pytest.mark.parametrize("name", NAMES)
def test_jobflow_remote(project, name):
    from jobflow_remote import set_run_config, submit_flow

    flow = flows()[name]
    last = list(flow.iterflow())[-1][0].name
    set_run_config(flow, name_filter=last, worker="cpu", resources={})
    submit_flow(flow, worker="gpu", project="any")
    for job, _ in flow.iterflow():
        document = project.get_job_doc(job_id=job.uuid)
        assert document.worker == ("cpu" if last in job.name else "gpu")
        there = MontyDecoder().process_decoded(project.jobs.find_one({"uuid": job.uuid})["job"])
        assert callable(there.function)  # a name that the worker does not find stays a dictionary
        assert jsanitize(there, strict=True) == jsanitize(job, strict=True)


@pytest.fixture
def store():
    store = JobStore(MemoryStore(), additional_stores={"data": MemoryStore(key="blob_uuid")})
    store.connect()
    return store


@pytest.mark.parametrize("name", ["screening", "elastic", "phonon"])
def test_workers_of_dynamic_jobs(store, tiny_checkpoint, tmp_path, monkeypatch, name):
    """
    What a flow adds to itself goes where the filter sends it, the rest where the flow was submitted to.

    A worker set for the job that adds them would overrule the filter: jobflow hands its settings on.
    """
    pytest.importorskip("jobflow_remote", reason="the extra `remote` is not installed")
    from jobflow_remote import set_run_config

    monkeypatch.chdir(tmp_path)
    kwargs = {"calculator_kwargs": {"checkpoint": str(tiny_checkpoint)}}
    relax, static = RelaxMaker(steps=2, **kwargs), StaticMaker(**kwargs)
    batch = BatchRelaxMaker(checkpoint=str(tiny_checkpoint), max_steps=200, fmax=99.0)
    flow = {
        "screening": lambda: ScreeningFlowMaker(relax_maker=batch, window=99.0, properties=("elastic",)).make([MGO]),
        "elastic": lambda: ElasticMaker(bulk_relax_maker=None, elastic_relax_maker=relax).make(MGO),
        "phonon": lambda: PhononMaker(
            bulk_relax_maker=None, static_energy_maker=None, phonon_displacement_maker=static, min_length=5
        ).make(MGO),
    }[name]()
    set_run_config(flow, name_filter="MatRIS", worker="gpu", resources={"gres": "gpu:1"})
    set_run_config(flow, name_filter="batch", worker="gpu", resources={"gres": "gpu:1"})
    added = []
    for job, _ in flow.iterflow():
        response = job.run(store=store)
        new = response.replace or response.addition or response.detour
        if new is not None:
            added += [each for each, _ in get_flow(new, allow_external_references=True).iterflow()]
            break
    computing = [job for job in added if job.name.startswith(("MatRIS", "batch"))]
    assert computing
    for job in added:
        wanted = {"worker": "gpu", "resources": {"gres": "gpu:1"}} if job in computing else {}
        assert job.config.manager_config == wanted, job.name


@pytest.mark.parametrize("name", NAMES)
def test_fireworks(name):
    pytest.importorskip("fireworks", reason="FireWorks is not installed")
    from fireworks import Workflow
    from jobflow.managers.fireworks import flow_to_workflow

    flow = flows()[name]
    workflow = Workflow.from_dict(flow_to_workflow(flow, JobStore(MemoryStore())).to_dict())
    assert [firework.name for firework in workflow.fws] == [job.name for job, _ in flow.iterflow()]
    jobs = [firework.tasks[0]["job"] for firework in workflow.fws]
    for there, (job, _) in zip(jobs, flow.iterflow(), strict=True):
        assert (there if isinstance(there, dict) else there.as_dict())["uuid"] == job.uuid
    assert any(workflow.links.values()) == (len(jobs) > 1)
