"""A device that is not there is one clear line, whatever is computed."""

from __future__ import annotations

import subprocess
import sys

import pytest
from pymatgen.core import Lattice, Structure

PARTS = {
    "cuda": "device 'cuda' was asked for, but torch",
    "mps": "Apple's GPUs have no float64",
    "gpu": "no device 'gpu'",
    "cpu,cuda:3": "device 'cuda:3' was asked for, but",
}


@pytest.mark.parametrize(("command", "device"), [*(("relax", device) for device in PARTS), ("phonon", "cuda")])
def test_one_line(command, device, tmp_path):
    file = tmp_path / "POSCAR"
    Structure(Lattice.cubic(4.1), ["Cs", "Cl"], [[0, 0, 0], [0.5] * 3]).to(filename=str(file), fmt="poscar")
    options = [command, str(file), "--device", device, "--store", str(tmp_path / "store")]
    result = subprocess.run(
        [sys.executable, "-m", "matris.cli", *options], capture_output=True, text=True, check=False, timeout=300
    )
    lines = [line for line in result.stderr.splitlines() if line.strip() and "Warp" not in line and "warn" not in line]
    assert result.returncode != 0
    assert "Traceback" not in result.stderr
    errors = [line for line in lines if line.startswith("Error:")]
    assert len(errors) == 1
    assert PARTS[device] in " ".join(lines)
