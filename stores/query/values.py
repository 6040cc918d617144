"""Values in filters: numbers with units, dates, formulas, chemical systems and space groups."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import NamedTuple

from pymatgen.core.composition import Composition
from pymatgen.core.periodic_table import Element
from pymatgen.symmetry.groups import SpaceGroup

from matris.errors import MatrisError
from matris.stores.documents.documents import utc_now
from matris.stores.documents.fields import UNITS, Field

SPACE_GROUPS = 230
"""Number of space groups."""

_NUMBER = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)(.*)", re.DOTALL)
_DAY = re.compile(r"\d{4}-\d\d-\d\d")
_EXACT = 2**53  # all stores keep smaller integers exactly
_AGES = {"minute": "minutes", "hour": "hours", "day": "days", "week": "weeks"}


class Span(NamedTuple):
    """A day, from its start to the start of the next day; or a moment, twice. UTC without a time zone."""

    start: datetime
    end: datetime


def split_number(text: str) -> tuple[float, str] | None:
    """
    Split a text into a number and a unit; None if it does not begin with a number.

    Examples
    --------
    >>> split_number("50meV"), split_number("3"), split_number("Fe")
    ((50, 'meV'), (3, ''), None)
    """
    match = _NUMBER.fullmatch(text)
    if match is None:
        return None
    number = float(match[1])
    is_integer = match[1].lstrip("+-").isdigit() and abs(number) < _EXACT
    return (int(number) if is_integer else number), match[2]


def in_unit_of(field: Field, number: float, unit: str) -> float:
    """
    Convert a number to the unit of a field.

    Raises
    ------
    MatrisError
        If the unit is not one of the field's.

    Examples
    --------
    >>> from matris.stores.documents.fields import field_named
    >>> in_unit_of(field_named("energy_above_hull"), 50, "meV")  # in eV/atom
    0.05
    """
    factors = UNITS[field.unit] if field.unit else {}
    if unit not in factors:
        raise MatrisError(
            f"{field.name} is in {field.unit}: expected a number without a unit, or with {', '.join(factors)}"
            if field.unit
            else f"{field.name} has no unit: expected a number without a unit"
        )
    return number if factors[unit] == 1 else number * factors[unit]


def age(number: float, unit: str) -> Span | None:
    """Moment a number of minutes, hours, days or weeks ago; None for another unit or before the year 1."""
    name = _AGES.get(unit.lower().removesuffix("s"))
    if name is None:
        return None
    try:
        moment = utc_now() - timedelta(**{name: number})
    except OverflowError:
        return None
    return Span(moment, moment)


def date(text: str) -> Span | None:
    """
    Parse ``today``, ``yesterday``, a day, or a moment in ISO 8601 (UTC unless it has a time zone); else give None.

    Examples
    --------
    >>> date("2026-11-20")
    Span(start=datetime.datetime(2026, 11, 20, 0, 0), end=datetime.datetime(2026, 11, 21, 0, 0))
    """
    today = utc_now().replace(hour=0, minute=0, second=0, microsecond=0)
    days = {"today": today, "yesterday": today - timedelta(days=1)}
    try:
        start = days.get(text.lower()) or naive_utc(datetime.fromisoformat(text))
        return Span(start, start + timedelta(days=1) if text.lower() in days or _DAY.fullmatch(text) else start)
    except (ValueError, OverflowError):
        return None


def naive_utc(moment: datetime) -> datetime:
    """Convert a moment to the form in documents: UTC without a time zone."""
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment


def element(text: str) -> str:
    """
    Read the symbol of an element, in upper or lower case.

    Raises
    ------
    MatrisError
        If there is no such element, or capital letters may stand for two elements.

    Examples
    --------
    >>> element("Fe"), element("fe"), element("FE")
    ('Fe', 'Fe', 'Fe')
    >>> element("CO")
    Traceback (most recent call last):
    matris.errors.MatrisError: 'CO' may be Co, or C and O: write which
    """
    symbol = text.strip()
    if Element.is_valid_symbol(symbol):
        return symbol
    titled = symbol.capitalize()
    if not Element.is_valid_symbol(titled):
        raise MatrisError(f"there is no element {symbol!r}")
    if symbol.isupper() and all(map(Element.is_valid_symbol, symbol)):
        raise MatrisError(f"{symbol!r} may be {titled}, or {' and '.join(symbol)}: write which")
    return titled


def elements_of(system: str) -> list[str]:
    """
    Read the elements of a chemical system, in its order.

    Raises
    ------
    MatrisError
        If one of them is no element.

    Examples
    --------
    >>> elements_of("li-fe-o")
    ['Li', 'Fe', 'O']
    >>> elements_of("LiFeO")
    Traceback (most recent call last):
    matris.errors.MatrisError: there is no element 'LiFeO'; write a chemical system as Li-Fe-O
    """
    try:
        return [element(symbol) for symbol in system.split("-")]
    except MatrisError as error:
        raise MatrisError(f"{error}; write a chemical system as Li-Fe-O") from None


def chemical_system(text: str) -> str:
    """
    Sort the elements of a chemical system, as in documents.

    Examples
    --------
    >>> chemical_system("Li-Fe-O")
    'Fe-Li-O'
    """
    return "-".join(sorted(set(elements_of(text))))


def reduced_formula(text: str) -> str:
    """
    Reduce a formula, as in documents.

    Raises
    ------
    MatrisError
        If the formula cannot be read.

    Examples
    --------
    >>> reduced_formula("O6Fe4")
    'Fe2O3'
    """
    try:
        composition = Composition(text)
    except ValueError as error:
        raise MatrisError(f"cannot read the formula {text!r}: {error}") from error
    if not composition.valid:
        raise MatrisError(f"cannot read the formula {text!r}: not all of its symbols are elements")
    return str(composition.reduced_formula)


def space_group(name: str | int) -> int:
    """
    Look up the number of a space group.

    Parameters
    ----------
    name
        Number or Hermann–Mauguin symbol, with or without underscores.

    Raises
    ------
    MatrisError
        If there is no such space group.

    Examples
    --------
    >>> space_group("Fm-3m"), space_group("P6_3/mmc"), space_group("P63/mmc"), space_group(225)
    (225, 194, 194, 225)
    """
    plain = str(name).replace("_", "").replace(" ", "")
    number = int(plain) if plain.isdecimal() else _space_groups().get(plain)
    if number is None:
        try:
            number = SpaceGroup(str(name)).int_number
        except ValueError:
            raise MatrisError(f"there is no space group {name!r}") from None
    if not 1 <= number <= SPACE_GROUPS:
        raise MatrisError(f"there is no space group {number}: their numbers are 1 to {SPACE_GROUPS}")
    return number


@cache
def _space_groups() -> dict[str, int]:
    numbers = {symbol: group["int_number"] for symbol, group in SpaceGroup.sg_encoding.items()}
    short = {symbol: numbers[full] for symbol, full in SpaceGroup.abbrev_sg_mapping.items() if full in numbers}
    return {symbol.replace("_", ""): number for symbol, number in (numbers | short).items()}
