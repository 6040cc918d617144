from io import BytesIO, StringIO

import ase.io
import numpy as np
import pytest
from ase.build import bulk
from pymatgen.core import Lattice, Structure
from pymatgen.io.cif import CifWriter
from pymatgen.io.vasp import Poscar

from matris.flows.sources.files import read_stream

SALT = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
POSCAR = "salt\n1.0\n4 0 0\n0 4 0\n0 0 4\nNa Cl\n1 1\ndirect\n0 0 0\n0.5 0.5 0.5\n"
CIF = """data_salt
_cell_length_a 4
_cell_length_b 4
_cell_length_c 4
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
loop_
 _symmetry_equiv_pos_as_xyz
 'x,y,z'
loop_
 _atom_site_label
 _atom_site_type_symbol
 _atom_site_fract_x
 _atom_site_fract_y
 _atom_site_fract_z
 Na1 Na 0 0 0
 Cl1 Cl 0.5 0.5 0.5
"""


def read(name, text):
    (parsed,) = read_stream(name, BytesIO(text.encode()), len(text))
    return parsed


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("1 1", "1 2", "it counts 3 atoms, and lists 2"),
        ("1 1", "1 0", "it counts 1 atoms, and lists 2"),
        ("1 1", "1000000000 1", "it counts 1000000001 atoms, and lists 2"),
        ("1 1", "2 -1", "'2 -1' are no numbers of atoms"),
        ("1 1", "1 1.0", "'1 1.0' are no numbers of atoms"),
        ("1 1", "2", "2 symbols of elements and 1 numbers of atoms"),
        ("0 0 0\n0.5", "0 zero 0\n0.5", "lists 0; then comes '0 zero 0'"),
        ("Na Cl\n1 1\ndirect\n0 0 0\n0.5 0.5 0.5\n", "", "does not say how many atoms"),
    ],
)
def test_atoms_of_a_poscar_are_as_many_as_it_says(old, new, reason):
    assert read("POSCAR", POSCAR).structure is not None
    assert reason in read("POSCAR", POSCAR.replace(old, new, 1)).error


@pytest.mark.parametrize("direct", [True, False])
def test_what_follows_the_atoms_of_a_poscar_is_not_counted(direct):
    velocities = np.ones((len(SALT), 3)).tolist()
    dynamics = [[True, False, True]] * len(SALT)
    text = Poscar(SALT, velocities=velocities, selective_dynamics=dynamics).get_str(direct=direct)
    assert len(read("CONTCAR", text).structure) == len(SALT)
    cell_velocities = "Lattice velocities and vectors\n 1\n" + " 0 0 0\n" * 6 + "\n 0 0 0\n 0 0 0\n"
    assert len(read("CONTCAR", POSCAR + cell_velocities).structure) == 2
    many_symbols = POSCAR.replace("Na Cl\n1 1", "Na\nCl\n1\n1")
    assert len(read("POSCAR", many_symbols).structure) == 2


def test_files_of_other_programs_are_read():
    for fmt, name, options in [("vasp", "POSCAR", {}), ("vasp", "POSCAR", {"direct": True})]:
        stream = StringIO()
        ase.io.write(stream, bulk("NaCl", "rocksalt", a=5.64), format=fmt, **options)
        assert read(name, stream.getvalue()).structure.formula == "Na1 Cl1"
    assert len(read("a.cif", str(CifWriter(SALT, symprec=0.01))).structure) == 8


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("length_b 4", "length_b -4", "the cell length b is -4"),
        ("length_b 4", "length_b 0", "the cell length b is 0"),
        ("length_b 4", "length_b inf", "the cell length b is inf"),
        ("length_b 4", "length_b nan", "the cell length b is nan"),
        ("Cl 0.5", "Cl nan", "site Cl1: the coordinate is not a number: 'nan'"),
        ("alpha 90", "alpha 270", "the cell angle alpha is 270"),
        ("gamma 90", "gamma -90", "the cell angle gamma is -90"),
        ("Cl 0.5", "Cl 1e300", "site Cl1 lies 1e300 cells away"),
        ("x,y,z", "x,y", "'x,y' is no symmetry operation"),
        ("x,y,z", "x,y,q", "'x,y,q' is no symmetry operation"),
        ("x,y,z", "x,x,z", "'x,x,z' is no symmetry operation"),
        ("Cl1 Cl", "Cl1 Kl", "unknown element 'Kl'"),
    ],
)
def test_numbers_and_symmetries_of_a_cif_make_sense(old, new, reason):
    assert read("a.cif", CIF).structure is not None
    assert reason in read("a.cif", CIF.replace(old, new, 1)).error
