"""Corrections: MP2020 on the scale `mp`, none on the MatPES scales, an error on unknown scales."""

import gzip
import json
import random
from math import comb, prod
from pathlib import Path

import pytest
from monty.json import MontyDecoder
from pymatgen.core import Composition, Lattice, Structure
from pymatgen.entries.compatibility import MaterialsProject2020Compatibility
from pymatgen.entries.computed_entries import ComputedEntry, ComputedStructureEntry
from pymatgen.io.vasp.sets import MPRelaxSet

from matris.stores.documents.corrections import (
    _OMAT24_ANIONS,
    _OMAT24_MIXING,
    MP2020,
    OMAT24,
    CorrectionError,
    apply_scheme,
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


def mixed_anions(count):
    """Compositions of 21 to 36 sites with two or three elements that may be anions, and few enough charges to list."""
    chance = random.Random(2020)
    anions, cations = ["O", "N", "F", "Cl", "Br", "I", "Se", "Te", "H"], ["Li", "Na", "Ca", "Mg", "Al", "Y", "Zr", "B"]
    cations += ["Si", "P", "Fe", "Ti", "V", "Sb"]
    found = {}
    while len(found) < count:
        symbols = chance.sample(anions, chance.choice([2, 2, 3])) + chance.sample(cations, chance.choice([1, 2, 2]))
        composition = Composition({symbol: chance.randint(1, 14) for symbol in symbols})
        ways = prod(comb(int(n) + len(element.icsd_oxidation_states) - 1, int(n)) for element, n in composition.items())
        reduced = composition.reduced_composition
        if not 20 < reduced.num_atoms <= 36 or ways > 3000 or reduced.formula in found:
            continue
        if guesses := reduced.oxi_state_guesses(max_sites=-1):
            found[reduced.formula] = guesses[0]
    return found


@pytest.mark.filterwarnings("ignore:Failed to guess oxidation states", "ignore:No structure or oxide_type")
def test_200_compositions_of_mixed_anions_with_more_than_20_sites_are_corrected_as_by_pymatgen_given_the_states():
    scheme = MaterialsProject2020Compatibility(check_potcar=False)
    n_more = 0
    for formula, states in mixed_anions(200).items():
        composition = Composition(formula)
        parameters = mp_parameters(composition)
        data = {"oxide_type": "oxide"}
        ours = ComputedEntry(composition, -5.0 * composition.num_atoms, parameters=parameters, data=dict(data))
        apply_scheme(ours, MP2020)
        theirs = ComputedEntry(composition, 0.0, parameters=parameters, data=data | {"oxidation_states": states})
        expected = {a.name: a.value for a in scheme.get_adjustments(theirs)}
        assert {a.name: a.value for a in ours.energy_adjustments} == pytest.approx(expected, abs=1e-12), formula
        assert ours.data["correction_state"] == "decided", formula
        alone = ComputedEntry(composition, 0.0, parameters=parameters, data=data)
        n_more += len(scheme.get_adjustments(alone)) < len(expected)
    assert n_more > 100  # pymatgen without the states corrects fewer elements


@pytest.mark.parametrize(
    ("formula", "lacking"),  # eV/atom between all anions and only the most electronegative one
    [
        ("YSi9AlON15", 0.201),
        ("Ca5P3ClO12", 0.029),
        ("Mg3B7ClO13", 0.026),
        ("Li10B14Cl2O25", 0.024),
        ("Li20Cl17N", 0.010),
    ],
)
@pytest.mark.parametrize("scheme", [MP2020, OMAT24])
def test_all_anions_of_known_crystals_are_corrected(formula, lacking, scheme):
    composition = Composition(formula)
    entry = ComputedEntry(composition, 0.0, parameters=mp_parameters(composition), data={"oxide_type": "oxide"})
    apply_scheme(entry, scheme)
    smallest = min(abs(a.value) for a in entry.energy_adjustments) / composition.num_atoms
    biggest = max(abs(a.value) for a in entry.energy_adjustments) / composition.num_atoms
    assert len(entry.energy_adjustments) == 2
    if scheme == MP2020:
        assert min(abs(smallest - lacking), abs(biggest - lacking)) < 0.001
    assert entry.data["correction_state"] == "decided"


def test_a_reference_and_a_candidate_of_one_composition_have_one_correction(tmp_path):
    composition = Composition("Ca10P6O24Cl2")
    species = [element.symbol for element, n in composition.items() for _ in range(int(n))]
    apatite = Structure(Lattice.cubic(160), species, [[i / len(species), 0, 0] for i in range(len(species))])
    candidate = corrected_entry(apatite, -290.0, "mp")
    unknown = ComputedStructureEntry(
        apatite, -290.0, parameters=mp_parameters(composition), data={"oxidation_states": {}}, entry_id="unknown"
    )
    path = tmp_path / "entries.json"
    path.write_text(json.dumps([unknown.as_dict()]))
    (reference,) = load_references(path, "mp").entries
    assert candidate.energy == reference.energy == pytest.approx(-290.0 - 24 * 0.687 - 2 * 0.614)


def test_states_that_are_known_are_used_and_those_that_are_no_numbers_refused():
    entry = ComputedEntry("Li3HN2", 0.0, parameters=mp_parameters(Composition("LiH")))
    entry.data["oxidation_states"] = {"Li": 1.0, "H": -1.0, "N": -1.0}
    apply_scheme(entry, MP2020)
    assert {a.name for a in entry.energy_adjustments} == {"MP2020 anion correction (H)", "MP2020 anion correction (N)"}
    for bad in ({"Li": float("nan")}, {"Li": "one"}, [1, 2]):
        entry.data["oxidation_states"] = bad
        with pytest.raises(CorrectionError, match="oxidation states of Li3HN2 are no numbers"):
            apply_scheme(entry, MP2020)


def test_a_crystal_with_oxidation_states_is_corrected_like_one_without():
    plain = rock_salt("Fe", "O")
    decorated = plain.copy()
    decorated.add_oxidation_state_by_element({"Fe": 2, "O": -2})
    zero = plain.copy()
    zero.add_oxidation_state_by_element({"Fe": 0, "O": 0})
    assert corrected_entry(decorated, -50.0, "mp").energy == corrected_entry(plain, -50.0, "mp").energy
    assert corrected_entry(zero, -50.0, "mp").energy == corrected_entry(plain, -50.0, "mp").energy
    assert decorated.composition.elements[0].oxi_state == 2  # the input is as it was


@pytest.mark.parametrize(
    ("formula", "state"),
    [
        ("NaCl", "decided"),
        ("FeNi", "decided"),  # no anions
        ("Ca5SiCl", "undecided"),  # no neutral choice, and Si may be an anion
        ("Li3.5Cl2.25N0.2", "undecided"),  # no whole numbers
    ],
)
def test_undecided_corrections_say_so(formula, state):
    entry = ComputedEntry(formula, 0.0, parameters=mp_parameters(Composition(formula)), data={"oxide_type": "oxide"})
    apply_scheme(entry, MP2020)
    assert entry.data["correction_state"] == state
