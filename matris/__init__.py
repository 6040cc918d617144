"""Screening of crystals with the MatRIS interatomic potential.

The public names load on first use, so that ``import matris`` is fast and imports neither torch nor a workflow engine.

Examples
--------
>>> import matris
>>> from pymatgen.core import Lattice, Structure
>>> salt = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.6), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
>>> potential = matris.load()
>>> prediction = next(potential.predict(salt))
>>> prediction.forces.shape
(8, 3)
>>> record = next(matris.relax(salt, potential, fmax=0.1))
>>> record.state
'converged'
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
except PackageNotFoundError:  # a source tree that is on the path but not installed
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
