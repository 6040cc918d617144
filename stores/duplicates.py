"""Equal structures among many (first version)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pymatgen.analysis.structure_matcher import StructureMatcher

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pymatgen.core import Structure


class Duplicates:
    """Structures seen so far."""

    def __init__(self) -> None:
        self._seen: dict[str, list[tuple[str, Structure]]] = {}
        self._matcher = StructureMatcher()

    def first_like(self, candidate_id: str, structure: Structure, energy: float | None = None) -> str | None:
        """Name the earlier structure that this one equals, or remember this one."""
        group = self._seen.setdefault(structure.composition.reduced_formula, [])
        for other, known in group:
            if self._matcher.fit(known, structure):
                return other
        group.append((candidate_id, structure))
        return None


def group_equal(items: Iterable[tuple[str, Structure, float]]) -> dict[str, str]:
    """Representative of each structure: the lowest in energy of those that are equal."""
    found = Duplicates()
    return {
        name: found.first_like(name, structure) or name
        for name, structure, _ in sorted(items, key=lambda item: (item[2], item[0]))
    }
