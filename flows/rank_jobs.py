"""The jobs at the end of a screening flow: a ranking, and what is to be computed of the survivors."""

from __future__ import annotations

from typing import Any

from jobflow import Flow, Response, job

from matris.flows.campaign.stages import CHUNK_SIZES, stage_maker
from matris.makers.batch_relax import BatchRelaxMaker  # noqa: TC001 - jobflow reads it
from matris.stores.documents.candidate import Candidate
from matris.stores.documents.documents import document_id
from matris.stores.hull.hull import hull_results
from matris.stores.hull.references import load_references
from matris.stores.report.outcomes import ranked

MAX_RANKED = 1000
"""Candidates in the ranking of one flow; the documents of all are in the store."""

_SHOWN = (
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
    Rank the candidates of chunk jobs by distance to the convex hull.

    Parameters
    ----------
    records, checkpoints, settings
        Of the outputs of `matris.makers.BatchRelaxMaker`, without the structures; None for a chunk that broke.
    references
        File of computed entries, readable where this job runs. By default the candidates are their own hull.
    window
        Distance (eV/atom) up to which a candidate survives.

    Returns
    -------
    dict
        ``hull_type`` and ``hull_reference``; ``counts`` by state; ``missing_chunks``, how many broke; ``ranking``, a
        list of the `MAX_RANKED` best; ``survivors``, candidate ids of all in the window.

    Raises
    ------
    MatrisError
        If the references cannot be read or are on another energy scale, or chunks of several checkpoints are mixed.
    """
    documents = [
        _document(_plain(record), _plain(checkpoint), _plain(tag))
        for chunk, checkpoint, tag in zip(records, checkpoints, settings, strict=True)
        if chunk is not None and checkpoint is not None and tag is not None
        for record in chunk
    ]
    scale = documents[0]["checkpoint"]["energy_scale"] if documents else ""
    results = hull_results(documents, load_references(references, scale) if references and documents else None)
    placed = [document | results[document["document_id"]].to_dict() for document in documents]
    ranking = ranked(placed)
    states = [document["state"] for document in placed]
    return {
        "hull_type": placed[0]["hull_type"] if placed else None,
        "hull_reference": placed[0]["hull_reference"] if placed else None,
        "counts": {state: states.count(state) for state in sorted(set(states))},
        "missing_chunks": sum(chunk is None for chunk in records),
        "ranking": [{name: document[name] for name in _SHOWN} for document in ranking[:MAX_RANKED]],
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
    Add the jobs of the survivors of one chunk to the flow.

    Parameters
    ----------
    structures
        Of the output of the chunk job; None if it broke.
    survivors
        Candidate ids.
    relax_maker
        Of the chunk job; properties take its checkpoint and device.
    properties
        ``"phonon"``, ``"elastic"``.

    Returns
    -------
    Response
        Its output counts the survivors of this chunk.
    """
    wanted = set(survivors)
    relaxed = [
        Candidate(candidate_id=each["candidate_id"], structure=each["structure"], source="survivor").model_dump()
        for each in map(_plain, structures or [])
        if each["candidate_id"] in wanted and each["structure"] is not None
    ]
    jobs = [
        stage_maker(stage, relax_maker).make(relaxed[start : start + CHUNK_SIZES[stage]])
        for stage in properties
        for start in range(0, len(relaxed), CHUNK_SIZES[stage])
    ]
    return Response(output={"survivors": len(relaxed)}, addition=Flow(jobs) if jobs else None)


def _document(record: dict[str, Any], checkpoint: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """Take from a record what the hull and the ranking need."""
    identity = document_id(record["candidate_id"], checkpoint["sha256"], settings["digest"])
    hull: dict[str, Any] = {"chemsys": None, "composition": {}, "energy_per_atom": None, "correction_scheme": None}
    hull |= record["hull"] or {}
    formula = {"formula_pretty": record["formula"]}
    return {**record, **hull, **formula, "document_id": identity, "checkpoint": checkpoint, "settings": settings}


def _plain(model: Any) -> dict[str, Any]:
    """Fields of a model, or the dictionary that it already is."""
    return model if isinstance(model, dict) else model.model_dump()
