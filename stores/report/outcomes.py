"""Outcome of each candidate of a campaign: its place in the ranking, or the stage and reason of its loss."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from math import inf, isfinite
from typing import TYPE_CHECKING, Any, Self

from matris.stores.documents.candidate import REFERENCE_SOURCES
from matris.stores.documents.documents import competing_energy, unconverged

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

WINDOW = 0.1
"""Default window: largest distance above the hull (eV/atom) of a survivor."""

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
"""Stages at which a candidate can be lost, in the order of a campaign."""

SOUND, UNSOUND, FAILED = "sound", "unsound", "failed"
_VERDICTS = {"phonon": ("has_imaginary_modes", False), "elastic": ("is_mechanically_stable", True)}
_LOST = ("rejected", "failed", "max_steps")
_EQUAL = "equal to another candidate"
_OF_FAILED = "equal to a candidate that failed"
REPRESENTATIVE_FAILED = "its representative failed"
"""Start of the reason in documents of candidates that are the same crystal as one that failed."""

_KINDS = 200  # kinds of reasons that are counted separately at one stage
_OTHER = "other reasons"

type Document = Mapping[str, Any]


def ranked(documents: Iterable[Document]) -> list[Document]:
    """
    Sort converged candidates by distance to the hull.

    Duplicates are left out, as are elemental references and known phases: they compete on the hull but are not
    discoveries. Candidates without a distance to the hull come last, sorted by formula.

    Parameters
    ----------
    documents
        Candidate documents.

    Examples
    --------
    >>> common = {"state": "converged", "source": "in.cif"}
    >>> documents = [
    ...     {"document_id": "a", "energy_above_hull": 0.08, **common},
    ...     {"document_id": "b", "energy_above_hull": 0.00, **common},
    ...     {"document_id": "c", "state": "failed", "source": "in.cif"},
    ... ]
    >>> [document["document_id"] for document in ranked(documents)]
    ['b', 'a']
    """
    return sorted(filter(is_ranked, documents), key=place)


def is_ranked(document: Document) -> bool:
    """Whether a document belongs to a converged candidate that duplicates no other one and is no reference."""
    is_candidate = document["source"] not in REFERENCE_SOURCES
    return is_candidate and document["state"] == "converged" and not document.get("duplicate_of")


def place(document: Document) -> tuple[float, str, float, str]:
    """Sort key of a document in a ranking: distance to the hull, formula, energy, id; unknown numbers come last."""
    distance, energy = (
        inf if number is None or not isfinite(number) else number
        for number in (document.get("energy_above_hull"), competing_energy(document))
    )
    return (
        distance,
        document.get("formula_pretty") or "",
        energy,
        document["document_id"],
    )


def lost(documents: Iterable[Document]) -> list[Document]:
    """
    Select rejected, failed and unconverged candidates, in this order.

    Parameters
    ----------
    documents
        Candidate documents.
    """
    losses = [document for document in documents if document["state"] in _LOST]
    return sorted(losses, key=lambda document: (_LOST.index(document["state"]), document["source"]))


def origin(document: Document) -> str:
    """Name the origin of a candidate: its source, or the structure type it was generated from."""
    prototype = (document.get("provenance") or {}).get("prototype")
    return f"{prototype} type" if prototype else str(document["source"])


def reason(document: Document) -> str:
    """
    State why a candidate has no place in the ranking.

    Parameters
    ----------
    document
        Candidate document.

    Examples
    --------
    >>> reason({"state": "max_steps", "error": None, "n_steps": 500, "fmax": 0.31})
    'not converged after 500 steps, largest force 0.31 eV/Å'
    """
    if document.get("error"):
        return str(document["error"])
    if document["state"] == "max_steps":
        return unconverged(*(document.get(name) for name in ("n_steps", "fmax", "smax")))
    return "no reason recorded"


def kind(message: str) -> str:
    """
    Reduce a reason to its kind: the words before the details.

    Parameters
    ----------
    message
        Reason why a candidate was lost.

    Examples
    --------
    >>> kind("atoms too close: sites 0 (Fe) and 1 (O) are 0.20 Å apart")
    'atoms too close'
    """
    general = re.sub(r"^site \d+ \(\w+\) has an? ", "", message)
    head = re.split(r"[:(;,]|\bsite \d", general, maxsplit=1)[0].strip()
    for start in ("unsupported element", "equal to candidate"):
        if head.startswith(start):
            return start
    return re.sub(r"\d[\d.e+-]*", "N", head) or message


def lost_at(document: Document, window: float | None = WINDOW) -> tuple[str, str] | None:
    """
    State at which stage a candidate was lost, and for which kind of reason.

    Parameters
    ----------
    document
        Candidate document.
    window
        Distance above the hull (eV/atom) up to which a candidate survives; None if there is no hull.

    Returns
    -------
    tuple of str or None
        One of `STAGES` and the kind of reason; None for a survivor.

    Examples
    --------
    >>> lost_at({"state": "failed", "error": "out of memory: 900 atoms"})
    ('failed', 'out of memory')
    """
    state, stage, distance = document["state"], document.get("stage"), document.get("energy_above_hull")
    if state == "rejected":
        return stage if stage in STAGES else "sanity", kind(reason(document))
    if state == "duplicate":
        of_failed = reason(document).startswith(REPRESENTATIVE_FAILED)
        return "duplicates", _OF_FAILED if of_failed else _EQUAL
    if state == "max_steps":
        return "not converged", "out of steps"
    if state != "converged":
        return "failed", kind(reason(document))
    if document.get("duplicate_of"):
        return "duplicates after relaxing", _EQUAL
    if window is None or (distance is not None and distance <= window):
        return None
    if distance is None:
        return "hull window", f"no distance: {kind(document.get('hull_state') or 'no hull was computed')}"
    return "hull window", f"more than {1e3 * window:g} meV/atom above the hull"


@dataclass
class Outcomes:
    """
    Number of candidates that each stage of a campaign lost, counted document by document.

    Elemental references and known phases are not counted.

    Attributes
    ----------
    window
        Distance above the hull (eV/atom) up to which a candidate survives; None if there is no hull.
    read
        Number of structures read or generated; None if each has a document.
    identical
        Number of structures that were identical to an earlier one.
    documents
        Number of candidates whose documents were added.
    lost
        Number of candidates by stage and kind of reason.
    stable
        Number of survivors on the hull.
    extrapolating
        Number of survivors unlike the training data of the checkpoint; None if the checkpoint cannot judge.
    verdicts
        Number of survivors by computed property and verdict: `SOUND` (dynamically or mechanically stable), `UNSOUND` or
        `FAILED`.

    Examples
    --------
    >>> documents = [
    ...     {"source": "a.cif", "state": "converged", "energy_above_hull": 0.0},
    ...     {"source": "b.cif", "state": "failed", "error": "out of memory"},
    ... ]
    >>> outcomes = Outcomes.of(documents)
    >>> outcomes.summary()
    '2 read, 1 ranked (1 on the hull), 1 failed'
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
            Counts ``read`` and ``identical`` of `matris.flows.campaign.intake.Intake`. By default every structure that
            was read has a document.
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
        loss = lost_at(document, self.window)
        if loss is not None:
            stage, kind_of_reason = loss
            kinds = self.lost[stage]
            kinds[kind_of_reason if kind_of_reason in kinds or len(kinds) < _KINDS else _OTHER] += 1
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
        """Number of different candidates."""
        return self.documents if self.read is None else max(self.read - self.identical, self.documents)

    @property
    def unfinished(self) -> int:
        """Number of candidates without a document."""
        return self.distinct - self.documents

    @property
    def converged(self) -> int:
        """Number of relaxed candidates."""
        return self.left("not converged")

    @property
    def ranked(self) -> int:
        """Number of different crystals among the relaxed candidates, within the window or not."""
        return self.left("duplicates after relaxing")

    @property
    def survivors(self) -> int:
        """Number of candidates that no stage lost."""
        return self.left("hull window")

    def left(self, stage: str) -> int:
        """Count the candidates left after a stage."""
        passed = STAGES[: STAGES.index(stage) + 1]
        return self.documents - sum(self.lost[each].total() for each in passed)

    def summary(self) -> str:
        """Summarise a campaign in one line; the other counts add up to the number of structures that were read."""
        read = self.distinct + self.identical
        hull = self.window is not None
        rejected = sum(self.lost[stage].total() for stage in ("reading", "sanity", "chemistry"))
        of_failed = self.lost["duplicates"][_OF_FAILED]
        duplicates = self.lost["duplicates"].total() - of_failed + self.lost["duplicates after relaxing"].total()
        parts = [
            f"{read} read",
            *([f"{self.identical} identical"] if self.identical else []),
            f"{self.ranked} ranked ({self.stable} on the hull)" if hull else f"{self.ranked} converged",
        ]
        others = {
            "duplicates": duplicates,
            "duplicates of failed ones": of_failed,
            "rejected": rejected,
            "failed": self.lost["failed"].total(),
            "not converged": self.lost["not converged"].total(),
            "unfinished": self.unfinished,
        }
        return ", ".join(parts + [f"{count} {name}" for name, count in others.items() if count])
