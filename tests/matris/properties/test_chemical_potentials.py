"""Limits of chemical potentials, by hand."""

from __future__ import annotations

import pytest
from pymatgen.core import Lattice, Structure
from pymatgen.entries.computed_entries import ComputedEntry, ConstantEnergyAdjustment

from matris.properties.chemical_potentials import chemical_potentials, corrections_per_atom
from matris.properties.groups import UnusableCellError
from matris.stores.documents.corrections import corrected_entry

A, B, AB = ComputedEntry("Na", -1.0), ComputedEntry("Cl2", -4.0), ComputedEntry("NaCl", -7.0)


def test_each_element_is_rich_at_one_end():
    found = chemical_potentials(AB, [A, B])
    assert found.above_hull == 0
    assert {limit.name: limit.potentials for limit in found.limits} == {
        "Na": pytest.approx({"Na": -1.0, "Cl": -6.0}),
        "Cl2": pytest.approx({"Na": -5.0, "Cl": -2.0}),
    }


def test_a_compound_narrows_the_range():
    """NaCl3 at −12 eV: μ(Na) + 3 μ(Cl) ≤ −12 and μ(Na) + μ(Cl) = −7 give μ(Cl) ≤ −2.5."""
    rich = chemical_potentials(AB, [A, B, ComputedEntry("NaCl3", -12.0)]).limits[1]
    assert rich.name == "NaCl3"
    assert rich.potentials == pytest.approx({"Na": -4.5, "Cl": -2.5})


def test_a_crystal_above_the_hull_has_the_potentials_of_its_mixture():
    found = chemical_potentials(ComputedEntry("Na2Cl", -7.5), [A, B, AB])  # the mixture has −8
    assert found.above_hull == pytest.approx(0.5 / 3)
    assert [limit.potentials for limit in found.limits] == [pytest.approx({"Na": -1.0, "Cl": -6.0})]
    polymorph = chemical_potentials(ComputedEntry("NaCl", -6.9), [A, B, AB])
    assert polymorph.above_hull == pytest.approx(0.05)
    assert [limit.name for limit in polymorph.limits] == ["Cl2", "Na"]


def test_an_element_needs_no_other_phase():
    (limit,) = chemical_potentials(A, []).limits
    assert (limit.phases, limit.potentials) == ((), {"Na": -1.0})
    assert chemical_potentials(A, [ComputedEntry("Na4", -4.4)]).above_hull == pytest.approx(0.1)
    same = chemical_potentials(A, [ComputedEntry("Na4", -4.0004)])  # another relaxation of the same crystal
    assert (same.above_hull, same.limits[0].potentials) == (0, {"Na": -1.0})


def test_a_compound_needs_all_elements():
    with pytest.raises(UnusableCellError, match="Cl has no elemental phase"):
        chemical_potentials(AB, [A])


def test_corrections_of_atoms():
    """In an oxide on the Materials Project's scale: −0.687 eV for O, −2.256 eV for Fe."""
    hematite = Structure.from_spacegroup(
        "R-3c", Lattice.hexagonal(5.04, 13.75), ["Fe", "O"], [[0, 0, 0.355], [0.306, 0, 0.25]]
    )
    assert corrections_per_atom(corrected_entry(hematite, -230.0, "mp")) == pytest.approx(
        {"Fe": -2.256, "O": -0.687}, abs=1e-3
    )
    assert corrections_per_atom(corrected_entry(hematite, -230.0, "matpes-pbe")) == {}
    other = ComputedEntry("NaCl", -7.0, energy_adjustments=[ConstantEnergyAdjustment(-1.0, name="other")])
    with pytest.raises(UnusableCellError, match="'other' is not one of atoms"):
        corrections_per_atom(other)
