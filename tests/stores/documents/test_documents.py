"""Candidate documents: emmet's fields, small size, and explicit reasons for missing values."""

import json

import bson
import pytest
from monty.json import MontyDecoder, jsanitize
from pydantic import ValidationError
from pymatgen.core import Lattice, Structure

from matris.stores.documents.documents import ChunkDocument, document_id, hull_fields, unwind

SHA = "0123456789abcdef" * 4


def rock_salt(n=1):
    primitive = Structure(Lattice.from_parameters(3.0, 3.0, 3.0, 60, 60, 60), ["Fe", "O"], [[0, 0, 0], [0.5] * 3])
    return primitive * (1, 1, n)


def chunk(*results, scale="mp", structure=None):
    structure = structure or rock_salt()
    records = [
        {"candidate_id": f"c{i}", "source": "a.cif", "provenance": {"block": "x"}, "nsites": len(structure)} | result
        for i, result in enumerate(results)
    ]
    done = {"converged", "max_steps"}
    arrays = [
        {
            "candidate_id": record["candidate_id"],
            "initial_structure": structure if record["state"] != "rejected" else None,
            "structure": structure if record["state"] in done else None,
            "forces": [[0.0] * 3] * len(structure) if record["state"] in done else None,
        }
        for record in records
    ]
    return ChunkDocument(
        records=records,
        structures=arrays,
        checkpoint={"key": "demo", "sha256": SHA, "energy_scale": scale},
        settings={"fmax": 0.05, "max_steps": 500, "relax_cell": True, "digest": "ba9876543210"},
        versions={"matris-flows": "0.1.0"},
        device="cpu",
        dtype="float32",
    )


CONVERGED = {"state": "converged", "energy": -14.0, "n_steps": 12, "fmax": 0.01, "smax": 1e-4}


def test_a_converged_record_becomes_a_document_with_emmets_fields():
    ((document, arrays),) = unwind(chunk(CONVERGED), "job-1")
    assert document.document_id == "c0-01234567-ba987654" == document_id("c0", SHA, "ba9876543210")
    assert (document.formula_pretty, document.chemsys, document.elements) == ("FeO", "Fe-O", ["Fe", "O"])
    assert (document.nelements, document.nsites) == (2, 2)
    assert document.composition == {"Fe": 1.0, "O": 1.0}
    assert document.volume == pytest.approx(27 / 2**0.5)
    assert document.symmetry.model_dump() == {
        "crystal_system": "Cubic",
        "symbol": "Fm-3m",
        "number": 225,
        "symprec": 0.1,
    }
    assert document.uncorrected_energy_per_atom == -7.0
    assert document.energy_per_atom == pytest.approx(-7.0 + (-0.687 - 2.256) / 2)
    assert sum(document.corrections.values()) == pytest.approx(-0.687 - 2.256)
    assert document.correction_scheme == "MaterialsProject2020Compatibility"
    assert document.energy_above_hull is None
    assert document.job_uuid == "job-1"
    assert arrays.structure["lattice"]["a"] == pytest.approx(3.0)


@pytest.mark.parametrize(("far", "expected"), [(1.5, True), (1.0, False), (None, None)])
def test_the_extrapolation_of_the_potential_is_in_the_document(far, expected):
    ((document, _),) = unwind(chunk(CONVERGED | {"extrapolation": far, "mean_extrapolation": far}))
    assert document.is_extrapolating is expected
    assert document.extrapolation == document.mean_extrapolation == far


def test_omat24_has_corrections_of_its_own():
    ((document, _),) = unwind(chunk(CONVERGED, scale="omat24"))
    assert document.uncorrected_energy_per_atom == -7.0
    assert document.energy_per_atom == pytest.approx(-7.0 + sum(document.corrections.values()) / 2)
    assert sum(document.corrections.values()) == pytest.approx(-0.657 - 2.428)
    assert document.correction_scheme == "OMat24Compatibility"


def test_scales_without_a_correction_scheme_give_a_reason_and_no_energy():
    ((document, _),) = unwind(chunk(CONVERGED, scale="my-own"))
    assert document.uncorrected_energy_per_atom == -7.0
    assert document.energy_per_atom is None
    assert "no corrections are known for the energy scale 'my-own'" in document.correction_scheme


def test_failures_keep_their_formula_and_reason_but_no_energy():
    failed, rejected = unwind(chunk({"state": "failed", "error": "x" * 5000}, {"state": "rejected", "error": "empty"}))
    assert failed[0].formula_pretty == "FeO"
    assert failed[0].symmetry is None
    assert failed[0].energy_per_atom is None
    assert len(failed[0].error) == 1000
    assert (rejected[0].formula_pretty, rejected[0].elements, rejected[0].error) == (None, [], "empty")


def test_documents_stay_small_for_large_cells():
    ((document, _),) = unwind(chunk(CONVERGED, structure=rock_salt(50)))
    assert document.nsites == 100
    assert len(bson.encode(document.model_dump())) < 4000
    assert bson.decode(bson.encode(document.model_dump()))["last_updated"] == document.last_updated


def test_chunks_survive_the_serialisation_of_jobflow():
    original = chunk(CONVERGED, {"state": "rejected", "error": "empty"})
    plain = json.loads(json.dumps(jsanitize(original, strict=True, enum_values=True)))
    for back in (ChunkDocument.model_validate(plain), MontyDecoder().process_decoded(plain)):
        assert back.records == original.records
        assert back.model_dump(exclude={"structures"}) == original.model_dump(exclude={"structures"})
        assert Structure.from_dict(back.structures[0].structure) == rock_salt()
        assert back.structures[1].initial_structure is None


def test_records_and_arrays_must_name_the_same_candidates():
    good = chunk(CONVERGED, CONVERGED).model_dump()
    good["structures"].reverse()
    with pytest.raises(ValidationError, match="same candidates in the same order"):
        ChunkDocument.model_validate(good)


def test_documents_say_whether_their_correction_is_decided():
    decided = hull_fields(rock_salt(), -14.0, "mp")
    assert (decided["correction_state"], decided["oxidation_states"]) == ("decided", {"Fe": 2.0, "O": -2.0})
    species = ["Ca"] * 5 + ["Si", "Cl"]
    odd = Structure(Lattice.cubic(20), species, [[i / 7, 0, 0] for i in range(7)])
    assert hull_fields(odd, -20.0, "mp")["correction_state"] == "undecided"
    assert hull_fields(odd, -20.0, "omat24")["correction_state"] == "undecided"
    assert hull_fields(odd, -20.0, "matpes-pbe")["correction_state"] == "decided"  # nothing to correct
    assert hull_fields(odd, -20.0, "my-scale").get("correction_state") is None
