"""Which candidates of a campaign are how good, and what became of the others."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from matris.stores.documents.candidate import REFERENCE_SOURCES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

WINDOW = 0.1
"""Distance above the hull (eV/atom) up to which a candidate survives, unless a campaign has another."""

STAGES = (
    "reading",
    "sanity",
    "chemistry",
    "duplicates",
    "failed",
    "not converged",
    "duplicates after relaxing",
    "hull window",
)
"""Where a candidate may be lost, in the order of a campaign."""

SOUND, UNSOUND, FAILED = "sound", "unsound", "failed"
_VERDICTS = {"phonon": ("has_imaginary_modes", False), "elastic": ("is_mechanically_stable", True)}
_LOST = ("rejected", "failed", "max_steps")
_EQUAL = "equal to another candidate"
_KINDS = 200  # of reasons, at one stage
_OTHER = "other reasons"

type Document = Mapping[str, Any]


def ranked(documents: Iterable[Document]) -> list[Document]:
    """
    Sort converged candidates by distance to the hull.

    Elemental references and known phases are left out: they compete, and are no discoveries. Candidates without a
    distance to the hull come last, by formula.

    Parameters
    ----------
    documents
        Candidate documents.
    """
    taking_part = [d for d in documents if d["state"] == "converged" and d["source"] not in REFERENCE_SOURCES]
    return sorted(taking_part, key=place)


def place(document: Document) -> tuple[bool, float, str, float, str]:
    """Give what a ranking sorts a document by."""
    distance, energy = document.get("energy_above_hull"), document.get("energy_per_atom")
    return (
        distance is None,
        0.0 if distance is None else distance,
        document.get("formula_pretty") or "",
        0.0 if energy is None else energy,
        document["document_id"],
    )


def lost(documents: Iterable[Document]) -> list[Document]:
    """Pick what did not converge: rejected first, then failed, then out of steps."""
    losses = [document for document in documents if document["state"] in _LOST]
    return sorted(losses, key=lambda document: (_LOST.index(document["state"]), document["source"]))


def origin(document: Document) -> str:
    """Say where a candidate comes from: its file, or the structure type it was made from."""
    prototype = (document.get("provenance") or {}).get("prototype")
    return f"{prototype} type" if prototype else str(document["source"])


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
    for start in ("unsupported element", "equal to candidate"):
        if head.startswith(start):
            return start
    return re.sub(r"\d[\d.e+-]*", "N", head) or message


def lost_at(document: Document, window: float | None = WINDOW) -> tuple[str, str] | None:
    """
    Say where a candidate was lost, and why.

    Parameters
    ----------
    document
        Candidate document.
    window
        Distance above the hull (eV/atom) up to which a candidate survives; None if there is no hull.

    Returns
    -------
    tuple of str or None
        One of `STAGES`, and the kind of reason; None for what survives.
    """
    state, stage, distance = document["state"], document.get("stage"), document.get("energy_above_hull")
    if state == "rejected":
        return stage if stage in STAGES else "sanity", kind(reason(document))
    if state == "duplicate":
        return "duplicates", _EQUAL
    if state == "max_steps":
        return "not converged", "out of steps"
    if state != "converged":
        return "failed", kind(reason(document))
    if document.get("duplicate_of"):
        return "duplicates after relaxing", _EQUAL
    if window is None or (distance is not None and distance <= window):
        return None
    if distance is None:
        return "hull window", f"no distance: {kind(document.get('hull_state') or 'no hull was taken')}"
    return "hull window", f"more than {1e3 * window:g} meV/atom above the hull"


@dataclass
class Outcomes:
    """
    How many candidates of a campaign were lost where, counted document by document.

    Elemental references and known phases do not count.

    Attributes
    ----------
    window
        Distance above the hull (eV/atom) up to which a candidate survives; None if there is no hull.
    read
        Structures read or generated; None if all have a document.
    identical
        Of them, those that had been read before.
    documents
        Candidates whose documents were added.
    lost
        Number by stage and kind of reason.
    stable
        Survivors on the hull.
    extrapolating
        Survivors that are unlike what the checkpoint was trained on; None if it does not know.
    verdicts
        Survivors by property that was computed of them: `SOUND` (dynamically or mechanically stable), `UNSOUND`,
        `FAILED`.
    """

    window: float | None = WINDOW
    read: int | None = None
    identical: int = 0
    documents: int = 0
    lost: dict[str, Counter[str]] = field(default_factory=lambda: {stage: Counter() for stage in STAGES})
    stable: int = 0
    extrapolating: int | None = None
    verdicts: dict[str, Counter[str]] = field(default_factory=lambda: {name: Counter() for name in _VERDICTS})

    @classmethod
    def of(
        cls, documents: Iterable[Document], intake: Mapping[str, Any] | None = None, window: float | None = WINDOW
    ) -> Self:
        """
        Count documents.

        Parameters
        ----------
        documents
            Candidate documents.
        intake
            What a campaign has read: ``read`` and ``identical`` of `matris.flows.campaign.intake.Intake`. By default
            all that was read has a document.
        window
            See `Outcomes`.
        """
        outcomes = cls(window) if intake is None else cls(window, intake["read"], intake["identical"])
        for document in documents:
            outcomes.add(document)
        return outcomes

    def add(self, document: Document) -> None:
        """Count a candidate document."""
        if document["source"] in REFERENCE_SOURCES:
            return
        self.documents += 1
        at = lost_at(document, self.window)
        if at is not None:
            kinds = self.lost[at[0]]
            kinds[at[1] if at[1] in kinds or len(kinds) < _KINDS else _OTHER] += 1
            return
        distance = document.get("energy_above_hull")
        self.stable += distance is not None and distance <= 0
        if (extrapolating := document.get("is_extrapolating")) is not None:
            self.extrapolating = (self.extrapolating or 0) + extrapolating
        for name, (field_name, wanted) in _VERDICTS.items():
            if summary := document.get(name):
                verdict = summary.get(field_name)
                self.verdicts[name][FAILED if verdict is None else SOUND if verdict == wanted else UNSOUND] += 1

    @property
    def distinct(self) -> int:
        """Candidates, each counted once."""
        return self.documents if self.read is None else max(self.read - self.identical, self.documents)

    @property
    def unfinished(self) -> int:
        """Candidates that have no document yet."""
        return self.distinct - self.documents

    @property
    def converged(self) -> int:
        """Candidates that were relaxed."""
        return self.left("not converged")

    @property
    def survivors(self) -> int:
        """Candidates that were lost nowhere."""
        return self.left("hull window")

    def left(self, stage: str) -> int:
        """Candidates that are left after a stage."""
        passed = STAGES[: STAGES.index(stage) + 1]
        return self.documents - sum(self.lost[each].total() for each in passed)

    def summary(self) -> str:
        """Sum a campaign up in one line."""
        read = self.distinct + self.identical if self.read is None else self.read
        hull = self.window is not None
        rejected = sum(self.lost[stage].total() for stage in ("reading", "sanity", "chemistry"))
        duplicates = self.lost["duplicates"].total() + self.lost["duplicates after relaxing"].total()
        parts = [
            f"{read} read",
            *([f"{self.identical} identical"] if self.identical else []),
            f"{self.converged} ranked ({self.stable} on the hull)" if hull else f"{self.converged} converged",
        ]
        others = {
            "duplicates": duplicates,
            "rejected": rejected,
            "failed": self.lost["failed"].total(),
            "not converged": self.lost["not converged"].total(),
            "unfinished": self.unfinished,
        }
        return ", ".join(parts + [f"{count} {name}" for name, count in others.items() if count])
