"""
The first results of a job or a run: if all of them failed for one reason, the candidates are not its cause.

Without this, a broken driver, checkpoint or setting turns every candidate of a campaign into a failed one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from matris.errors import MatrisError
from matris.stores.report.outcomes import kind

if TYPE_CHECKING:
    from collections.abc import Iterable

FAILED_ALIKE = 20
"""Number of first candidates that fail for one reason after which a job or a run stops."""


class FailedAlikeError(MatrisError):
    """The first candidates of a job all failed for one reason."""


def failed_alike(results: Iterable[tuple[str, str | None] | None], limit: int = FAILED_ALIKE) -> str | None:
    """
    Tell whether the first candidates all failed for one reason.

    Failures often finish first, as an exploding cell needs few steps. Therefore the first candidates in the order of
    the input count, not the first that finish; and one success among all that finished is enough to go on.

    Parameters
    ----------
    results
        State and error of each candidate, in the order of the input; None for one that is not finished. Rejected
        candidates, which no potential has seen, are skipped.
    limit
        Number of candidates that must have failed.

    Returns
    -------
    str or None
        Error of the last of the first candidates; None if they are not finished or differ.

    Examples
    --------
    >>> old = ("failed", "the driver is too old: 12")
    >>> failed_alike([old, old, None], limit=2)
    'the driver is too old: 12'
    >>> print(failed_alike([old, None, old], limit=2), failed_alike([old, old, ("converged", None)], limit=2))
    None None
    """
    kinds: set[str] = set()
    n, last, is_decided = 0, None, False
    for result in results:
        if result is None:
            if n < limit:
                return None
            continue
        state, error = result
        if state == "rejected":
            continue
        if state != "failed":
            return None
        kinds.add(kind(error or "no reason"))
        if len(kinds) > 1:
            return None
        n += 1
        if not is_decided:
            last, is_decided = error or "no reason", n == limit
    return last if is_decided else None


def stop_message(error: str, what: str, way_out: str) -> str:
    """
    Write why a job or a run was stopped.

    Parameters
    ----------
    error
        Error of the last candidate.
    what
        What was stopped.
    way_out
        How to compute all candidates nevertheless.
    """
    return (
        f"the first {FAILED_ALIKE} candidates all failed for the same reason, and the {what} was stopped; the last "
        f"one: {error}. Their results are not kept: run the same again when this is solved, or {way_out} to compute "
        "all candidates nevertheless"
    )
