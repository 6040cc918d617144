"""Names, kinds and units of the fields of candidate documents, read from their pydantic model."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import datetime
from difflib import get_close_matches
from functools import cache
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAliasType, Union, get_args, get_origin

from pydantic import BaseModel

from matris.errors import MatrisError
from matris.stores.documents.documents import CandidateDocument

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

type Kind = Literal["number", "text", "boolean", "date", "list", "group", "anything"]

UNITS: dict[str, dict[str, float]] = {
    "eV/atom/ps": {"eV/atom/ps": 1.0, "meV/atom/ps": 1e-3},
    "eV/atom": {"eV/atom": 1.0, "meV/atom": 1e-3, "eV": 1.0, "meV": 1e-3},
    "eV/Å³": {"eV/Å³": 1.0, "eV/A^3": 1.0, "eV/A3": 1.0},
    "eV/Å": {"eV/Å": 1.0, "eV/A": 1.0, "meV/Å": 1e-3, "meV/A": 1e-3},
    "eV": {"eV": 1.0, "meV": 1e-3},
    "GPa": {"GPa": 1.0, "kbar": 0.1},
    "THz": {"THz": 1.0, "cm-1": 0.0299792458, "cm^-1": 0.0299792458},  # 100 c / 1e12, exact by the SI
    "g/cm³": {"g/cm³": 1.0, "g/cm^3": 1.0, "g/cm3": 1.0},
    "Å³": {"Å³": 1.0, "A^3": 1.0, "A3": 1.0},
    "Å": {"Å": 1.0, "A": 1.0},
    "J/K per mole of atoms": {"J/K/mol": 1.0},
    "J per mole of atoms": {"J/mol": 1.0, "kJ/mol": 1e3},
    "1/K": {"1/K": 1.0},
    "K": {"K": 1.0},
}
"""Units used in field descriptions, each with the units that users may type instead and their conversion factors."""

ALIASES = {
    "ehull": "energy_above_hull",
    "e_hull": "energy_above_hull",
    "formation_energy": "formation_energy_per_atom",
    "formula": "formula_pretty",
    "spacegroup": "symmetry.number",
    "crystal_system": "symmetry.crystal_system",
    "natoms": "nsites",
    "stable": "is_stable",
    "extrapolating": "is_extrapolating",
    "checkpoint": "checkpoint.key",
    "updated": "last_updated",
    "reason": "error",
}
"""Short names of fields that users may type."""

_UNIT = re.compile(rf"(?<![\w/])({'|'.join(map(re.escape, UNITS))})(?![\w/²³])")
_NEAREST = 3  # suggestions in an error message


@dataclass(frozen=True)
class Field:
    """
    A field of candidate documents.

    Attributes
    ----------
    name
        Name, dotted for a field inside a sub-document.
    kind
        ``"group"`` is a sub-document; ``"anything"`` is a value whose type the model leaves open.
    choices
        Permitted values; empty if all are.
    unit
        Unit of a number, if its description names one.
    """

    name: str
    kind: Kind
    choices: tuple[str, ...] = ()
    unit: str | None = None


def field_named(name: str) -> Field:
    """
    Look up a field.

    Parameters
    ----------
    name
        Dotted name or alias of the field.

    Raises
    ------
    MatrisError
        If candidate documents have no such field. The message suggests similar names.

    Examples
    --------
    >>> field = field_named("ehull")
    >>> field.name, field.kind, field.unit
    ('energy_above_hull', 'number', 'eV/atom')
    """
    name = ALIASES.get(name, name)
    fields = _fields()
    if name in fields:
        return fields[name]
    parts = name.split(".")
    for length in range(len(parts) - 1, 0, -1):
        wildcard = fields.get(".".join([*parts[:length], "*"]))
        if wildcard and all(part and not part.startswith("$") for part in parts):
            return replace(wildcard, name=name) if len(parts) == length + 1 else Field(name, "anything")
    raise MatrisError(f"there is no field {name!r}{_suggestion(name)}")


def leaves(name: str) -> list[str]:
    """
    Expand a group of fields to the names of the fields in it; another field stands for itself.

    Examples
    --------
    >>> leaves("checkpoint.key"), leaves("symmetry")
    (['checkpoint.key'], ['symmetry.crystal_system', 'symmetry.symbol', 'symmetry.number', 'symmetry.symprec'])
    """
    field = field_named(name)
    if field.kind != "group":
        return [field.name]
    members = [member for member in _fields().values() if member.name.startswith(f"{field.name}.")]
    return [m.name for m in members if m.kind != "group" and not m.name.endswith("*")] or [field.name]


def outermost(names: Iterable[str]) -> list[str]:
    """Remove names of fields inside another listed field, because stores cannot project both."""
    unique = dict.fromkeys(names)
    return [name for name in unique if not any(name.startswith(f"{other}.") for other in unique)]


def value_of(document: Mapping[str, Any], name: str) -> Any:
    """Value of a field by its dotted name; None if the document lacks it."""
    value: Any = document
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _suggestion(name: str) -> str:
    """Second half of an error message: fields with the same last part or a similar name, else all fields."""
    names = [field for field in _fields() if not field.endswith("*")]
    by_last_part: dict[str, list[str]] = {}
    for field in names:
        by_last_part.setdefault(field.rpartition(".")[2], []).append(field)
    last_part = name.rpartition(".")[2]
    similar = by_last_part.get(last_part, [])
    if not similar:
        similar = get_close_matches(name, [*names, *ALIASES], n=_NEAREST)
        similar += [by_last_part[part][0] for part in get_close_matches(last_part, by_last_part, n=_NEAREST)]
    if similar:
        return f"; did you mean {' or '.join(list(dict.fromkeys(similar))[:_NEAREST])}?"
    return f"; the fields are {', '.join(field for field in names if '.' not in field)}"


@cache
def _fields() -> dict[str, Field]:
    return {field.name: field for field in _of_model(CandidateDocument, "")}


def _of_model(model: type[BaseModel], prefix: str) -> Iterator[Field]:
    for name, info in model.model_fields.items():
        yield from _of_type(info.annotation, prefix + name, info.description or "")


def _of_type(annotation: Any, name: str, description: str) -> Iterator[Field]:
    """Yield the field of an annotation and the fields inside it. ``*`` stands for names that the model leaves open."""
    annotation = _bare(annotation)
    inner = get_args(annotation)
    if get_origin(annotation) is Literal:
        yield Field(name, "text", choices=tuple(map(str, inner)))
    elif get_origin(annotation) is list:
        yield Field(name, "list")
    elif get_origin(annotation) is dict or (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        yield Field(name, "group")
        yield from _inside(annotation, f"{name}.", description)
    else:
        unit = _UNIT.search(description)
        kinds: dict[Any, Kind] = {float: "number", int: "number", str: "text", bool: "boolean", datetime: "date"}
        kind = kinds.get(annotation, "anything")
        yield Field(name, kind, unit=unit[1] if unit and kind == "number" else None)


def _inside(annotation: Any, prefix: str, description: str) -> Iterator[Field]:
    """Yield the fields of a sub-document; values under names that the model leaves open have its description."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield from _of_model(annotation, prefix)
        return
    keys, values = map(_bare, get_args(annotation))
    for key in get_args(keys) if get_origin(keys) is Literal else ("*",):
        yield from _of_type(values, f"{prefix}{key}", description)


def _bare(annotation: Any) -> Any:
    """Strip aliases, metadata and None from an annotation."""
    if isinstance(annotation, TypeAliasType):
        return _bare(annotation.__value__)
    if get_origin(annotation) is Annotated:
        return _bare(get_args(annotation)[0])
    if get_origin(annotation) in {Union, UnionType}:
        types = [part for part in map(_bare, get_args(annotation)) if part is not NoneType]
        return types[0] if len(types) == 1 else object
    return annotation
