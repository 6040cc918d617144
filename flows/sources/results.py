"""Relaxed crystals of a results store as new candidates."""

from __future__ import annotations

from dataclasses import replace
from itertools import batched
from typing import TYPE_CHECKING

from matris.stores.documents.candidate import Candidate
from matris.stores.query.conditions import Among
from matris.stores.report.outcomes import origin

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matris.stores.query.query import CandidateQuery

RESULTS_SOURCE = "results"

_BATCH = 1000  # ids in one query


def relaxed_candidates(query: CandidateQuery) -> Iterator[Candidate]:
    """
    Yield the relaxed crystals that match a query.

    The ids of the documents are read first, so documents that a campaign adds to the store meanwhile are left out.

    Parameters
    ----------
    query
        Query of a `matris.stores.CandidateStore`. Documents without a relaxed crystal are left out.

    Yields
    ------
    Candidate
        With a source that names parent and checkpoint, and provenance ``generator`` (``"results"``), ``document_id``,
        ``checkpoint`` (key and hash), ``state`` and ``parent`` (the candidate that was relaxed); in the order of the
        query, or by document id.
    """
    listed = list(query.ids())
    if not query.order:
        listed.sort()
    for ids in batched(listed, _BATCH):
        chosen = replace(query, condition=Among("document_id", ids), order=(), offset=0, max_size=None)
        by_id = {document["document_id"]: (document, structure) for document, structure in chosen.structures()}
        for document, structure in (by_id[identity] for identity in ids if identity in by_id):
            checkpoint = document["checkpoint"]
            parent = {"candidate_id": document["candidate_id"], "source": document["source"]}
            yield Candidate.from_structure(
                structure,
                f"{origin(document)}, relaxed by {checkpoint['key']}",
                generator=RESULTS_SOURCE,
                document_id=document["document_id"],
                checkpoint={"key": checkpoint["key"], "sha256": checkpoint["sha256"]},
                state=document["state"],
                parent=parent | (document.get("provenance") or {}),
            )
