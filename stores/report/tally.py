"""Counts, histograms and selected documents that a report keeps of a stream of documents."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from math import isfinite
from typing import TYPE_CHECKING, Any

from matris.stores.documents.candidate import REFERENCE_SOURCES
from matris.stores.report.histogram import Histogram
from matris.stores.report.hull_points import HullPoint, hull_point
from matris.stores.report.outcomes import STAGES, Document, Outcomes, is_ranked, lost_at, place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

MAX_ROWS = 1000
"""Largest number of candidates in the ranking."""

_EXAMPLES = 5  # of each kind of loss
_KINDS = 300  # kinds of losses with examples
_REFERENCES = 300  # computed references in the list
_POINTS = 30_000  # phases for pictures of hulls, all chemical systems together
_SYSTEM_POINTS, _LEAST_POINTS = 200, 12  # phases of one chemical system: at the start, and at least
_ORIGINS = 20  # different values that are counted of each origin


class Best[T]:
    """
    The smallest items of a stream.

    Parameters
    ----------
    limit
        Number of items to keep.
    key
        Sort key.
    """

    def __init__(self, limit: int, key: Callable[[T], Any]) -> None:
        self.limit = limit
        self._key = key
        self._items: list[T] = []

    def add(self, item: T) -> None:
        """Add an item."""
        self._items.append(item)
        if len(self._items) >= 2 * self.limit:
            self._cut()

    def __len__(self) -> int:
        return len(self._items)

    def sorted(self) -> list[T]:
        """Return the smallest items in order."""
        self._cut()
        return list(self._items)

    def _cut(self) -> None:
        self._items.sort(key=self._key)
        del self._items[self.limit :]


def _finite(value: Any) -> Any:
    """Replace numbers that are not finite by None, at all depths."""
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not isfinite(value) else value


@dataclass(slots=True)
class System:
    """
    Counts of one chemical system.

    Attributes
    ----------
    candidates, converged, survivors, stable
        Number of candidates; converged; within the window; on the hull.
    best
        Smallest distance to the hull (eV/atom) and the formula of that phase.
    """

    candidates: int = 0
    converged: int = 0
    survivors: int = 0
    stable: int = 0
    best: tuple[float, str] | None = None


@dataclass
class Tally:
    """
    Counts, histograms, and the documents that a page shows in full.

    Attributes
    ----------
    outcomes
        Number of candidates by outcome.
    ranking
        Converged candidates nearest to the hull.
    with_element
        Number of candidates that contain an element: ``"candidates"``, ``"hits"`` (survivors), ``"failures"`` (failed
        or not converged).
    systems
        Counts by chemical system, without computed references.
    histograms
        Histograms by field of the documents.
    points
        Phases nearest to the hull by chemical system, for the pictures.
    examples
        Some documents by stage and kind of loss.
    references
        Documents of elements and known phases that were computed to compete on the hull, at most some hundreds.
    hulls, origins, machines, schemes
        Number of documents by hull type and reference set; checkpoint and settings; device and precision; corrections.
    first
        First document with a computed result, for settings and versions.
    phase_limit
        Largest number of phases that are kept of a chemical system.
    """

    outcomes: Outcomes
    ranking: Best[Document] = field(default_factory=lambda: Best(MAX_ROWS, place))
    with_element: dict[str, Counter[str]] = field(
        default_factory=lambda: {name: Counter() for name in ("candidates", "hits", "failures")}
    )
    systems: dict[str, System] = field(default_factory=dict)
    histograms: dict[str, Histogram] = field(
        default_factory=lambda: {
            "energy_above_hull": Histogram(0.005),
            "formation_energy_per_atom": Histogram(0.01),
            "volume_change": Histogram(0.005),
            "n_steps": Histogram(1),
            "seconds": Histogram(0.01),
        }
    )
    points: dict[str, Best[HullPoint]] = field(default_factory=dict)
    examples: dict[tuple[str, str], list[Document]] = field(default_factory=dict)
    references: list[Document] = field(default_factory=list)
    hulls: Counter[tuple[str, str]] = field(default_factory=Counter)
    origins: Counter[tuple[str, str]] = field(default_factory=Counter)
    machines: Counter[str] = field(default_factory=Counter)
    schemes: Counter[str] = field(default_factory=Counter)
    first: Document | None = None
    phase_limit: int = _SYSTEM_POINTS
    _n_points: int = 0

    @classmethod
    def of(cls, documents: Iterable[Document], outcomes: Outcomes) -> Tally:
        """Add documents one by one; `outcomes` must be new."""
        tally = cls(outcomes)
        for document in documents:
            tally.add(document)
        return tally

    def add(self, document: Document) -> None:
        """Add a document; its numbers that are not finite count as missing."""
        document = _finite(document)
        self._origin(document)
        self._point(document)
        if document["source"] in REFERENCE_SOURCES:
            if document["state"] == "converged" and len(self.references) < _REFERENCES:
                self.references.append(document)
            return
        self.outcomes.add(document)
        loss = lost_at(document, self.outcomes.window)
        if loss is not None:
            self._example(loss, document)
        self._elements(document, loss[0] if loss else None)
        self._system(document, survives=loss is None)
        for name, histogram in self.histograms.items():
            histogram.add(document.get(name))
        if is_ranked(document):
            self.ranking.add(document)

    @property
    def phases(self) -> dict[str, list[HullPoint]]:
        """Phases for pictures by chemical system, nearest to the hull first."""
        return {system: best.sorted()[: self.phase_limit] for system, best in self.points.items()}

    @property
    def losses(self) -> list[tuple[str, str, int, list[Document]]]:
        """Stage, kind of reason, number of candidates and examples, in the order of the stages."""
        return [
            (stage, kind, count, self.examples.get((stage, kind), []))
            for stage in STAGES[:-1]
            for kind, count in self.outcomes.lost[stage].most_common()
            if count
        ]

    def _origin(self, document: Document) -> None:
        if document.get("hull_type"):
            self.hulls[document["hull_type"], document.get("hull_reference") or ""] += 1
        checkpoint, settings = document["checkpoint"], document["settings"]
        self.origins[checkpoint["key"], settings["digest"]] += 1
        if document.get("correction_scheme") and document.get("energy_per_atom") is not None:
            self.schemes[document["correction_scheme"]] += 1
        if document.get("device"):
            self.machines[f"{document['device']}, {document['dtype']}"] += 1
            self.first = self.first or document
        for counted in (self.hulls, self.origins, self.machines, self.schemes):
            if len(counted) > _ORIGINS:
                del counted[min(counted, key=counted.__getitem__)]  # type: ignore[arg-type, call-overload]

    def _point(self, document: Document) -> None:
        """Keep a phase for a picture; if there are too many phases in total, keep fewer of each chemical system."""
        point = hull_point(document)
        if point is None:
            return
        best = self.points.setdefault(document["chemsys"], Best(self.phase_limit, _height))
        best.add(point)
        self._n_points += 1
        if self._n_points > _POINTS and self.phase_limit > _LEAST_POINTS:
            self.phase_limit = max(self.phase_limit // 2, _LEAST_POINTS)
            for kept in self.points.values():
                kept.limit = self.phase_limit
                kept.sorted()
            self._n_points = sum(map(len, self.points.values()))

    def _example(self, loss: tuple[str, str], document: Document) -> None:
        if loss[0] == "hull window":
            return
        if loss in self.examples or len(self.examples) < _KINDS:
            examples = self.examples.setdefault(loss, [])
            if len(examples) < _EXAMPLES:
                examples.append(document)

    def _elements(self, document: Document, stage: str | None) -> None:
        for element in document.get("elements") or ():
            self.with_element["candidates"][element] += 1
            if stage is None:
                self.with_element["hits"][element] += 1
            elif stage in {"failed", "not converged"}:
                self.with_element["failures"][element] += 1

    def _system(self, document: Document, *, survives: bool) -> None:
        name = document.get("chemsys")
        if not name:
            return
        system = self.systems.setdefault(name, System())
        system.candidates += 1
        if document["state"] != "converged":
            return
        distance = document.get("energy_above_hull")
        system.converged += 1
        system.survivors += survives
        if distance is not None:
            system.stable += survives and distance <= 0
            best = (distance, document["formula_pretty"])
            system.best = best if system.best is None else min(best, system.best)


def _height(point: HullPoint) -> tuple[float, str]:
    return (0.0 if point.above_hull is None else point.above_hull, point.formula)
