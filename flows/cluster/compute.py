"""The job of a chunk on a worker, which sees neither the database nor other jobs."""

from __future__ import annotations

import errno
import json
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobflow import Job, Response

from matris.errors import MatrisError
from matris.flows.campaign.poison import CLUSTER_DEATHS, compute_one_by_one, mark_poison
from matris.flows.cluster.walltime import Ending, ended_in_time
from matris.makers.batch import as_candidate
from matris.relaxation.journal import JournalInUseError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jobflow import OutputReference

    from matris.makers.batch import BatchMaker
    from matris.stores.documents.candidate import Candidate

TRIES = 3
"""So often in a row a job may end before its scheduler ends it without a single new record."""

_POISON_FILE = "poison.json"
_FULL = {errno.ENOSPC, errno.EDQUOT}
_ENDING = 60.0  # seconds in which the job before lets go of its journal


def cluster_job(maker: BatchMaker, candidates: OutputReference | Sequence[Any], **how: Any) -> Job:
    """
    Make the job of a chunk for a worker.

    Parameters
    ----------
    maker
        What is done; with a journal's folder that jobs after this one will see.
    candidates
        Of the chunk, or where they will be found.
    how
        Further arguments of `compute_chunk`.
    """
    plain = maker.make(candidates)
    stores = plain._kwargs  # noqa: SLF001 - which of its output belongs in which store; jobflow shows it nowhere else
    return Job(compute_chunk, function_args=(maker, candidates), function_kwargs=how, name=plain.name, **stores)


def compute_chunk(
    maker: BatchMaker,
    candidates: Sequence[Any],
    walltime: float | None = None,
    careful: bool = False,
    tries: int = 0,
    finished: int = 0,
) -> Any:
    """
    Do what the Maker does, and end in order before the scheduler ends the job; another job then goes on.

    Parameters
    ----------
    maker
        Of the chunk.
    candidates
        Of the chunk.
    walltime
        Seconds that the job has, if its scheduler does not tell.
    careful
        Whether jobs died of this chunk: candidates are then computed one by one, to find the culprit.
    tries
        How many jobs in a row ended early without a new record.
    finished
        Records in the journal when the job before ended.

    Returns
    -------
    object
        Output of the Maker's job; or ``unfinished``, replaced by the job that goes on.

    Raises
    ------
    MatrisError
        If the device is not to be had, the disk is full, or jobs end early again and again without a new record.
    """
    folder = Path(getattr(maker, "journal_dir", None) or ".")
    try:
        with ended_in_time(walltime):
            return _computed(maker, _careful(maker, candidates, folder / _POISON_FILE) if careful else candidates)
    except Ending as ending:
        n = n_records(folder)
        told = f"{ending}; {n} records of {len(candidates)} candidates are in {folder}"
        tries = 0 if n > finished else tries + 1
        if tries >= TRIES:
            raise MatrisError(
                f"{told}, none of them from the last {TRIES} jobs: give jobs more time, or take smaller chunks"
            ) from None
        how = {"walltime": walltime, "careful": careful, "tries": tries, "finished": n}
        return Response(output={"unfinished": told}, replace=cluster_job(maker, candidates, **how))
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise MatrisError(
            f"no space left for {folder} on {socket.gethostname()}; what is finished is kept there: free some space, "
            "then matris resume"
        ) from error


def n_records(folder: Path) -> int:
    """Count the records in the journals of a folder, each without its header."""
    n = 0
    for path in folder.glob("*"):
        if path.is_file():
            with path.open("rb") as lines:
                n += max(sum(1 for _ in lines) - 1, 0)
    return n


def _computed(maker: BatchMaker, candidates: Sequence[Any]) -> Any:
    """Compute; a job that was just ended may still hold the journal."""
    start = time.monotonic()
    while True:
        try:
            return maker.make.original(maker, candidates)  # type: ignore[attr-defined] # the function beneath the job
        except JournalInUseError:
            if time.monotonic() - start > _ENDING:
                raise
            time.sleep(1.0)


def _careful(maker: BatchMaker, candidates: Sequence[Any], file: Path) -> list[Candidate]:
    """Compute candidates alone, and give them back, with an error where jobs died of it; a file says of which."""
    deaths: dict[str, int] = {}
    suspect = None
    if file.exists():
        deaths, suspect = json.loads(file.read_text(encoding="utf-8"))
    if suspect is not None:
        deaths[suspect] = deaths.get(suspect, 0) + 1

    def announce(name: str | None) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        new = file.with_name(f"{file.name}.new")
        new.write_text(json.dumps([deaths, name]), encoding="utf-8")
        new.replace(file)

    chunk = mark_poison(map(as_candidate, candidates), deaths, CLUSTER_DEATHS, "killed")
    try:
        compute_one_by_one(maker, chunk, announce)
    finally:  # a job that is killed does not come here
        announce(None)
    return chunk
