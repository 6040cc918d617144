"""A batch Maker as one job in this process, whose candidates get documents."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from jobflow import run_locally

from matris.makers.batch import RelaxedPropertyMaker
from matris.makers.batch_relax import BatchRelaxMaker
from matris.stores.candidate_store import CandidateStore
from matris.stores.database.jobstore import local_folder

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from jobflow import JobStore

    from matris.makers.batch import BatchMaker
    from matris.stores.documents.candidate import Candidate


def run_one_job(
    maker: BatchMaker, candidates: Sequence[Candidate], location: str | Path | None, store: JobStore
) -> str:
    """
    Compute candidates in this process, and build their documents.

    Parameters
    ----------
    maker
        The Maker; a journal that it does not place is written to the folder beside the store.
    candidates
        The candidates.
    location
        Store of the results, as for `matris.stores.database.jobstore.open_job_store`.
    store
        The same store, opened.

    Returns
    -------
    str
        UUID of the job.
    """
    if isinstance(maker, RelaxedPropertyMaker | BatchRelaxMaker) and maker.journal_dir is None:
        journal = (local_folder(location) / "journal").absolute()
        journal.mkdir(parents=True, exist_ok=True)
        maker = replace(maker, journal_dir=str(journal))
    job = maker.make(list(candidates))
    run_locally(job, store=store, log=False, raise_immediately=True)
    CandidateStore.beside(store).build(store, [job.uuid])
    return str(job.uuid)
