"""Properties of the structures in files, computed on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jobflow import run_locally

from matris.flows.sources.files import read_candidates
from matris.makers.batch import RelaxedPropertyMaker
from matris.stores.candidate_store import CandidateStore
from matris.stores.database.jobstore import local_folder, open_job_store, read_output

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from matris.makers.batch import BatchMaker


def compute_properties(
    sources: Iterable[str | Path], maker: BatchMaker, location: str | Path | None = None
) -> list[dict[str, Any]]:
    """
    Compute a property of all structures in some files, in one job.

    The results are in the documents of the candidates too: `matris query --columns formula,elastic.bulk_modulus` finds
    them. A journal next to the store keeps finished structures: after an interruption, the same call resumes.

    Parameters
    ----------
    sources
        Files and folders, as for `matris.flows.sources.files.read_candidates`.
    maker
        Maker of the property, whose job returns ``documents``.
    location
        Store, as for `matris.stores.database.jobstore.open_job_store`.

    Returns
    -------
    list of dict
        One document per structure, in order, with its ``source`` and all its arrays.

    Raises
    ------
    MatrisError
        If a source does not exist, the checkpoint cannot be loaded or the store cannot be opened.

    Examples
    --------
    >>> from pymatgen.core import Lattice, Structure
    >>> from matris.flows.local.property_run import compute_properties
    >>> from matris.makers import BatchEosMaker
    >>> _ = Structure(Lattice.cubic(2.87), ["Fe"], [[0, 0, 0]]).to("iron.cif")
    >>> (document,) = compute_properties(["iron.cif"], BatchEosMaker(device="cpu", max_steps=0), "results")
    >>> document["source"], document["formula_pretty"], document["state"]
    ('iron.cif', 'Fe', ...)
    >>> CandidateStore.open("results").query(formula="Fe").first()["eos"]["state"] == document["state"]
    True
    """
    candidates = list(read_candidates(sources))
    store = open_job_store(location)
    if isinstance(maker, RelaxedPropertyMaker) and maker.journal_dir is None:
        maker.journal_dir = str((local_folder(location) / "journal").absolute())
    job = maker.make(candidates)
    run_locally(job, store=store, log=False, raise_immediately=True)
    CandidateStore.beside(store).build(store, [job.uuid])
    documents = read_output(store, job.uuid)["documents"]
    return [{"source": candidate.source, **document} for candidate, document in zip(candidates, documents, strict=True)]
