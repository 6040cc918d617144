"""The job of a chunk on a worker, without access to the database or to other jobs."""

from __future__ import annotations

import errno
import json
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobflow import Job, Response

from matris.errors import MatrisError
from matris.files.whole_file import whole_file
from matris.flows.campaign.poison import CLUSTER_DEATHS, compute_one_by_one, mark_poison
from matris.flows.cluster.walltime import Ending, ended_in_time
from matris.flows.queue.retry import with_retries
from matris.makers.batch import as_candidate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jobflow import OutputReference

    from matris.makers.batch import BatchMaker
    from matris.stores.documents.candidate import Candidate

MAX_TRIES = 3
"""Number of jobs in a row that may reach their time limit without a single new record."""

_POISON_FILE = "poison.json"
_FULL = {errno.ENOSPC, errno.EDQUOT}


def cluster_job(maker: BatchMaker, candidates: OutputReference | Sequence[Any], **options: Any) -> Job:
    """
    Make the job of a chunk for a worker.

    Parameters
    ----------
    maker
        Maker of the stage, with a folder for its journal that later jobs can access.
    candidates
        Candidates of the chunk, or a reference to them.
    options
        Further arguments of `compute_chunk`.
    """
    job = maker.make(candidates)
    stores = job._kwargs  # noqa: SLF001 - which output goes to which store; jobflow has no public access
    return Job(compute_chunk, function_args=(maker, candidates), function_kwargs=options, name=job.name, **stores)


def compute_chunk(
    maker: BatchMaker,
    candidates: Sequence[Any],
    walltime: float | None = None,
    careful: bool = False,
    tries: int = 0,
    finished: int = 0,
) -> Any:
    """
    Compute a chunk, and stop before the time limit of the scheduler; another job then continues from the journal.

    Parameters
    ----------
    maker
        Maker of the stage.
    candidates
        Candidates of the chunk.
    walltime
        Time limit of the job (seconds), for schedulers that do not report it.
    careful
        Whether to compute candidates one by one, after jobs died on the chunk.
    tries
        Number of previous jobs in a row that reached their time limit without a new record.
    finished
        Number of records in the journal at the end of the previous job.

    Returns
    -------
    object
        Output of the Maker's job; or ``unfinished``, with the job that continues as a replacement.

    Raises
    ------
    MatrisError
        If the device is not available, the disk is full, or `MAX_TRIES` jobs reached their time limit without a new
        record.
    """
    folder = Path(getattr(maker, "journal_dir", None) or ".")
    try:
        with ended_in_time(walltime):
            return _computed(maker, _careful(maker, candidates, folder / _POISON_FILE) if careful else candidates)
    except Ending as ending:
        n = n_records(folder)
        progress = f"{ending}; {n} records of {len(candidates)} candidates are in {folder}"
        tries = 0 if n > finished else tries + 1
        if tries >= MAX_TRIES:
            raise MatrisError(
                f"{progress}, none of them from the last {MAX_TRIES} jobs: give jobs more time, or take smaller chunks"
            ) from None
        options = {"walltime": walltime, "careful": careful, "tries": tries, "finished": n}
        return Response(output={"unfinished": progress}, replace=cluster_job(maker, candidates, **options))
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise MatrisError(
            f"no space left for {folder} on {socket.gethostname()}; finished results are kept there: free some space, "
            "then matris resume"
        ) from error


def n_records(folder: Path) -> int:
    """Count the records in the journals of a folder, without the header lines."""
    n = 0
    for path in folder.glob("*"):
        if path.is_file():
            with path.open("rb") as lines:
                n += max(sum(1 for _ in lines) - 1, 0)
    return n


def _computed(maker: BatchMaker, candidates: Sequence[Any]) -> Any:
    """Compute a chunk; wait for a previous job that still holds the journal."""
    return with_retries(lambda: maker.make.original(maker, candidates))  # type: ignore[attr-defined] # beneath the job


def _careful(maker: BatchMaker, candidates: Sequence[Any], file: Path) -> list[Candidate]:
    """
    Compute candidates one by one, and return them, with an error for those on which too many jobs died.

    The file holds the number of deaths by candidate id, and the candidate that is being computed.
    """
    deaths: dict[str, int] = {}
    suspect = None
    if file.exists():
        deaths, suspect = json.loads(file.read_text(encoding="utf-8"))
    if suspect is not None:
        deaths[suspect] = deaths.get(suspect, 0) + 1

    def announce(name: str | None) -> None:
        with whole_file(file) as draft:
            draft.write_text(json.dumps([deaths, name]), encoding="utf-8")

    chunk = mark_poison(map(as_candidate, candidates), deaths, CLUSTER_DEATHS, "killed")
    try:
        compute_one_by_one(maker, chunk, announce)
    finally:  # a killed job does not get here
        announce(None)
    return chunk
