"""Space-group settings that a CIF names but does not list the operations of."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import gemmi
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from numpy.typing import NDArray

_HALL = ("_space_group_name_hall", "_symmetry_space_group_name_hall")
_HERMANN_MAUGUIN = (
    "_space_group_name_h-m_alt",
    "_symmetry_space_group_name_h-m",
    "_space_group_name_h-m_full",
    "_space_group_name_h-m_ref",
)
_NUMBER = ("_space_group_it_number", "_symmetry_int_tables_number")

_EXTENSIONS = {"S": "1", "Z": "2", "1": "1", "2": "2", "H": "H", "R": "R"}
"""Suffixes of symbols, and what they mean: ICSD has S and Z for the first and the second choice of origin."""

_MISFIT = 0.02
"""Largest change of the metric tensor by an operation, relative to the lengths of the lattice vectors."""

_MONOCLINIC = range(3, 16)


@dataclass(frozen=True)
class Setting:
    """
    A setting of a space group.

    Attributes
    ----------
    name
        Extended Hermann-Mauguin symbol, or the Hall symbol of the file.
    number
        Number in the International Tables; None if the setting has none there.
    rotations
        Rotation parts of all operations, with centring, in fractional coordinates, shape (n, 3, 3).
    translations
        Translation parts, shape (n, 3).
    """

    name: str
    number: int | None
    rotations: NDArray[np.float64]
    translations: NDArray[np.float64]

    def misfit(self, cell: NDArray[np.float64]) -> float:
        """Return the largest change of the metric tensor of a cell, relative to the lengths of its vectors."""
        metric = cell @ cell.T
        lengths = np.sqrt(np.diag(metric))
        moved = np.swapaxes(self.rotations, 1, 2) @ metric @ self.rotations
        return float((np.abs(moved - metric) / np.outer(lengths, lengths)).max())


def named_settings(data: Mapping[str, Any], cell: NDArray[np.float64]) -> list[Setting]:
    """
    Find the settings that a CIF may mean by the name of its space group.

    A Hall symbol is unique. A Hermann-Mauguin symbol without ``:1``, ``:2``, ``:H`` or ``:R`` may mean several
    settings, as does a number; the cell decides between axes, but not between origins.

    Parameters
    ----------
    data
        One data block: names to texts, or to lists of texts.
    cell
        Lattice vectors as rows (Å), shape (3, 3).

    Returns
    -------
    list of Setting
        One setting, or one for each choice of origin. Empty if the file names no space group.

    Raises
    ------
    ValueError
        If the name is unknown, the names contradict each other, or the cell does not have this symmetry.

    References
    ----------
    The settings are those of gemmi's table (Wojdyr, J. Open Source Softw. 7, 4200 (2022)), which holds the 530 of
    the International Tables Vol. B, table A1.4.2.7, and others in use.

    Examples
    --------
    >>> import numpy as np
    >>> cubic, oblique = np.eye(3), np.array([[5.0, 0, 0], [0, 6.0, 0], [-0.4, 0, 7.0]])
    >>> [setting.name for setting in named_settings({"_symmetry_space_group_name_H-M": "P n -3 m :2"}, cubic)]
    ['P n -3 m:2']
    >>> [setting.name for setting in named_settings({"_symmetry_space_group_name_H-M": "Fd-3m"}, cubic)]
    ['F d -3 m:1', 'F d -3 m:2']
    >>> [setting.name for setting in named_settings({"_symmetry_space_group_name_H-M": "P21/n"}, oblique)]
    ['P 1 21/n 1']
    """
    values = {_plain(key): _text(value) for key, value in data.items()}
    hall, symbol, number = (_first(values, keys) for keys in (_HALL, _HERMANN_MAUGUIN, _NUMBER))
    by_hall = None if hall is None else _of_hall(hall)
    by_symbol = [] if symbol is None else list(_of_symbol(symbol))
    by_number = [] if number is None else list(_of_number(number))
    if by_hall is None and not by_symbol and (symbol or hall) is not None:
        raise ValueError(f"unknown space group {symbol or hall!r}, and no symmetry operations")
    named = {"Hall": [by_hall] if by_hall else [], "Hermann-Mauguin": by_symbol, "number": by_number}
    _check_agreement({kind: {s.number for s in settings} for kind, settings in named.items() if settings})
    found = [by_hall] if by_hall else by_symbol or by_number
    if not found:
        return []
    misfits = [setting.misfit(cell) for setting in found]
    if min(misfits) > _MISFIT:
        raise ValueError(
            f"the cell does not have the symmetry of the space group {hall or symbol or number!r} "
            f"({found[0].name}), and there are no symmetry operations"
        )
    best = min(misfits) + 1e-6
    fitting = [setting for setting, misfit in zip(found, misfits, strict=True) if misfit <= best]
    return fitting[:1] if fitting[0].number in _MONOCLINIC else fitting  # in a rectangular cell the axis is b


def is_by_number_alone(data: Mapping[str, Any]) -> bool:
    """Whether a CIF has the number of a space group and no symbol."""
    values = {_plain(key): _text(value) for key, value in data.items()}
    return _first(values, _NUMBER) is not None and _first(values, (*_HALL, *_HERMANN_MAUGUIN)) is None


def number_of(rotations: NDArray[np.float64], translations: NDArray[np.float64]) -> int | None:
    """
    Find the number of the space group that operations form.

    Returns
    -------
    int or None
        None if the operations form no group of gemmi's table.
    """
    scale = gemmi.Op.DEN
    operations = []
    for rotation, translation in zip(rotations, translations, strict=True):
        operation = gemmi.Op()
        operation.rot = np.rint(rotation * scale).astype(int).tolist()
        operation.tran = np.rint(translation * scale).astype(int).tolist()
        operations.append(operation)
    found = gemmi.find_spacegroup_by_ops(gemmi.GroupOps(operations))
    return None if found is None else int(found.number)


def names_more_than(data: Mapping[str, Any], number: int | None) -> str | None:
    """
    Compare the space group that a CIF names with that of its operations.

    Returns
    -------
    str or None
        The name in the file if it is of another group; None if they agree, or if this cannot be told.
    """
    values = {_plain(key): _text(value) for key, value in data.items()}
    symbol, stated = _first(values, _HERMANN_MAUGUIN), _first(values, _NUMBER)
    numbers = {s.number for s in _of_symbol(symbol)} if symbol else set()
    if not numbers and stated and stated.isdecimal():
        numbers = {int(stated)}
    return (symbol or stated) if number is not None and numbers and number not in numbers else None


def _check_agreement(numbers: Mapping[str, set[int | None]]) -> None:
    kinds = list(numbers)
    for first, second in pairwise(kinds):
        known = numbers[first] - {None}, numbers[second] - {None}
        if all(known) and not known[0] & known[1]:
            raise ValueError(
                f"its names of the space group contradict each other: number {min(known[0])} by {first}, "  # type: ignore[type-var]
                f"{min(known[1])} by {second}"  # type: ignore[type-var]
            )


def _of_hall(symbol: str) -> Setting | None:
    try:
        operations = gemmi.symops_from_hall(" ".join(symbol.replace("_", " ").split()))
    except (RuntimeError, ValueError):
        return None
    found = gemmi.find_spacegroup_by_ops(operations)
    return _setting(symbol, None if found is None else found.number, operations)


def _of_number(text: str) -> Iterator[Setting]:
    """Yield the standard settings of a number: both axes and both origins where there are two."""
    number = int(text) if text.isdecimal() else 0
    first = gemmi.find_spacegroup_by_number(number)
    if first is None:
        raise ValueError(f"{text!r} is no number of a space group")
    yield from _all_of(_alternatives(first))
    if number in _MONOCLINIC:
        yield from _all_of(s for s in gemmi.spacegroup_table() if s.number == number and s.qualifier in {"c", "c1"})


def _of_symbol(symbol: str) -> Iterator[Setting]:
    """Yield the settings that a Hermann-Mauguin symbol may mean, the most usual one first."""
    text = re.sub(r"\(no\.?\s*\d+\)|\(#?\d{2,3}\)", " ", symbol, flags=re.IGNORECASE)
    text = re.sub(r"(?<=\d)\((\d)\)|[~]", r"\1", text)  # 2(1)/c and 2~1~/c, screw axes in print
    text = " ".join(re.sub(r"(?<=\d)_(?=\d)", "", text).split())
    base, extension = _split(text)
    unique = _unique_axes(base)
    found = unique or [s for s in (_look_up(base), _look_up(_short(base))) if s is not None][:1]
    for group in found:
        yield from _all_of(s for s in _alternatives(group) if extension is None or s.ext == extension)


def _split(text: str) -> tuple[str, str | None]:
    """Split the choice of origin or axes from a symbol, which ends in it as ``:2``, ``Z``, ``_2`` or in words."""
    if match := re.search(r"[\s,:(\[]*origin(?:\s*choice)?\s*([12])[\s)\]]*$", text, flags=re.IGNORECASE):
        return text[: match.start()], match[1]
    if match := re.search(r"\s*:\s*([12SZHR])$", text, flags=re.IGNORECASE):
        return text[: match.start()], _EXTENSIONS[match[1].upper()]
    for base in (text, _short(text)):
        if _look_up(base) is not None and not re.search(r"[HR]$", text[1:], flags=re.IGNORECASE):
            return text, None
    if match := re.search(r"[\s_(]*([12SZHR])\)?$", text, flags=re.IGNORECASE):
        base, extension = text[: match.start()], _EXTENSIONS[match[1].upper()]
        for name in (base, _short(base)):
            if (group := _look_up(name)) is not None and any(s.ext == extension for s in _alternatives(group)):
                return base, extension
    return text, None


def _unique_axes(base: str) -> list[gemmi.SpaceGroup]:
    """List the settings of a short monoclinic symbol, as P 21/n: the unique axis may be b, c or a."""
    match = re.fullmatch(r"([PABCIF])\s*((?:21?|[mabcnd])(?:/[mabcnd])?)", base, flags=re.IGNORECASE)
    if match is None:
        return []
    names = (f"{match[1]} {axes}".replace("X", match[2]) for axes in ("1 X 1", "1 1 X", "X 1 1"))
    return [group for group in map(_look_up, names) if group is not None]


def _short(base: str) -> str:
    """Shorten a full symbol: F 4/m -3 2/m to F m -3 m, P 21/n 21/m 21/a to P n m a."""
    letter, *axes = base.split() or [""]
    if len(axes) < 2 or "1" in axes or not any("/" in axis for axis in axes):  # noqa: PLR2004
        return base
    is_cubic = axes[1] in {"3", "-3"}
    keeps_first = axes[0][0] in "46" and not is_cubic
    return " ".join([letter, *(a if i == 0 and keeps_first else a.split("/")[-1] for i, a in enumerate(axes))])


def _look_up(name: str) -> gemmi.SpaceGroup | None:
    try:
        return gemmi.find_spacegroup_by_name(name.replace("_", ""))
    except (RuntimeError, ValueError):
        return None


def _alternatives(group: gemmi.SpaceGroup) -> list[gemmi.SpaceGroup]:
    """List the choices of origin, or of hexagonal and rhombohedral axes, of a symbol."""
    if group.ext in {"\0", ""}:
        return [group]
    return [s for s in gemmi.spacegroup_table() if s.number == group.number and s.hm == group.hm and s.ext != "\0"]


def _all_of(groups: Iterable[gemmi.SpaceGroup]) -> Iterator[Setting]:
    for group in groups:
        yield _setting(group.xhm(), group.number, group.operations())


def _setting(name: str, number: int | None, operations: gemmi.GroupOps) -> Setting:
    listed = list(operations)
    scale = gemmi.Op.DEN
    return Setting(
        name,
        number,
        np.array([operation.rot for operation in listed], dtype=float) / scale,
        np.array([operation.tran for operation in listed], dtype=float) / scale,
    )


def _plain(key: str) -> str:
    """Give a name of a CIF its usual form: case does not count, and DDLm has dots."""
    return key.lower().replace(".", "_").rstrip("_").replace("name_h_m", "name_h-m")


def _text(value: Any) -> str:
    return " ".join(str(value[0] if isinstance(value, list) and value else value).split()).strip("'\" ")


def _first(values: Mapping[str, str], keys: Iterable[str]) -> str | None:
    return next((values[key] for key in keys if values.get(key) not in {None, "", "?", "."}), None)
