"""Displacements and diffusion coefficients, against random walks, a Langevin particle and an Einstein solid."""

from __future__ import annotations

import numpy as np
import pytest
from pymatgen.core import Structure

from matris.properties.correlations import Snapshot
from matris.properties.diffusivity import CM2_PER_S, N_BLOCKS, Displacements, diffusivities
from matris.properties.dynamics import DynamicsSettings, dynamics
from matris.properties.ensembles import BOLTZMANN, FEMTOSECOND
from tests.matris.argon import Argon, crystal
from tests.matris.wells import Wells, lattice_gas

SKEW = np.array([[14.0, 0.0, 0.0], [5.0, 13.0, 0.0], [-4.0, 3.0, 15.0]])
MASS = 39.95  # u, argon


def frames_of(places: np.ndarray, every: float = 5.0) -> list[Snapshot]:
    return [Snapshot(every * t, frame, SKEW) for t, frame in enumerate(places)]


def walk(random: np.random.Generator, n_atoms: int, width: float = 0.3, n_frames: int = 200) -> np.ndarray:
    return np.cumsum(random.normal(scale=width, size=(n_frames, n_atoms, 3)), axis=0)


def test_a_random_walk_spreads_linearly():
    random = np.random.default_rng(1)
    both = np.concatenate([walk(random, 200, width, 400) for width in (0.1, 0.2)], axis=1)
    found = Displacements.of(["Li"] * 200 + ["O"] * 200, frames_of(both), None).to_dict()
    assert found["times"][:3] == [0, 5, 10]
    assert len(found["times"]) == 400 // N_BLOCKS // 2 + 1
    for element, width in (("Li", 0.1), ("O", 0.2)):
        slope = np.polyfit(np.arange(40), found["elements"][element][:40], 1)[0]
        assert slope == pytest.approx(3 * width**2, rel=0.05)
        assert found["errors"][element][0] == 0
        assert 0 < found["errors"][element][20] < 0.1 * found["elements"][element][20]


def test_errors_are_those_of_repeated_runs():
    """Deviations from the known coefficient, over their errors, spread as Student's t with four degrees of freedom."""
    random = np.random.default_rng(2)
    exact = CM2_PER_S * 3 * 0.3**2 / 5 / 6
    found = [Displacements.of(["Li"] * 20, frames_of(walk(random, 20)), None).diffusivity("Li") for _ in range(150)]
    known = [f for f in found if f.coefficient is not None]
    assert len(known) > 140
    scores = np.array([(f.coefficient - exact) / f.error for f in known])
    assert np.mean(np.abs(scores) < 1) == pytest.approx(0.626, abs=0.12)
    assert np.mean(np.abs(scores) < 2.776) == pytest.approx(0.95, abs=0.05)
    assert np.mean([f.coefficient for f in known]) == pytest.approx(exact, rel=0.05)
    assert known[0].window == (25.0, 100.0)


def test_a_cell_that_breathes_or_drifts_moves_no_atom():
    inside = np.array([[0.1, 0.2, 0.3], [3.6, -2.5, 0.5]])  # not wrapped
    cells = [SKEW * (1 + 0.01 * np.sin(t)) for t in range(8)]
    frames = [Snapshot(t, (inside + 0.02 * t) @ cell, cell) for t, cell in enumerate(cells)]
    found = Displacements.of(["Li", "O"], frames, np.array([6.9, 16.0])).to_dict()
    assert found["elements"]["O"] == pytest.approx([0] * 5, abs=1e-9)
    assert "errors" not in found
    drifting = Displacements.of(["Li", "O"], frames, None).to_dict()
    assert drifting["elements"]["O"][1] > 0.1


@pytest.mark.parametrize(
    ("places", "problem"),
    [
        (np.zeros((200, 4, 3)), "does not differ from 0"),
        (
            np.linspace(0, 20, 200)[:, None, None] * np.ones((1, 4, 3)),
            "no constant slope: displacements grow faster",
        ),
        (1e-2 * walk(np.random.default_rng(0), 100), "in 0.995 ps would be"),
        (np.full((200, 4, 3), np.nan), "does not differ from 0"),
    ],
)
def test_a_run_that_tells_no_coefficient_says_why(places, problem):
    found = Displacements.of(["Li"] * places.shape[1], frames_of(places), None).diffusivity("Li")
    assert found.coefficient is None
    assert problem in found.problem


def test_vibration_beyond_the_diffusion():
    random = np.random.default_rng(3)
    places = walk(random, 900, 0.02) + random.normal(scale=0.5, size=(200, 900, 3))
    found = Displacements.of(["Li"] * 900, frames_of(places), None).diffusivity("Li")
    assert found.coefficient is None
    assert found.n_hops > 10
    assert "of vibration" in found.problem


def test_few_frames():
    frame = Snapshot(0, np.zeros((1, 3)), SKEW)
    assert Displacements.of(["H"], [frame] * 3, None) is None
    few = Displacements.of(["H"], frames_of(np.zeros((19, 1, 3))), None)
    for displacements in (None, few):
        assert "fewer than 20 frames" in diffusivities(displacements, ["H"])["H"].problem


def test_a_langevin_particle_diffuses_by_its_friction():
    """D = kT τ/m (1 - 1/n) for n atoms, because the center of mass is at rest."""
    settings = DynamicsSettings(temperature=500, time_step=5, n_steps=2000, interval=5, thermostat_time=25)
    (record,) = dynamics([lattice_gas()], Wells(), settings=settings)
    found = record.diffusion["Ar"]
    exact = CM2_PER_S * BOLTZMANN * 500 / MASS * FEMTOSECOND**2 * 25 * (1 - 1 / 7**3)
    assert found.error < 0.04 * exact
    assert found.coefficient == pytest.approx(exact, abs=3 * found.error)
    assert not record.is_reliable
    assert "slows Ar by about 9" in record.warnings[0]


def test_an_einstein_solid_does_not_diffuse():
    """Mean square displacement 6 kT/(m ω²) (1 - 1/n) for n atoms, because the center of mass is at rest."""
    settings = DynamicsSettings(temperature=500, time_step=5, n_steps=3000, interval=5, thermostat_time=50)
    (record,) = dynamics([lattice_gas()], Wells(3.0), settings=settings)
    moved = record.mean_square_displacement
    late = np.array(moved["times"]) > 300  # fs; within 100 fs the atoms forget their phase
    plateau = np.array(moved["elements"]["Ar"])[late].mean()
    error = np.array(moved["errors"]["Ar"])[late].mean()
    exact = 6 * BOLTZMANN * 500 / 3.0 * (1 - 1 / 7**3)
    assert plateau == pytest.approx(exact, abs=3 * error)
    assert error < 0.03 * exact
    assert record.diffusion["Ar"].coefficient is None
    assert record.is_reliable


def test_what_a_record_says_of_short_runs_and_fixed_atoms(tmp_path):
    held = crystal().add_site_property("selective_dynamics", [[False] * 3] + [[True] * 3] * 3)
    assert isinstance(held, Structure)
    settings = DynamicsSettings(temperature=50, n_steps=6, interval=1)
    for _ in range(2):  # computed, and read from its trajectory
        free, fixed = dynamics([crystal(), held], Argon(), settings=settings, trajectory_dir=tmp_path)
        assert "fewer than 20 frames" in free.diffusion["Ar"].problem
        assert fixed.diffusion["Ar"].problem == "some atoms are fixed"
