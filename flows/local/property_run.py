"""Properties of the structures in files, computed on this machine."""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace
from itertools import batched
from typing import TYPE_CHECKING, Any

from maggma.stores import MemoryStore

from matris.errors import MatrisError
from matris.flows.campaign.chunks import drop_candidates
from matris.flows.campaign.one_job import run_one_job
from matris.flows.local.processes import default_devices, on_gpu
from matris.flows.local.property_queue import PropertyQueue, stage_of
from matris.flows.local.runner import Workers
from matris.flows.queue.queue import DONE
from matris.flows.sources.files import read_candidates
from matris.stores.candidate_store import CandidateStore
from matris.stores.database.jobstore import open_job_store, read_output

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from jobflow import JobStore

    from matris.flows.campaign.events import Watch
    from matris.makers.batch import BatchMaker
    from matris.stores.documents.candidate import Candidate

_POLL_INTERVAL = 1.0  # seconds between looks at the queue


def compute_properties(
    sources: Iterable[str | Path],
    maker: BatchMaker,
    location: str | Path | None = None,
    devices: Sequence[str | None] | None = None,
    watch: Watch = lambda _: None,
) -> list[dict[str, Any]]:
    """
    Compute a property of all structures in some files.

    One job in this process computes all structures together; with several processes, each computes one material after
    the other on a CPU, or its share of the materials on a GPU. The results are in the documents of the candidates too:
    ``matris query --columns formula,elastic.bulk_modulus`` finds them. Journals next to the store keep finished
    structures: after an interruption, the same call resumes.

    Parameters
    ----------
    sources
        Files and folders, as for `matris.flows.sources.files.read_candidates`.
    maker
        Maker of the property, whose job returns ``documents``.
    location
        Store, as for `matris.stores.database.jobstore.open_job_store`.
    devices
        Devices, with one process each, as for `matris.flows.local.runner.run`. Default: the whole machine. If there is
        one device, or one material, or the store is in memory, this process computes, with all its threads.
    watch
        Function that is called with every event, see `matris.flows.local.runner.run`.

    Returns
    -------
    list of dict
        One document per structure, in order, with its ``source`` and all its arrays.

    Raises
    ------
    MatrisError
        If a source does not exist, the checkpoint cannot be loaded, the store cannot be opened, or the job of a
        material fails.

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
    fills_cores = devices is None
    names = default_devices(maker.device) if devices is None else list(devices)
    distinct = list({candidate.candidate_id: candidate for candidate in candidates}.values())
    if min(len(names), len(distinct)) > 1 and type(store.docs_store) is not MemoryStore:
        found = _by_processes(distinct, maker, location, names, watch, fills_cores=fills_cores and not on_gpu(names))
    else:
        found = _here(distinct, replace(maker, device=(names or [None])[0] or maker.device), location, store, watch)
    return [{"source": candidate.source, **found[candidate.candidate_id]} for candidate in candidates]


def _here(
    candidates: Sequence[Candidate], maker: BatchMaker, location: str | Path | None, store: JobStore, watch: Watch
) -> dict[str, Mapping[str, Any]]:
    """Compute in this process; returns documents by candidate id."""
    progress = {"stage": stage_of(maker), "n": len(candidates)}
    watch({"event": "stage", **progress})
    uuid = run_one_job(maker, candidates, location, store)
    watch({"event": "done", **progress})
    return _by_id(candidates, read_output(store, uuid)["documents"])


def _by_processes(
    candidates: Sequence[Candidate],
    maker: BatchMaker,
    location: str | Path | None,
    devices: Sequence[str | None],
    watch: Watch,
    *,
    fills_cores: bool,
) -> dict[str, Mapping[str, Any]]:
    """Compute in worker processes; returns documents by candidate id."""
    materials = hashlib.sha256("\n".join(candidate.candidate_id for candidate in candidates).encode()).hexdigest()
    work = PropertyQueue(location, maker, materials)
    work.queue.remove([item["work_id"] for item in work.queue.items(work.name) if item["state"] == DONE])
    size = math.ceil(len(candidates) / len(devices)) if on_gpu(devices) else 1
    chunks = {work.put(chunk): chunk for chunk in batched(candidates, size)}
    work.queue.revive(work.name)
    watch({"event": "stage", "stage": work.stage, "n": len(candidates)})
    with Workers(work, devices, watch, fills_cores) as workers:
        while work.queue.is_open(work.name):
            workers.attend(_POLL_INTERVAL)
    for item in work.queue.given_up(work.name):
        sources = ", ".join(candidate.source for candidate in chunks[item["work_id"]])
        raise MatrisError(
            f"the job for {sources} failed: {item['error']}. The others are computed; the same command tries this again"
        )
    found: dict[str, Mapping[str, Any]] = {}
    for work_id, chunk in chunks.items():
        found |= _by_id(chunk, read_output(work.job_store, work_id)["documents"])
    CandidateStore.beside(work.job_store).build(work.job_store, list(chunks))
    work.queue.remove(chunks)
    for work_id in chunks:
        drop_candidates(work.job_store, work_id)
    return found


def _by_id(candidates: Sequence[Candidate], documents: Iterable[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    return {candidate.candidate_id: document for candidate, document in zip(candidates, documents, strict=True)}
