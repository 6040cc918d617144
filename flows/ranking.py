"""The job at the end of a screening: chunks in, ranking out."""

from __future__ import annotations

from typing import Any

from jobflow import job

from matris.stores.documents import ChunkDocument, unwind
from matris.stores.hull import hull_results
from matris.stores.ranking import Funnel, ranked
from matris.stores.references import load_references

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
def rank_candidates(chunks: list[ChunkDocument | None], references: str | None = None) -> dict[str, Any]:
    """
    Rank the candidates of chunk jobs by distance to the convex hull.

    Parameters
    ----------
    chunks
        Outputs of `matris.makers.BatchRelaxMaker`; None for a chunk that broke.
    references
        File of computed entries, readable where this job runs. By default the candidates are their own hull.

    Returns
    -------
    dict
        ``hull_type`` and ``hull_reference``; ``counts`` (read, sound, converged, promising, stable);
        ``missing_chunks``, how many broke; ``ranking``, a list of the `MAX_RANKED` best.

    Raises
    ------
    MatrisError
        If the references cannot be read or are on another energy scale, or chunks of several checkpoints are mixed.
    """
    there = [ChunkDocument.model_validate(chunk) for chunk in chunks if chunk is not None]
    documents = [document.model_dump() for chunk in there for document, _ in unwind(chunk)]
    loaded = (
        load_references(references, documents[0]["checkpoint"]["energy_scale"]) if references and documents else None
    )
    results = hull_results(documents, loaded)
    placed = [document | results[document["document_id"]].to_dict() for document in documents]
    counts = Funnel.of(placed)
    return {
        "hull_type": placed[0]["hull_type"] if placed else None,
        "hull_reference": placed[0]["hull_reference"] if placed else None,
        "counts": {
            "read": counts.read,
            "sound": counts.sound,
            "converged": counts.converged,
            "promising": counts.promising,
            "stable": counts.stable,
        },
        "missing_chunks": len(chunks) - len(there),
        "ranking": [{name: document[name] for name in _SHOWN} for document in ranked(placed)[:MAX_RANKED]],
    }
