"""Find a campaign in a store by its name."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from matris.errors import StoreError
from matris.stores.database.jobstore import DEFAULT_FOLDER, chosen_location, sibling_store

if TYPE_CHECKING:
    from pathlib import Path

    from jobflow import JobStore


def campaign_record(job_store: JobStore, name: str | None = None, location: str | Path | None = None) -> dict[str, Any]:
    """
    Read the record of a campaign.

    Parameters
    ----------
    job_store
        Connected job store, next to which the records of campaigns are stored.
    name
        Name of the campaign, or the first characters of its name, taken literally. An exact match comes first; of
        several campaigns whose names begin with these characters, the newest is read. Default: the newest campaign.
    location
        Location of the store, for the error message.

    Returns
    -------
    dict
        Record, as `matris.flows.campaign.campaign.Campaign.keep` writes it.

    Raises
    ------
    StoreError
        If the store holds no such campaign.
    """
    records = sibling_store(job_store, "campaigns", "campaign_id")
    prefix = {"campaign_id": {"$regex": f"^{re.escape(name)}"}} if name else {}
    newest = records.query(prefix, sort={"last_updated": -1}, limit=1)
    record: dict[str, Any] | None = records.query_one({"campaign_id": name}) if name else None
    record = record or next(iter(newest), None)
    if record is None:
        raise StoreError(
            f"{chosen_location(location) or DEFAULT_FOLDER} holds no campaign" + (f" {name}" if name else "")
        )
    return record
