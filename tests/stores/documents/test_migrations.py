"""Documents of earlier schema versions."""

import pytest
from maggma.stores import MemoryStore

from matris.stores import migrations
from matris.stores.database.sqlite.store import SQLiteStore
from matris.stores.documents.documents import SCHEMA_VERSION, CandidateDocument, CheckpointTag, RelaxTag, utc_now
from matris.stores.migrations import migrate, upgraded

NEW = ("schema_version", "hulls", "stage", "duplicate_of", "first_steps", "computed_at")
NEW += ("elastic", "eos", "phonon", "qha", "md")


@pytest.fixture(params=["memory", "sqlite"])
def docs(request, tmp_path):
    store = MemoryStore() if request.param == "memory" else SQLiteStore(tmp_path / "d.sqlite", "d")
    store.key = "document_id"
    store.connect()
    for field in ("document_id", "schema_version"):
        store.ensure_index(field)
    yield store
    store.close()


def ancient(name, state="converged", **fields):
    """Build a document as the first version stored them."""
    document = CandidateDocument(
        document_id=name,
        candidate_id=name,
        source="a.cif",
        state=state,
        checkpoint=CheckpointTag(key="demo", sha256="a" * 64, energy_scale="mp"),
        settings=RelaxTag(fmax=0.05, max_steps=500, relax_cell=True, digest="d" * 12),
        last_updated=utc_now(),
    ).model_dump(exclude={*NEW})
    del document["settings"]["first"]
    return document | fields


def test_a_document_of_the_first_version_becomes_one_of_the_present():
    old = ancient("a", hull_type="reference", hull_reference="toy", hull_state="ok", energy_above_hull=0.1)
    new = upgraded(old)
    document = CandidateDocument.model_validate(new)
    assert document.schema_version == SCHEMA_VERSION
    assert document.hulls["reference"].energy_above_hull == 0.1
    assert document.hulls["reference"].taken_at == old["last_updated"]
    assert set(new) == set(CandidateDocument.model_fields)
    assert {name: new[name] for name in old if name != "settings"} == {k: v for k, v in old.items() if k != "settings"}
    assert "schema_version" not in old
    assert upgraded(new) == new


@pytest.mark.parametrize(
    ("state", "stage"),
    [("converged", None), ("max_steps", "relaxation"), ("failed", "relaxation"), ("rejected", "sanity")],
)
def test_the_stage_follows_from_the_state(state, stage):
    assert upgraded(ancient("a", state))["stage"] == stage


def test_a_migration_that_was_killed_goes_on(docs, monkeypatch):
    docs.update([ancient(f"{i}") for i in range(25)])
    wrapped = migrations.set_fields
    batches = []

    def killed_at_the_third(store, changes):
        batches.append(len(changes))
        if len(batches) == 3:
            raise KeyboardInterrupt
        return wrapped(store, changes)

    monkeypatch.setattr(migrations, "_BATCH", 10)
    with monkeypatch.context() as patch:
        patch.setattr(migrations, "set_fields", killed_at_the_third)
        with pytest.raises(KeyboardInterrupt):
            migrate(docs)
    assert docs.count({"schema_version": SCHEMA_VERSION}) == 20
    assert migrate(docs) == 5
    assert migrate(docs) == 0
    assert docs.count({"schema_version": SCHEMA_VERSION}) == docs.count() == 25


def test_what_another_process_writes_meanwhile_stays(docs, monkeypatch):
    docs.update([ancient("a")])
    wrapped = migrations.set_fields

    def after_another(store, changes):
        wrapped(store, {"a": {"energy_above_hull": 0.2}})
        return wrapped(store, changes)

    monkeypatch.setattr(migrations, "set_fields", after_another)
    assert migrate(docs) == 1
    found = docs.query_one({"document_id": "a"})
    assert (found["energy_above_hull"], found["schema_version"]) == (0.2, SCHEMA_VERSION)


def test_no_documents_no_migration(docs):
    assert migrate(docs) == 0
