"""A campaign on Slurm, by `matris screen --submit`, whose jobs meet all that ends jobs on clusters."""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Any

import pytest
from benchmarks.standin import StandInMaker
from pymatgen.core import Lattice, Structure
from pymatgen.entries.computed_entries import ComputedEntry
from typer.testing import CliRunner

import matris.makers.batch_static  # noqa: F401 - a subclass of what the stand-in replaces, made before
from matris.cli import app
from matris.flows.campaign import Campaign
from matris.flows.runner import run
from matris.stores.sources.opening import open_source
from tests.cluster.chunks import uses
from tests.cluster.remote import project, runner
from tests.cluster.slurm import ask, clashes, kill_job, running

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from click.testing import Result

pytestmark = pytest.mark.cluster

CATIONS, ANIONS = ("Li", "Na", "K", "Rb", "Mg", "Ca", "Sr", "Ba", "Mn", "Fe"), ("O", "S", "F", "Cl")
N, CHUNK = 200, 25
SECONDS = 0.3
"""That a candidate takes; a chunk is then long enough to be disturbed half-way."""

OF_THE_RUN = {"_id", "last_updated", "computed_at", "seconds", "job_uuid", "hulls"}
"""Fields that tell of the run, not of the candidate; hulls carry times."""


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """Two hundred rock salts, and the elements that their hull is taken from."""
    structures = []
    for cation, anion, a in product(CATIONS, ANIONS, (4.6, 4.8, 5.0, 5.2, 5.4)):
        cell = Lattice([[0, a / 2, a / 2], [a / 2, 0, a / 2], [a / 2, a / 2, 0]])
        structures.append(Structure(cell, [cation, anion], [[0, 0, 0], [0.5, 0.5, 0.5]]).as_dict())
    assert len(structures) == N
    entries = [ComputedEntry(each, -4.0, parameters={"run_type": "PBE"}).as_dict() for each in (*CATIONS, *ANIONS)]
    (tmp_path / "crystals.json").write_text(json.dumps(structures))
    (tmp_path / "elements.json").write_text(json.dumps(entries))
    return tmp_path / "crystals.json", tmp_path / "elements.json"


@dataclass
class Faults:
    """
    What ends jobs, each one once, as soon as one of the campaign's jobs is in the middle of its chunk.

    Parameters
    ----------
    environment
        Of Slurm.
    journals
        Folder of the chunks' journals.
    """

    environment: dict[str, str]
    journals: Path
    jobs: dict[str, str] = field(default_factory=dict)
    gpus: list[list[str]] = field(default_factory=list)

    def inject(self, jobs: dict[str, str]) -> None:
        """Look at running jobs, by chunk, and disturb those that are half-way."""
        now = running(self.environment)
        self.gpus.append([gpu for gpus in now.values() for gpu in gpus])
        for chunk, job in jobs.items():
            due = next((fault for fault in _FAULTS if fault not in self.jobs), None)
            if due is not None and job in now and job not in self.jobs.values() and 2 < self.done(chunk) < CHUNK - 5:
                self.jobs[due] = job
                _FAULTS[due](self.environment, job)

    def done(self, chunk: str) -> int:
        """Candidates of a chunk that are finished."""
        return sum(len(path.read_bytes().splitlines()) - 1 for path in (self.journals / chunk).glob("*.jsonl"))


_FAULTS: dict[str, Callable[[dict[str, str], str], Any]] = {
    "time limit": lambda slurm, job: ask(slurm, "scontrol", "update", f"JobId={job}", "EndTime=now+1"),
    "scancel": lambda slurm, job: ask(slurm, "scancel", job),
    "requeue": lambda slurm, job: ask(slurm, "scontrol", "requeue", job),
    "kill -9": kill_job,
}


def invoke(monkeypatch: pytest.MonkeyPatch, seconds: float, *words: object) -> Result:
    """Run the command line with the stand-in in the place of the potential."""

    def stand_in(**given: Any) -> StandInMaker:
        return StandInMaker(**given | {"relax_kwargs": {"fmax": 0.05, "max_batch_atoms": 1}, "seconds": seconds})

    monkeypatch.setattr("matris.makers.batch_relax.BatchRelaxMaker", stand_in)
    return CliRunner().invoke(app, list(map(str, words)))


def documents(campaign: Campaign) -> dict[str, dict[str, Any]]:
    return {
        document["document_id"]: {name: value for name, value in document.items() if name not in OF_THE_RUN}
        for document in campaign.documents()
    }


def test_campaign(
    cluster: dict[str, str],
    projects: Path,
    mongo_server: str,
    files: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = project(projects, "hull", f"{mongo_server}/slurm_campaign")
    source, references = files
    command = ["screen", source, "--references", references, "--keep-duplicates", "--chunk-size", CHUNK]
    submit = [*command, "--submit", "--project", "hull", "--device", "cpu", "--report", tmp_path / "report"]
    start = time.monotonic()
    with runner(file):
        submitted = invoke(monkeypatch, SECONDS, *submit)
        assert submitted.exit_code == 0, submitted.output
        assert f"{N} read; {N} candidates in 8 chunks submitted to gpu of project hull" in submitted.stdout
        sent = Campaign.open("project://hull")
        faults = Faults(cluster, projects / "hull" / "work" / "journals")
        while sent.queue.is_open(sent.name):
            assert time.monotonic() - start < 600, sent.queue.counts(sent.name)
            faults.inject(slurm_jobs(sent))
            time.sleep(0.3)
        print(time.monotonic() - start)
        print(faults)
        print(ask(cluster, "scontrol", "show", "job", "-o"))
        while True:
            again = invoke(monkeypatch, SECONDS, *submit)
            if "Ranking" in again.stdout: break
            print(again.output)
            time.sleep(1)
        print(again.output)
    alone = Campaign(tmp_path / "alone", sent.maker, sent.funnel, title=sent.title, references=references, chunk_size=CHUNK)
    alone.maker.seconds = 0.0
    run(alone, open_source(str(source)), ())
    ours, theirs = documents(sent), documents(alone)
    assert len(ours) == N
    assert ours == theirs
    chunks = [each["output"] for each in sent.job_store.query({"output.chunk_format": {"$exists": True}})]
    used = uses(chunks)
    print(used)
    assert len(used) == 8
    assert {use.gpu for use in used} == {"0", "1", "2", "3"}
    assert clashes(used) == []
    assert all(len(set(each)) == len(each) for each in faults.gpus)
    assert 0


def slurm_jobs(campaign: Campaign) -> dict[str, str]:
    """Slurm's number of the job that computes a chunk."""
    from jobflow_remote import JobController

    controller = JobController.from_project_name("hull")
    try:
        found = {}
        for item in campaign.queue.submitted(campaign.name):
            for job in controller.jobs.find({"uuid": item.payload["job"]}).sort("index", 1):
                if job["remote"].get("process_id"):
                    found[item.work_id] = job["remote"]["process_id"]
        return found
    finally:
        controller.close()
