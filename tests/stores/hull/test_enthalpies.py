"""Documents, hulls and reference sets at a pressure: enthalpies compete, and pressures do not mix."""

import json

import pytest
from jobflow import JobStore, run_locally
from maggma.stores import MemoryStore
from pymatgen.core import Lattice, Structure
from pymatgen.entries.computed_entries import ComputedEntry

from matris.errors import MatrisError
from matris.relaxation.records import RelaxSettings
from matris.stores.candidate_store import CandidateStore
from matris.stores.documents.documents import ChunkDocument
from matris.stores.documents.entries import structure_entry
from matris.stores.hull.references import check_mp, load_references, references_from_documents
from matris.units import GPA
from tests.stores.test_candidate_store import compute

PRESSURE = 10.0
SIDES = {"li": 3.0, "cl": 3.0, "dense": 3.6, "loose": 4.0}
ENERGIES = {"li": -1.0, "cl": -2.0, "dense": -2.40, "loose": -2.45}  # eV/atom
SPECIES = {"li": ["Li"], "cl": ["Cl"], "dense": ["Li", "Cl"], "loose": ["Li", "Cl"]}


def chunk(pressure):
    settings = RelaxSettings(pressure=pressure)
    records, arrays = [], []
    for name, species in SPECIES.items():
        structure = Structure(
            Lattice.cubic(SIDES[name]), species, [[i / len(species)] * 3 for i in range(len(species))]
        )
        records.append(
            {
                "candidate_id": name,
                "source": f"{name}.cif",
                "state": "converged",
                "energy": ENERGIES[name] * len(species),
            }
        )
        arrays.append({"candidate_id": name, "initial_structure": structure, "structure": structure})
    return ChunkDocument(
        records=records,
        structures=arrays,
        checkpoint={"key": "demo", "sha256": "ab" * 32, "energy_scale": "matpes-pbe"},
        settings={**settings.to_dict(), "digest": settings.digest()},
        device="cpu",
        dtype="float64",
    )


@pytest.fixture
def store(monkeypatch):
    """The same four crystals at zero pressure and at 10 GPa."""
    job_store = JobStore(MemoryStore(), additional_stores={"data": MemoryStore()})
    job_store.connect()
    monkeypatch.setattr("tests.stores.test_candidate_store.chunk", lambda pressure, **_: chunk(pressure))
    run_locally([compute([pressure]) for pressure in (0.0, PRESSURE)], store=job_store, log=False)
    store = CandidateStore.beside(job_store)
    store.build(job_store)
    store.update_hulls()
    return store


def at(store, pressure):
    return {document["candidate_id"]: document for document in store.query().where(f"pressure = {pressure}")}


def enthalpy(name):
    return ENERGIES[name] + PRESSURE / GPA * SIDES[name] ** 3 / len(SPECIES[name])


def test_the_denser_polymorph_wins_under_pressure(store):
    free, pressed = at(store, 0), at(store, PRESSURE)
    assert [d["is_stable"] for d in (free["dense"], free["loose"])] == [False, True]
    assert [d["is_stable"] for d in (pressed["dense"], pressed["loose"])] == [True, False]
    assert {d["enthalpy_per_atom"] for d in free.values()} == {None}
    for name, document in pressed.items():
        assert document["energy_per_atom"] == pytest.approx(ENERGIES[name])
        assert document["enthalpy_per_atom"] == pytest.approx(enthalpy(name))
    formation = enthalpy("dense") - (enthalpy("li") + enthalpy("cl")) / 2
    assert pressed["dense"]["formation_energy_per_atom"] == pytest.approx(formation)
    assert pressed["loose"]["energy_above_hull"] == pytest.approx(enthalpy("loose") - enthalpy("dense"))
    assert "(matpes-pbe, 10 GPa, sha256" in pressed["dense"]["hull_reference"]
    assert "GPa" not in free["dense"]["hull_reference"]


def test_reference_sets_have_a_pressure(store, tmp_path):
    pressed = at(store, PRESSURE)
    references = references_from_documents([pressed["li"], pressed["cl"], pressed["dense"]], name="pressed")
    assert references.label.startswith("pressed (matpes-pbe, 10 GPa, ")
    references.write(tmp_path / "pressed.json")
    read = load_references(tmp_path / "pressed.json", "matpes-pbe", pressure=PRESSURE)
    assert read.sha256 == references.sha256
    with pytest.raises(MatrisError, match=r"relaxed at 10\.0 GPa, but the candidates at 0 GPa"):
        load_references(tmp_path / "pressed.json", "matpes-pbe")
    digest = pressed["loose"]["settings"]["digest"]
    store.update_hulls(tmp_path / "pressed.json", settings_digest=digest)
    above = at(store, PRESSURE)["loose"]["energy_above_hull"]
    assert above == pytest.approx(enthalpy("loose") - enthalpy("dense"))
    with pytest.raises(MatrisError, match="are at 10 GPa, but the candidates were relaxed at 0 GPa"):
        store.update_hulls(references, settings_digest=at(store, 0)["li"]["settings"]["digest"])


def test_exported_entries_are_enthalpies_and_compete_only_at_their_pressure(store, tmp_path):
    document = at(store, PRESSURE)["dense"]
    entry = structure_entry(document, store.structure(document["document_id"]))
    assert entry.energy_per_atom == pytest.approx(enthalpy("dense"))
    assert entry.uncorrected_energy_per_atom == pytest.approx(ENERGIES["dense"])
    (tmp_path / "entries.json").write_text(json.dumps([entry.as_dict()], default=str))
    (read,) = load_references(tmp_path / "entries.json", "matpes-pbe", pressure=PRESSURE).entries
    assert read.energy_per_atom == pytest.approx(enthalpy("dense"))
    bare = ComputedEntry("LiCl", -4.8, parameters={"energy_scale": "matpes-pbe", "pressure": PRESSURE}).as_dict()
    (tmp_path / "bare.json").write_text(json.dumps([bare]))
    with pytest.raises(MatrisError, match="it has no volume, so that its enthalpy at 10 GPa is not known"):
        load_references(tmp_path / "bare.json", "matpes-pbe", pressure=PRESSURE)
    with pytest.raises(MatrisError, match="has no enthalpies at 10 GPa"):
        check_mp("mp", PRESSURE)


def test_properties_stay_with_the_documents_of_their_pressure(store):
    """An elastic tensor at 10 GPa says nothing about the crystal at zero pressure."""
    from matris.stores import builder

    summary = {"state": "converged", "bulk_modulus": 60.0, "warnings": []}
    property_document = {
        "property_id": "dense-elastic",
        "candidate_id": "dense",
        "kind": "elastic",
        "state": "converged",
        "computed_at": "2026-01-01",
        "pressure": PRESSURE,
        "checkpoint": {"sha256": "ab" * 32},
        "summary": summary,
    }
    into = builder.Collections(store.docs, store.data, store.properties, store.chunks)
    into.properties.update([property_document], key="property_id")
    builder._add_summaries(into, ["dense"], "ab" * 32)
    assert at(store, PRESSURE)["dense"]["elastic"]["bulk_modulus"] == 60.0
    assert at(store, 0)["dense"]["elastic"] is None
