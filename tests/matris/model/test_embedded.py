"""The checkpoint that ships: its file and card, and physics that do not depend on how far its training got."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.data import atomic_numbers
from pymatgen.core import Lattice, Structure

import matris
from matris.errors import StructureError
from matris.model import checkpoints
from matris.model.card_text import limits, measured_errors
from recipes.embedded.evaluate import FRAME_SETS, dynamics, elements_of_dcdft, lattice_errors
from recipes.embedded.materials import ELEMENTS
from recipes.embedded.start import CONFIG


@pytest.fixture(scope="module")
def potential():
    return matris.load(device="cpu")


def test_the_one_file_of_the_package():
    path = checkpoints.locate()
    assert list((Path(matris.__file__).parent / "data").iterdir()) == [path]
    assert path.stat().st_size < 8e6


def test_card(potential):
    card = potential.card
    assert (card.key, card.energy_scale, card.predicts) == ("matris_embedded", "mp", "efs")
    assert sorted(card.elements) == sorted(ELEMENTS)
    assert len(card.elements) == 89
    assert potential.config == CONFIG
    assert potential.config.smooth
    assert not potential.has_magmoms
    assert "nequix-oam-1-pft" in card.details["teacher"]
    assert "MIT" in card.details["licences"]
    assert card.details["parameters"] == sum(p.numel() for p in potential.network.parameters())
    assert f"{len(card.elements)} elements" in card.description
    assert str(len(card.elements)) in limits(card)[0]


def test_card_has_all_measured_errors(potential):
    names = {name for name, *_ in measured_errors(potential.card)}
    crystals = {f"dynamics of {formula}, 300 K, 1 ps" for formula in ("Si", "NaCl", "MgO")}
    lattices = {f"{crystals}, lattice constant" for crystals in ("dcdft elements", "MP binaries")}
    assert names == {*FRAME_SETS, *crystals, *lattices, "wbm_equilibrium", "labels set aside"}
    errors = potential.card.details["errors"]
    assert errors["wbm_equilibrium"]["structures"] == 488  # all of them
    assert errors["mpf_tp"]["frames"] == 535


def test_domain(potential):
    """All elements have one; crystals as they are at rest lie within it, and squeezed ones do not."""
    assert potential.network.domain.numbers.tolist() == sorted(atomic_numbers[symbol] for symbol in ELEMENTS)
    crystals = [bulk("NaCl", "rocksalt", a=5.69), bulk("Si"), bulk("Cu")]
    squeezed = [atoms.copy() for atoms in crystals]
    for atoms in squeezed:
        atoms.set_cell(0.7 * atoms.cell[:], scale_atoms=True)
    found = [p.is_extrapolating for p in potential.predict([*crystals, *squeezed])]
    assert found == [False] * 3 + [True] * 3


def test_energies_are_on_the_raw_scale_of_the_materials_project(potential):
    """The energies of the elements are part of the network; without them, eV/atom would be missing."""
    crystals = {"Na": bulk("Na"), "W": bulk("W"), "MgO": bulk("MgO", "rocksalt", a=4.25)}
    expected = {"Na": -1.31, "W": -12.96, "MgO": -5.98}  # eV/atom
    for (name, atoms), found in zip(crystals.items(), potential.predict(list(crystals.values())), strict=True):
        assert found.energy / len(atoms) == pytest.approx(expected[name], abs=0.5), name


def test_common_elements_relax_near_their_crystals(potential):
    """Not how near: `matris models` and docs/embedded-checkpoint.md tell."""
    references = {s.composition.reduced_formula: (s, v) for s, v in elements_of_dcdft(potential)}
    result = lattice_errors(potential, [references[symbol] for symbol in ("Si", "Al", "Cu", "Mg", "Na", "Ni")])
    assert result["converged"] == 6
    assert result["median"] < 3


@pytest.mark.parametrize("steps", [pytest.param(1000, marks=pytest.mark.slow), 60])
def test_dynamics_conserves_energy(potential, steps):
    for formula, run in dynamics(potential, steps=steps).items():
        assert run["fluctuation"] < 2, formula
        assert 50 < run["temperature"] < 400, formula
        assert steps < 100 or abs(run["drift"]) < 1, formula


@pytest.mark.parametrize("cutoff", ["pairwise_cutoff", "three_body_cutoff"])
@pytest.mark.parametrize("symbol", ["Si", "Cu", "MgO"])
def test_nothing_jumps_where_a_shell_crosses_a_cutoff(potential, symbol, cutoff):
    """All of a shell of neighbors crosses at once; the energy has the rounding of float32."""
    cells = {"Si": bulk("Si"), "Cu": bulk("Cu"), "MgO": bulk("MgO", "rocksalt", a=4.2)}
    atoms, reach = cells[symbol], getattr(potential.config, cutoff)
    structure = Structure(atoms.cell.array, atoms.get_chemical_symbols(), atoms.get_scaled_positions())
    lengths = structure.get_neighbor_list(1.1 * reach)[3]
    shell = lengths[np.argmin(np.abs(lengths - reach))]

    def scaled(distance):
        copy = atoms.copy()
        copy.set_cell(atoms.cell * distance / shell, scale_atoms=True)
        return copy

    inside, outside = potential.predict([scaled(reach - 1e-5), scaled(reach + 1e-5)])
    assert inside.energy == pytest.approx(outside.energy, abs=1e-4 * len(atoms))
    assert inside.stress == pytest.approx(outside.stress, abs=1e-4)


def test_unknown_element_is_named(potential):
    with pytest.raises(StructureError, match="Rn"):
        potential.predict(Structure(Lattice.cubic(6), ["Rn"], [[0, 0, 0]]))
