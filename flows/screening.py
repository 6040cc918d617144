"""Screening as one flow, for any of jobflow's managers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from jobflow import Flow, Maker, OnMissing
from monty.json import jsanitize

from matris.flows.campaign.chunks import MAX_BYTES, chunked
from matris.flows.rank_jobs import add_properties, rank_candidates
from matris.flows.sources.prototypes import elemental_references
from matris.makers.batch import as_candidate
from matris.makers.batch_relax import BatchRelaxMaker
from matris.structures import problem_with

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from pymatgen.core import Structure

    from matris.stores.documents.candidate import Candidate


@dataclass
class ScreeningFlowMaker(Maker):
    """
    Chunk jobs that relax candidates, one job that ranks what converged, and jobs for properties of what survives.

    On one machine `matris.flows.run` does the same for campaigns of any size, resumes, and isolates what breaks.

    Parameters
    ----------
    name
        Name of the flow.
    relax_maker
        Maker of the chunk jobs.
    chunk_size
        Most candidates in a job, of ordinary cells; fewer of large ones.
    max_chunk_bytes
        Most bytes of candidates, as JSON, in a job: a document of a MongoDB may not pass 16 MB.
    add_elements
        Whether to compute the elements of the candidates too, without which there is no self-consistent hull.
    window
        Candidates up to this energy above the hull (eV/atom) survive.
    properties
        What is computed of them, in jobs that the flow adds to itself: ``"phonon"``, ``"elastic"``.
    """

    name: str = "screening"
    relax_maker: BatchRelaxMaker = field(default_factory=BatchRelaxMaker)
    chunk_size: int = 500
    max_chunk_bytes: int = MAX_BYTES
    add_elements: bool = True
    window: float = 0.1
    properties: tuple[str, ...] = ()

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
            Its output is the ranking, see `matris.flows.rank_jobs.rank_candidates`. Documents are built from the job
            store by `matris.stores.candidate_store.CandidateStore.build`.
        """
        listed = [as_candidate(candidate) for candidate in candidates]
        if self.add_elements and references is None:
            listed = with_elements(listed)
        chunks = list(chunked(listed, self.chunk_size, self.max_chunk_bytes))
        jobs = []
        for number, chunk in enumerate(chunks, start=1):
            relax = self.relax_maker.make([jsanitize(candidate.model_dump(), strict=True) for candidate in chunk])
            if len(chunks) > 1:
                relax.append_name(f" {number}/{len(chunks)}")
            jobs.append(relax)
        rank = rank_candidates(
            [job.output.records for job in jobs],
            [job.output.checkpoint for job in jobs],
            [job.output.settings for job in jobs],
            references,
            self.window,
        )
        rank.name = "rank"
        rank.config.on_missing_references = OnMissing.NONE  # a chunk that broke does not cost the others their ranking
        more = []
        for relax in jobs if self.properties else []:
            survivors = add_properties(
                relax.output.structures, rank.output["survivors"], self.relax_maker, self.properties
            )
            survivors.config.on_missing_references = OnMissing.NONE
            more.append(survivors)
        return Flow([*jobs, rank, *more], output=rank.output, name=self.name)


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
