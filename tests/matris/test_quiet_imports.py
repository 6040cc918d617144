"""Importing and using the package prints nothing of other packages, and hides nothing else."""

from __future__ import annotations

import subprocess
import sys

import pytest

EVERYTHING = """
import importlib, warnings
for package in ("matris", "matris.makers", "matris.flows", "matris.stores"):
    module = importlib.import_module(package)
    for name in module.__all__:
        getattr(module, name)
from ase.build import bulk
matris = importlib.import_module("matris")
next(matris.relax(bulk("Cu", a=3.7), matris.load(device="cpu"), max_steps=1))
"""

NATIVE = """
import ctypes, os, subprocess, sys, threading
from matris.quiet_imports import native_messages_without
libc = ctypes.CDLL(None)
stderr = ctypes.c_void_p.in_dll(libc, "stderr")
with native_messages_without(b"no driver\\n"):
    libc.fputs(b"no driver\\n", stderr)
    libc.fputs(b"driver too old\\n", stderr)
    thread = threading.Thread(target=lambda: print("of a thread", file=sys.stderr, flush=True))
    thread.start(), thread.join()
    subprocess.run(["sh", "-c", "echo of a child >&2"], check=True)
    os.write(2, b"of the descriptor\\n")
libc.fputs(b"no driver, again\\n", stderr)
libc.fflush(stderr)
"""


def run(code: str, *options: str) -> str:
    done = subprocess.run([sys.executable, *options, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    return done.stderr


def test_nothing_is_printed() -> None:
    assert run(EVERYTHING) == ""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is kept back")
def test_only_one_line_of_native_code_is_kept_back() -> None:
    lines = run(NATIVE).splitlines()
    assert lines[:3] == ["of a thread", "of a child", "of the descriptor"]
    assert lines[3:] == ["driver too old", "no driver, again"]


def test_warnings_of_users_appear() -> None:
    """The filter is that of two modules alone: a user who calls torch.jit.script is told."""
    code = "import matris, torch_sim, torch; torch.jit.script(torch.nn.ReLU())"
    told = run(code)
    assert told.count("torch.jit.script") == 1
    assert "FutureWarning" in told or "DeprecationWarning" in told


def test_modules_keep_their_loaders() -> None:
    code = "import matris, torch_sim.math as m, importlib.machinery as i\n"
    code += "assert type(m.__spec__.loader) is i.SourceFileLoader"
    assert run(code) == ""
