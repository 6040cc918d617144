"""
Competing phases of any number of chemical systems, and the hulls over them.

A phase that is unstable within its own chemical system is on no hull of a larger one, because the mixture that beats it
is there too. Each system therefore keeps only its stable phases, found when they are first needed, from the stable
phases of its subsystems: hulls of a hundred thousand phases become many small ones. New phases undo only what they
change: nothing if they are above the hull, and else the systems that contain theirs.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from matris.stores.mixtures import lowest_mixtures, on_hull

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

type System = tuple[str, ...]
"""Symbols of the elements, sorted."""

_NOISE = 1e-9  # eV/atom: a phase this far above the hull stays in the running
_BOUND = 1e-11  # eV/atom: formation energies above are those of mixtures of elements; pymatgen's formation_energy_tol
_DIGITS = 10  # of atomic fractions that are one composition
_PART = 1e-8  # fraction of the atoms: less is not named; pymatgen's numerical_tol


class Phase(NamedTuple):
    """
    A competing phase.

    Attributes
    ----------
    identity
        Of the entry or document it stands for.
    amounts
        Atoms by symbol, in any multiple.
    energy
        eV/atom.
    """

    identity: str
    amounts: Mapping[str, float]
    energy: float

    @property
    def system(self) -> System:
        """Elements of which there is some."""
        return tuple(sorted(symbol for symbol, amount in self.amounts.items() if amount > 0))

    def fractions(self, system: System) -> tuple[float, ...]:
        """Atomic fractions of the elements of its own system."""
        amounts = [float(self.amounts[symbol]) for symbol in system]
        total = sum(amounts)
        return tuple(amount / total for amount in amounts)


class Place(NamedTuple):
    """
    Where a phase lies against its competitors.

    Attributes
    ----------
    formation_energy, above_hull
        eV/atom; the second is negative below the hull. NaN if none was found.
    parts
        Phases it decomposes to, with the fraction of the atoms.
    """

    formation_energy: float
    above_hull: float
    parts: list[tuple[Phase, float]]


class _Table(NamedTuple):
    """Phases of one system: fractions (m, n), formation energies (m,; eV/atom), and the phases."""

    fractions: NDArray[np.float64]
    energies: NDArray[np.float64]
    phases: list[Phase]


@dataclass
class PhaseSpace:
    """
    Competing phases by chemical system.

    Parameters
    ----------
    phases
        To begin with; `add` takes more.
    """

    phases: dict[System, list[Phase]] = field(default_factory=lambda: defaultdict(list))

    @classmethod
    def of(cls, phases: Iterable[Phase]) -> PhaseSpace:
        """Take phases in."""
        space = cls()
        for phase in phases:
            space.phases[phase.system].append(phase)
        return space

    def add(self, phases: Iterable[Phase]) -> set[System]:
        """
        Take in more phases.

        Returns
        -------
        set
            Systems with phases that lie on a hull or below it: the hulls of systems that contain them may be other
            ones now.
        """
        arriving: dict[System, list[Phase]] = {}
        for phase in phases:
            arriving.setdefault(phase.system, []).append(phase)
        changed = {system for system, new in arriving.items() if self._matter(system, new)}
        for system, new in arriving.items():
            self.phases[system] += new
        for system in changed:
            for known in [known for known in self._stable if set(system) <= set(known)]:
                del self._stable[known]
        return changed

    def missing(self, system: System) -> list[str]:
        """Elements of a system without a phase of their own."""
        return [symbol for symbol in system if not self.phases.get((symbol,))]

    def place(self, system: System, phases: Sequence[Phase]) -> list[Place]:
        """
        Measure phases of one system against the competing ones.

        Parameters
        ----------
        system
            Of all the phases; none of its elements may be `missing`.
        phases
            To be measured. They do not become competitors.

        Returns
        -------
        list of Place
        """
        table = self._competitors(system)
        fractions = np.array([phase.fractions(system) for phase in phases])
        formation = np.array([phase.energy for phase in phases]) - fractions @ self._elements(system)
        mixtures = lowest_mixtures(table.fractions, table.energies, fractions)
        above = formation - mixtures.energies
        return [
            Place(own, distance, [(table.phases[i], part) for i, part in zip(rows, parts, strict=True) if part > _PART])
            for own, distance, rows, parts in zip(
                formation.tolist(), above.tolist(), mixtures.phases.tolist(), mixtures.amounts.tolist(), strict=True
            )
        ]

    def stable(self, system: System) -> list[Phase]:
        """Phases of exactly these elements that lie on the hull."""
        return list(self._table(system).phases)

    def reduced_to(self, systems: Iterable[System]) -> PhaseSpace:
        """Make a space of the phases that compete in some systems, as another process needs it."""
        wanted = {part for system in systems for _, part in _subsystems(system)}
        return PhaseSpace(defaultdict(list, {system: self.phases[system] for system in wanted & self.phases.keys()}))

    @cached_property
    def _stable(self) -> dict[System, _Table]:
        """Stable phases of the systems that were asked for."""
        return {}

    def _elements(self, system: System) -> NDArray[np.float64]:
        """Energies of the pure elements (eV/atom)."""
        return np.array([self._table((symbol,)).phases[0].energy for symbol in system])

    def _matter(self, system: System, phases: list[Phase]) -> bool:
        """Whether phases may change a hull that is known."""
        if len(system) > 1 and not self.missing(system):
            return any(not place.above_hull > _NOISE for place in self.place(system, phases))
        known = self.phases.get(system)
        return not known or len(system) > 1 or min(p.energy for p in phases) <= min(p.energy for p in known)

    def _table(self, system: System) -> _Table:
        """Stable phases of exactly these elements."""
        if (known := self._stable.get(system)) is None:
            known = self._stable[system] = self._element(system) if len(system) == 1 else self._compound(system)
        return known

    def _element(self, system: System) -> _Table:
        lowest = min(self.phases[system], key=_energy_and_name)
        return _Table(np.ones((1, 1)), np.zeros(1), [lowest])

    def _compound(self, system: System) -> _Table:
        lowest: dict[tuple[float, ...], tuple[Phase, tuple[float, ...]]] = {}
        for phase in self.phases[system]:
            row = phase.fractions(system)
            key = tuple(round(fraction, _DIGITS) for fraction in row)
            if key not in lowest or _energy_and_name(phase) < _energy_and_name(lowest[key][0]):
                lowest[key] = phase, row
        phases = [phase for phase, _ in lowest.values()]
        fractions = np.array([row for _, row in lowest.values()])
        energies = np.array([phase.energy for phase in phases]) - fractions @ self._elements(system)
        kept = energies < -_BOUND
        if kept.any():
            known = self._competitors(system, whole=False)
            kept[kept] = on_hull(known.fractions, known.energies, fractions[kept], energies[kept], _NOISE)
        return _Table(fractions[kept], energies[kept], [p for p, keep in zip(phases, kept, strict=True) if keep])

    def _competitors(self, system: System, *, whole: bool = True) -> _Table:
        """Stable phases of a system's subsystems, elements first, and of itself if it is taken as a whole."""
        tables = [
            (columns, self._table(part))
            for columns, part in _subsystems(system)
            if part in self.phases and (whole or part != system)
        ]
        phases = [phase for _, table in tables for phase in table.phases]
        fractions = np.zeros((len(phases), len(system)))
        row = 0
        for columns, table in tables:
            fractions[row : row + len(table.phases), columns] = table.fractions
            row += len(table.phases)
        return _Table(fractions, np.concatenate([table.energies for _, table in tables]), phases)


def _subsystems(system: System) -> Iterator[tuple[list[int], System]]:
    """Parts of a system with their places in it, elements first, the system last."""
    for size in range(1, len(system) + 1):
        for columns in combinations(range(len(system)), size):
            yield list(columns), tuple(system[column] for column in columns)


def _energy_and_name(phase: Phase) -> tuple[float, str]:
    return phase.energy, phase.identity
