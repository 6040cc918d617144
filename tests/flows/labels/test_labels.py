"""Labels that come back: harvested, submitted by jobflow-remote, or taken in from stores and files."""

from __future__ import annotations

import json
import shutil
import time
from typing import TYPE_CHECKING, Any

import pytest
from jobflow import JobStore, run_locally
from monty.json import MontyEncoder
from pymatgen.core import Structure
from ruamel.yaml import YAML
from typer.testing import CliRunner

from matris.cli import app
from matris.errors import StoreError
from matris.flows.campaign.campaign import Campaign
from matris.flows.campaign.funnel import Funnel
from matris.flows.campaign.results import CampaignResults
from matris.flows.labels import harvest as harvest_module
from matris.flows.labels.choice import choose
from matris.flows.labels.harvest import harvest_labels
from matris.flows.labels.intake import stored_tasks, take_in_tasks, vasp_files
from matris.flows.local.runner import run
from matris.makers import label as label_module
from matris.makers.batch_relax import BatchRelaxMaker
from matris.makers.label import NO_OUTPUT, LabelMaker, calculation_maker
from matris.stores.database.jobstore import open_job_store
from matris.stores.dft_labels import DftLabels
from matris.stores.documents.candidate import Candidate
from tests.makers.fake_vasp import energy_of, magmoms_of
from tests.makers.vasp import IRON_OXIDE, MAGNESIA, with_fake_vasp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from click.testing import Result


def candidates() -> list[Candidate]:
    return [Candidate.from_structure(each, f"{i}.cif") for i, each in enumerate((MAGNESIA, IRON_OXIDE))]


def screened(location: Path | str, checkpoint: Path) -> CampaignResults:
    """A campaign of two candidates with an untrained network."""
    maker = BatchRelaxMaker(checkpoint=str(checkpoint), device="cpu", max_steps=1, fmax=1e9)
    run(Campaign(location, maker, Funnel(window=99.0, duplicates=False), title="S"), candidates(), ())
    return CampaignResults.find(location)


@pytest.fixture(scope="module")
def made(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "results"
    screened(folder, tiny_checkpoint)
    return folder


@pytest.fixture
def store(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "results")


def fake(scale: str = "mp", **settings: Any) -> LabelMaker:
    return LabelMaker(maker=with_fake_vasp(calculation_maker(scale, static_only=True)), **settings)


def calculate(location: Path | JobStore, folder: Path, maker: LabelMaker | None = None) -> None:
    """Calculate both candidates with the fake VASP in this process; the labels stay in the outputs of the jobs."""
    jobs = location if isinstance(location, JobStore) else open_job_store(location)
    for candidate in candidates():
        flow = (maker or fake()).make(candidate.structure, candidate_id=candidate.candidate_id)
        run_locally(flow, store=jobs, root_dir=folder, create_folders=True, log=False)


def energies(location: Path | str) -> dict[str, float]:
    return {label["formula_pretty"]: label["dft"]["energy"] for label in DftLabels(location).store.query()}


EXPECTED = {"MgO": energy_of(2, MAGNESIA.volume), "FeO": energy_of(2, IRON_OXIDE.volume)}


def invoke(*words: Any) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def wait_until(holds: Callable[[], Any], seconds: float = 300.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "waited too long"
        time.sleep(1.0)


def test_a_harvest_takes_all_labels_once(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calculate(store, tmp_path)
    jobs = open_job_store(store)

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:  # between the end of the jobs and the harvest
        patch.setattr(harvest_module.LabelDocument, "model_validate", killed)
        with pytest.raises(KeyboardInterrupt):
            harvest_labels(jobs)
    assert energies(store) == {}
    assert harvest_labels(jobs).n_labels == 2
    assert energies(store) == pytest.approx(EXPECTED)
    assert harvest_labels(jobs).n_labels == 0
    shown = invoke("label", "--store", store)
    assert "2 labels of 2 candidates" in shown.stdout
    (label, _) = DftLabels(store).store.query(sort={"formula_pretty": 1})
    assert jobs.query_one({"uuid": label["source"]})["name"] == "label FeO"


def test_a_harvest_tells_failures_and_passes_on_that_the_store_is_away(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_VASP_FAULT", "crash")
    calculate(store, tmp_path)
    jobs = open_job_store(store)
    harvest = harvest_labels(jobs)
    assert (harvest.n_labels, len(harvest.failed)) == (0, 2)
    assert all(NO_OUTPUT in reason for reason in harvest.failed.values())
    assert "failed: FeO" in invoke("label", "--store", store).stdout

    monkeypatch.delenv("FAKE_VASP_FAULT")
    calculate(store, tmp_path)

    def away(*_: Any) -> None:
        raise StoreError("MongoDB does not answer") from OSError()

    with monkeypatch.context() as patch:
        patch.setattr(harvest_module, "read_output", away)
        with pytest.raises(StoreError, match="does not answer"):
            harvest_labels(jobs)
    assert harvest_labels(jobs).n_labels == 2


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A job store with calculations of both candidates and of something else, and the folders of these."""
    folder = tmp_path_factory.mktemp("theirs")
    (folder / "runs").mkdir()
    calculate(folder, folder / "runs")
    flow = fake().make(Structure(MAGNESIA.lattice, ["Mg", "Mg"], MAGNESIA.frac_coords))
    run_locally(flow, store=open_job_store(folder), root_dir=folder / "runs", create_folders=True, log=False)
    return folder


def test_calculations_of_another_store_are_matched_by_structure(store: Path, theirs: Path) -> None:
    refused = invoke("label", "--from", theirs, "--energy-scale", "matpes-r2scan", "--store", store)
    assert refused.exit_code == 1
    assert "needs r2SCAN" in refused.stderr
    assert "no calculation became a label" in refused.stderr
    assert energies(store) == {}

    done = invoke("label", "--from", theirs, "--store", store)
    assert done.exit_code == 0, done.output
    assert "2 labels in the store" in done.stderr
    assert "1 are of no candidate of this store: Mg (job" in done.stderr
    assert energies(store) == pytest.approx(EXPECTED)
    by_formula = {label["formula_pretty"]: label["candidate_id"] for label in DftLabels(store).store.query()}
    assert by_formula == {c.structure.composition.reduced_formula: c.candidate_id for c in candidates()}
    again = take_in_tasks(stored_tasks(str(theirs)), store, "mp")
    assert (again.n_labels, len(energies(store))) == (2, 2)


def test_files_of_vasp_are_taken_in(store: Path, theirs: Path, tmp_path: Path) -> None:
    done = invoke("label", theirs / "runs", "--store", store)
    assert done.exit_code == 0, done.output
    assert energies(store) == pytest.approx(EXPECTED)
    assert {tuple(label["dft"]["magmoms"]) for label in DftLabels(store).store.query()} == {tuple(magmoms_of(2))}

    task = next(task for _, task in stored_tasks(str(theirs)) if task["formula_pretty"] == "MgO")
    (tmp_path / "task.json").write_text(json.dumps([task], cls=MontyEncoder))
    (tmp_path / "vasprun.xml").write_text("<modeling> cut off")
    found = list(vasp_files([tmp_path / "task.json", tmp_path / "vasprun.xml"]))
    taken = take_in_tasks(found, store, "mp")
    assert taken.n_labels == 1
    ((reason, n),) = taken.left_out.items()
    assert (n, "vasprun.xml" in reason, "pymatgen cannot read it" in reason) == (1, True, True)


def test_candidates_are_those_nearest_to_the_hull_or_named_ones(store: Path, tmp_path: Path) -> None:
    results = CampaignResults.find(store)
    ranked = choose(results, top=5)
    heights = [each.energy_above_hull for each in ranked]
    assert len(ranked) == 2
    assert heights == sorted(heights)
    named = tmp_path / "chosen.txt"
    named.write_text(f"{ranked[1].candidate_id} diverse\n")
    shown = invoke("label", "--candidates", named, "--store", store)
    assert shown.exit_code == 0, shown.output
    assert ranked[1].formula in shown.stdout
    assert ranked[0].formula not in shown.stdout
    named.write_text("nobody\n")
    assert "has no candidate nobody" in invoke("label", "--candidates", named, "--store", store).stderr


def test_labels_need_a_method(store: Path, tmp_path: Path) -> None:
    (tmp_path / "done.extxyz").write_text("1\nenergy=1\nH 0 0 0\n")
    assert "does not tell the method" in invoke("label", tmp_path / "done.extxyz", "--store", store).stderr
    assert "not both at once" in invoke("label", tmp_path / "done.extxyz", "--top", 3, "--store", store).stderr
    assert "nowhere" in invoke("label", "--from", tmp_path / "nowhere", "--store", store).stderr
    assert not (tmp_path / "nowhere").exists()
    assert "--top N or --candidates" in invoke("label", "--submit", "--store", store).stderr


class TestSubmission:
    """Jobs of jobflow-remote; this process acts as its runner and its workers."""

    @pytest.fixture
    def cast(
        self,
        tmp_path: Path,
        mongo_server: str,
        monkeypatch: pytest.MonkeyPatch,
        tiny_checkpoint: Path,
    ) -> Iterator[Any]:
        pytest.importorskip("jobflow_remote", reason="the extra `remote` is not installed")
        import jobflow_remote

        from tests.flows.cluster.test_submission import Cast, write_hull

        folder = tmp_path / "projects"
        monkeypatch.setattr(jobflow_remote.SETTINGS, "projects_folder", str(folder))
        monkeypatch.setattr(jobflow_remote.SETTINGS, "project", None)
        file = write_hull(folder, mongo_server)
        yaml = YAML()
        content = yaml.load(file)
        content["workers"]["dft"] = dict(content["workers"]["cpu"]) | {"work_dir": str(tmp_path / "dft")}
        yaml.dump(content, file)
        monkeypatch.setattr(
            label_module,
            "calculation_maker",
            lambda scale, *, static_only=False: with_fake_vasp(calculation_maker(scale, static_only=static_only)),
        )
        screened("project://hull", tiny_checkpoint)
        cast = Cast()
        yield cast
        cast.controller.reset(max_limit=0)
        cast.controller.close()

    def play(self, cast: Any, folder: Path) -> None:
        while cast.work(folder, "dft") + cast.work(folder, "cpu"):
            pass

    def test_submitted_once_calculated_and_back_by_themselves(self, cast: Any, tmp_path: Path) -> None:
        command = ("label", "--top", 2, "--static", "--submit", "--store", "project://hull")
        done = invoke(*command, "--worker", "dft")
        assert done.exit_code == 0, done.output
        assert "2 calculations submitted to dft of project hull" in done.stdout
        assert "no worker vasp in" in invoke(*command, "--worker", "vasp").stderr
        assert {(each["worker"], each["job"]["name"]) for each in cast.jobs()} == {
            ("dft", "MP GGA static"),
            ("cpu", "label MgO"),
            ("cpu", "label FeO"),
        }
        again = invoke(*command)
        assert "0 calculations submitted" in again.stdout
        assert "2 queued" in again.stdout
        assert len(cast.jobs()) == 4

        self.play(cast, tmp_path)
        relaxed = {each.formula: each.structure.volume for each in choose(CampaignResults.find("project://hull"))}
        expected = {formula: energy_of(2, volume) for formula, volume in relaxed.items()}
        assert energies("project://hull") == pytest.approx(expected, abs=1e-5)  # nobody asked for the harvest
        assert "2 labelled" in invoke(*command).stdout
        assert "2 labels of 2 candidates" in invoke("label", "--store", "project://hull").stdout

    def test_failures_are_told_and_repeated_when_asked_for(
        self, cast: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("FAKE_VASP_FAULT", "crash")
        command = ("label", "--top", 1, "--static", "--submit", "--store", "project://hull")
        invoke(*command)
        self.play(cast, tmp_path)
        told = invoke("label", "--store", "project://hull")
        assert "0 labels of 0 candidates" in told.stdout
        assert "1 failed" in told.stdout
        assert "MP GGA static: custodian" in told.stdout
        assert "0 calculations submitted" in invoke(*command).stdout

        monkeypatch.delenv("FAKE_VASP_FAULT")
        assert "1 calculations submitted" in invoke(*command, "--retry").stdout
        assert "0 calculations submitted" in invoke(*command, "--retry").stdout
        self.play(cast, tmp_path)
        told = invoke("label", "--store", "project://hull")
        assert "1 labels of 1 candidates" in told.stdout
        assert "1 labelled" in told.stdout
        assert "failed" not in told.stdout

    @pytest.mark.slow
    def test_a_submission_that_died_midway_is_made_again(self, cast: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        from datetime import timedelta

        from matris.flows.cluster import label_jobs
        from matris.flows.cluster.label_jobs import submit_labels
        from matris.flows.cluster.submission import choose_submission

        where = choose_submission("hull", ("dft",))
        chosen = choose(CampaignResults.find("project://hull"))
        assert [state.is_new for state in submit_labels(chosen, fake(), where)] == [True, True]
        with monkeypatch.context() as patch:  # another process submits between the look and the submission
            patch.setattr(label_jobs, "_state", lambda *_: None)
            assert [state.is_new for state in submit_labels(chosen, fake(), where)] == [False, False]
        cast.controller.jobs.delete_many({"job.name": {"$regex": "MgO"}})
        assert [state.is_new for state in submit_labels(chosen, fake(), where)] == [False, False]
        monkeypatch.setattr(label_jobs, "_STALE", timedelta(0))
        states = {state.formula: state.is_new for state in submit_labels(chosen, fake(), where)}
        assert states == {"MgO": True, "FeO": False}

    @pytest.mark.slow
    def test_with_a_runner(self, cast: Any, tmp_path: Path) -> None:
        from tests.cluster.remote import runner

        done = invoke("label", "--top", 2, "--static", "--submit", "--store", "project://hull")
        assert "2 calculations submitted" in done.stdout, done.output
        with runner(tmp_path / "projects" / "hull.yaml"):
            wait_until(lambda: len(cast.jobs(state="COMPLETED")) == 4)
        assert len(energies("project://hull")) == 2
        assert "2 labelled" in invoke("label", "--store", "project://hull").stdout
