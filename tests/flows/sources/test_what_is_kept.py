"""Isotopes, fixed atoms, velocities and charges of inputs: kept, or told in the provenance."""

import json
import warnings
import zipfile

import ase.db
import numpy as np
import pytest
from ase import Atoms
from ase.constraints import FixAtoms, FixBondLength
from ase.io import write
from pymatgen.core import Element, Lattice, Structure
from pymatgen.io.vasp import Poscar

from matris.flows.sources.files import read_candidates
from matris.flows.sources.rattle import rattle
from matris.flows.sources.swap import swap_elements
from matris.stores.documents.candidate import Candidate
from matris.structures import content_id

D = float(Element("D").atomic_mass)
T = float(Element("T").atomic_mass)
H = float(Element("H").atomic_mass)
CELL = "0 2.03 2.03\n2.03 0 2.03\n2.03 2.03 0\n"
CIF = """data_x
_cell_length_a 4.06
_cell_length_b 4.06
_cell_length_c 4.06
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_symmetry_space_group_name_H-M 'F m -3 m'
_chemical_formula_sum 'Li {0}'
_cell_formula_units_Z 4
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
Li1 Li+ 0 0 0 1
"""


def read(folder, name, content):
    path = folder / name
    path.write_text(content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (candidate,) = read_candidates(path)
    assert candidate.error is None
    return candidate


def poscar(symbol="H", scale="1.0", cell=CELL, after="Direct\n0 0 0\n0.5 0.5 0.5\n"):
    return f"hydride\n{scale}\n{cell}Li {symbol}\n1 1\n{after}"


def frame(symbol="H", columns="species:S:1:pos:R:3", rows=("0 0 0", "2.03 2.03 2.03"), header='pbc="T T T"'):
    cell = " ".join(CELL.split())
    return f'2\nLattice="{cell}" Properties={columns} {header}\nLi {rows[0]}\n{symbol} {rows[1]}\n'


def document(symbol):
    content = Structure(Lattice.cubic(3), ["Li", "H"], [[0, 0, 0], [0.5] * 3]).as_dict()
    content["sites"][1]["species"][0]["element"] = symbol
    return json.dumps(content)


HYDRIDES = {
    "a.cif": lambda x: CIF.format(x) + f"{x}1 {x} 0.5 0.5 0.5 1\n",
    "charged.cif": lambda x: CIF.format(x) + f"{x}1 {x}- 0.5 0.5 0.5 1\n",
    "POSCAR": poscar,
    "a.extxyz": frame,
    "reordered.extxyz": lambda x: frame().replace("species:S:1:pos:R:3", "pos:R:3:species:S:1").replace(
        "Li 0 0 0", "0 0 0 Li").replace("H 2.03 2.03 2.03", f"2.03 2.03 2.03 {x}"),
    "a.json": document,
    "a.jsonl": document,
}  # fmt: skip


@pytest.mark.parametrize("name", HYDRIDES)
@pytest.mark.parametrize(("symbol", "mass", "isotope"), [("D", D, "deuterium"), ("T", T, "tritium")])
def test_isotopes_are_hydrogen_with_their_mass(tmp_path, name, symbol, mass, isotope):
    light, heavy = (read(tmp_path, name, HYDRIDES[name](x)) for x in ("H", symbol))
    assert heavy.structure.composition == light.structure.composition
    assert light.structure.site_properties == {}
    assert "warnings" not in light.provenance
    masses = heavy.structure.site_properties["masses"]
    is_hydrogen = [site.specie.symbol == "H" for site in heavy.structure]
    assert np.allclose(masses, [mass if h else Element("Li").atomic_mass for h in is_hydrogen], rtol=1e-3)
    n = sum(is_hydrogen)
    assert heavy.provenance["warnings"] == [
        f"{isotope} at {n} of {2 * n} sites: the mass is kept, the energy does not depend on it"
    ]
    plain = heavy.structure.copy()
    plain.remove_site_property("masses")
    assert content_id(plain) == light.candidate_id


def test_a_site_of_deuterium_and_hydrogen_has_their_mean_mass(tmp_path):
    sites = "D1 D 0.5 0.5 0.5 0.98\nH1 H 0.5 0.5 0.5 0.02\n"
    structure = read(tmp_path, "a.cif", CIF.format("D0.98 H0.02") + sites).structure
    assert structure.is_ordered
    assert structure.formula == "Li4 H4"
    assert structure.site_properties["masses"][4:] == pytest.approx([0.98 * D + 0.02 * H] * 4)
    content = json.loads(document("H"))
    content["sites"][1]["species"] = [{"element": "D", "occu": 0.75}, {"element": "H", "occu": 0.25}]
    structure = read(tmp_path, "a.json", json.dumps(content)).structure
    assert structure.is_ordered
    assert structure.site_properties["masses"][1] == pytest.approx(0.75 * D + 0.25 * H)


def test_masses_of_a_file_are_kept_if_they_are_not_those_of_the_elements(tmp_path):
    columns = "species:S:1:pos:R:3:masses:R:1"
    heavy = read(tmp_path, "a.extxyz", frame("H", columns, ("0 0 0 7.016", "2.03 2.03 2.03 1.008")))
    assert heavy.structure.site_properties["masses"] == [7.016, 1.008]
    assert heavy.provenance["warnings"][0].startswith("Li of mass 7.016 at 1 of 2 sites: the mass is kept")
    usual = read(tmp_path, "a.extxyz", frame("H", columns, ("0 0 0 6.94", "2.03 2.03 2.03 1.008")))
    assert usual.structure.site_properties == {}


SALT = Structure(Lattice.cubic(4.1), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
FLAGS = [[False, False, True], [True, True, True]]


def test_fixed_atoms_of_a_poscar_are_kept(tmp_path):
    fixed = read(tmp_path, "POSCAR", Poscar(SALT, selective_dynamics=FLAGS).get_str()).structure
    assert fixed.site_properties == {"selective_dynamics": FLAGS}
    free = read(tmp_path, "POSCAR", Poscar(SALT, selective_dynamics=[[True] * 3] * 2).get_str()).structure
    assert free.site_properties == {}
    fixed.to(str(tmp_path / "fixed.json"))
    (again,) = read_candidates(tmp_path / "fixed.json")
    assert again.structure.site_properties == {"selective_dynamics": FLAGS}
    dotted = poscar(after="Selective\nDirect\n0 0 0 .FALSE. .F. f\n0.5 0.5 0.5 .TRUE. T t\n")
    assert read(tmp_path, "POSCAR", dotted).structure.site_properties["selective_dynamics"] == [[False] * 3, [True] * 3]


def atoms(constraint=()):
    made = Atoms("CsCl", scaled_positions=[[0, 0, 0], [0.5, 0.5, 0.5]], cell=[4.1] * 3, pbc=True)
    made.set_constraint(constraint)
    return made


@pytest.mark.parametrize("name", ["a.extxyz", "a.db", "b.json"])
def test_fixed_atoms_of_ase_are_kept(tmp_path, name):
    path = tmp_path / name
    if name == "a.extxyz":
        write(path, atoms(FixAtoms([0])), columns=["symbols", "positions", "move_mask"])
    else:
        with ase.db.connect(path) as database:
            database.write(atoms(FixAtoms([0])))
    (candidate,) = read_candidates(path)
    flags = np.asarray(candidate.structure.site_properties["selective_dynamics"])
    assert flags.tolist() == [[False] * 3, [True] * 3]


@pytest.mark.parametrize("name", ["a.db", "b.json"])
def test_other_constraints_masses_and_momenta_of_a_database(tmp_path, name):
    heavy = atoms(FixBondLength(0, 1))
    heavy.set_masses([132.9, 37.0])
    heavy.set_momenta([[1, 0, 0], [-1, 0, 0]], apply_constraint=False)
    with ase.db.connect(tmp_path / name) as database:
        database.write(heavy)
    (candidate,) = read_candidates(tmp_path / name)
    assert candidate.structure.site_properties["masses"] == [132.9, 37.0]
    assert candidate.provenance["warnings"] == [
        "constraints are not used: FixBondLengths",
        "the momenta of the atoms are not used",
        "Cl of mass 37 at 1 of 2 sites: the mass is kept, the energy does not depend on it",
    ]


def test_velocities_are_told(tmp_path):
    moving = read(tmp_path, "CONTCAR", Poscar(SALT, velocities=[[0.1, 0, 0], [0, 0, 0]]).get_str())
    assert moving.provenance["warnings"] == ["what follows the coordinates, such as velocities, is not used"]
    at_rest = read(tmp_path, "CONTCAR", Poscar(SALT, velocities=np.zeros((2, 3)).tolist()).get_str())
    assert "warnings" not in at_rest.provenance
    content = frame("H", "species:S:1:pos:R:3:momenta:R:3", ("0 0 0 1 0 0", "2.03 2.03 2.03 0 0 0"))
    assert read(tmp_path, "a.extxyz", content).provenance["warnings"] == ["the momenta of the atoms are not used"]


def test_a_charge_is_told(tmp_path):
    charged = SALT.copy()
    charged.set_charge(1)
    candidate = read(tmp_path, "a.json", charged.to_json())
    assert candidate.provenance["warnings"] == [
        "the charge of the cell, 1 e, is not used: potentials know neutral cells"
    ]
    assert candidate.structure.charge == 0


def test_warnings_pass_through_archives(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("POSCAR", poscar("D"))
    (candidate,) = read_candidates(tmp_path / "a.zip")
    assert candidate.provenance["member"] == "POSCAR"
    assert candidate.provenance["warnings"][0].startswith("deuterium at 1 of 2 sites")


@pytest.mark.parametrize(
    "content",
    [
        poscar(scale="1.0 1.0 1.0"),
        poscar(scale="1.0D0"),
        poscar(scale=str(-2 * 2.03**3)),
        poscar(scale="1.0   ! Angstrom"),
        poscar(scale="1.0 Angstrom"),
        poscar(scale="2.03 1.015 4.06", cell="0 2 0.5\n1 0 0.5\n1 2 0\n"),
        poscar(cell=CELL.replace("2.03", "0.203D+01")),
        poscar(after="\n0 0 0\n0.5 0.5 0.5\n"),
        poscar(after="Direct\n0 0 0 Li1\n0.5D0 .5 5.d-1 ! H\n"),
        poscar(after="Kartesisch\n0 0 0\n2.03 2.03 2.03\n"),
        poscar(scale="2 1 0.5", cell="0 2.03 4.06\n1.015 0 4.06\n1.015 2.03 0\n", after="C\n0 0 0\n1.015 2.03 4.06\n"),
        poscar("h_s/0123abc"),
        poscar().replace("\n", "\r\n"),
        poscar().replace("Li H\n1 1\n", "Li\nH\n1\n1\n"),
    ],
)
def test_a_poscar_means_what_it_means_to_vasp(tmp_path, content):
    structure = read(tmp_path, "POSCAR", content).structure
    assert structure.formula == "Li1 H1"
    assert structure.volume == pytest.approx(2 * 2.03**3)
    assert structure.lattice.abc == pytest.approx([2.03 * 2**0.5] * 3)
    assert np.allclose(structure[1].coords, [2.03] * 3)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (poscar(scale="1.0 2.0"), "the scale is '1.0 2.0', expected one number or three"),
        (poscar(scale="1.0 -2.0 1.0"), "the three scale factors are 1.0 -2.0 1.0, and must be positive"),
        (poscar(scale="one"), "the scale is 'one'"),
        (poscar(scale="nan"), "the scale is 'nan'"),
        (poscar("Qq"), "unknown name of an element 'Qq'"),
        (poscar(cell="0 2 2\n2 0\n2 2 0\n"), "a lattice vector is missing or has fewer than three numbers"),
        (poscar(after="S\nDirect\n0 0 0 T T\n0.5 0.5 0.5 T T T\n"), "site 0 has selective dynamics 'T T'"),
    ],
)
def test_a_broken_poscar_names_the_cause(tmp_path, content, reason):
    (tmp_path / "POSCAR").write_text(content)
    (candidate,) = read_candidates(tmp_path / "POSCAR")
    assert reason in candidate.error


@pytest.mark.parametrize(
    "content",
    [
        frame().replace("Li", "LI").replace("H ", "h "),
        frame(rows=("0 0 0", "0.203D+01 2.03d0 .203D1")),
        frame().replace("2.03 2.03 2.03", "2.03 2.03 2.03   "),
        frame().replace("\n", "\r\n"),
        frame(header=""),
        frame().replace('Lattice="0 2.03', 'Lattice="0 0.203D+01'),
    ],
)
def test_an_extended_xyz_is_read_whatever_its_spelling(tmp_path, content):
    structure = read(tmp_path, "a.extxyz", content).structure
    assert structure.formula == "Li1 H1"
    assert np.allclose(structure[1].coords, [2.03] * 3)
    assert structure.volume == pytest.approx(2 * 2.03**3)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (frame(header='pbc="T T F"'), "not periodic in three directions"),
        (frame("Mg2+"), "unknown element 'Mg2+'"),
        (frame("Qq"), "unknown element 'Qq'"),
    ],
)
def test_a_frame_that_is_no_crystal_names_the_cause(tmp_path, content, reason):
    (tmp_path / "a.extxyz").write_text(content)
    (candidate,) = read_candidates(tmp_path / "a.extxyz")
    assert reason in candidate.error


def test_generators_keep_fixed_atoms_and_masses():
    properties = {"selective_dynamics": FLAGS, "masses": [132.9, 37.0]}
    parent = Candidate.from_structure(SALT.copy(site_properties=properties), "salt")
    (rattled,) = rattle([parent], amplitude=0.2, strain=0.01, seed=3)
    assert rattled.structure.site_properties == properties
    away = rattled.structure.frac_coords - SALT.frac_coords
    away -= np.rint(away)
    assert np.abs(away[0, :2]).max() < 1e-12
    assert np.abs(away[0, 2]) > 1e-3
    (swapped,) = swap_elements([parent], {"Cs": ["Rb"]})
    assert swapped.structure.site_properties["selective_dynamics"] == FLAGS
    assert swapped.structure.site_properties["masses"] == pytest.approx([85.468, 37.0], abs=1e-3)
