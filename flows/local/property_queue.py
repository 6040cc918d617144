"""Materials whose property several processes compute."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, fields, replace
from typing import TYPE_CHECKING, Any

from matris.flows.campaign.chunks import chunk_id, kept_candidates, queue_chunk
from matris.flows.queue.queue import WorkQueue
from matris.stores.database.jobstore import local_folder, open_job_store, sibling_store
from matris.stores.documents.candidate import Candidate

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matris.makers.batch import BatchMaker

_CIRCUMSTANCES = {"name", "checkpoint", "device", "journal_dir"}
"""Fields of a Maker on which its documents do not depend, or which are known otherwise."""


def stage_of(maker: BatchMaker) -> str:
    """
    Name the stage in which a Maker computes.

    Examples
    --------
    >>> from matris.makers import BatchPhononMaker
    >>> stage_of(BatchPhononMaker())
    'phonon'
    """
    return maker.name.removeprefix("batch ")


class PropertyQueue:
    """
    Chunks of materials in the queue of a store, a `matris.flows.campaign.computation.Computation`.

    Two calls with the same materials and settings share their chunks, so that a call continues an interrupted one.

    Parameters
    ----------
    location
        Store, as for `matris.stores.database.jobstore.open_job_store`.
    maker
        Maker of the property.
    materials
        Hash of the list of materials.
    """

    def __init__(self, location: str | Path | None, maker: BatchMaker, materials: str) -> None:
        self.location = location
        self.maker = maker
        self.job_store = open_job_store(location)
        self.queue = WorkQueue(sibling_store(self.job_store, "work_queue", "work_id"))
        settings = {key: value for key, value in asdict(maker).items() if key not in _CIRCUMSTANCES}
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
        self.origin = (maker.card().sha256, digest, materials)
        self.stage = stage_of(maker)
        content = "\n".join([self.stage, *self.origin])
        self.name = f"property-{hashlib.sha256(content.encode()).hexdigest()[:12]}"

    def put(self, chunk: Sequence[Candidate]) -> str:
        """Queue a chunk, and return its id, which is that of its job; the largest cells are computed first."""
        cost = float(max(len(candidate.structure or ()) for candidate in chunk))
        return queue_chunk(self, self.stage, chunk, cost)

    def task(self) -> dict[str, Any]:
        """Return what another process needs to open the queue."""
        location = None if self.location is None else str(self.location)
        return {"location": location, "maker": self.maker.as_dict(), "materials": self.origin[-1]}

    def stage_maker(self, stage: str, work_id: str, device: str | None) -> BatchMaker:  # noqa: ARG002 - there is one stage
        """Make the Maker of a chunk's job, with a journal in a folder of its own if it keeps one."""
        keeps = any(field.name == "journal_dir" for field in fields(self.maker))
        own: dict[str, Any] = {"journal_dir": str(self.journal(work_id))} if keeps else {}
        return replace(self.maker, device=device or self.maker.device, **own)

    def journal(self, work_id: str) -> Path:
        """Return the folder for the journal of a chunk's job; a call with further materials finds it too."""
        kept = [Candidate.model_validate(content) for content in kept_candidates(self.job_store, work_id)]
        return (local_folder(self.location) / "journal" / chunk_id(self.stage, self.origin[:2], kept)).absolute()
