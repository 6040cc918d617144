"""Text formats of the pages: numbers, formulas, symbols. Most of them are filters of the templates."""

from __future__ import annotations

import re
from functools import lru_cache

from markupsafe import Markup


def decimals(value: float | None, digits: int) -> str:
    """Write a number with a fixed number of decimals and a true minus sign; a dash for None."""
    return "–" if value is None else minus(f"{value:.{digits}f}")


def pixels(value: float) -> str:
    """Write a coordinate of a picture."""
    return f"{value:.1f}"


def short(count: int) -> str:
    """Write a count in at most four characters; a dash for zero."""
    thousand = 1000
    if count < thousand:
        return str(count) if count else "–"
    return f"{count / thousand:.1f}k" if count < 10 * thousand else f"{count // thousand}k"


def minus(text: str) -> str:
    """Replace hyphens by minus signs."""
    return text.replace("-", "−")


def grouped(count: int) -> str:
    """Write a count with its digits in groups of three."""
    return f"{count:,}".replace(",", "\u202f")


def plural(count: int, noun: str) -> str:
    """Write a count with its noun; empty for zero."""
    return "" if count == 0 else f"{grouped(count)} {noun}{'' if count == 1 else 's'}"


@lru_cache(maxsize=4096)  # rows repeat formulas of competing phases
def formula_html(formula: str) -> Markup:
    """Set the numbers of a formula as subscripts."""
    parts = re.split(r"(\d+(?:\.\d+)?)", formula)
    return Markup("").join(Markup("<sub>{}</sub>").format(part) if n % 2 else part for n, part in enumerate(parts))


@lru_cache(maxsize=256)
def symbol_html(symbol: str | None) -> Markup:
    """Set a space-group symbol: inversions overlined, screw axes as subscripts; empty for None."""
    styles = {"-": Markup('<span class="over">{}</span>'), "_": Markup("<sub>{}</sub>")}
    parts = re.split(r"([-_]\d)", symbol or "")
    return Markup("").join(styles[part[0]].format(part[1:]) if n % 2 else part for n, part in enumerate(parts))
