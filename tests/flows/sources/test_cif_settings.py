"""CIFs that name a space group and list no operations, and what they say of the whole cell."""

import math

import gemmi
import numpy as np
import pytest
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure

from matris.flows.sources.files import read_candidates
from matris.structures import problem_with

THIRDS = (3.209, 3.209, 5.211, 90, 90, 120)


def text(cell, sites, head="", columns=()):
    names = ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")
    lines = ["data_x", *(f"_cell_{name} {value}" for name, value in zip(names, cell, strict=True)), head, "loop_"]
    lines += [f"_atom_site_{name}" for name in ("label", "type_symbol", "fract_x", "fract_y", "fract_z", *columns)]
    lines += [f"{row.split()[0]}{i} {row}" for i, row in enumerate(sites, 1)]
    return "\n".join(lines) + "\n"


def read(folder, content):
    path = folder / "a.cif"
    path.write_text(content)
    (candidate,) = read_candidates(path)
    return candidate


def named(symbol, number=None):
    head = f"_symmetry_space_group_name_H-M '{symbol}'" if symbol else ""
    return head + (f"\n_symmetry_Int_Tables_number {number}" if number else "")


def cubic(a):
    return (a, a, a, 90, 90, 90)


CRYSTALS = {
    "Cu2O by origin 2": (cubic(4.27), ["Cu 0 0 0", "O 0.25 0.25 0.25"], "P n -3 m :2", "Cu4 O2", 224),
    "Cu2O by origin 1": (cubic(4.27), ["O 0 0 0", "Cu 0.25 0.25 0.25"], "P n -3 m :1", "Cu4 O2", 224),
    "Cu2O of ICSD": (cubic(4.27), ["Cu 0 0 0", "O 0.25 0.25 0.25"], "P n -3 m Z", "Cu4 O2", 224),
    "Si of ICSD, first": (cubic(5.431), ["Si 0 0 0"], "F d -3 m S", "Si8", 227),
    "Si of ICSD, second": (cubic(5.431), ["Si 0.125 0.125 0.125"], "Fd-3mZ", "Si8", 227),
    "Si with an underscore": (cubic(5.431), ["Si 0.125 0.125 0.125"], "F d -3 m _2", "Si8", 227),
    "Si in words": (cubic(5.431), ["Si 0.125 0.125 0.125"], "F 41/d -3 2/m (origin choice 2)", "Si8", 227),
    "anatase 1": ((3.785, 3.785, 9.514, 90, 90, 90), ["Ti 0 0 0", "O 0 0 0.2081"], "I 41/a m d :1", "Ti4 O8", 141),
    "anatase 2": ((3.785, 3.785, 9.514, 90, 90, 90), ["Ti 0 0.75 0.125", "O 0 0.75 0.3331"], "I41/amdZ", "Ti4 O8", 141),
    "PbO": ((3.97, 3.97, 5.02, 90, 90, 90), ["O 0 0 0", "Pb 0 0.5 0.2385"], "P 4/n m m S", "Pb2 O2", 129),
    "Bi, hexagonal": ((4.546, 4.546, 11.862, 90, 90, 120), ["Bi 0 0 0.2336"], "R -3 m", "Bi6", 166),
    "Bi, rhombohedral": ((4.746, 4.746, 4.746, 57.23, 57.23, 57.23), ["Bi 0.2336 0.2336 0.2336"], "R -3 m", "Bi2", 166),
    "Bi, named R": ((4.746, 4.746, 4.746, 57.23, 57.23, 57.23), ["Bi 0.2336 0.2336 0.2336"], "R -3 m :R", "Bi2", 166),
    "Bi, named H": ((4.546, 4.546, 11.862, 90, 90, 120), ["Bi 0 0 0.2336"], "R-3m H", "Bi6", 166),
    "corundum": (
        (4.759, 4.759, 12.991, 90, 90, 120), ["Al 0 0 0.3522", "O 0.3063 0 0.25"], "R -3 c", "Al12 O18", 167
    ),
    "P 21/n": ((5.0, 6.0, 7.0, 90, 94, 90), ["Ti 0.1 0.2 0.3"], "P 21/n", "Ti4", 14),
    "P 1 1 21/b": ((5.0, 6.0, 7.0, 90, 90, 94), ["Ti 0.1 0.2 0.3"], "P 1 1 21/b", "Ti4", 14),
    "P 21/b, short": ((5.0, 6.0, 7.0, 90, 90, 94), ["Ti 0.1 0.2 0.3"], "P2_1/b", "Ti4", 14),
    "I 2/a": ((5.0, 6.0, 7.0, 90, 94, 90), ["Ti 0.1 0.2 0.3"], "I2/a", "Ti8", 15),
    "Pbnm": ((5.0, 6.0, 7.0, 90, 90, 90), ["Ti 0.1 0.2 0.35"], "Pbnm", "Ti8", 62),
    "P n n n": ((5.0, 6.0, 7.0, 90, 90, 90), ["Ti 0.1 0.2 0.3"], "P n n n :1", "Ti8", 48),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("cell", "sites", "symbol", "formula", "number"), CRYSTALS.values(), ids=CRYSTALS)
def test_the_named_setting_makes_the_crystal(tmp_path, cell, sites, symbol, formula, number):
    structure = read(tmp_path, text(cell, sites, named(symbol, number))).structure
    assert structure.formula == formula
    assert problem_with(structure) is None
    assert structure.get_space_group_info()[1] == number


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "number", [5, 9, 14, 15, 38, 48, 62, 64, 70, 86, 88, 134, 141, 146, 155, 166, 201, 224, 227, 228]
)
def test_every_setting_of_a_group_makes_the_crystal_that_its_operations_make(tmp_path, number):
    """The reference is the same crystal with its operations listed, as a sweep over all settings of the group."""
    for group in (s for s in gemmi.spacegroup_table() if s.number == number):
        # a lattice that all settings of the group fit, as the mean over its operations of an arbitrary metric
        operations = [np.array(op.rot) / 24 for op in group.operations()]
        metric = np.array([[36.0, 3, 2], [3, 42.0, 4], [2, 4, 50.0]])
        metric = np.mean([r.T @ metric @ r for r in operations], axis=0)
        lengths = np.sqrt(np.diag(metric))
        angles = [math.degrees(math.acos(metric[i, j] / lengths[i] / lengths[j])) for i, j in ((1, 2), (0, 2), (0, 1))]
        cell, sites = (*lengths, *angles), ["Ti 0.137 0.211 0.343"]
        listed = "loop_\n_symmetry_equiv_pos_as_xyz\n" + "\n".join(f"'{op.triplet()}'" for op in group.operations())
        wanted = read(tmp_path, text(cell, sites, listed)).structure
        found = read(tmp_path, text(cell, sites, named(group.xhm()))).structure
        assert len(found) == len(group.operations()), group.xhm()
        assert np.allclose(sorted(found.distance_matrix.sum(axis=1)), sorted(wanted.distance_matrix.sum(axis=1)))
        by_hall = read(tmp_path, text(cell, sites, f'_space_group_name_Hall "{group.hall}"')).structure
        if '"' not in group.hall:
            assert np.allclose(sorted(by_hall.distance_matrix.sum(axis=1)), sorted(wanted.distance_matrix.sum(axis=1)))


@pytest.mark.parametrize(
    ("cell", "sites", "head", "reason"),
    [
        (cubic(5.431), ["Si 0 0 0"], named("F d -3 m"), "F d -3 m:1 or F d -3 m:2, and the file does not say which"),
        (cubic(5.431), ["Si 0 0 0"], named("", 227), "add the choice of origin"),
        (cubic(4.27), ["Cu 0 0 0"], named("R -3 m :H", 166), "the cell does not have the symmetry of the space group"),
        ((4.5, 4.5, 11.8, 90, 90, 120), ["Bi 0 0 0.2"], named("R -3 m :R"), "does not have the symmetry"),
        (cubic(4.27), ["Cu 0 0 0"], named("P n -3 m :2", 225), "contradict each other: number 224"),
        (cubic(4.27), ["Cu 0 0 0"], named("P q -3 m", 225), "unknown space group 'P q -3 m'"),
        (cubic(4.27), ["Cu 0 0 0"], named("", 231), "'231' is no number of a space group"),
        (cubic(4.27), ["Cu 0 0 0"], named("P n -3 m :2") + "\n_cell_formula_units_Z 3", "says 3 formula units"),
        (
            cubic(4.27),
            ["Cu 0 0 0", "O 0.25 0.25 0.25"],
            named("P n -3 m :1") + "\n_chemical_formula_sum 'Cu2 O'\n_cell_formula_units_Z 2",
            "stoichiometry",
        ),
        (
            cubic(5.64),
            ["Na 0 0 0", "Cl 0.5 0.5 0.5"],
            named("F m -3 m") + "\n_chemical_formula_sum 'Na Cl'\n_cell_formula_units_Z 4\n"
            "loop_\n_symmetry_equiv_pos_as_xyz\n'x,y,z'",
            "the cell holds Na1 Cl1, and the file says 4 formula units of Na1 Cl1",
        ),
    ],
)
def test_a_setting_that_cannot_be_is_refused_with_the_reason(tmp_path, cell, sites, head, reason):
    candidate = read(tmp_path, text(cell, sites, head))
    assert candidate.structure is None
    assert reason in candidate.error


def test_the_formula_decides_between_origins(tmp_path):
    head = named("F d -3 m") + "\n_chemical_formula_sum 'Si8'\n_cell_formula_units_Z {}"
    for z in (1, 8):  # of the formula, and of its reduced form
        structure = read(tmp_path, text(cubic(5.431), ["Si 0 0 0"], head.format(z))).structure
        assert structure.formula == "Si8"
        assert structure.distance_matrix[0, 1:].min() == pytest.approx(5.431 * math.sqrt(3) / 4, abs=1e-3)
    structure = read(tmp_path, text(cubic(5.431), ["Si 0 0 0"], head.format(2))).structure
    assert structure.formula == "Si16"


def test_the_multiplicity_decides_between_origins(tmp_path):
    sites, columns = ["Cu 0 0 0 4", "O 0.25 0.25 0.25 2"], ("symmetry_multiplicity",)
    candidate = read(tmp_path, text(cubic(4.27), sites, named("P n -3 m"), columns))
    assert candidate.structure.formula == "Cu4 O2"
    candidate = read(tmp_path, text(cubic(4.27), sites, named("P n -3 m :1"), columns))
    assert "site Cu1 has the multiplicity 2, and 4 in the file" in candidate.error


def test_listed_operations_win_and_a_contradiction_is_told(tmp_path):
    listed = "\nloop_\n_symmetry_equiv_pos_as_xyz\n'x,y,z'\n'x+1/2,y+1/2,z+1/2'"
    candidate = read(tmp_path, text(cubic(2.87), ["Fe 0 0 0"], named("P m -3 m") + listed))
    assert candidate.structure.formula == "Fe2"
    assert candidate.provenance["warnings"] == [
        "its operations are not those of the space group 'P m -3 m': they are used"
    ]
    wrong_z = named("I 1") + listed + "\n_chemical_formula_sum Fe\n_cell_formula_units_Z 4"
    candidate = read(tmp_path, text(cubic(2.87), ["Fe 0 0 0"], wrong_z))
    assert candidate.provenance["warnings"] == ["the cell holds Fe2, and the file says 4 formula units of Fe1"]


def test_a_number_alone_means_the_standard_setting_and_is_told(tmp_path):
    candidate = read(tmp_path, text((5, 6, 7, 90, 94, 90), ["Ti 0.1 0.2 0.3"], named("", 14)))
    assert candidate.structure.formula == "Ti4"
    (warning,) = candidate.provenance["warnings"]
    assert warning == "the space group has only a number: the setting P 1 21/c 1 is assumed"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("x", "y"), [("0.333", "0.667"), ("0.333", "0.6667"), ("0.33", "0.67"), ("0.3333", "0.6666"), ("0.33", "0.66"),
                 ("0.333(1)", "0.667(1)"), ("0.3333", "0.6667"), ("0.333333", "0.666666"), (".333", "-.333")],
)  # fmt: skip
@pytest.mark.parametrize("listed", [False, True])
def test_rounded_thirds_are_thirds(tmp_path, x, y, listed):
    head = named("P 63/m m c", 194)
    if listed:
        group = gemmi.find_spacegroup_by_name("P 63/m m c")
        head += "\nloop_\n_symmetry_equiv_pos_as_xyz\n" + "\n".join(f"'{op.triplet()}'" for op in group.operations())
    structure = read(tmp_path, text(THIRDS, [f"Mg {x} {y} 0.25"], head)).structure
    ideal = Structure.from_spacegroup("P6_3/mmc", Lattice.from_parameters(*THIRDS), ["Mg"], [[1 / 3, 2 / 3, 0.25]])
    assert structure.formula == "Mg2"
    assert structure.get_space_group_info(symprec=1e-6)[1] == 194
    assert StructureMatcher(scale=False, stol=1e-4, ltol=1e-4).fit(structure, ideal)


def test_a_site_off_a_special_position_stays_there(tmp_path):
    structure = read(tmp_path, text((8, 8, 8, 90, 90, 90), ["Na 0.031 0.1 0.1"], named("P -1"))).structure
    assert sorted(structure.frac_coords[:, 0]) == pytest.approx([0.031, 0.969])


@pytest.mark.parametrize(
    ("site", "error", "warning", "formula"),
    [
        ("Mg 0 0 0 1.002(5)", None, "the occupancy 1.002(5) of site Mg1 is taken as 1", "Mg1"),
        ("Mg 0 0 0 0.998(4)", None, "the occupancy 0.998(4) of site Mg1 is taken as 1", "Mg1"),
        ("Mg 0 0 0 1.0005", None, "the occupancy 1.0005 of site Mg1 is taken as 1", "Mg1"),
        ("Mg 0 0 0 0.98(1)", None, None, "Mg0.98"),
        ("Mg 0 0 0 .", None, None, "Mg1"),
        ("Mg 0 0 0 ?", None, None, "Mg1"),
        ("Mg 0 0 0 1.05(1)", "site Mg1 has the occupancy 1.05(1), more than 1", None, None),
        ("H ? ? ? 1", "site H1 has the coordinates ? ? ?: place the atom, or delete its row", None, None),
        ("H . . . 1", "site H1 has the coordinates . . .", None, None),
        ("H 0.1 ? 0.2 1", "site H1 has the coordinates 0.1 ? 0.2", None, None),
    ],
)
def test_occupancies_and_absent_coordinates(tmp_path, site, error, warning, formula):
    candidate = read(tmp_path, text(cubic(4), [site], columns=("occupancy",)))
    if error:
        assert error in candidate.error
        return
    assert candidate.structure.formula == formula
    assert candidate.provenance.get("warnings") == ([warning] if warning else None)


def test_dummy_sites_are_left_out(tmp_path):
    sites = ["Mg 0 0 0 ?", "O 0.5 0.5 0.5 dum"]
    candidate = read(tmp_path, text(cubic(4), sites, columns=("calc_flag",)))
    assert candidate.structure.formula == "Mg1"
    assert candidate.provenance["warnings"] == ["dummy sites are left out: O2"]


def test_labels_that_do_not_tell_the_element(tmp_path):
    content = text(cubic(4), ["Mg 0 0 0"]).replace("_atom_site_type_symbol\n", "").replace("Mg1 Mg", "{}")
    assert "site T1 is tritium or any tetrahedral site" in read(tmp_path, content.format("T1")).error
    candidate = read(tmp_path, content.format("CO1"))
    assert candidate.structure.formula == "Co1"
    assert "site CO1 is taken as Co, not C" in candidate.provenance["warnings"][0]
    assert "warnings" not in read(tmp_path, content.format("Co1")).provenance
