"""The checkpoint that ships: what its card promises, on what a test can recompute."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from pymatgen.core import Lattice, Structure

import matris
from matris.errors import StructureError
from matris.model import checkpoints
from matris.model.config import ModelConfig
from recipes.embedded.errors import error_table
from recipes.embedded.evaluate import dynamics, elements_of_dcdft, lattice_errors


@pytest.fixture(scope="module")
def potential():
    return matris.load(device="cpu")


@pytest.fixture(scope="module")
def large():
    return matris.load(checkpoints.LARGE, device="cpu")


def test_card(potential):
    card = potential.card
    assert card.key == checkpoints.EMBEDDED
    assert card.energy_scale == "mp"
    assert "emonstrator" in card.description
    assert len(card.elements) >= 30
    assert checkpoints.locate().stat().st_size < 8e6


def test_card_of_the_large_one(large):
    card = large.card
    assert card.key == checkpoints.LARGE
    assert card.predicts == "efsm"
    assert len(card.elements) >= 60
    path = checkpoints.locate(checkpoints.LARGE)
    assert path == Path(matris.__file__).parent / "data" / "matris_embedded_large.safetensors"
    assert path.stat().st_size < 8e6
    assert large.config == ModelConfig(
        num_layers=2,
        node_feat_dim=128,
        edge_feat_dim=64,
        three_body_feat_dim=32,
        mlp_hidden_dims=(128, 128),
        three_body_expansion="fourier",
        norm_type="layer",
        pairwise_cutoff=5.5,
        three_body_cutoff=3.3,
        use_smoothed_for_delta_edge=True,
        reference_energy="ridge",
    )


def test_the_page_shows_the_cards(potential, large):
    page = (Path(__file__).parents[3] / "docs" / "embedded-checkpoint.md").read_text()
    for card in (potential.card, large.card):
        assert error_table(card) in page
        assert " ".join(card.elements) in page


def test_the_large_one_stands_pressure_better(potential, large):
    quick, better = (p.card.details["errors"]["mpf_tp"] for p in (potential, large))
    assert better["frames"] > 2 * quick["frames"]
    assert better["force_component"] < 0.5 * better["force_component_zero"]
    assert better["force_component"] < quick["force_component"]


def test_lattice_constants_of_the_large_one(large):
    cards = large.card.details["errors"]
    for name in ("dcdft elements, lattice constant", "MP binaries, lattice constant"):
        assert cards[name]["median"] < 1.5
        assert cards[name]["converged"] > 0.9 * cards[name]["structures"]
    references = {s.composition.reduced_formula: (s, v) for s, v in elements_of_dcdft(large)}
    result = lattice_errors(large, [references[symbol] for symbol in ("Al", "Cu", "Rb", "Pd")])
    assert result["converged"] == 4
    assert result["median"] < 3


def test_moments_of_the_large_one(large):
    oxide, salt = large.predict([bulk("MnO", "rocksalt", a=4.5), bulk("NaCl", "rocksalt", a=5.7)])
    assert 3 < oxide.magmoms[0] < 5
    assert oxide.magmoms[1] < 0.3
    assert np.abs(salt.magmoms).max() < 0.1


def test_card_states_lattice_constants_within_reach(potential):
    errors = potential.card.details["errors"]
    assert errors["dcdft elements, lattice constant"]["median"] < 1.5


def test_card_states_forces_within_reach(potential):
    assert potential.card.details["errors"]["mptrj_random"]["force_component"] < 0.15


@pytest.mark.xfail(strict=True, reason="too small: forces near equilibrium in the oxides of MPtrj are poor")
def test_card_states_forces_better_than_none(potential):
    errors = potential.card.details["errors"]["mptrj_random"]
    assert errors["force_component"] < errors["force_component_zero"]


def test_lattice_constants_of_common_elements(potential):
    references = {s.composition.reduced_formula: (s, v) for s, v in elements_of_dcdft(potential)}
    result = lattice_errors(
        potential, [references[symbol] for symbol in ("Si", "Al", "Cu", "Mg", "Na", "Fe", "Ni", "Ge")]
    )
    assert result["converged"] == 8
    assert result["median"] < 1.5
    recorded = potential.card.details["errors"]["dcdft elements, lattice constant"]
    assert recorded["converged"] > 0.9 * recorded["structures"]


def test_short_dynamics_conserves_energy(potential):
    for formula, run in dynamics(potential, steps=60).items():
        assert run["fluctuation"] < 2, formula
        assert 50 < run["temperature"] < 400, formula


@pytest.mark.slow
def test_dynamics_conserves_energy(potential):
    for formula, run in dynamics(potential).items():
        assert abs(run["drift"]) < 5, formula
        assert run["fluctuation"] < 2, formula
        assert 50 < run["temperature"] < 400, formula


def jump(potential, atoms, cutoff):
    """Energy step (eV/atom) where the shell of neighbours nearest to a cut-off crosses it, all of it at once.

    The published attention has no envelope (docs/decisions.md), so there is one.
    """
    lengths = np.unique(np.round(_distances(atoms, potential.config.pairwise_cutoff * 1.1), 8))
    shell = lengths[np.argmin(np.abs(lengths - cutoff))]

    def energy(distance):
        scaled = atoms.copy()
        scaled.set_cell(atoms.cell * distance / shell, scale_atoms=True)
        return potential.predict(scaled).energy / len(atoms)

    return abs(energy(cutoff - 1e-5) - energy(cutoff + 1e-5))


CRYSTALS = {"Si": bulk("Si"), "Cu": bulk("Cu"), "MgO": bulk("MgO", "rocksalt", a=4.2)}


@pytest.mark.parametrize("formula", CRYSTALS)
def test_jump_at_the_pair_cutoff_is_small(potential, formula):
    assert jump(potential, CRYSTALS[formula], potential.config.pairwise_cutoff) < 0.02


_NOT_YET = pytest.mark.xfail(strict=True, reason="the demonstrator has not learnt to be smooth where bonds get angles")


@pytest.mark.parametrize("formula", [pytest.param("Si", marks=_NOT_YET), "Cu"])
def test_jump_at_the_three_body_cutoff_is_small(potential, formula):
    assert jump(potential, CRYSTALS[formula], potential.config.three_body_cutoff) < 0.02


def _distances(atoms, cutoff):
    structure = Structure(Lattice(atoms.cell.array), atoms.get_chemical_symbols(), atoms.get_scaled_positions())
    return structure.get_neighbor_list(cutoff)[3]


def test_unknown_element_is_named(potential):
    with pytest.raises(StructureError, match="Xe"):
        potential.predict(Structure(Lattice.cubic(6), ["Xe"], [[0, 0, 0]]))
