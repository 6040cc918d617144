"""The commands `matris label`, `data` and `evaluate`, from a campaign's candidates to errors against their labels."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING

import ase.io
import numpy as np
import pytest
from ase.calculators.singlepoint import SinglePointCalculator
from pymatgen.core import Lattice, Structure
from typer.testing import CliRunner

from matris.cli import app
from matris.model.potential import load
from matris.stores.candidate_store import CandidateStore
from matris.stores.dft_labels import DftLabels
from matris.stores.documents.candidate import Candidate
from matris.stores.documents.documents import CheckpointTag, RelaxTag, make_dropped
from matris.training.data.dataset import DataSet

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, list(map(str, arguments)))


def rock_salt(a: float, cation: str, anion: str) -> Structure:
    vectors = [[0, a / 2, a / 2], [a / 2, 0, a / 2], [a / 2, a / 2, 0]]
    return Structure(Lattice(vectors), [cation, anion], [[0, 0, 0], [0.5] * 3])


@pytest.fixture(scope="module")
def candidates() -> list[Candidate]:
    return [
        Candidate.from_structure(rock_salt(a, *ions), "test")
        for ions, a in ((("Mg", "O"), 4.2), (("Na", "Cl"), 5.6), (("Li", "Cl"), 5.1))
    ]


@pytest.fixture(scope="module")
def calculated(candidates: list[Candidate], tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frames of the candidates that a potential labelled, in place of a first-principles code."""
    dice, frames = np.random.default_rng(1), []
    potential = load(tiny_checkpoint, device="cpu")
    for candidate in candidates:
        for _ in range(10):
            atoms = candidate.structure.to_ase_atoms(msonable=False)
            atoms.set_cell(atoms.cell * dice.uniform(0.99, 1.01), scale_atoms=True)
            atoms.positions += dice.normal(scale=0.03, size=atoms.positions.shape)
            atoms.info = {"candidate_id": candidate.candidate_id}
            found = potential.predict(atoms)
            atoms.calc = SinglePointCalculator(
                atoms,
                energy=found.energy,
                forces=found.forces,
                stress=found.stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]],
            )
            frames.append(atoms)
    path = tmp_path_factory.mktemp("calculated") / "done.extxyz"
    ase.io.write(path, frames, format="extxyz")
    return path


@pytest.fixture(scope="module")
def store(candidates: list[Candidate], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store") / "results"
    tag = CheckpointTag(key="tiny", sha256="ab" * 32, energy_scale="mp")
    settings = RelaxTag(fmax=0.05, max_steps=500, relax_cell=True, digest="0" * 12)
    CandidateStore.open(folder).add_dropped(
        make_dropped(candidate, "chemistry", "for the test", checkpoint=tag, settings=settings)
        for candidate in candidates
    )
    return folder


def test_labels_of_candidates_become_a_set(
    calculated: Path, store: Path, tmp_path: Path, tiny_checkpoint: Path
) -> None:
    how = ("--code", "VASP", "--functional", "PBE", "--energy-scale", "mp", "--store", store)
    for _ in range(2):  # the same labels again are no new ones
        done = invoke("label", calculated, *how)
        assert done.exit_code == 0, done.output
        assert "30 labels in the store" in done.stderr
    (_, document), *others = DftLabels(store).documents()
    assert len(others) == 29
    assert document["energy_scale"] == "mp"
    assert document["stress_unit"] == "eV/Å³"

    made = invoke("data", "--store", store, "--output", tmp_path / "set", "--validation", 0.3)
    assert made.exit_code == 0, made.output
    assert "30 frames of 3 materials" in made.stdout
    assert "energy scale mp" in made.stdout
    frame = ase.io.read(calculated, index=0)
    same = [f for f in DataSet(tmp_path / "set") if abs(f.energy - frame.get_potential_energy()) < 1e-9]
    assert len(same) == 1
    assert same[0].material == frame.info["candidate_id"]
    assert np.allclose(same[0].stress, frame.get_stress(voigt=False), atol=1e-6)

    shown = invoke("data", tmp_path / "set")
    assert shown.exit_code == 0
    assert shown.stdout == made.stdout

    against = invoke("evaluate", tiny_checkpoint, tmp_path / "set", "--part", "all", "--format", "json")
    assert against.exit_code == 0, against.output
    rows = json.loads(against.stdout)
    assert rows[0]["frames"] == 30
    assert rows[0]["energy_mae"] < 0.1
    assert rows[0]["force_mae"] < 0.1
    assert {row["name"] for row in rows} == {"all", "labelled candidates", "Mg", "O", "Na", "Cl", "Li"}


def test_strangers_are_not_labelled(calculated: Path, store: Path, tmp_path: Path) -> None:
    atoms = ase.io.read(calculated, index=0)
    atoms.info = {}
    ase.io.write(tmp_path / "stranger.extxyz", atoms)
    done = invoke(
        "label",
        tmp_path / "stranger.extxyz",
        "--code",
        "x",
        "--functional",
        "y",
        "--energy-scale",
        "z",
        "--store",
        store,
    )
    assert done.exit_code == 1
    assert "1 are of no candidate of this store: MgO (stranger.extxyz, MgO)" in done.stderr
    assert "name the candidate_id that 'matris export' writes" in done.stderr


def test_errors_as_table_csv_and_page(calculated: Path, tmp_path: Path, tiny_checkpoint: Path) -> None:
    frames = ase.io.read(calculated, index=":")
    for atoms in frames:
        atoms.calc.results["energy"] += 3.0 * len(atoms)
        atoms.info["energy_scale"] = "matpes-pbe"
    frames[0].set_atomic_numbers([79, 79])
    ase.io.write(tmp_path / "shifted.extxyz", frames, format="extxyz")
    page = tmp_path / "page.html"
    done = invoke("evaluate", tiny_checkpoint, tmp_path / "shifted.extxyz", "--report", page)
    assert done.exit_code == 0, done.output
    assert "shifted.extxyz" in done.stdout
    assert "1 frames left out: elements that the checkpoint does not know" in done.stderr
    assert "unknown elements: Au (1)" in done.stderr
    assert "the labels are on the energy scale matpes-pbe, the checkpoint is on mp" in done.stderr
    assert "from 3000 to 0 meV/atom" in done.stderr
    assert "tiny against shifted.extxyz" in page.read_text()
    done = invoke("evaluate", tiny_checkpoint, tmp_path / "shifted.extxyz", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert float(rows[0]["energy_mae"]) == pytest.approx(3000, rel=1e-3)
    assert float(rows[0]["energy_mae_shifted"]) < 1


def test_clear_errors(calculated: Path, tmp_path: Path) -> None:
    done = invoke("data")
    assert done.exit_code == 1
    assert "name files with labels" in done.stderr
    done = invoke("data", calculated, calculated)
    assert "--output SET" in done.stderr
    frames = ase.io.read(calculated, index=":")
    for atoms in frames:
        atoms.calc = None
    ase.io.write(tmp_path / "bare.extxyz", frames)
    done = invoke("data", tmp_path / "bare.extxyz", "--output", tmp_path / "set", "--no-check")
    assert done.exit_code == 1
    assert "no frames to train on: no energy (30)" in done.stderr
    assert not (tmp_path / "set").exists()
    done = invoke("evaluate", "no-such-checkpoint", calculated)
    assert done.exit_code == 1
    assert "no checkpoint 'no-such-checkpoint'" in done.stderr
