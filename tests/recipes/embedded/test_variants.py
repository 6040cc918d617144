"""Training structures from crystals of the literature."""

from __future__ import annotations

import pytest
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from matris.training.data.reading import read_frames
from recipes.embedded.embedded import take_frames
from recipes.embedded.materials import ELEMENTS, MIN_DISTANCE, distance_ratio
from recipes.embedded.variants import DFT_SETS, held_out, literature, variants

CRYSTALS = [
    bulk("NaCl", "rocksalt", a=5.69, cubic=True), bulk("MgO", "rocksalt", a=4.25), bulk("GaAs", "zincblende", a=5.75),
    bulk("CsCl", "cesiumchloride", a=4.2), bulk("ZnS", "zincblende", a=5.4, cubic=True), bulk("Pt"), bulk("Cu"),
]  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder of DFT sets, with crystals of any element, one held out, and one that holds hydrogen."""
    folder = tmp_path_factory.mktemp("data")
    water = molecule("H2O", vacuum=3, pbc=True)
    for name in DFT_SETS:
        frames = []
        for atoms in [*CRYSTALS, water]:
            copy = atoms.copy()
            copy.calc = SinglePointCalculator(copy, energy=-1.0, forces=0 * copy.positions, stress=[0.0] * 6)
            frames.append(copy)
        write(folder / f"{name}.extxyz.gz", frames, format="extxyz")
    return folder


def test_formulas_kept_for_measuring_do_not_depend_on_the_cell():
    formulas = [atoms.get_chemical_formula() for atoms in CRYSTALS]
    assert {held_out(f) for f in formulas} == {True, False}
    assert held_out("Cl4Na4") == held_out("NaCl")
    assert held_out("Ga2As2") == held_out("AsGa")


def test_variants_are_alike_and_new(data):
    sources = {source.split()[1] for source, _ in literature(data)}
    assert sources == {f for a in [*CRYSTALS, molecule("H2O")] if not held_out(f := a.get_chemical_formula())}
    made = list(variants(data, 4, 25))
    assert [m.to_dict() for m in variants(data, 4, 5)] == [m.to_dict() for m in made[:5]]
    assert len({(m.source, m.structure.composition.formula) for m in made}) == 25
    for material in made:
        assert {e.symbol for e in material.structure.composition} <= set(ELEMENTS)
        assert distance_ratio(material.structure) >= MIN_DISTANCE
        assert not held_out(material.structure.composition.reduced_formula)


def test_frames_taken_leave_what_is_kept_for_measuring(data, tmp_path):
    take_frames(data, tmp_path)
    taken = list(read_frames(sorted(tmp_path.glob("*.extxyz.gz"))))
    assert taken
    assert not any(held_out(f.formula) for f in taken)
    assert all(f.symbols <= set(ELEMENTS) for f in taken)
