"""Values as people write them in filters: numbers with units, dates, formulas, chemical systems, space groups."""

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

_NUMBER = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)(.*)", re.DOTALL)
_DAY = re.compile(r"\d{4}-\d\d-\d\d")
_EXACT = 2**53  # integers below it are kept by every store
_AGES = {"minute": "minutes", "hour": "hours", "day": "days", "week": "weeks"}


class Span(NamedTuple):
    """A day, from its first moment to that of the next; or one moment, twice. UTC, without zone."""

    start: datetime
    end: datetime


def split_number(text: str) -> tuple[float, str] | None:
    """Split a text into a number and the unit that sticks to it; None if it is no number."""
    found = _NUMBER.fullmatch(text)
    if found is None:
        return None
    number = float(found[1])
    whole = found[1].lstrip("+-").isdigit() and abs(number) < _EXACT
    return (int(number) if whole else number), found[2]


def in_unit_of(field: Field, number: float, unit: str) -> float:
    """
    Convert a number to the unit of a field.

    Raises
    ------
    MatrisError
        If the field has no such unit.
    """
    known = UNITS[field.unit] if field.unit else {}
    if unit not in known:
        raise MatrisError(
            f"{field.name} is in {field.unit}, so a number alone or with {', '.join(known)} was expected"
            if field.unit
            else f"{field.name} has no unit, so a number alone was expected"
        )
    return number if known[unit] == 1 else number * known[unit]


def age(number: float, unit: str) -> Span | None:
    """Moment so many minutes, hours, days or weeks ago; None if that is no unit of time, or too long ago."""
    name = _AGES.get(unit.lower().removesuffix("s"))
    if name is None:
        return None
    try:
        then = utc_now() - timedelta(**{name: number})
    except OverflowError:
        return None
    return Span(then, then)


def date(text: str) -> Span | None:
    """Read ``today``, ``yesterday``, a day (2026-11-20) or a moment (ISO 8601, UTC unless it says otherwise)."""
    today = utc_now().replace(hour=0, minute=0, second=0, microsecond=0)
    days = {"today": today, "yesterday": today - timedelta(days=1)}
    try:
        start = days.get(text.lower()) or naive_utc(datetime.fromisoformat(text))
        return Span(start, start + timedelta(days=1) if text.lower() in days or _DAY.fullmatch(text) else start)
    except (ValueError, OverflowError):
        return None


def naive_utc(moment: datetime) -> datetime:
    """Give a moment as documents hold it: UTC, without zone."""
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment


def element(symbol: str) -> str:
    """
    Check the symbol of an element.

    Raises
    ------
    MatrisError
        If there is no such element.
    """
    if not Element.is_valid_symbol(symbol):
        raise MatrisError(f"there is no element {symbol!r}")
    return symbol


def chemical_system(text: str) -> str:
    """Give a chemical system as documents have it: ``"Li-Fe-O"`` is ``"Fe-Li-O"``."""
    return "-".join(sorted({element(symbol.strip()) for symbol in text.split("-")}))


def reduced_formula(text: str) -> str:
    """
    Give a formula as documents have it: ``"O6Fe4"`` is ``"Fe2O3"``.

    Raises
    ------
    MatrisError
        If it cannot be read.
    """
    try:
        composition = Composition(text)
    except ValueError as error:
        raise MatrisError(f"cannot read the formula {text!r}: {error}") from error
    if not composition.valid:
        raise MatrisError(f"cannot read the formula {text!r}: it has what is no element")
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
    """
    plain = str(name).replace("_", "").replace(" ", "")
    number = int(plain) if plain.isdecimal() else _space_groups().get(plain)
    if number is None:
        try:
            number = SpaceGroup(str(name)).int_number
        except ValueError:
            raise MatrisError(f"there is no space group {name!r}") from None
    if not 1 <= number <= SPACE_GROUPS:
        raise MatrisError(f"there is no space group {number}: they are 1 to {SPACE_GROUPS}")
    return number


@cache
def _space_groups() -> dict[str, int]:
    numbers = {symbol: group["int_number"] for symbol, group in SpaceGroup.sg_encoding.items()}
    short = {symbol: numbers[full] for symbol, full in SpaceGroup.abbrev_sg_mapping.items() if full in numbers}
    return {symbol.replace("_", ""): number for symbol, number in (numbers | short).items()}
