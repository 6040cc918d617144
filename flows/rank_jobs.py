"""Last jobs of a screening flow: the ranking, and the properties of the survivors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jobflow import Flow, Response, job

from matris.files.stored_objects import decode_structure
from matris.flows.campaign.stages import CHUNK_FAILED, CHUNK_SIZES, stage_maker
from matris.flows.campaign.survivors import equal_results, replaced_references
from matris.makers.batch_relax import BatchRelaxMaker  # noqa: TC001 - jobflow reads the annotation
from matris.stores.documents.candidate import REFERENCE_SOURCES, Candidate
from matris.stores.documents.documents import document_id, pressure_of
from matris.stores.hull.hull import hull_results
from matris.stores.hull.references import References, load_references
from matris.stores.report.outcomes import ranked, reason

if TYPE_CHECKING:
    from pymatgen.core import Structure

MAX_RANKED = 1000
"""Maximum number of candidates in the ranking of one flow; the store has the documents of all."""

_RANKING_FIELDS = (
    "document_id",
    "candidate_id",
    "source",
    "formula_pretty",
    "chemsys",
    "energy_per_atom",
    "enthalpy_per_atom",
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
    structures: list[list[dict[str, Any]] | None] | None = None,
    dropped: dict[str, str] | None = None,
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
    structures
        The field ``structures`` of the same outputs, to find candidates that relaxed to the same crystal. Default: all
        candidates are ranked.
    dropped
        Candidate ids that were not computed, with the id of the same crystal that was.

    Returns
    -------
    dict
        ``hull_type`` and ``hull_reference``; ``counts``, the number of candidates by state, where duplicates have the
        state ``duplicate`` and references do not count; ``duplicates``, the candidate id of lowest energy by that of
        each duplicate; ``failed_duplicates``, for each dropped candidate whose representative failed, the reason;
        ``missing_chunks``, the number of failed chunks; ``ranking``, a list of the best `MAX_RANKED` candidates;
        ``survivors``, the candidate ids in the window.

    Raises
    ------
    MatrisError
        If the references cannot be read or are on another energy scale, or if the chunks mix checkpoints.
    """
    placed, duplicates = placed_candidates(records, checkpoints, settings, references, structures)
    ranking = ranked(placed)
    states = ["duplicate" if d["duplicate_of"] else d["state"] for d in placed if d["source"] not in REFERENCE_SOURCES]
    states += ["duplicate"] * len(dropped or {})
    failed = {d["candidate_id"]: reason(d) for d in placed if d["state"] != "converged"}
    computed = {d["candidate_id"] for d in placed}
    failed |= {first: CHUNK_FAILED for first in (dropped or {}).values() if first not in computed}
    return {
        "hull_type": placed[0]["hull_type"] if placed else None,
        "hull_reference": placed[0]["hull_reference"] if placed else None,
        "counts": {state: states.count(state) for state in sorted(set(states))},
        "duplicates": {**(dropped or {}), **duplicates},
        "failed_duplicates": {name: failed[first] for name, first in (dropped or {}).items() if first in failed},
        "missing_chunks": sum(chunk is None for chunk in records),
        "ranking": [{name: document[name] for name in _RANKING_FIELDS} for document in ranking[:MAX_RANKED]],
        "survivors": [
            document["candidate_id"]
            for document in ranking
            if document["energy_above_hull"] is not None and document["energy_above_hull"] <= window
        ],
    }


def placed_candidates(
    records: list[list[dict[str, Any]] | None],
    checkpoints: list[dict[str, Any] | None],
    settings: list[dict[str, Any] | None],
    references: str | None = None,
    structures: list[list[dict[str, Any]] | None] | None = None,
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """
    Place the candidates of chunk jobs on their hull, and find those that relaxed to the same crystal.

    Parameters
    ----------
    records, checkpoints, settings, references, structures
        As for `rank_candidates`.

    Returns
    -------
    tuple
        The parts of candidate documents that hull and ranking need, with their places; and the candidate id of lowest
        energy by that of each duplicate.
    """
    documents = [
        _document(_to_dict(record), _to_dict(checkpoint), _to_dict(tag))
        for chunk, checkpoint, tag in zip(records, checkpoints, settings, strict=True)
        if chunk is not None and checkpoint is not None and tag is not None
        for record in chunk
    ]
    structure_of = _relaxed(structures or [], documents).get
    replaced = replaced_references(documents, structure_of)
    documents = [document | {"duplicate_of": replaced.get(document["document_id"])} for document in documents]
    hulls = hull_results(documents, _references(references, documents[0]) if references and documents else None)
    placed = [document | hulls[document["document_id"]].to_dict() for document in documents]
    duplicates = equal_results(placed, structure_of)
    placed = [
        document | {"duplicate_of": replaced.get(document["document_id"], duplicates.get(document["candidate_id"]))}
        for document in placed
    ]
    return placed, duplicates


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
        Properties to compute: ``"phonon"``, ``"elastic"``, ``"kappa"``.

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


def _references(path: str, document: dict[str, Any]) -> References:
    """Read the references with which a document can be compared."""
    scale, pressure = document["checkpoint"]["energy_scale"], pressure_of(document["settings"])
    return load_references(path, scale, pressure=pressure)


def _relaxed(
    structures: list[list[dict[str, Any]] | None], documents: list[dict[str, Any]]
) -> dict[str, Structure | None]:
    """Collect the relaxed structures by document id."""
    by_candidate = {
        entry["candidate_id"]: entry["structure"] for chunk in structures for entry in map(_to_dict, chunk or [])
    }
    relaxed = {document["document_id"]: by_candidate.get(document["candidate_id"]) for document in documents}
    return {
        identity: decode_structure(content) if isinstance(content, dict) else content
        for identity, content in relaxed.items()
    }


def _document(record: dict[str, Any], checkpoint: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """Make the part of a candidate document that the hull and the ranking need."""
    identity = document_id(record["candidate_id"], checkpoint["sha256"], settings["digest"])
    hull: dict[str, Any] = {"chemsys": None, "composition": {}, "energy_per_atom": None, "correction_scheme": None}
    hull |= {"enthalpy_per_atom": None}
    hull |= record["hull"] or {}
    formula = {"formula_pretty": record["formula"]}
    return {**record, **hull, **formula, "document_id": identity, "checkpoint": checkpoint, "settings": settings}


def _to_dict(model: Any) -> dict[str, Any]:
    """Convert a pydantic model to a dictionary; return a dictionary unchanged."""
    return model if isinstance(model, dict) else model.model_dump()
