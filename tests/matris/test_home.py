"""Homes that cannot be written, are read-only or do not exist: everything computes, and nothing is left behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from matris.home import made

RELAX = """
import os, matris
from ase.build import bulk
(record,) = matris.relax(bulk("Cu", a=3.7), device_potential := matris.load(device="cpu"), max_steps=1)
import torch_sim, warp
print(record.error, record.n_steps, os.environ.get("HOME"), os.environ["WARP_CACHE_PATH"], sep="|")
"""


def run(home: str | None, folder: Path, code: str = RELAX, **more: str) -> subprocess.CompletedProcess[str]:
    dropped = {"HOME", "XDG_CACHE_HOME", "MATRIS_CACHE", "WARP_CACHE_PATH"}
    environment = {name: value for name, value in os.environ.items() if name not in dropped}
    environment |= {"TMPDIR": str(folder), **({} if home is None else {"HOME": home}), **more}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)


@pytest.fixture
def temporary(tmp_path):
    folder = tmp_path / "temporary"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("home", ["/dev/null", "/proc/nothing"])
def test_a_home_that_cannot_be_written(home, temporary):
    result = run(home, temporary)
    assert result.returncode == 0, result.stderr
    error, n_steps, left, warp = result.stdout.strip().splitlines()[-1].split("|")
    assert (error, n_steps, left) == ("None", "1", home)
    assert Path(warp).is_relative_to(temporary)
    assert [path for path in temporary.iterdir() if path.name.startswith("matris-")] == []


def test_a_home_that_is_mounted_read_only(temporary, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    mount = f"mount -t tmpfs none {home} && mount -o remount,ro {home}"
    if subprocess.run(["unshare", "-m", "bash", "-c", mount], capture_output=True, check=False).returncode:
        pytest.skip("this machine lets nobody mount")
    script = f"{mount} && exec {sys.executable} -c '{RELAX}'"
    environment = {**os.environ, "HOME": str(home), "TMPDIR": str(temporary)}
    for name in ("XDG_CACHE_HOME", "MATRIS_CACHE", "WARP_CACHE_PATH"):
        environment.pop(name, None)
    command = ["unshare", "-m", "bash", "-c", script]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip().splitlines()[-1].startswith("None|1|")


def test_a_user_without_a_home(temporary):
    code = "import pathlib\ndef none(): raise RuntimeError('Could not determine home directory.')\n"
    code += "pathlib.Path.home = none\n"  # torch-sim asks it too, and then has HOME
    code += "import matris; from matris.files.cache import cache_directory; print(cache_directory())"
    result = run(None, temporary, code)
    assert result.returncode == 0, result.stderr
    assert Path(result.stdout.strip()).is_relative_to(temporary)


def test_caches_are_in_the_cache_directory(tmp_path, temporary):
    home, shown = str(tmp_path), "import matris, warp, os; print(os.environ['WARP_CACHE_PATH'])"
    unused = run(home, temporary, "import matris, os; print(os.listdir(os.environ['HOME']))")
    assert unused.stdout.strip() == "['temporary']"  # importing matris alone makes nothing
    assert run(home, temporary, shown).stdout.strip() == str(tmp_path / ".cache" / "matris" / "warp")
    chosen = run(home, temporary, shown, MATRIS_CACHE="/dev/null/cache")
    assert Path(chosen.stdout.strip()).is_relative_to(temporary)
    kept = run(home, temporary, shown, WARP_CACHE_PATH=str(tmp_path / "elsewhere"))
    assert kept.stdout.strip() == str(tmp_path / "elsewhere")


def test_what_can_be_made(tmp_path):
    (tmp_path / "file").touch()
    assert made(tmp_path / "a" / "b")
    assert made(tmp_path)
    assert not made(tmp_path / "file" / "b")
    assert not made(Path("/proc/nothing"))
