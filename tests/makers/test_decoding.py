"""Stored Makers: only classes of this package are imported."""

from __future__ import annotations

import json
import sys

import pytest
from jobflow import OutputReference
from monty.json import jsanitize
from pymatgen.core import Lattice, Structure

from matris.errors import StoreError
from matris.files.stored_objects import decode_structure
from matris.flows.sources.files import read_candidates
from matris.flows.sources.known_phases import known_phases
from matris.makers import BatchRelaxMaker, BatchStaticMaker
from matris.makers.decoding import TRUSTED, decode_maker, environment_for
from matris.stores.candidate_store import CandidateStore
from matris.stores.database.jobstore import open_job_store, read_output
from matris.stores.documents.candidate import Candidate
from matris.stores.documents.documents import ChunkDocument
from matris.training.data import json_documents
from matris.training.data.labelled import LabelOptions, Rejected

HOSTILE = [
    {"@module": "os", "@callable": "system"},
    {"@module": "this", "@class": "Anything"},
    {"@module": "this", "@callable": "c", "@bound": None},
    {"@module": "builtins", "@class": "exec", "args": "1"},
    {"@module": "matris.makers.batch_relax", "@callable": "replace"},
    {"@module": "matris.makers.batch_relax", "@class": "BatchRelaxMaker", "@bound": {"@module": "this"}},
    {"@module": "matris.makers.batch", "@class": "Structure"},
    {"@module": "matris.makers.batch", "@class": "Path"},
    {"@module": "matris.makersX", "@class": "BatchRelaxMaker"},
    {"@module": "matris.makers.none", "@class": "BatchRelaxMaker"},
    {"@module": "matris.makers.batch_relax", "@class": "BatchRelaxMaker.make"},
    {"@module": ["os"], "@class": "system"},
    {"@class": "BatchRelaxMaker"},
    {"@module": "subprocess", "@class": "Popen", "args": "true"},
]


@pytest.mark.parametrize("hostile", HOSTILE, ids=str)
@pytest.mark.parametrize(
    "place",
    [
        lambda _, x: x,
        lambda maker, x: maker | {"first": x},
        lambda maker, x: maker | {"name": x},
        lambda maker, x: maker | {"relax_kwargs": {"symprec": x}},
        lambda maker, x: maker | {"relax_kwargs": {"symprec": {"a": [1.0, [x]]}}},
        lambda maker, x: maker | {"first": maker | {"tags": [x]}},
    ],
)
def test_other_classes_and_functions_are_refused(hostile, place):
    sys.modules.pop("this", None)
    with pytest.raises(StoreError, match=r"decoded|imported"):
        decode_maker(place(BatchRelaxMaker().as_dict(), hostile))
    assert "this" not in sys.modules


def test_makers_are_decoded():
    maker = BatchStaticMaker(dtype="float64", first=BatchRelaxMaker(max_steps=3, fmax=0.2), tags=["a"])
    assert decode_maker(maker.as_dict()) == maker
    with pytest.raises(StoreError, match="unknown_field"):
        decode_maker(BatchRelaxMaker().as_dict() | {"unknown_field": 1})


@pytest.mark.parametrize("hostile", HOSTILE[:4], ids=str)
def test_structures_hold_known_classes(hostile):
    salt = Structure(Lattice.cubic(3.5), ["Cs", "Cl"], [[0, 0, 0], [0.5] * 3], site_properties={"magmom": [0.0, 1.0]})
    assert decode_structure(salt.as_dict()) == salt
    document = salt.as_dict()
    document["sites"][1]["properties"]["magmom"] = {"deep": [hostile]}
    sys.modules.pop("this", None)
    with pytest.raises(StoreError, match=r"sites\.1\.properties\.magmom\.deep\.0 names"):
        decode_structure(document)
    assert "this" not in sys.modules


def test_own_makers_are_decoded_where_their_module_is_trusted(tmp_path, monkeypatch):
    (tmp_path / "my_makers.py").write_text(
        "from dataclasses import dataclass\n"
        "from matris.makers import BatchRelaxMaker\n"
        "@dataclass\n"
        "class MyMaker(BatchRelaxMaker):\n"
        "    mine: int = 0\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv(TRUSTED, raising=False)
    document = BatchRelaxMaker().as_dict() | {"@module": "my_makers", "@class": "MyMaker", "mine": 3}
    with pytest.raises(StoreError, match=r"names my_makers.MyMaker.*set MATRIS_MAKERS to its module"):
        decode_maker(document)
    assert "my_makers" not in sys.modules

    monkeypatch.setenv(TRUSTED, environment_for(document)[TRUSTED])
    assert decode_maker(document).mine == 3

    monkeypatch.delenv(TRUSTED)
    assert decode_maker(document).mine == 3  # the module is imported already
    sys.modules.pop("my_makers")


HOSTILE_SITE = {"@module": "this", "@class": "Anything"}


def hostile_salt() -> dict:
    """Make a structure with a class of another package at one of its sites."""
    salt = Structure(Lattice.cubic(3.5), ["Cs", "Cl"], [[0, 0, 0], [0.5] * 3], site_properties={"magmom": [0.0, 1.0]})
    document = salt.as_dict()
    document["sites"][1]["properties"]["magmom"] = HOSTILE_SITE
    return document


def test_stored_candidates_hold_known_classes(tmp_path):
    store = open_job_store(tmp_path)
    candidate = Candidate.from_structure(Structure(Lattice.cubic(2.87), ["Fe"], [[0, 0, 0]]), "iron.cif")
    content = jsanitize(candidate.model_dump(), strict=True)
    assert Candidate.model_validate(content) == candidate
    sys.modules.pop("this", None)
    with pytest.raises(StoreError, match=r"sites\.1\.properties\.magmom names this\.Anything"):
        Candidate.model_validate(content | {"structure": hostile_salt()})
    with pytest.raises(StoreError, match=r"names this\.Anything"):
        BatchRelaxMaker().make.original(BatchRelaxMaker(), [content | {"structure": hostile_salt()}])

    output = {"documents": [{"first": HOSTILE_SITE, "second": OutputReference("another job").as_dict()}]}
    store.update({"uuid": "job", "index": 1, "output": output}, key=["uuid", "index"])
    assert read_output(store, "job") == json.loads(json.dumps(output))
    with pytest.raises(StoreError, match="no output of job none"):
        read_output(store, "none")
    assert "this" not in sys.modules


def test_hostile_outputs_are_refused_and_the_others_unwound(tmp_path):
    job_store = open_job_store(tmp_path)
    iron = Structure(Lattice.cubic(2.87), ["Fe"], [[0, 0, 0]])
    for uuid, structure in (("hostile", hostile_salt()), ("iron", iron.as_dict())):
        chunk = ChunkDocument(
            records=[{"candidate_id": uuid, "source": uuid, "state": "converged", "energy": -8.0}],
            structures=[{"candidate_id": uuid, "initial_structure": structure, "structure": structure}],
            checkpoint={"key": "demo", "sha256": "0" * 64, "energy_scale": "mp"},
            settings={"fmax": 0.05, "max_steps": 500, "relax_cell": True, "digest": "0" * 12},
            device="cpu",
            dtype="float32",
        )
        job_store.update([{"uuid": uuid, "index": 1, "output": chunk.model_dump()}], save={"data": ["structures"]})
    sys.modules.pop("this", None)
    store = CandidateStore.beside(job_store)
    built = store.build(job_store)
    assert built.n_documents == 1
    assert "names this.Anything" in built.refused["hostile-1"]
    assert "this" not in sys.modules


def test_structures_in_files_hold_known_classes(tmp_path):
    file = tmp_path / "salt.json"
    file.write_text(json.dumps(hostile_salt()))
    sys.modules.pop("this", None)
    (candidate,) = read_candidates([file])
    assert "names this.Anything" in candidate.error

    mixed = hostile_salt()
    mixed["sites"][0]["species"] = [{"element": "Cs", "occu": 0.5}, {"element": "Rb", "occu": 0.5}]
    outcome = json_documents.from_document("here", {"structure": mixed, "energy": -1.0}, LabelOptions())
    assert isinstance(outcome, Rejected)
    assert "names this.Anything" in outcome.detail

    entry = {"composition": {"Cs": 1, "Cl": 1}, "energy": -6.0, "entry_id": "salt", "structure": hostile_salt()}
    file.write_text(json.dumps([entry]))
    (candidate,) = known_phases(file, ["Cl-Cs"])
    assert "names this.Anything" in candidate.error
    assert "this" not in sys.modules
