"""A loop of rounds: what it leaves in the store, what it waits for, and what it survives."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from matris.errors import MatrisError
from matris.flows.learning.loop import Learning
from matris.model.checkpoints import read_file
from matris.stores.candidate_store import CandidateStore
from matris.stores.dft_labels import DftLabels
from matris.stores.documents.learning import root_of
from tests.flows.learning.small_loop import PLAN, checkpoint_of, learning, screened, teacher

if TYPE_CHECKING:
    from matris.stores.documents.learning import LoopRecord


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of the first campaign."""
    folder = tmp_path_factory.mktemp("first")
    screened(folder / "store", checkpoint_of(folder / "start.safetensors"))
    return folder / "store"


@pytest.fixture
def store(first: Path, tmp_path: Path) -> Path:
    return shutil.copytree(first, tmp_path / "store")


@pytest.fixture(scope="module")
def undisturbed(first: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, LoopRecord]:
    """A loop that ran to its end."""
    store = shutil.copytree(first, tmp_path_factory.mktemp("undisturbed") / "store")
    return store, learning(store).go_on()


def content(record: LoopRecord) -> list[dict[str, Any]]:
    """What must not depend on interruptions; files and digests of checkpoints contain times and folders."""
    rounds = [each.model_dump(exclude={"campaign_id", "sha256", "trained"}) for each in record.rounds]
    for each, kept in zip(record.rounds, rounds, strict=True):
        if each.trained is not None:
            kept["trained"] = each.trained.model_dump(include={"taken", "against", "key", "n_training", "n_aside"})
            kept["errors"] = {k: pytest.approx(v) for k, v in each.trained.after.items()}
        kept["chosen"] = [(each["root"], each["reasons"]) for each in kept["chosen"]]
    return rounds


def test_rounds_to_the_end_of_the_budget(undisturbed):
    store, record = undisturbed
    assert record.stopped == "the budget of 8 labels is spent"
    assert [(each.state, len(each.chosen), each.n_labelled) for each in record.rounds] == [
        ("learned", 4, 4),
        ("learned", 4, 8),
    ]
    assert [each.reasons[0] for each in record.rounds[0].chosen[:2]] == ["element: a corner of the hulls"] * 2
    roots = [each.root for round_ in record.rounds for each in round_.chosen]
    assert len(set(roots)) == len(roots) == 8
    trained = record.rounds[1].trained
    assert trained is not None
    assert trained.taken
    assert trained.after["energy"] < trained.before["energy"]
    card = read_file(Path(trained.path))[1]
    assert (card.sha256, card.key, card.energy_scale) == (trained.sha256, trained.key, "emt")
    assert card.details["parent"]["sha256"] == record.rounds[1].sha256 == trained.parent
    assert trained.n_aside == 2  # two geometries of one candidate
    again = learning(store).go_on()
    assert again.rounds == record.rounds


def test_documents_say_why_and_which_energy(undisturbed):
    store, record = undisturbed
    documents = CandidateStore.open(store)
    for each in record.rounds[0].chosen:
        (document,) = documents.documents([each.document_id])
        assert document["chosen"]["reasons"] == each.reasons
        assert document["dft"]["functional"] == "EMT"
        assert document["hulls"]["dft"]["hull_reference"].startswith("8 energies from first principles")
        assert document["hull_type"] == "self-consistent"  # that of the checkpoint alone, as before
    unlabelled = [d for d in documents.query() if d["dft"] is None and d["state"] == "converged"]
    assert unlabelled
    assert all("dft" in document["hulls"] for document in unlabelled)


def test_the_last_campaign_starts_from_relaxed_structures(undisturbed):
    store, record = undisturbed
    last = Learning(store, record.loop_id)._screened()
    assert last.card.sha256 == record.rounds[1].trained.sha256
    assert last.name != record.loop_id
    firsts = {document["candidate_id"] for document in Learning(store, record.loop_id).first.documents()}
    documents = list(last.documents())
    assert all(document["state"] == "converged" for document in documents)
    assert {root_of(document) for document in documents} <= firsts
    started = [document for document in documents if document["provenance"].get("start")]
    assert len(started) == 12
    assert any(document["dft"] for document in started)  # labels belong to the root


@pytest.mark.parametrize(
    "at",
    ["train", *(pytest.param(at, marks=pytest.mark.slow) for at in ("begin", "mark", "label", "labelled", "learned"))],
)
def test_an_interruption_loses_nothing(store, undisturbed, monkeypatch, at):
    """The process ends at a step of the first round; another one goes on."""
    steps = {
        "begin": "matris.flows.learning.loop.select",
        "mark": "matris.flows.learning.loop.Learning._mark",
        "label": "matris.flows.learning.teacher.Teacher._record",
        "labelled": "matris.flows.learning.rounds.set_aside",
        "train": "matris.training.trainer._Run.save",
        "learned": "matris.flows.learning.training.objections",
    }
    n_calls = 0

    def ends(*_: Any, **__: Any) -> None:
        nonlocal n_calls
        n_calls += 1
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(steps[at], ends)
        options = {"choose": ends} if at == "begin" else {}
        with pytest.raises(KeyboardInterrupt):
            learning(store, **options).go_on()
    assert n_calls == 1
    assert content(learning(store).go_on()) == content(undisturbed[1])


_STEPS = (
    "1 chosen",
    "label 2",
    "1 labelled",
    "1 learned",
    "2 chosen",
    "label 3",
    "2 labelled",
    "state of training",
    "2 learned",
)
"""Steps of the loop, in the order in which it comes to them: records in the store, calls of the teacher, and files."""


@pytest.mark.slow
def test_kill_9_between_and_within_rounds(store, undisturbed):
    """A process is killed at each step, and the next one goes on."""
    for step in _STEPS:
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tests.flows.learning.small_loop", str(store), step],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout.readline() == "here\n", step
        process.kill()
        process.wait()
    assert content(learning(store).go_on()) == content(undisturbed[1])


def test_waits_for_labels_and_goes_on_when_they_are_there(store):
    loop = Learning(store, None, PLAN, devices=())
    record = loop.go_on()
    assert [each.state for each in record.rounds] == ["chosen"]
    waiting = loop.missing()
    assert [each.candidate_id for each in waiting] == [each.candidate_id for each in record.rounds[0].chosen]
    assert Learning(store).go_on().rounds == record.rounds  # nothing has come
    labels, make = DftLabels(store), teacher()
    made = [make(candidate) for candidate in _candidates(loop, waiting)]
    labels.add(made[0])
    assert Learning(store).missing() == waiting[1:]
    record = Learning(store, devices=()).go_on(incomplete=True, rounds=1)
    assert record.rounds[0].n_labelled == 1
    assert set(record.rounds[0].failed) == {each.candidate_id for each in waiting[1:]}
    labels.add(label for some in made for label in some)  # the late ones count in the next round
    loop = Learning(store, devices=())
    record = loop.go_on(incomplete=True)
    assert record.rounds[1].n_labelled >= 4


def _candidates(loop, chosen):
    from matris.stores.documents.candidate import Candidate

    for each in chosen:
        structure = loop.first.store.structure(each.document_id)
        yield Candidate(candidate_id=each.candidate_id, structure=structure, source="test")


def test_what_cannot_be_labelled_is_told_and_not_chosen_again(store):
    def refuses(_):
        raise MatrisError("the electronic steps do not converge")

    record = learning(store, labeller=refuses).go_on()
    assert record.stopped == "round 0 brought no label"
    assert set(record.rounds[0].failed.values()) == {"the electronic steps do not converge"}
    assert learning(store).go_on().rounds == record.rounds


def test_labels_of_another_energy_scale_are_refused(store):
    with pytest.raises(MatrisError, match="on the energy scale mp, but the checkpoint is on emt"):
        learning(store, labeller=teacher("mp")).go_on()


def test_a_fine_tuning_that_makes_things_worse_is_not_taken(store):
    """A wild learning rate: the checkpoint stays, and so does its campaign."""
    plan = replace(PLAN, per_round=5, budget=8, learning_rate=30.0, epochs=2)
    record = learning(store, plan).go_on()
    first, second = record.rounds
    assert first.trained is not None
    assert not first.trained.taken
    assert first.trained.against[0].startswith("the energy error on labels set aside is")
    assert (second.sha256, second.campaign_id) == (first.sha256, first.campaign_id)
    assert not {each.root for each in first.chosen} & {each.root for each in second.chosen}


def test_a_campaign_without_hulls_or_an_end_is_refused(store, monkeypatch):
    monkeypatch.setattr(Learning, "_is_unfinished", lambda *_: True)
    with pytest.raises(MatrisError, match="has not come to its end: run its 'matris screen' again"):
        learning(store).go_on()
