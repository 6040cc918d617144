"""Screening of crystals with the MatRIS interatomic potential.

The names below load on first use, so that ``import matris`` stays cheap and needs neither torch nor a workflow engine.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matris.calculator import MatRISCalculator
    from matris.potential import Potential, Prediction, load
    from matris.relax import RelaxRecord, relax
    from matris.torchsim import MatRISTorchSimModel

__all__ = ["MatRISCalculator", "MatRISTorchSimModel", "Potential", "Prediction", "RelaxRecord", "load", "relax"]

try:
    __version__ = version("matris-flows")
except PackageNotFoundError:  # a source tree on the path, not installed
    __version__ = "0+unknown"

_HOME = {
    "MatRISCalculator": "matris.calculator",
    "MatRISTorchSimModel": "matris.torchsim",
    "Potential": "matris.potential",
    "Prediction": "matris.potential",
    "RelaxRecord": "matris.relax",
    "load": "matris.potential",
    "relax": "matris.relax",
}


def __getattr__(name: str) -> Any:
    """Import the public name on first use."""
    if name in _HOME:
        value = getattr(import_module(_HOME[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'matris' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
