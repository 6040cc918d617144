"""After relaxation: hulls, duplicates, the window, and the property jobs of the survivors."""

from __future__ import annotations

import hashlib
import json
import uuid
from itertools import batched, islice
from typing import TYPE_CHECKING, Any

from matris.duplicates import ENERGY_TOLERANCE, group_equal
from matris.flows.campaign.chunks import queue_chunk
from matris.flows.campaign.stages import CHUNK_SIZES, RELAX
from matris.flows.campaign.turns import turn
from matris.flows.campaign.twins import settle_twins
from matris.stores.documents.candidate import REFERENCE_SOURCES, Candidate
from matris.stores.documents.documents import competing_energy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from pymatgen.core import Structure

    from matris.flows.campaign.campaign import Campaign

DUPLICATE, WINDOW, UNFINISHED = "duplicates after relaxing", "hull window", "relaxation"
"""Stages at which a computed candidate is dropped."""

_FIELDS = (
    "document_id",
    "candidate_id",
    "state",
    "stage",
    "source",
    "formula_pretty",
    "duplicate_of",
    "energy_per_atom",
    "enthalpy_per_atom",
    "energy_above_hull",
    "elastic.state",
    "phonon.state",
)
_WRITE_SIZE = 1000  # documents in one write

type _Row = tuple[str, str, float]  # document id, candidate id, energy per atom (eV)

_CONVERGENCE = 1e-3  # eV/atom: difference of two relaxations of one crystal that says nothing


def advance(campaign: Campaign, inputs: str | None = None, before: Mapping[str, str] | None = None) -> dict[str, int]:
    """
    Rank the relaxed candidates, record the stage at which each one was dropped, and queue the property jobs.

    All stages are determined anew: a candidate that was outside the window may be inside it now, and the other way
    round.

    Parameters
    ----------
    campaign
        Open campaign whose chunks are done.
    inputs
        Hash of what is ranked (`ranking_inputs`), from before the last harvest. If another runner has ranked the same
        during this run, it is not ranked again. Default: it is ranked in any case.
    before
        Field ``ranked`` of the campaign's record at the start of this run.

    Returns
    -------
    dict
        Number of candidates queued, by stage; empty at the end of the campaign, or if another runner has queued some.
    """
    with turn(campaign, "ranking"):
        if campaign.queue.is_open(campaign.name):
            return {}
        ranked = campaign.record().get("ranked")
        if inputs is not None and ranked and ranked != before and ranked["inputs"] == inputs:
            return {}
        if campaign.funnel.duplicates and (n := settle_twins(campaign)):
            return {RELAX: n}
        representatives: dict[str, str] = {}
        if campaign.funnel.duplicates:
            _replace_references(campaign)
            representatives = equal_results(campaign.documents(_FIELDS), campaign.store.structure)
        if campaign.funnel.hull:
            campaign.rank()
        _record_stages(campaign, representatives)
        campaign.keep(ranked={"inputs": inputs, "ranking": uuid.uuid4().hex})
        return {stage: n for stage in campaign.funnel.properties if (n := _queue(campaign, stage))}


def ranking_inputs(campaign: Campaign) -> str:
    """
    Hash what a ranking depends on: the funnel, the references, the members and the jobs that have ended.

    Parameters
    ----------
    campaign
        Open campaign.
    """
    references = None if campaign.references is None else campaign.references.label
    digest = hashlib.sha256(json.dumps([campaign.funnel.to_dict(), references], sort_keys=True).encode())
    for identities in campaign.document_ids():
        digest.update("\n".join(identities).encode())
    for item in campaign.queue.items(campaign.name):
        digest.update(f"{item['work_id']} {item['state']} {item.get('ended_at')}\n".encode())
    return digest.hexdigest()


def equal_results(
    documents: Iterable[Mapping[str, Any]], structure_of: Callable[[str], Structure | None]
) -> dict[str, str]:
    """
    Find the converged candidates that are the same crystal as one of lower energy.

    References take no part: a candidate that relaxes to the crystal of an element remains a candidate, whichever of the
    two has the lower energy, see `replaced_references`.

    Parameters
    ----------
    documents
        Candidate documents of one checkpoint with one set of settings, in any order, or the part of them with
        ``document_id``, ``candidate_id``, ``source``, ``state``, ``formula_pretty`` and ``energy_per_atom``.
    structure_of
        Returns the relaxed structure of a document by its ``document_id``, or None.

    Returns
    -------
    dict
        Candidate id of the crystal of lowest energy, by the candidate id of each of its duplicates.

    Examples
    --------
    >>> from pymatgen.core import Lattice, Structure
    >>> iron = Structure(Lattice.cubic(2.87), ["Fe", "Fe"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    >>> common = {"state": "converged", "formula_pretty": "Fe"}
    >>> documents = [
    ...     {"document_id": "1", "candidate_id": "a", "source": "a.cif", "energy_per_atom": -8.0, **common},
    ...     {"document_id": "2", "candidate_id": "b", "source": "b.cif", "energy_per_atom": -8.001, **common},
    ...     {"document_id": "3", "candidate_id": "c", "source": "references", "energy_per_atom": -8.002, **common},
    ... ]
    >>> equal_results(documents, lambda document_id: iron)
    {'a': 'b'}
    """
    candidates, _ = _by_formula(documents)
    representatives: dict[str, str] = {}
    for rows in candidates.values():
        for group in _energy_groups(rows):
            items = [
                (candidate_id, structure, energy)
                for identity, candidate_id, energy in group
                if (structure := structure_of(identity)) is not None
            ]
            equal = group_equal(items)
            representatives |= {candidate: first for candidate, first in equal.items() if candidate != first}
    return representatives


def replaced_references(
    documents: Iterable[Mapping[str, Any]], structure_of: Callable[[str], Structure | None]
) -> dict[str, str]:
    """
    Find the references that are the same crystal as a candidate, and have its energy within the noise of relaxations.

    On a hull of one checkpoint the candidate takes the place of the reference. Otherwise it might lie a fraction of an
    meV/atom above itself.

    Parameters
    ----------
    documents, structure_of
        As for `equal_results`.

    Returns
    -------
    dict
        Candidate id of the candidate of lowest energy, by the document id of each reference it replaces.

    Examples
    --------
    >>> from pymatgen.core import Lattice, Structure
    >>> iron = Structure(Lattice.cubic(2.87), ["Fe", "Fe"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    >>> common = {"state": "converged", "formula_pretty": "Fe"}
    >>> documents = [
    ...     {"document_id": "1", "candidate_id": "a", "source": "a.cif", "energy_per_atom": -8.0, **common},
    ...     {
    ...         "document_id": "2",
    ...         "candidate_id": "b",
    ...         "source": "elemental reference",
    ...         "energy_per_atom": -8.0001,
    ...         **common,
    ...     },
    ... ]
    >>> replaced_references(documents, lambda document_id: iron)
    {'2': 'a'}
    """
    candidates, references = _by_formula(documents)
    replaced: dict[str, str] = {}
    for formula, rows in references.items():
        for identity, _, energy in rows:
            near = [row for row in candidates.get(formula, ()) if abs(row[2] - energy) <= _CONVERGENCE]
            if not near or (reference := structure_of(identity)) is None:
                continue
            for candidate_document, candidate_id, of_candidate in sorted(near, key=lambda row: (row[2], row[1])):
                structure = structure_of(candidate_document)
                if structure is None:
                    continue
                equal = group_equal([(identity, reference, energy), (candidate_id, structure, of_candidate)])
                if equal[identity] == equal[candidate_id]:
                    replaced[identity] = candidate_id
                    break
    return replaced


def _by_formula(
    documents: Iterable[Mapping[str, Any]],
) -> tuple[dict[str, list[_Row]], dict[str, list[_Row]]]:
    """Group the converged documents with an energy by formula: the candidates, and the references."""
    candidates: dict[str, list[_Row]] = {}
    references: dict[str, list[_Row]] = {}
    for document in documents:
        if document["state"] == "converged" and (energy := competing_energy(document)) is not None:
            group = references if document["source"] in REFERENCE_SOURCES else candidates
            row = (document["document_id"], document["candidate_id"], energy)
            group.setdefault(document["formula_pretty"], []).append(row)
    return candidates, references


def _replace_references(campaign: Campaign) -> None:
    """
    Mark the references that candidates replace, and have hulls computed again where a mark changes.

    A document that another campaign computed as a candidate keeps no mark: there it is ranked.
    """
    replaced = replaced_references(campaign.documents(_FIELDS), campaign.store.structure)
    changes = {
        document["document_id"]: {"duplicate_of": candidate, "hull_reference": None}
        for document in campaign.documents(_FIELDS)
        if document["source"] in REFERENCE_SOURCES
        and document.get("duplicate_of") != (candidate := replaced.get(document["document_id"]))
    }
    stored = campaign.store.documents(list(changes), ["document_id", "source"]) if changes else ()
    references = {document["document_id"] for document in stored if document["source"] in REFERENCE_SOURCES}
    changes = {identity: fields for identity, fields in changes.items() if identity in references}
    for batch in batched(changes, _WRITE_SIZE):
        campaign.store.set_fields({identity: changes[identity] for identity in batch})


def _energy_groups(rows: Sequence[_Row]) -> Iterator[list[_Row]]:
    """Yield groups of two or more rows without a gap in energy; rows are document id, candidate id and energy."""
    group: list[_Row] = []
    for row in sorted(rows, key=lambda row: (row[2], row[1])):
        if group and row[2] - group[-1][2] > ENERGY_TOLERANCE:
            if len(group) > 1:
                yield group
            group = []
        group.append(row)
    if len(group) > 1:
        yield group


def _record_stages(campaign: Campaign, representatives: dict[str, str]) -> None:
    """Write the stage at which each candidate was dropped, where the document has another one."""
    changes: dict[str, dict[str, Any]] = {}
    for document in campaign.documents(_FIELDS):
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
        if len(changes) >= _WRITE_SIZE:
            campaign.store.set_fields(changes)
            changes = {}
    campaign.store.set_fields(changes)


def _within(distance: float | None, window: float) -> bool:
    return distance is not None and distance <= window


def _queue(campaign: Campaign, stage: str) -> int:
    """Queue the survivors that lack a property, and return their number."""
    n = 0
    sharing, survivors = campaign.sharing.of_properties(), _survivors(campaign, stage)
    while chunk := list(islice(survivors, sharing.limit(CHUNK_SIZES[stage], n))):
        queue_chunk(campaign, stage, chunk, float(sum(len(candidate.structure or ()) for candidate in chunk)))
        n += len(chunk)
    return n


def _survivors(campaign: Campaign, stage: str) -> Iterator[Candidate]:
    """Yield the relaxed structures of survivors that lack a property, under their candidate ids."""
    for document in campaign.documents(_FIELDS):
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
