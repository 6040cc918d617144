"""The HTML report of a campaign. The public names load on first use; ``__init__.pyi`` lists them."""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
