"""Optional dependencies: the extras of the distribution."""

from __future__ import annotations

from importlib import import_module

from matris.errors import MatrisError


def require(module: str, sentence: str, extra: str, kind: type[MatrisError] = MatrisError) -> None:
    """
    Check that an optional dependency is installed.

    Parameters
    ----------
    module
        Name of the module.
    sentence
        Beginning of the message, which says what needs the package.
    extra
        Name of the extra that installs it.
    kind
        Class of the error.

    Raises
    ------
    MatrisError
        If the module is not installed; the message says how to install it.

    Examples
    --------
    >>> require("json", "examples need json", "examples")
    >>> require("no_such_module", "examples need a module", "examples")
    Traceback (most recent call last):
    matris.errors.MatrisError: examples need a module: pip install 'matris-flows[examples]'
    """
    try:
        import_module(module)
    except ImportError as error:
        raise kind(f"{sentence}: pip install 'matris-flows[{extra}]'") from error
