"""Queries on each kind of store: order, pages, all forms of answers, and the examples of docs/queries.md."""

import csv
import io
import json
import math
import random
import re
import uuid
from dataclasses import FrozenInstanceError
from datetime import timedelta
from pathlib import Path

import bson
import pytest
from jobflow import JobStore
from maggma.stores import MemoryStore
from pymatgen.core import Structure

from matris.errors import MatrisError
from matris.stores.candidate_store import CandidateStore
from matris.stores.database.jobstore import open_job_store
from matris.stores.documents.documents import CandidateDocument
from matris.stores.query.query import side_by_side
from tests.stores.query.question_documents import COMPUTED, NOW, document, documents, fill

PAGE = Path(__file__).parents[3] / "docs" / "queries.md"


@pytest.fixture(scope="module", params=["sqlite", "memory", "server"])
def empty(request, tmp_path_factory):
    if request.param == "memory":
        jobs = JobStore(MemoryStore(), additional_stores={"data": MemoryStore()})
        jobs.connect()
    elif request.param == "sqlite":
        jobs = open_job_store(tmp_path_factory.mktemp("store"))
    else:
        jobs = open_job_store(f"{request.getfixturevalue('mongo_server')}/queries-{uuid.uuid4().hex[:8]}")
    yield CandidateStore.beside(jobs)
    jobs.close()


@pytest.fixture
def store(empty):
    for part in (empty.docs, empty.data):
        part.remove_docs({"document_id": {"$exists": True}})
    fill(empty)
    return empty


def names(documents):
    return [d["candidate_id"] for d in documents]


def test_keyword_arguments_and_filters_combine(store):
    query = store.query(checkpoint="matris_10m_oam")
    assert set(names(query)) == {row[0] for row in COMPUTED} | {"clash", "crash", "clash2", "unread"}
    assert set(names(store.query(checkpoint="aaaaaaaa", elements=["Fe", "O"], below=0.05))) == {
        *("hematite", "magnetite", "wustite", "ferrite"),
    }
    assert set(names(store.query(checkpoint="matris_10m_oam", within="Li-O"))) == {"lithia"}
    assert names(store.query(checkpoint="matris_10m_oam", chemsys=["Fe-Li-O", "O-Li"]).sort("formula_pretty")) == [
        *("lithia", "ferrite"),
    ]
    assert set(names(store.query(state="rejected", exclude_elements=["Co"]))) == {"clash"}
    assert set(names(store.query(state=["failed", "rejected"]))) == {"clash", "crash", "clash2", "unread"}
    assert set(names(store.query(since=NOW - timedelta(hours=1)))) == {"hematite", "ferrite"}
    assert store.query(stable=True).count() == 4
    assert store.query(stable=False).count() == 10
    assert store.query(formula="O3Fe2").where("not has Li").where("state = converged and ehull > 0.2").count() == 2
    assert store.query(elements=[]).count() == len(documents())
    assert store.query(chemsys=[]).count() == 0
    assert store.query(spacegroup="Fm-3m").count() == 0


def test_extrapolating_candidates_can_be_queried(store):
    known = document("known", "FeO", extrapolation=0.4, is_extrapolating=False)
    odd = document("odd one", "FeO", extrapolation=3.0, is_extrapolating=True)
    store.docs.update([known, odd])
    assert names(store.query().where("extrapolating = true")) == ["odd one"]
    assert names(store.query().where("extrapolating = false")) == ["known"]
    assert names(store.query().where("extrapolation > 2")) == ["odd one"]
    assert "odd one" not in names(store.query().where("formula = FeO and not extrapolating"))


def test_errors_name_the_wrong_argument(store):
    for wrong, message in (
        ({"state": "convergd"}, "there is no state 'convergd'; did you mean converged"),
        ({"elements": "Fex"}, "no element 'e'"),
        ({"chemsys": "Fe-Qq"}, "no element 'Qq'"),
        ({"formula": "Xx9?"}, "cannot read the formula"),
        ({"spacegroup": 231}, "no space group 231"),
    ):
        with pytest.raises(MatrisError, match=message):
            store.query(**wrong)
    with pytest.raises(MatrisError, match="no field 'beauty'"):
        store.query().sort("beauty")
    with pytest.raises(MatrisError, match="cannot sort by elements"):
        store.query().sort("elements")
    for window in (lambda q: q.limit(0), lambda q: q.skip(-1), lambda q: q.page(0, 10)):
        with pytest.raises(MatrisError, match="must be at least"):
            window(store.query())


def test_a_query_is_immutable_and_reads_the_store_each_time(store):
    query = store.query(state="failed")
    sorted_query = query.sort("-nsites").limit(5)
    assert query.order == ()
    assert query.max_size is None
    with pytest.raises(FrozenInstanceError):
        query.most = 3
    assert names(sorted_query) == ["crash"]
    store.docs.update([document("late", "FeO", state="failed", error="lost power")])
    assert set(names(sorted_query)) == {"crash", "late"}


def shuffled(n, rng):
    """Documents with many equal values and many missing values."""
    for i in rng.sample(range(n), n):
        distance = rng.choice([0.0, 0.0, 0.1, 0.25, -0.1, None, math.nan, round(rng.random(), 3)])
        formula = rng.choice(["FeO", "Fe2O3", "Li2O", None])
        yield document(f"c{i:03}", formula, energy_above_hull=distance, fmax=rng.choice([0.01, 0.02, None]))


def expected(ordered, fields):
    """Expected order: missing values last; equal values by id, in the direction of a single sort field."""
    by_id = sorted(ordered, key=lambda d: d["document_id"])
    ordered = by_id[::-1] if len(fields) == 1 and fields[0].startswith("-") else by_id
    for field in reversed(fields):
        name = field.lstrip("-")
        with_value = [
            d for d in ordered if d[name] is not None and not (name == "energy_above_hull" and math.isnan(d[name]))
        ]
        rest = [d for d in (by_id if len(fields) == 1 else ordered) if d not in with_value]
        ordered = sorted(with_value, key=lambda d: d[name], reverse=field.startswith("-")) + rest
    return ordered


@pytest.mark.parametrize(
    "fields",
    [
        ["energy_above_hull"],
        ["-energy_above_hull"],
        ["formula_pretty", "energy_above_hull"],
        ["-formula_pretty", "-energy_above_hull", "fmax"],
        ["fmax", "-energy_above_hull"],
    ],
)
def test_order_and_pages(empty, fields):
    empty.docs.remove_docs({"document_id": {"$exists": True}})
    documents = list(shuffled(40, random.Random(3)))
    empty.docs.update(documents)
    query = empty.query().sort(*fields)
    whole = [d["document_id"] for d in query]
    assert whole == [d["document_id"] for d in expected(documents, fields)]
    assert len(set(whole)) == 40
    for size in (7, 39, 40, 100):
        pages = [list(query.page(number, size).ids()) for number in range(1, 40 // size + 2)]
        assert [i for page in pages for i in page] == whole
        assert all(len(page) <= size for page in pages)
    assert list(query.skip(30).ids()) == whole[30:]
    assert query.skip(30).count() == 10
    assert query.skip(30).limit(3).count() == 3
    assert query.skip(100).count() == 0
    assert query.page(2, 7).first()["document_id"] == whole[7]


def test_windows_without_an_order_do_not_overlap(store):
    pages = [list(store.query().page(number, 4).ids()) for number in range(1, 7)]
    assert [i for page in pages for i in page] == sorted(d["document_id"] for d in documents())


def test_all_forms_of_answers(store, tmp_path):
    query = store.query(checkpoint="matris_10m_oam").where("ehull <= 50 meV").sort("-elastic.bulk_modulus")
    assert names(query) == ["hematite", "magnetite", "wustite", "ferrite", "lithia", "iron"]
    first = query.first()
    assert first["candidate_id"] == "hematite"
    assert "_id" not in first
    model = next(query.documents())
    assert isinstance(model, CandidateDocument)
    assert model.checkpoint.key == "matris_10m_oam"
    assert store.query(chemsys="Xe").first() is None
    assert list(store.query(chemsys="Xe").structures()) == []

    frame = query.to_dataframe(["formula", "elastic.bulk_modulus", "checkpoint", "symmetry"])
    assert list(frame)[:4] == ["formula_pretty", "elastic.bulk_modulus", "checkpoint.key", "symmetry.crystal_system"]
    assert frame["elastic.bulk_modulus"].dropna().tolist() == [200, 180, 170, 150, 80]
    whole = query.to_dataframe()
    assert whole["phonon.has_imaginary_modes"].tolist()[0] is False
    assert whole["versions.torch"].tolist() == ["2.11"] * 6
    nothing = store.query(chemsys="Xe").to_dataframe()
    assert nothing["energy_above_hull"].empty
    with pytest.raises(MatrisError, match="did you mean elastic"):
        query.to_dataframe(["bulk_modulus"])

    query.to_csv(tmp_path / "new" / "table.csv", ["candidate_id", "last_updated", "elements"])
    rows = list(csv.reader((tmp_path / "new" / "table.csv").open()))
    assert rows[0] == ["candidate_id", "last_updated", "elements"]
    assert rows[1] == ["hematite", NOW.isoformat(), '["Fe", "O"]']
    stream = io.StringIO()
    query.to_csv(stream)
    assert [row["formula_pretty"] for row in csv.DictReader(io.StringIO(stream.getvalue()))][:2] == ["Fe2O3", "Fe3O4"]
    query.to_jsonl(tmp_path / "found.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "found.jsonl").read_text().splitlines()]
    assert names(lines) == names(query)
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["found.jsonl"]


def test_a_file_appears_only_when_it_is_complete(store, tmp_path, monkeypatch):
    (tmp_path / "found.jsonl").write_text("kept")

    def fails(*_args, **_options):
        yield document("one", "FeO")
        raise MatrisError("store gone")

    monkeypatch.setattr(store.docs, "query", fails)
    with pytest.raises(MatrisError, match="store gone"):
        store.query().to_jsonl(tmp_path / "found.jsonl")
    assert [path.name for path in tmp_path.iterdir()] == ["found.jsonl"]
    assert (tmp_path / "found.jsonl").read_text() == "kept"


def test_numbers_that_are_not_finite_become_null_in_json(store):
    store.docs.update([document("nan", "FeO", energy_above_hull=math.nan, fmax=math.inf)])
    stream = io.StringIO()
    store.query().where("candidate_id = nan").to_jsonl(stream)
    assert json.loads(stream.getvalue())["fmax"] is None


def test_structures_come_with_their_documents(store):
    structures = {d["candidate_id"]: s for d, s in store.query(checkpoint="matris_10m_oam").structures()}
    assert set(structures) == {row[0] for row in COMPUTED}  # candidates without a structure are omitted
    assert isinstance(structures["ferrite"], Structure)
    assert structures["ferrite"].composition.chemical_system == "Fe-Li-O"
    one = store.query(checkpoint="matris_10m_oam").sort("-elastic.bulk_modulus").limit(2)
    assert [d["candidate_id"] for d, _ in one.structures()] == ["hematite", "magnetite"]


def test_best_of_each_group(store):
    query = store.query(checkpoint="matris_10m_oam")
    best = query.best_by("chemsys", "elastic.bulk_modulus", largest=True)
    assert names(best) == ["hematite", "ferrite", "lithia"]  # iron has no modulus, CoO failed
    assert names(query.best_by("chemsys", "elastic.bulk_modulus")) == ["lithia", "odd", "ferrite"]
    assert names(query.best_by("formula", "ehull"))[:1] == ["hematite"]
    assert names(query.sort("-elastic.bulk_modulus").best_of("chemsys")) == names(best)
    with pytest.raises(MatrisError, match=r"sort\(\)"):
        query.best_of("chemsys")
    assert query.where("has Co").best_by("chemsys", "ehull") == []


def test_pairs_of_two_checkpoints(store):
    one, other = (store.query(checkpoint=key) for key in ("matris_10m_oam", "matris_10m_omat"))
    pairs = list(side_by_side(one.sort("candidate_id"), other.limit(1)))
    assert names(a for a, _ in pairs) == sorted(row[0] for row in COMPUTED)
    assert all(a["candidate_id"] == b["candidate_id"] for a, b in pairs)
    assert all(b["energy_above_hull"] - a["energy_above_hull"] == pytest.approx(0.01) for a, b in pairs)


def test_an_index_finds_documents_without_a_sort_value(tmp_path, monkeypatch):
    jobs = open_job_store(tmp_path)
    store = CandidateStore.beside(jobs)
    fill(store)
    decode, decoded = bson.decode, []
    monkeypatch.setattr("bson.decode", lambda *args: decoded.append(decode(*args)) or decoded[-1])
    assert names(store.query().sort("energy_above_hull").skip(14)) == ["clash", "clash2", "crash", "unread"]
    assert 4 <= sum("document_id" in read for read in decoded) <= 8
    jobs.close()


def test_the_first_page_is_read_alone(store, monkeypatch):
    """For one and several sort fields, the number of documents read does not grow with the store."""
    store.docs.update([document(f"n{i:04}", "FeO", energy_above_hull=1 + i / 1000) for i in range(100)])
    read = 0
    query = store.docs.query

    def counting(*args, **options):
        nonlocal read
        for each in query(*args, **options):
            read += 1
            yield each

    monkeypatch.setattr(store.docs, "query", counting)
    assert len(list(store.query().sort("energy_above_hull").limit(10))) == 10
    assert read == 10
    read = 0
    assert len(list(store.query().sort("energy_above_hull", "-nsites").limit(10))) == 10
    assert read < 40  # keys, keys equal to the last one, documents


def answers(namespace):
    """Check the results of the examples in docs/queries.md."""
    return {
        "formulas": namespace["formulas"],
        "structures": {name.partition("-")[0] for name in namespace["structures"]},
        "moduli": namespace["moduli"],
        "reasons": dict(namespace["reasons"]),
        "table": set(namespace["table"]["candidate_id"]),
        "differences": {name: round(value, 6) for name, value in namespace["differences"].items()},
    }


def test_the_examples_of_the_page(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    jobs = open_job_store("campaign")
    fill(CandidateStore.beside(jobs))
    namespace = {}
    for code in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL):
        exec(code, namespace)  # noqa: S102 - code of our own documentation
    assert answers(namespace) == {
        "formulas": ["Fe2O3", "Fe3O4"],
        "structures": {"hematite", "lithia", "ferrite"},
        "moduli": {"Fe-O": 201, "Fe-Li-O": 151, "Li-O": 81},
        "reasons": {
            ("rejected", "overlapping atoms"): 2,
            ("failed", "out of memory"): 1,
            ("rejected", "the file is empty"): 1,
        },
        "table": {"hematite", "ferrite"},
        "differences": {row[0]: 0.01 for row in COMPUTED},
    }
    jobs.close()
