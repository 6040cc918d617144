"""Which chemical systems, as ``"Fe-Li-O"``, contain which."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def containing(parts: Iterable[str], systems: Iterable[str]) -> set[str]:
    """Those of the systems that contain one of the parts, or equal it."""
    wanted = {frozenset(part.split("-")) for part in parts}
    return {each for each in systems if not wanted.isdisjoint(_subsystems(each))}


def within(wholes: Iterable[str], systems: Iterable[str]) -> set[str]:
    """Those of the systems that are a part of one of the wholes, or equal it."""
    wanted = {part for whole in wholes for part in _subsystems(whole)}
    return {each for each in systems if frozenset(each.split("-")) in wanted}


def _subsystems(system: str) -> Iterator[frozenset[str]]:
    elements = system.split("-")
    return (frozenset(part) for n in range(1, len(elements) + 1) for part in combinations(elements, n))
