"""
Candidates that were dropped as the same crystal as an earlier one, whose computation then failed.

A failure that lies in the crystal would be theirs too: they get its reason. After another failure, such as a killed
process or a supercell that does not fit into memory, one of them is computed in its place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from matris.flows.campaign.chunks import chunked, cost, queue_chunk
from matris.flows.campaign.poison import DIED_ALONE
from matris.flows.campaign.stages import CHUNK_FAILED, RELAX
from matris.stores.documents.candidate import Candidate
from matris.stores.documents.documents import ERROR_LENGTH
from matris.stores.report.outcomes import REPRESENTATIVE_FAILED, reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pymatgen.core import Structure

    from matris.flows.campaign.campaign import Campaign

EQUAL = "equal to candidate"
"""Start of the reason for which a candidate was dropped as the same crystal as another one."""

TWIN_OF = "twin_of"
"""Field of a candidate's provenance: the failed candidate in whose place it was computed."""

_PASSING = (CHUNK_FAILED, DIED_ALONE, "out of memory")
_FIELDS = (
    "document_id",
    "candidate_id",
    "source",
    "provenance.twin_of",
    "state",
    "error",
    "duplicate_of",
    "n_steps",
    "fmax",
)
_WRITE_SIZE = 1000  # documents in one write


def is_passing(error: str) -> bool:
    """
    Tell whether a failure may spare the same crystal in another cell, or at another time.

    Parameters
    ----------
    error
        Reason of the failure, as a document has it.

    Examples
    --------
    >>> is_passing("out of memory: 900 atoms are too many for cuda, even alone"), is_passing("the cell exploded")
    (True, False)
    """
    return error.startswith(_PASSING)


def settled(documents: Iterable[Mapping[str, Any]]) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """
    Decide what to do with candidates that were dropped as duplicates of another candidate.

    Parameters
    ----------
    documents
        Candidate documents of a campaign.

    Returns
    -------
    tuple
        New fields of duplicates by document id, where they change; and, for duplicates that are to be computed, the
        candidate in whose place they are by document id.

    Examples
    --------
    >>> failed = {"document_id": "1", "candidate_id": "a", "state": "failed", "error": "the cell exploded"}
    >>> twin = {"document_id": "2", "candidate_id": "b", "state": "duplicate", "duplicate_of": "a", "error": "..."}
    >>> settled([failed, twin])
    ({'2': {'duplicate_of': 'a', 'error': 'its representative failed: the cell exploded (candidate a)'}}, {})
    >>> settled([failed | {"error": "out of memory: 900 atoms"}, twin])[1]
    {'2': 'a'}
    """
    failed: dict[str, str] = {}
    heirs: dict[str, str] = {}
    twins: list[Mapping[str, Any]] = []
    for document in documents:
        if document["state"] == "duplicate":
            twins.append(document)
            continue
        if document["state"] != "converged":
            failed[document["candidate_id"]] = reason(document)
        if first := (document.get("provenance") or {}).get(TWIN_OF):
            heirs[first] = document["candidate_id"]
    changes: dict[str, dict[str, Any]] = {}
    to_compute: dict[str, str] = {}
    for twin in twins:
        first = twin["duplicate_of"]
        while first in heirs:
            first = heirs[first]
        if first not in failed:
            wanted = f"{EQUAL} {first}"
        elif is_passing(failed[first]):
            to_compute[twin["document_id"]] = first
            heirs[first] = twin["candidate_id"]
            continue
        else:
            about = f" (candidate {first})"
            wanted = f"{REPRESENTATIVE_FAILED}: {failed[first]}"[: ERROR_LENGTH - len(about)] + about
        if (twin["duplicate_of"], twin.get("error")) != (first, wanted):
            changes[twin["document_id"]] = {"duplicate_of": first, "error": wanted}
    return changes, to_compute


def settle_twins(campaign: Campaign) -> int:
    """
    Record the failures of representatives in the documents of their duplicates, and queue those that take their place.

    Parameters
    ----------
    campaign
        Open campaign whose chunks are done.

    Returns
    -------
    int
        Number of candidates that were queued.
    """
    changes, to_compute = settled(campaign.documents(_FIELDS))
    identities = list(changes)
    for start in range(0, len(identities), _WRITE_SIZE):
        campaign.store.set_fields({name: changes[name] for name in identities[start : start + _WRITE_SIZE]})
    n = 0
    candidates = (candidate for name, first in to_compute.items() if (candidate := _candidate(campaign, name, first)))
    for chunk in chunked(candidates, campaign.chunk_size, sharing=campaign.sharing):
        queue_chunk(campaign, RELAX, chunk, sum(map(cost, chunk)))
        n += len(chunk)
    return n if campaign.queue.is_open(campaign.name) else 0  # 0: they were computed, but their outputs are gone


def _candidate(campaign: Campaign, document_id: str, first: str) -> Candidate | None:
    """Make the candidate of a dropped document again; None if the store lacks its structure."""
    structure: Structure | None = campaign.store.structure(document_id, initial=True)
    if structure is None:
        return None
    (document,) = campaign.store.documents([document_id], ["candidate_id", "source", "provenance"])
    return Candidate(
        candidate_id=document["candidate_id"],
        structure=structure,
        source=document["source"],
        provenance=(document.get("provenance") or {}) | {TWIN_OF: first},
    )
