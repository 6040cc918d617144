"""Screening as one jobflow flow, for any of jobflow's managers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, cast

from jobflow import Flow, Maker, OnMissing
from monty.json import jsanitize

from matris.errors import MatrisError
from matris.flows.campaign.chunks import chunked
from matris.flows.rank_jobs import add_properties, rank_candidates
from matris.flows.sources.opening import open_source
from matris.flows.sources.prototypes import elemental_references
from matris.makers.batch import as_candidate
from matris.makers.batch_relax import BatchRelaxMaker
from matris.same_crystal import SameCrystals
from matris.stores.documents.candidate import Candidate
from matris.structures import is_one

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ase import Atoms
    from pymatgen.core import Structure

    type Input = Candidate | Structure | Atoms | str | Path


@dataclass
class ScreeningFlowMaker(Maker):
    """
    Make a flow that relaxes candidates in chunks, ranks the converged ones, and computes properties of the best.

    On one machine, `matris.flows.run` does the same for campaigns of any size; it also uses all cores or GPUs, resumes
    after an interruption, and isolates candidates that kill their process. Here the manager decides which process runs
    a job; ``jobflow.run_locally`` runs all in its own.

    Parameters
    ----------
    name
        Name of the flow.
    relax_maker
        Maker of the chunk jobs.
    chunk_size
        Maximum number of candidates in a job, for cells of ordinary size; chunks of larger cells have fewer candidates.
    add_elements
        Whether to compute the elements of the candidates too. A self-consistent hull needs them.
    duplicates
        Whether to drop duplicates before and after relaxation, as `matris.flows.Funnel` does.
    window
        Candidates up to this energy above the hull (eV/atom) survive.
    properties
        Properties to compute for the survivors, in jobs that the flow adds to itself: ``"phonon"``,
        ``"elastic"``, ``"kappa"``.

    Examples
    --------
    >>> from pymatgen.core import Lattice, Structure
    >>> from matris.flows import ScreeningFlowMaker
    >>> rock_salt = Structure.from_spacegroup("Fm-3m", Lattice.cubic(4.2), ["Mg", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    >>> flow = ScreeningFlowMaker(chunk_size=2, window=0.05).make([rock_salt])
    >>> [job.name for job in flow.jobs]  # MgO, Mg and O, two in a job
    ['batch relax 1/2', 'batch relax 2/2', 'rank']
    """

    name: str = "screening"
    relax_maker: BatchRelaxMaker = field(default_factory=BatchRelaxMaker)
    chunk_size: int = 500
    add_elements: bool = True
    duplicates: bool = True
    window: float = 0.1
    properties: tuple[str, ...] = ()

    def make(self, candidates: Input | Iterable[Input], references: str | None = None) -> Flow:
        """
        Make the flow.

        Parameters
        ----------
        candidates
            What to screen, one or many: candidates, pymatgen's structures, ASE's atoms, or paths and other sources as
            `matris screen` takes them (`matris.flows.open_source`), which are read now.
        references
            File of computed entries on the energy scale of the checkpoint, readable where the ranking job runs.
            Default: the competing phases are the candidates and the elements, computed in this flow.

        Returns
        -------
        Flow
            Flow whose output is the ranking, see `matris.flows.rank_jobs.rank_candidates`.
            `matris.stores.candidate_store.CandidateStore.build` makes candidate documents from the job store.

        Raises
        ------
        MatrisError
            If a candidate is nothing of this kind, a source cannot be read, or there are no candidates.
        """
        listed = list(all_candidates(candidates))
        if not listed:
            raise MatrisError("there is nothing to screen: the list or source holds no candidates")
        dropped: dict[str, str] = {}
        if self.duplicates:
            listed, dropped = without_duplicates(listed)
        if self.add_elements and references is None:
            listed = with_elements(listed)
        chunks = list(chunked(listed, self.chunk_size))
        relax_jobs = []
        for number, chunk in enumerate(chunks, start=1):
            relax = self.relax_maker.make([jsanitize(candidate.model_dump(), strict=True) for candidate in chunk])
            if len(chunks) > 1:
                relax.append_name(f" {number}/{len(chunks)}")
            relax_jobs.append(relax)
        rank = rank_candidates(
            [job.output.records for job in relax_jobs],
            [job.output.checkpoint for job in relax_jobs],
            [job.output.settings for job in relax_jobs],
            references,
            self.window,
            [job.output.structures for job in relax_jobs] if self.duplicates else None,
            dropped,
        )
        rank.name = "rank"
        rank.config.on_missing_references = OnMissing.NONE  # rank the other chunks if one fails
        property_jobs = []
        for relax in relax_jobs if self.properties else []:
            survivors = add_properties(
                relax.output.structures, rank.output["survivors"], self.relax_maker, self.properties
            )
            survivors.config.on_missing_references = OnMissing.NONE
            property_jobs.append(survivors)
        return Flow([*relax_jobs, rank, *property_jobs], output=rank.output, name=self.name)


def all_candidates(inputs: Input | Iterable[Input]) -> Iterator[Candidate]:
    """
    Turn whatever users call candidates into candidates.

    Parameters
    ----------
    inputs
        As for `ScreeningFlowMaker.make`.

    Raises
    ------
    MatrisError
        If one of them is nothing of this kind, or a source cannot be read.

    Examples
    --------
    >>> from ase.build import bulk
    >>> [candidate.source for candidate in all_candidates([bulk("Cu"), "prototypes:Na-Cl?max_sites=2&limit=1"])]
    ['structure', 'A1, Copper type']
    >>> list(all_candidates([bulk("Cu"), 3]))
    Traceback (most recent call last):
    matris.errors.MatrisError: candidate 1 is an int: give Candidates, pymatgen Structures, ASE Atoms, or paths of ...
    """
    single = is_one(inputs) or isinstance(inputs, Candidate | str | Path | Mapping) or not isinstance(inputs, Iterable)
    for number, item in enumerate(cast("Iterable[Input]", [inputs] if single else inputs)):
        if isinstance(item, str | Path):
            yield from open_source(str(item))
        elif is_one(item) or isinstance(item, Candidate):
            yield as_candidate(item)
        else:
            kind = type(item).__name__
            raise MatrisError(
                f"candidate {number} is {'an' if kind[0] in 'aeiou' else 'a'} {kind}: give Candidates, pymatgen "
                "Structures, ASE Atoms, or paths of structure files, one or many"
            )


def without_duplicates(candidates: Iterable[Candidate]) -> tuple[list[Candidate], dict[str, str]]:
    """
    Drop identical candidates, and those that are the same crystal as an earlier one (`matris.same_crystal`).

    Parameters
    ----------
    candidates
        Candidates, with or without structures.

    Returns
    -------
    tuple
        The other candidates, and the id of the earlier candidate by the id of each one that is the same crystal.
    """
    crystals = SameCrystals()
    kept: dict[str, Candidate] = {}
    dropped: dict[str, str] = {}
    for candidate in candidates:
        name, structure = candidate.candidate_id, candidate.structure
        if name in kept or name in dropped:
            continue
        if structure is None or candidate.problem() is not None:
            kept[name] = candidate  # its job says why it cannot be computed
        elif (first := crystals.first_like(name, structure)) is not None:
            dropped[name] = first
        else:
            kept[name] = candidate
    return list(kept.values()), dropped


def with_elements(candidates: Iterable[Candidate]) -> list[Candidate]:
    """
    Append elemental references for the elements of all candidates that can be computed.

    Parameters
    ----------
    candidates
        Candidates, with or without structures.

    Returns
    -------
    list of Candidate
        The candidates, then the references that are not among them.
    """
    listed = list(candidates)
    elements = {
        symbol
        for candidate in listed
        if candidate.structure is not None and candidate.problem() is None
        for symbol in candidate.structure.composition.chemical_system_set
    }
    ids = {candidate.candidate_id for candidate in listed}
    references = elemental_references(sorted(elements))
    return listed + [reference for reference in references if reference.candidate_id not in ids]
