"""Check the ranking of a campaign by a second potential, or by labels that came back."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from matris.errors import MatrisError
from matris.flows.campaign.one_job import run_one_job
from matris.relaxation.relax import relax as compute
from matris.stores.documents.candidate import Candidate
from matris.stores.documents.documents import document_id, hull_fields, pressure_of
from matris.stores.documents.validation import Compared, Validation, validation
from matris.stores.hull.hull import OK, hull_results
from matris.stores.hull.references import load_references
from matris.stores.report.outcomes import ranked

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from torch_sim.models.interface import ModelInterface

    from matris.flows.campaign.results import CampaignResults
    from matris.makers.batch_relax import BatchRelaxMaker

_READ = (
    "document_id",
    "candidate_id",
    "source",
    "state",
    "formula_pretty",
    "energy_per_atom",
    "enthalpy_per_atom",
    "energy_above_hull",
    "hull_type",
    "is_stable",
    "duplicate_of",
)


def validate_by_maker(results: CampaignResults, maker: BatchRelaxMaker, top: int | None = None) -> Validation:
    """
    Compute the best candidates of a campaign, and the phases on their hull, by a second potential.

    The relaxed structures become candidates of their own in the store, under the second checkpoint, and get their own
    hull. Only the phases on the hull of the campaign, and the candidates compared, compete on it.

    Parameters
    ----------
    results
        A campaign that has ended, with a self-consistent hull.
    maker
        Evaluates (`matris.makers.BatchStaticMaker`) or relaxes (`matris.makers.BatchRelaxMaker`) by the second
        potential; at the pressure of the campaign if it relaxes.
    top
        Number of candidates, the best by the campaign. Default: all that are ranked.

    Raises
    ------
    MatrisError
        If the campaign has no self-consistent hull, or the second potential is the one of the campaign.
    """
    chosen, compared = _on_own_hull(results, top, maker.final_pressure())
    card = maker.card()
    if card.sha256 == results.origin[0]:
        raise MatrisError(f"{card.key} is the checkpoint of the campaign: validate with another one")
    candidates: dict[str, Candidate] = {}
    for document in chosen:
        structure = results.store.structure(document["document_id"])
        if structure is not None:
            candidates[document["document_id"]] = Candidate.from_structure(
                structure, document["source"], validates=document["document_id"]
            )
    distinct = list({each.candidate_id: each for each in candidates.values()}.values())
    run_one_job(maker, distinct, results.location, results.job_store)
    digest = maker.tag().digest
    results.store.update_hulls(checkpoint_sha256=card.sha256, settings_digest=digest)
    ids = {name: document_id(each.candidate_id, card.sha256, digest) for name, each in candidates.items()}
    found = {document["document_id"]: document for document in results.store.documents(list(ids.values()))}
    return _validation(results, card.key, compared, {name: found[i] for name, i in ids.items() if i in found})


def validate_by_model(
    results: CampaignResults,
    model: ModelInterface,
    name: str,
    energy_scale: str,
    top: int | None = None,
    *,
    relax: bool,
) -> Validation:
    """
    Compute the best candidates of a campaign, and the phases on their hull, by a model that is no checkpoint.

    Nothing is stored. As in `validate_by_maker`, only the phases on the hull of the campaign, and the candidates
    compared, compete.

    Parameters
    ----------
    results
        A campaign that has ended, with a self-consistent hull.
    model
        A torch-sim model, such as `matris.AseModel` of an ASE calculator.
    name
        Its name in the result.
    energy_scale
        Scale of its energies, see `matris.stores.documents.corrections.correction_scheme`.
    top
        Number of candidates, the best by the campaign. Default: all that are ranked.
    relax
        Whether to relax at the pressure of the campaign, or to evaluate.

    Raises
    ------
    MatrisError
        If the campaign has no self-consistent hull, or has a pressure and `relax` is false.
    """
    settings = results.record()["settings"]
    pressure = pressure_of(settings)
    chosen, compared = _on_own_hull(results, top, pressure if relax else 0.0)
    structures = {d["document_id"]: results.store.structure(d["document_id"]) for d in chosen}
    known = {key: structure for key, structure in structures.items() if structure is not None}
    documents = []
    for record in compute(known.values(), model, relax_cell=relax, pressure=pressure, max_steps=500 if relax else 0):
        converged = record.structure is not None and (record.state == "converged" or not relax)
        if record.structure is None or record.energy is None or not converged:
            continue
        fields = hull_fields(record.structure, record.energy, energy_scale, pressure)
        checkpoint = {"key": name, "sha256": name, "energy_scale": energy_scale}
        own = {"document_id": list(known)[record.index], "state": "converged", "settings": settings}
        documents.append(fields | own | {"checkpoint": checkpoint})
    places = {key: place.to_dict() for key, place in hull_results(documents).items()}
    return _validation(results, name, compared, places)


def validate_by_entries(results: CampaignResults, path: str | Path, top: int | None = None) -> Validation:
    """
    Compare a campaign with entries that came back from another calculation.

    Parameters
    ----------
    results
        A campaign that has ended.
    path
        File of computed entries, as `matris.stores.hull.references.load_references` reads it. An entry belongs to the
        candidate whose document or candidate id is its ``entry_id``, as in the entries that ``matris export`` writes;
        other entries, such as elements, compete on the hull.
    top
        Number of candidates, the best by the campaign. Default: all that are ranked.

    Raises
    ------
    MatrisError
        If the file cannot be read, or no entry belongs to a candidate.
    """
    _, compared = _chosen(results, top)
    settings = results.record()["settings"]
    scale = results.card_content["energy_scale"]
    references = load_references(path, scale, pressure=pressure_of(settings))
    documents = {
        str(entry.entry_id): {
            "document_id": str(entry.entry_id),
            "state": "converged",
            "chemsys": entry.composition.chemical_system,
            "composition": entry.composition.get_el_amt_dict(),
            "energy_per_atom": float(entry.energy_per_atom),
            "correction_scheme": None,
            "checkpoint": {"key": references.name, "sha256": references.sha256, "energy_scale": scale},
            "settings": settings,
        }
        for entry in references.entries
    }
    places = {name: place.to_dict() for name, place in hull_results(documents.values()).items()}
    found = {
        each["document_id"]: places[name]
        for each in compared
        for name in (each["document_id"], each["candidate_id"])
        if name in places
    }
    if not found:
        raise MatrisError(
            f"no entry of {path} belongs to a candidate of the campaign: the entry_id must be the document_id or the "
            "candidate_id, as in entries by matris export"
        )
    return _validation(results, references.name, compared, found)


def _chosen(results: CampaignResults, top: int | None) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Documents to compute, with those on the hull, and the ranked candidates among them."""
    documents = list(results.documents(_READ))
    compared = [dict(d) for d in ranked(documents) if d.get("energy_above_hull") is not None][:top]
    if not compared:
        raise MatrisError("no candidate of the campaign has a distance to the hull")
    on_hull = [d for d in documents if d.get("is_stable")]
    return list({d["document_id"]: d for d in [*compared, *on_hull]}.values()), compared


def _on_own_hull(
    results: CampaignResults, top: int | None, pressure: float
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Choose what a second potential computes, by relaxation under a pressure in GPa or by evaluation."""
    chosen, compared = _chosen(results, top)
    if any(document["hull_type"] != "self-consistent" for document in chosen):
        raise MatrisError("the campaign is ranked on a reference set, whose phases a second potential has not computed")
    if (own := pressure_of(results.record()["settings"])) != pressure:
        raise MatrisError(
            f"the campaign is at {own:g} GPa, and an evaluation has no pressure: relax by the second potential at "
            "that pressure (--relax)"
        )
    return chosen, compared


def _validation(
    results: CampaignResults,
    second: str,
    compared: Sequence[Mapping[str, Any]],
    places: Mapping[str, Mapping[str, Any]],
) -> Validation:
    """Compare the places of candidates."""
    pairs, left_out = [], Counter[str]()
    for document in compared:
        place = places.get(document["document_id"])
        if place is None:
            left_out["not computed"] += 1
        elif place.get("energy_above_hull") is None:
            left_out[str(place.get("hull_state") or place.get("error") or OK)] += 1
        else:
            pairs.append(
                Compared(
                    document_id=document["document_id"],
                    formula_pretty=document["formula_pretty"],
                    first=document["energy_above_hull"],
                    second=place["energy_above_hull"],
                )
            )
    return validation(results.card_content["key"], second, pairs, dict(left_out))
