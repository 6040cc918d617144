"""The embedded store under processes, forks, kills and damage; test_contract covers everything else."""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import random
import signal
import sqlite3
import threading
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import bson
import pytest
from jsonschema import ValidationError
from maggma.validators import JSONSchemaValidator
from monty.json import MontyDecoder, MontyEncoder

from matris.errors import StoreError
from matris.stores.database.sqlite import disk
from matris.stores.database.sqlite.file import FORMAT, LOG_BYTES, WITHOUT_LOG
from matris.stores.database.sqlite.store import SQLiteStore

START = datetime(2026, 1, 1)  # noqa: DTZ001 - documents hold naive UTC, as MongoDB returns them
forked = multiprocessing.get_context("fork")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "results" / "matris.sqlite"


def ids(store, criteria=None, **kwargs):
    return [d["task_id"] for d in store.query(criteria, **kwargs)]


def test_indexes_change_no_answer(path):
    """Random documents of mixed types: a query gives the same documents with and without indexes."""
    rng = random.Random(1)
    stock = [
        None,
        0,
        1,
        2.5,
        1e300,
        float("inf"),
        float("nan"),
        "",
        "a",
        "b",
        START,
        [],
        [1, "a"],
        [2.5, None],
        {"k": 1},
    ]
    plain, indexed = SQLiteStore(path, "plain"), SQLiteStore(path, "indexed")
    plain.connect()
    indexed.connect()
    docs = [
        {"task_id": i, **{f: rng.choice(stock) for f in "ab" if rng.random() < 0.9}, "c": {"d": rng.choice(stock)}}
        for i in range(50)
    ]
    assert all(indexed.ensure_index(field) for field in ("a", "c.d"))
    for store in (plain, indexed):
        store.update(docs)
    assert indexed.ensure_index("b")  # over stored documents
    operators = ["$eq", "$ne", "$gt", "$gte", "$lt", "$lte"]
    for _ in range(100):
        fields = rng.sample(["a", "b", "c.d"], rng.randint(1, 2))
        criteria = {f: {rng.choice(operators): rng.choice(stock)} for f in fields}
        if rng.random() < 0.3:
            criteria[fields[0]] = {"$in": rng.sample(stock[1:6] + stock[7:10], 3)}
        expected = ids(plain, criteria)
        assert ids(indexed, criteria) == expected, criteria
        assert indexed.count(criteria) == len(expected)


def test_an_index_sorts_as_documents_do(path):
    store = SQLiteStore(path, "c")
    store.connect()
    values = [3, None, "b", True, 2.5, "a", START, False, -1, START - timedelta(days=1)]
    store.update([{"task_id": i, "v": v} for i, v in enumerate(values)] + [{"task_id": 99}])
    unsorted = [ids(store, {}, sort={"v": way}) for way in (1, -1)]
    assert unsorted[0] == [1, 99, 8, 4, 0, 5, 2, 7, 3, 9, 6]
    assert store.ensure_index("v")
    assert [ids(store, {}, sort={"v": way}) for way in (1, -1)] == unsorted
    store.update({"task_id": 100, "v": [0, 9]})  # SQLite cannot sort arrays
    assert ids(store, {}, sort={"v": 1}) == [1, 99, 8, 100, 4, 0, 5, 2, 7, 3, 9, 6]


SCALARS = [
    None, True, False, 0, -0.0, 1, 1.0, -1, 2.5, -2.5, 1e-300, -1e300, 2**53, 2**53 + 1, float(2**53), 2**63 - 1,
    -(2**63), float("inf"), -float("inf"), float("nan"), "", "a", "ab", "a\x01", "b", "\U0001f642", "\uffff", START,
    START - timedelta(days=30_000), START + timedelta(milliseconds=1), bson.ObjectId("0" * 24), bson.ObjectId("f" * 24),
]  # fmt: skip


def test_indexes_on_several_fields_change_no_answer(path):
    """Equality on the first fields, ranges of the next, both directions, pages: the same as without indexes."""
    rng = random.Random(2)
    plain, indexed = SQLiteStore(path, "plain"), SQLiteStore(path, "indexed")
    for store in (plain, indexed):
        store.connect()
    for fields in (["a", "b"], ["b", "c.d", "a"], ["c.d", "a", "task_id"]):
        assert indexed.ensure_index(fields)
    stock = {"a": SCALARS[::6], "b": SCALARS, "c.d": SCALARS[1::3]}
    docs = [
        {"task_id": i, "b": rng.choice(SCALARS), "c": {"d": rng.choice(stock["c.d"])}}
        | ({"a": rng.choice(stock["a"])} if i % 11 else {})
        for i in range(150)
    ]
    plain.update(docs)
    indexed.update(docs)
    lengths = []
    for _ in range(250):
        first, second, third = rng.sample(list(stock), 3)
        criteria = {first: rng.choice(stock[first])}
        match rng.randrange(5):
            case 4:
                criteria = rng.choice([{}, {first: {"$gte": rng.choice(stock[first])}}])
            case 0:
                criteria[second] = rng.choice(stock[second])
            case 1:
                criteria[third] = {"$ne": None}
            case _:
                operators = rng.sample(["$gt", "$gte", "$lt", "$lte", "$eq", "$ne"], 2)
                criteria[second] = {operator: rng.choice(stock[second]) for operator in operators}
        sort = {name: rng.choice([1, -1]) for name in rng.sample(list(stock), rng.randint(0, 2))}
        sort["task_id"] = rng.choice([1, -1])
        skip, limit = rng.choice([(0, 0), (0, 3), (2, 5)])
        expected = ids(plain, criteria, sort=sort, skip=skip, limit=limit)
        assert ids(indexed, criteria, sort=sort, skip=skip, limit=limit) == expected, (criteria, sort)
        lengths.append(plain.count(criteria))
        assert indexed.count(criteria) == lengths[-1]
    assert sum(length > 3 for length in lengths) > 60


def test_a_page_in_order_reads_only_its_documents(path):
    store = SQLiteStore(path, "c")
    store.connect()
    assert store.ensure_index(["system", "distance"])
    store.update([{"task_id": i, "system": "AB"[i % 2], "distance": (i * 7) % 100 / 10} for i in range(100)])
    statements = []
    store._file._db.set_trace_callback(statements.append)
    page = {"criteria": {"system": "A", "distance": {"$lte": 5.0}}, "sort": {"distance": -1}, "skip": 1, "limit": 3}
    assert [d["distance"] for d in store.query(**page)] == [4.8, 4.6, 4.4]
    assert store.count(page["criteria"]) == 26
    assert sum(sql.startswith("SELECT document") for sql in statements) == 3


def test_an_array_in_an_index_on_several_fields(path):
    """Its column holds a marker; its elements must be found."""
    store = SQLiteStore(path, "c")
    store.connect()
    assert store.ensure_index(["a", "b"])
    store.update([{"task_id": 1, "a": 1, "b": 1}, {"task_id": 2, "a": [1, 2], "b": 2}, {"task_id": 3, "a": 2, "b": 3}])
    assert ids(store, {"a": 1}, sort={"b": -1}) == [2, 1]
    assert ids(store, {"a": 2, "b": {"$gt": 1}}) == [2, 3]


def test_a_document_that_changes_while_it_is_read(path):
    """A document that no longer matches is not yielded."""
    reader, writer = SQLiteStore(path, "c"), SQLiteStore(path, "c")
    reader.connect()
    writer.connect()
    writer.update([{"task_id": i, "state": "waiting"} for i in range(3)])
    assert writer.ensure_index("state")
    documents = reader.query({"state": "waiting"})
    assert next(documents)["task_id"] == 0
    writer.update({"task_id": 1, "state": "taken"})
    assert [document["task_id"] for document in documents] == [2]


def test_names_differ_in_case(path):
    """SQLite ignores case in names of tables and columns, MongoDB does not."""
    with SQLiteStore(path, "c") as lower, SQLiteStore(path, "C") as upper:
        for field in ("Fe", "fe", "^fe", 'a "quoted" name', "select", "value", "field", "_id"):
            assert lower.ensure_index(field)
        lower.update({"task_id": 1, "Fe": 2, "fe": 3, "^fe": 4, 'a "quoted" name': 5, "select": 6, "value": [7]})
        upper.update({"task_id": 9})
        for criteria in ({"Fe": 2}, {"fe": 3}, {"^fe": 4}, {'a "quoted" name': 5}, {"select": 6}, {"value": 7}):
            assert ids(lower, criteria) == [1]
        assert (ids(lower, {"Fe": 3}), ids(upper), ids(lower)) == ([], [9], [1])
        assert ids(lower, {"_id": lower.query_one()["_id"]}) == [1]


def test_a_unique_index_counts_null_and_elements(path):
    """As on a server: null is a value, and each element of an array is one."""
    with SQLiteStore(path, "c") as store:
        assert store.ensure_index("v", unique=True)
        store.update([{"task_id": 1}, {"task_id": 2, "v": [1, 2]}, {"task_id": 3, "v": 3}, {"task_id": 4, "v": [{}]}])
        store.update({"task_id": 2, "v": [2, 4], "n": 1})
        store.update({"task_id": 5, "v": [{"k": 1}]})
        for taken in ({}, {"v": None}, {"v": 2}, {"v": [3]}, {"v": [5, 4]}, {"v": [None]}):
            with pytest.raises(StoreError, match="unique"):
                store.update({"task_id": 6} | taken)
        store.update([{"task_id": 6, "v": 1}, {"task_id": 7, "v": [True]}])
        assert store.count() == 7
        assert not store.ensure_index("n", unique=True)  # several documents have none


def test_a_changed_field_leaves_the_other_indexes_alone(path):
    store = SQLiteStore(path, "c")
    store.connect()
    assert all(store.ensure_index(field) for field in ("a", "b", "tags"))
    store.update({"task_id": 1, "a": 1, "b": 1, "tags": ["x"]})
    statements = []
    store._file._db.set_trace_callback(statements.append)
    store.set_fields({1: {"a": 1.0, "c": 5}})
    assert [sql for sql in statements if sql.startswith('UPDATE "c fields"')] == [
        'UPDATE "c fields" SET "a" = 1.0 WHERE _id = 1'
    ]
    store.set_fields({1: {"tags": "y"}})
    assert (ids(store, {"tags": "x"}), ids(store, {"tags": "y"}), ids(store, {"a": {"$type": "double"}})) == (
        [],
        [1],
        [1],
    )
    assert ids(store, sort={"tags": 1}) == [1]


def test_an_index_spares_reading(path):
    store = SQLiteStore(path, "c")
    store.connect()
    assert all(store.ensure_index(field) for field in ("a", "b"))
    store.update([{"task_id": i, "a": i % 10, "b": 1, "c": i} for i in range(100)])
    statements = []
    store._file._db.set_trace_callback(statements.append)
    for criteria, options, wanted, read in (
        ({"b": 1, "a": 3}, {}, 10, 10),
        ({"a": 3, "c": {"$lt": 50}}, {}, 5, 10),  # the other condition is checked on the documents
        ({"b": 1}, {"sort": {"a": -1}, "limit": 2}, 2, 2),
        ({}, {"sort": {"a": 1}, "skip": 1, "limit": 3}, 3, 3),
    ):
        statements.clear()
        assert len(ids(store, criteria, **options)) == wanted
        assert sum(sql.startswith("SELECT document") for sql in statements) == read
    statements.clear()
    assert store.count({"a": {"$gte": 8}}) == 20
    assert not any(sql.startswith("SELECT document") for sql in statements)


def test_values_come_back(path):
    store = SQLiteStore(path, "c")
    store.connect()
    aware = datetime(2026, 1, 1, 12, tzinfo=UTC)
    store.update({"task_id": 1, "nan": float("nan"), "when": aware, "deep": [{"x": [1.5, [2]]}], "_id": "dropped"})
    document = store.query_one({"when": aware})
    assert document["nan"] != document["nan"]
    assert document["when"] == aware.replace(tzinfo=None)
    assert document["deep"] == [{"x": [1.5, [2]]}]
    assert store.count({"nan": float("nan")}) == 1
    store.update(document)  # a document that was read replaces itself
    assert store.count() == 1
    for bad in ({"n": 1}, {"task_id": [1]}, {"task_id": 2, "big": 2**70}):
        with pytest.raises(StoreError, match=r"task_id|BSON"):
            store.update([{"task_id": "innocent"}, bad])
    assert store.count() == 1  # all or nothing


def test_unique_indexes(path, caplog):
    store = SQLiteStore(path, "c", key="uuid")
    store.connect()
    store.update([{"uuid": "u", "index": i, "name": "x"} for i in (1, 2)], key=["uuid", "index"])
    assert store.count({"uuid": "u"}) == 2
    with caplog.at_level(logging.WARNING):
        assert not store.ensure_index("name", unique=True)
    assert "name" in caplog.text
    assert not store.ensure_index(["uuid", "name"], unique=True)
    assert store.ensure_index(["uuid", "index"], unique=True)
    assert store.ensure_index(["uuid", "index"])
    store.update({"uuid": "u", "index": 2.0, "name": "y"}, key=["uuid", "index"])
    assert store.count() == 2
    with pytest.raises(StoreError, match=r"'index': 1.*unique"):
        store.update({"uuid": "u", "index": 1, "name": "y"}, key="name")
    assert sorted(d["index"] for d in store.query()) == [1, 2]


def test_collections_are_apart(path):
    first, second = SQLiteStore(path, "first"), SQLiteStore(path, "second")
    with first, second:
        first.update({"task_id": 1})
        second.update([{"task_id": 1}, {"task_id": 2}])
        first.remove_docs({})
        assert (first.count(), second.count()) == (0, 2)
    with pytest.raises(StoreError, match=r"connect\(\) first"):
        second.count()
    assert first != second


def test_serialisation(path, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    validator = JSONSchemaValidator({"type": "object", "required": ["n"]}, strict=True)
    store = SQLiteStore(path.relative_to(tmp_path), "c", key="n", last_updated_type="isoformat", validator=validator)
    monkeypatch.chdir("/")  # as jobs do
    with store:
        store.update({"n": 1})
        with pytest.raises(ValidationError, match="required"):
            store.update({"m": 1})
    for other in (MontyDecoder().decode(MontyEncoder().encode(store)), pickle.loads(pickle.dumps(store))):  # noqa: S301
        assert other == store
        assert (other.key, other.last_updated_type, type(other.validator)) == (
            "n",
            store.last_updated_type,
            type(validator),
        )
        with other:
            assert other.count() == 1


def test_threads(path):
    store = SQLiteStore(path, "c")
    store.connect()

    def work(name):
        for i in range(20):
            store.update({"task_id": f"{name}-{i}"})
            assert store.count({"task_id": f"{name}-{i}"}) == 1

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.count() == 80


def upsert(path, keys):
    store = SQLiteStore(path, "c")
    store.connect()
    for key in keys:
        store.update({"task_id": key, "by": os.getpid()})


@pytest.mark.parametrize(("same", "expected"), [(True, 100), (False, 400)])
def test_processes(path, same, expected):
    """Four processes create the file and write 100 documents each at the same time."""
    ranges = [range(100) if same else range(100 * i, 100 * i + 100) for i in range(4)]
    workers = [forked.Process(target=upsert, args=(path, keys)) for keys in ranges]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 4
    with SQLiteStore(path, "c") as store:
        assert sorted(d["task_id"] for d in store.query()) == list(range(expected))


def test_fork(path):
    store = SQLiteStore(path, "c")
    store.connect()
    store.update({"task_id": "parent"})
    child = forked.Process(target=lambda: store.update({"task_id": "child", "seen": store.count()}))
    child.start()
    child.join()
    store.update({"task_id": "after"})
    assert child.exitcode == 0
    assert sorted(ids(store)) == ["after", "child", "parent"]
    assert store.query_one({"task_id": "child"})["seen"] == 1


def test_a_child_outlives_the_parents_connection(path):
    """The parent is the last to hold a lock when it closes; the child must not go on writing to a removed log."""
    store = SQLiteStore(path, "c")
    store.connect()
    store.update({"task_id": "parent"})
    parent_end, child_end = forked.Pipe()

    def work():
        store.update({"task_id": "before"})
        child_end.send(1)
        child_end.recv()
        store.update({"task_id": "after"})

    child = forked.Process(target=work)
    child.start()
    parent_end.recv()
    store.close()
    parent_end.send(1)
    child.join()
    assert child.exitcode == 0
    with SQLiteStore(path, "c") as again:
        assert sorted(ids(again)) == ["after", "before", "parent"]


def test_forks_while_threads_write(path):
    store = SQLiteStore(path, "c")
    store.connect()
    stop = threading.Event()
    written = []

    def work():
        while not stop.is_set():
            store.update({"task_id": len(written)})
            written.append(len(written))

    thread = threading.Thread(target=work)
    thread.start()
    children = [forked.Process(target=store.update, args=({"task_id": f"child {i}"},)) for i in range(10)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    stop.set()
    thread.join()
    assert [child.exitcode for child in children] == [0] * 10
    assert set(ids(store)) == {*written, *(f"child {i}" for i in range(10))}


MOUNTS = """\
/dev/vda / ext4 rw 0 0
server:/home /home nfs4 rw 0 0
/dev/sdb /home/local\\040disk xfs rw 0 0
10.0.0.1@o2ib:/scratch /scratch lustre rw 0 0
gpfs0 /gpfs gpfs rw 0 0
//nas/share /mnt/nas cifs rw 0 0
me@host: /mnt/ssh fuse.sshfs rw 0 0
auto /auto autofs rw 0 0
tmpfs /scratchy tmpfs rw 0 0
"""


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("/home/me/results", "nfs4"),
        ("/scratch/x", "lustre"),
        ("/gpfs/a/b", "gpfs"),
        ("/mnt/nas", "cifs"),
        ("/mnt/ssh/x", "fuse.sshfs"),
        ("/home/local disk/results", None),
        ("/scratchy/x", None),
        ("/data/x", None),
        ("/auto/x", None),
    ],
)
def test_network_disks_are_refused(folder, kind, tmp_path, monkeypatch):
    (tmp_path / "mounts").write_text(MOUNTS)
    monkeypatch.setattr(disk, "MOUNTS", tmp_path / "mounts")
    monkeypatch.delenv(disk.ALLOW, raising=False)
    if kind is None:
        assert not disk.on_network_disk(f"{folder}/matris.sqlite")
        return
    with pytest.raises(StoreError, match=rf"network file system \({kind} at .*local disk.*mongodb://.*{disk.ALLOW}=1"):
        SQLiteStore(f"{folder}/matris.sqlite", "c").connect()
    assert not Path(folder).exists()


def test_a_network_disk_can_be_allowed(path, tmp_path, monkeypatch):
    with SQLiteStore(path, "c") as store:
        store.update({"task_id": 1})
    (tmp_path / "mounts").write_text(f"server:/x {tmp_path} nfs rw 0 0\n")
    monkeypatch.setattr(disk, "MOUNTS", tmp_path / "mounts")
    monkeypatch.setenv(disk.ALLOW, "1")
    with SQLiteStore(path, "c") as store:  # a write-ahead log needs memory that machines do not share
        assert store._file._db.execute("PRAGMA journal_mode").fetchone() == ("delete",)
        store.update({"task_id": 2})
    monkeypatch.setattr(disk, "MOUNTS", tmp_path / "no such file")
    with SQLiteStore(path, "c") as store:
        assert store._file._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert sorted(ids(store)) == [1, 2]


def test_aggregate(path):
    store = SQLiteStore(path, "c")
    store.connect()
    store.update([{"task_id": i, "kind": "ab"[i % 2], "tags": ["x", "y"][: i % 3], "e": i / 2} for i in range(9)])
    best = [
        {"$match": {"e": {"$gt": 0.5}}},
        {"$sort": {"e": 1}},
        {"$group": {"_id": "$kind", "n": {"$sum": 1}, "best": {"$first": "$task_id"}}},
        {"$sort": {"_id": 1}},
    ]
    assert list(store.aggregate(best)) == [{"_id": "a", "n": 4, "best": 2}, {"_id": "b", "n": 3, "best": 3}]
    tags = [{"$unwind": "$tags"}, {"$group": {"_id": "$tags", "n": {"$sum": 1}}}, {"$sort": {"_id": 1}}]
    assert list(store.aggregate(tags)) == [{"_id": "x", "n": 6}, {"_id": "y", "n": 3}]
    assert list(store.aggregate([{"$count": "n"}])) == [{"n": 9}]
    assert len(list(store.aggregate([]))) == 9
    for stage, message in (
        ({"$lookup": {"from": "d", "localField": "a", "foreignField": "b", "as": "c"}}, r"no \$lookup.*MongoStore"),
        ({"$out": "d"}, r"no \$out"),
        ({"$nonsense": 1}, "nonsense"),
        ({"$group": {"n": {"$sum": 1}}}, "cannot run"),
    ):
        with pytest.raises(StoreError, match=message):
            list(store.aggregate([stage]))


@pytest.mark.parametrize(
    "criteria",
    [{"$where": "true"}, {"$text": {"$search": "a"}}, {"a": {"$near": 1}}, {"a": {"$regex": "("}}, {"$or": []}],
)
def test_filters_that_are_not_offered(path, criteria):
    with SQLiteStore(path, "c") as store:
        store.update({"task_id": 1, "a": "b"})
        with pytest.raises(StoreError, match=r"MongoStore|regular expression|list of filters"):
            store.count(criteria)


def test_distinct_and_last_updated_read_few_documents(path):
    store = SQLiteStore(path, "c")
    store.connect()
    docs = [{"task_id": i, "a": i % 3, "tags": ["x"], "last_updated": START + timedelta(days=i)} for i in range(50)]
    store.update(docs)
    assert all(store.ensure_index(field) for field in ("a", "tags"))
    statements = []
    store._file._db.set_trace_callback(statements.append)
    assert sorted(store.distinct("a")) == [0, 1, 2]
    assert store.distinct("tags", {"a": {"$gte": 1}}) == ["x"]
    assert sorted(store.distinct("task_id", {"last_updated": {"$gt": START + timedelta(days=47)}})) == [48, 49]
    assert not any(sql.startswith("SELECT document") for sql in statements)
    assert store.last_updated == START + timedelta(days=49)
    assert sum(sql.startswith("SELECT document") for sql in statements) == 1


def write_and_confirm(path, pipe):
    with SQLiteStore(path, "c") as store:
        for i in range(10**6):
            store.update([{"task_id": i, "filling": "x" * 2000}, {"task_id": -i}])
            pipe.send_bytes(b"%d" % i)


def test_kill_loses_nothing_acknowledged(path):
    for trial in range(3):
        receiver, sender = forked.Pipe(duplex=False)
        writer = forked.Process(target=write_and_confirm, args=(path, sender))
        writer.start()
        for _ in range(20 + trial):
            confirmed = int(receiver.recv_bytes())
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        sender.close()
        try:
            while receiver.poll():
                confirmed = int(receiver.recv_bytes())
        except EOFError:
            pass
        with SQLiteStore(path, "c") as store:
            assert set(range(-confirmed, confirmed + 1)) <= {d["task_id"] for d in store.query()}
            assert store.count({"task_id": {"$in": [confirmed, -confirmed]}}) == (2 if confirmed else 1)
            store.remove_docs({})
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def other_program(path):
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE t (x)")


def of_format(number):
    def make(path):
        with SQLiteStore(path, "c"):
            pass
        with closing(sqlite3.connect(path)) as db:
            db.execute(f"PRAGMA user_version = {number}")

    return make


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.write_bytes(b"not a database " * 100), "not a SQLite database"),
        (other_program, "another program's"),
        (of_format(FORMAT + 1), rf"has format {FORMAT + 1}.*reads format {FORMAT} only: use the version that wrote"),
        (of_format(FORMAT - 1), rf"has format {FORMAT - 1}.*choose another place"),
        (lambda path: path.mkdir(), "cannot be opened"),
    ],
)
def test_unusable_file(path, make, message):
    path.parent.mkdir()
    make(path)
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(StoreError, match=message) as error:
        SQLiteStore(path, "c").connect()
    assert str(path) in str(error.value)
    assert before is None or path.read_bytes() == before


def test_no_folder_can_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"file.*choose another place"):
        SQLiteStore(tmp_path / "file" / "x.sqlite", "c").connect()


def test_damaged_page(path):
    with SQLiteStore(path, "c") as store:
        store.update([{"task_id": i, "filling": "x" * 500} for i in range(200)])
    content = bytearray(path.read_bytes())
    content[8192:] = os.urandom(len(content) - 8192)
    path.write_bytes(content)
    with SQLiteStore(path, "c") as store, pytest.raises(StoreError, match="damaged"):
        list(store.query())


@pytest.mark.parametrize(
    ("pragma", "message"), [("PRAGMA max_page_count = 30", "disk is full"), ("PRAGMA query_only = ON", "read-only")]
)
def test_no_more_room(path, pragma, message):
    store = SQLiteStore(path, "c")
    store.connect()
    store.update({"task_id": "kept"})
    store._file._db.execute(pragma)
    with pytest.raises(StoreError, match=message):
        store.update([{"task_id": i, "filling": "x" * 2000} for i in range(100)])
    assert ids(store) == ["kept"]
    if "query_only" in pragma:
        assert not store.ensure_index("filling")


def test_locked_by_another_process(path, monkeypatch):
    monkeypatch.setattr("matris.stores.database.sqlite.file.BUSY_SECONDS", 0.05)
    store = SQLiteStore(path, "c")
    store.connect()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="another process"):
        store.update({"task_id": 1})
    assert store.count() == 0  # readers do not wait
    other.execute("ROLLBACK")
    store.update({"task_id": 1})
    assert store.count() == 1
    other.close()


def test_reading_while_writing(path):
    """A running query neither blocks writers nor loses its position."""
    store, writer = SQLiteStore(path, "c"), SQLiteStore(path, "c")
    with store, writer:
        store.update([{"task_id": i} for i in range(5)])
        seen = []
        for document in store.query():
            seen.append(document["task_id"])
            writer.update({"task_id": 100 + document["task_id"]})
            store.update({"task_id": 200 + document["task_id"]})
            writer.remove_docs({"task_id": 4})
        assert seen == [0, 1, 2, 3]
        assert store.count() == 12


def test_file_is_durable(path):
    with SQLiteStore(path, "c") as store:
        assert store._file._db.execute("PRAGMA synchronous").fetchone() == (2,)
        assert store._file._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert str(Path(path).absolute()) in store.name


def test_a_copy_without_the_log_is_refused(path, tmp_path):
    """While a process has the file open, its newest documents are in the log, which cp of the file leaves out."""
    copy = tmp_path / "copy.sqlite"
    large = "x" * (LOG_BYTES // 8)
    with SQLiteStore(path, "runs") as store, SQLiteStore(path, "runs") as other:
        for number in range(20):  # also after documents were taken from the log into the file
            (store, other)[number % 2].update({"task_id": number, "x": large})
            if number in {0, 8, 19}:
                copy.write_bytes(path.read_bytes())
                with pytest.raises(StoreError, match=r"copy.sqlite lacks its newest documents.*-wal was not.*\.backup"):
                    SQLiteStore(copy, "runs").connect()
        assert Path(f"{path}-wal").stat().st_size < 2 * LOG_BYTES
        with closing(sqlite3.connect(path)) as whole, closing(sqlite3.connect(tmp_path / "backup.sqlite")) as backup:
            whole.backup(backup)
        for end in ("", "-wal"):
            (tmp_path / f"both.sqlite{end}").write_bytes(Path(f"{path}{end}").read_bytes())
    for whole_copy in ("backup", "both"):
        with SQLiteStore(tmp_path / f"{whole_copy}.sqlite", "runs") as copied:
            assert copied.count() == 20
    copy.write_bytes(path.read_bytes())  # after the last process closed it
    with SQLiteStore(copy, "runs") as copied:
        assert copied.count() == 20


def test_the_rest_of_a_copy_without_the_log(path, tmp_path):
    with SQLiteStore(path, "runs") as store:
        store.update({"task_id": 1})
        store._file._marked_up_to = 0
        store.update({"task_id": 2})
        copy = tmp_path / "copy.sqlite"
        copy.write_bytes(path.read_bytes())
    with closing(sqlite3.connect(copy)) as db:
        db.execute(f"PRAGMA user_version = {FORMAT}")  # as the message says
    with SQLiteStore(copy, "runs") as copied:
        assert ids(copied) == [1]


def test_a_process_killed_while_it_marked_the_file(path):
    with SQLiteStore(path, "runs") as store:
        store.update({"task_id": 1})
        with closing(sqlite3.connect(path)) as db:
            db.execute(f"PRAGMA user_version = {WITHOUT_LOG}")
        with SQLiteStore(path, "runs") as other:
            assert ids(other) == [1]
    with SQLiteStore(path, "runs") as again:
        assert ids(again) == [1]
