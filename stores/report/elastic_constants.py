"""Elastic constants of documents for tables: those that symmetry leaves independent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ALL = tuple(f"C{i}{j}" for i in range(1, 7) for j in range(i, 7))
"""Names of the 21 constants of a crystal without symmetry."""

_INDEPENDENT = {
    "cubic": "11 12 44",
    "hexagonal": "11 12 13 33 44",
    "trigonal": "11 12 13 14 15 33 44",
    "tetragonal": "11 12 13 16 33 44 66",
    "orthorhombic": "11 12 13 22 23 33 44 55 66",
    "monoclinic": "11 12 13 15 22 23 25 33 35 44 46 55 66",
}
"""In the standard axes; J. F. Nye, Physical Properties of Crystals, Oxford 1985, table 9."""

_ZERO_IN_HIGH_CLASSES = {"trigonal": ("C15", 149), "tetragonal": ("C16", 89)}  # from this space group on


def constants(document: Mapping[str, Any]) -> dict[str, float]:
    """
    Read the 21 elastic constants in the standard axes of the IEEE.

    Parameters
    ----------
    document
        Fields of a `matris.stores.documents.properties.ElasticDocument`.

    Returns
    -------
    dict
        Constants by name, GPa; empty for a document without a tensor.

    Examples
    --------
    >>> tensor = [[10.0 * i + j for j in range(1, 7)] for i in range(1, 7)]
    >>> constants({"elastic_tensor": {"ieee_format": tensor}})["C46"]
    46.0
    """
    tensor = (document.get("elastic_tensor") or {}).get("ieee_format")
    return {} if tensor is None else {name: float(tensor[int(name[1]) - 1][int(name[2]) - 1]) for name in ALL}


def independent(documents: Iterable[Mapping[str, Any]]) -> list[str]:
    """
    Name the constants that are independent in at least one of some crystals.

    Parameters
    ----------
    documents
        Fields of elastic documents, with their ``symmetry``.

    Examples
    --------
    >>> cubic = {"elastic_tensor": {}, "symmetry": {"crystal_system": "Cubic", "number": 225}}
    >>> independent([cubic])
    ['C11', 'C12', 'C44']
    >>> independent([cubic, {"elastic_tensor": {}, "symmetry": {"crystal_system": "Tetragonal", "number": 139}}])
    ['C11', 'C12', 'C13', 'C33', 'C44', 'C66']
    """
    names: set[str] = set()
    for document in documents:
        symmetry = document.get("symmetry") or {}
        system = str(symmetry.get("crystal_system")).lower()
        own = {f"C{indices}" for indices in _INDEPENDENT[system].split()} if system in _INDEPENDENT else set(ALL)
        name, first = _ZERO_IN_HIGH_CLASSES.get(system, ("", 0))
        names |= own - ({name} if symmetry.get("number", 0) >= first else set())
    return [name for name in ALL if name in names]
