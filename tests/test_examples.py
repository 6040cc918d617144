"""The examples run, and what they print holds together; the numbers are those of the embedded checkpoint of the day."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from monty.serialization import loadfn

from matris.stores.candidate_store import CandidateStore
from tests.stores.serving import small_store

EXAMPLES = Path(__file__).parents[1] / "examples"
CRYSTALS = {
    ("CaO", "Fm-3m"), ("CaTiO3", "Pm-3m"), ("CaMgO2", "P4/mmm"), ("MgO", "Fm-3m"), ("MgO", "F-43m"),
    ("MgTiO3", "Pm-3m"), ("TiO2", "P4_2/mnm"),
}  # fmt: skip


def check(printed: str) -> None:
    """All crystals are ranked; those within 50 meV/atom have phonons; the answer follows from both tables."""
    first, ranking, phonons, answer = printed.split("\n\n")
    assert first.startswith(f"{len(CRYSTALS)} candidates: CaO-rocksalt, ")
    heading, *rows = (line.split() for line in ranking.splitlines())
    assert heading == ["formula", "space", "group", "above", "hull", "(meV/atom)"]
    assert {(formula, group) for formula, group, _ in rows} == CRYSTALS
    distances = [float(distance) for *_, distance in rows]
    assert distances == sorted(distances)
    assert distances[0] == 0
    heading, *lines = (line.split(maxsplit=3) for line in phonons.splitlines())
    assert heading == ["formula", "space", "group", "lowest frequency (THz)"]
    near = [(formula, group) for formula, group, distance in rows if float(distance) <= 50]  # rounded
    computed = [(formula, group) for formula, group, *_ in lines]
    assert computed == near[: len(computed)]
    assert all(float(distance) == 50 for *_, distance in rows[len(computed) : len(near)])
    assert all(verdict in ("stable", "imaginary modes") for *_, verdict in lines)
    assert all(float(lowest) < 0 for *_, lowest, verdict in lines if verdict == "imaginary modes")
    stable = {formula for formula, *_, verdict in lines if verdict == "stable"}
    assert answer == f"On or near the hull, and dynamically stable: {', '.join(sorted(stable))}\n"


def test_tutorial(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(EXAMPLES.parent)}
    command = [sys.executable, "-W", "ignore", str(EXAMPLES / "tutorial.py")]
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    check(run.stdout)


def test_the_page_beside_the_tutorial():
    """A sample of the output; `python examples/tutorial.py > examples/tutorial.txt` writes it."""
    check((EXAMPLES / "tutorial.txt").read_text())


def test_a_page_that_contradicts_itself_is_seen():
    good = (EXAMPLES / "tutorial.txt").read_text()
    for wrong in (good.replace("stable\n", "imaginary modes\n", 1), good.replace("CaMgO2", "CaMg2O"), good[:-5] + "\n"):
        assert wrong != good
        with pytest.raises(AssertionError):
            check(wrong)


def vasp_static(*arguments):
    command = [sys.executable, "-W", "ignore", str(EXAMPLES / "vasp_static.py"), *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(EXAMPLES.parent)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_vasp_static(tmp_path, monkeypatch):
    monkeypatch.setitem(small_store.CHECKPOINT, "energy_scale", "mp")
    small_store.fill(tmp_path / "store")
    run = vasp_static(tmp_path / "store", tmp_path / "flow.json", "--filter", "energy_above_hull < 5", "--number", "2")
    assert run.stdout.startswith("2 calculations"), run.stderr
    flow = loadfn(tmp_path / "flow.json")
    query = CandidateStore.open(tmp_path / "store").query(below=5).sort("energy_above_hull").limit(2)
    for (job, label), (document, structure) in zip(flow.jobs, query.structures(), strict=True):
        assert label.function_args[1] == document["candidate_id"]
        (given,) = job.function_args
        assert given == structure.copy(site_properties={})
        incar = job.maker.input_set_generator.get_input_set(given, potcar_spec=True).incar
        assert incar["NSW"] == 0
        is_oxide_of_iron = {"Fe", "O"} <= given.chemical_system_set
        assert incar.get("LDAU", False) == is_oxide_of_iron  # +U as the Materials Project has it
        if is_oxide_of_iron:
            assert max(incar["LDAUU"]) == 5.3


def test_vasp_static_for_another_energy_scale(tmp_path, monkeypatch):
    monkeypatch.setitem(small_store.CHECKPOINT, "energy_scale", "mp-d3bj")
    small_store.fill(tmp_path)
    run = vasp_static(tmp_path, tmp_path / "flow.json")
    assert run.returncode == 1
    assert "use the checkpoint without dispersion" in run.stderr
    assert not (tmp_path / "flow.json").exists()
