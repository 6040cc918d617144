"""Documents, job stores, hulls, queries and reports. Public names load on first use; ``__init__.pyi`` lists them."""

from lazy_loader import attach_stub

if not __name__.startswith("matris."):
    raise ImportError("import matris.stores, not stores: jobs made from the bare name cannot be loaded anywhere else")

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
