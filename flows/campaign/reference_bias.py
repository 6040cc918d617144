"""Errors of a checkpoint on the phases of a reference set, before a hull of these references is believed."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from matris.errors import MatrisError
from matris.flows.campaign.one_job import run_one_job
from matris.flows.sources.known_phases import known_phases
from matris.stores.candidate_store import CandidateStore
from matris.stores.database.jobstore import open_job_store
from matris.stores.documents.bias import Bias, PhaseError, bias
from matris.stores.documents.documents import competing_energy, document_id
from matris.stores.hull.references import load_references

if TYPE_CHECKING:
    from pathlib import Path

    from matris.makers.batch_relax import BatchRelaxMaker


def reference_bias(path: str | Path, maker: BatchRelaxMaker, location: str | Path | None = None) -> Bias:
    """
    Compute the phases of a reference set by a checkpoint, and compare them with their entries.

    Parameters
    ----------
    path
        File of computed entries with structures, on the energy scale and at the pressure of the Maker.
    maker
        Evaluates (`matris.makers.BatchStaticMaker`) or relaxes (`matris.makers.BatchRelaxMaker`) the phases.
    location
        Store of the results, as for `matris.stores.database.jobstore.open_job_store`.

    Raises
    ------
    MatrisError
        If the file cannot be read, or its entries have no structures or are on another energy scale.
    """
    card, digest = maker.card(), maker.tag().digest
    references = load_references(path, card.energy_scale, pressure=maker.final_pressure())
    entries = {str(entry.entry_id): entry for entry in references.entries}
    systems = {entry.composition.chemical_system for entry in entries.values()}
    phases = [each for each in known_phases(path, systems) if str(each.provenance.get("entry_id")) in entries]
    if not phases:
        raise MatrisError(f"no entry of {path} has a structure and belongs on the energy scale {card.energy_scale}")
    job_store = open_job_store(location)
    run_one_job(maker, phases, location, job_store)
    store = CandidateStore.beside(job_store)
    errors, left_out = [], Counter[str]()
    for phase in phases:
        entry = entries[str(phase.provenance["entry_id"])]
        (document,) = store.documents([document_id(phase.candidate_id, card.sha256, digest)]) or [{}]
        energy = competing_energy(document)
        if document.get("state") != "converged" or energy is None:
            reason = document.get("error") or document.get("correction_scheme") or document.get("state")
            left_out[str(reason or "not computed")] += 1
            continue
        errors.append(
            PhaseError(
                entry_id=str(entry.entry_id),
                formula_pretty=entry.reduced_formula,
                composition=entry.composition.get_el_amt_dict(),
                error=energy - float(entry.energy_per_atom),
            )
        )
    if missing := len(entries) - len(phases):
        left_out["no structure, or the same as another"] += missing
    return bias(card.key, references.label, errors, dict(left_out))
