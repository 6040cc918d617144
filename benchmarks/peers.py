"""Packages for comparison: the published package, in its own process, and other potentials, in their own folders."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pymatgen.core import Structure

HERE = Path(__file__).parent
PUBLISHED = HERE / ".peers" / "matris-1.0.0"

POTENTIALS = {
    "chgnet": ("chgnet==0.4.2", "nvidia-ml-py3"),
    "sevenn": (
        "sevenn==0.13.0", "braceexpand", "e3nn", "joblib", "matscipy", "opt-einsum", "opt-einsum-fx", "scikit-learn",
        "threadpoolctl", "torch-geometric", "xxhash",
    ),
    "nequix": (
        "nequix==0.4.5", "e3nn", "e3nn-jax", "equinox", "jax", "jaxlib", "jaxtyping", "jraph", "matscipy", "ml-dtypes",
        "opt-einsum", "opt-einsum-fx", "wadler-lindig",
    ),
}  # fmt: skip
"""Packages of other potentials, and their dependencies that this package does not have."""


def install_published() -> Path:
    """Install the published package, without its dependencies, into a folder that only its own process imports from."""
    return _install(PUBLISHED, ("matris==1.0.0",), "matris")


def use_potential(name: str) -> None:
    """Make one of the `POTENTIALS` importable; install it into its own folder if it is missing."""
    if find_spec(name) is None:
        folder = HERE / ".peers" / POTENTIALS[name][0].replace("==", "-")
        sys.path.append(str(_install(folder, POTENTIALS[name], name)))  # last, so that it replaces none of our packages


def _install(folder: Path, packages: Sequence[str], module: str) -> Path:
    """Install packages into a folder, without their dependencies."""
    if not (folder / module).is_dir():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder)]
        subprocess.run([*command, *packages], check=True)
    return folder


def machine(device: str, threads: int) -> str:
    """Describe processor or GPU, number of threads, and version of torch."""
    names = [line.split(":")[1].strip() for line in _read("/proc/cpuinfo") if line.startswith("model name")]
    name = torch.cuda.get_device_name() if device == "cuda" else names[0] if names else platform.processor()
    return f"{name}, {threads} threads, torch {torch.__version__}"


def _read(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


class Peer:
    """Worker process of one side of a comparison, a context manager."""

    def __init__(self, side: str, *, threads: int = 1, device: str = "cpu") -> None:
        self.side = side
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        environment["PYTHONPATH"] = str(install_published() if side == "published" else HERE.parent)
        command = [sys.executable, str(HERE / "worker.py"), side, str(threads), device]
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - lives as long as the process
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            env=environment,
        )

    def ask(self, do: str, **request: Any) -> dict[str, Any]:
        """Send a request, and wait for the answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"do": do, **request}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            status = self.process.wait()
            self.errors.seek(0)
            last = self.errors.read().splitlines()[-1:]
            raise RuntimeError(f"the {self.side} worker died (exit status {status}) at {do!r}: {' '.join(last)}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def load(self, path: Path, structures: Sequence[Structure]) -> None:
        """Load a checkpoint, and the structures to which later requests refer by index."""
        self.ask("load", path=str(path), structures=[s.as_dict() for s in structures])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
