"""Inclusion of chemical systems, such as ``"Fe-O"`` in ``"Fe-Li-O"``."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def containing(parts: Iterable[str], systems: Iterable[str]) -> set[str]:
    """
    Select the systems that contain or equal one of some other systems.

    Examples
    --------
    >>> sorted(containing(["Fe-O"], ["Fe", "Fe-Li-O", "Fe-O", "Li-O"]))
    ['Fe-Li-O', 'Fe-O']
    """
    subsets = {frozenset(part.split("-")) for part in parts}
    return {system for system in systems if not subsets.isdisjoint(_subsystems(system))}


def within(wholes: Iterable[str], systems: Iterable[str]) -> set[str]:
    """
    Select the systems that are subsystems of or equal to one of some other systems.

    Examples
    --------
    >>> sorted(within(["Fe-O"], ["Fe", "Fe-Li-O", "Fe-O", "Li-O"]))
    ['Fe', 'Fe-O']
    """
    subsets = {part for whole in wholes for part in _subsystems(whole)}
    return {system for system in systems if frozenset(system.split("-")) in subsets}


def compound_systems(system: str) -> list[str]:
    """
    List the subsystems of two or more elements, and the system itself, by number of elements.

    Examples
    --------
    >>> compound_systems("Fe-Li-O")
    ['Fe-Li', 'Fe-O', 'Li-O', 'Fe-Li-O']
    >>> compound_systems("Fe")
    []
    """
    elements = sorted(system.split("-"))
    return ["-".join(part) for n in range(2, len(elements) + 1) for part in combinations(elements, n)]


def _subsystems(system: str) -> Iterator[frozenset[str]]:
    elements = system.split("-")
    return (frozenset(part) for n in range(1, len(elements) + 1) for part in combinations(elements, n))
