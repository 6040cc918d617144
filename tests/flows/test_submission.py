"""Campaigns whose chunks are jobs of a cluster; here of a worker without a scheduler, with jobflow-remote's runner."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pymatgen.core import Lattice, Structure

from matris.flows.campaign import Campaign
from matris.flows.funnel import Funnel
from matris.flows.runner import run
from matris.makers.batch_relax import BatchRelaxMaker
from matris.stores.candidates import Candidate

if TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mongo_server: str) -> Path:
    """Folder of jobflow-remote's projects, with one, ``hull``, whose runner looks every second."""
    jobflow_remote = pytest.importorskip("jobflow_remote", reason="the extra `remote` is not installed")
    from matris.flows.cluster.files import prepare_queue, validated, write_project
    from matris.flows.cluster.project import ClusterAnswers

    projects = tmp_path / "projects"
    monkeypatch.setattr(jobflow_remote.SETTINGS, "projects_folder", str(projects))
    monkeypatch.setattr(jobflow_remote.SETTINGS, "project", None)
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.setenv("JFREMOTE_PROJECTS_FOLDER", str(projects))
    database = f"submission{os.getpid()}{abs(hash(str(tmp_path)))}"
    executables = Path(sys.executable).parent
    answers = ClusterAnswers(
        name="hull",
        scheduler="shell",
        database=database,
        work_dir=str(tmp_path / "work"),
        folder=projects,
        executables=executables,
        python=f'export PATH={executables}:"$PATH"',
        max_jobs=2,
    )
    project = write_project(answers, f"{mongo_server}/{database}")
    text = answers.file.read_text().replace("runner:\n", "runner:\n  delay_check_run_status: 1\n")
    text = text.replace("delay_checkout: 10.0", "delay_checkout: 1").replace("status: 10.0", "status: 1")
    answers.file.write_text(text)
    assert validated(project.model_dump()) is not None
    prepare_queue(project)
    return projects


@pytest.fixture
def runner(folder: Path) -> Iterator[Path]:
    log = folder / "runner.log"
    with log.open("wb") as told:
        process = subprocess.Popen(
            [Path(sys.executable).with_name("jf"), "-p", "hull", "runner", "run"], stdout=told, stderr=told
        )
        yield log
        process.terminate()
        process.wait(30)


def maker(checkpoint: Path) -> BatchRelaxMaker:
    return BatchRelaxMaker(checkpoint=str(checkpoint), device="cpu", steps=3, relax_kwargs={"fmax": 9.0})


def candidates(n: int = 6) -> list[Candidate]:
    def crystal(a: float, cation: str) -> Structure:
        vectors = [[0, a / 2, a / 2], [a / 2, 0, a / 2], [a / 2, a / 2, 0]]
        return Structure(Lattice(vectors), [cation, "O"], [[0, 0, 0], [0.5] * 3])

    return [Candidate.from_structure(crystal(4.0 + 0.05 * i, ["Mg", "Fe"][i % 2]), f"{i}.cif") for i in range(n)]


def documents(campaign: Campaign) -> list[dict[str, Any]]:
    """Documents but for what differs from run to run."""
    runs = {"_id", "last_updated", "computed_at", "seconds", "taken_at"}

    def lasting(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: lasting(each) for key, each in value.items() if key not in runs}
        return [lasting(each) for each in value] if isinstance(value, list) else value

    return sorted(map(lasting, campaign.documents()), key=lambda document: document["document_id"])


def settled(campaign: Campaign, seconds: float = 240.0) -> None:
    end = time.monotonic() + seconds
    while campaign.queue.is_open(campaign.name) and time.monotonic() < end:
        time.sleep(0.5)
    assert not campaign.queue.is_open(campaign.name)


@pytest.mark.usefixtures("runner")
def test_same_documents(tiny_checkpoint: Path, tmp_path: Path) -> None:
    from matris.flows.cluster.submission import submission
    from matris.flows.cluster.tending import submit

    local = Campaign(
        tmp_path / "local",
        maker(tiny_checkpoint),
        Funnel(window=99.0, properties=("elastic",)),
        title="S",
        chunk_size=3,
    )
    run(local, candidates(), ())
    sent = Campaign(
        "project://hull", maker(tiny_checkpoint), Funnel(window=99.0, properties=("elastic",)), title="S", chunk_size=3
    )
    submit(sent, candidates(), submission())
    settled(sent)
    for one, other in zip(documents(sent), documents(local), strict=True):
        assert one == other
