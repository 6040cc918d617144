import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from matris.flows.campaign.funnel import Funnel
from matris.flows.campaign.sanity import sanity_problem
from matris.flows.sources.prototypes import elemental_references, library
from matris.stores.documents.candidate import KNOWN_PHASE_SOURCE, Candidate

FACES = [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]
SALT = Structure(Lattice.cubic(5.64), ["Na"] * 4 + ["Cl"] * 4, FACES + [[x + 0.5, y, z] for x, y, z in FACES])


def scaled(volume):
    structure = SALT.copy()
    structure.scale_lattice(volume)
    return structure


def test_ordinary_crystals_pass():
    assert sanity_problem(SALT) is None
    assert sanity_problem(SALT * (5, 5, 5)) is None
    elements = ["H", "He", "Li", "C", "O", "Fe", "Cs", "Ce", "W", "U", "Xe"]
    assert {sanity_problem(c.structure) for c in elemental_references(elements)} == {None}


@pytest.mark.parametrize(
    ("structure", "reason"),
    [
        (Structure(Lattice.cubic(6), ["Fe", "O"], [[0, 0, 0], [0.15, 0, 0]]), "sites 0 (Fe) and 1 (O) are 0.90 Å"),
        (Structure(Lattice.orthorhombic(1.0, 6, 6), ["Fe"], [[0, 0, 0]]), "sites 0 (Fe) and 0 (Fe) are 1.00 Å"),
        (Structure(Lattice.cubic(6), ["Fe", "O"], [[0.01, 0, 0], [0.85, 0, 0]]), "0.48 of the sum"),
        (scaled(25.0), "volume too small"),
        (Structure(Lattice.cubic(20), ["Na"], [[0, 0, 0]]), "volume too large: 8e+03 Å³ per atom"),
        (Structure(Lattice.from_parameters(300, 300, 5, 90, 90, 1), ["Na"] * 2, [[0] * 3, [0.5] * 3]), "parallel"),
    ],
)
def test_what_is_no_crystal_is_named(structure, reason):
    assert reason in sanity_problem(structure)


@pytest.mark.parametrize(
    ("structure", "reason"),
    [
        (Structure(Lattice.cubic(4), [{"Fe": 0.5, "Ni": 0.5}], [[0, 0, 0]]), "disordered site 0"),
        (Structure(Lattice.cubic(4), ["Fe"], [[np.nan, 0, 0]]), "NaN"),
        (Structure(Lattice.cubic(4), [], []), "no atoms"),
    ],
)
def test_what_cannot_be_computed_is_named_first(structure, reason):
    stage, message = Funnel().problem(Candidate.from_structure(structure, "bad"), ["Fe", "Ni"])
    assert stage == "sanity"
    assert reason in message


def test_size_is_limited_if_asked_and_distance_to_the_next_atom_never():
    lonely = Structure(Lattice.orthorhombic(4, 4, 16), ["Na", "Cl", "Na"], [[0, 0, 0], [0.5, 0.5, 0.1], [0, 0, 0.5]])
    assert sanity_problem(lonely) is None
    salt = Candidate.from_structure(SALT, "salt")
    assert Funnel(max_sites=8).problem(salt, ["Na", "Cl"]) is None
    assert Funnel(max_sites=7).problem(salt, ["Na", "Cl"]) == ("sanity", "8 atoms, more than the limit of 7")
    competing = Candidate.from_structure(SALT, KNOWN_PHASE_SOURCE)
    assert Funnel(max_sites=7).problem(competing, ["Na", "Cl"]) is None, "a hull without it would be another one"


def test_known_prototypes_pass_but_for_two_that_are_no_crystals():
    structures = [prototype.structure for prototype in library()]
    rejected = {s.reduced_formula: sanity_problem(s) for s in structures if sanity_problem(s)}
    assert len(structures) > 250
    assert set(rejected) == {"Cr4Fe4Ni4PdRh2", "NiSbS"}
    assert "Å apart" in rejected["NiSbS"]
