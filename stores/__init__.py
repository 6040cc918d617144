"""Documents, job stores, candidates, hulls, queries and reports; the names below load on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matris.lazy import lazily

if TYPE_CHECKING:
    from matris.stores.candidate_store import CandidateStore
    from matris.stores.candidates import Candidate, read_candidates
    from matris.stores.jobstore import open_job_store
    from matris.stores.prototypes import elemental_references, generate_candidates
    from matris.stores.reference_phases import known_phases
    from matris.stores.references import load_references
    from matris.stores.sources.opening import open_source
    from matris.stores.sqlite import SQLiteStore

__all__ = [
    "Candidate",
    "CandidateStore",
    "SQLiteStore",
    "elemental_references",
    "generate_candidates",
    "known_phases",
    "load_references",
    "open_job_store",
    "open_source",
    "read_candidates",
]

__getattr__, __dir__ = lazily(
    __name__,
    {
        "Candidate": "candidates",
        "CandidateStore": "candidate_store",
        "SQLiteStore": "sqlite",
        "elemental_references": "prototypes",
        "generate_candidates": "prototypes",
        "known_phases": "reference_phases",
        "load_references": "references",
        "open_job_store": "jobstore",
        "open_source": "sources.opening",
        "read_candidates": "candidates",
    },
)
