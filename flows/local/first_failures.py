"""First results of a run on one machine, over all its chunks, see `matris.makers.failing_alike`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from matris.flows.campaign.chunks import drop_candidates
from matris.flows.campaign.harvest import harvest
from matris.flows.campaign.stages import RELAX
from matris.flows.local.worker import Stopped
from matris.makers.failing_alike import FAILED_ALIKE, failed_alike, stop_message

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matris.flows.campaign.campaign import Campaign


class RunStopped(Stopped):
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
    matris.flows.local.first_failures.RunStopped: ...
    >>> first = FirstFailures(limit=2)
    >>> for state in ("failed", "converged", "failed", "failed"):
    ...     first.see({**failure, "state": state})
    """

    limit: int = FAILED_ALIKE
    chunks: list[str] = field(default_factory=list)
    _results: list[tuple[str, str | None]] = field(default_factory=list)
    _is_over: bool = False

    def see(self, event: Mapping[str, Any]) -> None:
        """
        Take note of an event, see `matris.flows.local.runner.run`.

        Raises
        ------
        RunStopped
            If this is the last of `limit` first candidates, which all failed for the same kind of reason.
        """
        if event["event"] == "took" and event["stage"] == RELAX:
            self.chunks.append(event["work_id"])
        if event["event"] != "candidate" or self._is_over or event["state"] == "rejected":
            return
        self._results.append((event["state"], event.get("error")))
        self._is_over = event["state"] != "failed" or len(self._results) >= self.limit
        if (error := failed_alike(self._results, self.limit)) is not None:
            raise RunStopped(stop_message(error, "run", "with --keep-going"))


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
