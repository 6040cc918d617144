"""The examples run and print what the repository says they print."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from monty.serialization import loadfn

from matris.stores.candidate_store import CandidateStore
from tests.stores.serving import small_store

EXAMPLES = Path(__file__).parents[1] / "examples"
NUMBER = re.compile(r"-?\d+(?:\.\d+)?$")
MEV = 3.0  # energies and frequencies may differ by the rounding of another machine: meV/atom, or 0.1 THz
THZ = 0.2


def test_tutorial(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(EXAMPLES.parent)}
    command = [sys.executable, "-W", "ignore", str(EXAMPLES / "tutorial.py")]
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    printed, expected = run.stdout.split(), (EXAMPLES / "tutorial.txt").read_text().split()
    assert len(printed) == len(expected), run.stdout
    for word, wanted in zip(printed, expected, strict=True):
        if NUMBER.match(wanted):
            assert abs(float(word) - float(wanted)) <= (THZ if "." in wanted else MEV), run.stdout
        else:
            assert word == wanted, run.stdout


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
    for job, (document, structure) in zip(flow.jobs, query.structures(), strict=True):
        assert job.metadata == {name: document[name] for name in ("candidate_id", "document_id")}
        (given,) = job.function_args
        assert given == structure
        incar = job.maker.input_set_generator.get_input_set(given, potcar_spec=True).incar
        assert incar["NSW"] == 0
        is_oxide_of_iron = {"Fe", "O"} <= given.chemical_system_set
        assert incar.get("LDAU", False) == is_oxide_of_iron  # +U as the Materials Project has it
        if is_oxide_of_iron:
            assert max(incar["LDAUU"]) == 5.3


def test_vasp_static_for_another_energy_scale(tmp_path):
    small_store.fill(tmp_path)
    run = vasp_static(tmp_path, tmp_path / "flow.json")
    assert run.returncode == 1
    assert "matpes-pbe" in run.stderr
    assert not (tmp_path / "flow.json").exists()
