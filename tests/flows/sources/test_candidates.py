"""Structure files in, candidates out: every broken file or frame becomes a reason."""

import gzip
import json

import numpy as np
import pytest
from ase import Atoms
from ase.io import write
from monty.json import jsanitize
from pymatgen.core import Lattice, Structure
from pymatgen.entries.computed_entries import ComputedStructureEntry

from matris.errors import MatrisError
from matris.flows.sources.files import read_candidates
from matris.stores.documents.candidate import Candidate
from matris.structures import content_id, problem_with

CIF = """data_{name}
{header}_cell_length_a 4.0
_cell_length_b {b}
_cell_length_c 4.0
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
{atoms}
"""
GOOD = "Cs1 Cs 0 0 0 1\nCl1 Cl 0.5 0.5 0.5 1"


def cif(atoms=GOOD, *, name="x", header="", b="4.0"):
    return CIF.format(name=name, header=header, b=b, atoms=atoms)


@pytest.fixture
def cscl():
    return Structure(Lattice.cubic(4.0), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])


def read_one(tmp_path, text, name="a.cif"):
    path = tmp_path / name
    path.write_text(text)
    (candidate,) = read_candidates(path)
    return candidate


UNREADABLE = {
    "empty": ("", "empty"),
    "garbage": ("hello\nworld\n", "no data block"),
    "NaN coordinate": (cif("Cs1 Cs nan 0 0 1"), "coordinate is not a number"),
    "text coordinate": (cif("Cs1 Cs abc 0 0 1"), "'abc'"),
    "unknown element": (cif("Xx1 Xx 0 0 0 1"), "unknown element 'Xx'"),
    "unknown element that begins like a known one": (cif("Kx1 Kx 0 0 0 1"), "unknown element 'Kx'"),
    "same site twice": (cif("Cs1 Cs 0 0 0 1\nCl1 Cl 0 0 0 1"), "two atoms on one site"),
    "negative occupancy": (cif("Cs1 Cs 0 0 0 -1\nCl1 Cl 0.5 0.5 0.5 1"), "occupancy -1"),
    "an element without sites": (cif("Cs1 Cs 0 0 0 0\nCl1 Cl 0.5 0.5 0.5 1"), "Missing elements Cs"),
    "formula that differs": (cif(header="_chemical_formula_sum 'Cs2 Cl1'\n"), "Incorrect stoichiometry"),
    "no atoms": (cif(""), "loop without values"),
    "truncated": (cif()[:-20], "truncated"),
    "flat cell": (cif(b="0.0"), "no volume"),
    "NaN cell": (cif(b="nan"), "cell length b is nan"),
    "no cell": (cif().replace("_cell_length_b 4.0\n", ""), "cell parameters are incomplete"),
    "no sites": ("data_x\n_cell_length_a 4\n", "unreadable CIF"),
    "unknown group": (cif(header="_symmetry_space_group_name_H-M 'Q m n n'\n"), "unknown space group 'Q m n n'"),
    "binary": ("\0\1\2", "no data block"),
}


@pytest.mark.parametrize(("text", "reason"), UNREADABLE.values(), ids=UNREADABLE)
def test_an_unreadable_cif_is_a_candidate_with_a_reason(tmp_path, text, reason):
    candidate = read_one(tmp_path, text)
    assert candidate.structure is None
    assert reason in candidate.error
    assert "\n" not in candidate.error
    assert candidate.source.endswith("a.cif")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (cif("Cs1 Cs 0 0 0 0.5\nK1 K 0 0 0 0.5\nCl1 Cl 0.5 0.5 0.5 1"), "disordered site 0"),
        (cif("Cs1 Cs 0 0 0 1\nCs2 Cs 0.01 0 0 1"), "overlapping atoms"),
    ],
)
def test_a_readable_structure_that_cannot_be_computed_keeps_its_structure(tmp_path, text, reason):
    candidate = read_one(tmp_path, text)
    assert candidate.error is None
    assert reason in problem_with(candidate.structure)
    assert candidate.candidate_id == content_id(candidate.structure)


def test_the_same_crystal_has_one_identity_in_every_format(tmp_path, cscl):
    cscl.to(str(tmp_path / "a.cif"))
    cscl.to(str(tmp_path / "POSCAR"), fmt="poscar")
    cscl.to(str(tmp_path / "c.json"))
    cscl.to_ase_atoms().write(tmp_path / "d.extxyz")
    decorated = cscl.copy(site_properties={"magmom": [2.0, 0.0]})
    decorated.add_oxidation_state_by_element({"Cs": 1, "Cl": -1})
    decorated.to(str(tmp_path / "e.json"))
    with gzip.open(tmp_path / "f.cif.gz", "wt") as stream:
        stream.write(cif())
    candidates = list(read_candidates(tmp_path))
    assert len(candidates) == 6
    assert {c.error for c in candidates} == {None}
    ids = {c.candidate_id for c in candidates if not c.source.endswith(("a.cif", "f.cif.gz"))}
    assert ids == {content_id(cscl)}
    assert not any(c.structure.site_properties for c in candidates)


def test_folders_are_read_in_sorted_order_and_other_files_passed_over(tmp_path):
    for name in ("b.cif", "a.cif", "sub/c.cif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(cif())
    (tmp_path / "README.md").write_text("no structure")
    (tmp_path / ".hidden.cif").write_text("")
    names = [c.source.removeprefix(f"{tmp_path}/") for c in read_candidates([tmp_path])]
    assert names == ["a.cif", "b.cif", "sub/c.cif"]


def test_missing_paths_and_empty_folders_are_errors(tmp_path):
    with pytest.raises(MatrisError, match="nowhere"):
        read_candidates([tmp_path / "nowhere"])
    with pytest.raises(MatrisError, match="no structure files"):
        read_candidates(tmp_path)


def test_every_block_of_a_cif_stands_alone(tmp_path):
    path = tmp_path / "many.cif"
    meta = "data_global\n_publ_section_title\n;\ndata_ this is prose\n;\n"
    path.write_text(meta + cif(name="one") + cif("Zz1 Zz 0 0 0 1", name="two") + cif(name="three", b="5.0"))
    one, two, three = read_candidates(path)
    assert [c.provenance for c in (one, two, three)] == [{"block": "one"}, {"block": "two"}, {"block": "three"}]
    assert one.structure.formula == "Cs1 Cl1"
    assert "Zz" in two.error
    assert three.structure.lattice.b == 5.0


def test_frames_of_extended_xyz_stand_alone(tmp_path):
    path = tmp_path / "many.extxyz"
    good = Atoms("CsCl", scaled_positions=[[0, 0, 0], [0.5] * 3], cell=[4, 4, 4], pbc=True)
    molecule = Atoms("H2", [[0, 0, 0], [0, 0, 0.7]])
    write(path, [good, molecule, good], format="extxyz")
    text = path.read_text() + '1\nLattice="3 0 0 0 3 0 0 0 3" pbc="T T T"\nXx 0 0 0\n2\npbc'
    path.write_text(text)
    first, second, third, fourth, fifth = read_candidates(path)
    assert first.candidate_id == third.candidate_id
    assert [c.provenance["frame"] for c in (first, third, fifth)] == [0, 2, 4]
    assert "not periodic" in second.error
    assert "Xx" in fourth.error
    assert "truncated" in fifth.error


def test_a_nan_coordinate_in_xyz_is_left_to_the_check(tmp_path):
    candidate = read_one(tmp_path, '1\nLattice="3 0 0 0 3 0 0 0 3"\nSi nan 0 0\n', "a.xyz")
    assert "NaN" in (candidate.error or problem_with(candidate.structure))


def test_a_poscar_without_symbols_is_refused_instead_of_guessed(tmp_path):
    text = "no names\n1.0\n4 0 0\n0 4 0\n0 0 4\n1 1\ndirect\n0 0 0\n0.5 0.5 0.5\n"
    assert "does not name its elements" in read_one(tmp_path, text, "POSCAR").error
    assert read_one(tmp_path, text.replace("1 1\n", "Cs Cl\n1 1\n"), "POSCAR").structure.formula == "Cs1 Cl1"


def test_json_takes_structures_entries_lists_and_names_and_builds_nothing_else(tmp_path, cscl):
    entry = ComputedStructureEntry(cscl, -6.0).as_dict()
    evil = {"@module": "os", "@class": "system", "command": "false"}
    content = [json.loads(cscl.to_json()), entry, evil]
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content))
    one, two, three = read_candidates(path)
    assert one.candidate_id == two.candidate_id == content_id(cscl)
    assert "no pymatgen structure" in three.error
    path.write_text(json.dumps({"first": entry, "second": evil}))
    assert [c.provenance["name"] for c in read_candidates(path)] == ["first", "second"]
    assert "unreadable JSON" in read_one(tmp_path, "{", "b.json").error


def test_files_that_cannot_be_decompressed_or_recognised_are_candidates_too(tmp_path):
    assert "unreadable file" in read_one(tmp_path, "not gzip", "a.cif.gz").error
    assert "unknown type" in read_one(tmp_path, "text", "notes.txt").error


def test_identities_of_unreadable_inputs_do_not_depend_on_the_folder(tmp_path):
    (tmp_path / "sub").mkdir()
    for folder in (tmp_path, tmp_path / "sub"):
        (folder / "a.cif").write_text("broken")
    one, two = read_candidates(tmp_path)
    assert one.candidate_id == two.candidate_id
    assert len(one.candidate_id) == 20
    assert read_one(tmp_path, "broken too").candidate_id != one.candidate_id


def test_a_candidate_passes_through_json(cscl):
    candidate = Candidate.from_structure(cscl, "test", step=1)
    back = Candidate.model_validate(json.loads(json.dumps(jsanitize(candidate, strict=True))))
    assert back.candidate_id == content_id(back.structure) == candidate.candidate_id
    assert back.provenance == {"step": 1}
    assert np.allclose(back.structure.frac_coords, cscl.frac_coords)
