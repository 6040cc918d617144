"""What the processes of a run need to know of its work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    from jobflow import JobStore

    from matris.flows.queue.queue import WorkQueue
    from matris.makers.batch import BatchMaker


class Computation(Protocol):
    """Work in chunks: a campaign, or a property of some materials."""

    @property
    def name(self) -> str:
        """Name of the work in the queue."""
        raise NotImplementedError

    @property
    def origin(self) -> tuple[str, ...]:
        """Hashes of the checkpoint, the settings and what else identifies results; they enter the ids of chunks."""
        raise NotImplementedError

    @property
    def job_store(self) -> JobStore:
        """Connected job store."""
        raise NotImplementedError

    @property
    def queue(self) -> WorkQueue:
        """Queue of the chunks."""
        raise NotImplementedError

    @property
    def maker(self) -> BatchMaker:
        """Maker of the jobs."""
        raise NotImplementedError

    def task(self) -> dict[str, Any]:
        """Describe the work to another process, as a JSON object."""
        raise NotImplementedError

    def stage_maker(self, stage: str, work_id: str, device: str | None) -> BatchMaker:
        """Make the Maker of a chunk's job on this machine."""
        raise NotImplementedError

    def journal(self, work_id: str) -> Path:
        """Return the folder for the journal of a chunk's job."""
        raise NotImplementedError
