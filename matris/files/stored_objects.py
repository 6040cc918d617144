"""Python objects in stored documents: only known classes are imported, as others may write to a shared database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pymatgen.core import Structure

from matris.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

OF_STRUCTURES = ("pymatgen.core", "pymatgen.electronic_structure.core", "numpy")
"""Packages whose classes a structure may hold."""

_MARKS = {"@module", "@class", "@version"}


class UnknownClassError(StoreError, ValueError):
    """A document that names a class outside those that it may name."""


class DamagedStructureError(StoreError):
    """A stored structure that is none."""


def check_classes(document: Any, packages: Sequence[str], place: str = "document") -> None:
    """
    Check that a document names no class outside some packages, and no function, at any depth.

    `monty.json.MontyDecoder` imports every module that a document names, and calls what it finds there; pymatgen uses
    it for the properties of sites.

    Parameters
    ----------
    document
        Document from a store or a file.
    packages
        Packages or modules whose classes it may name.
    place
        Name of the document, for the error message.

    Raises
    ------
    UnknownClassError
        If the document names another class, or a function.

    Examples
    --------
    >>> check_classes({"steps": 500, "first": {"@module": "os", "@callable": "system"}}, ["matris.makers"], "the Maker")
    Traceback (most recent call last):
    matris.files.stored_objects.UnknownClassError: the Maker is not decoded: first names os.system, ...
    """
    for path, marked in named_objects(document):
        module, name = (str(marked.get(key, "")) for key in ("@module", "@class"))
        is_known = any(module == package or module.startswith(f"{package}.") for package in packages)
        marks = {key for key in marked if isinstance(key, str) and key.startswith("@")}
        if not is_known or not name.isidentifier() or not marks <= _MARKS:
            named = ".".join(str(marked[key]) for key in ("@module", "@class", "@callable") if key in marked)
            raise UnknownClassError(
                f"{place} is not decoded: {path or 'it'} names {named[:200]}, which is none of its classes "
                f"({', '.join(packages)}); the document was made by another program, or to do harm"
            )


def decode_structure(document: Mapping[str, Any]) -> Structure:
    """
    Decode a stored structure, whose sites may hold pymatgen's and numpy's classes only.

    Parameters
    ----------
    document
        Dictionary form of a pymatgen structure.

    Raises
    ------
    UnknownClassError
        If the document names another class, see `check_classes`.

    Examples
    --------
    >>> from pymatgen.core import Lattice
    >>> iron = Structure(Lattice.cubic(2.87), ["Fe"], [[0, 0, 0]], site_properties={"magmom": [2.2]})
    >>> decode_structure(iron.as_dict()) == iron
    True
    """
    check_classes(document, OF_STRUCTURES, "the structure")
    return Structure.from_dict(dict(document))


def named_objects(document: Any) -> list[tuple[str, dict[str, Any]]]:
    """
    List the dictionaries in a document that name a class or a function, each with its path.

    Examples
    --------
    >>> named_objects({"first": [1.0, {"@module": "os", "@callable": "system"}]})
    [('first.1', {'@module': 'os', '@callable': 'system'})]
    """
    found: list[tuple[str, dict[str, Any]]] = []
    pending = [("", document)]  # no recursion: a document may be nested more deeply than Python's stack
    while pending:
        path, value = pending.pop()
        if isinstance(value, dict) and any(isinstance(key, str) and key.startswith("@") for key in value):
            found.append((path, value))
        parts = list(value.items() if isinstance(value, dict) else enumerate(value))
        pending += [(f"{path}.{key}".lstrip("."), part) for key, part in parts if isinstance(part, (dict, list, tuple))]
    return found


def structure_of(document_id: str, content: Mapping[str, Any]) -> Structure:
    """
    Decode the structure of a document, and name the document if that is impossible.

    Raises
    ------
    UnknownClassError
        If the structure names a class that it may not name.
    DamagedStructureError
        If it is no structure.

    Examples
    --------
    >>> structure_of("3f2a", {"lattice": "gone"})
    Traceback (most recent call last):
    matris.files.stored_objects.DamagedStructureError: the structure of document 3f2a cannot be read: ...
    """
    try:
        return decode_structure(content)
    except UnknownClassError:
        raise
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise DamagedStructureError(f"the structure of document {document_id} cannot be read: {error!r}") from error
