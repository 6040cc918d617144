"""Makers in stored documents."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from jobflow import Maker
from monty.json import MontyDecoder

from matris.errors import StoreError
from matris.files.stored_objects import check_classes, named_objects

if TYPE_CHECKING:
    from collections.abc import Mapping

PACKAGE = "matris.makers"
"""Package of the Makers that may always be decoded."""

TRUSTED = "MATRIS_MAKERS"
"""Environment variable: modules of further Makers that may be imported, separated by commas."""


def trusted_modules() -> list[str]:
    """List the packages and modules whose Makers may be imported to decode a document."""
    return [PACKAGE, *filter(None, (module.strip() for module in os.environ.get(TRUSTED, "").split(",")))]


def environment_for(document: Mapping[str, Any]) -> dict[str, str]:
    """
    Make the environment variable by which another process may decode a Maker of this one.

    Parameters
    ----------
    document
        Dictionary form of a Maker that this process made.

    Examples
    --------
    >>> environment_for({"@module": "my_project.makers", "@class": "MyMaker"})
    {'MATRIS_MAKERS': 'matris.makers,my_project.makers'}
    """
    named = [str(marked.get("@module")) for _, marked in named_objects(document)]
    return {TRUSTED: ",".join(dict.fromkeys([*trusted_modules(), *named]))}


def decode_maker(document: Mapping[str, Any]) -> Any:
    """
    Decode a stored Maker: one of this package, or one whose module is trusted.

    Others may write to a shared database, and to decode a class is to import its module. Therefore a module outside
    this package must either be imported already, or be named by the environment variable ``MATRIS_MAKERS``.

    Parameters
    ----------
    document
        Dictionary form of a Maker.

    Returns
    -------
    BatchMaker
        Maker; also the Makers in its fields are decoded.

    Raises
    ------
    StoreError
        If the document is no Maker, names a class of another module or a function at any depth, or has unknown fields.

    Examples
    --------
    >>> from matris.makers import BatchRelaxMaker
    >>> decode_maker(BatchRelaxMaker(max_steps=7).as_dict()).max_steps
    7
    >>> decode_maker({"@module": "os", "@callable": "system"})
    Traceback (most recent call last):
    matris.errors.StoreError: the stored Maker is not decoded: it names os.system, ...
    """
    content = dict(document)
    imported = {str(marked.get("@module")) for _, marked in named_objects(content)} & set(sys.modules)
    try:
        check_classes(content, [*trusted_modules(), *sorted(imported)], "the stored Maker")
    except StoreError as error:
        raise StoreError(f"{error}. If it is your own Maker: set {TRUSTED} to its module.") from error
    for _, named in [("", content), *named_objects(content)]:
        if not _is_maker(named):
            raise StoreError(f"the stored Maker {named.get('@module')}.{named.get('@class')} cannot be imported here")
    try:
        return MontyDecoder().process_decoded(content)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise StoreError(f"the stored Maker {content['@class']} cannot be made: {error}") from error


def _is_maker(content: Mapping[str, Any]) -> bool:
    """Tell whether a document names a Maker that its module defines, not one that the module imports."""
    module, name = content.get("@module"), content.get("@class")
    if not module or not name:
        return False
    try:
        found = getattr(import_module(module), name, None)
    except ModuleNotFoundError:
        return False
    return isinstance(found, type) and issubclass(found, Maker) and found.__module__ == module
