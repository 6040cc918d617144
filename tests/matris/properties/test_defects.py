"""Point defects: effective-medium theory against ASE, and a pair potential against the count of broken bonds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.morse import MorsePotential
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS
from pymatgen.core import Lattice, Structure
from pymatgen.entries.computed_entries import ComputedEntry

import matris
from matris.properties.defects import defects

if TYPE_CHECKING:
    from ase import Atoms

pytest.importorskip("pymatgen.analysis.defects", reason="needs the extra defects")

NEIGHBORS = {"epsilon": 0.5, "rcut1": 1.2, "rcut2": 1.35}  # only next neighbors interact, in their minimum


def cu3au() -> Atoms:
    crystal = bulk("Cu", a=3.75, cubic=True)
    crystal.numbers[0] = 79
    return crystal


@pytest.fixture(scope="module")
def records():
    disordered = Structure(Lattice.cubic(4.0), [{"Cu": 0.5, "Au": 0.5}], [[0, 0, 0]])
    slab = bulk("Cu", cubic=True)
    slab.center(vacuum=10.0, axis=2)
    return defects(
        [bulk("Cu"), molecule("N2"), disordered, cu3au(), bulk("U"), slab],
        matris.AseModel(EMT()),
        competing=[bulk("Au"), bulk("Cu"), bulk("Xe", "fcc", a=6.0)],
        kinds=["vacancy", "antisite"],
        min_length=7,
        fmax=2e-3,
    )


def by_ase(crystal: Atoms, n: int, change) -> float:
    """Energy of a relaxed supercell with a defect minus that without."""
    crystal.calc = EMT()
    BFGS(FrechetCellFilter(crystal), logfile=None).run(fmax=1e-3)
    perfect = crystal.repeat(n)
    defect = perfect.copy()
    change(defect)
    for cell in (perfect, defect):
        cell.calc = EMT()
    BFGS(defect, logfile=None).run(fmax=1e-3)
    return defect.get_potential_energy() - perfect.get_potential_energy()


def remove_first(cell: Atoms) -> None:
    del cell[0]


def turn_first_into_copper(cell: Atoms) -> None:
    cell.numbers[0] = 29


def test_vacancy_of_copper_against_ase(records):
    (vacancy,) = records[0].defects
    copper = bulk("Cu", cubic=True)
    change = by_ase(copper, 2, remove_first)
    assert records[0].is_reliable
    assert (vacancy.name, vacancy.multiplicity, records[0].nsites_supercell) == ("v_Cu", 1, 32)
    assert records[0].image_distance == pytest.approx(2 * copper.cell[0, 0], abs=1e-3)
    assert vacancy.lowest == pytest.approx(change + copper.get_potential_energy() / 4, abs=1e-3)
    assert 1.2 < vacancy.lowest < 1.3  # eV
    assert len(vacancy.cell) == 31


def test_antisite_of_an_alloy_against_ase(records):
    record = records[3]
    by_name = {defect.name: defect for defect in record.defects}
    assert set(by_name) == {"v_Cu", "v_Au", "Au_Cu", "Cu_Au"}
    assert [by_name[name].multiplicity for name in ("v_Cu", "v_Au", "Au_Cu", "Cu_Au")] == [3, 1, 3, 1]
    antisite = by_name["Cu_Au"]
    assert antisite.change == {"Au": -1, "Cu": 1}
    assert antisite.energy_change == pytest.approx(by_ase(cu3au(), 2, turn_first_into_copper), abs=1e-3)


def test_limits_of_an_alloy(records):
    """The elements have energies close to zero; the region of chemical potentials is as wide as the alloy is stable."""
    record = records[3]
    assert [limit.name for limit in record.limits] == ["Au", "Cu"]
    ends = {"Au": 0.0, "Cu": 0.0}
    for element in ends:
        crystal = bulk(element, cubic=True)
        crystal.calc = EMT()
        BFGS(FrechetCellFilter(crystal), logfile=None).run(fmax=1e-3)
        ends[element] = crystal.get_potential_energy() / 4
    assert record.limits[0].potentials["Au"] == pytest.approx(ends["Au"], abs=1e-4)
    assert record.limits[1].potentials["Cu"] == pytest.approx(ends["Cu"], abs=1e-4)
    by_name = {defect.name: np.array(defect.formation_energies) for defect in record.defects}
    pair = by_name["Au_Cu"] + by_name["Cu_Au"]  # conserves the composition
    assert pair[0] == pytest.approx(pair[1], abs=1e-9)
    assert by_name["v_Au"][0] > by_name["v_Au"][1]  # rich in gold
    assert by_name["v_Cu"][0] < by_name["v_Cu"][1]


def test_one_failure_is_one_failure(records):
    assert [record.state for record in records] == [
        "converged", "failed", "failed", "converged", "failed", "failed",
    ]  # fmt: skip
    assert "not periodic" in records[1].error
    assert "occupanc" in records[2].error or "disorder" in records[2].error
    assert "EMT" in records[4].error
    assert records[5].error.startswith("no crystal, so that it has no point defects: the cell has a gap of 2")
    assert not any("competing phase" in text for text in records[0].warnings)  # xenon does not compete


def test_vacancy_by_hand():
    """Twelve broken bonds of energy ε, and the atom gets six back: 6 ε, without a relaxation."""
    model = matris.AseModel(MorsePotential(r0=2.5, rho0=6.0, **NEIGHBORS))
    (record,) = defects([bulk("Ar", a=2.5 * 2**0.5)], model, kinds=["vacancy"], min_length=5, fmax=1e-4)
    assert record.lowest.lowest == pytest.approx(6 * 0.5, abs=1e-5)
    assert record.lowest.displacement > 0.03  # the neighbors were displaced, and went back


def test_interstitials():
    (copper,) = defects([bulk("Cu")], matris.AseModel(EMT()), kinds=["interstitial"], min_length=7)
    assert [(d.name, d.multiplicity, d.change) for d in copper.defects] == [
        ("Cu_i (1)", 1, {"Cu": 1}),  # octahedral
        ("Cu_i (2)", 2, {"Cu": 1}),  # tetrahedral
    ]
    assert copper.warnings == ("Cu_i (1) and Cu_i (2) relax to the same energy",)
    assert copper.lowest.lowest > 2  # eV; vacancies have 1.2


def test_no_interstitial_sites():
    dense = matris.AseModel(MorsePotential(r0=1.1, rho0=6.0, **NEIGHBORS))
    hydrogen = bulk("H", "fcc", a=1.1 * 2**0.5)
    both, alone = (
        defects([hydrogen], dense, kinds=kinds, min_length=3)[0]
        for kinds in (["vacancy", "interstitial"], ["interstitial"])
    )
    assert both.warnings == ("no interstitial sites were found",)
    assert alone.error == "no interstitial sites were found"


def test_a_compound_without_references_fails():
    (record,) = defects([cu3au()], matris.AseModel(EMT()), kinds=["vacancy"], min_length=3)
    assert record.error.startswith("no chemical potentials: Au, Cu has no elemental phase")


def test_a_lost_competing_phase_is_told():
    gone = bulk("Cu")
    gone.positions[0] = np.nan
    (record,) = defects([bulk("Cu")], matris.AseModel(EMT()), competing=[gone], kinds=["vacancy"], min_length=5)
    assert record.warnings[0].startswith("a competing phase could not be computed: Cu: ")


def test_an_unstable_crystal_is_not_reliable():
    """Copper as a bcc crystal: fcc is lower."""
    (record,) = defects(
        [bulk("Cu", "bcc", a=2.87)], matris.AseModel(EMT()), competing=[bulk("Cu")], kinds=["vacancy"], min_length=5
    )
    assert not record.is_reliable
    assert "meV/atom above the hull of the competing phases" in record.warnings[0]


def test_settings():
    with pytest.raises(ValueError, match="got frenkel"):
        defects([bulk("Cu")], matris.AseModel(EMT()), kinds=["frenkel"])  # type: ignore[list-item]
    (record,) = defects([bulk("Po", "sc", a=2.5)], matris.AseModel(MorsePotential(r0=2.5, **NEIGHBORS)), min_length=1)
    assert record.error == "the supercell has one atom: a min_length of 1 Å is too short"


def test_negative_formation_energies_are_not_reliable():
    """Energies of elements that are not comparable: the crystal is above their hull and gains energy by losing gold."""
    entries = [ComputedEntry("Cu", -9.0), ComputedEntry("Au", 0.0)]  # of another energy scale, by mistake
    (record,) = defects([cu3au()], matris.AseModel(EMT()), kinds=["antisite"], competing=entries, min_length=5)
    assert not record.is_reliable
    assert any(text.startswith("negative formation energies at some chemical potentials: ") for text in record.warnings)
