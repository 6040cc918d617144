"""Section of the elements: in which candidates, hits and failures they are, as a periodic table."""

from __future__ import annotations

from functools import cache
from math import sqrt
from typing import TYPE_CHECKING

from pymatgen.core import Element

from matris.stores.report.parts import number

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Mapping

SHOWN = {"hits": "hits", "failures": "failures", "candidates": "all candidates"}
"""What is shown, one at a time."""

_LANTHANUM, _LUTETIUM, _ACTINIUM, _LAWRENCIUM = 57, 71, 89, 103
_LAST = 118


def periodic_table(with_element: Mapping[str, Counter[str]], window: float | None) -> str:
    """
    Show how many candidates with each element are hits, failures, and there at all.

    Parameters
    ----------
    with_element
        As in `matris.stores.report.tally.Tally`.
    window
        Distance above the hull (eV/atom) up to which a candidate is a hit; None if there is no hull.
    """
    if not with_element["candidates"]:
        return ""
    most = {name: max(with_element[name].values(), default=0) for name in SHOWN}
    cells = "".join(_cell(symbol, at, with_element, most) for symbol, at in _places().items())
    hits = "relaxed" if window is None else f"within {1e3 * window:g} meV/atom of the hull"
    choices = "".join(
        f'<input type="radio" name="elements" id="by-{name}"{" checked" if name == "hits" else ""}>'
        f'<label for="by-{name}">{shown}</label>'
        for name, shown in SHOWN.items()
    )
    note = (
        f"Candidates that contain an element: hits are {hits}, failures did not converge or broke. "
        "The darker, the more; point at an element for its shares."
    )
    return (
        f'<section id="elements"><h2>Elements</h2><div class="choice">{choices}'
        f'<div class="elements">{cells}</div></div><p class="note">{note}</p></section>'
    )


def _cell(symbol: str, at: tuple[int, int], counts: Mapping[str, Counter[str]], most: Mapping[str, int]) -> str:
    """One element."""
    total = counts["candidates"][symbol]
    place = f"grid-row:{at[0]};grid-column:{at[1]}"
    if not total:
        return f'<div class="element none" style="{place}"><b>{symbol}</b></div>'
    shades = "".join(f";--{name}:{100 * sqrt(counts[name][symbol] / (most[name] or 1)):.0f}%" for name in SHOWN)
    numbers = "".join(f'<i class="{name}">{_short(counts[name][symbol])}</i>' for name in SHOWN)
    told = ", ".join(
        f"{number(counts[name][symbol])} {name} ({counts[name][symbol] / total:.0%})" for name in ("hits", "failures")
    )
    title = f"{Element(symbol).long_name}: {number(total)} candidates, {told}"
    return f'<div class="element" style="{place}{shades}" title="{title}"><b>{symbol}</b>{numbers}</div>'


def _short(count: int) -> str:
    """Count in at most four characters."""
    thousand = 1000
    if count < thousand:
        return str(count) if count else "–"
    return f"{count / thousand:.1f}k" if count < 10 * thousand else f"{count // thousand}k"


@cache
def _places() -> dict[str, tuple[int, int]]:
    """Row and column of each element."""
    places = {}
    for z in range(1, _LAST + 1):
        element = Element.from_Z(z)
        if _LANTHANUM <= z <= _LUTETIUM:
            places[element.symbol] = (9, z - _LANTHANUM + 3)
        elif _ACTINIUM <= z <= _LAWRENCIUM:
            places[element.symbol] = (10, z - _ACTINIUM + 3)
        else:
            places[element.symbol] = (element.row, element.group)
    return places
