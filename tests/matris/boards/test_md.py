"""The board of molecular dynamics: errors by hand, and a run against a trajectory of the same potential."""

from __future__ import annotations

from typing import TYPE_CHECKING

import ase.io
import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution

import matris
from matris.boards.contestants import Contestant
from matris.boards.md import MD_BOARD
from matris.boards.motion import Motion, angles, motion_errors, pressure_errors, radial, spectrum
from matris.boards.run import run_board
from matris.errors import BoardError

if TYPE_CHECKING:
    from pathlib import Path


def vibrating(frequency: float, frames: int = 400, time: float = 5.0, amplitude: float = 0.1) -> Motion:
    """Two atoms 1 Å apart in a box that vibrate along x (THz, fs)."""
    shifts = amplitude * np.cos(2 * np.pi * frequency * 1e-3 * time * np.arange(frames))
    positions = np.zeros((frames, 3, 3))
    positions[:, 1, 0], positions[:, 2, 1] = 1.0 + shifts, 1.0 - shifts
    cells = np.repeat(10.0 * np.eye(3)[None], frames, axis=0)
    return Motion(np.array([8, 1, 1]), positions, cells, np.array([True] * 3), None)


def test_a_trajectory_has_no_error_against_itself():
    motion = vibrating(10.0)
    errors = motion_errors(motion, motion, 5.0)
    assert errors["rdf_error"] == errors["adf_error"] == errors["vdos_error"] == 0
    assert errors["pressure_error"] is None
    with pytest.raises(ValueError, match="3 frames are too few"):
        motion_errors(vibrating(10.0, frames=3), motion, 5.0)


def test_the_spectrum_peaks_at_the_frequency():
    frequencies = np.fft.rfftfreq(400, 5e-3)
    assert frequencies[np.argmax(spectrum(vibrating(10.0), 5.0))] == pytest.approx(10.0)
    # two lines 5 THz apart, narrower than that: the largest error
    assert motion_errors(vibrating(10.0), vibrating(15.0), 5.0)["vdos_error"] == 100


def test_pairs_and_angles():
    still = vibrating(10.0, frames=4, amplitude=0.0)
    assert np.flatnonzero(angles(still)).tolist() == [90]  # H-O-H; the two H are 1.41 Å apart and not bonded
    found = radial(still, 5.0)
    assert found.argmax() == 100  # bins of 0.01 Å; the pairs at 1 Å
    # g(r) integrates to the pairs: N²/2V ∫ 4πr² g dr = 3
    edges = np.linspace(0, 5, 501)
    assert np.sum(found * 4 / 3 * np.pi * np.diff(edges**3)) * 9 / 2 / 1000 == pytest.approx(3)


def test_pressures():
    errors = pressure_errors(np.array([0.0, 4.0]), np.array([1.0, 5.0]))
    assert errors == {"pressure_mae": 1.0, "pressure_wasserstein": 1.0, "pressure_error": pytest.approx(100.0)}
    assert pressure_errors(np.ones(3), np.ones(3))["pressure_error"] == 0


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    """A folder with a trajectory of copper by EMT."""
    atoms = bulk("Cu", cubic=True).repeat(2)
    atoms.calc = EMT()
    rng = np.random.default_rng(1)
    MaxwellBoltzmannDistribution(atoms, temperature_K=300, rng=rng)
    run = Langevin(atoms, 2 * units.fs, temperature_K=300, friction=1e-3 / units.fs, rng=rng)
    frames = []
    for _ in run.irun(30):
        frame = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=True)
        frame.calc = EMT()
        frame.get_potential_energy(), frame.get_forces(), frame.get_stress()
        frames.append(frame)
    frames[0].info |= {"temperature": 300.0, "time_step": 2.0}
    (tmp_path / "md").mkdir()
    ase.io.write(tmp_path / "md" / "copper.extxyz", frames)
    return tmp_path / "md"


def test_the_board(reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from matris.boards import md

    monkeypatch.setattr(md, "_LONGEST_STEP", 2.0)
    contestant = Contestant("emt", matris.AseModel(EMT(), "emt"), "mp")
    metrics = run_board(MD_BOARD, contestant, tmp_path / "out", data=reference).document["metrics"]
    assert metrics["systems"] == 1
    assert metrics["energy_rmse"] == pytest.approx(0, abs=1e-4)  # the same potential
    assert metrics["force_rmse"] == pytest.approx(0, abs=1e-3)
    assert 0 < metrics["rdf_error"] < 60  # other velocities, 60 fs
    assert metrics["pressure_mae"] < 3
    assert not (tmp_path / "out" / "md-cells").exists()


def test_what_is_no_reference(reference: Path, tmp_path: Path):
    item = MD_BOARD.read(reference)["copper"]
    assert (item.temperature, item.time, item.interval, item.n_frames) == (300.0, 2.0, 8, 31)
    ase.io.write(reference / "bare.extxyz", bulk("Cu"))
    with pytest.raises(BoardError, match=r"bare\.extxyz: the first frame has no temperature, time_step"):
        MD_BOARD.read(reference)
    (tmp_path / "none").mkdir()
    with pytest.raises(BoardError, match="holds no reference trajectory"):
        MD_BOARD.read(tmp_path / "none")
