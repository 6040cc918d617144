"""Intake: from a stream of candidates to chunks in the queue, every drop recorded."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any

from matris.duplicates import Duplicates
from matris.flows.campaign.campaign import PAGE
from matris.flows.campaign.chunks import chunk_id, chunked, cost, keep_candidates
from matris.flows.campaign.stages import RELAX
from matris.flows.campaign.turns import turn
from matris.flows.sources.known_phases import known_phases
from matris.flows.sources.prototypes import elemental_references
from matris.stores.documents.documents import make_dropped
from matris.stores.report.outcomes import kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from matris.flows.campaign.campaign import Campaign
    from matris.stores.documents.candidate import Candidate
    from matris.stores.documents.documents import CandidateDocument

_DROPPED = 250  # documents in one write


@dataclass
class Intake:
    """
    What has been read so far.

    Attributes
    ----------
    read
        Candidates, elemental references not counted.
    identical
        Of them, those that had been read before.
    members
        Distinct ones, elemental references included.
    known
        Of them, those that the store holds results of, or that are in the queue.
    queued
        Of them, those that went into the queue now.
    dropped
        Number by stage and kind of reason.
    """

    read: int = 0
    identical: int = 0
    members: int = 0
    known: int = 0
    queued: int = 0
    dropped: dict[str, Counter[str]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Give the counts as a JSON object."""
        return {**vars(self), "dropped": {stage: dict(kinds) for stage, kinds in self.dropped.items()}}

    def drop(self, stage: str, reason: str) -> None:
        """Count a candidate that goes no further."""
        self.dropped.setdefault(stage, Counter())[kind(reason)] += 1


def take_in(campaign: Campaign, candidates: Iterable[Candidate]) -> Iterator[Intake]:
    """
    Read candidates, drop those that shall not be computed, and queue the others in chunks.

    Nothing is held in memory but what is on its way into a chunk, the hashes of what has been read, and what duplicates
    are found by. A second runner of the campaign waits here until the first has read.

    Parameters
    ----------
    campaign
        Open.
    candidates
        Read one by one. Without references to compare with, the elements they contain are appended.

    Yields
    ------
    Intake
        The same object every now and then, its counts going up.
    """
    with turn(campaign, "intake"):
        yield from _Reader(campaign).read(candidates)


class _Reader:
    """One pass over a source."""

    def __init__(self, campaign: Campaign) -> None:
        self.campaign = campaign
        self.counts = Intake()
        self._seen: set[bytes] = set()
        self._page: list[str] = []
        self._n_pages = 0
        self._dropped: list[CandidateDocument] = []
        self._duplicates = Duplicates() if campaign.funnel.duplicates else None
        self._elements: set[str] = set()
        self._systems: set[str] = set()
        self._known = campaign.store.computed_ids(*campaign.origin) | set(_queued(campaign))

    def read(self, candidates: Iterable[Candidate]) -> Iterator[Intake]:
        campaign = self.campaign
        campaign.keep(intake=self.counts.to_dict(), reading=True)
        sound = chain(self._sound(candidates), self._references())
        for chunk in chunked(sound, campaign.chunk_size):
            self._put(chunk)
            yield self.counts
        self._write_page()
        self._write_dropped()
        campaign.cut_members(self._n_pages)
        campaign.keep(intake=self.counts.to_dict(), reading=False)
        yield self.counts

    def _sound(self, candidates: Iterable[Candidate]) -> Iterator[Candidate]:
        """Yield what is to be computed; the rest is counted and recorded."""
        for candidate in candidates:
            self.counts.read += 1
            if self._first(candidate) and self._passes(candidate):
                yield candidate

    def _references(self) -> Iterator[Candidate]:
        """Yield what competes with what passed: known phases, and the elements, the corners of the hull."""
        campaign = self.campaign
        if not campaign.funnel.hull:
            return
        if campaign.known_phases is not None:
            for candidate in known_phases(campaign.known_phases, self._systems):
                if self._first(candidate, count=False) and self._passes(candidate):
                    yield candidate
        if campaign.references is None:
            for candidate in elemental_references(sorted(self._elements)):
                if self._first(candidate, count=False) and self._new(candidate):
                    yield candidate

    def _first(self, candidate: Candidate, *, count: bool = True) -> bool:
        """Whether a candidate was not read before; then it is a member."""
        key = bytes.fromhex(candidate.candidate_id)
        if key in self._seen:
            self.counts.identical += count
            return False
        self._seen.add(key)
        self._page.append(candidate.candidate_id)
        self.counts.members += 1
        if len(self._page) == PAGE:
            self._write_page()
        return True

    def _passes(self, candidate: Candidate) -> bool:
        problem = self.campaign.funnel.problem(candidate, self.campaign.card.elements)
        if problem is not None:
            self._drop(candidate, *problem)
            return False
        structure = candidate.structure
        assert structure is not None  # noqa: S101 - or there would be a problem
        self._elements |= structure.composition.chemical_system_set
        self._systems.add(structure.composition.chemical_system)
        if self._duplicates is not None:
            first = self._duplicates.first_like(candidate.candidate_id, structure)
            if first is not None and candidate.candidate_id not in self._known:
                self._drop(candidate, "duplicates", f"equal to candidate {first}", first)
                return False
        return self._new(candidate)

    def _new(self, candidate: Candidate) -> bool:
        if candidate.candidate_id in self._known:
            self.counts.known += 1
            return False
        return True

    def _drop(self, candidate: Candidate, stage: str, reason: str, duplicate_of: str | None = None) -> None:
        self.counts.drop(stage, reason)
        if candidate.candidate_id in self._known:  # computed when the funnel was wider; its results stay
            return
        self._dropped.append(
            make_dropped(
                candidate,
                stage,
                reason,
                checkpoint=self.campaign.checkpoint,
                settings=self.campaign.settings,
                state="rejected" if duplicate_of is None else "duplicate",
                duplicate_of=duplicate_of,
            )
        )
        if len(self._dropped) >= _DROPPED:
            self._write_dropped()

    def _put(self, chunk: Sequence[Candidate]) -> None:
        """Keep the candidates first, then queue the chunk: what is queued can be computed."""
        campaign = self.campaign
        work_id = chunk_id(RELAX, campaign.origin, chunk)
        keep_candidates(campaign.job_store, work_id, chunk)
        campaign.queue.put(
            [
                {
                    "work_id": work_id,
                    "campaign": campaign.name,
                    "stage": RELAX,
                    "cost": sum(map(cost, chunk)),
                    "n": len(chunk),
                    "payload": {"candidate_ids": [candidate.candidate_id for candidate in chunk]},
                }
            ]
        )
        self.counts.queued += len(chunk)
        self._write_dropped()
        campaign.keep(intake=self.counts.to_dict(), reading=True)

    def _write_page(self) -> None:
        if self._page:
            self.campaign.write_members(self._n_pages, self._page)
            self._n_pages += 1
            self._page = []

    def _write_dropped(self) -> None:
        if self._dropped:
            self.campaign.store.add_dropped(self._dropped)
            self._dropped = []


def _queued(campaign: Campaign) -> Iterator[str]:
    """Candidates in chunks of the campaign that are not done."""
    for item in campaign.queue.open_items(campaign.name, RELAX):
        yield from item["payload"]["candidate_ids"]
