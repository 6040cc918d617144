"""From outputs of chunk jobs to candidate documents, on each kind of store."""

import uuid

import pytest
from jobflow import Flow, JobStore, job, run_locally
from maggma.stores import MemoryStore
from pymatgen.core import Lattice, Structure
from pymatgen.entries.computed_entries import ComputedEntry

from matris.errors import MatrisError, StoreError
from matris.stores import builder
from matris.stores.candidate_store import CandidateStore
from matris.stores.database.jobstore import open_job_store
from matris.stores.documents.candidate import Candidate
from matris.stores.documents.documents import (
    SCHEMA_VERSION,
    CandidateDocument,
    CheckpointTag,
    ChunkDocument,
    RelaxTag,
    make_dropped,
)
from matris.stores.hull import placing
from matris.stores.hull.hull import hull_results
from matris.stores.hull.references import References

SHA = "0123456789abcdef" * 4
DIGEST = "ba9876543210"


@pytest.fixture(params=["memory", "sqlite"])
def job_store(request, tmp_path):
    if request.param == "sqlite":
        store = open_job_store(tmp_path / "results")
    else:
        store = JobStore(MemoryStore(), additional_stores={"data": MemoryStore()})
        store.connect()
    yield store
    store.close()


def crystal(species, a=3.0):
    coords = [[i / len(species)] * 3 for i in range(len(species))]
    return Structure(Lattice.cubic(a), species, coords)


def chunk(*results, sha=SHA):
    """Make a chunk of results (candidate id, species, energy per atom in eV, state)."""
    records, arrays = [], []
    for identity, species, energy, state in results:
        structure = crystal(species) if species else None
        total = None if energy is None else energy * len(species)
        records.append({"candidate_id": identity, "source": f"{identity}.cif", "state": state, "energy": total})
        arrays.append(
            {"candidate_id": identity, "initial_structure": structure, "structure": structure if total else None}
        )
    return ChunkDocument(
        records=records,
        structures=arrays,
        checkpoint={"key": "demo", "sha256": sha, "energy_scale": "matpes-pbe"},
        settings={"fmax": 0.05, "max_steps": 500, "relax_cell": True, "digest": DIGEST},
        device="cpu",
        dtype="float32",
    )


@job(data=["structures"], output_schema=ChunkDocument)
def compute(results, sha=SHA):
    return chunk(*results, sha=sha)


@job
def something_else():
    return {"records": "of another kind"}


FIRST = [
    ("li", ["Li"], -1.0, "converged"),
    ("cl", ["Cl"], -2.0, "converged"),
    ("licl", ["Li", "Cl"], -2.5, "converged"),
    ("high", ["Li", "Cl"], -2.3, "converged"),
]
SECOND = [
    ("slow", ["Li", "Cl"], -9.0, "max_steps"),
    ("lif", ["Li", "F"], -3.0, "converged"),
    ("bad", None, None, "rejected"),
]


def run(job_store, *chunks, sha=SHA):
    run_locally(Flow([compute(list(c), sha) for c in chunks] + [something_else()]), store=job_store, log=False)


@pytest.fixture
def store(job_store):
    run(job_store, FIRST, SECOND)
    candidates = CandidateStore.beside(job_store)
    candidates.build(job_store)
    candidates.update_hulls()
    return candidates


def by_candidate(store):
    return {document["candidate_id"]: document for document in store.query()}


def test_chunks_are_unwound_once_and_only_once(job_store):
    run(job_store, FIRST)
    store = CandidateStore.beside(job_store)
    built = store.build(job_store)
    assert (built.n_chunks, built.n_documents) == (1, 4)
    assert built.chemical_systems == {"Li", "Cl", "Cl-Li"}
    first = by_candidate(store)
    assert store.build(job_store).n_chunks == 0
    assert by_candidate(store) == first
    run(job_store, SECOND)
    again = CandidateStore.beside(job_store)
    assert again.build(job_store).n_documents == 3
    assert store.docs.count() == 7
    assert store.computed_ids(SHA, DIGEST) == {"li", "cl", "licl", "high", "slow", "lif", "bad"}
    assert store.computed_ids(SHA, "other") == set()


def test_an_interrupted_build_is_completed(job_store, monkeypatch):
    run(job_store, FIRST)
    store = CandidateStore.beside(job_store)
    with monkeypatch.context() as patch:
        patch.setattr(store.chunks, "update", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            store.build(job_store)
    assert store.docs.count() == 4
    assert store.build(job_store).n_documents == 4
    assert store.docs.count() == 4
    assert store.data.count() == 4


def test_hulls_are_in_the_documents(store):
    documents = by_candidate(store)
    assert documents["licl"]["energy_above_hull"] == 0
    assert documents["licl"]["is_stable"] is True
    assert documents["licl"]["formation_energy_per_atom"] == pytest.approx(-1.0)
    assert documents["high"]["energy_above_hull"] == pytest.approx(0.2)
    assert documents["high"]["decomposes_to"][0]["document_id"] == documents["licl"]["document_id"]
    assert documents["slow"]["hull_state"] == "not converged: max_steps"
    assert documents["slow"]["energy_above_hull"] is None
    assert documents["lif"]["hull_state"] == "missing reference: F"
    assert documents["bad"]["hull_state"] == "not converged: rejected"
    assert documents["li"]["hull_type"] == "self-consistent"
    assert "demo" in documents["li"]["hull_reference"]


def test_hulls_that_did_not_change_are_neither_written_nor_read(job_store, store, monkeypatch):
    assert store.update_hulls() == 0
    before = by_candidate(store)
    run(job_store, [("better", ["Li", "Cl"], -2.6, "converged"), ("worse", None, None, "rejected")])
    built = store.build(job_store)
    assert built.chemical_systems == {"Cl-Li"}
    read = []
    monkeypatch.setattr(
        placing,
        "hull_results",
        lambda documents, *more, **about: read.append(documents) or hull_results(documents, *more, **about),
    )
    assert store.update_hulls() == 4  # two new documents, and two that are now above the hull
    assert [
        {d["candidate_id"] for d in store.documents([r["document_id"] for r in documents])} for documents in read
    ] == [
        {"li", "cl", "licl", "high", "slow", "better", "worse"}  # no LiF
    ]
    after = by_candidate(store)
    assert after["worse"]["hull_state"] == "not converged: rejected"
    assert after["licl"]["energy_above_hull"] == pytest.approx(0.1)
    assert {i for i in before if after[i] != before[i]} == {"licl", "high"}


def test_a_reference_hull_replaces_the_self_consistent_one(store):
    entries = (ComputedEntry("Li", -1.0), ComputedEntry("Cl", -2.0), ComputedEntry("LiCl", -4.8, entry_id="ref"))
    references = References("toy", "matpes-pbe", entries)
    own = by_candidate(store)
    assert store.update_hulls(references) == 7
    assert store.update_hulls(references) == 0
    documents = by_candidate(store)
    assert documents["licl"]["energy_above_hull"] == pytest.approx(-0.1)
    assert documents["licl"]["hull_type"] == "reference"
    assert documents["licl"]["hull_reference"].startswith("toy (matpes-pbe, sha256 ")
    assert documents["licl"]["decomposes_to"] == [{"formula": "LiCl", "amount": 1.0, "entry_id": "ref"}]
    assert set(documents["licl"]["hulls"]) == {"reference", "self-consistent"}
    for kind, document in (("reference", documents["licl"]), ("self-consistent", own["licl"])):
        place = documents["licl"]["hulls"][kind]
        about = {"taken_at": place["taken_at"], "references_sha256": references.sha256 if kind == "reference" else None}
        assert place == {name: document[name] for name in place if name not in about} | about
    with pytest.raises(MatrisError, match="energy scale 'mp'"):
        store.update_hulls(References("toy", "mp", entries))
    store.update_hulls()
    assert by_candidate(store)["licl"]["energy_above_hull"] == 0


def test_properties_join_their_candidates_in_either_order(job_store):
    moduli = {"voigt": 51.0, "reuss": 49.0, "vrh": 50.0}
    common = {"checkpoint": {"key": "demo", "sha256": SHA, "energy_scale": "matpes-pbe"}, "settings": {"fmax": 1e-4}}
    common |= {"state": "converged", "versions": {}, "device": "cpu", "dtype": "float32"}

    def compute_properties(name, kind, **fields):
        document = {"candidate_id": "licl", "created": "2026-11-23T10:00:00+00:00", **common, **fields}
        output = {"property_format": "matris-properties-1", "kind": kind, "documents": [document]}
        job_store.update([{"uuid": name, "index": 1, "output": output, "completed_at": "2026-11-23T10:00:00"}])

    store = CandidateStore.beside(job_store)
    compute_properties("e", "elastic", bulk_modulus=moduli, shear_modulus=moduli, is_mechanically_stable=True)
    assert store.build(job_store).n_properties == 1
    run(job_store, FIRST)
    store.build(job_store)
    thermal = {"temperatures": [200.0, 400.0], "heat_capacities": [20.0, 30.0]}
    compute_properties("p", "phonon", has_imaginary_modes=False, min_frequency=-0.01, **thermal)
    store.build(job_store)
    assert store.build(job_store).n_properties == 0
    document = by_candidate(store)["licl"]
    assert document["elastic"]["bulk_modulus"] == 50
    assert document["elastic"]["job_uuid"] == "e"
    assert document["elastic"]["is_mechanically_stable"] is True
    assert document["phonon"]["heat_capacity"] == pytest.approx(25)
    assert document["phonon"]["has_imaginary_modes"] is False
    assert document["phonon"]["free_energy"] is None
    assert by_candidate(store)["high"]["elastic"] is None
    assert store.properties.count() == 2
    assert CandidateDocument.model_validate(document).phonon.state == "converged"


def test_bulk_moduli_that_disagree_are_not_reliable(job_store):
    """If the moduli of the equation of state and of the stresses disagree, neither is reliable, in either order."""
    common = {"candidate_id": "licl", "checkpoint": {"key": "demo", "sha256": SHA, "energy_scale": "matpes-pbe"}}
    common |= {"settings": {}, "state": "converged", "versions": {}, "device": "cpu", "dtype": "float32"}
    common |= {"is_reliable": True, "created": "2026-11-23T10:00:00+00:00"}
    modulus = {"voigt": 173.0, "reuss": 170.0, "vrh": 171.5}
    store = CandidateStore.beside(job_store)
    run(job_store, FIRST)
    for kind, fields in (
        ("eos", {"fits": [{"equation": "birch_murnaghan", "v0": 60.0, "b0": 248.0, "b1": -20.0}]}),
        ("elastic", {"bulk_modulus": modulus, "shear_modulus": modulus}),
    ):
        output = {"property_format": "matris-properties-1", "kind": kind, "documents": [common | fields]}
        job_store.update([{"uuid": kind, "index": 1, "output": output, "completed_at": "2026-11-23T10:00:00"}])
        store.build(job_store)
        document = by_candidate(store)["licl"]
        assert document[kind]["is_reliable"] is (kind == "eos")
    assert document["eos"]["is_reliable"] is False
    assert "248 GPa by the equation of state, 173 GPa" in document["elastic"]["warnings"][0]


def test_a_build_that_is_repeated_keeps_what_was_added_since(job_store, store):
    store.set_fields({by_candidate(store)["licl"]["document_id"]: {"stage": "hull window"}})
    before = by_candidate(store)
    store.chunks.remove_docs({})
    assert store.build(job_store).n_documents == 7
    assert by_candidate(store) == before


def test_the_same_result_of_another_job_keeps_places_and_another_one_does_not(job_store, store):
    before = by_candidate(store)
    elastic = {"elastic": {"state": "converged", "bulk_modulus": 50.0}}
    store.set_fields({before[name]["document_id"]: elastic | {"stage": "hull window"} for name in ("licl", "high")})
    run(job_store, [("licl", ["Li", "Cl"], -2.5, "converged"), ("high", ["Li", "Cl"], -2.2, "converged")])
    assert store.build(job_store).n_documents == 2
    after = by_candidate(store)
    assert all(after[name]["job_uuid"] != before[name]["job_uuid"] for name in ("licl", "high"))
    assert (after["licl"]["energy_above_hull"], after["licl"]["stage"]) == (0, "hull window")
    assert after["licl"]["hulls"] == before["licl"]["hulls"]
    assert (after["high"]["energy_above_hull"], after["high"]["stage"], after["high"]["hulls"]) == (None, None, {})
    assert after["licl"]["elastic"] == after["high"]["elastic"] == elastic["elastic"]
    store.update_hulls()
    assert by_candidate(store)["high"]["energy_above_hull"] == pytest.approx(0.3)


def test_a_failure_does_not_replace_a_result(job_store, store):
    before = by_candidate(store)["licl"]
    run(job_store, [("licl", ["Li", "Cl"], None, "failed")], [("slow", ["Li", "Cl"], -2.4, "converged")])
    store.build(job_store)
    after = by_candidate(store)
    assert after["licl"] == before
    assert store.structure(before["document_id"]) == crystal(["Li", "Cl"])
    assert (after["slow"]["state"], after["slow"]["stage"], after["slow"]["error"]) == ("converged", None, None)


def test_a_job_that_was_run_again_is_unwound_again(job_store, store):
    before = by_candidate(store)["licl"]
    output = job_store.query_one({"uuid": before["job_uuid"]}, load=True)
    output["completed_at"] = "2099-01-01T00:00:00"
    output["output"]["created"] = "2099-01-01T00:00:00+00:00"
    output["output"]["records"][2]["energy"] = -6.0
    job_store.update([output], save={"data": ["structures"]})
    assert store.build(job_store).n_chunks == 1
    assert by_candidate(store)["licl"]["energy"] == -6
    assert store.build(job_store).n_chunks == 0


def test_two_builds_at_once_store_a_candidate_once(job_store, monkeypatch):
    """Another process builds and places documents between the reads and writes of this build."""
    run(job_store, FIRST)
    store, other = CandidateStore.beside(job_store), CandidateStore.beside(job_store)
    wrapped = builder.add_missing

    def add_after_the_other(where, documents):
        monkeypatch.setattr(builder, "add_missing", wrapped)
        other.build(job_store)
        other.update_hulls()
        wrapped(where, documents)

    monkeypatch.setattr(builder, "add_missing", add_after_the_other)
    store.build(job_store)
    assert store.docs.count() == 4
    assert by_candidate(store)["high"]["energy_above_hull"] == pytest.approx(0.2)
    assert store.data.count() == 4


def test_a_hull_that_another_process_changes_meanwhile_is_corrected(job_store, store, monkeypatch):
    """While a process places documents, another adds a more stable phase and places all; the first writes last."""
    run(job_store, [("new", ["Li", "Cl"], -2.3, "converged")])
    store.build(job_store)
    wrapped = placing.hull_results

    def overtaken(*args, **kwargs):
        monkeypatch.setattr(placing, "hull_results", wrapped)
        results = wrapped(*args, **kwargs)
        run(job_store, [("best", ["Li", "Cl"], -3.0, "converged")])
        store.build(job_store)
        store.update_hulls()
        return results

    monkeypatch.setattr(placing, "hull_results", overtaken)
    store.update_hulls()
    distances = {name: by_candidate(store)[name]["energy_above_hull"] for name in ("best", "licl", "high", "new")}
    assert distances == pytest.approx({"best": 0, "licl": 0.5, "high": 0.7, "new": 0.7})
    assert [name for name, document in by_candidate(store).items() if document["is_stable"]].count("licl") == 0


def test_interrupted_writing_of_hulls_is_completed(job_store, store, monkeypatch):
    run(job_store, [("best", ["Li", "Cl"], -3.0, "converged")])
    store.build(job_store)
    wrapped = placing.set_fields

    def killed_after_the_first(docs, changes):
        wrapped(docs, dict(list(changes.items())[:1]))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(placing, "set_fields", killed_after_the_first)
        with pytest.raises(KeyboardInterrupt):
            store.update_hulls()
    store.update_hulls()
    documents = by_candidate(store)
    distances = {name: documents[name]["energy_above_hull"] for name in ("best", "licl", "high")}
    assert distances == pytest.approx({"best": 0, "licl": 0.5, "high": 0.7})


def test_dropped_candidates_do_not_replace_computed_ones(store):
    checkpoint = CheckpointTag(key="demo", sha256=SHA, energy_scale="matpes-pbe")
    settings = RelaxTag(fmax=0.05, max_steps=500, relax_cell=True, digest=DIGEST)
    dropped = [
        make_dropped(
            Candidate(candidate_id=name, structure=crystal(["Li", "Cl"]), source="file"),
            "duplicates",
            "equal to candidate licl",
            checkpoint=checkpoint,
            settings=settings,
            state="duplicate",
            duplicate_of="licl",
        )
        for name in ("licl", "twin")
    ]
    store.add_dropped(dropped)
    documents = by_candidate(store)
    assert documents["licl"]["state"] == "converged"
    assert (documents["twin"]["state"], documents["twin"]["duplicate_of"]) == ("duplicate", "licl")
    assert documents["twin"]["formula_pretty"] == "LiCl"
    assert "twin" not in store.computed_ids(SHA, DIGEST)
    store.update_hulls()
    assert by_candidate(store)["twin"]["hull_state"] == "not converged: duplicate"
    again = [document.model_copy(update={"error": "equal to candidate high"}) for document in dropped]
    store.add_dropped(again)
    assert by_candidate(store)["twin"]["error"] == "equal to candidate high"
    assert by_candidate(store)["licl"] == documents["licl"]


def test_the_result_of_a_job_replaces_a_dropped_candidate(job_store):
    store = CandidateStore.beside(job_store)
    checkpoint = CheckpointTag(key="demo", sha256=SHA, energy_scale="matpes-pbe")
    settings = RelaxTag(fmax=0.05, max_steps=500, relax_cell=True, digest=DIGEST)
    candidate = Candidate(candidate_id="licl", structure=crystal(["Li", "Cl"]), source="file")
    store.add_dropped([make_dropped(candidate, "sanity", "too flat", checkpoint=checkpoint, settings=settings)])
    assert by_candidate(store)["licl"]["state"] == "rejected"
    run(job_store, FIRST)
    store.build(job_store)
    document = by_candidate(store)["licl"]
    assert (document["state"], document["stage"], document["error"], document["energy"]) == (
        "converged",
        None,
        None,
        -5.0,
    )
    assert store.structure(document["document_id"]) is not None


@pytest.mark.parametrize("other", [SCHEMA_VERSION - 1, SCHEMA_VERSION + 1, None])
def test_documents_of_another_schema_version_are_refused(store, other):
    document = by_candidate(store)["high"]
    store.docs.update([document | {"schema_version": other}])
    with pytest.raises(StoreError, match=f"schema version {other}, .* reads and writes version {SCHEMA_VERSION}"):
        CandidateStore(store.docs, store.data, store.properties, store.chunks)
    store.docs.remove_docs({"candidate_id": "high"})
    store.docs.update([{name: value for name, value in document.items() if name != "schema_version"}])
    with pytest.raises(StoreError, match="schema version None"):
        CandidateStore(store.docs, store.data, store.properties, store.chunks)
    store.docs.update([document])
    CandidateStore(store.docs, store.data, store.properties, store.chunks)


def test_checkpoints_do_not_mix(job_store, store):
    other = "f" * 64
    run(job_store, [("licl", ["Li", "Cl"], -5.0, "converged")], sha=other)
    store.build(job_store)
    store.update_hulls()
    one, two = (store.query(formula="LiCl", checkpoint=sha[:8]).sort("energy_per_atom") for sha in (SHA, other))
    assert [d["hull_state"] for d in two] == ["missing reference: Cl, Li"]
    assert {d["candidate_id"]: d["energy_above_hull"] for d in one if d["state"] == "converged"} == {
        "licl": 0,
        "high": pytest.approx(0.2),
    }
    assert store.query(checkpoint="demo").count() == 8


def ids(documents):
    return [document["candidate_id"] for document in documents]


def test_queries(store):
    assert set(ids(store.query(formula="Cl2Li2"))) == {"licl", "high", "slow"}
    assert set(ids(store.query(chemsys="Li-Cl"))) == {"licl", "high", "slow"}
    assert set(ids(store.query(elements=["Li"]))) == {"li", "licl", "high", "slow", "lif"}
    assert set(ids(store.query(below=0.0))) == {"li", "cl", "licl"}
    assert ids(store.query(state="rejected")) == ["bad"]
    assert ids(store.query(chemsys="Cl-Li").sort("energy_above_hull")) == ["licl", "high", "slow"]
    assert ids(store.query(chemsys="Cl-Li").sort("-energy_above_hull")) == ["high", "licl", "slow"]
    assert ids(store.query(chemsys="Cl-Li").sort("energy_above_hull").limit(1)) == ["licl"]
    assert all("_id" not in document for document in store.query())
    with pytest.raises(MatrisError, match="no field 'beauty'"):
        store.query().sort("beauty")
    with pytest.raises(MatrisError, match="cannot read the formula"):
        store.query(formula="Xx9?")


def test_documents_arrays_and_structures_by_id(store):
    documents = by_candidate(store)
    names = [documents[i]["document_id"] for i in ("high", "li")]
    assert ids(store.documents([names[0], "nothing", names[1]])) == ["high", "li"]
    assert store.structure(names[0]).formula == "Li1 Cl1"
    assert store.structure(documents["bad"]["document_id"]) is None
    assert store.structure("nothing") is None
    assert store.arrays("nothing") is None
    assert store.structure(names[1], initial=True) == crystal(["Li"])
    assert "structure" not in documents["high"]


def test_results_are_found_again_by_a_second_store(tmp_path):
    first = open_job_store(tmp_path)
    run(first, FIRST)
    CandidateStore.beside(first).build(first)
    assert set(ids(CandidateStore.open(tmp_path).query())) == {"li", "cl", "licl", "high"}


def test_an_invalid_chunk_does_not_affect_other_outputs(job_store):
    job_store.update([{"uuid": "u1", "index": 1, "output": {"chunk_format": "matris-chunk-1", "records": 3}}])
    run(job_store, FIRST)
    store = CandidateStore.beside(job_store)
    built = store.build(job_store)
    assert built.n_documents == 4
    assert list(built.refused) == ["u1-1"]
    assert "ValidationError" in store.refused()["u1-1"]
    assert store.build(job_store).refused == {}


def test_outputs_without_their_arrays_are_counted(job_store):
    """Arrays that another process kept in memory, or has not stored yet, are missing; a later build finds them."""
    run(job_store, FIRST)
    data = job_store.additional_stores["data"]
    arrays = list(data.query({}))
    data.remove_docs({})
    store = CandidateStore.beside(job_store)
    built = store.build(job_store)
    assert (built.n_documents, len(built.incomplete), dict(built.refused)) == (0, 1, {})
    assert list(store.incomplete().values()) == [4]
    assert len(store.build(job_store).incomplete) == 1  # it is tried again
    data.update([{k: v for k, v in each.items() if k != "_id"} for each in arrays])
    built = store.build(job_store)
    assert (built.n_documents, built.incomplete) == (4, ())
    assert store.incomplete() == {}


def test_an_index_that_cannot_be_made_is_an_error(job_store, monkeypatch):
    store = CandidateStore.beside(job_store)
    monkeypatch.setattr(store.docs, "ensure_index", lambda *_, **__: False)
    with pytest.raises(StoreError, match="cannot index 'document_id'"):
        CandidateStore(store.docs, store.data, store.properties, store.chunks)


def test_pages_have_an_index_on_a_server(mongo_server):
    store = open_job_store(f"{mongo_server}/candidates-{uuid.uuid4().hex[:8]}")
    documents = CandidateStore.beside(store).docs
    keys = [index["key"] for index in documents._collection.index_information().values()]
    assert [("chemsys", 1), ("energy_above_hull", 1), ("document_id", 1)] in keys
    assert [("state", 1), ("job_uuid", 1)] in keys


def property_job(job_store, name, identity, source="in/MgO.cif", state="converged"):
    """Store the output of a property job on one material that relaxed from 3.0 to 3.1 Å."""
    structure = crystal(["Mg", "O"], 3.1)
    record = {"candidate_id": identity, "source": source, "provenance": {"block": "x"}, "state": state}
    record |= {"energy": -11.0} if state == "converged" else {"error": "overlapping atoms"}
    arrays = {"initial_structure": crystal(["Mg", "O"]).as_dict(), "forces": [[0.0] * 3] * 2, "stress": None}
    settings = {"fmax": 1e-4, "max_steps": 2000, "relax_cell": True, "digest": "0" * 12}
    document = {
        "candidate_id": identity,
        "state": state if state == "converged" else "failed",
        "created": "2026-11-23T10:00:00+00:00",
        "checkpoint": {"key": "demo", "sha256": SHA, "energy_scale": "matpes-pbe"},
        "settings": {},
        "versions": {"torch": "2"},
        "device": "cpu",
        "dtype": "float32",
        "bulk_modulus": {"vrh": 150.0} if state == "converged" else None,
        "structure": structure.as_dict() if state == "converged" else None,
        "start": {"record": record, "settings": settings, "arrays": arrays},
    }
    output = {"property_format": "matris-properties-1", "kind": "elastic", "documents": [document, document]}
    job_store.update(
        [{"uuid": name, "index": 1, "output": output, "completed_at": "2026-11-23T10:00:00"}],
        save={"data": ["structure", "arrays"]},
    )


def test_a_property_of_a_material_that_was_no_candidate_makes_a_document(job_store):
    store = CandidateStore.beside(job_store)
    property_job(job_store, "e", "mgo")
    property_job(job_store, "bad", "clash", "clash.cif", "rejected")
    built = store.build(job_store)
    assert (built.n_properties, built.n_documents, sorted(built.chemical_systems)) == (2, 2, ["Mg-O"])
    (found,) = store.query(formula="MgO").where("elastic.bulk_modulus > 100")
    assert (found["state"], found["source"], found["provenance"]) == ("converged", "in/MgO.cif", {"block": "x"})
    assert found["elastic"]["bulk_modulus"] == 150
    assert (found["energy"], found["energy_per_atom"], found["job_uuid"]) == (-11, -5.5, "e")
    assert (found["settings"]["fmax"], found["settings"]["digest"]) == (1e-4, "0" * 12)
    assert found["volume_change"] == pytest.approx((3.1 / 3) ** 3 - 1)
    assert store.structure(found["document_id"]).volume == pytest.approx(3.1**3)
    assert store.structure(found["document_id"], initial=True).volume == pytest.approx(27)
    assert store.arrays(found["document_id"])["forces"] == [[0.0] * 3] * 2
    (bad,) = store.query(state="rejected")
    assert (bad["error"], bad["elastic"]["state"]) == ("overlapping atoms", "failed")
    assert store.build(job_store).n_documents == 0


def test_a_property_of_a_candidate_makes_no_second_document(job_store):
    """Whichever job ended first: of outputs that are new together, those of campaigns are read first."""
    store = CandidateStore.beside(job_store)
    property_job(job_store, "a", "licl")
    run(job_store, FIRST)
    built = store.build(job_store)
    assert (built.n_documents, store.docs.count()) == (4, 4)
    assert by_candidate(store)["licl"]["elastic"]["bulk_modulus"] == 150
    assert by_candidate(store)["licl"]["source"] == "licl.cif"


def test_a_reference_whose_property_is_asked_for_becomes_a_candidate(job_store):
    run(job_store, FIRST)
    store = CandidateStore.beside(job_store)
    store.build(job_store)
    identity = by_candidate(store)["li"]["document_id"]
    store.set_fields({identity: {"source": "elemental reference"}})
    assert "li" not in by_candidate(store)
    property_job(job_store, "e", "li", "Li.cif")
    store.build(job_store)
    assert by_candidate(store)["li"]["source"] == "Li.cif"
    assert store.docs.count() == 4


def test_structures_of_a_property_that_lack_are_waited_for(job_store):
    property_job(job_store, "e", "mgo")
    data = job_store.additional_stores["data"]
    blobs = [{k: v for k, v in blob.items() if k != "_id"} for blob in data.query({})]
    data.remove_docs({})
    store = CandidateStore.beside(job_store)
    built = store.build(job_store)
    assert (built.n_documents, built.incomplete) == (0, ("e-1",))
    data.update(blobs)
    built = store.build(job_store)
    assert (built.n_documents, built.incomplete, store.incomplete()) == (1, (), {})


def test_references_are_found_only_when_asked_for(store):
    ids = {name: document["document_id"] for name, document in by_candidate(store).items()}
    store.set_fields({ids["li"]: {"source": "elemental reference"}, ids["cl"]: {"source": "competing prototype"}})
    store.set_fields({ids["high"]: {"source": "references"}})
    assert set(by_candidate(store)) == {"licl", "slow", "lif", "bad"}
    everything = store.query(with_references=True)
    assert {d["candidate_id"] for d in everything} == set(ids)
    assert (store.query().count(), store.query().n_references(), everything.count()) == (4, 3, 7)
    stable = store.query(stable=True).sort("ehull")
    assert [d["candidate_id"] for d in stable] == ["licl"]
    assert stable.count() == len(list(stable.ids())) == 1
    assert stable.best_of("chemsys").count() == 1
    assert store.query(elements=["Li"]).origins() == everything.origins()
    assert store.query().where("source = 'elemental reference'").count() == 0
    only = store.query(chemsys="Cl")
    assert (only.origins(), only.first(), only.skip(1).count()) == ([], None, 0)


def test_unconverged_documents_carry_their_reason(store):
    slow = by_candidate(store)["slow"]
    assert slow["error"] == "not converged after None steps"
    assert [d["candidate_id"] for d in store.query().where("reason contains 'not converged'")] == ["slow"]
