"""Properties of the structures in files, computed by jobs of a cluster."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import asdict, replace
from itertools import batched
from typing import TYPE_CHECKING, Any

from jobflow import Flow
from monty.json import jsanitize

from matris.flows.campaign.chunks import chunk_id
from matris.flows.campaign.stages import CHUNK_SIZES
from matris.flows.cluster.submission import LOST, Cluster, Submission, job_id
from matris.flows.sources.files import read_candidates
from matris.makers.batch import NOT_SETTINGS, RelaxedPropertyMaker
from matris.stores.candidate_store import CandidateStore
from matris.stores.database.jobstore import read_output

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from jobflow import Job, JobStore

    from matris.makers.batch import PropertyMaker
    from matris.stores.documents.candidate import Candidate

type Documents = list[dict[str, Any]]


def submit_properties(
    sources: Iterable[str | Path], stage: str, maker: PropertyMaker, job_store: JobStore, submission: Submission
) -> tuple[Documents | None, Counter[str]]:
    """
    Submit the structures of some files in chunks, or read the results.

    The ids of the jobs are hashes of their input. A further call submits only chunks that are neither under way nor
    finished, and chunks whose jobs were lost.

    Parameters
    ----------
    sources
        Files and folders, as for `matris.flows.sources.files.read_candidates`.
    stage
        Property, of `matris.flows.campaign.stages.CHUNK_SIZES`.
    maker
        Maker of the property.
    job_store
        Store of the project's results.
    submission
        Project and workers.

    Returns
    -------
    list of dict or None
        One document per structure, in order, as `matris.flows.local.property_run.compute_properties` returns them; None
        if some are not computed yet.
    Counter
        Number of structures that are ``"submitted"``, ``"submitted again"``, ``"under way"`` and ``"finished"``.

    Raises
    ------
    MatrisError
        If a source does not exist or the checkpoint cannot be read.
    """
    candidates = list(read_candidates(sources))
    settings = {key: value for key, value in asdict(maker).items() if key not in NOT_SETTINGS} | {"dtype": maker.dtype}
    origin = (maker.card().sha256, hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest())
    counts: Counter[str] = Counter()
    new: list[Job] = []
    finished: list[str] = []
    documents: Documents = []
    with Cluster(submission) as cluster:
        for chunk in batched(candidates, CHUNK_SIZES[stage]):
            name = chunk_id(stage, origin, chunk)
            job, state = _latest_job(cluster, name)
            if state == "COMPLETED":
                counts["finished"] += len(chunk)
                finished.append(job)
                output = read_output(job_store, job)["documents"]
                documents += [{"source": c.source, **document} for c, document in zip(chunk, output, strict=True)]
            elif state is not None:
                counts["under way"] += len(chunk)
            else:
                counts["submitted" if job == name else "submitted again"] += len(chunk)
                new.append(_job(cluster, maker, chunk, name, job))
        if new:
            cluster.put(Flow(new, name=maker.name))
    CandidateStore.beside(job_store).build(job_store, finished)
    return documents if counts["finished"] == len(candidates) else None, counts


def _latest_job(cluster: Cluster, name: str) -> tuple[str, str | None]:
    """Return the id of a chunk's latest job, and its state; None for a job that is not submitted yet."""
    n_lost = 0
    while (job := cluster.jobs([job_id(name, n_lost)]).get(job_id(name, n_lost))) and job["state"] in LOST:
        n_lost += 1
    return job_id(name, n_lost), job["state"] if job else None


def _job(cluster: Cluster, maker: PropertyMaker, chunk: Iterable[Candidate], name: str, job: str) -> Job:
    """Make the job of a chunk, with the device of its worker, and with the journal or the trajectories on its disk."""
    contents = [jsanitize(candidate.model_dump(), strict=True) for candidate in chunk]
    keeps = "journal_dir" if isinstance(maker, RelaxedPropertyMaker) else "trajectory_dir"
    where: dict[str, Any] = {keeps: cluster.journal(name), "device": maker.device or cluster.device(name)}
    on_worker = replace(maker, **where)
    return cluster.chunk_job(on_worker, contents, name, job)
