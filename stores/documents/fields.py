"""Names, kinds and units of the fields of candidate documents, taken from their model."""

from __future__ import annotations

import re
from dataclasses import dataclass
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
    "1/K": {"1/K": 1.0},
    "K": {"K": 1.0},
}
"""Units that descriptions of fields name, and what may be typed instead, with its size in them."""

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
"""What people type, and the field it stands for."""

_UNIT = re.compile(rf"(?<![\w/])({'|'.join(map(re.escape, UNITS))})(?![\w/²³])")
_NEAREST = 3


@dataclass(frozen=True)
class Field:
    """
    A field of candidate documents.

    Attributes
    ----------
    name
        Dotted where it is inside a sub-document.
    kind
        ``"group"`` is a sub-document, ``"anything"`` a value the model says nothing about.
    choices
        The only values it may have; empty if any.
    unit
        Of a number, if its description names one.
    """

    name: str
    kind: Kind
    choices: tuple[str, ...] = ()
    unit: str | None = None


def field_named(name: str) -> Field:
    """
    Look a field up.

    Parameters
    ----------
    name
        Its dotted name, or an alias.

    Raises
    ------
    MatrisError
        If candidate documents have no such field; names those nearest to it.
    """
    name = ALIASES.get(name, name)
    known = _fields()
    if name in known:
        return known[name]
    parts = name.split(".")
    for length in range(len(parts) - 1, 0, -1):
        inside = known.get(".".join([*parts[:length], "*"]))
        if inside and all(part and not part.startswith("$") for part in parts):
            return Field(name, "anything" if len(parts) > length + 1 else inside.kind)
    raise MatrisError(f"there is no field {name!r}{_suggestion(name)}")


def leaves(name: str) -> list[str]:
    """Names of the fields below a group, or of the field itself."""
    own = field_named(name)
    if own.kind != "group":
        return [own.name]
    inside = [field for field in _fields().values() if field.name.startswith(f"{own.name}.")]
    return [f.name for f in inside if f.kind != "group" and not f.name.endswith("*")] or [own.name]


def outermost(names: Iterable[str]) -> list[str]:
    """Names without those inside another of them: what a store can project."""
    chosen = dict.fromkeys(names)
    return [name for name in chosen if not any(name.startswith(f"{other}.") for other in chosen)]


def value_of(document: Mapping[str, Any], name: str) -> Any:
    """Value of a field by its dotted name; None where there is none."""
    value: Any = document
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _suggestion(name: str) -> str:
    """Say which fields end in the same name, or have a similar one."""
    names = [known for known in _fields() if not known.endswith("*")]
    by_end: dict[str, list[str]] = {}
    for known in names:
        by_end.setdefault(known.rpartition(".")[2], []).append(known)
    last = name.rpartition(".")[2]
    near = by_end.get(last, [])
    if not near:
        near = get_close_matches(name, [*names, *ALIASES], n=_NEAREST)
        near += [by_end[end][0] for end in get_close_matches(last, by_end, n=_NEAREST)]
    if near:
        return f"; did you mean {' or '.join(list(dict.fromkeys(near))[:_NEAREST])}?"
    return f"; there are {', '.join(known for known in names if '.' not in known)}"


@cache
def _fields() -> dict[str, Field]:
    return {field.name: field for field in _of_model(CandidateDocument, "")}


def _of_model(model: type[BaseModel], prefix: str) -> Iterator[Field]:
    for name, info in model.model_fields.items():
        yield from _of_type(info.annotation, prefix + name, info.description or "")


def _of_type(annotation: Any, name: str, description: str) -> Iterator[Field]:
    """Yield the field of an annotation, and those inside it; ``*`` stands for names that the model leaves open."""
    annotation = _bare(annotation)
    inner = get_args(annotation)
    if get_origin(annotation) is Literal:
        yield Field(name, "text", choices=tuple(map(str, inner)))
    elif get_origin(annotation) is list:
        yield Field(name, "list")
    elif get_origin(annotation) is dict or (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        yield Field(name, "group")
        yield from _inside(annotation, f"{name}.")
    else:
        unit = _UNIT.search(description)
        kinds: dict[Any, Kind] = {float: "number", int: "number", str: "text", bool: "boolean", datetime: "date"}
        kind = kinds.get(annotation, "anything")
        yield Field(name, kind, unit=unit[1] if unit and kind == "number" else None)


def _inside(annotation: Any, prefix: str) -> Iterator[Field]:
    """Yield the fields of a sub-document."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield from _of_model(annotation, prefix)
        return
    keys, values = map(_bare, get_args(annotation))
    for key in get_args(keys) if get_origin(keys) is Literal else ("*",):
        yield from _of_type(values, f"{prefix}{key}", "")


def _bare(annotation: Any) -> Any:
    """Annotation without aliases, metadata and None."""
    if isinstance(annotation, TypeAliasType):
        return _bare(annotation.__value__)
    if get_origin(annotation) is Annotated:
        return _bare(get_args(annotation)[0])
    if get_origin(annotation) in {Union, UnionType}:
        some = [part for part in map(_bare, get_args(annotation)) if part is not NoneType]
        return some[0] if len(some) == 1 else object
    return annotation
