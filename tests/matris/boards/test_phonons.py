"""Boards of phonons and of MatCalc, on data that EMT makes: its errors against itself are known."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from monty.serialization import dumpfn
from phonopy import Phonopy

import matris
from matris.boards.contestants import Contestant
from matris.boards.matcalc import MATCALC_BOARD, perturbed
from matris.boards.phonons import PHONONS_BOARD
from matris.boards.run import run_board
from matris.errors import BoardError
from matris.properties.elastic import elastic
from matris.properties.phonons import to_phonopy
from matris.structures import to_structure

if TYPE_CHECKING:
    from pathlib import Path

    from pymatgen.core import Structure


COPPER = 0.242e-3 * 96485.3  # J/K/mol at 300 K: EMT's heat capacity as the example of `phonons` prints it (meV/K)


def emt() -> Contestant:
    return Contestant("emt", matris.AseModel(EMT(), "emt"), "mp")


@pytest.fixture(scope="module")
def copper() -> Structure:
    """Copper at EMT's lattice constant."""
    record = next(matris.relax(bulk("Cu", cubic=True), matris.AseModel(EMT()), fmax=1e-4))
    return record.structure


def reference(structure: Structure, path: Path, stiffer: float = 1.0) -> None:
    """Write a phonopy file of EMT's forces, as the MDR set has them, with forces made stiffer."""
    phonopy = Phonopy(to_phonopy(structure), 2 * np.eye(3), primitive_matrix="F")
    phonopy.generate_displacements(distance=0.01)
    forces = []
    for cell in phonopy.supercells_with_displacements:
        atoms = bulk("Cu").__class__(cell.symbols, scaled_positions=cell.scaled_positions, cell=cell.cell, pbc=True)
        atoms.calc = EMT()
        forces.append(stiffer * atoms.get_forces())
    phonopy.forces = forces
    phonopy.save(path, settings={"force_sets": True})


def test_phonons_against_force_constants(copper: Structure, tmp_path: Path):
    (tmp_path / "mdr").mkdir()
    reference(copper, tmp_path / "mdr" / "mp-30.yaml")
    reference(copper, tmp_path / "mdr" / "mp-31.yaml", stiffer=1.21)  # frequencies 1.1 times as high
    (tmp_path / "mdr" / "mp-32.yaml").write_text("nothing: 1\n")
    result = run_board(PHONONS_BOARD, emt(), tmp_path / "out", data=tmp_path / "mdr")
    rows = [json.loads(line) for line in (tmp_path / "out" / "phonons.jsonl").read_text().splitlines()[1:]]
    found = {row["structure_id"]: row["values"] for row in rows}
    same, stiff = found["mp-30"], found["mp-31"]["reference"]
    for name in ("max_frequency", "entropy", "free_energy", "heat_capacity"):
        assert same[name] == pytest.approx(same["reference"][name], rel=5e-3)
    assert stiff["max_frequency"] == pytest.approx(1.1 * same["reference"]["max_frequency"], rel=1e-6)
    assert same["heat_capacity"] == pytest.approx(COPPER, rel=2e-3)
    # S depends on ω/T alone, so dS = -C_V d ln ω
    middle = (same["reference"]["heat_capacity"] + stiff["heat_capacity"]) / 2
    assert same["reference"]["entropy"] - stiff["entropy"] == pytest.approx(middle * np.log(1.1), rel=1e-3)
    metrics = result.document["metrics"]
    expected = (abs(same["entropy"] - same["reference"]["entropy"]) + abs(same["entropy"] - stiff["entropy"])) / 2
    assert metrics["entropy_mae [J/K/mol]"] == pytest.approx(expected)
    assert metrics["crystals"] == 2
    assert metrics["unstable"] == 0
    assert "mp-32.yaml" in result.document["failures"]["mp-32"]


@pytest.mark.slow
def test_heat_capacities_are_those_of_the_given_cell(copper: Structure, tmp_path: Path):
    rows = [{"mp_id": "a", "structure": copper.as_dict(), "heat_capacity": 100.0}]  # four atoms
    dumpfn(rows, tmp_path / "cv.json.gz")
    result = run_board(PHONONS_BOARD, emt(), tmp_path / "out", data=tmp_path / "cv.json.gz")
    metrics = result.document["metrics"]
    assert metrics["heat_capacity_mae [J/K/mol]"] == pytest.approx(100 - 4 * COPPER, abs=0.1)
    assert metrics["entropy_mae [J/K/mol]"] is None


@pytest.fixture
def matcalc(copper: Structure, tmp_path: Path) -> Path:
    """A folder with MatCalc's files for copper; what DFT would say is EMT's value, changed by a known amount."""
    folder = tmp_path / "matcalc"
    folder.mkdir()
    row = {"structure": copper.as_dict(), "formula": "Cu"}
    (tensor,) = elastic([copper], matris.AseModel(EMT()), fmax=1e-3)
    moduli = tensor.fit.moduli()
    dumpfn([{**row, "material_id": "a", "formation_energy_per_atom": 0.1}], folder / "wbm-equilibrium-1.json.gz")
    stiffness = {"bulk_modulus_vrh": moduli["k_vrh"] + 10, "shear_modulus_vrh": moduli["g_vrh"] + 5}
    dumpfn([{**row, "mp_id": "a", **stiffness}], folder / "mp-elasticity-1.json.gz")
    dumpfn([{**row, "mp_id": "a", "heat_capacity": 100.0}], folder / "alexandria-phonon-1.json.gz")
    frames = {}
    for number in range(3):
        atoms = bulk("Cu", cubic=True)
        atoms.rattle(0.1, seed=number)
        atoms.calc = EMT()
        frames[str(number)] = {"structure": to_structure(atoms), "vasp_f": (atoms.get_forces() / 0.8).tolist()}
    dumpfn({"a": frames}, folder / "wbm-high-energy-states.json.gz")
    dumpfn({"Cu": {"structure": copper.as_dict()}}, folder / "MP-PBE-Element-Refs.json.gz")
    return folder


def test_matcalc(matcalc: Path, tmp_path: Path):
    result = run_board(MATCALC_BOARD, emt(), tmp_path / "out", data=matcalc)
    metrics = result.document["metrics"]
    assert metrics["e_form_mae [eV/atom]"] == pytest.approx(0.1, abs=1e-3)  # an element's formation energy is 0
    assert metrics["k_mae [GPa]"] == pytest.approx(10, abs=2)  # strains of 1 % are not small
    assert metrics["g_mae [GPa]"] == pytest.approx(5, abs=4)  # nor are those of 6 %
    assert metrics["c_v_mae [J/K/mol]"] == pytest.approx(100 - 4 * COPPER, abs=0.1)
    assert metrics["softening"] == pytest.approx(0.8)
    assert [metrics[f"n {name}"] for name in ("e_form_mae", "k_mae", "c_v_mae", "softening")] == [1, 1, 1, 1]
    assert set(result.document["data"]) == {path.name for path in matcalc.iterdir()}


def test_matcalc_says_what_is_missing(matcalc: Path, tmp_path: Path):
    (matcalc / "MP-PBE-Element-Refs.json.gz").unlink()
    with pytest.raises(BoardError, match="no energies of elements"):
        run_board(MATCALC_BOARD, emt(), tmp_path / "out", data=matcalc)
    entry = {"energy": -4.0, "composition": {"Cu": 2.0}, "correction": 0.0}
    dumpfn({"Cu": entry}, matcalc / "mp-elemental-reference-entries.json.gz")
    result = run_board(MATCALC_BOARD, emt(), tmp_path / "out", data=matcalc, limit=1)
    assert any("DFT's elements" in remark for remark in result.document["remarks"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(BoardError, match=r"no \*equilibrium\*"):
        run_board(MATCALC_BOARD, emt(), tmp_path / "out2", data=tmp_path / "empty")


def test_each_atom_moves_by_a_tenth_of_an_angstrom(copper: Structure):
    moved = perturbed(copper, "a")
    shifts = [site.distance(before) for site, before in zip(moved, copper, strict=True)]
    assert shifts == pytest.approx([0.1] * 4)
    assert perturbed(copper, "a") == moved
    assert perturbed(copper, "b") != moved
