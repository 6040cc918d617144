"""Documents, job stores, hulls, queries and reports. The names below are imported on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matris.lazy import lazily

if not __name__.startswith("matris."):
    raise ImportError("import matris.stores, not stores: jobs made from the bare name cannot be loaded anywhere else")

if TYPE_CHECKING:
    from matris.stores.candidate_store import CandidateStore
    from matris.stores.database.jobstore import open_job_store
    from matris.stores.database.sqlite.store import SQLiteStore
    from matris.stores.documents.candidate import Candidate
    from matris.stores.hull.references import load_references

__all__ = ["Candidate", "CandidateStore", "SQLiteStore", "load_references", "open_job_store"]

__getattr__, __dir__ = lazily(
    __name__,
    {
        "Candidate": "documents.candidate",
        "CandidateStore": "candidate_store",
        "SQLiteStore": "database.sqlite.store",
        "load_references": "hull.references",
        "open_job_store": "database.jobstore",
    },
)
