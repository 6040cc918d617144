"""Screening of crystals with the MatRIS interatomic potential.

The public names load on first use; ``__init__.pyi`` lists them.
``import matris`` loads neither torch nor a workflow engine.
"""

from importlib.metadata import PackageNotFoundError, version

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)

try:
    __version__ = version("matris-flows")
except PackageNotFoundError:  # a source tree on the path, not installed
    __version__ = "0+unknown"
