"""What follows on the jobs of chunks, whoever ran them: documents, and what is said of chunks that were given up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matris.flows.campaign.chunks import drop_candidates, kept_candidates
from matris.flows.campaign.stages import RELAX
from matris.flows.campaign.survivors import UNFINISHED
from matris.stores.documents.candidate import Candidate
from matris.stores.documents.documents import document_id, make_dropped

if TYPE_CHECKING:
    from collections.abc import Collection

    from matris.flows.campaign.campaign import Campaign


def harvest(campaign: Campaign, only: Collection[str] | None = None) -> None:
    """
    Turn outputs into documents, and remove what their jobs needed.

    Parameters
    ----------
    campaign
        Open.
    only
        Jobs to look at; by default all.
    """
    campaign.store.build(campaign.job_store, only)
    for work_id in campaign.queue.swept(campaign.name):
        drop_candidates(campaign.job_store, work_id)
        campaign.drop_journal(work_id)


def record_given_up(campaign: Campaign) -> None:
    """Let the documents of candidates say that their chunk's job breaks; another run tries again."""
    for item in campaign.queue.given_up(campaign.name):
        stage, reason = item["stage"], f"the job of its chunk breaks: {item['error']}"
        if stage == RELAX:
            kept = [Candidate.model_validate(each) for each in kept_candidates(campaign.job_store, item["work_id"])]
            campaign.store.add_dropped(
                make_dropped(
                    each,
                    UNFINISHED,
                    reason,
                    checkpoint=campaign.checkpoint,
                    settings=campaign.settings,
                    state="failed",
                )
                for each in kept
            )
        else:
            ids = [document_id(each, *campaign.origin) for each in item["payload"]["candidate_ids"]]
            campaign.store.set_fields({each: {stage: {"state": "failed", "error": reason}} for each in ids})
