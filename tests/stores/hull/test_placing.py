"""Repeated placement as documents arrive gives the same hulls as one placement of all documents."""

import random
import uuid

import pytest
from maggma.stores import MemoryStore
from pymatgen.core import Composition
from pymatgen.entries.computed_entries import ComputedEntry

from matris.stores.database.mongo import ResultsMongoStore
from matris.stores.database.sqlite.store import SQLiteStore
from matris.stores.hull import placing
from matris.stores.hull.hull import hull_results
from matris.stores.hull.placing import place_on_hulls
from matris.stores.hull.references import References

ABOUT = {
    "checkpoint": {"key": "demo", "sha256": "a" * 64, "energy_scale": "matpes-pbe"},
    "settings": {"digest": "0123456789ab"},
}
ELEMENTS = ["Li", "Na", "Fe", "Ti", "O", "F", "Cl"]
WORDS = ("hull_type", "hull_reference", "hull_state", "is_stable", "only_elements_compete", "hull_lacks")
NUMBERS = ("energy_above_hull", "formation_energy_per_atom", "equilibrium_reaction_energy_per_atom")


@pytest.fixture(params=["memory", "sqlite", "server"])
def docs(request, tmp_path):
    if request.param == "server":
        uri = request.getfixturevalue("mongo_server")
        store = ResultsMongoStore.from_uri(uri, uuid.uuid4().hex, "hulls", key="document_id")
    elif request.param == "sqlite":
        store = SQLiteStore(tmp_path / "d.sqlite", "d", key="document_id")
    else:
        store = MemoryStore(key="document_id")
    store.connect()
    for field in ("document_id", "chemsys", "energy_above_hull", "hull_reference"):
        store.ensure_index(field)
    yield store
    store.close()


def document(name, formula, energy, state="converged"):
    composition = Composition(formula)
    return {
        "document_id": name,
        "state": state,
        "chemsys": composition.chemical_system,
        "composition": composition.get_el_amt_dict(),
        "energy_per_atom": energy if state == "converged" else None,
        "correction_scheme": "none",
        "hulls": {},
        **ABOUT,
    }


def arriving(seed):
    """Documents in batches, with elements in later batches, and some unreadable or not converged documents."""
    random.seed(seed)
    pure = [document(f"pure-{symbol}", symbol, 0.0) for symbol in ELEMENTS]
    random.shuffle(pure)
    lots = []
    for lot in range(4):
        documents = pure[2 * lot : 2 * lot + 2]
        for i in range(25):
            symbols = random.sample(ELEMENTS, random.choice([2, 3, 3, 4]))
            formula = "".join(f"{symbol}{random.randint(1, 3)}" for symbol in symbols)
            state = "converged" if random.random() < 0.9 else "failed"
            documents.append(document(f"{lot}-{i}", formula, random.uniform(-1.5, 0.3), state))
        documents.append(document(f"{lot}-unreadable", "H", None, "rejected") | {"chemsys": None, "composition": {}})
        lots.append(documents)
    return lots


def watched(monkeypatch):
    """Record the documents of each following call of `hull_results`."""
    given = []
    monkeypatch.setattr(
        placing,
        "hull_results",
        lambda documents, *more, **by: given.append(documents) or hull_results(documents, *more, **by),
    )
    return given


@pytest.mark.parametrize("seed", range(3))
def test_batches_and_all_at_once_agree(docs, seed, monkeypatch):
    lots = arriving(seed)
    for lot in lots:
        docs.update(lot)
        place_on_hulls(docs, ABOUT)
    everything = [each for lot in lots for each in lot]
    wanted = {identity: result.to_dict() for identity, result in hull_results(everything).items()}
    assert sum(place["hull_state"] == "ok" for place in wanted.values()) > 80
    stored = {each["document_id"]: each for each in docs.query()}
    assert set(stored) == set(wanted)
    for identity, place in wanted.items():
        assert [stored[identity][name] for name in WORDS] == [place[name] for name in WORDS]
        assert [stored[identity][name] for name in NUMBERS] == pytest.approx(
            [place[name] for name in NUMBERS], abs=1e-8
        )
    read = watched(monkeypatch)
    assert place_on_hulls(docs, ABOUT) == 0
    assert read == []
    docs.update([document("last", "Li2Fe2O3Cl3", -0.1)])
    assert place_on_hulls(docs, ABOUT) >= 1
    stable = {each["document_id"] for each in docs.query({"is_stable": True})}
    system = {"Li", "Fe", "O", "Cl"}
    assert {each["document_id"] for documents in read for each in documents} <= {
        each["document_id"]
        for each in docs.query()
        if each["document_id"] in stable or (each["chemsys"] and system <= set(each["chemsys"].split("-")))
    }


def test_on_references_only_new_documents_are_read(docs, monkeypatch):
    entries = [ComputedEntry(symbol, 0.0, entry_id=symbol) for symbol in ELEMENTS]
    references = References("toy", "matpes-pbe", tuple(entries))
    lots = arriving(0)
    read = watched(monkeypatch)
    for lot in lots:
        docs.update(lot)
        assert place_on_hulls(docs, ABOUT, references) == len(lot)
    assert [len(documents) for documents in read] == [len(lot) for lot in lots]
    for each in docs.query({"state": "converged"}):
        assert each["energy_above_hull"] == pytest.approx(each["energy_per_atom"])
        assert each["hulls"]["reference"]["references_sha256"] == references.sha256


def test_an_empty_store_has_no_hull(docs):
    assert place_on_hulls(docs, ABOUT) == 0
    assert place_on_hulls(docs, ABOUT, References("none", "matpes-pbe", ())) == 0
