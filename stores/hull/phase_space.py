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
from functools import cache, cached_property
from itertools import batched, combinations
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from matris.stores.hull.mixtures import Table, lowest_mixtures, on_hull

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

type System = tuple[str, ...]
"""Symbols of the elements, sorted."""

_NOISE = 1e-9  # eV/atom: a phase this far above the hull stays in the running
_BOUND = 1e-11  # eV/atom: formation energies above are those of mixtures of elements; pymatgen's formation_energy_tol
_DIGITS = 10  # of atomic fractions that are one composition
_BATCH = 2000  # systems whose tables are in memory at once
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


class _Known(NamedTuple):
    """Phases of one system with their formation energies."""

    table: Table
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
            for known in [known for known in self._stable if all(symbol in known for symbol in system)]:
                del self._stable[known]
        return changed

    def missing(self, system: System) -> list[str]:
        """Elements of a system without a phase of their own."""
        return [symbol for symbol in system if not self.phases.get((symbol,))]

    def place(self, system: System, phases: Sequence[Phase]) -> list[Place]:
        """Measure phases of one system against the competing ones; see `places`."""
        return next(self.places([(system, phases)]))

    def places(self, asked: Sequence[tuple[System, Sequence[Phase]]]) -> Iterator[list[Place]]:
        """
        Measure phases against the competing ones.

        Parameters
        ----------
        asked
            Systems, none of whose elements may be `missing`, and phases of them. These do not become competitors.

        Yields
        ------
        list of Place
            Of the phases of each system.
        """
        for part in batched(asked, _BATCH):
            self._prepare([system for system, _ in part])
            found: dict[int, list[Place]] = {}
            for size in {len(system) for system, _ in part}:
                chosen = [i for i, (system, _) in enumerate(part) if len(system) == size]
                found |= zip(chosen, self._measured([part[i] for i in chosen]), strict=True)
            yield from (found[i] for i in range(len(part)))

    def stable(self, system: System) -> list[Phase]:
        """Phases of exactly these elements that lie on the hull."""
        self._prepare([system])
        return list(self._stable[system].phases) if system in self._stable else []

    @cached_property
    def _stable(self) -> dict[System, _Known]:
        """Stable phases of exactly these elements, for the systems that were asked for."""
        return {}

    def _measured(self, asked: Sequence[tuple[System, Sequence[Phase]]]) -> Iterator[list[Place]]:
        """Measure phases of systems of one size."""
        known = [self._competitors(system) for system, _ in asked]
        targets = [self._table(system, phases) for system, phases in asked]
        mixtures = lowest_mixtures([table for table, _ in known], [table.fractions for table in targets])
        for (_, names), own, found in zip(known, targets, mixtures, strict=True):
            columns = (own.energies, own.energies - found.energies, found.phases, found.amounts)
            yield [
                Place(formation, above, [(names[i], x) for i, x in zip(rows, parts, strict=True) if x > _PART])
                for formation, above, rows, parts in zip(*(column.tolist() for column in columns), strict=True)
            ]

    def _table(self, system: System, phases: Sequence[Phase]) -> Table:
        """Fractions and formation energies of phases of one system."""
        elements = np.array([self._stable[symbol,].phases[0].energy for symbol in system])
        fractions = np.array([phase.fractions(system) for phase in phases]).reshape(len(phases), len(system))
        return Table(fractions, np.array([phase.energy for phase in phases]) - fractions @ elements)

    def _matter(self, system: System, phases: list[Phase]) -> bool:
        """Whether phases may change a hull that is known."""
        if len(system) > 1 and not self.missing(system):
            return any(not place.above_hull > _NOISE for place in self.place(system, phases))
        known = self.phases.get(system)
        return not known or len(system) > 1 or min(p.energy for p in phases) <= min(p.energy for p in known)

    def _prepare(self, systems: Iterable[System]) -> None:
        """Find the stable phases of systems and of all their subsystems, the small ones first."""
        parts = {part for system in systems for part in _subsystems(system)}
        needed = {part for part in parts if part in self.phases and part not in self._stable}
        for size in sorted({len(system) for system in needed}):
            group = sorted(system for system in needed if len(system) == size)
            if size == 1:
                for system in group:
                    lowest = min(self.phases[system], key=_energy_and_name)
                    self._stable[system] = _Known(Table(np.ones((1, 1)), np.zeros(1)), [lowest])
            else:
                for part in batched(group, _BATCH):
                    self._stable |= zip(part, self._compounds(part), strict=True)

    def _compounds(self, systems: Sequence[System]) -> Iterator[_Known]:
        """Stable phases of systems of one size, whose subsystems are prepared."""
        own = [self._candidates(system) for system in systems]
        some = [i for i, known in enumerate(own) if known.phases]
        below = [self._competitors(systems[i]).table for i in some]
        for i, kept in zip(some, on_hull(below, [own[i].table for i in some], _NOISE), strict=True):
            own[i] = _chosen(own[i], kept)
        return iter(own)

    def _candidates(self, system: System) -> _Known:
        """Of each composition the lowest phase, if it is lower than the elements."""
        lowest: dict[tuple[float, ...], Phase] = {}
        for phase in self.phases[system]:
            key = tuple(round(fraction, _DIGITS) for fraction in phase.fractions(system))
            if key not in lowest or _energy_and_name(phase) < _energy_and_name(lowest[key]):
                lowest[key] = phase
        phases = list(lowest.values())
        table = self._table(system, phases)
        return _chosen(_Known(table, phases), table.energies < -_BOUND)

    def _competitors(self, system: System) -> _Known:
        """Stable phases, as far as they are found, of a system and its subsystems, elements first."""
        tables = [
            (columns, self._stable[part])
            for columns in _places(len(system))
            if (part := tuple([system[column] for column in columns])) in self._stable
        ]
        phases = [phase for _, known in tables for phase in known.phases]
        fractions = np.zeros((len(phases), len(system)))
        row = 0
        for columns, known in tables:
            fractions[row : row + len(known.phases), columns] = known.table.fractions
            row += len(known.phases)
        return _Known(Table(fractions, np.concatenate([known.table.energies for _, known in tables])), phases)


def _chosen(known: _Known, kept: NDArray[np.bool_]) -> _Known:
    return _Known(known.table.take(kept), [phase for phase, keep in zip(known.phases, kept, strict=True) if keep])


@cache
def _places(size: int) -> list[list[int]]:
    """Places of the elements of all subsystems, elements first, the system last."""
    return [list(columns) for part in range(1, size + 1) for columns in combinations(range(size), part)]


def _subsystems(system: System) -> Iterator[System]:
    """Parts of a system and itself."""
    return (tuple([system[column] for column in columns]) for columns in _places(len(system)))


def _energy_and_name(phase: Phase) -> tuple[float, str]:
    return phase.energy, phase.identity
