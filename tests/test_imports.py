"""The contracts of pyproject.toml hold: no import upwards, no circles, no torch in the stores."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_imports_keep_the_contracts():
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"]
    lint = subprocess.run([*command, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert lint.returncode == 0, lint.stdout + lint.stderr


@pytest.mark.parametrize("room", ["makers", "flows", "stores"])
def test_a_room_of_the_root_is_imported_through_matris_alone(room):
    bare = subprocess.run(
        [sys.executable, "-c", f"import {room}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert bare.returncode == 1
    assert f"ImportError: import matris.{room}, not {room}" in bare.stderr


def test_the_package_loads_without_torch():
    names = (
        "import sys, matris, matris.makers, matris.flows, matris.stores.candidate_store; print('torch' in sys.modules)"
    )
    loaded = subprocess.run([sys.executable, "-c", names], cwd=ROOT, capture_output=True, text=True, check=True)
    assert loaded.stdout == "False\n"
