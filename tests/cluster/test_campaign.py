"""A campaign on Slurm, by `matris screen --submit`, whose jobs meet all that ends jobs on clusters."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field, replace
from itertools import product
from typing import TYPE_CHECKING, Any

import pytest
from pymatgen.core import Lattice, Structure
from pymatgen.entries.computed_entries import ComputedEntry
from typer.testing import CliRunner

from benchmarks.standin import StandInMaker
from matris.cli import app
from matris.flows.campaign.campaign import Campaign
from matris.flows.local.runner import run
from matris.flows.sources.opening import open_source
from matris.stores.documents.documents import CHUNK_FORMAT
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

TIMEOUT = 900.0

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


def invoke(monkeypatch: pytest.MonkeyPatch, *words: object) -> Result:
    """Run the command line with the stand-in in the place of the potential."""

    def stand_in(**given: Any) -> StandInMaker:
        return StandInMaker(**given | {"relax_kwargs": {"max_batch_atoms": 1}}, seconds=SECONDS)

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
    """The documents are those of a run that nobody disturbed, and no GPU had two chunks at a time."""
    file = project(projects, "hull", f"{mongo_server}/slurm_campaign")
    source, references = files
    command = ["screen", source, "--references", references, "--keep-duplicates", "--chunk-size", CHUNK]
    command += ["--submit", "--project", "hull", "--device", "cpu", "--report", tmp_path / "report"]
    with runner(file):
        submitted = invoke(monkeypatch, *command)
        assert submitted.exit_code == 0, submitted.output
        assert f"{N} read; {N} candidates in 8 chunks submitted to gpu of project hull" in submitted.stdout
        sent = Campaign.open("project://hull")
        faults = Faults(cluster, projects / "hull" / "work" / "journals")
        end = time.monotonic() + TIMEOUT
        while sent.queue.is_open(sent.name):
            assert time.monotonic() < end, sent.queue.counts(sent.name)
            faults.inject(slurm_jobs(sent))
            time.sleep(0.3)
    finished = invoke(monkeypatch, *command)
    assert finished.exit_code == 0, finished.output
    assert f"{N} read, {N} ranked" in finished.stdout

    fates = {fault: fate(cluster, job) for fault, job in faults.jobs.items()}
    assert fates == {
        "time limit": "TIMEOUT",
        "scancel": "CANCELLED",
        "requeue": "COMPLETED, restarts 1",
        "kill -9": "FAILED, exit code 137",
    }
    maker = replace(sent.maker, seconds=0.0)
    alone = Campaign(tmp_path / "alone", maker, sent.funnel, title=sent.title, references=references, chunk_size=CHUNK)
    run(alone, open_source(str(source)), ())
    undisturbed = documents(alone)
    assert len(undisturbed) == N
    assert {document["state"] for document in undisturbed.values()} == {"converged"}
    assert documents(sent) == undisturbed

    used = uses([each["output"] for each in sent.job_store.query({"output.chunk_format": CHUNK_FORMAT})])
    assert len(used) == N // CHUNK
    assert {use.gpu for use in used} == {"0", "1", "2", "3"}
    assert clashes(used) == []
    assert max(len(gpus) for gpus in faults.gpus) == 4
    assert all(len(set(gpus)) == len(gpus) for gpus in faults.gpus), "Slurm bound a GPU twice"


def fate(cluster: dict[str, str], job: str) -> str:
    """What Slurm says of a job's end."""
    told = ask(cluster, "scontrol", "show", "job", "-o", job)
    about = dict(word.split("=", 1) for word in told.split() if "=" in word)
    code = about["ExitCode"].split(":")[0]
    exits = f", exit code {code}" if code != "0" else ""
    restarts = f", restarts {about['Restarts']}" if about["Restarts"] != "0" else ""
    return about["JobState"] + exits + restarts


def slurm_jobs(campaign: Campaign) -> dict[str, str]:
    """Slurm's number of the last job that was submitted for a chunk."""
    from jobflow_remote import JobController

    controller = JobController.from_project_name("hull")
    try:
        chunks = {item.payload["job"]: item.work_id for item in campaign.queue.submitted(campaign.name)}
        found = controller.jobs.find({"uuid": {"$in": list(chunks)}}, ["uuid", "remote.process_id"]).sort("index", 1)
        numbers = {chunks[job["uuid"]]: job["remote"].get("process_id") for job in found}
        return {chunk: number for chunk, number in numbers.items() if number}
    finally:
        controller.close()
