"""Screening of crystals with the MatRIS interatomic potential.

The names below load on first use, so that ``import matris`` stays cheap and needs neither torch nor a workflow engine.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from matris.lazy import lazily

if TYPE_CHECKING:
    from matris.ase_model import AseModel
    from matris.calculator import MatRISCalculator
    from matris.model.potential import Potential, Prediction, load
    from matris.relaxation.relax import RelaxRecord, relax
    from matris.torchsim import MatRISTorchSimModel

__all__ = [
    "AseModel",
    "MatRISCalculator",
    "MatRISTorchSimModel",
    "Potential",
    "Prediction",
    "RelaxRecord",
    "load",
    "relax",
]

try:
    __version__ = version("matris-flows")
except PackageNotFoundError:  # a source tree on the path, not installed
    __version__ = "0+unknown"

__getattr__, __dir__ = lazily(
    __name__,
    {
        "AseModel": "ase_model",
        "MatRISCalculator": "calculator",
        "MatRISTorchSimModel": "torchsim",
        "Potential": "model.potential",
        "Prediction": "model.potential",
        "RelaxRecord": "relaxation.relax",
        "load": "model.potential",
        "relax": "relaxation.relax",
    },
)
