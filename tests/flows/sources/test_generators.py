"""Swapped, substituted and rattled crystals: what a chemist expects, reproducible, each with its parent."""

from itertools import islice, permutations

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from matris.flows.sources.oxidation import site_charges
from matris.flows.sources.rattle import rattle
from matris.flows.sources.sizes import volume_factor
from matris.flows.sources.substitution import substitute_ions
from matris.flows.sources.swap import swap_elements
from matris.stores.documents.candidate import Candidate
from matris.structures import problem_with


def fcc(a, element, *others):
    """Primitive cell of face-centred cubic crystals; each other atom has a place along the diagonal."""
    h = a / 2
    places = {element: [0.0]} | {symbol: at for symbol, *at in others}
    species = [symbol for symbol, at in places.items() for _ in at]
    return Structure(
        Lattice([[0, h, h], [h, 0, h], [h, h, 0]]), species, [[x] * 3 for at in places.values() for x in at]
    )


def rock_salt(a, cation, anion):
    return fcc(a, cation, (anion, 0.5))


def fluorite(a, cation, anion):
    return fcc(a, cation, (anion, 0.25, 0.75))


def zincblende(a, cation, anion):
    return fcc(a, cation, (anion, 0.25))


def parents(*structures):
    return [Candidate.from_structure(structure, "known", number=i) for i, structure in enumerate(structures)]


FEO = rock_salt(4.33, "Fe", "O")
SRTIO3 = Structure(
    Lattice.cubic(3.905),
    ["Sr", "Ti", "O", "O", "O"],
    [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]],
)

FAMILIES = {  # measured lattice constants (Å) of crystals that share a structure type
    "rock salt": (
        rock_salt,
        [
            *((4.03, "Li", "F"), (5.64, "Na", "Cl"), (6.60, "K", "Br"), (4.21, "Mg", "O"), (4.81, "Ca", "O")),
            *((5.16, "Sr", "O"), (5.54, "Ba", "O"), (4.33, "Fe", "O"), (4.18, "Ni", "O"), (5.69, "Ca", "S")),
        ],
    ),
    "fluorite": (
        fluorite,
        [(5.46, "Ca", "F"), (6.20, "Ba", "F"), (5.41, "Ce", "O"), (5.47, "U", "O"), (5.12, "Zr", "O")],
    ),
    "zincblende": (zincblende, [(5.41, "Zn", "S"), (6.48, "Cd", "Te"), (5.65, "Ga", "As"), (6.06, "In", "As")]),
    "metals": (fcc, [(3.61, "Cu"), (4.09, "Ag"), (4.08, "Au"), (4.05, "Al"), (3.52, "Ni"), (3.92, "Pt")]),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_scaled_volumes_are_near_measured_ones(family):
    make, known = FAMILIES[family]
    crystals = [make(*one) for one in known]
    charged = [site_charges(crystal) or [0] * len(crystal) for crystal in crystals]
    sites = [
        [(x.specie.symbol, q) for x, q in zip(c, qs, strict=True)] for c, qs in zip(crystals, charged, strict=True)
    ]
    errors = [
        abs(crystals[i].volume * volume_factor(sites[i], sites[j]) / crystals[j].volume - 1)
        for i, j in permutations(range(len(known)), 2)
    ]
    assert np.mean(errors) < 0.12
    print(f"{family}: {100 * np.mean(errors):.1f} %")  # noqa: T201 - docs/sources.md quotes it


def test_elements_are_swapped_as_the_map_says():
    candidates = list(swap_elements(parents(FEO), {"Fe": ["Co", "Ni"], "O": ["S"], "Na": ["K"]}, at_once=2))
    assert [c.structure.reduced_formula for c in candidates] == ["CoO", "NiO", "FeS", "CoS", "NiS"]
    assert [c.source for c in candidates[:2]] == ["known, Fe → Co", "known, Fe → Ni"]
    assert candidates[3].source == "known, Fe → Co, O → S"
    assert candidates[0].provenance["generator"] == "swap"
    assert candidates[0].provenance["mapping"] == {"Fe": "Co"}
    parent = parents(FEO)[0]
    assert candidates[0].provenance["parent"] == {"candidate_id": parent.candidate_id, "source": "known", "number": 0}
    assert candidates[0].structure.volume == pytest.approx(
        FEO.volume * candidates[0].provenance["volume_factor"], rel=1e-5
    )
    assert candidates[2].structure.volume > FEO.volume
    assert len(list(swap_elements(parents(FEO), {"Fe": ["Co", "Ni"], "O": ["S"]}))) == 3
    assert list(swap_elements(parents(FEO), {"Fe": ["O", "Fe"]})) == []
    assert [
        c.structure.reduced_formula for c in swap_elements(parents(FEO), {"Fe": ["Co", "Ni"]}, only=["Ni", "O"])
    ] == ["NiO"]


def test_elements_are_swapped_within_their_group_or_valence():
    by_group = {c.structure.reduced_formula for c in swap_elements(parents(SRTIO3), "group")}
    assert {"CaTiO3", "BaTiO3", "SrZrO3", "SrHfO3", "SrTiS3"} <= by_group
    by_valence = {c.structure.reduced_formula for c in swap_elements(parents(FEO), "valence")}
    assert {"MgO", "CoO", "NiO"} <= by_valence
    assert not {"NaO", "BaO", "Al2O3"} & by_valence


def test_what_cannot_be_swapped_says_why():
    disordered = Structure(Lattice.cubic(3), [{"Fe": 0.5, "Co": 0.5}], [[0, 0, 0]])
    broken = Candidate.unreadable("a.cif", "empty", b"")
    candidates = list(swap_elements([*parents(disordered, fcc(3.6, "Cu")), broken], "valence"))
    assert "disordered site 0" in candidates[0].error
    assert "no swap of Cu from known: no oxidation states balance" in candidates[1].error
    assert candidates[2] == broken
    assert candidates[0].provenance["parent"]["source"] == "known"


def test_ions_are_substituted_by_their_probability():
    candidates = list(substitute_ions(parents(rock_salt(5.64, "Na", "Cl")), threshold=0.003))
    formulas = [c.structure.reduced_formula for c in candidates]
    assert {"KCl", "NaBr", "LiCl"} <= set(formulas)
    assert "NaCl" not in formulas
    chances = [c.provenance["probability"] for c in candidates]
    assert chances == sorted(chances, reverse=True)
    assert min(chances) >= 0.003
    assert len(list(substitute_ions(parents(rock_salt(5.64, "Na", "Cl")), threshold=0.01))) < len(candidates)
    potassium = candidates[formulas.index("KCl")]
    assert potassium.provenance["ions"] == {"Na+": "K+"}
    assert potassium.structure.volume ** (1 / 3) == pytest.approx((6.29**3 / 4) ** (1 / 3), rel=0.03)
    only = substitute_ions(parents(rock_salt(5.64, "Na", "Cl")), threshold=0.003, only=["K", "Cl"])
    assert [c.structure.reduced_formula for c in only] == ["KCl"]


def test_probabilities_are_pymatgens():
    from pymatgen.analysis.structure_prediction.substitutor import Substitutor

    known = Substitutor(threshold=0.01).pred_from_list(["Na+", "Cl-"])
    chances = {frozenset((str(a), str(b)) for a, b in each["substitutions"].items() if a != b): each for each in known}
    candidates = list(substitute_ions(parents(rock_salt(5.64, "Na", "Cl")), threshold=0.01))
    assert candidates
    for candidate in candidates:
        same = chances[frozenset(candidate.provenance["ions"].items())]
        assert candidate.provenance["probability"] == pytest.approx(same["probability"], rel=1e-5)


def test_charges_balance_or_there_are_none():
    assert site_charges(rock_salt(5.64, "Na", "Cl")) == [1, -1]
    assert site_charges(fcc(3.6, "Cu")) is None
    assert site_charges(rock_salt(4.3, "Cu", "Zn")) is None


def test_rattled_crystals_are_reproducible_and_within_bounds():
    first, second = parents(FEO, SRTIO3)
    candidates = list(rattle([first, second], n=20, amplitude=0.05, strain=0.02, seed=1))
    assert len({c.candidate_id for c in candidates}) == 40
    again = list(rattle([second], n=20, amplitude=0.05, strain=0.02, seed=1))
    assert [c.candidate_id for c in again] == [c.candidate_id for c in candidates[20:]]
    assert not {c.candidate_id for c in rattle([second], n=20, seed=2)} & {c.candidate_id for c in again}
    assert candidates[3].provenance["number"] == 3
    assert candidates[3].provenance["seed"] == 1
    for candidate in candidates:
        parent = FEO if candidate.provenance["parent"]["number"] == 0 else SRTIO3
        assert problem_with(candidate.structure) is None
        deformation = np.linalg.solve(parent.lattice.matrix, candidate.structure.lattice.matrix) - np.eye(3)
        assert np.allclose(deformation, deformation.T, atol=1e-12)
        assert np.abs(deformation).max() <= 0.02
        moves = candidate.structure.cart_coords - parent.frac_coords @ candidate.structure.lattice.matrix
        assert np.abs(moves.mean(axis=0)).max() < 1e-12
        assert 0 < np.linalg.norm(moves, axis=1).max() <= 0.1


def test_one_atom_without_strain_has_no_variants():
    assert len(list(rattle(parents(fcc(3.6, "Cu")), n=5, strain=0.0))) == 1
    assert len(list(rattle(parents(fcc(3.6, "Cu")), n=5, strain=0.01))) == 5


def test_generators_are_lazy():
    def endless():
        yield from parents(FEO)
        raise AssertionError("read too far")

    assert len(list(islice(rattle(endless(), n=10), 10))) == 10
    assert next(swap_elements(endless(), "group")).structure
    assert next(substitute_ions(endless(), threshold=0.001)).structure


def test_each_content_comes_once():
    assert len(list(swap_elements(parents(FEO, FEO), {"Fe": ["Co"]}))) == 1


def test_sources_name_parent_and_change():
    prototype = Candidate.from_structure(FEO, "B1 type", prototype="B1", generator="prototype")
    (swapped,) = swap_elements([prototype], {"Fe": ["Co"]})
    assert swapped.source == "FeO of B1 type, Fe → Co"
    (shaken,) = rattle([swapped])
    assert shaken.source == "FeO of B1 type, Fe → Co, rattled 1"
    first = next(iter(substitute_ions(parents(FEO))))
    assert first.source == f"known, {', '.join(f'{a} → {b}' for a, b in first.provenance['ions'].items())}"
    (without,) = swap_elements([Candidate.from_structure(fcc(4.0, "Pr"), "Pr.cif")], "valence")
    assert without.error.startswith("no swap of Pr")
    assert without.source == "Pr.cif, swap"
