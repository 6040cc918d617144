"""Entries of a reference file: a right one is kept, a broken one is named or counted, none disappears."""

import json
import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pymatgen.core import Composition, Lattice, Structure
from pymatgen.entries.compatibility import MaterialsProject2020Compatibility
from pymatgen.entries.computed_entries import ComputedEntry

from matris.errors import MatrisError
from matris.stores.documents.corrections import mp_parameters
from matris.stores.hull.references import load_references

LITHIUM = {"composition": {"Li": 1}, "energy": -1.9, "entry_id": "li"}
CHLORIDE = {"composition": {"Li": 1, "Cl": 1}, "energy": -7.3, "entry_id": "licl"}


def broken(**changes):
    return {**CHLORIDE, "entry_id": "bad", **changes}


SALT = Structure(Lattice.cubic(5.1), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]).as_dict()
BROKEN = {
    "NaN energy": (broken(energy=math.nan), "the energy is nan"),
    "infinite energy": (broken(energy=-math.inf), "the energy is -inf"),
    "null energy": (broken(energy=None), "the energy is None"),
    "text energy": (broken(energy="-7.3"), "the energy is '-7.3'"),
    "boolean energy": (broken(energy=True), "the energy is True"),
    "huge energy": (broken(energy=-1e9), "beyond 1e+03 eV/atom"),
    "huge whole number": (broken(energy=10**400), "the energy is 1000"),
    "no energy": ({"composition": {"Li": 1}, "entry_id": "bad"}, "it has no energy"),
    "NaN amount": (broken(composition={"Li": math.nan, "Cl": 1}), "the amount of Li is nan"),
    "infinite amount": (broken(composition={"Li": math.inf}), "the amount of Li is inf"),
    "huge amount": (broken(composition={"Li": 1e12}), "the amount of Li is 1000000000000.0"),
    "negative amount": (broken(composition={"Li": -1, "Cl": 1}), "the amount of Li is -1"),
    "null amount": (broken(composition={"Li": None}), "the amount of Li is None"),
    "text amount": (broken(composition={"Li": "1"}), "the amount of Li is '1'"),
    "boolean amount": (broken(composition={"Li": True}), "the amount of Li is True"),
    "empty composition": (broken(composition={}), "its composition is empty"),
    "zero amounts": (broken(composition={"Li": 0}), "its composition is empty"),
    "null composition": (broken(composition=None), "it has no composition"),
    "no composition": ({"energy": -1.0, "entry_id": "bad"}, "it has no composition"),
    "list as composition": (broken(composition=["Li"]), "the composition is"),
    "number as formula": (broken(composition="12"), ""),
    "unknown element": (broken(composition={"Qq": 1}), ""),
    "dummy species": (broken(composition={"X": 1}), "X"),
    "other structure": (broken(structure=SALT), "its structure is not LiCl"),
    "broken structure": (broken(structure={"sites": [{}]}), "species"),
    "text as parameters": (broken(parameters="GGA"), "its parameters are str"),
    "text as data": (broken(data="x"), "its data are str"),
    "list as U": (broken(parameters={"hubbards": [5.3]}), "its Hubbard U are"),
    "type of sulphide": (broken(data={"sulfide_type": "weird"}), "its sulfide_type is 'weird'"),
    "null": (None, "is no entry, but NoneType"),
    "text": ("LiCl", "is no entry, but str"),
    "number": (3, "is no entry, but int"),
    "id of another": (broken(entry_id="licl", energy=-7.4), "with another composition or energy has its id"),
}


def write(path, content):
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_entry_is_named_with_its_file_or_left_out_and_counted(kind, tmp_path):
    item, message = BROKEN[kind]
    path = write(tmp_path / "phases.json", [LITHIUM, CHLORIDE, item])
    with pytest.raises(MatrisError, match=r"1 of the 3 entries in .*phases\.json are broken: entry ") as error:
        load_references(path, "matpes-pbe")
    assert message in str(error.value)
    assert "3" in str(error.value).partition("broken: ")[2] or "licl" in str(error.value)
    references = load_references(path, "matpes-pbe", broken="omit")
    assert [entry.entry_id for entry in references.entries] == ["li", "licl"]
    assert references.left_out == 1
    assert message in references.omitted[0].reason


def test_a_file_of_broken_entries_or_of_none_is_an_error_either_way(tmp_path):
    for content in ([], {}, [broken(energy=None)], None, "text", 3):
        path = write(tmp_path / "phases.json", content)
        with pytest.raises(MatrisError, match=r"phases\.json"):
            load_references(path, "matpes-pbe", broken="omit")
        with pytest.raises(MatrisError, match=r"phases\.json"):
            load_references(path, "matpes-pbe")


def test_a_copy_of_an_entry_is_read_once_and_counted(tmp_path):
    references = load_references(write(tmp_path / "a.json", [LITHIUM, CHLORIDE, CHLORIDE]), "matpes-pbe")
    assert [entry.entry_id for entry in references.entries] == ["li", "licl"]
    assert references.reasons == {"a copy of another entry": 1}


def test_entries_without_ids_are_all_kept(tmp_path):
    items = [{k: v for k, v in each.items() if k != "entry_id"} for each in (LITHIUM, CHLORIDE, LITHIUM)]
    assert len(load_references(write(tmp_path / "a.json", items), "matpes-pbe").entries) == 3


def test_a_formula_or_a_structure_stands_for_a_composition(tmp_path):
    items = [broken(composition="Li2O"), {"structure": SALT, "energy": -6.0, "entry_id": "salt"}]
    entries = load_references(write(tmp_path / "a.json", items), "matpes-pbe").entries
    assert [entry.reduced_formula for entry in entries] == ["Li2O", "NaCl"]


NUMBERS = st.one_of(
    st.floats(-50, 50), st.floats(), st.none(), st.booleans(), st.text(max_size=3), st.integers(), st.just("1")
)
AMOUNTS = st.one_of(st.integers(1, 8), NUMBERS)
JSON = st.recursive(NUMBERS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner))
ITEMS = st.one_of(
    st.fixed_dictionaries(
        {
            "composition": st.dictionaries(
                st.sampled_from(["Li", "Cl", "O", "H", "N", "Qq", "X0+"]), AMOUNTS, max_size=3
            )
        },
        optional={
            "energy": NUMBERS,
            "entry_id": st.one_of(st.none(), st.sampled_from(["a", "b", "c"]), st.integers(0, 3)),
            "data": st.one_of(JSON, st.fixed_dictionaries({}, optional={"oxidation_states": JSON, "oxide_type": JSON})),
            "parameters": st.one_of(JSON, st.fixed_dictionaries({}, optional={"run_type": JSON, "hubbards": JSON})),
            "structure": JSON,
        },
    ),
    JSON,
)


@pytest.mark.parametrize("scale", ["matpes-pbe", "mp", "my-scale"])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(items=st.lists(ITEMS, max_size=5))
def test_every_entry_is_kept_or_counted_whatever_a_file_holds(scale, items, tmp_path):
    path = write(tmp_path / "any.json", items)
    try:
        references = load_references(path, scale, broken="omit")
    except MatrisError as error:
        message = str(error)
    else:
        message = ""
    if message:
        assert "any.json" in message
        return
    assert len(references.entries) + references.left_out == len(items)
    assert all(each.reason for each in references.omitted)
    for entry in references.entries:
        assert math.isfinite(entry.energy_per_atom)
        assert abs(entry.uncorrected_energy_per_atom) < 1e7
        assert all(amount >= 0 for amount in entry.composition.values())
    for place in references.space.phases.values():
        assert all(math.isfinite(phase.energy) for phase in place)


def with_pseudopotentials(name, formula, energy, labels):
    composition = Composition(formula)
    parameters = mp_parameters(composition) | {
        "potcar_spec": [{"titel": f"PAW_PBE {label} 06Sep2000", "hash": None} for label in labels]
    }
    data = {"oxide_type": "oxide"} if "O" in composition.chemical_system_set else {}
    return ComputedEntry(composition, energy, parameters=parameters, entry_id=name, data=data)


def test_other_pseudopotentials_are_left_out_as_by_pymatgen(tmp_path):
    entries = [
        with_pseudopotentials("yb 2", "Yb2O3", -36.0, ["Yb_2", "O"]),
        with_pseudopotentials("yb 3", "Yb2O3", -44.0, ["Yb_3", "O"]),
        with_pseudopotentials("pv", "Fe2O3", -33.0, ["Fe_pv", "O"]),
        with_pseudopotentials("no pv", "Fe2O3", -35.0, ["Fe", "O"]),
        with_pseudopotentials("soft", "Fe2O3", -36.0, ["Fe_pv", "O_s"]),
        with_pseudopotentials("iron", "Fe", -8.4, ["Fe_pv"]),
    ]
    unreadable = with_pseudopotentials("unreadable", "FeO", -10.0, ["Fe_pv", "O"])
    unreadable.parameters["potcar_spec"] = [{"titel": None}]
    peers = MaterialsProject2020Compatibility().process_entries(
        [ComputedEntry.from_dict(entry.as_dict()) for entry in entries], on_error="ignore"
    )
    path = write(tmp_path / "a.json", [entry.as_dict() for entry in [*entries, unreadable]])
    references = load_references(path, "mp")
    assert {e.entry_id: e.energy for e in references.entries} == pytest.approx({e.entry_id: e.energy for e in peers})
    reasons = dict(references.omitted)
    assert sorted(reasons) == sorted({"yb 3", "no pv", "soft", "unreadable"})
    assert reasons["no pv"] == "other pseudopotentials than Fe_pv, O"
    assert "cannot be read" in reasons["unreadable"]
    symbols = [{**entry.as_dict()} for entry in entries]
    for each in symbols:
        each["parameters"]["potcar_symbols"] = [s["titel"] for s in each["parameters"].pop("potcar_spec")]
    assert load_references(write(tmp_path / "b.json", symbols), "mp").left_out == 3
    references.write(tmp_path / "kept.json")
    assert load_references(tmp_path / "kept.json", "mp").sha256 == references.sha256
