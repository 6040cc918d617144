"""
Competing phases of any number of chemical systems, and their convex hulls.

A phase that is unstable in its own chemical system is on no hull of a larger system, because the larger system has the
same competing mixture. Each system therefore keeps only its stable phases. They are determined on first use, from the
stable phases of its subsystems. The hull of a hundred thousand phases thus becomes many small hulls. New phases
invalidate only hulls that they change: none if they are above the hull, else those of the systems that contain theirs.
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

_NOISE = 1e-9  # eV/atom; phases up to this distance above the hull count as stable
_BOUND = 1e-11  # eV/atom; compounds must have a formation energy below minus this; pymatgen's formation_energy_tol
_DIGITS = 10  # of atomic fractions, to recognise equal compositions
_BATCH = 2000  # systems whose tables are in memory at once
_PART = 1e-8  # fraction of the atoms; smaller amounts are not listed; pymatgen's numerical_tol


class Phase(NamedTuple):
    """
    A competing phase.

    Attributes
    ----------
    identity
        Id of its entry or document.
    amounts
        Number of atoms by element, for any multiple of the formula.
    energy
        Energy (eV/atom).
    """

    identity: str
    amounts: Mapping[str, float]
    energy: float

    @property
    def system(self) -> System:
        """Elements with a positive amount."""
        return tuple(sorted(symbol for symbol, amount in self.amounts.items() if amount > 0))

    def fractions(self, system: System) -> tuple[float, ...]:
        """Atomic fractions of the elements of `system`, which is the system of the phase."""
        amounts = [float(self.amounts[symbol]) for symbol in system]
        total = sum(amounts)
        return tuple(amount / total for amount in amounts)


class Place(NamedTuple):
    """
    Place of a phase relative to the hull of its competitors.

    Attributes
    ----------
    formation_energy, above_hull
        Formation energy and distance to the hull (eV/atom). The distance is negative below the hull, and NaN if the
        solver did not finish.
    parts
        Competing phases of the lowest-energy mixture, with their fractions of the atoms.
    """

    formation_energy: float
    above_hull: float
    parts: list[tuple[Phase, float]]


class _PhaseTable(NamedTuple):
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
        Initial phases by system; `add` adds more.

    Examples
    --------
    >>> space = PhaseSpace.of(
    ...     [Phase("li", {"Li": 1}, -1.0), Phase("cl", {"Cl": 2}, -2.0), Phase("licl", {"Li": 1, "Cl": 1}, -2.5)]
    ... )
    >>> (place,) = space.place(("Cl", "Li"), [Phase("candidate", {"Li": 3, "Cl": 1}, -1.5)])
    >>> place.above_hull, {phase.identity: amount for phase, amount in place.parts}
    (0.25, {'licl': 0.5, 'li': 0.5})
    """

    phases: dict[System, list[Phase]] = field(default_factory=lambda: defaultdict(list))

    @classmethod
    def of(cls, phases: Iterable[Phase]) -> PhaseSpace:
        """Make a phase space of some phases."""
        space = cls()
        for phase in phases:
            space.phases[phase.system].append(phase)
        return space

    def add(self, phases: Iterable[Phase]) -> set[System]:
        """
        Add phases.

        Returns
        -------
        set
            Systems in which a new phase lies on or below the hull. The hulls of all systems that contain one of them
            may have changed.
        """
        arriving: dict[System, list[Phase]] = {}
        for phase in phases:
            arriving.setdefault(phase.system, []).append(phase)
        changed = {system for system, new in arriving.items() if self._may_change_hull(system, new)}
        for system, new in arriving.items():
            self.phases[system] += new
        for system in changed:
            for outdated in [other for other in self._stable if all(symbol in other for symbol in system)]:
                del self._stable[outdated]
        return changed

    def missing(self, system: System) -> list[str]:
        """Elements of a system without an elemental phase."""
        return [symbol for symbol in system if not self.phases.get((symbol,))]

    def place(self, system: System, phases: Sequence[Phase]) -> list[Place]:
        """Place phases of one system relative to the hull; see `places`."""
        return next(self.places([(system, phases)]))

    def places(self, phases: Sequence[tuple[System, Sequence[Phase]]]) -> Iterator[list[Place]]:
        """
        Place phases relative to the hull of the competing phases.

        Parameters
        ----------
        phases
            Systems and phases of each. No element of a system may be `missing`. The phases do not become competitors.

        Yields
        ------
        list of Place
            Places of the phases of each system.
        """
        for batch in batched(phases, _BATCH):
            self._prepare([system for system, _ in batch])
            places: dict[int, list[Place]] = {}
            for size in {len(system) for system, _ in batch}:
                indices = [i for i, (system, _) in enumerate(batch) if len(system) == size]
                places |= zip(indices, self._places_of_one_size([batch[i] for i in indices]), strict=True)
            yield from (places[i] for i in range(len(batch)))

    def stable(self, system: System) -> list[Phase]:
        """Phases on the hull that have exactly these elements."""
        self._prepare([system])
        return list(self._stable[system].phases) if system in self._stable else []

    def reaction_energies(self, phases: Sequence[tuple[System, Phase]]) -> Iterator[float]:
        """
        Find the distances of phases to the hull of the other stable phases.

        Stable phases of the same composition as a phase do not compete with it; unstable phases never do. Of a phase
        on its own hull, this is its equilibrium reaction energy, as pymatgen's
        `PhaseDiagram.get_equilibrium_reaction_energy`.

        Parameters
        ----------
        phases
            Phases and their systems. No element of a system may be `missing`.

        Yields
        ------
        float
            Energy of a phase minus that of the hull without it (eV/atom): at most 0 for a stable phase, and 0 for an
            element, which has no competitors.

        Examples
        --------
        >>> space = PhaseSpace.of(
        ...     [Phase("li", {"Li": 1}, -1.0), Phase("cl", {"Cl": 2}, -2.0), Phase("licl", {"Li": 1, "Cl": 1}, -2.5)]
        ... )
        >>> list(space.reaction_energies([(("Cl", "Li"), Phase("licl", {"Li": 1, "Cl": 1}, -2.5))]))
        [-1.0]
        """
        for batch in batched(phases, _BATCH):
            self._prepare([system for system, _ in batch])
            energies = dict.fromkeys(range(len(batch)), 0.0)
            for size in {len(system) for system, _ in batch} - {1}:
                indices = [i for i, (system, _) in enumerate(batch) if len(system) == size]
                targets = [self._table(system, [phase]) for system, phase in (batch[i] for i in indices)]
                others = [
                    _without(self._competitors(batch[i][0]).table, target)
                    for i, target in zip(indices, targets, strict=True)
                ]
                mixtures = lowest_mixtures(others, [target.fractions for target in targets])
                for i, target, hull in zip(indices, targets, mixtures, strict=True):
                    energies[i] = float(target.energies[0] - hull.energies[0])
            yield from energies.values()

    @cached_property
    def _stable(self) -> dict[System, _PhaseTable]:
        """Cache of the stable phases that have exactly the elements of a system."""
        return {}

    def _places_of_one_size(self, phases: Sequence[tuple[System, Sequence[Phase]]]) -> Iterator[list[Place]]:
        """Place phases of systems that all have the same number of elements."""
        competitors = [self._competitors(system) for system, _ in phases]
        targets = [self._table(system, members) for system, members in phases]
        mixtures = lowest_mixtures([table for table, _ in competitors], [table.fractions for table in targets])
        for (_, competing), target, hull in zip(competitors, targets, mixtures, strict=True):
            columns = (target.energies, target.energies - hull.energies, hull.phases, hull.amounts)
            yield [
                Place(formation, above, [(competing[i], x) for i, x in zip(rows, parts, strict=True) if x > _PART])
                for formation, above, rows, parts in zip(*(column.tolist() for column in columns), strict=True)
            ]

    def _table(self, system: System, phases: Sequence[Phase]) -> Table:
        """Fractions and formation energies of phases of one system."""
        elements = np.array([self._stable[symbol,].phases[0].energy for symbol in system])
        fractions = np.array([phase.fractions(system) for phase in phases]).reshape(len(phases), len(system))
        return Table(fractions, np.array([phase.energy for phase in phases]) - fractions @ elements)

    def _may_change_hull(self, system: System, new: list[Phase]) -> bool:
        """Whether new phases of a system may change a hull."""
        if len(system) > 1 and not self.missing(system):
            return any(not place.above_hull > _NOISE for place in self.place(system, new))
        old = self.phases.get(system)
        return not old or len(system) > 1 or min(p.energy for p in new) <= min(p.energy for p in old)

    def _prepare(self, systems: Iterable[System]) -> None:
        """Determine the stable phases of systems and of all their subsystems, in order of size."""
        parts = {part for system in systems for part in _subsystems(system)}
        needed = {part for part in parts if part in self.phases and part not in self._stable}
        for size in sorted({len(system) for system in needed}):
            group = sorted(system for system in needed if len(system) == size)
            if size == 1:
                for system in group:
                    lowest = min(self.phases[system], key=_energy_and_name)
                    self._stable[system] = _PhaseTable(Table(np.ones((1, 1)), np.zeros(1)), [lowest])
            else:
                for part in batched(group, _BATCH):
                    self._stable |= zip(part, self._compounds(part), strict=True)

    def _compounds(self, systems: Sequence[System]) -> Iterator[_PhaseTable]:
        """Stable phases of systems of one size, whose subsystems are prepared."""
        compounds = [self._candidates(system) for system in systems]
        nonempty = [i for i, candidates in enumerate(compounds) if candidates.phases]
        competitors = [self._competitors(systems[i]).table for i in nonempty]
        masks = on_hull(competitors, [compounds[i].table for i in nonempty], _NOISE)
        for i, mask in zip(nonempty, masks, strict=True):
            compounds[i] = _selected(compounds[i], mask)
        return iter(compounds)

    def _candidates(self, system: System) -> _PhaseTable:
        """Lowest phase of each composition, if its formation energy is negative."""
        lowest: dict[tuple[float, ...], Phase] = {}
        for phase in self.phases[system]:
            key = tuple(round(fraction, _DIGITS) for fraction in phase.fractions(system))
            if key not in lowest or _energy_and_name(phase) < _energy_and_name(lowest[key]):
                lowest[key] = phase
        phases = list(lowest.values())
        table = self._table(system, phases)
        return _selected(_PhaseTable(table, phases), table.energies < -_BOUND)

    def _competitors(self, system: System) -> _PhaseTable:
        """Stable phases of a system and its subsystems, as far as they are prepared, elements first."""
        tables = [
            (columns, self._stable[part])
            for columns in _subsystem_columns(len(system))
            if (part := tuple([system[column] for column in columns])) in self._stable
        ]
        phases = [phase for _, stable in tables for phase in stable.phases]
        fractions = np.zeros((len(phases), len(system)))
        row = 0
        for columns, stable in tables:
            fractions[row : row + len(stable.phases), columns] = stable.table.fractions
            row += len(stable.phases)
        return _PhaseTable(Table(fractions, np.concatenate([stable.table.energies for _, stable in tables])), phases)


def _without(table: Table, target: Table) -> Table:
    """Phases of another composition than that of a target."""
    return table.take(np.abs(table.fractions - target.fractions[0]).max(axis=1) > 10.0**-_DIGITS)


def _selected(phases: _PhaseTable, mask: NDArray[np.bool_]) -> _PhaseTable:
    return _PhaseTable(
        phases.table.take(mask), [phase for phase, keep in zip(phases.phases, mask, strict=True) if keep]
    )


@cache
def _subsystem_columns(size: int) -> list[list[int]]:
    """Columns of the elements of each subsystem, the elements first, the whole system last."""
    return [list(columns) for part in range(1, size + 1) for columns in combinations(range(size), part)]


def _subsystems(system: System) -> Iterator[System]:
    """Subsystems of a system, and the system itself."""
    return (tuple([system[column] for column in columns]) for columns in _subsystem_columns(len(system)))


def _energy_and_name(phase: Phase) -> tuple[float, str]:
    return phase.energy, phase.identity
