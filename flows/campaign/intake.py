"""Intake: filter a stream of candidates, record those that are dropped, and queue the others in chunks."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from matris.flows.campaign.campaign import PAGE
from matris.flows.campaign.chunks import chunked, cost, kept_candidate_ids, queue_chunk
from matris.flows.campaign.competing import competing_prototypes
from matris.flows.campaign.stages import RELAX
from matris.flows.campaign.turns import turn
from matris.flows.campaign.twins import EQUAL
from matris.flows.sources.known_phases import known_phases
from matris.flows.sources.prototypes import elemental_references
from matris.same_crystal import SameCrystals
from matris.stores.documents.candidate import REFERENCE_SOURCES
from matris.stores.documents.documents import document_id, make_dropped
from matris.stores.report.outcomes import kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from pymatgen.core import Structure

    from matris.flows.campaign.campaign import Campaign
    from matris.stores.documents.candidate import Candidate
    from matris.stores.documents.documents import CandidateDocument

_WRITE_SIZE = 250  # documents of dropped candidates in one write


@dataclass
class Intake:
    """
    Number of candidates that were read so far.

    Attributes
    ----------
    read
        Candidates read, without elemental references and known phases.
    identical
        Candidates that are identical to one read before.
    members
        Distinct candidates, with elemental references and known phases.
    references
        Members that only compete on the hulls: elements, known phases and prototypes.
    known
        Candidates whose results are in the store, or which are in the queue, without references.
    finished, unfinished
        Members, with references, whose results are in the store, and members in chunks of the queue that are not done.
    queued
        Members that were newly queued.
    dropped
        Candidates that were dropped, by stage and kind of reason, without references.
    """

    read: int = 0
    identical: int = 0
    members: int = 0
    references: int = 0
    known: int = 0
    finished: int = 0
    unfinished: int = 0
    queued: int = 0
    dropped: dict[str, Counter[str]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the counts as a JSON object."""
        return {**vars(self), "dropped": {stage: dict(kinds) for stage, kinds in self.dropped.items()}}

    def drop(self, stage: str, reason: str) -> None:
        """Count a dropped candidate."""
        self.dropped.setdefault(stage, Counter())[kind(reason)] += 1


def take_in(
    campaign: Campaign, candidates: Iterable[Candidate], meanwhile: Callable[[], object] = lambda: None
) -> Iterator[Intake]:
    """
    Read candidates, drop those that are not to be computed, and queue the others in chunks.

    Memory holds only the current chunk, a hash of each candidate, and the data for finding duplicates. A second
    runner of the campaign waits here until the first one has read its candidates.

    Parameters
    ----------
    campaign
        Open campaign.
    candidates
        Candidates, read one by one. The elements they contain are appended, unless the campaign has references.
    meanwhile
        Function that is called again and again while another runner reads, and after every 1,000 candidates: those
        that are known already give no chunk.

    Yields
    ------
    Intake
        Counts so far, after each chunk; always the same object.
    """
    with turn(campaign, "intake", meanwhile):
        yield from _Reader(campaign, meanwhile).read(candidates)


class _Reader:
    """One pass over the candidates of a campaign."""

    def __init__(self, campaign: Campaign, meanwhile: Callable[[], object]) -> None:
        self.campaign = campaign
        self._meanwhile = meanwhile
        self.counts = Intake()
        self._seen: set[bytes] = set()
        self._page: dict[str, str] = {}
        self._n_pages = 0
        self._dropped: list[CandidateDocument] = []
        self._twins: dict[str, Structure] = {}
        self._duplicates = SameCrystals() if campaign.funnel.duplicates else None
        self._elements: set[str] = set()
        self._systems: set[str] = set()
        self._computed_references = _computed_references(campaign)
        self._unfinished = set(_queued(campaign))
        self._known = self._unfinished | campaign.store.computed_ids(*campaign.origin)  # read later: chunks may end

    def read(self, candidates: Iterable[Candidate]) -> Iterator[Intake]:
        campaign = self.campaign
        candidates = iter(candidates)
        first = list(islice(candidates, 1))  # a source that cannot be read must not become the current campaign
        campaign.keep(intake=self.counts.to_dict(), reading=True, stopped=None)
        passed = chain(self._filtered(chain(first, candidates)), self._references())
        for chunk in chunked(passed, campaign.chunk_size, sharing=campaign.sharing):
            self._put(chunk)
            yield self.counts
        self._write_page()
        self._write_dropped()
        campaign.cut_members(self._n_pages)
        campaign.keep(intake=self.counts.to_dict(), reading=False)
        yield self.counts

    def _filtered(self, candidates: Iterable[Candidate]) -> Iterator[Candidate]:
        """Yield the candidates that are to be computed; count and record the others."""
        for candidate in candidates:
            self.counts.read += 1
            if not self._first(candidate):
                continue
            if candidate.candidate_id in self._computed_references:
                self._claim(candidate)
            if self._passes(candidate):
                yield candidate

    def _references(self) -> Iterator[Candidate]:
        """Yield the competing phases: known phases, and the elements at the corners of the hull."""
        campaign = self.campaign
        if not campaign.funnel.hull:
            return
        campaign.fetch_references(self._systems)
        if campaign.known_phases is not None:
            for candidate in known_phases(campaign.known_phases, self._systems):
                if self._first(candidate, count=False) and self._passes(candidate):
                    yield candidate
        if campaign.references is None:
            for candidate in elemental_references(sorted(self._elements)):
                if self._first(candidate, count=False) and self._new(candidate):
                    yield candidate
            for candidate in competing_prototypes(set(self._systems), campaign.funnel.complete_hull):
                if self._first(candidate, count=False) and self._passes(candidate):
                    yield candidate

    def _claim(self, candidate: Candidate) -> None:
        """Give the source of a candidate to its document, which an earlier campaign computed as a reference."""
        identity = document_id(candidate.candidate_id, *self.campaign.origin)
        self.campaign.store.set_fields({identity: {"source": candidate.source, "provenance": candidate.provenance}})

    def _first(self, candidate: Candidate, *, count: bool = True) -> bool:
        """Make a candidate a member; False if an identical one was read before."""
        key = bytes.fromhex(candidate.candidate_id)
        if key in self._seen:
            self.counts.identical += count
            return False
        self._seen.add(key)
        self._page[candidate.candidate_id] = candidate.source
        self.counts.members += 1
        self.counts.references += candidate.source in REFERENCE_SOURCES
        if len(self._page) == PAGE:
            self._write_page()
            self._meanwhile()
        return True

    def _passes(self, candidate: Candidate) -> bool:
        """Whether a candidate passes the filters and is not computed yet; record it if it is dropped."""
        problem = self.campaign.funnel.problem(candidate, self.campaign.card.elements)
        if problem is not None:
            self._drop(candidate, *problem)
            return False
        structure = candidate.structure
        assert structure is not None  # noqa: S101 - no structure is a problem
        self._elements |= structure.composition.chemical_system_set
        self._systems.add(structure.composition.chemical_system)
        if self._duplicates is not None:
            first = self._duplicates.first_like(candidate.candidate_id, structure)
            if first is not None and candidate.candidate_id not in self._known:
                self._drop(candidate, "duplicates", f"{EQUAL} {first}", first)
                return False
        return self._new(candidate)

    def _new(self, candidate: Candidate) -> bool:
        """Whether the store and the queue lack a candidate; count it if they do not."""
        if candidate.candidate_id in self._known:
            self.counts.known += candidate.source not in REFERENCE_SOURCES
            is_unfinished = candidate.candidate_id in self._unfinished
            self.counts.unfinished += is_unfinished
            self.counts.finished += not is_unfinished
            return False
        return True

    def _drop(self, candidate: Candidate, stage: str, reason: str, duplicate_of: str | None = None) -> None:
        """Count a dropped candidate, and record it unless it has results from an earlier, wider funnel."""
        if candidate.source not in REFERENCE_SOURCES:
            self.counts.drop(stage, reason)
        if candidate.candidate_id in self._known:
            return
        document = make_dropped(
            candidate,
            stage,
            reason,
            checkpoint=self.campaign.checkpoint,
            settings=self.campaign.settings,
            state="rejected" if duplicate_of is None else "duplicate",
            duplicate_of=duplicate_of,
        )
        self._dropped.append(document)
        if duplicate_of is not None and candidate.structure is not None:
            self._twins[document.document_id] = candidate.structure
        if len(self._dropped) >= _WRITE_SIZE:
            self._write_dropped()

    def _put(self, chunk: Sequence[Candidate]) -> None:
        """Queue a chunk, and write the counts."""
        queue_chunk(self.campaign, RELAX, chunk, sum(map(cost, chunk)))
        self.counts.queued += len(chunk)
        self._write_dropped()
        self.campaign.keep(intake=self.counts.to_dict(), reading=True)

    def _write_page(self) -> None:
        if self._page:
            self.campaign.write_members(self._n_pages, self._page)
            self._n_pages += 1
            self._page = {}

    def _write_dropped(self) -> None:
        if self._dropped:
            self.campaign.store.add_dropped(self._dropped, self._twins)
            self._dropped, self._twins = [], {}


def _queued(campaign: Campaign) -> Iterator[str]:
    """Yield the ids of candidates in unfinished chunks of the campaign."""
    open_items = campaign.queue.open_items(campaign.name, RELAX)
    yield from kept_candidate_ids(campaign.job_store, [item["work_id"] for item in open_items])


def _computed_references(campaign: Campaign) -> set[str]:
    """Ids of the candidates that earlier campaigns computed as competing phases."""
    sha256, digest = campaign.origin
    criteria = {"source": {"$in": sorted(REFERENCE_SOURCES)}, "checkpoint.sha256": sha256, "settings.digest": digest}
    return {document["candidate_id"] for document in campaign.store.docs.query(criteria, properties=["candidate_id"])}
