"""The hull on which first-principles energies replace predicted ones."""

from __future__ import annotations

from typing import Any

import pytest
from pymatgen.core import Lattice, Structure
from pymatgen.entries.computed_entries import ComputedEntry

from matris.errors import MatrisError
from matris.stores.dft_labels import DftLabel, DftResult
from matris.stores.documents.documents import hull_fields
from matris.stores.hull.hull import hull_results
from matris.stores.hull.references import References
from matris.stores.hull.with_dft import check_labels, dft_energies, places_with_dft


def salt(a: float = 4.12) -> Structure:
    return Structure(Lattice.cubic(a), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])


def label(
    energy: float, structure: Structure | None = None, candidate_id: str = "salt", **method: str
) -> dict[str, Any]:
    method = {"code": "VASP", "functional": "PBE", "energy_scale": "mp"} | method
    structure = structure or salt()
    forces = [[0.0, 0.0, 0.01]] * len(structure)
    return DftLabel.of(candidate_id, structure, DftResult(energy=energy, forces=forces, **method)).model_dump()


def document(name: str, chemsys: str, composition: dict[str, float], energy: float) -> dict[str, Any]:
    return {
        "document_id": name,
        "state": "converged",
        "chemsys": chemsys,
        "composition": composition,
        "energy_per_atom": energy,
        "correction_scheme": None,
        "checkpoint": {"key": "demo", "sha256": "0" * 64, "energy_scale": "mp"},
        "settings": {"digest": "0" * 12},
    }


DOCUMENTS = [
    document("cs", "Cs", {"Cs": 1}, -1.0),
    document("cl", "Cl", {"Cl": 1}, -2.0),
    document("salt", "Cl-Cs", {"Cs": 1, "Cl": 1}, -3.0),
    document("rival", "Cl-Cs", {"Cs": 1, "Cl": 3}, -2.5),
]


def test_the_lowest_label_with_its_own_corrections():
    labels = [label(-6.4, salt(4.0)), label(-6.5, salt(4.12)), label(-6.3, salt(4.3))]
    energy = dft_energies(labels, "mp", roots={"salt": "root"}).energies["root"]
    assert energy.uncorrected_energy_per_atom == pytest.approx(-3.25)
    assert energy.energy_per_atom == pytest.approx(-3.25 - 0.614 / 2)  # MP2020: -0.614 eV for each Cl
    assert energy.correction_scheme == "MaterialsProject2020Compatibility"
    assert energy.fmax == pytest.approx(0.01)
    assert dft_energies(labels[:1], "mp").energies["salt"].label_id == labels[0]["label_id"]


def test_under_a_pressure_the_enthalpy_decides():
    wide, dense = label(-6.5, salt(4.5)), label(-6.4, salt(4.0))
    found = dft_energies([wide, dense], "mp", pressure=20.0).energies["salt"]
    assert found.label_id == dense["label_id"]
    assert found.enthalpy_per_atom == pytest.approx(hull_fields(salt(4.0), -6.4, "mp", 20.0)["enthalpy_per_atom"])


def test_labels_of_another_scale_or_functional_are_refused():
    for wrong, words in (
        ({"energy_scale": "matpes-pbe"}, "on the energy scale matpes-pbe, but the checkpoint is on mp"),
        ({"functional": "r2SCAN"}, "is by r2SCAN, but energies on the scale mp are by PBE"),
        ({"functional": "SCAN"}, "is by SCAN"),
    ):
        with pytest.raises(MatrisError, match=words):
            dft_energies([label(-6.5, **wrong)], "mp")
    check_labels([label(-6.5, functional="anything", energy_scale="emt")], "emt")  # a scale of the user's own


def test_labels_without_a_known_correction_are_counted():
    found = dft_energies([label(-6.5, energy_scale="mine", functional="X")], "mine")
    assert not found.energies
    assert sum(found.left_out.values()) == 1


def test_a_label_moves_the_labelled_and_those_that_compete_with_it():
    before = hull_results(DOCUMENTS)
    assert before["salt"].is_stable
    assert before["rival"].energy_above_hull == pytest.approx(0.0)
    energy = dft_energies([label(-6.5)], "mp").energies["salt"]  # -3.557 eV/atom
    after = places_with_dft(DOCUMENTS, {"salt": energy})
    # halfway between salt and chlorine: (-3.557 - 2.0) / 2 = -2.7785, so 0.2785 below the rival
    assert after["rival"].energy_above_hull == pytest.approx(0.2785, abs=1e-4)
    assert after["salt"].formation_energy_per_atom == pytest.approx(-3.557 + 1.5, abs=1e-4)
    assert after["rival"].hull_reference.startswith("1 energies from first principles (sha256 ")
    assert after["rival"].hull_reference != places_with_dft(DOCUMENTS, {})["rival"].hull_reference
    assert DOCUMENTS[2]["energy_per_atom"] == -3.0  # unchanged


def test_on_references_the_labelled_compete_too():
    references = References("known", "mp", (ComputedEntry("Cs", -1.0), ComputedEntry("Cl", -2.0)))
    energy = dft_energies([label(-6.5)], "mp").energies["salt"]
    places = places_with_dft(DOCUMENTS, {"salt": energy}, references)
    assert places["salt"].energy_above_hull == 0
    assert places["rival"].energy_above_hull == pytest.approx(0.2785, abs=1e-4)
    assert hull_results(DOCUMENTS, references)["rival"].energy_above_hull < 0  # without the label: below the known
