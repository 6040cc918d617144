"""Properties of the materials in files, computed here and now, kept in a store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jobflow import run_locally

from matris.flows.campaign.campaign import local_folder
from matris.flows.sources.files import read_candidates
from matris.makers.batch import RelaxedPropertyMaker
from matris.stores.database.jobstore import open_job_store

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from matris.makers.batch import BatchMaker


def compute_properties(
    sources: Iterable[str | Path], maker: BatchMaker, location: str | Path | None = None
) -> list[dict[str, Any]]:
    """
    Run one job over all structures of some files.

    Finished cells are journalled beside the store: killed and started again, it goes on.

    Parameters
    ----------
    sources
        Files and folders, as for `matris.flows.sources.files.read_candidates`.
    maker
        Which property, and how: one whose job gives ``documents``.
    location
        Store, as for `matris.stores.database.jobstore.open_job_store`.

    Returns
    -------
    list of dict
        A document per structure, in order, with its ``source`` and all its arrays.

    Raises
    ------
    MatrisError
        If a source does not exist, the checkpoint cannot be loaded or the store cannot be opened.
    """
    candidates = list(read_candidates(sources))
    store = open_job_store(location)
    if isinstance(maker, RelaxedPropertyMaker) and maker.journal_dir is None:
        maker.journal_dir = str((local_folder(location) / "journal").absolute())
    job = maker.make(candidates)
    run_locally(job, store=store, log=False, raise_immediately=True)
    documents = store.get_output(job.uuid, load=True)["documents"]
    return [{"source": candidate.source, **document} for candidate, document in zip(candidates, documents, strict=True)]
