"""Last jobs of a screening flow: the ranking, and the properties of the survivors."""

from __future__ import annotations

from typing import Any

from jobflow import Flow, Response, job

from matris.flows.campaign.stages import CHUNK_SIZES, stage_maker
from matris.makers.batch_relax import BatchRelaxMaker  # noqa: TC001 - jobflow reads the annotation
from matris.stores.documents.candidate import Candidate
from matris.stores.documents.documents import document_id
from matris.stores.hull.hull import hull_results
from matris.stores.hull.references import load_references
from matris.stores.report.outcomes import ranked

MAX_RANKED = 1000
"""Maximum number of candidates in the ranking of one flow; the store has the documents of all."""

_RANKING_FIELDS = (
    "document_id",
    "candidate_id",
    "source",
    "formula_pretty",
    "chemsys",
    "energy_per_atom",
    "formation_energy_per_atom",
    "energy_above_hull",
    "is_stable",
    "hull_state",
)


@job
def rank_candidates(
    records: list[list[dict[str, Any]] | None],
    checkpoints: list[dict[str, Any] | None],
    settings: list[dict[str, Any] | None],
    references: str | None = None,
    window: float = 0.1,
) -> dict[str, Any]:
    """
    Rank the candidates of chunk jobs by their distance to the convex hull.

    Parameters
    ----------
    records, checkpoints, settings
        These fields of the outputs of `matris.makers.BatchRelaxMaker`, one entry per chunk; None for a failed chunk.
    references
        File of computed entries, readable where this job runs. Default: the hull is made of the candidates.
    window
        Candidates up to this energy above the hull (eV/atom) survive.

    Returns
    -------
    dict
        ``hull_type`` and ``hull_reference``; ``counts``, the number of candidates by state; ``missing_chunks``, the
        number of failed chunks; ``ranking``, a list of the best `MAX_RANKED` candidates; ``survivors``, the candidate
        ids in the window.

    Raises
    ------
    MatrisError
        If the references cannot be read or are on another energy scale, or if the chunks mix checkpoints.
    """
    documents = [
        _document(_to_dict(record), _to_dict(checkpoint), _to_dict(tag))
        for chunk, checkpoint, tag in zip(records, checkpoints, settings, strict=True)
        if chunk is not None and checkpoint is not None and tag is not None
        for record in chunk
    ]
    scale = documents[0]["checkpoint"]["energy_scale"] if documents else ""
    hulls = hull_results(documents, load_references(references, scale) if references and documents else None)
    placed = [document | hulls[document["document_id"]].to_dict() for document in documents]
    ranking = ranked(placed)
    states = [document["state"] for document in placed]
    return {
        "hull_type": placed[0]["hull_type"] if placed else None,
        "hull_reference": placed[0]["hull_reference"] if placed else None,
        "counts": {state: states.count(state) for state in sorted(set(states))},
        "missing_chunks": sum(chunk is None for chunk in records),
        "ranking": [{name: document[name] for name in _RANKING_FIELDS} for document in ranking[:MAX_RANKED]],
        "survivors": [
            document["candidate_id"]
            for document in ranking
            if document["energy_above_hull"] is not None and document["energy_above_hull"] <= window
        ],
    }


@job
def add_properties(
    structures: list[dict[str, Any]] | None, survivors: list[str], relax_maker: BatchRelaxMaker, properties: list[str]
) -> Response:
    """
    Add property jobs for the survivors of one chunk to the flow.

    Parameters
    ----------
    structures
        Field ``structures`` of the chunk job's output; None for a failed chunk.
    survivors
        Candidate ids of the survivors of all chunks.
    relax_maker
        Maker of the chunk job. The property jobs use the same checkpoint and device.
    properties
        Properties to compute: ``"phonon"``, ``"elastic"``.

    Returns
    -------
    Response
        Number of survivors in this chunk as output, with the property jobs as an addition.
    """
    wanted = set(survivors)
    relaxed = [
        Candidate(candidate_id=entry["candidate_id"], structure=entry["structure"], source="survivor").model_dump()
        for entry in map(_to_dict, structures or [])
        if entry["candidate_id"] in wanted and entry["structure"] is not None
    ]
    jobs = [
        stage_maker(stage, relax_maker).make(relaxed[start : start + CHUNK_SIZES[stage]])
        for stage in properties
        for start in range(0, len(relaxed), CHUNK_SIZES[stage])
    ]
    return Response(output={"survivors": len(relaxed)}, addition=Flow(jobs) if jobs else None)


def _document(record: dict[str, Any], checkpoint: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """Make the part of a candidate document that the hull and the ranking need."""
    identity = document_id(record["candidate_id"], checkpoint["sha256"], settings["digest"])
    hull: dict[str, Any] = {"chemsys": None, "composition": {}, "energy_per_atom": None, "correction_scheme": None}
    hull |= record["hull"] or {}
    formula = {"formula_pretty": record["formula"]}
    return {**record, **hull, **formula, "document_id": identity, "checkpoint": checkpoint, "settings": settings}


def _to_dict(model: Any) -> dict[str, Any]:
    """Convert a pydantic model to a dictionary; return a dictionary unchanged."""
    return model if isinstance(model, dict) else model.model_dump()
