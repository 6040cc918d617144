"""What we compare with: the published package, in its own process, and other potentials, in folders of their own."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
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
        "sevenn==0.13.0", "braceexpand", "e3nn", "matscipy", "opt-einsum", "opt-einsum-fx", "torch-geometric",
    ),
}  # fmt: skip
"""Packages of other potentials, and what they need that this one does not."""


def install_published() -> Path:
    """Put the published package, without its dependencies, where only its own process finds it."""
    return _install(PUBLISHED, ("matris==1.0.0",), "matris")


def use_potential(name: str) -> None:
    """Let one of the `POTENTIALS` be imported: as it is installed, or else from a folder of its own."""
    if find_spec(name) is None:
        folder = HERE / ".peers" / POTENTIALS[name][0].replace("==", "-")
        sys.path.append(str(_install(folder, POTENTIALS[name], name)))  # last: nothing of ours is replaced


def _install(folder: Path, packages: Sequence[str], module: str) -> Path:
    """Put packages into a folder, without their dependencies."""
    if not (folder / module).is_dir():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder)]
        subprocess.run([*command, *packages], check=True)
    return folder


def machine(device: str, threads: int) -> str:
    """Say what runs the model."""
    names = [line.split(":")[1].strip() for line in _read("/proc/cpuinfo") if line.startswith("model name")]
    name = torch.cuda.get_device_name() if device == "cuda" else names[0] if names else platform.processor()
    return f"{name}, {threads} threads, torch {torch.__version__}"


def _read(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


class Peer:
    """A worker process. Use it in a ``with`` block."""

    def __init__(self, side: str, *, threads: int = 1, device: str = "cpu") -> None:
        self.side = side
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        environment["PYTHONPATH"] = str(install_published() if side == "published" else HERE.parent)
        command = [sys.executable, str(HERE / "worker.py"), side, str(threads), device]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )

    def ask(self, do: str, **request: Any) -> dict[str, Any]:
        """Send a request and wait for the answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"do": do, **request}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the {self.side} worker died (exit status {self.process.wait()}) at {do!r}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def load(self, path: Path, structures: Sequence[Structure]) -> None:
        """Load a checkpoint, and the structures that later requests number."""
        self.ask("load", path=str(path), structures=[s.as_dict() for s in structures])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
