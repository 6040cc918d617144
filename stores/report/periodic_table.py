"""Candidates, hits and failures by element, laid out as a periodic table."""

from __future__ import annotations

from functools import cache
from math import sqrt
from typing import TYPE_CHECKING, NamedTuple

from pymatgen.core import Element

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Mapping

COUNTS = {"hits": "hits", "failures": "failures", "candidates": "all candidates"}
"""Names and labels of the counts; the table shows one count at a time."""

_LANTHANUM, _LUTETIUM, _ACTINIUM, _LAWRENCIUM = 57, 71, 89, 103
_LAST = 118


class ElementCell(NamedTuple):
    """Row and column of an element (from 1); candidates and colour intensity (0 to 1) by name of the count."""

    element: Element
    row: int
    column: int
    counts: Mapping[str, int]
    shades: Mapping[str, float]


def periodic_table(with_element: Mapping[str, Counter[str]]) -> list[ElementCell]:
    """
    Lay out the counts of all elements.

    Parameters
    ----------
    with_element
        As in `matris.stores.report.tally.Tally`.

    Returns
    -------
    list of ElementCell
        All elements; empty if no candidate has an element.
    """
    if not with_element["candidates"]:
        return []
    most = {name: max(with_element[name].values(), default=0) or 1 for name in COUNTS}
    cells = []
    for element, (row, column) in _places().items():
        counts = {name: with_element[name][element.symbol] for name in COUNTS}
        shades = {name: sqrt(count / most[name]) for name, count in counts.items()}
        cells.append(ElementCell(element, row, column, counts, shades))
    return cells


@cache
def _places() -> dict[Element, tuple[int, int]]:
    """Row and column of each element."""
    places = {}
    for z in range(1, _LAST + 1):
        element = Element.from_Z(z)
        if _LANTHANUM <= z <= _LUTETIUM:
            places[element] = (9, z - _LANTHANUM + 3)
        elif _ACTINIUM <= z <= _LAWRENCIUM:
            places[element] = (10, z - _ACTINIUM + 3)
        else:
            places[element] = (element.row, element.group)
    return places
