"""Makers in stored documents."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from jobflow import Maker
from monty.json import MontyDecoder

from matris.errors import StoreError
from matris.files.stored_objects import check_classes, named_objects

if TYPE_CHECKING:
    from collections.abc import Mapping

PACKAGE = "matris.makers"
"""Package of the Makers that may be decoded."""


def decode_maker(document: Mapping[str, Any]) -> Any:
    """
    Decode a stored Maker of this package.

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
        If the document is no Maker of this package, names another class or a function at any depth, or has unknown
        fields.

    Examples
    --------
    >>> from matris.makers import BatchRelaxMaker
    >>> decode_maker(BatchRelaxMaker(steps=7).as_dict()).steps
    7
    >>> decode_maker({"@module": "os", "@callable": "system"})
    Traceback (most recent call last):
    matris.errors.StoreError: the stored Maker is not decoded: it names os.system, ...
    """
    content = dict(document)
    check_classes(content, [PACKAGE], "the stored Maker")
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
