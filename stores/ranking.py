"""Which candidates of a campaign are how good, and what became of the others."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from matris.stores.reference_phases import REFERENCE_SOURCES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

PROMISING = 0.05
"""Distance above the hull (eV/atom) up to which a candidate counts as promising."""

_LOST = ("rejected", "failed", "max_steps")

type Document = Mapping[str, Any]


def ranked(documents: Iterable[Document]) -> list[Document]:
    """
    Sort converged candidates by distance to the hull.

    Elemental references and known phases are left out: they compete, and are no discoveries. Candidates without a hull
    distance come last, by formula.

    Parameters
    ----------
    documents
        Candidate documents.
    """
    taking_part = [d for d in documents if d["state"] == "converged" and d["source"] not in REFERENCE_SOURCES]

    def place(document: Document) -> tuple[bool, float, str, float, str]:
        distance, energy = document.get("energy_above_hull"), document.get("energy_per_atom")
        return (
            distance is None,
            0.0 if distance is None else distance,
            document.get("formula_pretty") or "",
            0.0 if energy is None else energy,
            document["document_id"],
        )

    return sorted(taking_part, key=place)


def lost(documents: Iterable[Document]) -> list[Document]:
    """Pick what did not converge: rejected first, then failed, then out of steps."""
    found = [document for document in documents if document["state"] in _LOST]
    return sorted(found, key=lambda document: (_LOST.index(document["state"]), document["source"]))


def reason(document: Document) -> str:
    """Say why a candidate has no place in the ranking."""
    if document.get("error"):
        return str(document["error"])
    if document["state"] == "max_steps":
        force = document.get("fmax")
        left = "" if force is None else f", largest force {force:.2f} eV/Å"
        return f"not converged after {document.get('n_steps')} steps{left}"
    return "no reason recorded"


def kind(message: str) -> str:
    """Return what a reason has in common with others of its kind: the words before the particulars."""
    said = re.sub(r"^site \d+ \(\w+\) has an? ", "", message)
    head = re.split(r"[:(;,]|\bsite \d", said, maxsplit=1)[0].strip()
    return re.sub(r"^(unsupported element)\b.*", r"\1", head) or message


@dataclass(frozen=True)
class Funnel:
    """
    How many candidates were left after each step.

    Parameters
    ----------
    read
        Structures read or generated.
    distinct
        After identical ones were dropped.
    sound
        Not rejected before computing.
    converged
        Relaxed.
    promising, stable
        Within `PROMISING` of the hull, and on it.
    lost
        State to kinds of reasons with their counts.
    """

    read: int
    distinct: int
    sound: int
    converged: int
    promising: int
    stable: int
    lost: Mapping[str, Counter[str]]

    @classmethod
    def of(cls, documents: Sequence[Document], n_read: int | None = None) -> Funnel:
        """
        Count the documents of a campaign; elemental references do not count.

        Parameters
        ----------
        documents
            Candidate documents.
        n_read
            Structures read; by default as many as there are documents.
        """
        candidates = [document for document in documents if document["source"] not in REFERENCE_SOURCES]
        states = Counter(document["state"] for document in candidates)
        distances = [d["energy_above_hull"] for d in ranked(candidates) if d.get("energy_above_hull") is not None]
        return cls(
            read=max(n_read or 0, len(candidates)),
            distinct=len(candidates),
            sound=len(candidates) - states["rejected"],
            converged=states["converged"],
            promising=sum(distance <= PROMISING for distance in distances),
            stable=sum(distance <= 0 for distance in distances),
            lost={
                state: Counter(
                    "not converged" if state == "max_steps" else kind(reason(document))
                    for document in candidates
                    if document["state"] == state
                )
                for state in _LOST
            },
        )

    def loss(self, *states: str) -> str:
        """Say what was lost in some states, kind by kind, the most frequent first."""
        return ", ".join(f"{count} {name}" for state in states for name, count in self.lost[state].most_common())

    def summary(self, *, hull: bool = True) -> str:
        """
        Sum a campaign up in one line.

        Parameters
        ----------
        hull
            Whether the candidates were placed on a hull.
        """
        parts = [f"{self.read} read"]
        if self.read > self.distinct:
            parts.append(f"{self.read - self.distinct} identical")
        parts.append(f"{self.converged} ranked ({self.stable} on the hull)" if hull else f"{self.converged} converged")
        names = {"rejected": "rejected", "failed": "failed", "max_steps": "not converged"}
        parts += [f"{sum(self.lost[state].values())} {name}" for state, name in names.items() if self.lost[state]]
        return ", ".join(parts)
