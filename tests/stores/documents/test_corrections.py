"""Corrections: MP2020 on the scale `mp`, none on the MatPES scales, an error on unknown scales."""

import gzip
import json
from pathlib import Path

import pytest
from monty.json import MontyDecoder
from pymatgen.core import Composition, Lattice, Structure
from pymatgen.entries.compatibility import MaterialsProject2020Compatibility
from pymatgen.io.vasp.sets import MPRelaxSet

from matris.stores.documents.corrections import (
    _OMAT24_ANIONS,
    _OMAT24_MIXING,
    CorrectionError,
    corrected_entry,
    correction_scheme,
    mp_parameters,
)
from matris.stores.hull.references import load_references

LI_FE_O = Path(__file__).parents[4] / "shared/data/li_fe_o_entries.json.gz"


def rock_salt(cation, anion):
    face_centred = [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]
    other = [[x + 0.5, y, z] for x, y, z in face_centred]
    return Structure(Lattice.cubic(4.3), [cation] * 4 + [anion] * 4, face_centred + other)


def test_iron_oxide_takes_the_oxide_and_the_mixing_correction():
    entry = corrected_entry(rock_salt("Fe", "O"), -50.0, "mp", "feo")
    # MP2020Compatibility.yaml: oxide -0.687 eV/O, Fe -2.256 eV/Fe; four of each in the cell
    assert entry.correction == pytest.approx(4 * (-0.687 - 2.256))
    assert entry.energy == pytest.approx(-50.0 + entry.correction)
    assert entry.uncorrected_energy == -50.0


def test_a_sulphide_of_iron_takes_no_mixing_correction_and_an_alloy_none():
    assert corrected_entry(rock_salt("Fe", "S"), -50.0, "mp").correction == pytest.approx(4 * -0.503)
    assert corrected_entry(rock_salt("Fe", "Al"), -50.0, "mp").correction == 0


@pytest.mark.parametrize(
    "formula", ["FeO", "FeF2", "Fe2O3", "LiCoO2", "FeS", "Fe", "NaCl", "MnOF", "WO3", "FeNi", "ZnO"]
)
def test_hubbard_values_are_those_of_the_input_set(formula):
    composition = Composition(formula)
    species = [element.symbol for element, amount in composition.items() for _ in range(int(amount))]
    structure = Structure(Lattice.cubic(9.0), species, [[i / len(species), 0, 0] for i in range(len(species))])
    incar = MPRelaxSet(structure, user_potcar_functional="PBE").incar
    values = dict(zip(dict.fromkeys(s.specie.symbol for s in structure), incar.get("LDAUU", []), strict=False))
    expected = {symbol: u for symbol, u in values.items() if u}
    parameters = mp_parameters(composition)
    assert parameters["hubbards"] == expected
    assert parameters["run_type"] == ("GGA+U" if expected else "GGA")


@pytest.mark.parametrize("scale", ["matpes-pbe", "matpes-r2scan"])
def test_matpes_energies_are_not_corrected(scale):
    assert corrected_entry(rock_salt("Fe", "O"), -50.0, scale).energy == -50.0


def test_an_unknown_scale_is_an_error_only_for_compositions_with_anions():
    with pytest.raises(CorrectionError, match="known for the energy scale 'my-own', and FeO may need one for O"):
        corrected_entry(rock_salt("Fe", "O"), -50.0, "my-own")
    assert corrected_entry(rock_salt("Fe", "Al"), -50.0, "my-own").energy == -50.0


def test_omat24_has_its_own_parameters_and_does_not_change_those_of_pymatgen():
    # OMat24Compatibility.yaml of fairchem-data-omat 0.2.0: oxide -0.657 eV/O, Fe -2.428 eV/Fe
    entry = corrected_entry(rock_salt("Fe", "O"), -50.0, "omat24")
    assert entry.correction == pytest.approx(4 * (-0.657 - 2.428))
    assert {a.name for a in entry.energy_adjustments} == {
        "OMat24 anion correction (oxide)",
        "OMat24 GGA/GGA+U mixing correction (Fe)",
    }
    assert correction_scheme("omat24", Composition("FeO")) == "OMat24Compatibility"
    assert corrected_entry(rock_salt("Fe", "S"), -50.0, "omat24").correction == pytest.approx(4 * -0.487)
    assert corrected_entry(rock_salt("Fe", "Al"), -50.0, "omat24").correction == 0
    again = corrected_entry(rock_salt("Fe", "O"), -50.0, "mp")
    assert again.correction == pytest.approx(4 * (-0.687 - 2.256))


def test_omat24_has_a_parameter_for_each_of_mp2020():
    peer = MaterialsProject2020Compatibility(check_potcar=False)
    assert set(_OMAT24_ANIONS) == set(peer.comp_correction)
    assert all(set(_OMAT24_MIXING) == set(table) for table in peer.u_corrections.values())


@pytest.mark.filterwarnings("ignore:Failed to guess oxidation states")
@pytest.mark.skipif(
    not LI_FE_O.exists(), reason="needs shared/data/li_fe_o_entries.json.gz, which is not in the repository"
)
def test_li_fe_o_of_the_materials_project_is_corrected_as_by_pymatgen():
    raw = json.loads(gzip.decompress(LI_FE_O.read_bytes()))[::3]
    peers = {
        e.entry_id: e
        for e in MaterialsProject2020Compatibility(check_potcar=False).process_entries(
            MontyDecoder().process_decoded(raw)
        )
    }
    ours = {e.entry_id: e for e in load_references(LI_FE_O, "mp").entries}
    assert {e.entry_id for e in peers.values()} == {r["entry_id"] for r in raw} & ours.keys()
    assert {i: ours[i].energy for i in peers} == pytest.approx({i: e.energy for i, e in peers.items()}, abs=1e-10)
    # the same structures as results of a checkpoint
    small = [e for e in peers.values() if e.composition.num_atoms <= 12][:20]
    for entry in small:
        again = corrected_entry(entry.structure, entry.uncorrected_energy, "mp")
        assert again.energy == pytest.approx(entry.energy, abs=1e-10), entry.entry_id
