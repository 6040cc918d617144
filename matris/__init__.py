"""Screening of crystals with the MatRIS interatomic potential.

The public names load on first use; ``__init__.pyi`` lists them.
``import matris`` loads neither torch nor a workflow engine.

Examples
--------
>>> import matris
>>> from pymatgen.core import Lattice, Structure
>>> salt = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.6), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
>>> potential = matris.load()
>>> prediction = potential.predict(salt)
>>> prediction.forces.shape
(8, 3)
>>> record = next(matris.relax(salt, potential, fmax=0.1))
>>> record.state
'converged'
"""

from importlib.metadata import PackageNotFoundError, version

from lazy_loader import attach_stub

from matris.home import prepare_caches
from matris.quiet_imports import quiet_imports

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)

prepare_caches()
quiet_imports()

try:
    __version__ = version("matris-flows")
except PackageNotFoundError:  # a source tree that is on the path but not installed
    __version__ = "0+unknown"
