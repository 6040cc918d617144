"""
The kernels for GPUs give the numbers of torch in Triton's interpreter, and compile for GPUs that are not here.

No test here needs a GPU, and none replaces one: benchmarks/gpu.py is for the machine that has it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import matris
from matris.errors import CheckpointError

INTERPRETED = Path(__file__).with_name("interpreted_triton.py")
needs_triton = pytest.mark.skipif(not find_spec("triton"), reason="triton comes with torch for CUDA only")


@needs_triton
def test_numbers_in_the_interpreter(tmp_path):
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    options = ["-q", "-n", "0", "-p", "no:cacheprovider", f"--basetemp={tmp_path / 'inner'}"]
    command = [sys.executable, "-m", "pytest", *options, str(INTERPRETED)]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert result.returncode == 0, result.stdout
    assert "skipped" not in result.stdout.splitlines()[-1]


def test_precision_is_an_option():
    model = matris.load(device="cpu", precision="bf16x3")
    assert model.precision == "bf16x3"
    assert matris.load(device="cpu").precision == "tf32x3"
    with pytest.raises(CheckpointError, match="'tf32' is not supported: ieee, tf32x3, bf16x3"):
        matris.load(device="cpu", precision="tf32")


def test_a_cpu_imports_none_of_it():
    code = (
        "import sys, matris; from ase.build import bulk\n"
        "matris.load(device='cpu').predict(bulk('Cu'))\n"
        "print([name for name in sys.modules if 'triton_' in name and 'matris' in name])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


REASON = "no assembler of CUDA beside triton"


@needs_triton
@pytest.mark.parametrize("gpu", ["sm_80", "sm_90", "gfx942"])
def test_they_compile_for_gpus_without_spills(gpu, tmp_path):
    """Registers in memory would cost more than all else; shared memory that a GPU does not have is an error there."""
    import triton.backends.nvidia

    tools = Path(triton.backends.nvidia.__file__).parent / "bin"
    if not all(shutil.which(tool, path=tools) for tool in ("ptxas", "cuobjdump")):
        pytest.skip(REASON)
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "tests.matris.model.compile_triton", gpu]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert result.returncode == 0, result.stderr
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(lines) == 7
    too_much = [x for x in lines if x["spilled"] > 128 or x["shared"] > x["shared_limit"]]
    assert not too_much
