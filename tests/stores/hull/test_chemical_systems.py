"""Inclusion of chemical systems."""

from matris.stores.hull.chemical_systems import containing, within

SYSTEMS = {"Fe", "Li-O", "Fe-O", "Fe-Li-O", "Cl-Fe-Li-O", "C"}  # C is not in Cl


def test_systems_contain_their_subsystems_and_themselves():
    assert containing(["O-Fe"], SYSTEMS) == {"Fe-O", "Fe-Li-O", "Cl-Fe-Li-O"}
    assert containing(["C", "Li-O"], SYSTEMS) == {"C", "Li-O", "Fe-Li-O", "Cl-Fe-Li-O"}
    assert containing([], SYSTEMS) == set()


def test_subsystems_are_within_systems_and_themselves():
    assert within(["Li-Fe-O"], SYSTEMS) == {"Fe", "Li-O", "Fe-O", "Fe-Li-O"}
    assert within(["Cl", "Fe"], SYSTEMS) == {"Fe"}
    assert within([], SYSTEMS) == set()
