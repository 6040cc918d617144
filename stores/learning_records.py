"""Loops of campaigns that learn, in the database of the candidates."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matris.stores.database.jobstore import sibling_store
from matris.stores.documents.documents import utc_now
from matris.stores.documents.learning import LoopRecord

if TYPE_CHECKING:
    from jobflow import JobStore

COLLECTION = "learning"
"""Collection of the loops."""


class LearningRecords:
    """
    Loops in the database of a job store.

    Parameters
    ----------
    job_store
        Connected job store.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from matris.stores import open_job_store
    >>> with TemporaryDirectory() as folder:
    ...     records = LearningRecords(open_job_store(folder))
    ...     records.keep(LoopRecord(loop_id="a1", title="Oxides"))
    ...     records.of_campaign("a1").title, records.of_campaign("b2")
    ('Oxides', None)
    """

    def __init__(self, job_store: JobStore) -> None:
        self._store = sibling_store(job_store, COLLECTION, "loop_id")

    def keep(self, record: LoopRecord) -> None:
        """Store a loop as a whole, in one write."""
        self._store.update([record.model_copy(update={"last_updated": utc_now()}).model_dump()], key="loop_id")

    def of_campaign(self, name: str) -> LoopRecord | None:
        """Read the loop that a campaign belongs to, as its first one or a later round; None if it belongs to none."""
        document = self._store.query_one({"loop_id": name}) or self._store.query_one({"campaigns": name})
        return None if document is None else LoopRecord.model_validate(document)
