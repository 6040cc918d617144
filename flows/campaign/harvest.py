"""Post-processing of chunk jobs: documents from their outputs, and failed documents for chunks that were given up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matris.flows.campaign.chunks import drop_candidates, kept_candidate_ids, kept_candidates
from matris.flows.campaign.stages import CHUNK_FAILED, RELAX
from matris.flows.campaign.survivors import UNFINISHED
from matris.flows.queue.queue import DONE
from matris.stores.documents.candidate import Candidate
from matris.stores.documents.documents import document_id, make_dropped

if TYPE_CHECKING:
    from collections.abc import Collection

    from matris.flows.campaign.campaign import Campaign


def harvest(campaign: Campaign, only: Collection[str] | None = None) -> None:
    """
    Build documents from the outputs of finished chunk jobs, and remove the jobs' inputs and journals.

    Parameters
    ----------
    campaign
        Open campaign.
    only
        Ids of the jobs to build from. Default: all jobs.
    """
    campaign.store.build(campaign.job_store, only)
    sweep(campaign)


def sweep(campaign: Campaign) -> None:
    """Remove the inputs and journals of finished chunk jobs."""
    for work_id in campaign.queue.swept(campaign.name):
        drop_candidates(campaign.job_store, work_id)
        campaign.drop_journal(work_id)


def record_given_up(campaign: Campaign) -> None:
    """Mark the candidates of chunks that were given up as failed, with the reason; another run tries them again."""
    for item in campaign.queue.given_up(campaign.name):
        stage, reason = item["stage"], f"{CHUNK_FAILED}: {item['error']}"
        if stage == RELAX:
            candidates = map(Candidate.model_validate, kept_candidates(campaign.job_store, item["work_id"]))
            campaign.store.add_dropped(
                make_dropped(
                    candidate,
                    UNFINISHED,
                    reason,
                    checkpoint=campaign.checkpoint,
                    settings=campaign.settings,
                    state="failed",
                )
                for candidate in candidates
            )
        else:
            kept = kept_candidate_ids(campaign.job_store, [item["work_id"]])
            ids = [document_id(candidate_id, *campaign.origin) for candidate_id in kept]
            campaign.store.set_fields({identity: {stage: {"state": "failed", "error": reason}} for identity in ids})


def forget_incomplete(campaign: Campaign) -> None:
    """Remove finished chunks from the queue whose outputs lack their arrays: the next intake queues them again."""
    incomplete = campaign.store.incomplete()
    if incomplete:
        done = [item for item in campaign.queue.items(campaign.name) if item["state"] == DONE]
        jobs = {item["work_id"]: (item.get("payload") or {}).get("job") for item in done}
        campaign.queue.remove(name for name, job in jobs.items() if incomplete.keys() & {name, job})
