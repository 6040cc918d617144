"""
First results of a run: if all of them failed for one reason, the reason lies with the machine or the settings.

Without this, a broken driver or a wrong setting turns every candidate of a campaign into a failed one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from matris.flows.campaign.chunks import drop_candidates
from matris.flows.campaign.harvest import harvest
from matris.flows.campaign.stages import RELAX
from matris.flows.local.worker import Stopped
from matris.stores.report.outcomes import kind

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matris.flows.campaign.campaign import Campaign

FAILED_ALIKE = 20
"""Number of first candidates that fail for one reason after which a run stops."""


class FailedAlikeError(Stopped):
    """The first candidates of a run all failed for one reason."""


@dataclass
class FirstFailures:
    """
    Watch the first results of a run.

    Attributes
    ----------
    limit
        Number of failures for one reason after which `see` raises; no result may come before.
    chunks
        Ids of the chunks that were taken.

    Examples
    --------
    >>> first = FirstFailures(limit=2)
    >>> failure = {"event": "candidate", "state": "failed", "error": "no driver: 12"}
    >>> first.see(failure)
    >>> first.see(failure)
    Traceback (most recent call last):
    ...
    matris.flows.local.first_failures.FailedAlikeError: ...
    >>> first = FirstFailures(limit=2)
    >>> for state in ("failed", "converged", "failed", "failed"):
    ...     first.see({**failure, "state": state})
    """

    limit: int = FAILED_ALIKE
    chunks: list[str] = field(default_factory=list)
    _kind: str | None = None
    _n: int = 0
    _differ: bool = False

    def see(self, event: Mapping[str, Any]) -> None:
        """
        Take note of an event, see `matris.flows.local.runner.run`.

        Raises
        ------
        FailedAlikeError
            If this is the last of `limit` first candidates, which all failed for the same kind of reason.
        """
        if event["event"] == "took" and event["stage"] == RELAX:
            self.chunks.append(event["work_id"])
        if event["event"] != "candidate" or self._differ:
            return
        error = event.get("error") or "no reason"
        this_kind = kind(error)
        if event["state"] != "failed" or self._kind not in {None, this_kind}:
            self._differ = True
            return
        self._kind = this_kind
        self._n += 1
        if self._n == self.limit:
            raise FailedAlikeError(
                f"the first {self.limit} candidates all failed for the same reason, and the run was stopped; the last "
                f"one: {error}. Their results are not kept: run the same command again when this is solved, or with "
                "--keep-going to compute all candidates nevertheless"
            )


def forget_chunks(campaign: Campaign, work_ids: Sequence[str]) -> None:
    """
    Take back the results of chunks, so that another run computes them again.

    Parameters
    ----------
    campaign
        Open campaign; no process works on these chunks.
    work_ids
        Ids of chunks, done or not.
    """
    harvest(campaign, work_ids)
    computed = campaign.store.docs.query({"job_uuid": {"$in": list(work_ids)}}, properties=["document_id"])
    campaign.store.set_fields({document["document_id"]: {"job_uuid": None} for document in list(computed)})
    campaign.queue.remove(work_ids)
    for work_id in work_ids:
        campaign.drop_journal(work_id)
        drop_candidates(campaign.job_store, work_id)
