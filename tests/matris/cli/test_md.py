"""`matris md`, as a user types it."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING

import ase.io
import pytest
from pymatgen.core import Lattice, Structure
from torch_sim.trajectory import TorchSimTrajectory
from typer.testing import CliRunner

from matris.cli import app

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_md(tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Structure(Lattice.cubic(4.2), ["Mg", "O"], [[0, 0, 0], [0.5] * 3]).to(filename="MgO.cif")
    Structure(Lattice.cubic(4.2), ["U", "O"], [[0, 0, 0], [0.5] * 3]).to(filename="UO.cif")
    files = ("md", "MgO.cif", "UO.cif", "--checkpoint", tiny_checkpoint, "--device", "cpu", "--store", "store")
    motion = ("--ensemble", "npt", "--temperature", 50, "--pressure", 1, "--time-step", 0.5, "--n-steps", 10)
    done = invoke(*files, *motion, "--interval", 5, "--format", "json", "--hdf5")
    assert done.exit_code == 0, done.output
    whole, unknown = json.loads(done.stdout)
    assert whole["state"] == "completed"
    assert whole["settings"]["pressure"] == 1
    assert len(whole["series"]["pressure"]) == 3
    (trajectory,) = (tmp_path / "trajectories").glob("*.extxyz")
    frames = ase.io.read(trajectory, ":")
    assert len(frames) == 3
    with TorchSimTrajectory(trajectory.with_suffix(".h5")) as copied:
        assert copied.get_steps("positions").tolist() == [0, 5, 10]
        for number, frame in enumerate(frames):
            atoms = copied.get_atoms(number)
            assert str(atoms.symbols) == str(frame.symbols)
            assert atoms.positions == pytest.approx(frame.positions)
            assert atoms.cell.array == pytest.approx(frame.cell.array)
            assert copied.get_array("velocities")[number] == pytest.approx(frame.get_velocities())
            assert copied.get_array("forces")[number] == pytest.approx(frame.get_forces())
            assert copied.get_array("stress")[number] == pytest.approx(frame.get_stress(voigt=False))
            assert copied.get_array("potential_energy")[number, 0] == pytest.approx(frame.get_potential_energy())
    assert unknown["state"] == "failed"
    assert "U" in unknown["error"]

    written = trajectory.stat().st_mtime_ns
    again = invoke(*files, *motion, "--interval", 5, "--format", "csv")
    rows = list(csv.reader(io.StringIO(again.stdout)))
    assert rows[0][:4] == ["formula", "state", "T [K]", "P [GPa]"]
    assert float(rows[1][2]) == pytest.approx(whole["mean_temperature"])
    assert dict(zip(*rows[:2], strict=True))["trajectory"] == trajectory.name
    assert trajectory.stat().st_mtime_ns == written

    nothing = invoke(*files[:1], "UO.cif", *files[3:], *motion)
    assert nothing.exit_code == 1
    assert "nothing could be computed" in nothing.output
    constant = invoke(*files, "--ensemble", "nve", "--final-temperature", 600)
    assert constant.exit_code == 2
    assert "nve has no thermostat" in constant.output
    cold = invoke(*files, "--temperature", 0)
    assert cold.exit_code == 2
    assert "above 0 K" in cold.output


def test_diffusion(tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Structure(Lattice.cubic(4.2), ["Mg", "O"], [[0, 0, 0], [0.5] * 3]).to(filename="MgO.cif")
    files = ("diffusion", "MgO.cif", "--checkpoint", tiny_checkpoint, "--device", "cpu", "--store", "store")
    motion = ("--temperatures", "60, 40", "--time-step", 0.5, "--n-steps", 10, "--charges", "Mg=2,O=-2")
    done = invoke(*files, *motion, "--format", "json")
    assert done.exit_code == 0, done.output
    (document,) = json.loads(done.stdout)
    assert [run["temperature"] for run in document["runs"]] == [40, 60]
    assert document["charges_from"] == "given"
    assert len(list((tmp_path / "trajectories").glob("*.extxyz"))) == 2
    page = (tmp_path / "store" / "diffusion.html").read_text()
    assert "Diffusion and ionic conductivity" in page
    again = invoke(*files, *motion)
    assert "fewer than 20 frames" in again.stdout.replace("\n", " ")
    for wrong, message in (
        (("--temperatures", "600,600"), "600 K is there twice"),
        (("--temperatures", ""), "temperatures are missing"),
        (("--temperatures", "hot"), "must be numbers"),
        (("--charges", "Li"), "Li=1,S=-2"),
        (("--charges", "Qq=1"), "Qq is none"),
    ):
        refused = invoke(*files, *wrong)
        assert refused.exit_code == 2
        assert message in " ".join(refused.output.replace("│", " ").split())
