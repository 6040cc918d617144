"""Screening: relax candidates chunk by chunk and rank them by distance to the convex hull."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from jobflow import Flow, Maker, OnMissing
from monty.json import MontyEncoder

from matris.flows.ranking import rank_candidates
from matris.makers.batch import as_candidate
from matris.makers.batch_relax import BatchRelaxMaker
from matris.stores.prototypes import elemental_references
from matris.structures import problem_with

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from pymatgen.core import Structure

    from matris.stores.candidates import Candidate


@dataclass
class ScreeningFlowMaker(Maker):
    """
    Chunk jobs that relax candidates, and one job that ranks what converged.

    Parameters
    ----------
    name
        Name of the flow.
    relax_maker
        Maker of the chunk jobs.
    chunk_size
        Most candidates in a job.
    max_chunk_bytes
        Most bytes of candidates, as JSON, in a job: a document of a MongoDB may not pass 16 MB.
    add_elements
        Whether to compute the elements of the candidates too, without which there is no self-consistent hull.
    """

    name: str = "screening"
    relax_maker: BatchRelaxMaker = field(default_factory=BatchRelaxMaker)
    chunk_size: int = 500
    max_chunk_bytes: int = 8_000_000
    add_elements: bool = True

    def make(self, candidates: Iterable[Candidate | Structure], references: str | None = None) -> Flow:
        """
        Make the flow.

        Parameters
        ----------
        candidates
            What to screen.
        references
            File of computed entries on the energy scale of the checkpoint, readable where the ranking runs; by
            default the competing phases are the candidates and the elements, computed in this flow.

        Returns
        -------
        Flow
            Its output is the ranking, see `matris.flows.ranking.rank_candidates`. Documents are built from the job
            store by `matris.stores.candidate_store.CandidateStore.build`.
        """
        listed = [as_candidate(candidate) for candidate in candidates]
        if self.add_elements and references is None:
            listed = with_elements(listed)
        chunks = list(self._chunks(listed))
        jobs = []
        for number, chunk in enumerate(chunks, start=1):
            relax = self.relax_maker.make(chunk)
            if len(chunks) > 1:
                relax.append_name(f" {number}/{len(chunks)}")
            jobs.append(relax)
        rank = rank_candidates([relax.output for relax in jobs], references)
        rank.name = "rank"
        rank.config.on_missing_references = OnMissing.NONE  # a chunk that broke does not cost the others their ranking
        return Flow([*jobs, rank], output=rank.output, name=self.name)

    def _chunks(self, candidates: Iterable[Candidate]) -> Iterator[list[dict[str, Any]]]:
        """Cut candidates into job inputs bounded by count and bytes."""
        chunk: list[dict[str, Any]] = []
        size = 0
        for candidate in candidates:
            item = candidate.model_dump()
            n_bytes = len(json.dumps(item, cls=MontyEncoder))
            if chunk and (len(chunk) == self.chunk_size or size + n_bytes > self.max_chunk_bytes):
                yield chunk
                chunk, size = [], 0
            chunk.append(item)
            size += n_bytes
        if chunk:
            yield chunk


def with_elements(candidates: Iterable[Candidate], known: Collection[str] | None = None) -> list[Candidate]:
    """
    Append elemental references for the elements that sound candidates contain.

    Parameters
    ----------
    candidates
        Candidates, with structures or without.
    known
        Symbols that the checkpoint knows; by default all.

    Returns
    -------
    list of Candidate
        The candidates, then the references that are not among them.
    """
    listed = list(candidates)
    seen = {
        symbol
        for candidate in listed
        if candidate.structure is not None and problem_with(candidate.structure, known) is None
        for symbol in candidate.structure.composition.chemical_system_set
    }
    ids = {candidate.candidate_id for candidate in listed}
    return listed + [each for each in elemental_references(sorted(seen)) if each.candidate_id not in ids]
