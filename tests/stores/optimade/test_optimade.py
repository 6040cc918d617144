"""OPTIMADE export and server, checked with the models, validator and client of OPTIMADE's tools."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import signal
import subprocess
import sys
from datetime import datetime, timedelta, timezone

import pytest
from pymatgen.core import DummySpecies, Lattice, Structure
from pymongo.errors import AutoReconnect
from typer.testing import CliRunner

from matris.cli import app as command_line
from matris.errors import MatrisError, StoreError, StructureError
from matris.stores.candidate_store import CandidateStore
from matris.stores.documents.documents import CandidateDocument, describe, utc_now
from matris.stores.documents.summaries import ElasticSummary, PhononSummary
from matris.stores.optimade.resources import PROVIDER_FIELDS, resources, to_optimade

pytest.importorskip("optimade", reason="OPTIMADE's tools are not installed: pip install 'matris-flows[optimade]'")

SHA = "0123456789abcdef" * 4
NOON = datetime(2026, 5, 4, 12, 0, 0, 987000)  # noqa: DTZ001 - stores return UTC without a time zone


def corundum():
    lattice = Lattice.hexagonal(5.07, 13.87)
    return Structure.from_spacegroup("R-3c", lattice, ["Fe", "O"], [[0, 0, 0.355], [0.306, 0, 0.25]])


def rock_salt(cation="Fe", anion="O", a=4.3):
    vectors = [[0, a / 2, a / 2], [a / 2, 0, a / 2], [a / 2, a / 2, 0]]
    return Structure(Lattice(vectors), [cation, anion], [[0, 0, 0], [0.5, 0.5, -0.5]])


def layered():
    heights = {"Li": [0.0], "Fe": [0.5], "O": [0.25, 0.75]}
    sites = [(element, [0, 0, z]) for element, places in heights.items() for z in places]
    return Structure(Lattice.tetragonal(2.9, 9.1), *zip(*sites, strict=True))


CRYSTALS = {
    "hematite": (corundum(), 0.0),
    "corundum-again": (corundum().scale_lattice(310.0), 0.021),
    "wustite": (rock_salt(), 0.04),
    "layered": (layered(), 0.12),
    "one-atom": (Structure(Lattice.cubic(2.8), ["Fe"], [[0, 0, 0]]), 0.0),
    "salt": (rock_salt("Na", "Cl", 5.6), 0.0),
    "unplaced": (rock_salt("Li", "F", 4.0), None),
    "nan": (rock_salt("Mg", "O", 4.2), math.nan),
}


def document(name, structure=None, **fields):
    return CandidateDocument(
        document_id=f"{name}-01234567-ba987654",
        candidate_id=name,
        source="test",
        **{"state": "converged", "last_updated": NOON}
        | (describe(structure, relaxed=True) if structure else {})
        | {
            "checkpoint": {"key": "demo", "sha256": SHA, "energy_scale": "matpes-pbe"},
            "settings": {"fmax": 0.05, "max_steps": 500, "relax_cell": True, "digest": "ba9876543210"},
            "device": "cpu",
            "dtype": "float32",
        }
        | fields,
    )


def fill(location):
    """Write eight structures, failed and rejected candidates, and one with a damaged structure."""
    candidates = CandidateStore.open(location)
    documents = [
        document(name, structure, energy_above_hull=distance, energy_per_atom=-4.2, hull_type="self-consistent")
        for name, (structure, distance) in CRYSTALS.items()
    ]
    documents[1].state = "max_steps"
    documents[2].elastic = ElasticSummary(state="completed", bulk_modulus=180.0, is_mechanically_stable=True)
    documents[3].phonon = PhononSummary(state="completed", has_imaginary_modes=True, min_frequency=-3.5)
    data = [
        {"document_id": d.document_id, "structure": structure.as_dict(), "initial_structure": None}
        for d, (structure, _) in zip(documents, CRYSTALS.values(), strict=True)
    ]
    documents += [document("failed", rock_salt(), state="failed"), document("rejected", state="rejected")]
    documents += [document("damaged", rock_salt()), document("lost", rock_salt())]
    data += [{"document_id": documents[8].document_id, "initial_structure": rock_salt().as_dict(), "structure": None}]
    data += [{"document_id": documents[10].document_id, "structure": {"lattice": "gone"}}]
    candidates.data.update(data, key="document_id")
    candidates.upsert(documents)
    return candidates


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("optimade") / "results"
    fill(place)
    return place


def resource(structure, **fields):
    return to_optimade(document("x", structure, **fields).model_dump(), structure)


def test_mandatory_fields():
    answer = resource(layered())
    assert (answer["id"], answer["type"]) == ("x-01234567-ba987654", "structures")
    attributes = answer["attributes"]
    assert attributes["elements"] == ["Fe", "Li", "O"]
    assert attributes["elements_ratios"] == [0.25, 0.25, 0.5]
    assert attributes["chemical_formula_reduced"] == "FeLiO2"
    assert attributes["chemical_formula_descriptive"] == "LiFeO2"
    assert attributes["chemical_formula_anonymous"] == "A2BC"
    assert attributes["species_at_sites"] == ["Li", "Fe", "O", "O"]
    assert attributes["last_modified"] == "2026-05-04T12:00:00Z"
    assert (attributes["nsites"], attributes["dimension_types"]) == (4, [1, 1, 1])
    assert attributes["space_group_it_number"] == 123
    assert attributes["_matris_checkpoint_sha256"] == SHA
    assert attributes["_matris_bulk_modulus"] is None


@pytest.mark.parametrize("structure", [s for s, _ in CRYSTALS.values()], ids=list(CRYSTALS))
def test_optimades_model_and_adapters_agree(structure):
    from optimade.adapters import Structure as Adapter
    from optimade.models import StructureResource

    made = resource(structure)
    assert StructureResource(**made).attributes.nsites == len(structure)
    adapted = Adapter(made)
    assert adapted.as_pymatgen == structure
    atoms = adapted.as_ase
    assert atoms.get_chemical_symbols() == [str(site.specie) for site in structure]
    assert abs(atoms.positions - structure.cart_coords).max() < 1e-12
    assert abs(atoms.cell.array - structure.lattice.matrix).max() < 1e-12


def test_formulas_are_optimades():
    from optimade.models.utils import anonymize_formula, reduce_formula

    alphabet = re.findall("[A-Z][a-z]?", "HLiBeBCNOFNaMgAlSiPSClKCaScTiVCrMnFeCoNiCuZn")
    many = [Structure(Lattice.cubic(30), alphabet[:n], [[i / 30] * 3 for i in range(n)]) for n in (26, 27)]
    for structure in [many[0], *(structure for structure, _ in CRYSTALS.values())]:
        attributes = resource(structure)["attributes"]
        assert attributes["chemical_formula_anonymous"] == anonymize_formula(structure.composition.formula)
        assert attributes["chemical_formula_reduced"] == reduce_formula(structure.composition.formula)
    assert resource(many[1])["attributes"]["chemical_formula_anonymous"] is None


def test_values_that_json_cannot_represent():
    eastern = timezone(timedelta(hours=9))
    attributes = resource(
        Structure(Lattice.cubic(3, pbc=(True, True, False)), ["Fe3+"], [[0, 0, 0]]),
        energy_above_hull=math.inf,
        last_updated=datetime(2026, 1, 1, 3, tzinfo=eastern),
    )["attributes"]
    assert attributes["_matris_energy_above_hull"] is None
    assert attributes["last_modified"] == "2025-12-31T18:00:00Z"
    assert attributes["species_at_sites"] == ["Fe"]
    assert (attributes["dimension_types"], attributes["nperiodic_dimensions"]) == ([1, 1, 0], 2)
    assert attributes["space_group_it_number"] is None


@pytest.mark.parametrize(
    ("structure", "reason"),
    [
        (Structure(Lattice.cubic(3), [], []), "no atoms"),
        (Structure(Lattice.cubic(3), [{"Fe": 0.5, "Ni": 0.5}], [[0, 0, 0]]), "shared"),
        (Structure(Lattice.cubic(3), [{"Fe": 0.5}], [[0, 0, 0]]), "shared"),
        (Structure(Lattice.cubic(3), [DummySpecies("X")], [[0, 0, 0]]), "not all species of"),
        (Structure(Lattice.cubic(3), ["Fe"], [[0, math.nan, 0]]), "a coordinate is not finite"),
        (Structure(Lattice([[1, 0, 0], [0, 1, 0], [1, 1, 0]]), ["Fe"], [[0, 0, 0]]), "no volume"),
    ],
)
def test_structures_that_cannot_be_served(structure, reason):
    with pytest.raises(StructureError, match=reason):
        to_optimade(document("x").model_dump(), structure)


def test_a_structure_that_cannot_be_served_is_omitted(folder, caplog):
    served = [made["id"].split("-01234567")[0] for _, made in resources(CandidateStore.open(folder))]
    assert served == sorted(CRYSTALS)
    warned = {record.args[0].split("-")[0]: str(record.args[1]) for record in caplog.records}
    assert warned.keys() == {"damaged", "lost"}
    assert "cannot be read" in warned["damaged"]
    assert "missing" in warned["lost"]


def test_export_is_read_by_optimades_own_server(folder, tmp_path):
    from matris.stores.optimade.export import export_optimade, server_config
    from matris.stores.optimade.server import create_app

    candidates = CandidateStore.open(folder)
    path = tmp_path / "candidates.jsonl"
    assert export_optimade(candidates, path) == len(CRYSTALS)
    header, info, *structures = map(json.loads, path.read_text().splitlines())
    assert header["x-optimade"]["meta"]["api_version"].startswith("1.")
    assert (info["type"], info["id"]) == ("info", "structures")
    assert info["properties"]["_matris_energy_above_hull"]["unit"] == "eV/{atom}"
    assert structures == [made for _, made in resources(candidates)]
    assert set(structures[0]["attributes"]) <= set(info["properties"])

    config = server_config()
    config.mongo_database = "export"
    config.insert_from_jsonl = path
    imported = create_app(config).state.entry_collections["structures"]
    assert len(imported) == len(CRYSTALS)


def test_export_of_nothing(tmp_path):
    from matris.stores.optimade.export import export_optimade

    path = tmp_path / "empty.jsonl"
    assert export_optimade(CandidateStore.open(tmp_path / "none"), path) == 0
    assert len(path.read_text().splitlines()) == 2


def test_full_disk_leaves_the_older_file(folder, tmp_path, monkeypatch):
    from matris.stores.optimade.export import export_optimade

    path = tmp_path / "candidates.jsonl"
    path.write_text("older")

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match=r"cannot write .*candidates\.jsonl.*No space"):
        export_optimade(CandidateStore.open(folder), path)
    assert path.read_text() == "older"
    assert list(tmp_path.iterdir()) == [path]


FILTERS = {
    "": set(CRYSTALS),
    'elements HAS ALL "Fe","O" AND nelements=2': {"hematite", "corundum-again", "wustite"},
    'elements HAS ANY "Na","Mg"': {"salt", "nan"},
    'elements HAS ONLY "Fe","O"': {"hematite", "corundum-again", "wustite", "one-atom"},
    'NOT elements HAS ONLY "Fe","O"': {"layered", "salt", "unplaced", "nan"},
    "elements LENGTH 3": {"layered"},
    "_matris_energy_above_hull<0.05": {"hematite", "corundum-again", "wustite", "one-atom", "salt"},
    "_matris_energy_above_hull IS UNKNOWN": {"unplaced", "nan"},
    "NOT _matris_energy_above_hull<0.05": {"layered"},
    'chemical_formula_reduced="Fe2O3" AND nsites=30': {"hematite", "corundum-again"},
    'chemical_formula_anonymous="A3B2"': {"hematite", "corundum-again"},
    'chemical_formula_descriptive STARTS WITH "Li"': {"layered", "unplaced"},
    'chemical_formula_descriptive CONTAINS "F."': set(),
    'chemical_formula_descriptive CONTAINS "("': set(),
    '_matris_state="max_steps" OR _matris_bulk_modulus>=180': {"corundum-again", "wustite"},
    "_matris_min_frequency < -1": {"layered"},
    'last_modified="2026-05-04T12:00:00Z"': set(CRYSTALS),
    'last_modified>"2026-05-04T12:00:00Z"': set(),
    'last_modified!="2026-05-04T12:00:00Z"': set(),
    'last_modified != "2020-01-01T00:00:00Z"': set(CRYSTALS),
    'NOT last_modified>"2026-05-04T12:00:00Z"': set(CRYSTALS),
    'NOT (last_modified<"2026-05-04T12:00:00Z" OR nelements=3)': set(CRYSTALS) - {"layered"},
    "last_modified IS KNOWN": set(CRYSTALS),
    "last_modified IS UNKNOWN": set(),
    "NOT last_modified IS KNOWN": set(),
    'last_modified="2026-05-04T14:00:00+02:00"': set(CRYSTALS),
    "_matris_energy_above_hull < 1e400": set(CRYSTALS) - {"unplaced", "nan"},
    'id="salt-01234567-ba987654" AND type="structures"': {"salt"},
    "space_group_it_number=225": {"wustite", "salt", "unplaced", "nan"},
}


WRONG = [
    {"filter": 'last_modified > "yesterday"'},
    {"filter": 'NOT last_modified = "2026-13-01T00:00:00Z"'},
    {"filter": "nsites >= 99999999999999999999999"},
    {"filter": "NOT nsites = -99999999999999999999999"},
    {"filter": "(" * 300 + "nsites=2" + ")" * 300},
    {"filter": "NOT (" * 300 + "nsites=2" + ")" * 300},
    {"page_offset": "99999999999999999999"},
    {"page_offset": "-3"},
    {"page_limit": "-1"},
    {"page_limit": "x"},
    {"page_cursor": "x"},
    {"email_address": "notmail"},
]


@pytest.mark.parametrize("kind", ["sqlite", "mongodb"])
def test_filters_on_each_store(kind, folder, request):
    from fastapi.testclient import TestClient

    from matris.stores.optimade.server import make_app, open_published, publish

    location = folder if kind == "sqlite" else f"{request.getfixturevalue('mongo_server')}/optimade_{os.getpid()}"
    if kind == "mongodb":
        fill(location)
    candidates, published = open_published(location)
    publish(candidates, published)
    client = TestClient(make_app(published))
    for text, expected in FILTERS.items():
        answer = client.get("/v1/structures", params={"filter": text} if text else {}).json()
        assert {entry["id"].split("-01234567")[0] for entry in answer["data"]} == expected, text
        assert answer["meta"]["data_returned"] == len(expected), text
        assert answer["meta"]["data_available"] == len(CRYSTALS)

    pages, url = [], "/v1/structures?page_limit=3&sort=nelements"
    while url:
        page = client.get(url).json()
        pages += [(entry["attributes"]["nelements"], entry["id"]) for entry in page["data"]]
        url = page["links"]["next"]
    assert pages == sorted(pages)
    assert len(pages) == len(CRYSTALS)
    assert client.get("/v1/structures", params={"filter": "nelements=!"}).status_code == 400
    for wrong in WRONG:
        answer = client.get("/v1/structures", params=wrong)
        text = answer.text
        assert answer.status_code == 400, (wrong, text[:300])
        assert not any(word in text for word in ("Traceback", "sqlite", str(folder), "site-packages", "secantus")), text
    assert client.get("/v1/structures/nobody").json()["data"] is None


def test_a_failing_store_gives_an_error_response(folder, monkeypatch, caplog):
    from fastapi.testclient import TestClient

    from matris.stores.optimade.server import make_app, open_published, publish

    candidates, published = open_published(folder)
    publish(candidates, published)
    client = TestClient(make_app(published), raise_server_exceptions=False)

    for error in (
        StoreError("/home/me/matris.sqlite is gone"),
        AutoReconnect("db.internal:27017"),
        RuntimeError("/home"),
    ):

        def gone(*_, error=error, **__):
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(published, "query", gone)
            answer = client.get("/v1/structures")
        assert answer.status_code == 500
        assert not any(word in answer.text for word in ("/home", "internal:27017", "Traceback"))  # strangers read it
        assert str(error) in caplog.text  # the owner of the server reads the log
        caplog.clear()
    assert client.get("/v1/structures").status_code == 200


def test_publishing_writes_only_what_changed(tmp_path):
    from matris.stores.optimade.server import open_published, publish

    fill(tmp_path)
    candidates, published = open_published(tmp_path)
    assert publish(candidates, published) == len(CRYSTALS)
    assert publish(candidates, published) == 0

    later = utc_now()
    salt, wustite = candidates.documents(["salt-01234567-ba987654", "wustite-01234567-ba987654"])
    candidates.docs.update(
        [salt | {"energy_above_hull": 0.3, "last_updated": later}, wustite | {"state": "failed", "last_updated": later}]
    )
    candidates.data.update({"document_id": "nan-01234567-ba987654", "structure": None}, key="document_id")
    (nan,) = candidates.documents(["nan-01234567-ba987654"])
    candidates.docs.update(nan | {"last_updated": later})
    assert publish(candidates, published) == 3
    assert published.query_one({"id": salt["document_id"]})["_matris_energy_above_hull"] == 0.3
    assert {entry["id"].split("-01234567")[0] for entry in published.query()} == CRYSTALS.keys() - {"wustite", "nan"}


@pytest.fixture(scope="module")
def server(folder):
    """Run `matris optimade serve` in a separate process in another time zone."""
    command = [sys.executable, "-m", "matris.cli", "optimade", "serve", "--store", str(folder), "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | {"TZ": "America/New_York"})
    said = ""
    while not (address := re.search(r"http://[\d.]+:\d+", said)):
        line = process.stderr.readline()
        assert line, said
        said += line
    yield address[0], said
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0


def test_validator_and_client(server, folder, capsys):
    import requests
    from optimade.client import OptimadeClient
    from optimade.validator import ImplementationValidator

    address, said = server
    assert "8 structures served; 4 rejected, failed, duplicate or damaged ones, and references, are not" in " ".join(
        said.split()
    )

    info = requests.get(f"{address}/v1/info/structures", timeout=20).json()["data"]["properties"]
    for field in PROVIDER_FIELDS:
        assert info[field.name]["description"] == field.description
        assert info[field.name].get("unit") == field.unit

    validator = ImplementationValidator(base_url=address, respond_json=True)
    validator.validate_implementation()
    results = validator.results
    with capsys.disabled():
        print(  # noqa: T201 - as the validator's command line does
            f"\noptimade-validator: passed {results.success_count} of {results.success_count + results.failure_count}, "
            f"optional {results.optional_success_count} of "
            f"{results.optional_success_count + results.optional_failure_count}"
        )
    assert validator.valid, results.failure_messages
    assert results.failure_count == results.internal_failure_count == 0
    assert results.success_count > 40
    assert all("references?" in reason for _, reason in results.optional_failure_messages)  # we have none

    candidates = CandidateStore.open(folder)
    client = OptimadeClient(base_urls=[address], silent=True)
    for text, ours in {
        'elements HAS ALL "Fe","O" AND nelements=2': candidates.query(elements=["Fe", "O"]).where("nelements = 2"),
        "_matris_energy_above_hull<0.05": candidates.query().where("energy_above_hull < 0.05"),
        'chemical_formula_reduced="Fe2O3" AND nsites>=10': candidates.query(formula="Fe2O3"),
    }.items():
        (answer,) = client.get(text)["structures"][text].values()
        expected = {d["document_id"]: d for d in ours if d["state"] in {"converged", "max_steps"}}
        expected = {i: d for i, d in expected.items() if d["candidate_id"] in CRYSTALS}
        assert {entry["id"] for entry in answer["data"]} == expected.keys() != set()
        for entry in answer["data"]:
            of_ours = expected[entry["id"]]
            assert entry["attributes"]["_matris_energy_above_hull"] == of_ours["energy_above_hull"]
            assert entry["attributes"]["last_modified"] == "2026-05-04T12:00:00Z"
            crystal = candidates.structure(entry["id"])
            assert entry["attributes"]["lattice_vectors"] == crystal.lattice.matrix.tolist()
            assert entry["attributes"]["cartesian_site_positions"] == crystal.cart_coords.tolist()


def test_commands_say_what_is_wrong(folder, tmp_path):
    import socket

    def said(*words):
        done = CliRunner().invoke(command_line, ["optimade", *map(str, words)])
        return done.exit_code, " ".join(done.output.split())

    code, output = said("export", tmp_path / "all.jsonl", "--store", folder)
    assert (code, output) == (
        0,
        "8 structures exported; 4 rejected, failed, duplicate or damaged ones, and references, are not",
    )
    assert len((tmp_path / "all.jsonl").read_text().splitlines()) == 2 + len(CRYSTALS)
    code, output = said("export", tmp_path / "all.jsonl" / "below-a-file.jsonl", "--store", folder)
    assert code == 1
    assert "cannot write" in output
    code, output = said("serve", "--store", tmp_path / "nothing")
    assert code == 1
    assert "holds no results" in output
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, output = said("serve", "--store", folder, "--port", taken.getsockname()[1])
    assert code == 1
    assert "cannot listen on 127.0.0.1" in output


@pytest.mark.parametrize("name", ["export", "server"])
def test_without_the_extra(name, monkeypatch):
    import importlib

    for module in [m for m in sys.modules if m.split(".")[0] == "optimade" or m == f"matris.stores.optimade.{name}"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "optimade", None)
    with pytest.raises(MatrisError, match=r"pip install 'matris-flows\[optimade\]'"):
        importlib.import_module(f"matris.stores.optimade.{name}")
