"""The board of molecules on sets that the test makes: errors are what the test adds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ase.io
import numpy as np
import pytest
from ase.build import molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.units import kcal, mol

import matris
from matris.boards.contestants import Contestant, checkpoint
from matris.boards.molecules import MOLECULES_BOARD
from matris.boards.run import run_board
from matris.errors import BoardError

if TYPE_CHECKING:
    from pathlib import Path

    from ase import Atoms

KCAL = kcal / mol


def labelled(name: str, seed: int, energy: float = 0.0, force: float = 0.0, **info: str) -> Atoms:
    """A displaced molecule with EMT's energy and forces, and an error (eV, eV/Å in every component)."""
    atoms = molecule(name)
    atoms.rattle(0.05, seed=seed)
    atoms.calc = EMT()
    results = {"energy": atoms.get_potential_energy() - energy, "forces": atoms.get_forces() - force}
    atoms.calc = SinglePointCalculator(atoms, **results)
    atoms.info.update(info)
    return atoms


def emt() -> Contestant:
    return Contestant("emt", matris.AseModel(EMT(), "emt"), "mp")


def measured(contestant: Contestant, data: Path) -> dict[str, Any]:
    return run_board(MOLECULES_BOARD, contestant, data.parent / "out", data=data).document


def test_energies_and_forces(tmp_path: Path):
    # an error of 0.3 eV per H and 0.1 per O is that of the elements; the last one has 0.03 eV more
    frames = [
        labelled("H2O", 0, 0.7, 0.01),
        labelled("H2", 1, 0.6, 0.01),
        labelled("O2", 2, 0.2, -0.03),
        labelled("H2O", 3, 0.7 + 0.03, 0.02),
    ]
    ase.io.write(tmp_path / "small.extxyz", frames)
    metrics = measured(emt(), tmp_path / "small.extxyz")["metrics"]
    expected = (0.7 / 3 + 0.6 / 2 + 0.2 / 2 + 0.73 / 3) / 4
    assert metrics["small energy MAE [meV/atom]"] == pytest.approx(1e3 * expected, rel=1e-5)
    assert 2 < metrics["small energy MAE, elements fitted [meV/atom]"] < 5  # 0.03 / 3 = 10 meV, shared by two frames
    assert metrics["small forces MAE [meV/Å]"] == pytest.approx(1e3 * (0.01 * 5 + 0.03 * 2 + 0.02 * 3) / 10, rel=1e-4)


def test_torsions_by_hand(tmp_path: Path):
    frames = []
    for name, barrier in (("first", 2.0), ("second", 0.5)):  # kcal/mol that the reference has less at the top
        profile = [labelled("CH3CH2OH", seed, torsion=name) for seed in range(3)]
        top = int(np.argmax([atoms.get_potential_energy() for atoms in profile]))
        for number, atoms in enumerate(profile):
            wanted = atoms.calc.results["energy"] - (barrier * KCAL if number == top else 0) + 5.0
            atoms.calc = SinglePointCalculator(atoms, energy=wanted)
        assert np.ptp([atoms.get_potential_energy() for atoms in profile]) > 0
        frames += profile
    ase.io.write(tmp_path / "torsionnet500.xyz", frames, format="extxyz")
    metrics = run_board(MOLECULES_BOARD, emt(), tmp_path / "out", data=tmp_path / "torsionnet500.xyz").document[
        "metrics"
    ]
    assert metrics["torsionnet500 MAE [kcal/mol]"] == pytest.approx(2.5 / 6, rel=1e-3)
    assert metrics["torsionnet500 RMSE [kcal/mol]"] == pytest.approx(((4 + 0.25) / 6) ** 0.5, rel=1e-3)
    assert "torsionnet500 forces MAE [meV/Å]" not in metrics
    assert "torsionnet500 energy MAE [meV/atom]" not in metrics
    assert metrics["torsionnet500 barriers off by > 1 kcal/mol"] <= 2


def test_bad_frames_and_unknown_elements(tiny_checkpoint: Path, tmp_path: Path):
    crystal = labelled("O2", 0)
    crystal.set_cell([8, 8, 8])
    crystal.pbc = True
    ase.io.write(tmp_path / "mixed.extxyz", [labelled("O2", 0), crystal, labelled("H2O", 1)])
    document = measured(checkpoint(str(tiny_checkpoint), "cpu"), tmp_path / "mixed.extxyz")
    assert set(document["failures"]) == {"mixed/2"}
    assert "unsupported element H" in document["failures"]["mixed/2"]
    ase.io.write(tmp_path / "bare.xyz", molecule("H2"), format="extxyz")
    with pytest.raises(BoardError, match=r"bare\.xyz: frame 1 \(H2\) has no energy"):
        MOLECULES_BOARD.read(tmp_path)
