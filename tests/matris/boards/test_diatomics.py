"""The board of diatomics, on curves that a calculator knows."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from ase.calculators.emt import EMT
from typer.testing import CliRunner

from matris.ase_model import AseModel
from matris.boards.contestants import Contestant
from matris.boards.diatomics import DIATOMICS_BOARD, DISTANCES, dimer
from matris.boards.run import run_board
from matris.cli import app

REFERENCE = Path(__file__).parents[4] / "shared" / "data" / "diatomics_dft.json.gz"


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    """A file in the board's layout whose curve of H is EMT's own, and that of O has energies 0.5 eV/Å steeper."""
    curves = {}
    for element, slope in (("H", 0.0), ("O", 0.5)):
        energies, forces = [], []
        for distance in DISTANCES:
            atoms = dimer(element, distance)
            atoms.calc = EMT()
            energies.append(atoms.get_potential_energy() - slope * distance)
            forces.append(atoms.get_forces().tolist())
        curves[f"{element}-{element}"] = {"distances": DISTANCES.tolist(), "energies": energies, "forces": forces}
    path = tmp_path / "reference.json.gz"
    path.write_bytes(gzip.compress(json.dumps({"PBE": curves}).encode()))
    return path


def test_a_potential_against_itself_has_no_error(reference: Path, tmp_path: Path):
    contestant = Contestant("emt", AseModel(EMT(), "emt"), "mp")
    result = run_board(DIATOMICS_BOARD, contestant, tmp_path / "H", data=reference, limit=2)
    metrics = result.document["metrics"]
    assert metrics["elements"] == 1  # He is not known
    assert "He" in result.document["failures"]
    for name in ("pbe_energy_mae", "pbe_force_mae", "pbe_wall_dist_mae", "pbe_well_depth_error"):
        assert metrics[name] == pytest.approx(0, abs=1e-12)
    curves = json.loads(gzip.decompress((tmp_path / "H" / "diatomics-curves.json.gz").read_bytes()))
    assert set(curves["homo-nuclear"]) == {"H-H"}
    assert curves["distances"] == DISTANCES.tolist()
    assert np.shape(curves["homo-nuclear"]["H-H"]["forces"]) == (119, 2, 3)


def test_the_command(tiny_checkpoint: Path, reference: Path, tmp_path: Path):
    command = ["board", "diatomics", "--checkpoint", str(tiny_checkpoint), "--device", "cpu", "--data", str(reference)]
    done = CliRunner().invoke(app, [*command, "--limit", "3", "--output", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert "tiny: 3 items" in done.output
    assert "2 of 3 items failed; the first, H: unsupported element H" in done.output
    assert json.loads((tmp_path / "out" / "diatomics.json").read_text())["metrics"]["elements"] == 1
    missing = CliRunner().invoke(app, [*command[:-2], "--output", str(tmp_path / "out")])
    assert missing.exit_code == 1
    assert "needs --data: the board's PBE curves" in missing.output
    wrong = CliRunner().invoke(app, ["board", "diatomic"])
    assert wrong.exit_code == 2
    assert "did you mean diatomics" in wrong.output


@pytest.mark.skipif(not REFERENCE.exists(), reason="the board's PBE curves are not here")
def test_the_references_that_jump_are_those_of_the_board():
    items = DIATOMICS_BOARD.read(REFERENCE)
    jumpy = {element for element, curve in items.items() if curve is None}
    assert jumpy == {"Pr", "Pm", "Sm", "Tb", "Dy", "Ho", "Er", "Tm"}  # as its docstring lists them
    assert len(items) == 87
