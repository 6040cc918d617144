"""Documents as databases hold them: without Python's own types."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from monty.json import jsanitize

if TYPE_CHECKING:
    from collections.abc import Mapping


def plain(document: Mapping[str, Any]) -> dict[str, Any]:
    """
    Convert the values of a document: numpy numbers and arrays, enumerations (to their values), UUIDs, paths, objects.

    All stores do it alike, so that a document is the same in each of them. Times and bytes remain.

    Examples
    --------
    >>> from enum import Enum
    >>> from pathlib import Path
    >>> from uuid import UUID
    >>> kind = Enum("Kind", {"BULK": "bulk"})
    >>> plain({"kind": kind.BULK, "id": UUID(int=5), "file": Path("a.cif"), "cell": (1, 2)})
    {'kind': 'bulk', 'id': '00000000-0000-0000-0000-000000000005', 'file': 'a.cif', 'cell': [1, 2]}
    """
    converted: dict[str, Any] = jsanitize(dict(document), allow_bson=True, enum_values=True, recursive_msonable=True)
    return converted
