"""Molecular dynamics of Lennard-Jones argon, with known energies and forces."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from ase import units
from ase.calculators.calculator import Calculator, all_changes
from ase.md.verlet import VelocityVerlet
from pymatgen.core import Lattice, Structure

from matris.model.potential import load
from matris.properties.dynamics import DynamicsSettings, TimeSeries, dynamics
from matris.properties.ensembles import BOLTZMANN, thermal_momenta
from tests.matris.argon import FCC, NEIGHBOR, Argon, crystal, lennard_jones, primitive
from tests.matris.wells import Wells, lattice_gas

MANY = 10_000  # atoms: everything in one batch


def supercell(a: float = FCC, element: str = "Ar") -> Structure:
    return crystal(a, element=element).make_supercell([2, 2, 2], in_place=False)


def settings(**given) -> DynamicsSettings:
    return DynamicsSettings(**{"temperature": 100.0, "time_step": 4.0, "n_steps": 100, "interval": 5, **given})


class LennardJones(Calculator):
    implemented_properties = ("energy", "forces")

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        energy, forces, _ = lennard_jones(atoms.positions, atoms.cell.array)
        self.results = {"energy": energy, "forces": forces}


def test_nve_conserves_energy_to_second_order():
    """Half the time step has a quarter of the error."""
    spread = []
    for time_step in (8.0, 4.0):
        given = settings(ensemble="nve", time_step=time_step, n_steps=round(1600 / time_step), interval=1)
        (record,) = dynamics([supercell()], Argon(), settings=given)
        assert record.state == "completed"
        assert not record.warnings
        spread.append(np.std(record.series.total_energy))
        assert np.std(record.series.potential_energy) > 100 * spread[-1]
        assert abs(record.drift) < 1e-5
    assert spread[0] < 3e-5  # eV/atom
    assert spread[0] / spread[1] == pytest.approx(4, rel=0.15)


def test_nve_is_ase_velocity_verlet(tmp_path):
    given = settings(ensemble="nve", n_steps=50, interval=1)
    (record,) = dynamics([supercell()], Argon(), settings=given, trajectory_dir=tmp_path)
    frames = ase.io.read(record.trajectory, ":")
    rng = np.random.default_rng(0)
    atoms = frames[0].copy()
    assert atoms.get_momenta().sum(axis=0) == pytest.approx(0, abs=1e-6)
    assert atoms.get_momenta() != pytest.approx(rng.standard_normal((32, 3)), abs=0.1)
    atoms.calc = LennardJones()
    VelocityVerlet(atoms, 4.0 * units.fs).run(50)
    last = frames[-1]
    assert np.abs(last.positions - frames[0].positions).max() > 0.1
    assert last.positions == pytest.approx(atoms.positions, abs=1e-5)
    assert last.get_momenta() == pytest.approx(atoms.get_momenta(), abs=1e-4)
    assert last.get_potential_energy() == pytest.approx(atoms.get_potential_energy(), abs=1e-5)
    assert last.get_forces() == pytest.approx(atoms.get_forces(), abs=1e-5)
    assert record.series.temperature[-1] * 31 / 32 == pytest.approx(atoms.get_temperature(), rel=1e-4)  # ASE counts 3n
    assert record.structure.cart_coords == pytest.approx(last.positions, abs=1e-6)


def test_initial_velocities_are_thermal():
    masses = np.array([40.0] * 1000 + [4.0] * 1000)
    momenta = thermal_momenta(masses, 300.0, np.random.default_rng(1))
    assert momenta.sum(axis=0) == pytest.approx(0, abs=1e-9)
    for half in (slice(0, 1000), slice(1000, 2000)):
        kelvin = (momenta[half] ** 2 / masses[half, None]).mean() / BOLTZMANN
        assert kelvin == pytest.approx(300, rel=4 * (2 / 3000) ** 0.5)


def test_nvt_has_its_temperature_at_rest(tmp_path):
    """Kinetic energy of 3n - 3 degrees of freedom: mean and variance of the canonical distribution."""
    given = settings(ensemble="nvt", time_step=8.0, n_steps=800)
    mates = [supercell(FCC * (1 + 1e-3 * number)) for number in range(2)]
    records = dynamics(mates, Argon(), settings=given, trajectory_dir=tmp_path, max_batch_atoms=MANY)
    seen = np.concatenate([record.series.temperature[25:] for record in records])
    correlated = 5  # frames of 40 fs, against a friction time of 100 fs
    freedom = 3 * 32 - 3
    assert seen.mean() == pytest.approx(100, abs=4 * 100 * (2 / freedom * correlated / len(seen)) ** 0.5)
    assert seen.var() == pytest.approx(100**2 * 2 / freedom, rel=0.5)
    last = ase.io.read(records[0].trajectory, -1)
    assert last.get_momenta().sum(axis=0) == pytest.approx(0, abs=1e-5)
    assert last.cell.array == pytest.approx(mates[0].lattice.matrix)


def test_the_thermostat_follows_a_ramp():
    """Free atoms: the kinetic temperature is that of the thermostat one friction time ago."""
    given = settings(temperature=100.0, final_temperature=900.0, time_step=5.0, n_steps=400, thermostat_time=50.0)
    (record,) = dynamics([lattice_gas(6)], Wells(), settings=given)
    series = record.series
    expected = 100 + 800 * (series.time - 50.0 / 2) / 2000  # energy relaxes in half the time of momentum
    late = series.time > 200
    errors = expected * (2 / (3 * 216)) ** 0.5
    scores = ((series.temperature - expected) / errors)[late]
    assert np.abs(scores).max() < 4.5
    assert abs(scores.mean()) < 4 * (10 / len(scores)) ** 0.5
    assert record.diffusion["Ar"].problem == "the temperature changes during the run"
    for wrong in ({"ensemble": "nve"}, {"final_temperature": 0.0}, {"final_temperature": float("nan")}):
        with pytest.raises(ValueError, match="final_temperature"):
            settings(**{"final_temperature": 300.0, **wrong})


def test_npt_comes_to_the_pressure():
    """A cell 5 % too large relaxes to the volume at which NVT has the set pressure."""
    given = settings(ensemble="npt", pressure=1.0, time_step=8.0, n_steps=800, barostat_time=500.0)
    (record,) = dynamics([supercell(FCC * 1.017)], Argon(), settings=given)
    assert record.series.volume[0] == pytest.approx(32 / 4 * (FCC * 1.017) ** 3)
    half = len(record.series.time) // 2
    volume = record.means["volume"]
    assert volume < 0.97 * record.series.volume[0]
    spread = record.series.pressure[half:].std()
    assert record.means["pressure"] == pytest.approx(1.0, abs=4 * spread * (10 / half) ** 0.5)
    assert spread < 1.5  # so that the line above can fail
    fixed = settings(ensemble="nvt", time_step=8.0, n_steps=400)
    (held,) = dynamics([supercell((volume / 8) ** (1 / 3))], Argon(), settings=fixed)
    assert held.means["pressure"] == pytest.approx(1.0, abs=0.25)
    assert np.abs(np.array(record.structure.lattice.angles) - 90).max() > 0.01  # the shape is free
    assert np.abs(np.array(record.structure.lattice.angles) - 90).max() < 5


@pytest.mark.parametrize("ensemble", ["nve", "nvt", "npt"])
def test_alone_or_together_is_the_same(ensemble):
    """Each material has its own random numbers, also beside a material that fails."""
    given = settings(ensemble=ensemble, n_steps=40)

    def breaks(state, output):
        if len(model.batches) == 20:
            output["forces"][state.system_idx == 1] = torch.nan

    model = Argon(after=breaks)
    mates = [supercell(), supercell(FCC * 1.01), crystal(FCC)]
    together = dynamics(mates, model, settings=given, max_batch_atoms=MANY)
    assert max(model.batches) == 68
    assert [record.state for record in together] == ["completed", "failed", "completed"]
    for index in (0, 2):
        (alone,) = dynamics([mates[index]], Argon(), settings=given)
        assert together[index].series.temperature == pytest.approx(alone.series.temperature, rel=1e-8)
        assert together[index].structure.cart_coords == pytest.approx(alone.structure.cart_coords, abs=1e-8)


def test_seed_decides():
    one, same, other = (
        dynamics([supercell()], Argon(), settings=settings(n_steps=5, interval=1, seed=seed))[0] for seed in (1, 1, 2)
    )
    assert np.array_equal(one.series.temperature, same.series.temperature)
    assert one.series.temperature[0] != pytest.approx(other.series.temperature[0], rel=1e-3)


def test_a_broken_material_costs_only_itself(tmp_path):
    """Seven materials break in different ways; the others complete with all frames."""
    big = supercell().make_supercell([2, 1, 1], in_place=False)

    def misbehaves(state, output):
        call = len(model.batches)
        sizes = state.n_atoms_per_system[state.system_idx]
        if call == 8:
            output["forces"][sizes == 8] = torch.tensor([1e6, 0, 0], dtype=torch.float64)
        if call == 12:
            output["energy"][state.n_atoms_per_system == 12] = torch.nan
        if call == 15:
            output["stress"][state.n_atoms_per_system == 16] = -1e3

    def raises(state):
        if len(model.batches) >= 18 and bool((state.n_atoms_per_system == 20).any()):
            raise RuntimeError("no graph today")

    model = Argon(before=raises, after=misbehaves)
    overlapping = Structure(Lattice.cubic(5), ["Ar", "Ar"], [[0, 0, 0], [0, 0, 0.01]])
    stretched = [crystal(FCC).make_supercell([n, 1, 1], in_place=False) for n in (2, 3, 4, 5)]
    mates = [big, *stretched, overlapping, primitive(), "no structure", big.copy(), supercell()]
    given = settings(ensemble="npt", n_steps=30, interval=3)
    records = dynamics(mates, model, settings=given, trajectory_dir=tmp_path, max_batch_atoms=MANY)
    assert [record.index for record in records] == list(range(10))
    assert [record.state for record in records] == ["completed"] + ["failed"] * 7 + ["completed"] * 2
    expected = ["flies away", "NaN", "the cell explodes", "no graph today", "overlapping", "supercell", "expected a"]
    for record, words in zip(records[1:8], expected, strict=True):
        assert words in record.error
        assert record.structure is None
        assert record.means == {}
    for record, calls in zip(records[1:4], (8, 12, 15), strict=True):
        step = calls - 3  # after the start and two calls for the compressibility
        assert record.n_steps == step
        assert f"(at step {step})" in record.error
        assert len(ase.io.read(record.trajectory, ":")) == (step - 1) // 3 + 1 == len(record.series.time)
    for index in (0, 8, 9):
        assert len(ase.io.read(records[index].trajectory, ":")) == 11
    assert np.array_equal(records[0].series.volume, records[8].series.volume)


def test_elements_unknown_to_the_checkpoint():
    pair = [[0, 0, 0], [0.5, 0.5, 0.5]]
    radon = Structure(Lattice.cubic(4), ["Rn", "Rn"], pair)
    salt = Structure(Lattice.cubic(2.7), ["Mg", "O"], pair)
    given = settings(n_steps=2, interval=1, time_step=0.5)
    failed, whole = dynamics([radon, salt], load(device="cpu"), settings=given)
    assert failed.state == "failed"
    assert "Rn" in failed.error
    assert whole.state == "completed"
    assert len(whole.series.time) == 3


def test_too_hot_is_told():
    (record,) = dynamics([supercell(3.2)], Argon(), settings=settings(ensemble="nve", time_step=10.0))
    assert record.state == "failed"
    assert record.structure is None
    assert "flies away" in record.error or "exploded" in record.error


def test_trajectory_has_every_frame(tmp_path):
    given = settings(ensemble="npt", n_steps=23, interval=5)
    (record,) = dynamics([supercell()], Argon(), settings=given, trajectory_dir=tmp_path)
    frames = ase.io.read(record.trajectory, ":")
    assert record.trajectory.parent == tmp_path
    assert [frame.info["step"] for frame in frames] == [0, 5, 10, 15, 20]
    assert [frame.info["time"] for frame in frames] == list(record.series.time) == [0, 20, 40, 60, 80]
    for number, frame in enumerate(frames):
        energy, forces, stress = lennard_jones(frame.positions, frame.cell.array)
        assert frame.get_potential_energy() == pytest.approx(energy)
        assert frame.get_forces() == pytest.approx(forces, abs=1e-5)
        assert frame.get_stress(voigt=False) == pytest.approx(stress, abs=1e-6)
        assert frame.get_volume() == pytest.approx(record.series.volume[number])
        assert frame.get_kinetic_energy() / 32 == pytest.approx(
            record.series.total_energy[number] - record.series.potential_energy[number]
        )
        with_motion = -frame.get_stress(include_ideal_gas=True)[:3].mean() / units.GPa
        assert record.series.pressure[number] == pytest.approx(with_motion, abs=1e-4)
    assert frames[0].get_volume() != frames[-1].get_volume()


def test_run_again(tmp_path):
    """Complete trajectories are read; those without a state and of other settings are computed from the start."""
    given = settings(n_steps=20, interval=5)
    (first,) = dynamics([supercell()], Argon(), settings=given, trajectory_dir=tmp_path)
    content = first.trajectory.read_bytes()
    model = Argon()
    (second,) = dynamics([supercell()], model, settings=given, trajectory_dir=tmp_path)
    assert not model.batches
    assert first.trajectory.read_bytes() == content
    assert second.means == first.means
    assert second.radial_distribution == first.radial_distribution
    assert second.structure.cart_coords == pytest.approx(first.structure.cart_coords)
    (kept,) = tmp_path.glob("*.json")
    kept.unlink()
    first.trajectory.write_bytes(content[:-100])  # killed
    (third,) = dynamics([supercell()], model, settings=given, trajectory_dir=tmp_path)
    assert len(model.batches) == 21
    assert third.trajectory.read_bytes() == content
    (warmer,) = dynamics([supercell()], model, settings=settings(n_steps=5, seed=1), trajectory_dir=tmp_path)
    assert warmer.trajectory != first.trajectory
    assert first.trajectory.read_bytes() == content


@pytest.mark.parametrize("ensemble", ["nve", "nvt", "npt"])
def test_a_complete_run_goes_on_for_more_steps(ensemble, tmp_path):
    """The result equals that of one long run bit for bit, even if the last step of the first run was no frame."""

    def run(n_steps, folder, model):
        given = settings(ensemble=ensemble, n_steps=n_steps, interval=4)
        (record,) = dynamics([supercell()], model, settings=given, trajectory_dir=tmp_path / folder)
        return record

    whole, model = run(23, "whole", Argon()), Argon()
    first = run(10, "parts", model)
    n_calls = len(model.batches)
    second = run(23, "parts", model)
    assert second.trajectory == first.trajectory
    assert len(model.batches) - n_calls == 16  # the frame at step 8, and 15 steps
    assert second.trajectory.read_bytes() == whole.trajectory.read_bytes()
    assert second.series.to_dict() == whole.series.to_dict()
    assert second.structure == whole.structure
    for pair, g in second.radial_distribution["pairs"].items():
        assert g == pytest.approx(whole.radial_distribution["pairs"][pair])
    refused = run(10, "parts", model)
    assert refused.state == "failed"
    assert "has 20 steps already, more than 10: ask for more steps" in refused.error
    assert second.trajectory.read_bytes() == whole.trajectory.read_bytes()
    assert run(23, "parts", Argon()).means == whole.means


def test_a_killed_run_leaves_whole_frames(tmp_path):
    script = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from pathlib import Path
from argon import Argon, crystal, dies_at
from matris.properties.dynamics import DynamicsSettings, dynamics
settings = DynamicsSettings(temperature=100, n_steps=20, interval=2)
dynamics([crystal()], Argon(before=dies_at(12)), settings=settings, trajectory_dir=Path({str(tmp_path)!r}))
"""
    killed = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    (path,) = tmp_path.glob("*.extxyz")
    assert not list(tmp_path.glob("*.json"))  # nothing calls it complete
    assert [frame.info["step"] for frame in ase.io.read(path, ":")] == [0, 2, 4, 6, 8, 10]
    given = settings(time_step=1.0, n_steps=20, interval=2)
    model = Argon()
    (record,) = dynamics([crystal()], model, settings=given, trajectory_dir=tmp_path)
    assert len(model.batches) == 11  # the last frame, and ten steps
    assert record.trajectory == path
    assert [frame.info["step"] for frame in ase.io.read(path, ":")] == list(range(0, 21, 2))


@pytest.mark.parametrize("ensemble", ["nve", "nvt", "npt"])
@pytest.mark.parametrize("call", [9, 17])
def test_an_interrupted_run_goes_on_as_if_it_had_not_been(ensemble, call, tmp_path):
    """Positions, velocities, cell and random numbers: frames, series and final structure are equal bit for bit."""
    given = settings(ensemble=ensemble, n_steps=23, interval=4)
    others = [supercell(), supercell(5.5)]
    undisturbed, model, again = Argon(), Argon(), Argon()
    together = {"settings": given, "max_batch_atoms": 1000}
    whole = dynamics(others, undisturbed, trajectory_dir=tmp_path / "whole", **together)

    def stop(_state):
        if len(model.batches) == call:
            raise KeyboardInterrupt

    model._before = stop
    with pytest.raises(KeyboardInterrupt):
        dynamics(others, model, trajectory_dir=tmp_path / "cut", **together)
    cut = dynamics(others, again, trajectory_dir=tmp_path / "cut", **together)
    assert len(again.batches) <= len(undisturbed.batches) - call + 6
    for first, second in zip(whole, cut, strict=True):
        assert second.state == "completed"
        assert second.trajectory.read_bytes() == first.trajectory.read_bytes()
        assert second.series.to_dict() == first.series.to_dict()
        for pair, g in second.radial_distribution["pairs"].items():
            assert g == pytest.approx(first.radial_distribution["pairs"][pair])
        assert np.array_equal(second.structure.cart_coords, first.structure.cart_coords)
        assert np.array_equal(second.structure.lattice.matrix, first.structure.lattice.matrix)
    assert {path.suffix for path in (tmp_path / "cut").iterdir()} == {".extxyz", ".json", ".state", ".series"}


def test_runs_interrupted_at_different_steps_go_on_together(tmp_path):
    given = settings(n_steps=12, interval=2)
    pair = [supercell(), supercell(5.5)]
    whole = dynamics(pair, Argon(), settings=given)
    model = Argon()

    def stop(_state):
        if len(model.batches) == 8:
            raise KeyboardInterrupt

    model._before = stop
    with pytest.raises(KeyboardInterrupt):
        dynamics(pair[:1], model, settings=given, trajectory_dir=tmp_path)
    for first, second in zip(whole, dynamics(pair, Argon(), settings=given, trajectory_dir=tmp_path), strict=True):
        assert second.series.to_dict() == first.series.to_dict()


def test_frames_after_the_kept_state_are_cut_off(tmp_path):
    """Killed between a frame and its state: the frame is computed again, and stands there once."""
    given = settings(n_steps=20, interval=5)
    (whole,) = dynamics([supercell()], Argon(), settings=given, trajectory_dir=tmp_path / "whole")
    model = Argon()

    def stop(_state):
        if len(model.batches) == 13:
            raise KeyboardInterrupt

    model._before = stop
    with pytest.raises(KeyboardInterrupt):
        dynamics([supercell()], model, settings=given, trajectory_dir=tmp_path / "cut")
    (path,) = (tmp_path / "cut").glob("*.extxyz")
    with path.open("a") as file:
        file.write("32\nhalf a frame")
    (record,) = dynamics([supercell()], Argon(), settings=given, trajectory_dir=tmp_path / "cut")
    assert record.trajectory.read_bytes() == whole.trajectory.read_bytes()


def test_what_cannot_be_continued_is_not_overwritten(tmp_path):
    given = settings(n_steps=4, interval=2)
    (first,) = dynamics([supercell()], Argon(), settings=given, trajectory_dir=tmp_path)
    content = first.trajectory.read_bytes()
    for suffix in ("json", "state"):
        next(tmp_path.glob(f"*.{suffix}")).unlink()
    (second,) = dynamics([supercell()], Argon(), settings=given, trajectory_dir=tmp_path)
    assert second.trajectory.read_bytes() == content
    (old,) = tmp_path.glob("*.old-1.extxyz")
    assert old.read_bytes() == content


def test_distances_and_displacements_of_a_crystal():
    """Twelve neighbors around the nearest distance; atoms that vibrate, and do not leave."""
    (record,) = dynamics([supercell()], Argon(), settings=settings(ensemble="nve", temperature=20.0, n_steps=200))
    found = record.radial_distribution
    g, r = np.array(found["pairs"]["Ar-Ar"]), np.array(found["distances"])
    assert abs(r[g.argmax()] - NEIGHBOR) < 0.1
    density = 4 / FCC**3
    near = r < 1.2 * NEIGHBOR
    assert (g * density * 4 * np.pi * r**2 * 0.05)[near].sum() == pytest.approx(12, rel=1e-3)
    assert g[r < 0.8 * NEIGHBOR].max() == 0
    moved = record.mean_square_displacement
    assert moved["times"][1] == 20
    assert 0 < max(moved["elements"]["Ar"]) < 0.2


def test_how_far_a_run_gets_from_the_training_data_is_told(tmp_path):
    """The largest extrapolation of all frames, of each material alone, also after a failure and when read again."""
    far = {20: 0.7, 40: 2.5}  # by the number of the call

    def answer(state, output):
        output["extrapolation"] = torch.full((state.n_atoms,), far.get(len(model.batches), 0.1), dtype=torch.float64)
        output["extrapolation"][state.system_idx == 1] *= 2

    model = Argon(after=answer)
    both = [supercell(), supercell(5.5), supercell(3.2)]
    given = settings(n_steps=50, interval=1)
    records = dynamics(both, model, settings=given, trajectory_dir=tmp_path, max_batch_atoms=MANY)
    assert [record.state for record in records] == ["completed", "completed", "failed"]
    assert [record.extrapolation for record in records[:2]] == [2.5, 5.0]
    assert records[2].extrapolation < 1
    again = dynamics(both[:2], Argon(), settings=given, trajectory_dir=tmp_path, max_batch_atoms=MANY)
    assert [record.extrapolation for record in again] == [2.5, 5.0]
    (unknown,) = dynamics([supercell()], Argon(), settings=settings(n_steps=1))
    assert unknown.extrapolation is None


def test_no_trajectory_unless_asked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (record,) = dynamics([supercell()], Argon(), settings=settings(n_steps=1))
    assert record.trajectory is None
    assert list(tmp_path.iterdir()) == []


def test_drift_is_told():
    time = np.arange(0.0, 1000.0, 10.0)
    noise = 1e-4 * np.sin(time)
    series = TimeSeries(time, *(time,) * 2, -5 + 2e-5 * time + noise, time, None)
    slope, error = series.drift()
    assert slope == pytest.approx(0.02, rel=0.01)
    assert error < 1e-3
    assert "pressure" not in series.means()
    again = TimeSeries.from_dict(json.loads(json.dumps(series.to_dict())))
    assert again.pressure is None
    assert np.array_equal(again.total_energy, series.total_energy)


def test_a_drifting_energy_is_warned_of():
    def leaks(_state, output):
        output["energy"] += 1e-3 * len(model.batches)

    model = Argon(after=leaks)
    (record,) = dynamics([supercell()], model, settings=settings(ensemble="nve"))
    assert record.state == "completed"
    assert record.drift == pytest.approx(1e-3 / 32 / 0.004, rel=0.05)
    assert any("drifts by +0.0078" in warning for warning in record.warnings)
    (thermostated,) = dynamics([supercell()], model, settings=settings(ensemble="nvt"))
    assert thermostated.drift is None
    assert not thermostated.warnings


def test_nothing_and_wrong_settings():
    assert dynamics([], Argon()) == []
    for wrong, words in [
        ({"ensemble": "nph"}, "nve, nvt or npt"),
        ({"temperature": -1}, "temperature"),
        ({"ensemble": "nvt", "temperature": 0}, "above 0 K"),
        ({"time_step": 0}, "time_step"),
        ({"n_steps": 0}, "n_steps"),
        ({"interval": 0}, "interval"),
        ({"pressure": float("nan")}, "pressure"),
        ({"ensemble": "npt", "barostat_time": 5.0}, "barostat_time"),
    ]:
        with pytest.raises(ValueError, match=words):
            DynamicsSettings(**wrong)
    assert DynamicsSettings(temperature=300).digest() == DynamicsSettings(temperature=300.0).digest()
    assert DynamicsSettings(temperature=301).digest() != DynamicsSettings(temperature=300).digest()
    without = Argon()
    without._compute_stress = False
    with pytest.raises(ValueError, match="stress"):
        dynamics([supercell()], without, settings=settings(ensemble="npt"))


@pytest.mark.parametrize("ensemble", ["nve", "nvt", "npt"])
def test_fixed_atoms_stay_and_the_others_have_the_temperature(ensemble):
    start, fixed = supercell(), [0, 5, 17]
    flags = [[False] * 3 if i in fixed else [True] * 3 for i in range(len(start))]
    flags[9] = [True, False, True]
    restrained = start.copy(site_properties={"selective_dynamics": flags})
    given = settings(ensemble=ensemble, n_steps=200, interval=1)
    free, held = dynamics([start, restrained], Argon(), settings=given, max_batch_atoms=MANY)
    (alone,) = dynamics([restrained], Argon(), settings=given)
    assert held.structure.cart_coords == pytest.approx(alone.structure.cart_coords, abs=1e-6)
    change = held.structure.frac_coords - start.frac_coords
    assert change[fixed] == pytest.approx(0, abs=1e-9)
    if ensemble != "npt":  # there the fixed direction turns with the cell
        assert change[9, 1] == pytest.approx(0, abs=1e-9)
    moving = [i for i in range(len(start)) if i not in fixed]
    assert np.abs(change[moving]).max(axis=1).min() > 1e-4
    assert np.abs(free.structure.frac_coords - start.frac_coords)[fixed].max() > 1e-4
    degrees = 3 * len(start) - 3 * len(fixed) - 1
    if ensemble == "nve":
        energies = held.series.total_energy - held.series.potential_energy
        assert held.series.temperature == pytest.approx(2 * energies * len(start) / degrees / BOLTZMANN)
        assert np.std(held.series.total_energy) < np.std(held.series.potential_energy) / 50


def test_fixed_atoms_do_not_cool_the_others():
    start = supercell()
    flags = [[i % 2 == 0] * 3 for i in range(len(start))]
    restrained = start.copy(site_properties={"selective_dynamics": flags})
    given = settings(ensemble="nvt", n_steps=3000, interval=5, thermostat_time=50.0)
    (record,) = dynamics([restrained], Argon(), settings=given)
    temperatures = record.series.temperature[100:]
    spread = 100.0 * np.sqrt(2 / (3 * len(start) / 2))  # of the canonical ensemble
    assert temperatures.mean() == pytest.approx(100.0, abs=6.0)
    assert temperatures.std() == pytest.approx(spread, rel=0.25)


def test_all_atoms_fixed_is_said():
    start = supercell().copy(site_properties={"selective_dynamics": [[False] * 3] * len(supercell())})
    (record,) = dynamics([start], Argon(), settings=settings(n_steps=1))
    assert record.error == "all atoms are fixed: there is nothing to move"


def test_masses_of_the_input_move_the_atoms(tmp_path):
    """Four times as heavy, half as fast; the trajectory has the masses."""
    light = supercell()
    heavy = light.copy(site_properties={"masses": [4 * 39.948] * len(light)})
    given = settings(ensemble="nve", n_steps=4, interval=1)
    records = dynamics([light, heavy], Argon(), settings=given, trajectory_dir=tmp_path)
    for record, mass in zip(records, (39.948, 4 * 39.948), strict=True):
        first = ase.io.read(record.trajectory, index=0)
        assert first.get_masses() == pytest.approx(mass, rel=1e-5)
        assert first.get_temperature() * len(first) / (len(first) - 1) == pytest.approx(
            record.series.temperature[0], rel=1e-4
        )
    deuterium = supercell(element="D")
    assert records[0].warnings == records[1].warnings == ()
    (record,) = dynamics([deuterium], Argon(), settings=given)
    (again,) = dynamics([supercell(element="H")], Argon(), settings=given)
    assert not np.allclose(record.structure.cart_coords, again.structure.cart_coords, atol=1e-3)


def test_velocities_of_the_input_are_not_used_and_that_is_said(tmp_path):
    moving = supercell()
    moving.add_site_property("velocities", [[0.1, 0.0, 0.0]] * len(moving))
    given = settings(n_steps=2, interval=1)
    for _ in range(2):  # the second reads the complete trajectory
        (record,) = dynamics([moving], Argon(), settings=given, trajectory_dir=tmp_path)
        assert [w for w in record.warnings if "velocities of the input are not used" in w]
    at_rest = moving.copy(site_properties={"velocities": [[0.0, 0.0, 0.0]] * len(moving)})
    assert dynamics([at_rest], Argon(), settings=given)[0].warnings == ()


def test_a_state_is_on_disk_after_the_frame_it_refers_to(tmp_path, monkeypatch):
    synced = []

    def fsync(number):
        node = os.fstat(number).st_ino
        synced.extend(path for path in tmp_path.iterdir() if path.stat().st_ino == node)
        original(number)

    original = os.fsync
    monkeypatch.setattr(os, "fsync", fsync)
    given = settings(n_steps=2, interval=1)
    (record,) = dynamics([supercell()], Argon(), settings=given, trajectory_dir=tmp_path)
    kinds = [path.suffix if path.suffix != ".part" else path.suffixes[-3] for path in synced]
    first = kinds.index(".state")
    assert kinds[:first] == [".extxyz", ".series"]
    assert kinds.count(".state") == kinds.count(".extxyz") == len(record.series.time)
