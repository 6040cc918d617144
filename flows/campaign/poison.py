"""
Poison candidates: candidates that kill the process that computes them.

When processes died on a chunk, its candidates are computed one by one. Each is announced before it is computed, so that
a further death points at one candidate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from matris.makers.batch import BatchMaker
    from matris.stores.documents.candidate import Candidate

CHUNK_DEATHS = 2
"""Deaths of processes on a chunk after which its candidates are computed one by one."""

LOCAL_DEATHS = 3
"""Deaths of processes on a candidate that is computed alone after which it is recorded as failed, on one machine."""

CLUSTER_DEATHS = 2
"""
The same on a cluster, where a death costs more.

A lost job waits in the scheduler's queue again, and counts towards the few jobs that a chunk may lose
(`matris.flows.cluster.supervisor.LOSSES`). On one machine a restart takes seconds and chunks may lose any number of
processes, so that one more death is cheap and clears candidates that were killed by accident, such as by the
out-of-memory killer on behalf of another program.
"""


DIED_ALONE = "the process that computed it alone died"
"""First words of the error of candidates that killed too many processes."""


def mark_poison(candidates: Iterable[Candidate], deaths: Mapping[str, int], limit: int, cause: str) -> list[Candidate]:
    """
    Give an error to candidates that killed too many processes.

    Parameters
    ----------
    candidates
        Candidates of a chunk.
    deaths
        Number of processes that died while they computed a candidate alone, by candidate id.
    limit
        Number of deaths from which a candidate gets the error.
    cause
        Cause of death, for the error.

    Returns
    -------
    list of Candidate
        All candidates, in the order given.
    """
    return [
        candidate.model_copy(update={"error": f"{DIED_ALONE} {n} times: {cause}"})
        if (n := deaths.get(candidate.candidate_id, 0)) >= limit and candidate.error is None
        else candidate
        for candidate in candidates
    ]


def compute_one_by_one(maker: BatchMaker, candidates: Sequence[Candidate], announce: Callable[[str], object]) -> None:
    """
    Compute candidates one by one; the Maker's journal keeps the results.

    Parameters
    ----------
    maker
        Maker with a journal.
    candidates
        Candidates of a chunk; those with an error are skipped.
    announce
        Function that is called with the id of each candidate before it is computed.
    """
    for candidate in candidates:
        if candidate.error is None and candidate.structure is not None:
            announce(candidate.candidate_id)
            maker.make.original(maker, [candidate])  # type: ignore[attr-defined] # the function beneath the job
