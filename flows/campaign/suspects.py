"""Candidates that may kill their process: computed alone, each announced before, so that the culprit is known."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from matris.makers.batch import BatchMaker
    from matris.stores.documents.candidate import Candidate


def blamed(candidates: Iterable[Candidate], deaths: Mapping[str, int], most: int, cause: str) -> list[Candidate]:
    """
    Give candidates an error on which processes died that computed them alone.

    Parameters
    ----------
    candidates
        Of a chunk.
    deaths
        How many processes, by candidate id.
    most
        So many are enough.
    cause
        What is known of them.
    """
    return [
        candidate.model_copy(update={"error": f"the process that computed it alone died {n} times: {cause}"})
        if (n := deaths.get(candidate.candidate_id, 0)) >= most and candidate.error is None
        else candidate
        for candidate in candidates
    ]


def compute_alone(maker: BatchMaker, candidates: Sequence[Candidate], announce: Callable[[str], object]) -> None:
    """
    Compute candidates one by one; what survives is in the Maker's journal afterwards.

    Parameters
    ----------
    maker
        With a journal.
    candidates
        Of a chunk; those with an error are left out.
    announce
        Called with the id of a candidate before it is computed.
    """
    for candidate in candidates:
        if candidate.error is None and candidate.structure is not None:
            announce(candidate.candidate_id)
            maker.make.original(maker, [candidate])  # type: ignore[attr-defined] # the function beneath the job
