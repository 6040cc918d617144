"""After relaxing: duplicates, hulls, the window, and the jobs of what survives."""

from __future__ import annotations

from itertools import batched
from typing import TYPE_CHECKING, Any

from matris.duplicates import ENERGY_TOLERANCE, group_equal
from matris.flows.campaign.chunks import chunk_id, keep_candidates
from matris.flows.campaign.stages import CHUNK_SIZES
from matris.flows.campaign.turns import turn
from matris.stores.documents.candidate import REFERENCE_SOURCES, Candidate

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from matris.flows.campaign.campaign import Campaign

DUPLICATE, WINDOW, UNFINISHED = "duplicates after relaxing", "hull window", "relaxation"
"""Stages at which a candidate is dropped that was computed."""

_READ = (
    "document_id",
    "candidate_id",
    "state",
    "stage",
    "source",
    "formula_pretty",
    "duplicate_of",
    "energy_per_atom",
    "energy_above_hull",
    "elastic.state",
    "phonon.state",
)
_WRITTEN = 1000  # documents in one write


def advance(campaign: Campaign) -> dict[str, int]:
    """
    Rank what is relaxed, say of every candidate at which stage it was dropped, and queue the next jobs.

    Everything is taken anew: a candidate that was outside the window may have come into it, and the other way round.

    Parameters
    ----------
    campaign
        Open, its chunks done.

    Returns
    -------
    dict
        Candidates queued, by stage; empty at the end of the campaign.
    """
    with turn(campaign, "ranking"):
        if campaign.funnel.hull:
            campaign.rank()
        representatives = _equal(campaign) if campaign.funnel.duplicates else {}
        _record_stages(campaign, representatives)
        return {stage: n for stage in campaign.funnel.properties if (n := _queue(campaign, stage))}


def _equal(campaign: Campaign) -> dict[str, str]:
    """Candidates that became equal to one of lower energy, and which."""
    by_formula: dict[str, list[tuple[str, str, float]]] = {}
    for document in campaign.documents(_READ):
        if document["state"] == "converged" and document.get("energy_per_atom") is not None:
            row = (document["document_id"], document["candidate_id"], document["energy_per_atom"])
            by_formula.setdefault(document["formula_pretty"], []).append(row)
    found: dict[str, str] = {}
    for rows in by_formula.values():
        for near in _of_like_energy(rows):
            items = [
                (candidate_id, structure, energy)
                for identity, candidate_id, energy in near
                if (structure := campaign.store.structure(identity)) is not None
            ]
            found |= {one: other for one, other in group_equal(items).items() if one != other}
    return found


def _of_like_energy(rows: Sequence[tuple[str, str, float]]) -> Iterator[list[tuple[str, str, float]]]:
    """Rows in groups with no gap in energy; those that stand alone need no comparing."""
    group: list[tuple[str, str, float]] = []
    for row in sorted(rows, key=lambda row: (row[2], row[1])):
        if group and row[2] - group[-1][2] > ENERGY_TOLERANCE:
            if len(group) > 1:
                yield group
            group = []
        group.append(row)
    if len(group) > 1:
        yield group


def _record_stages(campaign: Campaign, representatives: dict[str, str]) -> None:
    """Write the stage at which each candidate was dropped, where it is not what the document says."""
    changes: dict[str, dict[str, Any]] = {}
    for document in campaign.documents(_READ):
        if document["source"] in REFERENCE_SOURCES or document["state"] in {"rejected", "duplicate"}:
            continue
        wanted = {"stage": None, "duplicate_of": representatives.get(document["candidate_id"])}
        if document["state"] != "converged":
            wanted["stage"] = UNFINISHED
        elif wanted["duplicate_of"]:
            wanted["stage"] = DUPLICATE
        elif campaign.funnel.hull and not _within(document.get("energy_above_hull"), campaign.funnel.window):
            wanted["stage"] = WINDOW
        if any(document.get(name) != value for name, value in wanted.items()):
            changes[document["document_id"]] = wanted
        if len(changes) >= _WRITTEN:
            campaign.store.set_fields(changes)
            changes = {}
    campaign.store.set_fields(changes)


def _within(distance: float | None, window: float) -> bool:
    return distance is not None and distance <= window


def _queue(campaign: Campaign, stage: str) -> int:
    """Queue the survivors that lack a property; how many."""
    n = 0
    for chunk in batched(_survivors(campaign, stage), CHUNK_SIZES[stage]):
        work_id = chunk_id(stage, campaign.origin, chunk)
        keep_candidates(campaign.job_store, work_id, chunk)
        campaign.queue.put(
            [
                {
                    "work_id": work_id,
                    "campaign": campaign.name,
                    "stage": stage,
                    "cost": float(sum(len(candidate.structure or ()) for candidate in chunk)),
                    "n": len(chunk),
                    "payload": {"candidate_ids": [candidate.candidate_id for candidate in chunk]},
                }
            ]
        )
        n += len(chunk)
    return n


def _survivors(campaign: Campaign, stage: str) -> Iterator[Candidate]:
    """Relaxed candidates of which a property is to be computed, under their own ids."""
    for document in campaign.documents(_READ):
        survives = document["state"] == "converged" and document.get("stage") is None
        if not survives or document["source"] in REFERENCE_SOURCES or (document.get(stage) or {}).get("state"):
            continue
        structure = campaign.store.structure(document["document_id"])
        if structure is not None:
            yield Candidate(
                candidate_id=document["candidate_id"],
                structure=structure,
                source=document["source"],
                provenance={"document_id": document["document_id"]},
            )
