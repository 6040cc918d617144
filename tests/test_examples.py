"""The examples run and print what the repository says they print."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

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
